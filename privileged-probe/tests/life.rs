//! The real program under real privileges: what the kernel says of it, what it is refused, how it ends.
//!
//! Everything that needs user 0 to hand out capabilities prints SKIP without it; nothing here needs BPF or pods.

use ipc::{DURABLE_BYTES, Decoder, Durable, Hello, Index, Message, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An ordinary user that no service of this machine uses.
const USER: u32 = 62_474;
const SYS_PTRACE: u64 = 1 << 19;
const AMBIENT: &str = "-all,+bpf,+perfmon,+sys_ptrace";

fn skip(name: &str, why: &str) {
    // Past the test harness, which keeps what println! says to itself.
    let _ = writeln!(std::io::stdout().lock(), "\nSKIP {name}: {why}");
}

/// Whether this machine can hand out capabilities; says so if not.
fn can_hand_out(name: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let setpriv = Command::new("setpriv").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !root || !setpriv {
        skip(name, "needs user 0 and setpriv (util-linux) to hand out capabilities; run the tests as root");
    }
    root && setpriv
}

/// A folder that the probe's user can reach, with the program in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("opened");
        // A clone below /root is closed to others, hence the copy.
        std::fs::copy(env!("CARGO_BIN_EXE_probe"), folder.path().join("probe")).expect("copied");
        Place { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("door.sock")
    }

    fn probe(&self) -> PathBuf {
        self.folder.path().join("probe")
    }

    /// Starts `before... probe --socket ... args...` and waits until it says that it is ready.
    fn start(&self, before: &[&str], args: &[&str]) -> Running {
        let mut words: Vec<&std::ffi::OsStr> = before.iter().map(std::ffi::OsStr::new).collect();
        let (probe, socket) = (self.probe(), self.socket());
        words.push(probe.as_os_str());
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .arg("--socket")
            .arg(&socket)
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .args(["--log-format", "json"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = vec![];
        for line in lines.by_ref() {
            let line = line.expect("text");
            let ready = line.contains("\"ready");
            said.push(line);
            if ready {
                break;
            }
        }
        // Somebody has to go on reading, or the probe would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Running { child, socket, said }
    }
}

struct Running {
    child: Child,
    socket: PathBuf,
    said: Vec<String>,
}

impl Running {
    /// The value of a line of `/proc/PID/status`.
    fn kernel_says(&self, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("alive");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).expect("a line of that name");
        line.trim().to_owned()
    }

    fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(&self.kernel_says(set), 16).expect("a mask")
    }

    /// Hello and the first Status, as the gateway gets them.
    fn door(&self) -> (Hello, Status) {
        let mut stream = UnixStream::connect(&self.socket).expect("the door listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        for index in Index::ALL {
            let record: [u8; DURABLE_BYTES] = Durable::new(index, 0).to_bytes();
            stream.write_all(&record).expect("written");
        }
        let (mut decoder, mut buffer, mut hello) = (Decoder::new(), vec![0; 65_536], None);
        loop {
            let n = stream.read(&mut buffer).expect("a frame in time");
            assert!(n > 0, "the door closed");
            let mut rest = &buffer[..n];
            while let Some(frame) = decoder.feed(&mut rest).expect("well formed") {
                match (frame.message, hello.take()) {
                    (Message::Hello(h), _) => hello = Some(h),
                    (Message::Status(s), Some(h)) => return (h, *s),
                    (_, h) => hello = h,
                }
            }
        }
    }

    /// SIGTERM, then the exit code and how long it took.
    fn end(mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("sent");
        let code = self.child.wait().expect("ended").code();
        (code, began.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn as_user(ambient: &str) -> Vec<String> {
    let mut words = vec!["setpriv".to_owned()];
    words.push(format!("--reuid={USER}"));
    words.extend(["--regid=0", "--groups=0", "--no-new-privs"].map(str::to_owned));
    for set in ["bounding-set", "inh-caps", "ambient-caps"] {
        words.push(format!("--{set}={ambient}"));
    }
    words
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn assert_locked_in(probe: &Running, status: &Status) {
    assert_eq!(probe.capabilities("CapEff"), SYS_PTRACE);
    assert_eq!(probe.capabilities("CapPrm"), SYS_PTRACE);
    assert_eq!(probe.capabilities("CapInh"), 0);
    assert_eq!(probe.capabilities("CapAmb"), 0);
    assert_eq!(probe.kernel_says("NoNewPrivs"), "1");
    assert_eq!(probe.kernel_says("Seccomp"), "2");
    assert_eq!(probe.kernel_says("Uid").split_whitespace().collect::<Vec<_>>(), [&USER.to_string()[..]; 4]);
    assert_eq!(probe.kernel_says("Groups"), "0");
    for task in std::fs::read_dir(format!("/proc/{}/task", probe.child.id())).expect("alive").flatten() {
        let text = std::fs::read_to_string(task.path().join("status")).expect("alive");
        assert!(text.contains("Seccomp:\t2"), "every thread is under the filter: {text}");
        assert!(text.contains(&format!("CapEff:\t{SYS_PTRACE:016x}")), "every thread dropped: {text}");
    }
    // The probe's own words about itself are the kernel's.
    assert_eq!((status.uid, status.gid, status.groups.as_slice()), (USER, 0, &[0][..]));
    assert_eq!(status.caps.effective, SYS_PTRACE);
    assert_eq!(status.caps.bounding, probe.capabilities("CapBnd"));
    assert!(status.no_new_privs);
    assert_eq!(status.seccomp, 2);
    let proofs: Vec<&str> = status.dropped_proof.iter().map(|p| p.0.as_str()).collect();
    for want in [
        "raising CAP_BPF",
        "raising CAP_PERFMON",
        "bpf(MAP_CREATE)",
        "being user 0",
        "opening /proc/1/mem",
        "opening /proc/1/root/etc/shadow",
        "execve",
        "perf_event_open",
        "socket",
    ] {
        assert!(proofs.contains(&want), "{want} was tried: {proofs:?}");
    }
    assert!(status.dropped_proof.iter().all(|p| p.1), "everything was refused: {:?}", status.dropped_proof);
}

#[test]
fn with_ambient_capabilities_it_keeps_sys_ptrace_only_and_proves_it() {
    if !can_hand_out("with_ambient_capabilities_it_keeps_sys_ptrace_only_and_proves_it") {
        return;
    }
    let place = Place::new();
    let probe = place.start(&strs(&as_user(AMBIENT)), &["--peer-uid", "0"]);
    let (hello, status) = probe.door();
    assert_eq!(hello.version, ipc::VERSION);
    assert_ne!(hello.start, [0; 16]);
    assert_locked_in(&probe, &status);
    let (code, took) = probe.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!place.socket().exists(), "the socket leaves with its probe");
}

#[test]
fn started_as_user_0_it_becomes_somebody_else_and_empties_the_bounding_set() {
    if !can_hand_out("started_as_user_0_it_becomes_somebody_else_and_empties_the_bounding_set") {
        return;
    }
    let place = Place::new();
    // What a container gets; no DAC override, so the folder is open to it.
    let caps = "-all,+bpf,+perfmon,+sys_ptrace,+setuid,+setgid,+setpcap";
    let probe = place.start(&["setpriv", &format!("--bounding-set={caps}"), "--inh-caps=-all"], &["--peer-uid", "0"]);
    let (_, status) = probe.door();
    assert_locked_in(&probe, &status);
    assert_eq!(status.caps.bounding, 0);
    assert_eq!(probe.end().0, Some(0));
}

#[test]
fn a_process_with_the_probes_privileges_cannot_read_the_shadow_file_of_process_1() {
    if !can_hand_out("a_process_with_the_probes_privileges_cannot_read_the_shadow_file_of_process_1") {
        return;
    }
    // Some process of user 0; process 1 may be out of reach even for us (a sandbox), then only refusals show there.
    let mut other = Command::new("sleep").arg("1000").spawn().expect("starts");
    let root = format!("/proc/{}/root", other.id());
    let all = [
        (format!("{root}/etc/passwd"), true),
        (format!("{root}/etc/shadow"), false),
        (format!("/proc/{}/mem", other.id()), false),
        ("/proc/1/root/etc/shadow".to_owned(), false),
        ("/proc/1/mem".to_owned(), false),
    ];
    // The same user, group and capability in a program that is not ours: what is refused here is refused by the kernel.
    let words = as_user("-all,+sys_ptrace");
    let opened = all.clone().map(|(path, _)| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["sh", "-c", "exec <\"$0\"", &path]).stderr(Stdio::null());
        (path, command.status().expect("runs").success())
    });
    other.kill().expect("ended");
    other.wait().expect("ended");
    assert_eq!(opened, all, "what can be opened");
}

#[test]
fn user_0_without_a_way_out_is_refused_with_what_to_do() {
    if !can_hand_out("user_0_without_a_way_out_is_refused_with_what_to_do") {
        return;
    }
    let place = Place::new();
    let out = Command::new("setpriv")
        .args(["--bounding-set=-all,+bpf,+perfmon,+sys_ptrace", "--inh-caps=-all"])
        .arg(place.probe())
        .arg("--socket")
        .arg(place.socket())
        .output()
        .expect("runs");
    assert_eq!(out.status.code(), Some(77));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("without CAP_SETUID and CAP_SETGID") && said.contains("AmbientCapabilities"), "{said}");
    assert!(!place.socket().exists());
}

