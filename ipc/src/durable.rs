//! The only thing that goes inward: sixteen bytes, "everything of this stream up to here is on a disk".
//!
//! Like a counter at a turnstile: it moves one way, never past the number of people who came. [`Judge`] holds what was sent
//! and what was said; anything that does not fit is a [`Lie`], and the connection ends. The weakness: a gateway that lies
//! within what was sent is believed; it can lose what it was given, and nothing else.

use crate::Index;
use std::fmt;

/// Bytes of one record.
pub const DURABLE_BYTES: usize = 16;

/// One record: index u32, zero u32, seq u64, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Number of an [`Index`].
    pub index: u32,
    /// Must be 0.
    pub zero: u32,
    /// All frames up to this one are synced.
    pub seq: u64,
}

impl Durable {
    /// A record for `index`.
    pub fn new(index: Index, seq: u64) -> Durable {
        Durable { index: index as u32, zero: 0, seq }
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; DURABLE_BYTES] {
        let mut out = [0; DURABLE_BYTES];
        out[..4].copy_from_slice(&self.index.to_le_bytes());
        out[4..8].copy_from_slice(&self.zero.to_le_bytes());
        out[8..].copy_from_slice(&self.seq.to_le_bytes());
        out
    }

    /// Reads the wire form; any sixteen bytes are a record, [`Judge`] says whether it is one to believe.
    pub fn from_bytes(bytes: [u8; DURABLE_BYTES]) -> Durable {
        let [i0, i1, i2, i3, z0, z1, z2, z3, seq @ ..] = bytes;
        Durable {
            index: u32::from_le_bytes([i0, i1, i2, i3]),
            zero: u32::from_le_bytes([z0, z1, z2, z3]),
            seq: u64::from_le_bytes(seq),
        }
    }
}

/// Why a record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// No such stream.
    Index(u32),
    /// The zero is not zero.
    Zero(u32),
    /// Below what was said before on this connection.
    Backwards { last: u64, seq: u64 },
    /// Beyond what was sent.
    Ahead { sent: u64, seq: u64 },
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lie::Index(i) => write!(f, "durable record for stream {i}; there are 0 (logs) and 1 (profiles)"),
            Lie::Zero(z) => write!(f, "durable record whose second word is {z}, not 0"),
            Lie::Backwards { last, seq } => write!(f, "durable number went back from {last} to {seq}"),
            Lie::Ahead { sent, seq } => write!(f, "durable number {seq}, but only frames up to {sent} were sent"),
        }
    }
}

impl std::error::Error for Lie {}

#[derive(Clone, Copy, Debug)]
struct Window {
    last: u64,
    sent: u64,
}

/// Judges the records of one client after another. Pure: no socket, no clock.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// Highest number ever sent in this probe start, per stream.
    ever: [u64; 2],
    /// What this connection has said and been sent; `None` until its first record for the stream.
    now: [Option<Window>; 2],
}

impl Judge {
    /// A new connection: its first record per stream says what it holds of this probe start.
    pub fn connected(&mut self) {
        self.now = [None; 2];
    }

    /// Whether the first record of both streams is in, so that sending may begin.
    pub fn ready(&self) -> bool {
        self.now.iter().all(Option::is_some)
    }

    /// A frame was written whole to this connection.
    pub fn sent(&mut self, index: Index, seq: u64) {
        let i = index as usize;
        self.ever[i] = self.ever[i].max(seq);
        if let Some(window) = &mut self.now[i] {
            window.sent = window.sent.max(seq);
        }
    }

