//! The nursery: where parsers are born, without rights, and die after one file.
//!
//! Like a poison taster's kitchen: each dish gets a new taster, who has no keys, cannot leave the room and has two seconds. The
//! nursery is forked from the probe before there is any thread; it gives up every capability, closes everything but its end of
//! one socket, and forks one parser for each question that comes in over it. A question is one message with two descriptors: the
//! file, read-only, and the writing end of a pipe; the parser writes its answer there and is gone. What comes back is read with a
//! limit and a deadline and checked ([`crate::parser::wire`]); what does not come back is counted.
//! The weakness: a parser that hangs in a file system that never answers cannot be ended by anybody; there are at most
//! [`child::PARSERS_MAX`] of them, and then the files after it have no names.

pub(crate) mod child;
pub(crate) mod filter;
pub(crate) mod sys;

use crate::parser::wire::{ANSWER_BYTES_MAX, Answer};
use crate::parser::{ADDRESSES_MAX, Question};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use nix::unistd::pipe2;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A parser's time by the clock on the wall, seconds. It ends itself by alarm.
pub const PARSER_SECONDS: u32 = 2;
/// How long the probe waits for an answer: the parser's time, and some for the machine to be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(PARSER_SECONDS as u64 + 2);
/// Questions under way at one time.
const AT_ONCE: usize = 4;
/// How much is read from a pipe at once, bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Loss {
    /// The parser said so: not an ELF file, too large, ...
    #[error("{0}")]
    Nothing(String),
    /// The parser died, was ended for time or memory, or wrote what is no answer.
    #[error("its parser died or was ended")]
    Died,
    /// The nursery is gone.
    #[error("the nursery is gone")]
    Gone,
}

/// The probe's side.
#[derive(Debug)]
pub struct Nursery {
    control: OwnedFd,
    run: AtomicU64,
    failed: AtomicU64,
    killed: AtomicU64,
}

impl Nursery {
    /// Forks the nursery. Call from the first thread, before there is another, and before anything is open that it need not see.
    ///
    /// Errors: the kernel's, when it gives no socket or no process.
    pub fn start() -> io::Result<Nursery> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (control, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let parent = nix::unistd::getpid();
        if sys::fork()?.is_none() {
            drop(control);
            child::live(theirs, parent);
        }
        Ok(Nursery { control, run: AtomicU64::new(0), failed: AtomicU64::new(0), killed: AtomicU64::new(0) })
    }

    /// A nursery that is gone already, for tests that ask nothing.
    #[cfg(test)]
    pub(crate) fn gone() -> Nursery {
        let (control, _) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("sockets");
        Nursery { control, run: AtomicU64::new(0), failed: AtomicU64::new(0), killed: AtomicU64::new(0) }
    }

