//! Records written out, one JSON object a line: from the folder as it is walked, from a running gateway page by page.
//!
//! One frame, or one page, is in memory at a time. What cannot be read is named on stderr and the export goes on; it then ends with
//! code 1, because somebody may take it for complete. Weakness: a running gateway keeps deleting what it has delivered; an export of
//! it shows what was there when each page was read.

use super::{Answer, Client, Failure, SOON, Source, asked};
use crate::cli::Exit;
use crate::seam::Signal;
use crate::store::payload::Stored;
use crate::store::report;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use wal::QUARANTINE;
use wal::inspect::{Entry, Found, Inspection, Placed};

/// What others logged is nobody else's business.
const OWNER_ONLY: u32 = 0o600;

/// Writes one frame.
type Line<'a> = &'a mut dyn FnMut(&Stored, &mut dyn Write) -> io::Result<()>;

/// `gateway wal export`.
pub(super) fn logs(
    source: &Source,
    signal: Option<&str>,
    output: Option<&Path>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Answer<Exit> {
    let wanted: Vec<&str> = match signal {
        Some(signal) => vec![signal],
        None => Signal::ALL.into_iter().map(Signal::name).collect(),
    };
    let mut line = |stored: &Stored, out: &mut dyn Write| line(out, &stored.line());
    export(source, &wanted, output, &mut line, out, err)
}

/// `gateway wal quarantine export`.
pub(super) fn quarantine(
    source: &Source,
    output: Option<&Path>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Answer<Exit> {
    let mut line = |stored: &Stored, out: &mut dyn Write| match stored.quarantined(usize::MAX) {
        Some(piece) => line(out, &report::piece(&piece)),
        None => line(out, &stored.line()),
    };
    export(source, &[QUARANTINE], output, &mut line, out, err)
}

fn line(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

fn export(
    source: &Source,
    wanted: &[&str],
    output: Option<&Path>,
    line: Line<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Answer<Exit> {
    let mut file = match output.filter(|path| *path != Path::new("-")) {
        None => None,
        Some(path) => {
            let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(path);
            let failed = |e| Failure(Exit::Failed, format!("{} cannot be written: {e}", path.display()));
            Some(BufWriter::new(opened.map_err(failed)?))
        }
    };
    let out: &mut dyn Write = match &mut file {
        Some(file) => file,
        None => out,
    };
    let mut unreadable = 0;
    for log in wanted {
        unreadable += match source {
            Source::Folder(seen) => walk(seen, log, line, out, err)?,
            Source::Gateway(client) => pages(client, log, line, out, err)?,
        };
    }
    out.flush()?;
    if unreadable > 0 {
        writeln!(
            err,
            "error: {unreadable} stretches cannot be read, so the export is not complete; see `gateway wal verify`"
        )?;
        return Ok(Exit::Failed);
    }
    Ok(Exit::Fine)
}

/// Returns how many stretches could not be read.
fn walk(seen: &Inspection, log: &str, line: Line<'_>, out: &mut dyn Write, err: &mut dyn Write) -> Answer<u64> {
    if !seen.logs.iter().any(|name| name == log) {
        return Ok(0);
    }
    let view = seen.log(log).map_err(Failure::storage)?;
    let from = if log == QUARANTINE { report::quarantine_start(&view) } else { 0 };
    let mut unreadable = 0;
    for found in view.walk(from) {
        match found {
            Found::Unreadable(u) => {
                unreadable += 1;
                say(&report::unreadable(log, &u), err)?;
            }
            Found::Record(Placed { entry: Entry::Frame(frame), .. }) => line(&Stored::new(log, *frame), out)?,
            Found::Record(_) => {}
        }
    }
    Ok(unreadable)
}

fn pages(client: &Client, log: &str, line: Line<'_>, out: &mut dyn Write, err: &mut dyn Write) -> Answer<u64> {
    let (mut from, mut unreadable) = (0, 0);
    loop {
        let mut page = match client.get(&format!("export/{log}?from={from}"), SOON) {
            Ok(page) => page,
            // Not every signal has a log.
            Err(super::Trouble::Refused { status: 404, .. }) => return Ok(unreadable),
            Err(e) => return Err(asked(e).into()),
        };
        for u in page["unreadable"].as_array().into_iter().flatten() {
            unreadable += 1;
            say(u, err)?;
        }
        if let Value::Array(frames) = page["frames"].take() {
            for frame in frames {
                let stored: Stored = serde_json::from_value(frame).map_err(|e| {
                    Failure(
                        Exit::Unavailable,
                        format!("the gateway at {} answers in another version's words: {e}", client.address()),
                    )
                })?;
                line(&stored, out)?;
            }
        }
        match page["next"].as_u64().filter(|next| *next > from) {
            Some(next) => from = next,
            None => return Ok(unreadable),
        }
    }
}

fn say(u: &Value, err: &mut dyn Write) -> io::Result<()> {
    let (file, why) = (u["file"].as_str().unwrap_or_default(), u["why"].as_str().unwrap_or_default());
    writeln!(err, "unreadable: {file} {}..{}: {why}", u["from"], u["to"])
}
