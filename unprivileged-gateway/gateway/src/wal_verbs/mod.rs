//! `gateway wal ...`: asks whoever has the log.
//!
//! Like asking for a book: if somebody has taken it out, the librarian asks that person ([`client`]); otherwise he takes you to the
//! shelf, where you may look and not write. The lock of the folder says which of the two it is. Only `forget` writes. Weakness: a
//! gateway on an address that this configuration does not name is not found, though its folder is seen to be held.

mod client;
mod export;
mod forget;
#[cfg(test)]
mod tests;
mod text;

use crate::cli::{Exit, Format, QuarantineVerb, WalVerb};
use crate::config::Loaded;
use crate::store::operator::is_configured;
use crate::store::{now_ns, report};
use client::{Client, Trouble};
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;
use wal::QUARANTINE;
use wal::inspect::{Holder, InspectError, Inspection, LogView, holder};

/// Rows of `wal quarantine list`; the API gives no more at a time.
const ROWS_MAX: usize = 1_000;
/// A look at the counters, a page of an export.
const SOON: Duration = Duration::from_secs(30);
/// Reading every record of a large backlog.
const LONG: Duration = Duration::from_secs(3600);

/// Why a verb ends without an answer, and with which code.
pub(crate) struct Failure(Exit, String);

impl Failure {
    fn storage(e: impl Display) -> Failure {
        Failure(Exit::Storage, e.to_string())
    }
}

enum Ended {
    With(Failure),
    /// The answer could not be written.
    Output(io::Error),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::With(failure)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Output(error)
    }
}

type Answer<T> = Result<T, Ended>;

/// Runs a verb; the answer goes to stdout, errors to stderr as one sentence each.
pub fn run(loaded: &Loaded, verb: &WalVerb) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    answer(loaded, verb, &mut out, &mut io::stderr().lock()).into()
}

/// The same, to any output.
pub fn answer(loaded: &Loaded, verb: &WalVerb, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let ended = perform(loaded, verb, out, err).and_then(|exit| Ok(out.flush().map(|()| exit)?));
    match ended {
        Ok(exit) => exit,
        // `gateway wal export | head` is no failure worth words.
        Err(Ended::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(Ended::Output(e)) => {
            let _ = writeln!(err, "error: writing the answer failed: {e}");
            Exit::Failed
        }
        Err(Ended::With(Failure(exit, text))) => {
            let _ = writeln!(err, "error: {text}");
            exit
        }
    }
}

fn perform(loaded: &Loaded, verb: &WalVerb, out: &mut dyn Write, err: &mut dyn Write) -> Answer<Exit> {
    let source = Source::find(loaded)?;
    let exit = match verb {
        WalVerb::Stats { format } => {
            let value = source.stats(loaded)?;
            shown(&value, *format, text::stats, out)?;
            Exit::Fine
        }
        WalVerb::Verify { format } => {
            let value = source.verify()?;
            shown(&value, *format, text::verified, out)?;
            if value["ok"] == true { Exit::Fine } else { Exit::Failed }
        }
        WalVerb::Export { signal, output } => export::logs(&source, signal.as_deref(), output.as_deref(), out, err)?,
        WalVerb::Forget { destination } => {
            let value = forget::forget(source, loaded, destination)?;
            text::forgotten(&value, out)?;
            return Ok(Exit::Fine);
        }
        WalVerb::Quarantine(QuarantineVerb::List { format }) => {
            shown(&source.quarantine(ROWS_MAX)?, *format, text::quarantine, out)?;
            Exit::Fine
        }
        WalVerb::Quarantine(QuarantineVerb::Show { id }) => {
            text::piece(&source.piece(*id)?, out)?;
            Exit::Fine
        }
        WalVerb::Quarantine(QuarantineVerb::Export { output }) => {
            export::quarantine(&source, output.as_deref(), out, err)?
        }
    };
    if let Source::Folder(seen) = &source
        && let Err(e) = seen.still_free()
    {
        writeln!(err, "warning: a process has taken the folder while it was being read, the answer may be torn: {e}")?;
    }
    Ok(exit)
}

fn shown(
    value: &Value,
    format: Format,
    text: impl Fn(&Value, &mut dyn Write) -> io::Result<()>,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Json => writeln!(out, "{value:#}"),
        Format::Text => text(value, out),
    }
}

/// Who has the log.
enum Source {
    Folder(Inspection),
    Gateway(Client),
}

