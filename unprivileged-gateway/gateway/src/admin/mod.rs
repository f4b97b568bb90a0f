//! Port 12345: the page, the API, health and metrics.
//!
//! The front office of the machine: it shows what the counters, the log and the view say, and changes nothing but what an operator
//! asks of the log. Every request passes the `gate` first (host, origin, key), then one of the small files here. Everything that
//! takes a lock of the store runs on a thread that may wait, so that a dead-locked store makes `/-/live` fail instead of hanging
//! it. Weakness: one listener for people and probes; whoever fills its connections blinds both.

mod answer;
mod events;
mod explore;
mod gate;
mod health;
mod history;
mod page;
mod query;
mod serve;
mod status;
mod token;
mod wal;

pub use answer::ApiError;
pub use serve::{CONNECTIONS_MAX, HEADER_BYTES_MAX};
pub use token::{TOKEN_FILE, TokenError, token};
pub use wal::{NoDesk, WalDesk};

use crate::config::{Explained, Http, Loaded, Secret};
use crate::probe::{Board, Shown};
use crate::telemetry::{StatusSnapshot, StatusSource, Telemetry, unix_ms};
use crate::tls;
use crate::view::View;
use answer::{json, text};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gate::{Connection, Gate, Verdict};
use history::{History, SAMPLES_MAX};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use query::Query;
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

/// Searches of the view at one time; each may use a core for some tens of milliseconds.
const SEARCHES_MAX: usize = 2;
/// A store that does not answer within this time is dead-locked.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// One sample of the curves and one status for the streams.
const BEAT: Duration = Duration::from_secs(1);

/// Scripts, styles and requests from this origin only; pictures also from `data:`; no frames, no forms, no base.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Who this node is, as the status shows it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    /// 32 hex digits.
    pub id: String,
    /// `node` or `cluster`.
    pub role: &'static str,
}

/// Where the gateway is reached, as a person would type it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Addresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ui: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_grpc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_http: Option<String>,
}

/// `/api/v1/config`: what is in force, secrets masked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigPage {
    pub yaml: String,
    pub files: Vec<String>,
    pub explain: Vec<Explained>,
}

impl ConfigPage {
    pub fn of(loaded: &Loaded) -> ConfigPage {
        let files = loaded.files.iter().map(|file| file.display().to_string()).collect();
        ConfigPage { yaml: loaded.yaml(), files, explain: loaded.explain() }
    }
}

/// Everything the front office shows.
pub struct Parts {
    pub telemetry: Telemetry,
    pub status: Arc<dyn StatusSource>,
    /// `None`: `local_view` is off.
    pub view: Option<View>,
    /// `None`: no probe is expected.
    pub probe: Option<Board>,
    pub wal: Arc<dyn WalDesk>,
    pub node: NodeInfo,
    pub addresses: Addresses,
    pub config: ConfigPage,
    pub http: Http,
    /// Of [`token`]; asked for while `http.auth` is unset.
    pub token: Secret,
}

struct App {
    parts: Parts,
    gate: Gate,
    history: History,
    searches: Semaphore,
    streams: Arc<Semaphore>,
    /// The newest status as JSON text; empty before the first.
    beat: watch::Sender<Arc<str>>,
    /// True once the listener closes: event streams end, they would outlast any patience.
    ended: watch::Sender<bool>,
}

/// The front office. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    app: Arc<App>,
    router: Router,
}

impl Admin {
    pub fn new(parts: Parts) -> Admin {
        let app = Arc::new(App {
            gate: Gate::new(parts.http.auth.clone(), parts.token.clone(), &parts.http.hosts),
            history: History::default(),
            searches: Semaphore::new(SEARCHES_MAX),
            streams: Arc::new(Semaphore::new(events::STREAMS_MAX)),
            beat: watch::channel("".into()).0,
            ended: watch::channel(false).0,
            parts,
        });
        Admin { router: router(app.clone()), app }
    }

    /// Serves `listener` until `shutdown`; also draws the curves meanwhile. Returns after open requests had a second to finish.
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<tls::Server>>, shutdown: impl Future<Output = ()>) {
        // Dropped at the end, which stops the beat.
        let mut beat = JoinSet::new();
        beat.spawn(beat_for_ever(self.app.clone()));
        serve::serve(self, listener, tls, shutdown).await;
    }
}

impl App {
    /// Traces ever begun in the view.
    fn traces_seen(&self) -> u64 {
        self.parts.view.as_ref().map_or(0, |view| view.stats().traces_seen)
    }
}

fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/status", get(current_status))
        .route("/events", get(events::events))
        .route("/history", get(past))
        .route("/logs", get(explore::logs))
        .route("/traces", get(explore::traces))
        .route("/traces/{id}", get(explore::trace))
        .route("/series", get(explore::series))
        .route("/query_range", get(explore::query_range))
        .route("/processes", get(explore::processes))
        .route("/profile", get(explore::profile))
        .route("/probe", get(probe))
        .route("/config", get(config))
        .route("/wal/stats", get(wal::stats))
        .route("/wal/verify", post(wal::verify))
        .route("/wal/quarantine", get(wal::quarantine))
        .route("/wal/quarantine/{id}", get(wal::quarantined))
        .route("/wal/export/{log}", get(wal::export))
        .route("/wal/forget/{kind}/{name}", post(wal::forget));
    Router::new()
        .nest("/api/v1", api)
        .route("/-/ready", get(health::ready))
        .route("/-/healthy", get(health::healthy))
        .route("/-/live", get(health::live))
        .route("/metrics", get(health::metrics))
        .route("/", get(page))
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Work that may wait for a lock or walk the view, on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer was ended by a bug; the log has the details")
    })
}

/// One photograph. Errors: 503 when it is not there in time.
async fn snapshot(app: &App) -> Result<StatusSnapshot, ApiError> {
    let source = app.parts.status.clone();
    match timeout(ANSWER_MAX, blocking(move || source.snapshot())).await {
        Ok(taken) => taken,
        Err(_) => Err(ApiError::busy(format!("the store did not answer within {} s", ANSWER_MAX.as_secs()))),
    }
}

/// Once a second: a sample for the curves, a status for the streams, and out with what is older than the view's window.
async fn beat_for_ever(app: Arc<App>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        // A store that does not answer leaves a gap in the curves; the page sees the silence.
        let Ok(snapshot) = snapshot(&app).await else { continue };
        let now_ms = unix_ms();
        app.history.sample(now_ms, &app.parts.telemetry, &snapshot);
        if let Some(view) = &app.parts.view {
            view.expire(now_ms.saturating_mul(1_000_000));
        }
        app.beat.send_replace(status::status(&app.parts, &snapshot).to_string().into());
    }
}

async fn current_status(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let snapshot = snapshot(&app).await?;
    Ok(json(StatusCode::OK, &status::status(&app.parts, &snapshot)))
}

async fn past(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let window_s = Query::parse(uri.query()).number("window_s")?.unwrap_or(SAMPLES_MAX as u64);
    Ok(json(StatusCode::OK, &app.history.answer(window_s)))
}

async fn config(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.parts.config)
}

async fn probe(State(app): State<Arc<App>>) -> Response {
    let shown = app.parts.probe.as_ref().map_or_else(Shown::unconfigured, Board::shown);
    json(StatusCode::OK, &shown)
}

async fn page(uri: Uri, headers: HeaderMap) -> Response {
    page::file(&uri, &headers)
}

async fn elsewhere(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    match uri.path() {
        path if is_api(path) => ApiError::missing("there is no such path in this API").into_response(),
        _ if method == Method::GET || method == Method::HEAD => page::file(&uri, &headers),
        _ => text(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

async fn wrong_method(uri: Uri) -> Response {
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method");
    if is_api(uri.path()) { error.into_response() } else { text(error.status, &error.message) }
}

fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// The gate before, the headers after.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(connection) = request.extensions().get::<Connection>().copied() else {
        return with_headers(text(StatusCode::INTERNAL_SERVER_ERROR, "a request without a connection"));
    };
    let verdict = app.gate.judge(request.method(), request.uri(), request.headers(), connection);
    with_headers(match verdict {
        Verdict::Pass => next.run(request).await,
        Verdict::Welcome { cookie, to } => welcome(&cookie, &to),
        Verdict::Refuse { status, message, challenge } => refuse(&request, status, message, challenge),
    })
}

fn welcome(cookie: &str, to: &str) -> Response {
    let mut response = text(StatusCode::SEE_OTHER, "welcome");
    for (name, value) in [(header::SET_COOKIE, cookie), (header::LOCATION, to)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn refuse(request: &Request, status: StatusCode, message: String, challenge: Option<&'static str>) -> Response {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if is_api(request.uri().path()) {
        ApiError::new(status, message).into_response()
    } else if status == StatusCode::UNAUTHORIZED && header("accept").contains("text/html") {
        // A link on a foreign page brings no strict cookie; loading once more from here does.
        let again =
            if header("sec-fetch-site") == "cross-site" { "<meta http-equiv=\"refresh\" content=\"0\">" } else { "" };
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">{again}<title>Bulkhead</title><h1>Bulkhead</h1><p>{}</p></html>",
            message.replace('&', "&amp;").replace('<', "&lt;")
        );
        answer::typed(status, "text/html; charset=utf-8", page)
    } else {
        text(status, &message)
    };
    if let Some(challenge) = challenge {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn with_headers(mut response: Response) -> Response {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
