//! What an operator may ask of a running gateway's logs: the clerk behind the counter of `/api/v1/wal/*`.
//!
//! He looks with clean hands ([`wal::inspect`]) and changes one thing only: [`Store::forget`] gives up what waits for a destination
//! that has left the configuration, as a synced tombstone. Logs that this start does not serve lie in the folder too; they are shown,
//! and left alone. Weakness: a look reads the disk, so verifying a large backlog competes with the destinations for it.

use crate::admin::{ApiError, WalDesk};
use crate::config::Config;
use crate::seam::Signal;
use crate::store::{Quarantined, Store, destinations_of, now_ns, report};
use crate::telemetry::Telemetry;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use wal::inspect::{InspectError, Inspection, LogView};
use wal::{DestinationId, Log, QUARANTINE};

/// Rule under which records of a forgotten destination are counted as dropped.
pub const FORGET_RULE: &str = "forget";

/// Why a log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Folder(#[from] InspectError),
    #[error("the {log} log cannot be read: {source}")]
    Log { log: String, source: std::io::Error },
}

/// Why nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("{destination} is not registered in any log; registered are {known}")]
    Unknown { destination: String, known: String },
    #[error("{destination} is still in the configuration: remove it there first, or say `on_remove: discard`")]
    Configured { destination: String },
    #[error(
        "{destination} is registered in the {log} log only, which this gateway does not serve: stop it and try again"
    )]
    NotOpen { destination: String, log: String },
    #[error("{0}")]
    Failed(String),
}

/// What was given up with a destination, by log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub log: String,
    pub records: u64,
    pub bytes: u64,
}

/// The answer to `forget`.
pub fn given(destination: &str, given: &[Given]) -> Value {
    json!({
        "destination": destination,
        "records": given.iter().map(|g| g.records).sum::<u64>(),
        "bytes": given.iter().map(|g| g.bytes).sum::<u64>(),
        "logs": given.iter().map(|g| json!({"log": g.log, "records": g.records, "bytes": g.bytes})).collect::<Vec<_>>(),
    })
}

/// Whether the configuration gives `log` this destination. The operator's own place in quarantine counts as configured.
pub fn is_configured(config: &Config, log: &str, id: &DestinationId) -> bool {
    match Signal::ALL.into_iter().find(|s| s.name() == log) {
        Some(signal) => destinations_of(config, signal).iter().any(|d| d.id() == *id),
        None => log == QUARANTINE && Quarantined::keeper().id() == *id,
    }
}

impl Store {
    fn open_logs(&self) -> impl Iterator<Item = &Log> {
        self.logs().map(|l| &l.log).chain([self.quarantine().log()])
    }

    /// Every log of the folder, those that are not served last.
    fn views(&self) -> Result<Vec<(LogView, Option<&Log>)>, LookError> {
        let mut views = Vec::new();
        for log in self.open_logs() {
            let view = LogView::live(log).map_err(|source| LookError::Log { log: log.name().to_owned(), source })?;
            views.push((view, Some(log)));
        }
        let seen = Inspection::held(self.folder())?;
        let open: BTreeSet<&str> = self.open_logs().map(Log::name).collect();
        for name in seen.logs.iter().filter(|name| !open.contains(name.as_str())) {
            views.push((seen.log(name)?, None));
        }
        Ok(views)
    }

    /// Bytes, segments and destinations of every log.
    pub fn wal_stats(&self) -> Result<Value, LookError> {
        let mut logs = Vec::new();
        for (view, open) in self.views()? {
            let stats = open.map(Log::stats);
            let configured = |id: &DestinationId| {
                let known = stats.iter().flat_map(|s| &s.destinations).find(|d| d.id == *id);
                Some(known.is_some_and(|d| d.configured))
            };
            let mut value = report::stats(&view, now_ns(), &configured);
            value["served"] = stats.is_some().into();
            if let Some(stats) = &stats {
                value["fill"] = stats.pressure.fraction.into();
                value["damage"] = json!(stats.damage);
            }
            logs.push(value);
        }
        Ok(self.framed(json!({"max_bytes": self.space().max()}), logs))
    }

    /// Reads every record of every log.
    pub fn wal_verify(&self) -> Result<Value, LookError> {
        let logs: Vec<Value> =
            self.views()?.iter().map(|(view, _)| report::verified(&view.name, &view.verify())).collect();
        let ok = logs.iter().all(|log| log["ok"] == true);
        Ok(self.framed(json!({"ok": ok}), logs))
    }

    fn framed(&self, mut value: Value, logs: Vec<Value>) -> Value {
        value["path"] = self.folder().path().display().to_string().into();
        value["pid"] = std::process::id().into();
        value["node"] = self.folder().node().to_string().into();
        value["logs"] = logs.into();
        value
    }

    fn quarantine_view(&self) -> Result<LogView, LookError> {
        let source = |source| LookError::Log { log: QUARANTINE.to_owned(), source };
        LogView::live(self.quarantine().log()).map_err(source)
    }

