//! The one call of this crate that no crate wraps: `getsockopt(SO_PEERGROUPS)`, whose answer has no fixed length.
//!
//! Why unsafe: nix offers `PeerCredentials` (a fixed struct) but nothing for a list of groups. The kernel is told how many
//! bytes the buffer holds and says how many it needs; the buffer is plain `u32`s, owned here, alive over the call.

#![allow(unsafe_code)]

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Groups asked for at first; one retry with the size the kernel names.
const GROUPS_FIRST: usize = 64;

/// Supplementary groups of the peer of a connected Unix socket; at most `max`.
pub(crate) fn peer_groups(socket: BorrowedFd<'_>, max: usize) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; GROUPS_FIRST.min(max)];
    loop {
        let room = groups.len() * size_of::<u32>();
        let mut bytes = libc::socklen_t::try_from(room).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the pointer leads to `room` bytes of an owned buffer, the kernel writes at most `bytes` (= room) of them
        // and then sets `bytes`; any bit pattern is a valid u32; the descriptor is borrowed, hence open.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if rc == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > max {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}
