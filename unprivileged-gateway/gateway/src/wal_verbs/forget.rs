//! `gateway wal forget`: the one verb that writes.
//!
//! A name is crossed off the list on the door, for good. Beside a running gateway that gateway does it; otherwise the folder is
//! locked and each log that knows the name is opened as at a start (which copies its tail), given the tombstone and closed; what
//! becomes free is deleted by the next start. Weakness: without a configuration nobody can say what is still in use, so then it is
//! refused.

use super::client::Trouble;
use super::{Failure, SOON, Source, asked, views};
use crate::cli::Exit;
use crate::config::{Config, Loaded};
use crate::store::now_ns;
use crate::store::operator::{ForgetError, Given, given, is_configured, listed};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use wal::{DestinationId, Folder, FolderOptions, Log, LogOptions, Space};

pub(super) fn forget(source: Source, loaded: &Loaded, destination: &str) -> Result<Value, Failure> {
    let (kind, name) = destination.split_once('/').unwrap_or((destination, ""));
    match source {
        Source::Gateway(client) => {
            let path = format!("forget/{}/{}", encoded(kind), encoded(name));
            client.post(&path, SOON).map_err(|e| match e {
                Trouble::Refused { status: 404 | 409, message, .. } => Failure(Exit::Failed, message),
                e => asked(e),
            })
        }
        Source::Folder(seen) => {
            if loaded.built_in() {
                return Err(Failure(
                    Exit::Usage,
                    format!(
                        "name the configuration with -c: without it nobody can say whether {destination} is still in use"
                    ),
                ));
            }
            let id = DestinationId::new(kind, name);
            let logs =
                unconfigured(&views(&seen)?, &id, &loaded.config).map_err(|e| Failure(Exit::Failed, e.to_string()))?;
            Ok(given(destination, &offline(&loaded.config, &seen.logs, &logs, &id)?))
        }
    }
}

/// Names of the logs that know the destination although the configuration gives it to them no more.
fn unconfigured(
    views: &[wal::inspect::LogView],
    id: &DestinationId,
    config: &Config,
) -> Result<Vec<String>, ForgetError> {
    let (mut logs, mut kept, mut known) = (Vec::new(), false, BTreeSet::new());
    for view in views {
        let ids: Vec<DestinationId> = view.destinations().into_iter().map(|d| d.id).collect();
        match (ids.contains(id), is_configured(config, &view.name, id)) {
            (true, true) => kept = true,
            (true, false) => logs.push(view.name.clone()),
            (false, _) => {}
        }
        known.extend(ids.iter().map(DestinationId::to_string));
    }
    let destination = id.to_string();
    match (logs.is_empty(), kept) {
        (false, _) => Ok(logs),
        (true, true) => Err(ForgetError::Configured { destination }),
        (true, false) => Err(ForgetError::Unknown { destination, known: listed(&known) }),
    }
}

/// With the real lock, which a gateway that starts meanwhile respects.
fn offline(config: &Config, all: &[String], logs: &[String], id: &DestinationId) -> Result<Vec<Given>, Failure> {
    // A folder that exists on tmpfs was made there on purpose.
    let options = FolderOptions { allow_volatile: true };
    let folder =
        Folder::open_with(&config.storage.path, options, &mut || fastrand::u64(..)).map_err(Failure::storage)?;
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let space = Space::new(config.storage.max, &names);
    let mut done = Vec::new();
    for name in logs {
        let disk = folder.disk(name).map_err(Failure::storage)?;
        let nonce = Box::new(|| fastrand::u64(..));
        let options = LogOptions::new(name, folder.node(), folder.epoch(), space.clone(), nonce);
        let (log, _) = Log::open(Arc::new(disk), options, now_ns()).map_err(Failure::storage)?;
        let gone = log.forget(id, now_ns()).map_err(Failure::storage)?;
        done.push(Given { log: name.clone(), records: gone.items, bytes: gone.bytes });
    }
    Ok(done)
}

/// Percent-encoded as one segment of a path.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