    /// The newest `limit` quarantined pieces older than `before`, newest first.
    pub fn quarantine_list(&self, limit: usize, before: Option<u64>) -> Result<Value, LookError> {
        Ok(report::quarantine_list(&self.quarantine_view()?, limit, before))
    }

    /// One quarantined piece with its payload.
    pub fn quarantine_show(&self, id: u64) -> Result<Option<Value>, LookError> {
        Ok(report::quarantine_show(&self.quarantine_view()?, id))
    }

    /// One page of a log's frames from `from` on. `None`: there is no such log.
    pub fn wal_export(&self, log: &str, from: u64) -> Result<Option<Value>, LookError> {
        let view = self.views()?.into_iter().map(|(view, _)| view).find(|view| view.name == log);
        let start = |view: &LogView| if log == QUARANTINE { report::quarantine_start(view).max(from) } else { from };
        Ok(view.map(|view| report::export_page(&view, start(&view), report::PAGE_BYTES)))
    }

    /// Gives up what waits for a destination in every log where it is no longer configured; synced when it returns.
    pub fn forget(&self, destination: &DestinationId, config: &Config) -> Result<Vec<Given>, ForgetError> {
        let (mut known, mut kept, mut done) = (BTreeSet::new(), false, Vec::new());
        for log in self.open_logs() {
            for d in log.stats().destinations {
                known.insert(d.id.to_string());
                if d.id != *destination {
                    continue;
                }
                if d.configured || is_configured(config, log.name(), destination) {
                    kept = true;
                    continue;
                }
                let gone = log.forget(destination, now_ns()).map_err(|e| ForgetError::Failed(e.to_string()))?;
                done.push(Given { log: log.name().to_owned(), records: gone.items, bytes: gone.bytes });
            }
        }
        let destination = destination.to_string();
        match (done.is_empty(), kept) {
            (false, _) => Ok(done),
            (true, true) => Err(ForgetError::Configured { destination }),
            (true, false) => Err(self.unknown(destination, known)),
        }
    }

    fn unknown(&self, destination: String, mut known: BTreeSet<String>) -> ForgetError {
        let views = match self.views() {
            Ok(views) => views,
            Err(e) => return ForgetError::Failed(e.to_string()),
        };
        for (view, _) in views.iter().filter(|(_, open)| open.is_none()) {
            let ids: Vec<String> = view.destinations().into_iter().map(|d| d.id.to_string()).collect();
            if ids.contains(&destination) {
                return ForgetError::NotOpen { destination, log: view.name.clone() };
            }
            known.extend(ids);
        }
        ForgetError::Unknown { destination, known: listed(&known) }
    }
}

/// Names for a sentence.
pub fn listed(names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// The clerk.
pub struct Desk {
    store: Store,
    config: Arc<Config>,
    telemetry: Telemetry,
}

impl Desk {
    pub fn new(store: Store, config: Arc<Config>, telemetry: Telemetry) -> Desk {
        Desk { store, config, telemetry }
    }
}

fn failed(e: LookError) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
}

impl WalDesk for Desk {
    fn stats(&self) -> Result<Value, ApiError> {
        self.store.wal_stats().map_err(failed)
    }

    fn quarantine(&self, limit: usize, before: Option<u64>) -> Result<Value, ApiError> {
        self.store.quarantine_list(limit, before).map_err(failed)
    }

    fn quarantined(&self, id: u64) -> Result<Value, ApiError> {
        let held = self.store.quarantine_show(id).map_err(failed)?;
        held.ok_or_else(|| ApiError::missing(format!("no quarantined record has the number {id}")))
    }

    fn forget(&self, kind: &str, name: &str) -> Result<Value, ApiError> {
        let id = DestinationId::new(kind, name);
        let gone = self.store.forget(&id, &self.config).map_err(|e| {
            let status = match e {
                ForgetError::Unknown { .. } => StatusCode::NOT_FOUND,
                ForgetError::Configured { .. } | ForgetError::NotOpen { .. } => StatusCode::CONFLICT,
                ForgetError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            ApiError::new(status, e.to_string())
        })?;
        for given in &gone {
            tracing::warn!(destination = %id, log = given.log, records = given.records, "forgotten at an operator's word");
            if let Some(signal) = Signal::ALL.into_iter().find(|s| s.name() == given.log) {
                self.telemetry.dropped(signal, FORGET_RULE, given.records);
            }
        }
        Ok(given(id.as_str(), &gone))
    }

    fn verify(&self) -> Result<Value, ApiError> {
        self.store.wal_verify().map_err(failed)
    }

    fn export(&self, log: &str, from: u64) -> Result<Value, ApiError> {
        let page = self.store.wal_export(log, from).map_err(failed)?;
        page.ok_or_else(|| ApiError::missing(format!("there is no {log} log in this folder")))
    }
}
