//! Getting the socket: from systemd, or made here in a folder that exists or is made.
//!
//! Like a shop that either rents a front door or builds one: the built one replaces a door that leads nowhere (a socket of a
//! dead process) and never one that leads somewhere. The mode follows the rule: with a peer group that we may give the socket
//! to, 0660; otherwise everybody may knock and the peer check decides. The weakness: between looking and replacing, another
//! process could bind; then `bind` says so.

use crate::sys;
use ipc::peer::Rule;
use nix::unistd::{Gid, chown};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The listening socket and what to remove at the end.
#[derive(Debug)]
pub struct Door {
    /// The socket.
    pub listener: UnixListener,
    /// Its path, when it was made here.
    pub made: Option<PathBuf>,
}

/// Why there is no socket: exit code 69.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process answers there.
    #[error("{0}: another probe listens there; end it first, or give this one another path with --socket")]
    Taken(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0} exists and is no socket; remove it, or give another path with --socket")]
    Foreign(PathBuf),
    /// The system refused.
    #[error("{path}: {what}: {why}; make the folder for this user, or give another path with --socket")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What happened.
        why: io::Error,
    },
}

impl Door {
    /// systemd's socket if there is one, else a new one at `path`.
    pub fn open(path: &Path, rule: &Rule) -> Result<Door, ListenError> {
        if let Some(fd) = sys::inherited_socket() {
            let listener = UnixListener::from(fd);
            // Anything but a Unix socket fails here, in a sentence, and not at the first client.
            listener.local_addr().map_err(|why| ListenError::Io {
                path: path.to_owned(),
                what: "the socket that systemd passed is no Unix socket",
                why,
            })?;
            return Ok(Door { listener, made: None });
        }
        let io = |what| move |why| ListenError::Io { path: path.to_owned(), what, why };
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.exists()) {
            DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(io("making its folder"))?;
        }
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(io("binding"))?;
        let shared = rule.group.is_some_and(|g| chown(path, None, Some(Gid::from_raw(g))).is_ok());
        let mode = if shared && rule.uid.is_none() { 0o660 } else { 0o666 };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io("setting its mode"))?;
        Ok(Door { listener, made: Some(path.to_owned()) })
    }
}

/// Removes the socket of a dead process.
fn clear(path: &Path) -> Result<(), ListenError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(ListenError::Foreign(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|why| ListenError::Io { path: path.to_owned(), what: "removing a dead one", why }),
        // Connected, or not allowed to: somebody is there.
        _ => Err(ListenError::Taken(path.to_owned())),
    }
}
