//! One window of samples, folded: equal stacks are one line with a count.
//!
//! Like tally sheets at a counter: who comes again in the same way gets another stroke on the same line. The drain thread strokes
//! ([`Window::add`]), and when the window is over the whole sheet is exchanged for an empty one. The weakness: the sheet is bounded; once it
//! is full, stacks never seen before in this window are only counted ([`Window::dropped`]).

use ebpf_abi::{HEADER_BYTES, Header};
use ipc::stacks::End;
use std::collections::HashMap;

/// Most different stacks in one window.
const STACKS_MAX: usize = 65_536;
/// Most bytes of stacks in one window.
const BYTES_MAX: usize = 16 << 20;
/// Most different processes in one window.
const PROCESSES_MAX: usize = 16_384;

/// Which program: process id and address space.
pub(super) type Who = (u32, u64);

/// What the samples themselves said about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Process name.
    pub(super) comm: String,
    /// Inode of its control group.
    pub(super) cgroup: u64,
}

/// One stack as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// Whose.
    pub(super) who: Who,
    /// Why the walk ended.
    pub(super) end: End,
    /// Kernel frames, leaf first.
    pub(super) kernel: Vec<u64>,
    /// User frames, leaf first.
    pub(super) user: Vec<u64>,
    /// Samples.
    pub(super) count: u32,
}

/// The sheet.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Key: `who`, end, frame counts, frames, as bytes.
    stacks: HashMap<Box<[u8]>, u32>,
    bytes: usize,
    /// Programs seen.
    pub(super) seen: HashMap<Who, Seen>,
    /// Samples that found no place.
    pub(super) dropped: u64,
    /// Samples in.
    pub(super) samples: u64,
    scratch: Vec<u8>,
}

/// Bytes of a key before its frames: tgid 4, space 8, end 2, kernel frames 2.
const KEY_HEAD: usize = 16;

impl Window {
    /// Counts one sample. `frames` as [`Header::parse`] gave them.
    pub(super) fn add(&mut self, header: &Header, frames: &[u8]) {
        debug_assert_eq!(HEADER_BYTES % 8, 0);
        let mut key = std::mem::take(&mut self.scratch);
        key.clear();
        key.extend_from_slice(&header.tgid.to_ne_bytes());
        key.extend_from_slice(&header.space.to_ne_bytes());
        key.extend_from_slice(&header.end.to_ne_bytes());
        key.extend_from_slice(&header.kernel_frames.to_ne_bytes());
        key.extend_from_slice(frames);
        self.samples += 1;
        if let Some(count) = self.stacks.get_mut(&key[..]) {
            *count = count.saturating_add(1);
        } else if self.stacks.len() < STACKS_MAX && self.bytes + key.len() <= BYTES_MAX && self.see(header) {
            self.bytes += key.len();
            self.stacks.insert(key[..].into(), 1);
        } else {
            self.dropped += 1;
        }
        self.scratch = key;
    }

    fn see(&mut self, header: &Header) -> bool {
        let who = (header.tgid, header.space);
        if self.seen.contains_key(&who) {
            return true;
        }
        if self.seen.len() >= PROCESSES_MAX {
            return false;
        }
        let end = header.comm.iter().position(|b| *b == 0).unwrap_or(header.comm.len());
        let comm = String::from_utf8_lossy(header.comm.get(..end).unwrap_or_default()).into_owned();
        self.seen.insert(who, Seen { comm, cgroup: header.cgroup });
        true
    }

    /// The lines of the sheet.
    pub(super) fn stacks(&self) -> impl Iterator<Item = Raw> + '_ {
        self.stacks.iter().filter_map(|(key, count)| raw(key, *count))
    }
}

fn raw(key: &[u8], count: u32) -> Option<Raw> {
    let (head, frames) = key.split_at_checked(KEY_HEAD)?;
    let number = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let tgid = u32::from_ne_bytes(head.get(..4)?.try_into().ok()?);
    let space = u64::from_ne_bytes(head.get(4..12)?.try_into().ok()?);
    let end = End::from_number(u8::try_from(number(12)?).ok()?)?;
    let words: Vec<u64> = frames.as_chunks::<8>().0.iter().map(|w| u64::from_ne_bytes(*w)).collect();
    let (kernel, user) = words.split_at_checked(usize::from(number(14)?))?;
    Some(Raw { who: (tgid, space), end, kernel: kernel.to_vec(), user: user.to_vec(), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tgid: u32, kernel: u16, user: u16) -> Header {
        Header {
            tgid,
            tid: tgid,
            space: 5,
            cgroup: 6,
            time_ns: 0,
            cpu: 0,
            kernel_frames: kernel,
            user_frames: user,
            end: End::Gap as u16,
            gaps: 0,
            comm: *b"name\0rubbish....",
        }
    }

    fn bytes(frames: &[u64]) -> Vec<u8> {
        frames.iter().flat_map(|f| f.to_ne_bytes()).collect()
    }

    #[test]
    fn equal_stacks_are_one_line_and_different_ones_are_not() {
        let mut window = Window::default();
        window.add(&header(1, 1, 2), &bytes(&[9, 8, 7]));
        window.add(&header(1, 1, 2), &bytes(&[9, 8, 7]));
        window.add(&header(1, 2, 1), &bytes(&[9, 8, 7]));
        window.add(&header(2, 1, 2), &bytes(&[9, 8, 7]));
        let mut got: Vec<Raw> = window.stacks().collect();
        got.sort_by_key(|r| (r.who, r.kernel.len()));
        assert_eq!(got.len(), 3);
        let first = Raw { who: (1, 5), end: End::Gap, kernel: vec![9], user: vec![8, 7], count: 2 };
        assert_eq!(got[0], first);
        assert_eq!(window.seen[&(1, 5)], Seen { comm: "name".into(), cgroup: 6 });
        assert_eq!((window.samples, window.dropped), (4, 0));
    }

    #[test]
    fn a_full_sheet_counts_what_it_cannot_hold_and_still_counts_what_it_knows() {
        let mut window = Window::default();
        for i in 0..STACKS_MAX as u64 + 10 {
            window.add(&header(1, 0, 1), &bytes(&[i]));
        }
        assert_eq!(window.dropped, 10);
        window.add(&header(1, 0, 1), &bytes(&[3]));
        assert_eq!(window.dropped, 10);
        assert_eq!(window.stacks().map(|r| u64::from(r.count)).sum::<u64>() + window.dropped, window.samples);
    }
}
