//! The thread that empties the ring, and does nothing else.
//!
//! Like the person at the end of a conveyor belt: looking at what goes by is somebody else's job; when this one builds a table
//! meanwhile, things fall off (measured: one sample in eight). It looks every 50 ms, adds each sample to the window and wishes for
//! programs nobody knows. The weakness: 50 ms of samples wait in the ring, which holds seconds.

use super::shared::{Shared, Wish};
use crate::outbox::Outbox;
use aya::maps::{MapData, RingBuf};
use ebpf_abi::Header;
use ipc::stacks::End;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::sync::atomic::Ordering;

/// How often the ring is looked at, milliseconds.
const LOOK_EVERY_MS: u16 = 50;

/// Runs until the outbox stops.
pub(super) fn run(mut ring: RingBuf<MapData>, shared: &Shared, outbox: &Outbox) {
    while !outbox.stopping() {
        empty(&mut ring, shared);
        let mut fds = [PollFd::new(outbox.stop_fd(), PollFlags::POLLIN)];
        // Stopped, interrupted or time: the ring is looked at.
        let _ = poll(&mut fds, PollTimeout::from(LOOK_EVERY_MS));
    }
    empty(&mut ring, shared);
}

fn empty(ring: &mut RingBuf<MapData>, shared: &Shared) {
    let mut window = shared.window();
    while let Some(record) = ring.next() {
        let Some((header, frames)) = Header::parse(&record) else {
            shared.malformed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        window.add(&header, frames);
        shared.count_end(header.end);
        if header.end == End::NoTable as u16 || header.end == End::NoMapping as u16 {
            shared.wish(header.tgid, Wish { space: header.space, cgroup: header.cgroup });
        }
    }
}