    /// Judges a record: the stream and number to discard up to, or why not to believe it.
    ///
    /// The first record of a stream may name anything that was ever sent in this probe start; later ones only what was
    /// sent on this connection, and never less than before.
    pub fn judge(&mut self, record: Durable) -> Result<(Index, u64), Lie> {
        let index = Index::from_number(record.index).ok_or(Lie::Index(record.index))?;
        if record.zero != 0 {
            return Err(Lie::Zero(record.zero));
        }
        let (i, seq) = (index as usize, record.seq);
        match &mut self.now[i] {
            None if seq > self.ever[i] => return Err(Lie::Ahead { sent: self.ever[i], seq }),
            None => self.now[i] = Some(Window { last: seq, sent: seq }),
            Some(w) if seq < w.last => return Err(Lie::Backwards { last: w.last, seq }),
            Some(w) if seq > w.sent => return Err(Lie::Ahead { sent: w.sent, seq }),
            Some(w) => w.last = seq,
        }
        Ok((index, seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Judge {
        let mut judge = Judge::default();
        judge.connected();
        judge.judge(Durable::new(Index::Logs, 0)).expect("zero is always true");
        judge.judge(Durable::new(Index::Profiles, 0)).expect("zero is always true");
        judge
    }

    #[test]
    fn a_record_survives_the_wire() {
        let d = Durable { index: 1, zero: 0, seq: 0x0102_0304_0506_0708 };
        assert_eq!(d.to_bytes(), [1, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Durable::from_bytes(d.to_bytes()), d);
    }

    #[test]
    fn numbers_move_forward_and_never_past_what_was_sent() {
        let mut judge = ready();
        assert!(judge.ready());
        judge.sent(Index::Logs, 1);
        judge.sent(Index::Logs, 2);
        assert_eq!(judge.judge(Durable::new(Index::Logs, 2)), Ok((Index::Logs, 2)));
        assert_eq!(judge.judge(Durable::new(Index::Logs, 1)), Err(Lie::Backwards { last: 2, seq: 1 }));
        assert_eq!(judge.judge(Durable::new(Index::Logs, 3)), Err(Lie::Ahead { sent: 2, seq: 3 }));
        assert_eq!(judge.judge(Durable::new(Index::Profiles, 1)), Err(Lie::Ahead { sent: 0, seq: 1 }));
        assert_eq!(judge.judge(Durable { index: 2, zero: 0, seq: 0 }), Err(Lie::Index(2)));
        assert_eq!(judge.judge(Durable { index: 0, zero: 9, seq: 2 }), Err(Lie::Zero(9)));
    }

    #[test]
    fn a_new_connection_may_hold_what_an_earlier_one_got_but_nothing_later_until_it_is_sent_again() {
        let mut judge = ready();
        for seq in 1..=5 {
            judge.sent(Index::Profiles, seq);
        }
        judge.connected();
        assert!(!judge.ready());
        assert_eq!(judge.judge(Durable::new(Index::Profiles, 6)), Err(Lie::Ahead { sent: 5, seq: 6 }));
        assert_eq!(judge.judge(Durable::new(Index::Profiles, 3)), Ok((Index::Profiles, 3)));
        assert_eq!(judge.judge(Durable::new(Index::Profiles, 4)), Err(Lie::Ahead { sent: 3, seq: 4 }));
        judge.sent(Index::Profiles, 4);
        assert_eq!(judge.judge(Durable::new(Index::Profiles, 4)), Ok((Index::Profiles, 4)));
    }

    #[test]
    fn no_sixteen_bytes_make_the_judge_believe_more_than_was_sent() {
        // A splitmix of seeds: a million records against one connection, no clock, no socket.
        let mut judge = ready();
        judge.sent(Index::Logs, 40);
        let mut state = 7u64;
        let mut believed = 0;
        for _ in 0..1_000_000 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^= z >> 27;
            // Mostly near the truth: wild numbers are all refused alike and teach nothing.
            let record = Durable { index: (z >> 60) as u32 & 3, zero: (z >> 56) as u32 & 1, seq: z & 63 };
            if let Ok((index, seq)) = judge.judge(record) {
                assert!(seq <= if index == Index::Logs { 40 } else { 0 });
                believed += 1;
            }
        }
        assert!(believed > 0);
    }
}