    /// Hung up (`POLLHUP`) once the nursery is gone; nothing ever comes out of it.
    pub fn gone_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Whether the nursery is there.
    pub fn alive(&self) -> bool {
        let mut fds = [PollFd::new(self.control.as_fd(), PollFlags::empty())];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// The counters, for Status.
    pub fn counts(&self) -> ipc::Nursery {
        ipc::Nursery {
            alive: self.alive(),
            parsers_run: self.run.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            killed: self.killed.load(Ordering::Relaxed),
        }
    }

    /// Asks about several files, a few at a time; answers in the order of the questions.
    pub fn ask(&self, jobs: &[(&File, Question)]) -> Vec<Result<Answer, Loss>> {
        let mut out: Vec<Result<Answer, Loss>> = jobs.iter().map(|_| Err(Loss::Died)).collect();
        let mut waiting: VecDeque<usize> = (0..jobs.len()).collect();
        let mut desk = Desk::default();
        while !waiting.is_empty() || desk.under_way() > 0 {
            while desk.under_way() < AT_ONCE
                && let Some(job) = waiting.pop_front()
                && let Some((file, question)) = jobs.get(job)
            {
                desk.ask(self, job, file, question);
            }
            for (job, done) in desk.wait(self, ANSWER_WITHIN) {
                if let Some(slot) = out.get_mut(job) {
                    *slot = done;
                }
            }
        }
        out
    }

    fn count(&self, done: &Result<Answer, Loss>) {
        match done {
            Ok(_) => {}
            Err(Loss::Nothing(_)) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
            Err(Loss::Died | Loss::Gone) => _ = self.killed.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn send(&self, file: &File, question: &Question) -> nix::Result<File> {
        let (mine, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(&mine, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let message = request(question);
        let fds = [file.as_raw_fd(), theirs.as_raw_fd()];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.control.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None)?;
        Ok(File::from(mine))
    }
}

/// A question as bytes: kind, then addresses.
fn request(question: &Question) -> Vec<u8> {
    match question {
        Question::Layout => vec![0],
        Question::Names(addresses) => {
            let mut out = vec![1];
            addresses.iter().take(ADDRESSES_MAX).for_each(|a| out.extend_from_slice(&a.to_le_bytes()));
            out
        }
    }
}

/// Questions under way, each with a name of the asker's choice. Answers come in any order.
#[derive(Debug)]
pub struct Desk<T> {
    running: Vec<(T, Running)>,
    /// Never went out.
    lost: Vec<T>,
}

impl<T> Default for Desk<T> {
    fn default() -> Desk<T> {
        Desk { running: Vec::new(), lost: Vec::new() }
    }
}

impl<T> Desk<T> {
    /// Questions without an answer yet.
    pub fn under_way(&self) -> usize {
        self.running.len() + self.lost.len()
    }

    /// Whether another question may go out.
    pub fn has_room(&self) -> bool {
        self.under_way() < AT_ONCE
    }

    /// Sends a question.
    pub fn ask(&mut self, nursery: &Nursery, name: T, file: &File, question: &Question) {
        nursery.run.fetch_add(1, Ordering::Relaxed);
        match nursery.send(file, question) {
            Ok(pipe) => self.running.push((name, Running { pipe, bytes: Vec::new(), begun: Instant::now() })),
            Err(_) => self.lost.push(name),
        }
    }

    /// Answers that are there; waits for one, at most this long.
    pub fn wait(&mut self, nursery: &Nursery, at_most: Duration) -> Vec<(T, Result<Answer, Loss>)> {
        if self.lost.is_empty() && !self.running.is_empty() {
            let left = self.running.iter().map(|(_, r)| ANSWER_WITHIN.saturating_sub(r.begun.elapsed())).min();
            let left = left.unwrap_or_default().min(at_most);
            let mut fds: Vec<PollFd<'_>> =
                self.running.iter().map(|(_, r)| PollFd::new(r.pipe.as_fd(), PollFlags::POLLIN)).collect();
            // Whatever poll says, everybody is looked at again.
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        }
        let mut done: Vec<(T, Result<Answer, Loss>)> =
            self.lost.drain(..).map(|name| (name, Err(Loss::Gone))).collect();
        for (name, mut running) in std::mem::take(&mut self.running) {
            match running.advance() {
                Some(answer) => done.push((name, answer)),
                None => self.running.push((name, running)),
            }
        }
        done.iter().for_each(|(_, answer)| nursery.count(answer));
        done
    }
}

#[derive(Debug)]
struct Running {
    pipe: File,
    bytes: Vec<u8>,
    begun: Instant,
}

impl Running {
    /// Reads what there is; `Some` when this question is done with.
    fn advance(&mut self) -> Option<Result<Answer, Loss>> {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return Some(decode(&self.bytes)),
                Ok(n) if self.bytes.len() + n > ANSWER_BYTES_MAX => return Some(Err(Loss::Died)),
                Ok(n) => self.bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Err(Loss::Died)),
            }
        }
        (self.begun.elapsed() >= ANSWER_WITHIN).then_some(Err(Loss::Died))
    }
}

fn decode(bytes: &[u8]) -> Result<Answer, Loss> {
    match Answer::decode(bytes) {
        Ok(Answer::Nothing(why)) => Err(Loss::Nothing(why)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(Loss::Died),
    }
}
