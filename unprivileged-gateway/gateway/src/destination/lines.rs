//! A frame as lines of files: what [`model::chunk::join`] needs to be told of it.
//!
//! The ear trumpet of a destination: every frame of the logs' log is held to it, since every frame says what time it is, and a line
//! that has been open for too long is closed by the next frame, whatever that is. Nothing in here knows a clock, but [`Closing`] does:
//! when the log falls silent with a line open, somebody has to say that time has passed, and says so in the log.

use crate::config::Config;
use crate::seam::Signal;
use crate::store::destinations_of;
use bytes::Bytes;
use model::Malformed;
use model::chunk::FileLabels;
use model::chunk::join::{self, Joiner, Line, OPEN_NS, Piece};
use model::envelope::{self, Kind, Sidecar};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wal::{Codec, Frame, Log, NewFrame};

/// Longer lines are cut on their way to an OTLP destination: what the log keeps whole. Unit: bytes.
pub(super) const OTLP_LINE_BYTES: usize = 1 << 20;
/// A line is joined to a little more than its destination takes, so that whoever cuts it sees that there was more. Unit: bytes.
const BEYOND_LIMIT_BYTES: usize = 8;
/// Share of the memory budget for lines that are open, of all destinations together. Unit: 1/n.
const OPEN_SHARE: u64 = 8;
/// Room that a destination has at least. Unit: bytes.
const OPEN_ROOM_MIN: u64 = 256 << 10;

/// A tray for a destination whose lines end at `line_bytes`.
pub(super) fn joiner(config: &Config, line_bytes: usize) -> Joiner {
    let readers = destinations_of(config, Signal::Logs).len();
    let room = (config.memory.budget / OPEN_SHARE / readers.max(1) as u64).max(OPEN_ROOM_MIN);
    Joiner::new(line_bytes.saturating_add(BEYOND_LIMIT_BYTES), usize::try_from(room).unwrap_or(usize::MAX))
}

/// Labels of files as configured.
pub fn labels(config: &Config) -> Arc<FileLabels> {
    let logs = config.logs.clone().unwrap_or_default();
    Arc::new(FileLabels {
        pods: logs.pods.map(|pods| pods.labels).unwrap_or_default(),
        files: logs.files.into_iter().map(|(name, files)| (name, files.labels)).collect(),
    })
}

/// A frame of the logs' log, opened.
pub(super) struct Chunk<'a> {
    frame: &'a Frame,
    kind: Kind,
    pub(super) sidecar: Sidecar,
    raw: &'a [u8],
}

impl<'a> Chunk<'a> {
    pub(super) fn read(frame: &'a Frame) -> Result<Chunk<'a>, Malformed> {
        let (kind, sidecar, raw) = envelope::open(&frame.payload)?;
        Ok(Chunk { frame, kind, sidecar, raw })
    }

    /// None: it cannot be read.
    pub(super) fn open(frame: &'a Frame) -> Option<Chunk<'a>> {
        Chunk::read(frame).ok()
    }

    /// An OTLP request, if it is one.
    pub(super) fn otlp(&self) -> Option<&'a [u8]> {
        (self.kind == Kind::OtlpLogs).then_some(self.raw)
    }

    /// Gives lines to `take` until it has enough (false). True: there is more; call again with the same `place`.
    pub(super) fn walk(
        &self,
        joiner: &mut Joiner,
        place: &mut Option<join::Walk>,
        take: &mut dyn FnMut(Line<'_>) -> bool,
    ) -> bool {
        let file = self.sidecar.file.as_ref().filter(|_| self.kind == Kind::LogChunk);
        let (seq, received_at) = (self.frame.seq, self.sidecar.received_at);
        let Some(file) = file else {
            joiner.pass(seq, received_at);
            while let Some(line) = joiner.closed() {
                if !take(line) {
                    return true;
                }
            }
            return false;
        };
        let piece = Piece { seq, received_at, file, enrichment: &self.sidecar.enrichment, raw: self.raw };
        let walk = place.get_or_insert_with(|| joiner.begin(&piece));
        while let Some(line) = joiner.next(&piece, walk) {
            if !take(line) {
                return true;
            }
        }
        false
    }

    /// Reads it for what stays open behind it.
    pub(super) fn skim(&self, joiner: &mut Joiner) {
        self.walk(joiner, &mut None, &mut |_| true);
    }
}

/// Watches for a line that stays open while the log is silent.
#[derive(Default)]
pub(super) struct Closing {
    /// When the oldest open line came in (unix ns), and when we first saw it open.
    since: Option<(u64, Instant)>,
}

impl Closing {
    /// When a closing is due, if one is.
    pub(super) fn due(&mut self, joiner: &Joiner) -> Option<Instant> {
        let oldest = joiner.oldest();
        if self.since.map(|(at, _)| at) != oldest {
            self.since = oldest.map(|at| (at, Instant::now()));
        }
        self.since.map(|(_, seen)| seen + Duration::from_nanos(OPEN_NS))
    }

    /// Appends an empty chunk that says how late it is. It holds no record; every reader of the log hears it.
    pub(super) fn append(&mut self, log: &Log, now: u64) {
        let Some((oldest, _)) = self.since else { return };
        let received_at = now.max(oldest.saturating_add(OPEN_NS));
        let payload = Bytes::from(envelope::header(Kind::LogChunk, &Sidecar { received_at, ..Sidecar::default() }));
        let frame = NewFrame {
            parts: &[&payload],
            codec: Codec::Raw,
            raw_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            appended_at: received_at,
            ..NewFrame::default()
        };
        // A log that cannot take it now is asked again when the line has been open for as long again.
        if let Err(e) = log.append(frame) {
            tracing::debug!(error = %e, "no closing for an open line");
        }
        self.since = Some((oldest, Instant::now()));
    }
}
