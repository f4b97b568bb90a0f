//! `/api/v1/logs`, `traces`, `series`, `query_range`, `processes` and `profile`: questions of the page to the local view.

use super::answer::{ApiError, json};
use super::query::Query;
use super::{App, blocking};
use crate::view::{
    LINES_MAX, LineId, LogFilter, LogQuery, NAMES_MAX, ProfileQuery, RangeQuery, Selector, TRACES_MAX, TraceOrder,
    TraceQuery, View,
};
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SemaphorePermit;

const LINES: usize = 200;
const TRACES: usize = 100;
const NAMES: usize = 500;
const POINTS: usize = 300;
/// How long a question waits for others to finish.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = Result<Response, ApiError>;

fn view(app: &App) -> Result<View, ApiError> {
    app.parts.view.clone().ok_or_else(|| {
        ApiError::new(
            StatusCode::CONFLICT,
            "the local view is off: add local_view: { max: 64MiB } to the configuration",
        )
    })
}

/// One of the few places for work that walks the whole view.
async fn place(app: &App) -> Result<SemaphorePermit<'_>, ApiError> {
    let place = tokio::time::timeout(PATIENCE, app.searches.acquire()).await;
    place
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| ApiError::busy("too many searches are running; ask again in a moment"))
}

/// The part of a query that a tail takes too. Errors: a time that is no number.
pub(super) fn filter(query: &Query) -> Result<LogFilter, ApiError> {
    Ok(LogFilter {
        q: query.text("q").to_owned(),
        levels: query.list("level"),
        services: query.list("service"),
        trace_id: query.text("trace_id").to_owned(),
        pairs: query.prefixed("label."),
        from_ms: query.number("from_ms")?,
        to_ms: query.number("to_ms")?,
    })
}

pub(super) async fn logs(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let query = Query::parse(uri.query());
    let before = match query.text("before") {
        "" => None,
        id => Some(
            LineId::parse(id).ok_or_else(|| ApiError::bad("before is not the id of a line; take it from an answer"))?,
        ),
    };
    let limit = query.number("limit")?.unwrap_or(LINES).min(LINES_MAX);
    let asked = LogQuery { filter: filter(&query)?, limit, before };
    let _place = place(&app).await?;
    let answer = blocking(move || view.search(&asked)).await?;
    Ok(json(StatusCode::OK, &answer))
}

pub(super) async fn traces(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let query = Query::parse(uri.query());
    let order = match query.text("sort") {
        "" | "newest" => TraceOrder::Newest,
        "slowest" => TraceOrder::Slowest,
        _ => return Err(ApiError::bad("sort is newest or slowest")),
    };
    let failed = match query.text("status") {
        "" => false,
        "error" => true,
        _ => return Err(ApiError::bad("status is error, or left out")),
    };
    let asked = TraceQuery {
        service: query.text("service").to_owned(),
        q: query.text("q").to_owned(),
        failed,
        min_ms: query.number::<f64>("min_ms")?.filter(|ms| ms.is_finite()).unwrap_or(0.0),
        order,
        limit: query.number("limit")?.unwrap_or(TRACES).min(TRACES_MAX),
    };
    let _place = place(&app).await?;
    let answer = blocking(move || view.list_traces(&asked)).await?;
    Ok(json(StatusCode::OK, &answer))
}

pub(super) async fn trace(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let id = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let _place = place(&app).await?;
    let detail = blocking(move || view.trace(&id)).await?;
    let detail = detail.ok_or_else(|| {
        ApiError::missing("no such trace is held: it is older than the view, or the id is not 32 hex digits")
    })?;
    Ok(json(StatusCode::OK, &detail))
}

pub(super) async fn series(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let query = Query::parse(uri.query());
    let limit = query.number("limit")?.unwrap_or(NAMES).min(NAMES_MAX);
    let q = query.text("q").to_owned();
    let _place = place(&app).await?;
    let answer = blocking(move || view.series_names(&q, limit)).await?;
    Ok(json(StatusCode::OK, &answer))
}

pub(super) async fn query_range(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let query = Query::parse(uri.query());
    let rate = match query.text("rate") {
        "" | "0" => false,
        "1" => true,
        _ => return Err(ApiError::bad("rate is 1 or 0")),
    };
    let asked = RangeQuery {
        selector: Selector::parse(query.text("query")).map_err(|e| ApiError::bad(e.to_string()))?,
        from_ms: query.number("from_ms")?,
        to_ms: query.number("to_ms")?,
        max_points: query.number("max_points")?.unwrap_or(POINTS),
        rate,
    };
    let _place = place(&app).await?;
    let answer = blocking(move || view.range(&asked)).await?;
    Ok(json(StatusCode::OK, &answer))
}

/// Service, process and time. Errors: a number that is none.
fn stacks(query: &Query) -> Result<ProfileQuery, ApiError> {
    Ok(ProfileQuery {
        service: query.text("service").to_owned(),
        pid: query.number("pid")?,
        from_ms: query.number("from_ms")?,
        to_ms: query.number("to_ms")?,
    })
}

pub(super) async fn processes(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let asked = stacks(&Query::parse(uri.query()))?;
    let _place = place(&app).await?;
    let answer = blocking(move || view.processes(&asked)).await?;
    Ok(json(StatusCode::OK, &answer))
}

pub(super) async fn profile(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let view = view(&app)?;
    let asked = stacks(&Query::parse(uri.query()))?;
    let _place = place(&app).await?;
    let answer = blocking(move || view.profile(&asked)).await?;
    Ok(json(StatusCode::OK, &answer))
}
