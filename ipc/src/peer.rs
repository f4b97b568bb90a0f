//! Who stands at the other end of a Unix socket: asked once per connection, of the kernel, never of the peer.
//!
//! Like a doorman who reads the badge when somebody comes in and not again at every step: user id and groups are those the
//! peer had when it connected, so a later `setuid` or a recycled pid changes nothing. The weakness: whoever may run code
//! under the allowed uid is the gateway, as far as the door can tell.

use crate::sys;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;

/// Most supplementary groups looked at; Linux allows 65,536 (NGROUPS_MAX).
pub const GROUPS_MAX: usize = 65_536;

/// A connected peer as the kernel saw it at `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id, for messages only: it may be recycled.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel about a connected Unix socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Peer> {
        let c = getsockopt(socket, sockopt::PeerCredentials)?;
        let groups = sys::peer_groups(socket.as_fd(), GROUPS_MAX)?;
        Ok(Peer { pid: c.pid(), uid: c.uid(), gid: c.gid(), groups })
    }
}

/// Who may come in: any of the two is enough; a rule without either lets nobody in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// This user.
    pub uid: Option<u32>,
    /// Members of this group (effective or supplementary).
    pub group: Option<u32>,
}

impl Rule {
    /// Whether this peer may come in.
    pub fn allows(&self, peer: &Peer) -> bool {
        self.uid == Some(peer.uid) || self.group.is_some_and(|g| g == peer.gid || peer.groups.contains(&g))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_names_this_process_and_all_its_groups() {
        let (a, _b) = UnixStream::pair().expect("a socket pair");
        let peer = Peer::of(&a).expect("credentials");
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let mut want: Vec<u32> =
            nix::unistd::getgroups().expect("groups").into_iter().map(nix::unistd::Gid::as_raw).collect();
        let mut got = peer.groups.clone();
        want.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, want);
    }

    #[test]
    fn a_rule_wants_the_uid_or_a_membership_and_an_empty_rule_nobody() {
        let peer = Peer { pid: 1, uid: 1000, gid: 1000, groups: vec![4, 27] };
        assert!(Rule { uid: Some(1000), group: None }.allows(&peer));
        assert!(Rule { uid: None, group: Some(27) }.allows(&peer));
        assert!(Rule { uid: Some(0), group: Some(1000) }.allows(&peer));
        assert!(!Rule { uid: Some(0), group: Some(5) }.allows(&peer));
        assert!(!Rule::default().allows(&Peer { pid: 1, uid: 0, gid: 0, groups: vec![0] }));
    }
}
