//! `/api/v1/wal/*`: what `gateway wal ...` asks of a gateway that holds the folder.
//!
//! A counter window: the clerk behind it ([`WalDesk`]) knows the log, this side knows HTTP. Weakness: the desk may read the disk,
//! so its answers come from a thread of their own and one at a time may be slow.

use super::answer::{ApiError, json};
use super::query::{Query, decode};
use super::{App, blocking};
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde_json::Value;
use std::sync::Arc;

/// Rows of one page of the quarantine list, unless asked otherwise, and at most.
const ROWS: usize = 100;
const ROWS_MAX: usize = 1000;

/// What the holder of the logs can do for an operator. Called on a thread that may wait for the disk.
pub trait WalDesk: Send + Sync + 'static {
    /// Bytes, segments and cursors of every log.
    fn stats(&self) -> Result<Value, ApiError>;
    /// At most `limit` quarantined records, newest first, older than `before` if it is given.
    fn quarantine(&self, limit: usize, before: Option<u64>) -> Result<Value, ApiError>;
    /// One quarantined record, payload included. Errors: 404 when it is not held.
    fn quarantined(&self, id: u64) -> Result<Value, ApiError>;
    /// Gives up what waits for a destination that is no longer configured. Errors: 404 unknown, 409 still configured.
    fn forget(&self, kind: &str, name: &str) -> Result<Value, ApiError>;
    /// Reads every record of every log. Slow.
    fn verify(&self) -> Result<Value, ApiError>;
    /// One page of a log's frames from number `from` on, as stored. Errors: 404 when there is no such log.
    fn export(&self, log: &str, from: u64) -> Result<Value, ApiError> {
        let _ = (log, from);
        Err(closed())
    }
}

type Answer = Result<Response, ApiError>;

async fn ask(app: &App, work: impl FnOnce(&dyn WalDesk) -> Result<Value, ApiError> + Send + 'static) -> Answer {
    let desk = app.parts.wal.clone();
    let value = blocking(move || work(&*desk)).await??;
    Ok(json(StatusCode::OK, &value))
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Answer {
    ask(&app, |desk| desk.stats()).await
}

pub(super) async fn quarantine(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let query = Query::parse(uri.query());
    let limit = query.number("limit")?.unwrap_or(ROWS).clamp(1, ROWS_MAX);
    let before = query.number("before")?;
    ask(&app, move |desk| desk.quarantine(limit, before)).await
}

pub(super) async fn quarantined(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let id = last(&uri).parse().map_err(|_| ApiError::missing("a quarantined record is named by its number"))?;
    ask(&app, move |desk| desk.quarantined(id)).await
}

pub(super) async fn forget(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let (kind, name) = (part(&uri, 1), last(&uri));
    ask(&app, move |desk| desk.forget(&kind, &name)).await
}

/// A segment of the path, counted from its end.
fn part(uri: &Uri, from_end: usize) -> String {
    decode(uri.path().rsplit('/').nth(from_end).unwrap_or_default())
}

fn last(uri: &Uri) -> String {
    part(uri, 0)
}

pub(super) async fn export(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let log = last(&uri);
    let from = Query::parse(uri.query()).number("from")?.unwrap_or(0);
    ask(&app, move |desk| desk.export(&log, from)).await
}

pub(super) async fn verify(State(app): State<Arc<App>>) -> Answer {
    ask(&app, |desk| desk.verify()).await
}

/// For a gateway without logs, and for tests.
pub struct NoDesk;

impl WalDesk for NoDesk {
    fn stats(&self) -> Result<Value, ApiError> {
        Err(closed())
    }
    fn quarantine(&self, _: usize, _: Option<u64>) -> Result<Value, ApiError> {
        Err(closed())
    }
    fn quarantined(&self, _: u64) -> Result<Value, ApiError> {
        Err(closed())
    }
    fn forget(&self, _: &str, _: &str) -> Result<Value, ApiError> {
        Err(closed())
    }
    fn verify(&self) -> Result<Value, ApiError> {
        Err(closed())
    }
}

fn closed() -> ApiError {
    ApiError::missing("this gateway holds no log")
}
