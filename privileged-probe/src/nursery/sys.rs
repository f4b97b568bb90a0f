//! Two calls that a type cannot vouch for: a fork, and descriptors that arrive as numbers.
//!
//! Why unsafe: `fork` copies only the calling thread, so it is sound where there is only one: the nursery is started first thing
//! in `main`, and the nursery itself never has a second thread. Descriptors in a control message are plain numbers until
//! somebody owns them; the kernel made them for this process with this message.

#![allow(unsafe_code)]

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, Pid};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Forks. `None` in the child.
pub(super) fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: in the product there is one thread at this moment (see above), so the child finds no lock held by a thread that
    // does not exist there. Tests fork from the first thread of a program of their own.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Receives one message and the descriptors that came with it. `None`: the other side is gone, or sent more than fits.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; 2]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).ok()?;
    let mut fds = Vec::new();
    for part in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel installed these descriptors for this message; nobody else knows their numbers.
            fds.extend(numbers.into_iter().map(|n| unsafe { OwnedFd::from_raw_fd(n) }));
        }
    }
    let cut = message.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC);
    (message.bytes > 0 && !cut).then_some((message.bytes, fds))
}
