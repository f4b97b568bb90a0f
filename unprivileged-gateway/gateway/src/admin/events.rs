//! `/api/v1/events`: what the page hears without asking.
//!
//! A radio: the status goes out once a second whether anybody listens or not, and a listener who also wants log lines gets those
//! that pass its filter, in handfuls. Who is too slow hears how many lines it missed. Weakness: one stream a tab; more than
//! [`STREAMS_MAX`] are refused.

use super::answer::ApiError;
use super::query::Query;
use super::{App, explore};
use crate::view::{ShownLine, Tail, Tailed};
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderValue, Uri, header};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// Open streams.
pub(super) const STREAMS_MAX: usize = 32;
/// Lines of one event.
const LINES_MAX: usize = 200;
/// Lines are gathered this long before they are sent.
const GATHER: Duration = Duration::from_millis(100);

/// Answers with the stream, or 503 when too many are open.
pub(super) async fn events(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let query = Query::parse(uri.query());
    let tail = match query.text("logs") {
        "1" | "true" => {
            let view = app.parts.view.as_ref();
            let filter = explore::filter(&query)?;
            view.map(|view| view.tail(filter))
        }
        _ => None,
    };
    let place = app.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy("too many pages are open on this gateway; close one"))?;
    let traces_seen = app.traces_seen();
    let status = app.beat.subscribe();
    // The newest status at once: a page must not wait a second for its first numbers.
    let newest = app.beat.borrow().clone();
    let first = (!newest.is_empty()).then(|| Event::default().event("status").data(&*newest));
    let ready = first.into_iter().collect();
    let ended = app.ended.subscribe();
    let listener =
        Listener { app, status, ended, tail, gathered: Gathered::default(), traces_seen, ready, _place: place };
    let events = stream::unfold(listener, Listener::next);
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy must pass each event on as it comes.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Listener {
    app: Arc<App>,
    status: watch::Receiver<Arc<str>>,
    ended: watch::Receiver<bool>,
    tail: Option<Tail>,
    gathered: Gathered,
    traces_seen: u64,
    /// Events that are due.
    ready: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Gathered {
    lines: VecDeque<ShownLine>,
    skipped: u64,
    /// When they are to be sent.
    due: Option<Instant>,
}

#[derive(Serialize)]
struct LogsEvent<'a> {
    lines: &'a VecDeque<ShownLine>,
    skipped: u64,
}

impl Gathered {
    /// Keeps the newest [`LINES_MAX`]; the rest counts as skipped.
    fn add(&mut self, tailed: Tailed) {
        self.skipped += tailed.skipped;
        self.lines.extend(tailed.lines);
        while self.lines.len() > LINES_MAX {
            self.lines.pop_front();
            self.skipped += 1;
        }
        if self.due.is_none() && (self.skipped > 0 || !self.lines.is_empty()) {
            self.due = Some(Instant::now() + GATHER);
        }
    }

    fn take(&mut self) -> Option<Event> {
        let event = event("logs", &LogsEvent { lines: &self.lines, skipped: self.skipped });
        *self = Gathered::default();
        event
    }
}

fn event(name: &str, value: &impl Serialize) -> Option<Event> {
    serde_json::to_string(value).ok().map(|data| Event::default().event(name).data(data))
}

impl Listener {
    /// The next event; `None` when the gateway ends.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Listener)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            self.wait().await?;
        }
    }

    async fn wait(&mut self) -> Option<()> {
        let due = self.gathered.due;
        tokio::select! {
            _ = self.ended.wait_for(|ended| *ended) => return None,
            changed = self.status.changed() => {
                changed.ok()?;
                let text = self.status.borrow_and_update().clone();
                self.ready.push_back(Event::default().event("status").data(&*text));
                let seen = self.app.traces_seen();
                if seen > self.traces_seen {
                    self.ready.extend(event("traces", &serde_json::json!({ "new": seen - self.traces_seen })));
                    self.traces_seen = seen;
                }
            }
            tailed = next_of(&mut self.tail) => self.gathered.add(tailed?),
            () = sleep_until(due) => self.ready.extend(self.gathered.take()),
        }
        Some(())
    }
}

async fn next_of(tail: &mut Option<Tail>) -> Option<Tailed> {
    match tail {
        Some(tail) => tail.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
