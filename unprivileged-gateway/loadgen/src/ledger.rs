//! The sender's diary: which sequences were acknowledged, refused, or left in the dark.
//!
//! JSON, a line each, only ever appended: a header, then runs of sequences with one outcome, then the summary. Neighbouring
//! acknowledged runs of a sender are joined before they are written, so that a saturated run stays small. Weakness: what is joined
//! sits in memory for up to a second; a killed load generator loses that second of its diary.

use crate::Signal;
use crate::presence::tidy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// How one export call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx or gRPC 0: the receiver answers for these records now.
    Acked,
    /// An answer that says no: the sender still holds the records.
    Refused(Refusal),
    /// No answer: the connection broke or the deadline passed. The records may have been kept or not.
    Broken(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// gRPC code, or HTTP status.
    pub code: u16,
    pub message: String,
    /// From RetryInfo or Retry-After.
    pub retry_after_ms: Option<u64>,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Begin {
        version: u32,
        endpoint: String,
        signal: Signal,
        batch: usize,
        started_ms: u64,
    },
    /// `sender`, first sequence, count.
    Acked(u32, u64, u64),
    Refused(u32, u64, u64, Refusal),
    Broken(u32, u64, u64, String),
    End(Box<crate::run::Summary>),
}

/// Half-open runs by sender.
pub type Runs = BTreeMap<u32, Vec<(u64, u64)>>;

pub struct Writer {
    out: Option<BufWriter<File>>,
    /// Acknowledged runs not yet written, a list for each sender.
    open: BTreeMap<u32, (u64, u64)>,
    failed: Option<io::Error>,
}

impl Writer {
    /// `None`: keep no diary.
    pub fn create(path: Option<&Path>) -> io::Result<Writer> {
        let out = path.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Writer { out, open: BTreeMap::new(), failed: None })
    }

    pub fn write(&mut self, line: &Line) {
        let Some(out) = &mut self.out else { return };
        let written =
            serde_json::to_writer(&mut *out, line).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"));
        if let Err(e) = written {
            self.failed.get_or_insert(e);
        }
    }

    pub fn book(&mut self, sender: u32, from: u64, count: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Acked => match self.open.get_mut(&sender) {
                Some(open) if open.1 == from => open.1 = from + count,
                _ => {
                    if let Some(open) = self.open.insert(sender, (from, from + count)) {
                        self.write(&Line::Acked(sender, open.0, open.1 - open.0));
                    }
                }
            },
            Outcome::Refused(refusal) => self.write(&Line::Refused(sender, from, count, refusal.clone())),
            Outcome::Broken(why) => self.write(&Line::Broken(sender, from, count, why.clone())),
        }
    }

    /// Everything booked so far goes to the file.
    pub fn flush(&mut self) {
        for (sender, (from, upto)) in std::mem::take(&mut self.open) {
            self.write(&Line::Acked(sender, from, upto - from));
        }
        if let Some(Err(e)) = self.out.as_mut().map(Write::flush) {
            self.failed.get_or_insert(e);
        }
    }

    /// The first error met: a diary with a hole must not be judged.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush();
        self.failed.map_or(Ok(()), Err)
    }
}

/// A diary read back.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub signal: Option<Signal>,
    pub acked: Runs,
    pub refused: Runs,
    pub broken: Runs,
    pub refusals: Vec<Refusal>,
    pub summary: Option<Box<crate::run::Summary>>,
}

impl Ledger {
    /// Errors: the file, or the first line that is none of ours (a torn last line is left out: the writer was killed).
    pub fn read(path: &Path) -> io::Result<Ledger> {
        let mut ledger = Ledger::default();
        let mut lines = BufReader::new(File::open(path)?).lines().peekable();
        while let Some(line) = lines.next() {
            match serde_json::from_str(&line?) {
                Ok(line) => ledger.add(line),
                Err(_) if lines.peek().is_none() => break,
                Err(e) => return Err(io::Error::other(format!("{}: not a ledger line: {e}", path.display()))),
            }
        }
        for runs in [&mut ledger.acked, &mut ledger.refused, &mut ledger.broken] {
            runs.values_mut().for_each(|r| *r = tidy(std::mem::take(r)));
        }
        Ok(ledger)
    }

    fn add(&mut self, line: Line) {
        let put = |runs: &mut Runs, sender, from: u64, count: u64| {
            runs.entry(sender).or_default().push((from, from.saturating_add(count)));
        };
        match line {
            Line::Begin { signal, .. } => self.signal = Some(signal),
            Line::Acked(sender, from, count) => put(&mut self.acked, sender, from, count),
            Line::Refused(sender, from, count, refusal) => {
                put(&mut self.refused, sender, from, count);
                self.refusals.push(refusal);
            }
            Line::Broken(sender, from, count, _) => put(&mut self.broken, sender, from, count),
            Line::End(summary) => self.summary = Some(summary),
        }
    }
}
