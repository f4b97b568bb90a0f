//! `/proc/PID/cgroup`: which container and pod a process belongs to.
//!
//! Like reading the address on an envelope from the end: house number first (64 hex digits), then the street (the pod's uid) from
//! an element before it. How many lines precede it depends on where we stand (`/../`), so only the tail counts. The
//! weakness: names of slices are convention, not contract; what matches nothing is a process of the machine itself.

/// Longest control group text that is looked at, bytes.
pub(super) const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// Digits of a container id.
const ID_DIGITS: usize = 64;
/// Characters of a pod's uid, dashes included.
const UID_CHARS: usize = 36;

/// Where a process lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// 64 hexadecimal digits, or empty.
    pub(super) container: String,
    /// With dashes, or empty.
    pub(super) pod_uid: String,
    /// The path that said so.
    pub(super) path: String,
}

/// Reads the file's text: the first line that names a container, else the version 2 line.
pub(super) fn home(text: &str) -> Home {
    let paths: Vec<&str> = text.lines().filter_map(|l| l.splitn(3, ':').nth(2)).collect();
    paths.iter().find_map(|p| contained(p)).unwrap_or_else(|| Home {
        path: text.lines().find_map(|l| l.strip_prefix("0::")).or(paths.first().copied()).unwrap_or("").to_owned(),
        ..Home::default()
    })
}

fn contained(path: &str) -> Option<Home> {
    let elements: Vec<&str> = path.split('/').filter(|e| !e.is_empty() && *e != "..").collect();
    let at = elements.iter().rposition(|e| container(e).is_some())?;
    let id = elements.get(at).and_then(|e| container(e))?;
    let before = elements.get(..at).unwrap_or_default();
    let uid = before.iter().rev().find_map(|e| pod_uid(e)).unwrap_or_default();
    Some(Home { container: id.to_owned(), pod_uid: uid, path: path.to_owned() })
}

/// `cri-containerd-ID.scope`, `crio-ID`, `docker-ID.scope`, `ID`; a conmon is the monitor beside the container.
fn container(element: &str) -> Option<&str> {
    let name = element.strip_suffix(".scope").unwrap_or(element);
    if name.contains("conmon") {
        return None;
    }
    let id = name.rsplit(['-', ':']).next()?;
    (id.len() == ID_DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// `kubepods-burstable-podUID.slice` (underscores) or `podUID` (dashes).
fn pod_uid(element: &str) -> Option<String> {
    let name = element.strip_suffix(".slice").unwrap_or(element);
    let at = name.rfind("pod")?;
    let uid = name.get(at + 3..)?.replace('_', "-");
    let shaped = uid.len() == UID_CHARS && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    shaped.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "12345678-9abc-def0-1234-56789abcdef0";

    #[test]
    fn every_runtimes_path_names_its_container_and_pod() {
        let under = UID.replace('-', "_");
        let rows = [
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
                ),
                ID,
                UID,
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{ID}.scope"
                ),
                ID,
                UID,
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-conmon-{ID}.scope"
                ),
                "",
                "",
            ),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{ID}.scope"), ID, UID),
            (format!("/kubepods/burstable/pod{UID}/{ID}"), ID, UID),
            (format!("/kubepods/pod{UID}/crio-{ID}"), ID, UID),
            (format!("/kubepods/pod{UID}/{ID}/init"), ID, UID),
            (
                format!("/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"),
                ID,
                "",
            ),
            (format!("/../../kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"), ID, UID),
            (format!("/docker/{ID}"), ID, ""),
            (format!("/system.slice/docker-{ID}.scope"), ID, ""),
            ("/system.slice/ssh.service".to_owned(), "", ""),
            ("/".to_owned(), "", ""),
            (format!("/user.slice/{}", &ID[1..]), "", ""),
        ];
        for (path, container, uid) in rows {
            let got = home(&format!("0::{path}\n"));
            assert_eq!((got.container.as_str(), got.pod_uid.as_str()), (container, uid), "{path}");
            assert_eq!(got.path, path);
            let v1 = home(&format!("12:pids:/\n11:cpu,cpuacct:{path}\n1:name=systemd:/\n"));
            assert_eq!(v1.container, container, "v1 {path}");
        }
    }

    #[test]
    fn odd_text_is_no_container() {
        for text in ["", "\n", "0::", "x", "0:", "::::", "0::/pod/pod/pod"] {
            assert_eq!(home(text).container, "", "{text:?}");
        }
    }
}
