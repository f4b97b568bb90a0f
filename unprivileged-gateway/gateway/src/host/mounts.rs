//! How full the file systems are.
//!
//! A dead network mount never answers: whoever asks it hangs, and nobody can wake him. So a helper is sent to ask all of them, and
//! the caretaker waits for him a short while; if he does not come back, the file systems are left out, and nobody else is sent
//! until he does. Weakness: one dead mount hides the others for as long as it is dead.

use super::Page;
use super::files::{Reason, Root, Unread, malformed};
use model::series::Type::Gauge;
use nix::sys::statfs::{Statfs, statfs};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long the helper may take for all mounts together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Mounts that become series.
const MOUNTS_MAX: usize = 1024;
/// Mount points whose tree is left out, as by Debian's node-exporter.
const POINTS_LEFT_OUT: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/mnt", "/media"];
/// Below these each mount is a container's.
const CONTAINERS_LEFT_OUT: [&str; 2] = ["/var/lib/docker/", "/var/lib/containers/storage/"];
/// Types that hold no files of anybody, as by node-exporter.
const TYPES_LEFT_OUT: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mount {
    device: String,
    point: String,
    kind: String,
    read_only: bool,
}

#[derive(Default)]
pub(super) struct Mounts {
    /// A helper is out.
    asking: Arc<AtomicBool>,
}

impl Mounts {
    pub(super) fn collect(&self, root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
        // The first process sees the host's mounts; who may not look at it sees his own.
        let text = root.read("1/mounts").or_else(|_| root.read("self/mounts"))?;
        let mounts = listed(&text)?;
        let stuck = |detail: &str| Unread {
            what: "a file system".to_owned(),
            reason: Reason::Stuck,
            detail: format!("{detail}; a network mount whose server is gone does that"),
        };
        if self.asking.swap(true, Ordering::SeqCst) {
            return Err(stuck("the question of an earlier round is not answered yet"));
        }
        let (asking, asked) = (self.asking.clone(), mounts.clone());
        let (answer, answers) = mpsc::sync_channel(1);
        let helper = std::thread::Builder::new().name("host-mounts".into()).spawn(move || {
            let answered: Vec<Option<Statfs>> = asked.iter().map(|mount| statfs(mount.point.as_str()).ok()).collect();
            asking.store(false, Ordering::SeqCst);
            // Nobody waits any more after a while; then the answer is of no use.
            let _ = answer.send(answered);
        });
        if let Err(error) = helper {
            self.asking.store(false, Ordering::SeqCst);
            return Err(Unread { what: "file systems".into(), reason: Reason::Failed, detail: error.to_string() });
        }
        let answered = answers.recv_timeout(PATIENCE).map_err(|_| stuck("one did not answer within 2 s"))?;
        write(page, &mounts, &answered);
        Ok(())
    }
}

/// The mounts that count, each once.
fn listed(text: &str) -> Result<Vec<Mount>, Unread> {
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, point, kind, options, ..] = words[..] else {
            return Err(malformed("mounts", "four words on a line"));
        };
        let point = unescaped(point);
        if is_left_out(&point) || TYPES_LEFT_OUT.contains(&kind) || seen.len() == MOUNTS_MAX {
            continue;
        }
        let read_only = options.split(',').any(|option| option == "ro");
        seen.insert(Mount { device: device.to_owned(), point, kind: kind.to_owned(), read_only });
    }
    let mut mounts: Vec<Mount> = seen.into_iter().collect();
    mounts.dedup_by(|a, b| (&a.device, &a.point, &a.kind) == (&b.device, &b.point, &b.kind));
    Ok(mounts)
}

fn is_left_out(point: &str) -> bool {
    let below = |stem: &&str| point.strip_prefix(*stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let container = |stem: &&str| point.strip_prefix(*stem).is_some_and(|rest| !rest.is_empty());
    POINTS_LEFT_OUT.iter().any(below) || CONTAINERS_LEFT_OUT.iter().any(container)
}

/// Blanks and tabs stand in octal.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t")
}

fn write(page: &mut Page<'_>, mounts: &[Mount], answered: &[Option<Statfs>]) {
    type Of = fn(&Statfs) -> f64;
    let families: [(&str, &str, Of); 5] = [
        ("avail_bytes", "Filesystem space available to non-root users in bytes.", |s| {
            s.blocks_available() as f64 * s.block_size() as f64
        }),
        ("files", "Filesystem total file nodes.", |s| s.files() as f64),
        ("files_free", "Filesystem total free file nodes.", |s| s.files_free() as f64),
        ("free_bytes", "Filesystem free space in bytes.", |s| s.blocks_free() as f64 * s.block_size() as f64),
        ("size_bytes", "Filesystem size in bytes.", |s| s.blocks() as f64 * s.block_size() as f64),
    ];
    let rows: Vec<(&Mount, &Option<Statfs>)> = mounts.iter().zip(answered).collect();
    for (family, help, of) in families {
        let name = format!("node_filesystem_{family}");
        page.family(&name, Gauge, help);
        for (mount, stat) in &rows {
            if let Some(stat) = stat {
                page.row(&name, &labels(mount), of(stat));
            }
        }
    }
    let (error, read_only) = ("node_filesystem_device_error", "node_filesystem_readonly");
    page.family(error, Gauge, "Whether an error occurred while getting statistics for the given device.");
    page.family(read_only, Gauge, "Filesystem read-only status.");
    for (mount, stat) in &rows {
        page.row(error, &labels(mount), f64::from(u8::from(stat.is_none())));
        page.row(read_only, &labels(mount), f64::from(u8::from(mount.read_only)));
    }
}

fn labels(mount: &Mount) -> [(&str, &str); 3] {
    [("device", &mount.device), ("fstype", &mount.kind), ("mountpoint", &mount.point)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_nobody_are_left_out_and_names_are_read_back() {
        let text = "/dev/vda / ext4 rw,relatime 0 0\n/dev/vdb /srv/my\\040disk xfs ro,relatime 0 0\nproc /proc proc rw 0 0\n\
                    tmpfs /run/user/0 tmpfs rw 0 0\ntmpfs /runner tmpfs rw 0 0\n/dev/vda / ext4 rw,relatime 0 0\n\
                    overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0\n/dev/vdc /var/lib/docker/ ext4 rw 0 0\n";
        let points: Vec<(String, bool)> = listed(text).unwrap().into_iter().map(|m| (m.point, m.read_only)).collect();
        let expected = [("/", false), ("/srv/my disk", true), ("/var/lib/docker/", false), ("/runner", false)];
        assert_eq!(points, expected.map(|(point, ro)| (point.to_owned(), ro)));
        assert!(listed("/dev/vda /\n").is_err());
    }

    #[test]
    fn a_helper_that_is_still_out_is_not_sent_again() {
        let mounts = Mounts::default();
        mounts.asking.store(true, Ordering::SeqCst);
        let mut writer = model::series::Writer::new(&[]);
        let unread = mounts.collect(&Root::default(), &mut Page { writer: &mut writer, at_ms: 0 }).unwrap_err();
        assert_eq!((unread.reason, writer.samples()), (Reason::Stuck, 0));
    }
}
