//! The ear at the door: which directories changed.
//!
//! inotify says *that* something happened; what it was is found out by looking. So an event lost, a watch refused (the limit of
//! the user) or an overflow costs a few seconds and never a line: everything heard here is also seen by the poll. The
//! weakness: a busy node speaks all the time, so the listener sets the pace, not the speaker.

use super::find::Place;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

/// Directories that are watched; beyond them the poll alone looks.
const WATCHES_MAX: usize = 16_384;

/// What was heard since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Names came, went or changed.
    pub(super) names: bool,
    /// Some file grew.
    pub(super) bytes: bool,
}

#[derive(Debug)]
pub(super) struct Watch {
    /// None: the system gives no inotify.
    inotify: Option<Inotify>,
    known: HashMap<(usize, Vec<u8>), WatchDescriptor>,
    /// Watches that the system refused.
    pub(super) refused: u64,
}

impl Watch {
    pub(super) fn new() -> Watch {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
        Watch { inotify, known: HashMap::new(), refused: 0 }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches exactly these directories.
    pub(super) fn set(&mut self, places: &[Place], dirs: &[(usize, Vec<u8>)]) {
        let Some(inotify) = &self.inotify else { return };
        let wanted: std::collections::HashSet<&(usize, Vec<u8>)> = dirs.iter().take(WATCHES_MAX).collect();
        self.known.retain(|dir, watch| {
            let stays = wanted.contains(dir);
            if !stays {
                // It fails if the directory is gone, and the watch with it.
                let _ = inotify.rm_watch(*watch);
            }
            stays
        });
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        for dir in dirs.iter().take(WATCHES_MAX) {
            if self.known.contains_key(dir) {
                continue;
            }
            let Some(place) = places.get(dir.0) else { continue };
            match inotify.add_watch(&place.absolute(&dir.1), flags) {
                Ok(watch) => {
                    self.known.insert(dir.clone(), watch);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(_) => self.refused += 1,
            }
        }
    }

    /// Empties the queue.
    pub(super) fn heard(&mut self) -> Heard {
        let mut heard = Heard::default();
        let Some(inotify) = &self.inotify else { return heard };
        let mut gone = Vec::new();
        while let Ok(events) = inotify.read_events() {
            for event in events {
                let bytes = event.mask.contains(AddWatchFlags::IN_MODIFY);
                heard.bytes |= bytes;
                heard.names |= !bytes;
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    gone.push(event.wd);
                }
            }
        }
        if !gone.is_empty() {
            self.known.retain(|_, watch| !gone.contains(watch));
        }
        heard
    }
}
