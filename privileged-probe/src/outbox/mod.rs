//! What waits to leave: log bytes that block their reader, stacks that do not, and the numbers of the probe.
//!
//! Like a loading dock with two bays. The log bay holds 4 MiB: when it is full, whoever brings more waits at the gate (log
//! files are patient). The stacks bay holds 8 MiB: when it is full, the oldest crate goes to the bin and is counted (a new
//! profile is worth more than an old one). A crate stays in its bay until the number that covers it returns, so a new
//! connection gets it again. The weakness: the bays are memory; what is in them when the process dies is read again (logs)
//! or lost (stacks).

mod logs;
mod profiles;

use ipc::{Closed, Count, Index, Opened, Stacks, Status};
use logs::LogQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};
use profiles::Ring;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Unacknowledged log bytes held in memory before [`Outbox::log_bytes`] waits.
pub const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the stacks ring.
pub const RING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One frame on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// Header and control part.
    pub(crate) head: Vec<u8>,
    /// What follows, shared with the bay that keeps it.
    pub(crate) bulk: Arc<Vec<u8>>,
    /// Stream and number, for numbered kinds.
    pub(crate) number: Option<(Index, u64)>,
}

/// Shared by whoever produces (pod logs, profiler) and the door that sends. Cloning shares.
#[derive(Clone, Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Room in the log bay, or the end.
    room: Condvar,
    /// Readable: something became durable.
    durable: EventFd,
    /// Readable: there is something to send.
    work: EventFd,
    /// Readable for ever once stopping.
    stop: EventFd,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    logs: LogQueue,
    ring: Ring,
    status: Status,
    /// Which bay is asked first, so that neither starves.
    logs_first: bool,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> io::Result<Outbox> {
        let event = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        Ok(Outbox {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                room: Condvar::new(),
                durable: event()?,
                work: event()?,
                stop: event()?,
                stopping: AtomicBool::new(false),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a file; kept, and announced again on every new connection, until it is closed.
    ///
    /// A file number is used once per probe start: its durable end can return long after [`Outbox::closed`].
    pub fn opened(&self, opened: Opened) {
        self.lock().logs.opened(opened);
        self.wake();
    }

    /// Says that all bytes of a file were given to [`Outbox::log_bytes`] and no more will come.
    pub fn closed(&self, closed: Closed) {
        self.lock().logs.closed(closed);
        self.wake();
    }

    /// Hands over bytes of an announced file, from `offset` on. Waits while [`LOG_BYTES_MAX`] bytes are unacknowledged.
    /// Longer than a frame takes: cut into several. `false`: stopping, the bytes were not taken.
    pub fn log_bytes(&self, file: u32, offset: u64, bytes: Vec<u8>) -> bool {
        let mut state = self.lock();
        while !self.stopping() && !state.logs.has_room(bytes.len()) {
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if self.stopping() {
            return false;
        }
        state.logs.bytes(file, offset, bytes);
        drop(state);
        self.wake();
        true
    }

    /// What became durable since the last call: file number and the end of what is safe, in order.
    pub fn take_durable(&self) -> Vec<(u32, u64)> {
        let mut state = self.lock();
        // Reset under the lock: a number that comes in after it makes the descriptor readable again.
        let _ = self.shared.durable.read();
        state.logs.take_durable()
    }

    /// Readable when [`Outbox::take_durable`] has something to give.
    pub fn durable_fd(&self) -> BorrowedFd<'_> {
        self.shared.durable.as_fd()
    }

    /// Hands over one window's stacks. Never waits: the oldest leave when the ring is full, counted in samples.
    pub fn stacks(&self, stacks: Stacks, bulk: Vec<u8>) {
        self.lock().ring.push(stacks, bulk);
        self.wake();
    }

    /// How full the stacks ring is, 0 to 1: the profiler thins its rate by it.
    pub fn stacks_fill(&self) -> f64 {
        self.lock().ring.fill()
    }

    /// Changes the numbers that go out each second. Fields that the outbox counts itself (log bytes sent, durable and
    /// waiting; the ring) are overwritten when they go.
    pub fn status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }

    /// Whether [`Outbox::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// Ends all waiting. Final.
    pub fn stop(&self) {
        // Under the lock, so that nobody goes to sleep between looking and waiting.
        let state = self.lock();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.room.notify_all();
        drop(state);
        let _ = self.shared.stop.write(1);
        self.wake();
    }

    /// Readable for ever once stopping.
    pub fn stop_fd(&self) -> BorrowedFd<'_> {
        self.shared.stop.as_fd()
    }

    fn wake(&self) {
        // The only error is a counter that is full, which is readable as well.
        let _ = self.shared.work.write(1);
    }

    /// Readable when there may be something to send; [`Outbox::next`] after [`Outbox::idle`] tells.
    pub(crate) fn work_fd(&self) -> BorrowedFd<'_> {
        self.shared.work.as_fd()
    }

    /// Resets [`Outbox::work_fd`]; call before asking [`Outbox::next`].
    pub(crate) fn idle(&self) {
        let _ = self.shared.work.read();
    }

    /// A client came and said what it holds: from here on [`Outbox::next`] starts anew behind that.
    pub(crate) fn connected(&self) {
        let mut state = self.lock();
        state.logs.connected();
        state.ring.connected();
    }

    /// The client is gone: nothing is given until the next one came.
    pub(crate) fn disconnected(&self) {
        let mut state = self.lock();
        state.logs.disconnected();
        state.ring.disconnected();
    }

    /// Everything of `index` up to `seq` is on a disk elsewhere.
    pub(crate) fn durable(&self, index: Index, seq: u64) {
        let mut state = self.lock();
        match index {
            Index::Profiles => state.ring.durable(seq),
            Index::Logs => {
                if state.logs.durable(seq) {
                    let _ = self.shared.durable.write(1);
                    self.shared.room.notify_all();
                }
            }
        }
    }

    /// The next frame for the current connection; given once per connection.
    pub(crate) fn next(&self) -> Option<Parcel> {
        let mut state = self.lock();
        let State { logs, ring, logs_first, .. } = &mut *state;
        *logs_first = !*logs_first;
        if *logs_first { logs.next().or_else(|| ring.next()) } else { ring.next().or_else(|| logs.next()) }
    }

    /// Takes all stacks that wait, as a gateway that acknowledges at once would; for tools and tests that stand in for one.
    pub fn take_stacks(&self) -> Vec<(Stacks, Vec<u8>)> {
        self.connected();
        let mut out = Vec::new();
        while let Some(parcel) = self.next() {
            let mut decoder = ipc::Decoder::new();
            let whole = [&parcel.head[..], &parcel.bulk[..]].concat();
            if let Ok(Some(frame)) = decoder.feed(&mut &whole[..])
                && let ipc::Message::Stacks(stacks) = frame.message
            {
                self.durable(Index::Profiles, frame.seq);
                out.push((stacks, frame.bulk));
            }
        }
        self.disconnected();
        out
    }

    /// The numbers as they stand.
    pub fn snapshot(&self) -> Status {
        let state = self.lock();
        let mut status = state.status.clone();
        state.logs.count(&mut status.log);
        status.ring_bytes = state.ring.bytes() as u64;
        status.ring_max = RING_BYTES_MAX as u64;
        status.stacks_dropped = state.ring.dropped();
        status
    }
}

/// Adds to a named count, creating it at zero; for lists in [`Status`].
pub fn add(counts: &mut Vec<Count>, name: &str, more: u64) {
    match counts.iter_mut().find(|c| c.name == name) {
        Some(count) => count.value += more,
        None => counts.push(Count { name: name.to_owned(), value: more }),
    }
}

#[cfg(test)]
mod tests;
