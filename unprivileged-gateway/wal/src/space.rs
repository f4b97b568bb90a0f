//! One barrel for all logs, with a dipstick for each: every log is promised a share, the rest belongs to whoever comes.
//!
//! Used bytes are what the segments hold on disk. Each served log is guaranteed an eighth of the cap and quarantine a
//! fiftieth; 70, 85, 95 and 100 % are judged per log against its guarantee plus what is free of the shared part. The
//! weakness: bytes appended but not yet committed by *other* logs are not counted, so the cap may be passed by a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Share of the cap guaranteed to a served log: one in this many.
pub(crate) const GUARANTEE_OF: u64 = 8;
/// Share of the cap guaranteed to quarantine.
pub(crate) const QUARANTINE_OF: u64 = 50;
/// The log that gets the smaller share.
pub const QUARANTINE: &str = "quarantine";
/// Reserve kept on disk for cursors and deletions: at most this, at most a sixteenth of the cap, for all logs together.
pub(crate) const RESERVE_BYTES_MAX: u64 = 64 << 20;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// How full a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below 70 %.
    Ok,
    /// From 70 %: warn.
    Warn70,
    /// From 85 %: push back on senders.
    High85,
    /// From 95 %: skip what can be skipped.
    Critical95,
    /// Nothing more fits.
    Full,
}

/// A reading of the dipstick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// Used part of what this log may use now, 0 to 1 (above 1 when urgent writes went past the cap).
    pub fraction: f64,
    /// The same, in steps.
    pub level: Level,
}

#[derive(Debug)]
struct Part {
    name: String,
    guarantee: u64,
    used: AtomicU64,
}

/// The byte cap shared by all logs of a folder.
#[derive(Debug)]
pub struct Space {
    max: u64,
    shared: u64,
    parts: Vec<Part>,
}

impl Space {
    /// `max` in bytes for the whole folder; `logs` are the served ones (and quarantine).
    pub fn new(max: u64, logs: &[&str]) -> Arc<Space> {
        let guarantee = |name: &str| max / if name == QUARANTINE { QUARANTINE_OF } else { GUARANTEE_OF };
        let parts: Vec<Part> = logs
            .iter()
            .map(|n| Part { name: n.to_string(), guarantee: guarantee(n), used: AtomicU64::new(0) })
            .collect();
        let shared = max.saturating_sub(parts.iter().map(|p| p.guarantee).sum::<u64>() + reserve_of(max));
        Arc::new(Space { max, shared, parts })
    }

    /// The cap in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Segment size for this cap, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        (self.max / 64).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// Bytes that one log holds back on disk for cursors and deletions.
    pub fn reserve_bytes(&self) -> u64 {
        reserve_of(self.max) / self.parts.len().max(1) as u64
    }

    /// Bytes of all segments of all logs.
    pub fn used(&self) -> u64 {
        self.parts.iter().map(|p| p.used.load(Relaxed)).sum()
    }

    /// The share promised to a log, in bytes.
    pub fn guarantee(&self, log: &str) -> u64 {
        self.part(log).map_or(0, |p| p.guarantee)
    }

    /// How full a log is; an unknown one is full.
    pub fn pressure(&self, log: &str) -> Pressure {
        self.pressure_with(log, 0)
    }

    pub(crate) fn pressure_with(&self, log: &str, pending: u64) -> Pressure {
        let capacity = self.capacity(log);
        let used = self.part(log).map_or(0, |p| p.used.load(Relaxed)) + pending;
        let fraction = if capacity == 0 { 1.0 } else { used as f64 / capacity as f64 };
        let level = match fraction {
            f if f >= 1.0 => Level::Full,
            f if f >= 0.95 => Level::Critical95,
            f if f >= 0.85 => Level::High85,
            f if f >= 0.70 => Level::Warn70,
            _ => Level::Ok,
        };
        Pressure { fraction, level }
    }

    /// Bytes this log may use now: its guarantee, what it has of the shared part, and what is free of it.
    pub fn capacity(&self, log: &str) -> u64 {
        let over = |p: &Part| p.used.load(Relaxed).saturating_sub(p.guarantee);
        let taken: u64 = self.parts.iter().map(over).sum();
        self.part(log).map_or(0, |p| p.guarantee + over(p) + self.shared.saturating_sub(taken))
    }

    /// Whether `more` bytes fit beside what the log holds.
    pub(crate) fn fits(&self, log: &str, more: u64) -> bool {
        self.part(log).is_some_and(|p| p.used.load(Relaxed) + more <= self.capacity(log))
    }

    pub(crate) fn set_used(&self, log: &str, bytes: u64) {
        if let Some(p) = self.part(log) {
            p.used.store(bytes, Relaxed);
        }
    }

    fn part(&self, log: &str) -> Option<&Part> {
        self.parts.iter().find(|p| p.name == log)
    }
}

fn reserve_of(max: u64) -> u64 {
    (max / 16).min(RESERVE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_neighbour_never_takes_the_guaranteed_share() {
        let s = Space::new(1600, &["logs", "traces", QUARANTINE]);
        assert_eq!((s.guarantee("logs"), s.guarantee(QUARANTINE)), (200, 32));
        let shared = 1600 - 100 - 200 - 200 - 32;
        assert_eq!(s.capacity("logs"), 200 + shared);
        s.set_used("traces", 200 + shared);
        assert_eq!(s.pressure("traces").level, Level::Full);
        assert!(!s.fits("traces", 1) && s.fits("logs", 200) && !s.fits("logs", 201));
        assert_eq!(s.pressure("logs").level, Level::Ok);
        s.set_used("logs", 150);
        assert_eq!(s.pressure("logs").level, Level::Warn70);
        assert_eq!(s.pressure("nobody").level, Level::Full);
    }

    #[test]
    fn segments_are_a_sixty_fourth_within_bounds() {
        assert_eq!(Space::new(1 << 20, &["a"]).segment_bytes(), 1 << 20);
        assert_eq!(Space::new(1 << 30, &["a"]).segment_bytes(), 16 << 20);
        assert_eq!(Space::new(1 << 40, &["a"]).segment_bytes(), 64 << 20);
    }
}
