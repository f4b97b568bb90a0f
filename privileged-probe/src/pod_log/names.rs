//! What a path says of a log: whose it is, which volume of it, where it lies.
//!
//! Like the spine of a book in a series: title, volume, shelf. Nothing is opened here, and bytes stay bytes: names may be of any kind.
//! The weakness: a kubelet's way of naming is taken for granted (`N.log`, and `N.log.<time>` once it was moved away).

use super::find::{Place, log_base};
use super::tracked::Tracked;

/// The folder and `N.log` of a container's log; a plain file is its own group.
pub(super) fn group(place: usize, path: &[u8], pods: bool) -> Vec<u8> {
    let mut group = place.to_le_bytes().to_vec();
    let name = file_name(path);
    let base = if pods { log_base(name).unwrap_or(name) } else { name };
    group.extend_from_slice(&path[..path.len() - name.len()]);
    group.extend_from_slice(base);
    group
}

pub(super) fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// Whether it has the name under which the writer writes.
pub(super) fn is_live(tracked: &Tracked) -> bool {
    let name = file_name(&tracked.path);
    tracked.gone_since.is_none() && log_base(name).is_none_or(|base| base == name)
}

/// Sorts a container's volumes: those moved away by name (it ends in a time), then the live one.
pub(super) fn volume(tracked: &Tracked) -> (bool, Vec<u8>, u64) {
    (is_live(tracked), tracked.path.clone(), tracked.order)
}

/// What has turns: the pod's folder, or the set of plain files.
pub(super) fn pod(tracked: &Tracked) -> Vec<u8> {
    let mut pod = tracked.place.to_le_bytes().to_vec();
    pod.extend_from_slice(tracked.path.split(|&b| b == b'/').next().unwrap_or_default());
    pod
}

pub(super) fn absolute(place: &Place, path: &[u8]) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    place.absolute(path).into_os_string().into_vec()
}