impl Source {
    /// Asks the lock; a holder is then asked for its counters, so that it is surely the one that answers.
    fn find(loaded: &Loaded) -> Result<Source, Failure> {
        let config = &loaded.config;
        let path = &config.storage.path;
        let pid = match holder(path) {
            Ok(Holder::Nobody) => return Inspection::open(path).map(Source::Folder).map_err(Failure::storage),
            Ok(Holder::Process(pid)) => pid,
            // Another user's folder: that gateway may still answer.
            Err(e @ InspectError::Unreadable { .. }) => {
                let asked = Client::new(config).and_then(|client| Ok((client.get("stats", SOON)?, client)));
                return match asked {
                    Ok((stats, client)) if stats["path"] == *path.display().to_string() => Ok(Source::Gateway(client)),
                    _ => Err(Failure::storage(e)),
                };
            }
            Err(e) => return Err(Failure::storage(e)),
        };
        let name = pid.map_or("a process".to_owned(), |pid| format!("process {pid}"));
        let held =
            |what: &dyn Display| Failure(Exit::Unavailable, format!("{name} holds {}, and {what}", path.display()));
        let client = Client::new(config).map_err(|e| held(&e))?;
        let stats = client.get("stats", SOON).map_err(|e| held(&e))?;
        if pid.is_some() && stats["pid"] != json!(pid) {
            let other = stats["path"].as_str().unwrap_or("another folder");
            let address = client.address();
            return Err(held(&format!(
                "the gateway at {address} has {other} instead: name the holder's configuration with -c, or its address with --http"
            )));
        }
        Ok(Source::Gateway(client))
    }

    fn stats(&self, loaded: &Loaded) -> Result<Value, Failure> {
        let seen = match self {
            Source::Gateway(client) => return client.get("stats", SOON).map_err(asked),
            Source::Folder(seen) => seen,
        };
        let mut logs = Vec::new();
        for view in views(seen)? {
            let configured = |id: &_| (!loaded.built_in()).then(|| is_configured(&loaded.config, &view.name, id));
            logs.push(report::stats(&view, now_ns(), &configured));
        }
        let mut value = framed(seen, logs);
        value["max_bytes"] = loaded.config.storage.max.into();
        Ok(value)
    }

    fn verify(&self) -> Result<Value, Failure> {
        let seen = match self {
            Source::Gateway(client) => return client.post("verify", LONG).map_err(asked),
            Source::Folder(seen) => seen,
        };
        let logs: Vec<Value> = views(seen)?.iter().map(|view| report::verified(&view.name, &view.verify())).collect();
        let ok = seen.problems.is_empty() && logs.iter().all(|log| log["ok"] == true);
        let mut value = framed(seen, logs);
        value["ok"] = ok.into();
        Ok(value)
    }

    fn quarantine(&self, limit: usize) -> Result<Value, Failure> {
        match self {
            Source::Gateway(client) => client.get(&format!("quarantine?limit={limit}"), LONG).map_err(asked),
            Source::Folder(seen) => match quarantine_of(seen)? {
                Some(view) => Ok(report::quarantine_list(&view, limit, None)),
                None => Ok(json!({"total": 0, "bytes": 0, "records": 0, "items": []})),
            },
        }
    }

    fn piece(&self, id: u64) -> Result<Value, Failure> {
        let missing = || Failure(Exit::Failed, format!("no quarantined record has the number {id}"));
        match self {
            Source::Gateway(client) => client.get(&format!("quarantine/{id}"), LONG).map_err(|e| match e {
                Trouble::Refused { status: 404, .. } => missing(),
                e => asked(e),
            }),
            Source::Folder(seen) => {
                quarantine_of(seen)?.and_then(|view| report::quarantine_show(&view, id)).ok_or_else(missing)
            }
        }
    }
}

fn asked(e: Trouble) -> Failure {
    Failure(Exit::Unavailable, e.to_string())
}

fn views(seen: &Inspection) -> Result<Vec<LogView>, Failure> {
    seen.logs.iter().map(|name| seen.log(name).map_err(Failure::storage)).collect()
}

fn quarantine_of(seen: &Inspection) -> Result<Option<LogView>, Failure> {
    match seen.logs.iter().any(|name| name == QUARANTINE) {
        true => seen.log(QUARANTINE).map(Some).map_err(Failure::storage),
        false => Ok(None),
    }
}

fn framed(seen: &Inspection, logs: Vec<Value>) -> Value {
    json!({
        "path": seen.path.display().to_string(),
        "pid": null,
        "node": seen.node.map(|node| node.to_string()),
        "problems": seen.problems,
        "logs": logs,
    })
}
