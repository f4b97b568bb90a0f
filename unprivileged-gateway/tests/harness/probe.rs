//! The probe as an operator has it: its own uid, exactly three capabilities, a socket, a state folder.
//!
//! [`ProbeSetup`] can be started again and again; [`Probe`] is one run of the process. Dropping it kills it, and its nursery with it.

use crate::{binary, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// An identity that nobody else on the machine has.
pub const UID: u32 = 62_474;

/// Why a scene with a probe cannot play here. `None`: it can.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: the probe needs an identity and capabilities of its own; sudo make test".into());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF): no stacks can be sampled".into());
    }
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    match paranoid.trim().parse::<i32>() {
        Ok(level) if level <= 2 => None,
        _ => Some(format!("kernel.perf_event_paranoid is {}: sysctl kernel.perf_event_paranoid=2", paranoid.trim())),
    }
}

/// Where it works, between starts.
pub struct ProbeSetup {
    /// Goes away with the scene.
    _held: tempfile::TempDir,
    pub folder: PathBuf,
    pub log_root: PathBuf,
    /// Further arguments, such as `--files NAME=GLOB`.
    pub arguments: Vec<String>,
    /// Who may connect.
    pub peer_uid: u32,
}

impl Default for ProbeSetup {
    /// Folders of its own under /var/tmp: a clone may lie where only root may enter.
    fn default() -> ProbeSetup {
        let held = tempfile::Builder::new().prefix("bulkhead-probe-").tempdir_in("/var/tmp").expect("a folder");
        let folder = held.path().to_owned();
        let log_root = folder.join("pods");
        for path in [&folder, &log_root, &folder.join("door"), &folder.join("state")] {
            fs::create_dir_all(path).expect("a folder for the probe");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own folder");
        }
        for path in [folder.join("door"), folder.join("state")] {
            chown(&path, Some(UID), Some(UID)).expect("root gives folders away");
        }
        let peer_uid = nix::unistd::geteuid().as_raw();
        ProbeSetup { _held: held, folder, log_root, arguments: Vec::new(), peer_uid }
    }
}

impl ProbeSetup {
    pub fn socket(&self) -> PathBuf {
        self.folder.join("door/probe.sock")
    }

    /// The binary where its own uid can read it.
    fn program(&self) -> PathBuf {
        let copy = self.folder.join("probe");
        if !copy.exists() {
            fs::copy(binary("probe"), &copy).expect("a copy of the probe");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        copy
    }

    /// As systemd starts it: own uid, group 0 for log files, three ambient capabilities, nothing beyond them to be had.
    pub fn spawn(&self) -> Probe {
        let caps = "-all,+bpf,+perfmon,+sys_ptrace";
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={UID}"), format!("--regid={UID}"), "--groups=0".into(), "--no-new-privs".into()])
            .args([format!("--bounding-set={caps}"), format!("--inh-caps={caps}"), format!("--ambient-caps={caps}")])
            .arg(self.program())
            .arg("--socket")
            .arg(self.socket())
            .arg("--state")
            .arg(self.folder.join("state"))
            .arg("--log-root")
            .arg(&self.log_root)
            .args(["--peer-uid", &self.peer_uid.to_string()])
            .args(&self.arguments);
        let log = File::options().create(true).append(true).open(self.log()).expect("probe.log");
        let out = log.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().expect("setpriv of util-linux");
        Probe { child, log: self.log() }
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("probe.log")
    }

    /// Starts it and waits for its socket.
    pub fn start(&self) -> Probe {
        let _ = fs::remove_file(self.socket());
        let mut probe = self.spawn();
        wait_for("the probe's socket", Duration::from_secs(30), || {
            if let Some(status) = probe.ended() {
                panic!("the probe ended with {status}:\n{}", probe.said());
            }
            self.socket().exists().then_some(())
        });
        probe
    }
}

/// One process. `setpriv` becomes the probe, so the child's pid is the probe's.
pub struct Probe {
    child: Child,
    log: PathBuf,
}

impl Probe {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn said(&self) -> String {
        let text = fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let from = text.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
        text[from..].to_owned()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Its child: the process that forks parsers.
    pub fn nursery(&self) -> Option<u32> {
        children(self.pid()).into_iter().next()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("a process of ours");
    }

    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(begun.elapsed() < limit, "still running after {limit:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `/proc/PID/FILE`.
    pub fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the probe said:\n{}", self.said());
        }
        if self.child.try_wait().is_ok_and(|s| s.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Direct children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse::<u32>().ok()));
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
