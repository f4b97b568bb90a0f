//! What the machine says when nobody wrote it down: variables, host name, memory limit, what is there.
//!
//! Like looking out of the window before dressing: four questions to the outside, behind one trait, so that a test decides the
//! weather. Weakness: the memory limit is read once, at the start; one that is lowered later is not noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The outside, as far as configuration asks.
pub trait Surroundings {
    fn variable(&self, name: &str) -> Option<String>;
    fn host_name(&self) -> Option<String>;
    /// Bytes this process may use before the kernel ends it; None: no limit is set.
    fn memory_limit(&self) -> Option<u64>;
    /// Is there anything under this path?
    fn exists(&self, path: &Path) -> bool;
}

/// The real machine.
pub struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn host_name(&self) -> Option<String> {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    fn memory_limit(&self) -> Option<u64> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        cgroup_limit(&membership, Path::new("/sys/fs/cgroup"))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// A machine that is what it is told to be.
#[derive(Clone, Debug, Default)]
pub struct Imagined {
    pub variables: BTreeMap<String, String>,
    pub host_name: Option<String>,
    pub memory_limit: Option<u64>,
    pub paths: BTreeSet<PathBuf>,
}

impl Surroundings for Imagined {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn host_name(&self) -> Option<String> {
        self.host_name.clone()
    }
    fn memory_limit(&self) -> Option<u64> {
        self.memory_limit
    }
    fn exists(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

/// Version 1 says "no limit" with a number near 2^63; nothing real is above this.
const UNLIMITED_FROM: u64 = 1 << 60;

/// The smallest limit on the way from our own group to the root, in version 2 (`0::/path`) or 1 (`N:memory:/path`). Inside a
/// container the path of the host may not exist; then the mounted root is our group.
fn cgroup_limit(membership: &str, mount: &Path) -> Option<u64> {
    let line_of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            Some((mount.to_owned(), path.to_owned(), "memory.max"))
        } else if controllers.split(',').any(|name| name == "memory") {
            Some((mount.join("memory"), path.to_owned(), "memory.limit_in_bytes"))
        } else {
            None
        }
    };
    let limit_of = |(root, path, file): (PathBuf, String, &str)| {
        let relative = Path::new(path.trim_start_matches('/')).to_owned();
        let groups = relative.ancestors().map(|group| root.join(group).join(file)).collect::<Vec<_>>();
        groups.iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()).min()
    };
    membership.lines().filter_map(line_of).filter_map(limit_of).min().filter(|limit| *limit < UNLIMITED_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() -> std::io::Result<()> {
        let mount = tempfile::tempdir()?;
        create_dir_all(mount.path().join("a/b"))?;
        write(mount.path().join("a/memory.max"), "268435456\n")?;
        write(mount.path().join("a/b/memory.max"), "max\n")?;
        assert_eq!(cgroup_limit("0::/a/b\n", mount.path()), Some(268_435_456));
        write(mount.path().join("a/b/memory.max"), "1048576\n")?;
        assert_eq!(cgroup_limit("0::/a/b\n", mount.path()), Some(1_048_576));
        Ok(())
    }

    #[test]
    fn the_first_version_is_read_too_and_its_no_limit_is_none() -> std::io::Result<()> {
        let mount = tempfile::tempdir()?;
        create_dir_all(mount.path().join("memory"))?;
        let membership = "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n";
        write(mount.path().join("memory/memory.limit_in_bytes"), "9223372036854771712\n")?;
        assert_eq!(cgroup_limit(membership, mount.path()), None);
        write(mount.path().join("memory/memory.limit_in_bytes"), "536870912\n")?;
        assert_eq!(cgroup_limit(membership, mount.path()), Some(536_870_912));
        assert_eq!(cgroup_limit("nonsense", mount.path()), None);
        Ok(())
    }
}
