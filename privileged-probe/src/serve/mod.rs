//! The door itself: a Unix socket that one gateway at a time may hold.
//!
//! Like a bank's night counter with one window: the guard looks at the badge once, one customer stands there at a time, goods
//! are passed out, and the slot for what comes back is sixteen bytes wide. Whoever misbehaves waits longer before the next
//! turn. One thread, one `poll`: the socket, the outbox, the end; no other thread ever touches the client. The weakness: one
//! client that is allowed in can hold the window for as long as it keeps reading; that client is the gateway.

mod client;
mod listen;
mod pace;

pub use listen::{Door, ListenError};
pub use pace::Limits;

use crate::outbox::Outbox;
use crate::vitals;
use client::{Client, Ended};
use ipc::Hello;
use ipc::Judge;
use ipc::peer::{Peer, Rule};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pace::Pace;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Everything the counter needs.
#[derive(Debug)]
pub struct Serve {
    /// The listening socket.
    pub listener: UnixListener,
    /// Who may come in.
    pub rule: Rule,
    /// What each client is told first.
    pub hello: Hello,
    /// Times and sizes.
    pub limits: Limits,
}

/// Rounds a wait up to whole milliseconds, so that a loop never spins through the last one.
fn timeout(wait: Duration) -> PollTimeout {
    let ms = wait.as_micros().div_ceil(1000);
    i32::try_from(ms).ok().and_then(|ms| PollTimeout::try_from(ms).ok()).unwrap_or(PollTimeout::MAX)
}

/// `poll` that takes an interruption as "nothing happened".
fn wait(fds: &mut [PollFd<'_>], for_: Duration) -> nix::Result<()> {
    match poll(fds, timeout(for_)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e),
    }
}

fn ready(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

impl Serve {
    /// Serves one client after another until the outbox stops. An error of the listening socket itself ends it.
    pub fn run(self, outbox: &Outbox) -> std::io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let began = Instant::now();
        let (mut judge, mut pace) = (Judge::default(), Pace::new(self.limits));
        loop {
            let pause = pace.pause(began.elapsed());
            let listen = if pause.is_zero() { PollFlags::POLLIN } else { PollFlags::empty() };
            let mut fds =
                [PollFd::new(self.listener.as_fd(), listen), PollFd::new(outbox.stop_fd(), PollFlags::POLLIN)];
            // Nobody is there to see it, but the numbers stay fresh for whoever comes.
            wait(&mut fds, if pause.is_zero() { Duration::from_secs(60) } else { pause })?;
            if outbox.stopping() {
                return Ok(());
            }
            if !pause.is_zero() || !ready(&fds[0]) {
                continue;
            }
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(e)
                    if matches!(Errno::from_raw(e.raw_os_error().unwrap_or(0)), Errno::ECONNABORTED | Errno::EINTR) =>
                {
                    continue;
                }
                // Out of descriptors or memory: the listener is whole, the moment is not.
                Err(e) => {
                    tracing::warn!("cannot take a connection: {e}");
                    pace.ended(&Ended::Bad(e.to_string()), began.elapsed());
                    continue;
                }
            };
            let ended = self.client(stream, outbox, &mut judge);
            pace.ended(&ended, began.elapsed());
            match ended {
                Ended::Bad(why) => tracing::warn!(
                    wait_ms = u64::try_from(pace.pause(began.elapsed()).as_millis()).unwrap_or(u64::MAX),
                    "closed a connection on the door: {why}"
                ),
                Ended::Gone(why) => tracing::info!("the gateway left: {why}"),
                Ended::Stopping => return Ok(()),
            }
        }
    }

    fn client(&self, stream: UnixStream, outbox: &Outbox, judge: &mut Judge) -> Ended {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(e) => return Ended::Bad(format!("its credentials cannot be read: {e}")),
        };
        if !self.rule.allows(&peer) {
            return Ended::Bad(format!(
                "user {} (pid {}) is neither the peer user nor in the peer group; see --peer-uid and --peer-group",
                peer.uid, peer.pid
            ));
        }
        judge.connected();
        let mut client = match Client::new(stream, outbox, judge, self.limits) {
            Ok(client) => client,
            Err(e) => return Ended::Bad(e.to_string()),
        };
        tracing::info!(uid = peer.uid, pid = peer.pid, "a gateway connected");
        let ended = client.serve(&self.hello);
        outbox.disconnected();
        ended
    }
}

/// The numbers of this moment, with the process's own.
pub(crate) fn status(outbox: &Outbox) -> ipc::Status {
    outbox.status(vitals::refresh);
    let mut status = outbox.snapshot();
    status.at_ns = vitals::unix_ns();
    status
}

#[cfg(test)]
mod tests;
