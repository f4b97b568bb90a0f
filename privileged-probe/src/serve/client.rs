//! One client: hello, what it holds, then frames out and numbers in until one side has enough.
//!
//! Like a conveyor with a weighing plate: parcels go out one at a time, and each sixteen-byte note that comes back is held
//! against what was sent ([`Judge`]). The socket never blocks; a frame that is not taken within its deadline ends the
//! connection, so a client that stalls costs one frame of memory beyond the outbox. The weakness: a note is believed within
//! what was sent, see `ipc`.

use super::pace::Limits;
use super::{ready, status, wait};
use crate::outbox::{Outbox, Parcel};
use ipc::{DURABLE_BYTES, Durable, Hello, Judge, Message, encode_head};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recvmsg, send};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records read in one go; more wait in the socket.
const RECORDS_AT_ONCE: usize = 64;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client broke a rule.
    Bad(String),
    /// The client went, having kept the rules.
    Gone(String),
    /// We stop.
    Stopping,
}

pub(super) struct Client<'a> {
    stream: UnixStream,
    outbox: &'a Outbox,
    judge: &'a mut Judge,
    limits: Limits,
    /// Being written, how much of it is, and since when.
    out: Option<(Parcel, usize, Instant)>,
    /// The beginning of a record whose rest has not come.
    partial: Vec<u8>,
    greeted: Instant,
    next_status: Instant,
    /// Records in the second that began then.
    second: (Instant, u32),
}

impl<'a> Client<'a> {
    pub(super) fn new(
        stream: UnixStream,
        outbox: &'a Outbox,
        judge: &'a mut Judge,
        limits: Limits,
    ) -> std::io::Result<Client<'a>> {
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        let partial = Vec::with_capacity(DURABLE_BYTES);
        Ok(Client {
            stream,
            outbox,
            judge,
            limits,
            out: None,
            partial,
            greeted: now,
            next_status: now,
            second: (now, 0),
        })
    }

    pub(super) fn serve(&mut self, hello: &Hello) -> Ended {
        self.put(Message::Hello(hello.clone()));
        let mut open = false;
        loop {
            if self.outbox.stopping() {
                return Ended::Stopping;
            }
            if !open && self.judge.ready() {
                open = true;
                self.outbox.connected();
            }
            let now = Instant::now();
            let wait_for = match self.due(open, now) {
                Ok(wait_for) => wait_for,
                Err(why) => return Ended::Bad(why),
            };
            if self.out.is_none() && open {
                self.refill(now);
            }
            if let Err(ended) = self.step(wait_for) {
                return ended;
            }
        }
    }

    /// How long nothing may happen before something is due; an error if a deadline has passed.
    fn due(&self, open: bool, now: Instant) -> Result<Duration, String> {
        let mut soonest = self.limits.status;
        if let Some((_, _, since)) = &self.out {
            let left = (*since + self.limits.send).saturating_duration_since(now);
            if left.is_zero() {
                return Err(format!("it did not take a frame within {:?}", self.limits.send));
            }
            soonest = soonest.min(left);
        }
        if open && self.out.is_none() {
            soonest = soonest.min(self.next_status.saturating_duration_since(now));
        } else if !open {
            let left = (self.greeted + self.limits.first).saturating_duration_since(now);
            if left.is_zero() {
                return Err(format!("it did not say what it holds within {:?}", self.limits.first));
            }
            soonest = soonest.min(left);
        }
        Ok(soonest)
    }

    fn refill(&mut self, now: Instant) {
        if now >= self.next_status {
            self.next_status = now + self.limits.status;
            self.put(Message::Status(Box::new(status(self.outbox))));
        } else {
            self.outbox.idle();
            self.out = self.outbox.next().map(|parcel| (parcel, 0, now));
        }
    }

    fn put(&mut self, message: Message) {
        match encode_head(0, &message, 0) {
            Ok(head) => {
                self.out = Some((Parcel { head, bulk: Arc::default(), number: None }, 0, Instant::now()));
            }
            Err(e) => tracing::error!("a message for the gateway was left out: {e}; please report this"),
        }
    }

    /// One turn of the loop: wait, take what came, write what fits.
    fn step(&mut self, wait_for: Duration) -> Result<(), Ended> {
        let flags = if self.out.is_some() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let work = if self.out.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut fds = [
            PollFd::new(self.stream.as_fd(), flags),
            PollFd::new(self.outbox.stop_fd(), PollFlags::POLLIN),
            PollFd::new(self.outbox.work_fd(), work),
        ];
        wait(&mut fds, wait_for).map_err(|e| Ended::Bad(format!("waiting failed: {e}")))?;
        if !ready(&fds[0]) {
            return Ok(());
        }
        self.receive()?;
        self.write()
    }

    fn gone(&self, why: String) -> Ended {
        // Coming and going without a word is what a scanner does.
        if self.judge.ready() { Ended::Gone(why) } else { Ended::Bad(format!("{why} before it said what it holds")) }
    }

    fn receive(&mut self) -> Result<(), Ended> {
        let mut buffer = [0u8; DURABLE_BYTES * RECORDS_AT_ONCE];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        // No room for ancillary data: descriptors that a client attaches are closed by the kernel and show as MSG_CTRUNC.
        let got = match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT) {
            Ok(got) => (got.bytes, got.flags.contains(MsgFlags::MSG_CTRUNC)),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(e) => return Err(self.gone(e.to_string())),
        };
        match got {
            (_, true) => Err(Ended::Bad("it attached something to its bytes; only numbers go this way".into())),
            (0, _) => Err(self.gone("it closed the connection".into())),
            (n, _) => self.records(&buffer[..n]),
        }
    }

    fn records(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(DURABLE_BYTES - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            let Ok(record) = <[u8; DURABLE_BYTES]>::try_from(self.partial.as_slice()) else { return Ok(()) };
            self.partial.clear();
            if self.second.0.elapsed() >= Duration::from_secs(1) {
                self.second = (Instant::now(), 0);
            }
            self.second.1 += 1;
            if self.second.1 > self.limits.records_per_second {
                return Err(Ended::Bad(format!("more than {} numbers in a second", self.limits.records_per_second)));
            }
            let (index, seq) =
                self.judge.judge(Durable::from_bytes(record)).map_err(|lie| Ended::Bad(lie.to_string()))?;
            self.outbox.durable(index, seq);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Ended> {
        while let Some((parcel, done, _)) = &mut self.out {
            let rest = match parcel.head.get(*done..) {
                Some(head) if !head.is_empty() => head,
                _ => &parcel.bulk[*done - parcel.head.len()..],
            };
            if rest.is_empty() {
                if let Some((index, seq)) = parcel.number {
                    self.judge.sent(index, seq);
                }
                self.out = None;
                break;
            }
            match send(self.stream.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => *done += n,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(e) => return Err(self.gone(e.to_string())),
            }
        }
        Ok(())
    }
}
