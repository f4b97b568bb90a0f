//! The slot of the letter box: how a frame gets into a log, and how its sender learns that it is safe.
//!
//! Image: a registered letter. [`Store::lay`] puts it on the pile and hands over a receipt; [`Store::synced`] waits until the pile is
//! locked away. [`Store::offer`] is both, for whoever has one letter at a time; the door keeps several receipts and so several letters
//! on their way. A source that numbers its records says which number it is ([`Offered::origin`]) and is told what is held already.
//!
//! Weakness: a receipt is a number, not a promise kept for ever: after many refusals the oldest are forgotten, and then read as synced.
//! Whoever holds one asks within seconds.

use super::{SignalLog, Store};
use crate::seam::{Intake, Offered, Refusal, RefusalClass, Signal, Source};
use std::time::Duration;
use wal::{Appended, Codec, Mark, NewFrame, Outcome, Refused, Stream};

/// Bytes that may wait for one log's next sync before senders are refused. Unit: bytes.
pub(super) const PENDING_MAX: usize = 24 << 20;
/// What a sender is told to wait when the disk has no room or does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Share of a signal's space above which push clients are refused, and files, journal and stacks are not read (DESIGN 4).
pub const PUSH_REFUSED_FROM: f64 = 0.85;
/// Share of a signal's space above which our own series are skipped: they are small, and wanted most when room is short.
pub const SCRAPE_SKIPPED_FROM: f64 = 0.95;

/// A frame that lies on the pile: what to ask after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub signal: Signal,
    seq: u64,
}

/// What became of a frame that was not refused. Only the first two may be acknowledged, once the receipt is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laid {
    /// On the pile.
    New(Receipt),
    /// All of it is held already; nothing was stored.
    Held(Receipt),
    /// Part of it is held: lay the bytes `from..to` of the source alone, then what follows. Nothing was stored.
    Trim { from: u64, to: u64 },
    /// Something before it is missing: go back to this number, or declare a gap. Nothing was stored.
    Rewind { to: u64 },
}

/// What became of an offer that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Stored and synced.
    New,
    /// Held already, and synced.
    Held,
    /// See [`Laid::Trim`].
    Trim { from: u64, to: u64 },
    /// See [`Laid::Rewind`].
    Rewind { to: u64 },
}

impl Store {
    /// Copies a frame into its log's open group and does not wait. `after`: the frame of the same source that it must not overtake;
    /// if that one was refused, so is this (reason `order`), and the sender goes back to it.
    ///
    /// Errors: the sender still holds the frame. Counting what is accepted or refused is the caller's.
    pub fn lay(&self, offered: &Offered, after: Option<Receipt>) -> Result<Laid, Refusal> {
        let l = self.served(offered.signal)?;
        self.has_room(l, offered.source)?;
        let header = model::envelope::header(offered.kind, &offered.sidecar);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(offered.body.len() + 1);
        parts.push(&header);
        parts.extend(offered.body.iter().map(|b| &b[..]));
        let raw_len = parts.iter().map(|p| p.len()).sum::<usize>() as u32;
        let frame = NewFrame {
            parts: &parts,
            items: offered.items,
            codec: Codec::Raw,
            raw_len,
            hops: 0,
            origin: offered.origin.as_ref(),
            done: &l.draining,
            appended_at: offered.sidecar.received_at,
            after: after.filter(|r| r.signal == l.signal).map_or(0, |r| r.seq),
        };
        let receipt = |seq| Receipt { signal: l.signal, seq };
        let laid = match l.log.append(frame).map_err(|e| self.refusal(l, &e))? {
            Appended::New { seq } => Laid::New(receipt(seq)),
            Appended::Held { seq } => Laid::Held(receipt(seq)),
            Appended::Trim { from, to } => Laid::Trim { from, to },
            Appended::Rewind { to } => Laid::Rewind { to },
        };
        l.committer.nudge(l.log.pending().bytes);
        Ok(laid)
    }

    /// Waits for the sync that covers a frame. Safe to cancel.
    pub async fn synced(&self, receipt: Receipt) -> Result<(), Refusal> {
        let l = self.served(receipt.signal)?;
        let mut rounds = l.committer.rounds();
        loop {
            match l.log.outcome(receipt.seq) {
                Outcome::Synced => return Ok(()),
                Outcome::Refused => {
                    let why = l.log.stats().closed.unwrap_or_else(|| "a write or sync failed".into());
                    return Err(unavailable(
                        "disk_failed",
                        format!("the {} log in {} could not be written: {why}", l.signal, self.0.path),
                    ));
                }
                Outcome::Pending => drop(rounds.changed().await),
            }
        }
    }

    /// Lays a frame and waits for its sync.
    pub async fn offer(&self, offered: Offered) -> Result<Taken, Refusal> {
        let laid = self.lay(&offered, None)?;
        // The bytes are in the group's buffer: what was received can go before the sync.
        drop(offered);
        let (receipt, taken) = match laid {
            Laid::New(receipt) => (receipt, Taken::New),
            Laid::Held(receipt) => (receipt, Taken::Held),
            Laid::Trim { from, to } => return Ok(Taken::Trim { from, to }),
            Laid::Rewind { to } => return Ok(Taken::Rewind { to }),
        };
        self.synced(receipt).await.map(|()| taken)
    }