#[test]
fn without_capabilities_it_serves_the_rest_and_says_what_is_missing() {
    let place = Place::new();
    let root = nix::unistd::geteuid().is_root();
    let before = if root { as_user("-all") } else { vec!["env".to_owned()] };
    let own = nix::unistd::geteuid().to_string();
    let probe = place.start(&strs(&before), &["--peer-uid", &own]);
    let (hello, status) = probe.door();
    let cpu = hello.features.iter().find(|f| f.name == "cpu").expect("named");
    assert!(!cpu.on);
    assert!(cpu.reason.contains("capability BPF") && cpu.reason.contains("AmbientCapabilities"), "{}", cpu.reason);
    assert!(probe.said.iter().any(|l| l.contains("cpu is off")), "{:?}", probe.said);
    assert_eq!(status.caps.effective, 0);
    assert!(status.dropped_proof.iter().all(|p| p.1), "{:?}", status.dropped_proof);
    assert_eq!(probe.end().0, Some(0));
}

#[test]
fn a_second_probe_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let root = nix::unistd::geteuid().is_root();
    let before = if root { as_user("-all") } else { vec!["env".to_owned()] };
    let own = nix::unistd::geteuid().to_string();
    let probe = place.start(&strs(&before), &["--peer-uid", &own]);
    let out = Command::new(&before[0])
        .args(&before[1..])
        .arg(place.probe())
        .arg("--socket")
        .arg(place.socket())
        .output()
        .expect("runs");
    assert_eq!(out.status.code(), Some(69), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(probe.door().0.version, ipc::VERSION);
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(Path::new(env!("CARGO_BIN_EXE_probe"))).args(args).output().expect("runs");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    assert_eq!(run(&["--hz", "many"]).0, Some(2));
    let (code, _, said) = run(&["-c", "/nowhere/probe.yaml"]);
    assert_eq!(code, Some(78));
    assert!(said.contains("/nowhere/probe.yaml"), "{said}");
    assert_eq!(run(&["--version"]).0, Some(0));
}

#[test]
fn doctor_says_the_same_to_people_and_to_programs() {
    let (code, json, _) = run(&["doctor", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).expect("an array");
    assert!(rows.len() > 8);
    let missing = rows.iter().filter(|r| r["ok"] == false).count();
    assert_eq!(code, Some(i32::from(missing > 0)));
    let (_, table, _) = run(&["doctor"]);
    for row in &rows {
        assert!(table.contains(row["check"].as_str().expect("text")), "{row} is in {table}");
        assert_eq!(row["ok"] == false, !row["fix"].as_str().expect("text").is_empty());
    }
}
