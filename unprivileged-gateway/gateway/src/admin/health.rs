//! `/-/ready`, `/-/healthy`, `/-/live` and `/metrics`: what orchestrators and scrapers ask.
//!
//! Three different questions: may traffic come (ready), is every part well (healthy), does the process still turn (live). Only the
//! last may get it killed, so it asks for nothing but an answer in time. Weakness: a log whose disk is full is healthy; it says so
//! in ready and in its metrics.

use super::answer::{ApiError, text, typed};
use super::{App, snapshot};
use crate::telemetry::negotiate;
use axum::extract::State;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::io::Write;
use std::sync::Arc;

pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    match snapshot(&app).await {
        Ok(snapshot) if snapshot.ready.ok() => text(StatusCode::OK, "ready"),
        Ok(snapshot) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {}", snapshot.ready.why.join("; "))),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {error}")),
    }
}

pub(super) async fn healthy(State(app): State<Arc<App>>) -> Response {
    let snapshot = match snapshot(&app).await {
        Ok(snapshot) => snapshot,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("unhealthy: {error}")),
    };
    let closed = snapshot.logs.iter().filter_map(|log| Some(format!("log {} ({})", log.name, log.closed.as_ref()?)));
    match closed.collect::<Vec<_>>() {
        unhealthy if unhealthy.is_empty() => text(StatusCode::OK, "all parts are healthy"),
        unhealthy => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("unhealthy: {}", unhealthy.join(", "))),
    }
}

/// 500 only when the locks that everything needs do not come free in time.
pub(super) async fn live(State(app): State<Arc<App>>) -> Response {
    match snapshot(&app).await {
        Ok(_) => text(StatusCode::OK, "live"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.message),
    }
}

pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let snapshot = snapshot(&app).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = negotiate(accept);
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written");
    let mut body = app.parts.telemetry.exposition(format, &snapshot).map_err(failed)?;
    let zipped = takes_gzip(&headers);
    if zipped {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        body = encoder.write_all(&body).and_then(|()| encoder.finish()).map_err(|_| failed(std::fmt::Error))?;
    }
    let mut response = typed(StatusCode::OK, format.content_type(), body);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if zipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}