    /// What is held of a numbered source and synced: where it goes on after a start. None: it was never seen, or is forgotten.
    pub fn mark_synced(&self, signal: Signal, stream: &Stream) -> Option<Mark> {
        self.0.logs.get(&signal)?.log.mark_synced(stream)
    }

    fn served(&self, signal: Signal) -> Result<&SignalLog, Refusal> {
        self.0.logs.get(&signal).ok_or_else(|| {
            unavailable("unserved", format!("nothing here takes {signal}: configure a destination or the local view"))
        })
    }

    fn has_room(&self, l: &SignalLog, source: Source) -> Result<(), Refusal> {
        let pressure = self.0.space.pressure(l.signal.name());
        if pressure.fraction >= refused_from(source) {
            return Err(self.full(l, pressure.fraction));
        }
        if l.log.pending().bytes > PENDING_MAX {
            let path = &self.0.path;
            return Err(unavailable(
                "disk_slow",
                format!("the disk under {path} has not synced the {} log for a while; try again", l.signal),
            ));
        }
        Ok(())
    }

    fn refusal(&self, l: &SignalLog, refused: &Refused) -> Refusal {
        match refused {
            Refused::Full { fraction, .. } => self.full(l, *fraction),
            Refused::TooLarge { .. } => Refusal {
                class: RefusalClass::Invalid,
                reason: "too_large",
                message: refused.to_string(),
                retry_after: None,
            },
            Refused::Overtakes { .. } => unavailable("order", refused.to_string()),
            Refused::Closed { .. } => unavailable("closed", refused.to_string()),
        }
    }

    fn full(&self, l: &SignalLog, fraction: f64) -> Refusal {
        Refusal {
            class: RefusalClass::Exhausted,
            reason: "full",
            message: format!(
                "the {} log in {} is {:.0} % full: its destinations do not keep up; mend them or raise storage.max",
                l.signal,
                self.0.path,
                fraction * 100.0
            ),
            retry_after: Some(RETRY_AFTER),
        }
    }
}

impl Intake for Store {
    fn serves(&self, signal: Signal) -> bool {
        // Profiles come from the probe alone: OTLP has no stable form for them.
        signal != Signal::Profiles && self.0.logs.contains_key(&signal)
    }

    async fn accept(&self, offered: Offered) -> Result<(), Refusal> {
        let signal = offered.signal;
        match self.offer(offered).await? {
            Taken::New | Taken::Held => Ok(()),
            // Whoever numbers its records asks through `offer`, which can say so.
            other => Err(unavailable("origin", format!("the {signal} log answered {other:?}"))),
        }
    }
}

fn refused_from(source: Source) -> f64 {
    match source {
        Source::Host | Source::Own => SCRAPE_SKIPPED_FROM,
        Source::OtlpGrpc | Source::OtlpHttp | Source::Probe | Source::Journal => PUSH_REFUSED_FROM,
    }
}

fn unavailable(reason: &'static str, message: String) -> Refusal {
    Refusal { class: RefusalClass::Unavailable, reason, message, retry_after: Some(RETRY_AFTER) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Imagined, Request, load};
    use crate::telemetry::Telemetry;
    use model::envelope::{Kind, Sidecar};
    use wal::{FileKey, Origin};

    fn store(dir: &std::path::Path) -> Store {
        let file = dir.join("gateway.yaml");
        let storage = dir.join("storage");
        let text = format!("storage: {{ path: '{}', max: 64MiB }}\nlocal_view: {{ window: 1m }}\n", storage.display());
        std::fs::write(&file, text).expect("a temporary folder takes a file");
        let request = Request { files: vec![file], ..Request::default() };
        let loaded = load(&request, &Imagined::default()).unwrap_or_else(|e| panic!("{e}"));
        Store::open(&loaded.config, Telemetry::new()).expect("a fresh folder opens")
    }

    fn piece(offset: u64, bytes: &'static str) -> Offered {
        let file = FileKey { id: [7; 16], generation: 1 };
        Offered {
            signal: Signal::Logs,
            kind: Kind::LogChunk,
            items: 1,
            sidecar: Sidecar { received_at: 1, ..Sidecar::default() },
            body: vec![bytes.into()],
            source: Source::Probe,
            origin: Some(Origin::LogBytes { file, offset, len: bytes.len() as u64 }),
        }
    }

    #[tokio::test]
    async fn a_numbered_source_is_told_what_is_held_and_a_start_remembers_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = store(dir.path());
        assert_eq!(first.offer(piece(0, "0123\n")).await, Ok(Taken::New));
        assert_eq!(first.offer(piece(0, "0123\n")).await, Ok(Taken::Held));
        assert_eq!(first.offer(piece(2, "23\n56\n")).await, Ok(Taken::Trim { from: 5, to: 8 }));
        assert!(first.accept(piece(2, "23\n56\n")).await.is_err(), "a part must not pass for the whole");
        first.close();
        drop(first);
        let second = store(dir.path());
        let stream = Stream::File(FileKey { id: [7; 16], generation: 1 });
        assert_eq!(second.mark_synced(Signal::Logs, &stream).and_then(|m| m.contiguous_end()), Some(5));
        assert_eq!(second.offer(piece(0, "0123\n")).await, Ok(Taken::Held));
        let laid = [second.lay(&piece(5, "56\n"), None), second.lay(&piece(8, "89\n"), None)];
        for laid in laid {
            let Ok(Laid::New(receipt)) = laid else { panic!("{laid:?}") };
            assert_eq!(second.synced(receipt).await, Ok(()));
        }
        second.close();
    }
}
