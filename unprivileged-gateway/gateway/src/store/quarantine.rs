//! The lost-letters cupboard: what a backend refused for good, kept readable until an operator looks at it.
//!
//! It is the fifth log, in the same format with its own commit thread. An item is written and synced before the cursor that passes it
//! moves. The cupboard holds 1/50 of `storage.max`; when it is full the oldest go out, counted as dropped.
//!
//! Payload of a frame: envelope (kind 7) | header length u32 LE | header (MessagePack map, [`Header`]) | the refused bytes.

use crate::seam::{Refusal, RefusalClass, Signal};
use crate::store::{Committer, QUARANTINE, now_ns};
use crate::telemetry::Telemetry;
use bytes::Bytes;
use model::envelope::{self, Kind, Sidecar};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use wal::{Appended, Codec, DestinationId, NewFrame, Outcome, Refused};

/// The only reader that holds quarantined items back from deletion: the operator.
const KEEPER: (&str, &str) = ("operator", "keep");
/// Records dropped at a time when the cupboard is full. Unit: bytes.
const MAKE_ROOM: usize = 1 << 20;

/// What is known about a refused piece.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub destination: String,
    pub signal: String,
    /// The record in the signal's log it came from.
    pub seq: u64,
    pub reason: String,
    /// The backend's own words.
    pub text: String,
    /// Label sets of the streams in it, separated by spaces.
    pub labels: String,
    pub items: u64,
    /// `frame`: a WAL payload; `otlp`: an OTLP request; `loki`: a snappy push body; `line`: one log line.
    pub format: String,
    /// Unix nanoseconds.
    pub at: u64,
}

/// A piece on its way into quarantine.
#[derive(Clone, Debug)]
pub struct QuarantineItem {
    header: Header,
    pub reason: &'static str,
    pub items: u64,
    payload: Bytes,
}

impl QuarantineItem {
    pub fn new(
        id: &DestinationId,
        signal: Signal,
        seq: u64,
        reason: &'static str,
        text: &str,
        format: &str,
    ) -> QuarantineItem {
        let header = Header {
            destination: id.to_string(),
            signal: signal.name().into(),
            seq,
            reason: reason.into(),
            text: text.into(),
            format: format.into(),
            at: now_ns(),
            ..Header::default()
        };
        QuarantineItem { header, reason, items: 1, payload: Bytes::new() }
    }

    /// Bytes of the refused piece.
    pub fn bytes(&self) -> u64 {
        self.payload.len() as u64
    }

    pub fn with_labels(mut self, labels: String) -> QuarantineItem {
        self.header.labels = labels;
        self
    }

    pub fn with_payload(mut self, payload: Bytes, items: u64) -> QuarantineItem {
        self.payload = payload;
        self.items = items;
        self.header.items = items;
        self
    }
}

/// Reads a quarantine frame's payload. None: not one.
pub fn open(payload: &[u8]) -> Option<(Header, &[u8])> {
    let (Kind::Quarantined, _, raw) = envelope::open(payload).ok()? else { return None };
    let length = u32::from_le_bytes(raw.get(..4)?.try_into().ok()?) as usize;
    let header = rmp_serde::from_slice(raw.get(4..4usize.checked_add(length)?)?).ok()?;
    Some((header, raw.get(4 + length..)?))
}

struct Inner {
    log: wal::Log,
    committer: Committer,
    telemetry: Telemetry,
}

/// A cheap handle to the quarantine log.
#[derive(Clone)]
pub struct Quarantined(Arc<Inner>);

impl Quarantined {
    pub(super) fn start(log: wal::Log, window: Duration, telemetry: Telemetry) -> std::io::Result<Quarantined> {
        let committer = Committer::start(QUARANTINE, log.clone(), window, telemetry.clone())?;
        Ok(Quarantined(Arc::new(Inner { log, committer, telemetry })))
    }

    /// The destination that stands for the operator in the quarantine log.
    pub fn keeper() -> wal::Destination {
        wal::Destination {
            kind: KEEPER.0.into(),
            name: KEEPER.1.into(),
            from: wal::From::Oldest,
            was: None,
            on_remove: wal::OnRemove::Keep,
        }
    }

    pub fn log(&self) -> &wal::Log {
        &self.0.log
    }

    pub(super) fn stop(&self) {
        self.0.committer.stop();
    }

    /// Resolves when the item is synced.
    ///
    /// Errors: the quarantine log is full even after its oldest items went, or its disk fails; the caller keeps the piece.
    pub async fn keep(&self, item: &QuarantineItem) -> Result<(), Refusal> {
        let header = rmp_serde::to_vec_named(&item.header)
            .map_err(|e| refusal("encoding", format!("quarantine header cannot be encoded: {e}")))?;
        let envelope =
            envelope::header(Kind::Quarantined, &Sidecar { received_at: item.header.at, ..Sidecar::default() });
        let length = (header.len() as u32).to_le_bytes();
        let parts: [&[u8]; 4] = [&envelope, &length, &header, &item.payload];
        let raw_len = parts.iter().map(|p| p.len()).sum::<usize>() as u32;
        let mut rounds = self.0.committer.rounds();
        let mut made_room = false;
        let seq = loop {
            let frame = NewFrame {
                parts: &parts,
                items: u32::try_from(item.items).unwrap_or(u32::MAX),
                codec: Codec::Raw,
                raw_len,
                hops: 0,
                origin: None,
                done: &[],
                appended_at: item.header.at,
                after: 0,
            };
            match self.0.log.append(frame) {
                Ok(Appended::New { seq } | Appended::Held { seq }) => break seq,
                // Only frames with an origin are trimmed or sent back, and these have none.
                Ok(other) => return Err(refusal("origin", format!("the quarantine log answered {other:?}"))),
                Err(Refused::Full { .. }) if !made_room => {
                    self.make_room();
                    made_room = true;
                    self.0.committer.nudge(usize::MAX);
                    let _ = rounds.changed().await;
                }
                Err(e) => return Err(refusal("full", e.to_string())),
            }
        };
        self.0.committer.nudge(self.0.log.pending().bytes);
        loop {
            match self.0.log.outcome(seq) {
                Outcome::Synced => return Ok(()),
                Outcome::Refused => return Err(refusal("closed", "the quarantine log could not be synced".into())),
                Outcome::Pending => drop(rounds.changed().await),
            }
        }
    }

    /// The oldest items go out, counted: nobody holds them any more.
    fn make_room(&self) {
        let id = DestinationId::new(KEEPER.0, KEEPER.1);
        let from = self.0.log.cursor(&id).map_or(0, |c| c.seq);
        let Ok(batch) = self.0.log.reader(from).read(MAKE_ROOM) else { return };
        let Some(last) = batch.frames.last() else { return };
        for frame in &batch.frames {
            if let Some((header, _)) = open(&frame.payload) {
                tracing::error!(
                    destination = header.destination,
                    seq = header.seq,
                    "quarantine is full: its oldest item is dropped"
                );
                if let Some(signal) = Signal::ALL.into_iter().find(|s| s.name() == header.signal) {
                    self.0.telemetry.dropped(signal, "quarantine_full", header.items);
                }
            }
        }
        self.0.log.advance(&id, last.seq + 1, batch.frames.iter().map(|f| u64::from(f.items)).sum(), last.seq + 1);
    }
}

fn refusal(reason: &'static str, message: String) -> Refusal {
    Refusal { class: RefusalClass::Unavailable, reason, message, retry_after: Some(Duration::from_secs(1)) }
}
