//! The sink's ledger: what really arrived, counted where it arrived.
//!
//! Every record carries `(sender, sequence)`; the ledger ticks it in that sender's register and never trusts a client's count.
//! Lanes are kept apart, because two destinations may each receive every record. Weakness: senders are bounded at
//! [`SENDERS_MAX`], later ones are only counted.

use super::profile::Profiles;
use crate::presence::{Budget, Presence};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

/// Registers kept, over all lanes.
const SENDERS_MAX: usize = 4_096;
/// Runs printed for one sender; a register in more pieces than this is not delivered whole anyway.
const RUNS_MAX: usize = 200_000;

/// A kind of record at a kind of door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    Loki,
    OtlpLogs,
    OtlpTraces,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Loki, Lane::OtlpLogs, Lane::OtlpTraces];

    pub const fn name(self) -> &'static str {
        match self {
            Lane::Loki => "loki",
            Lane::OtlpLogs => "otlp_logs",
            Lane::OtlpTraces => "otlp_traces",
        }
    }

    pub fn from_name(name: &str) -> Option<Lane> {
        Lane::ALL.into_iter().find(|l| l.name() == name)
    }
}

/// Counters of one door.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Door {
    /// Requests read to their end, whatever the answer.
    pub requests: u64,
    /// Requests answered with a fault, by status (gRPC: the HTTP counterpart; 0: no answer at all).
    pub faulted: BTreeMap<u16, u64>,
    /// Requests that were no snappy, gzip, zstd or protobuf of the right shape: answered 400.
    pub malformed: u64,
    /// Bytes of bodies as they came, of stored requests.
    pub wire_bytes: u64,
    /// The same after decompression.
    pub decoded_bytes: u64,
    /// Records stored, repeats included.
    pub records: u64,
    /// Records stored that carried no number.
    pub unnumbered: u64,
}

/// One sender's register, as printed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Sender {
    pub lane: Lane,
    pub sender: u32,
    pub unique: u64,
    pub duplicates: u64,
    pub untracked: u64,
    /// Half-open runs of the sequences present; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Vec<(u64, u64)>>,
}

/// Everything a sink knows, as `GET /report` prints it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Report {
    pub doors: BTreeMap<String, Door>,
    pub unique: u64,
    pub duplicates: u64,
    /// Numbers that the bounded registers could not hold; a judge refuses a report where this is not 0.
    pub untracked: u64,
    pub senders: Vec<Sender>,
    pub first_at_ms: u64,
    pub last_at_ms: u64,
}

#[derive(Default)]
pub struct Record {
    doors: BTreeMap<&'static str, Door>,
    senders: Vec<(Lane, u32, Presence)>,
    budget: Budget,
    /// Where the last number went: the next one nearly always goes there too.
    recent: usize,
    unplaced: u64,
    first_at_ms: u64,
    last_at_ms: u64,
    kept: VecDeque<serde_json::Value>,
    keep: usize,
    pub profiles: Profiles,
}

impl Record {
    /// `keep`: how many records to keep in full for `GET /recent`.
    pub fn new(keep: usize) -> Record {
        Record { keep, ..Record::default() }
    }

    pub fn door(&mut self, name: &'static str) -> &mut Door {
        self.doors.entry(name).or_default()
    }

    pub fn tick(&mut self, lane: Lane, sender: u32, seq: u64) {
        let fits = |s: &(Lane, u32, Presence)| s.0 == lane && s.1 == sender;
        if !self.senders.get(self.recent).is_some_and(fits) {
            self.recent = match self.senders.iter().position(fits) {
                Some(at) => at,
                None if self.senders.len() >= SENDERS_MAX => {
                    self.unplaced += 1;
                    return;
                }
                None => {
                    self.senders.push((lane, sender, Presence::default()));
                    self.senders.len() - 1
                }
            };
        }
        self.senders[self.recent].2.insert(seq, &mut self.budget);
    }

    pub fn touch(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        self.last_at_ms = now;
        if self.first_at_ms == 0 {
            self.first_at_ms = now;
        }
    }

    pub fn keeps(&self) -> bool {
        self.keep > 0
    }

    pub fn keep(&mut self, record: serde_json::Value) {
        if self.keep == 0 {
            return;
        }
        if self.kept.len() >= self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(record);
    }

    pub fn kept(&self) -> impl Iterator<Item = &serde_json::Value> {
        self.kept.iter()
    }

    pub fn reset(&mut self) {
        *self = Record::new(self.keep);
    }

    pub fn presence(&self, lane: Lane, sender: u32) -> Option<&Presence> {
        self.senders.iter().find(|s| s.0 == lane && s.1 == sender).map(|s| &s.2)
    }

    pub fn report(&self, runs: bool) -> Report {
        let senders: Vec<Sender> = self
            .senders
            .iter()
            .map(|(lane, sender, p)| Sender {
                lane: *lane,
                sender: *sender,
                unique: p.unique,
                duplicates: p.duplicates,
                untracked: p.untracked,
                runs: runs.then(|| p.runs()).filter(|r| r.len() <= RUNS_MAX),
            })
            .collect();
        Report {
            doors: self.doors.iter().map(|(name, door)| ((*name).to_owned(), door.clone())).collect(),
            unique: senders.iter().map(|s| s.unique).sum(),
            duplicates: senders.iter().map(|s| s.duplicates).sum(),
            untracked: senders.iter().map(|s| s.untracked).sum::<u64>() + self.unplaced,
            senders,
            first_at_ms: self.first_at_ms,
            last_at_ms: self.last_at_ms,
        }
    }
}
