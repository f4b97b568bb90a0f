//! The gateway as an operator has it: a file, a process, a port to look at.
//!
//! [`Setup`] writes `gateway.yaml` and can be changed between starts; [`Gateway`] is one run of the process. Dropping it kills it.

use crate::{Scratch, binary, free_port, http};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// interface.md, "Times": ready within 2 s of a start. Debug builds on shared machines get more where it is not the question.
pub const READY_MAX: Duration = Duration::from_secs(20);

/// What stands in `gateway.yaml`.
pub struct Setup {
    pub scratch: Scratch,
    pub storage: PathBuf,
    pub storage_max: String,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub loki: Vec<(String, SocketAddr, String)>,
    pub otlp: Vec<(String, SocketAddr, String)>,
    /// Lines put at the end as they are.
    pub extra: String,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Default for Setup {
    fn default() -> Self {
        let scratch = Scratch::default();
        Setup {
            storage: scratch.path().join("wal"),
            storage_max: "1GiB".into(),
            http: local(free_port()),
            grpc: local(free_port()),
            otlp_http: local(free_port()),
            loki: Vec::new(),
            otlp: Vec::new(),
            extra: String::new(),
            scratch,
        }
    }
}

impl Setup {
    /// A Loki destination; `more` is further keys in flow form, such as `was: old` or nothing.
    pub fn loki(mut self, name: &str, at: Option<SocketAddr>, more: &str) -> Setup {
        self.loki.push((name.into(), at.expect("an open door"), more.into()));
        self
    }

    /// An OTLP destination; `more` names at least `signals` and `protocol`.
    pub fn otlp(mut self, name: &str, at: Option<SocketAddr>, more: &str) -> Setup {
        self.otlp.push((name.into(), at.expect("an open door"), more.into()));
        self
    }

    pub fn yaml(&self) -> String {
        let mut y = String::new();
        let Setup { http, grpc, otlp_http, storage_max, .. } = self;
        let _ = writeln!(y, "node: {{ name: e2e }}");
        let _ = writeln!(y, "storage: {{ path: {}, max: {storage_max} }}", self.storage.display());
        let _ = writeln!(y, "http: {{ listen: \"{http}\", auth: none }}");
        let _ = writeln!(y, "receive:\n  otlp: {{ grpc: \"{grpc}\", http: \"{otlp_http}\" }}");
        if !self.loki.is_empty() || !self.otlp.is_empty() {
            y.push_str("send:\n");
        }
        let tail = |more: &str| if more.is_empty() { String::new() } else { format!(", {more}") };
        if !self.loki.is_empty() {
            y.push_str("  loki:\n");
        }
        for (name, at, more) in &self.loki {
            let _ = writeln!(y, "    {name}: {{ url: \"http://{at}/loki/api/v1/push\"{} }}", tail(more));
        }
        if !self.otlp.is_empty() {
            y.push_str("  otlp:\n");
        }
        for (name, at, more) in &self.otlp {
            let _ = writeln!(y, "    {name}: {{ endpoint: \"{at}\", tls: off{} }}", tail(more));
        }
        y.push_str(&self.extra);
        y
    }

    pub fn write(&self) -> PathBuf {
        let path = self.scratch.path().join("gateway.yaml");
        fs::write(&path, self.yaml()).expect("gateway.yaml");
        path
    }

    /// The command line, so that a scene can put something before it.
    pub fn command(&self) -> Vec<String> {
        let gateway = binary("gateway").display().to_string();
        vec![gateway, "run".into(), "-c".into(), self.write().display().to_string()]
    }

    pub fn stderr_path(&self) -> PathBuf {
        self.scratch.path().join("gateway.log")
    }

    pub fn spawn(&self, command: &[String]) -> Gateway {
        let log = File::options().create(true).append(true).open(self.stderr_path()).expect("gateway.log");
        let out = log.try_clone().expect("a second handle");
        let child = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).stdout(out).stderr(log).spawn();
        let child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Gateway { pid: child.id(), child, http: self.http, log: self.stderr_path(), begun: Instant::now() }
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Gateway {
        let mut gateway = self.spawn(&self.command());
        gateway.wait_ready(READY_MAX);
        gateway
    }

    /// Runs it where it is expected to refuse; gives exit code and stderr.
    pub fn start_in_vain(&self) -> (Option<i32>, String) {
        let _ = fs::remove_file(self.stderr_path());
        let mut gateway = self.spawn(&self.command());
        let status = gateway.wait_exit(Duration::from_secs(10));
        (status.code(), fs::read_to_string(self.stderr_path()).unwrap_or_default())
    }
}

/// One process.
pub struct Gateway {
    child: Child,
    /// Of the gateway; under a tracer the scene sets it to the traced process.
    pub pid: u32,
    http: SocketAddr,
    log: PathBuf,
    begun: Instant,
}

impl Gateway {
    /// How long it took from the start to the first 200 of `/-/ready`.
    pub fn wait_ready(&mut self, limit: Duration) -> Duration {
        loop {
            if let Ok(answer) = http::get(self.http, "/-/ready")
                && answer.status == 200
            {
                return self.begun.elapsed();
            }
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                panic!("the gateway ended with {status} before it was ready:\n{}", tail(&self.log));
            }
            assert!(self.begun.elapsed() < limit, "not ready within {limit:?}:\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn ready(&self) -> bool {
        http::get(self.http, "/-/ready").is_ok_and(|a| a.status == 200)
    }

    pub fn alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|s| s.is_none())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).expect("a process of ours");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// SIGTERM; gives the status and how long it took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = self.wait_exit(Duration::from_secs(15));
        (status, begun.elapsed())
    }

    fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(begun.elapsed() < limit, "still running after {limit:?}:\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `/api/v1/status`.
    pub fn status(&self) -> Value {
        let answer = http::get(self.http, "/api/v1/status").expect("the admin port answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// One destination of the status.
    pub fn destination(&self, kind: &str, name: &str) -> Destination {
        let status = self.status();
        let all = status["destinations"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|d| d["kind"] == kind && d["name"] == name);
        Destination::read(found.unwrap_or_else(|| panic!("no {kind}/{name} in {status:#}")))
    }

    /// Resident set and its peak, bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("its /proc entry");
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap_or("");
            line.split_whitespace().nth(1).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0) << 10
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway said:\n{}", tail(&self.log));
        }
        if self.child.try_wait().is_ok_and(|s| s.is_none()) {
            if self.pid != self.child.id() {
                let _ = kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A row of the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Destination {
    pub configured: bool,
    pub accepted: u64,
    pub sent: u64,
    pub waiting: u64,
    pub quarantined: u64,
    pub dropped: u64,
    pub damaged: u64,
    pub last_error: String,
}

impl Destination {
    fn read(row: &Value) -> Destination {
        let number = |v: &Value| v.as_u64().unwrap_or_else(|| panic!("not a number in {row:#}"));
        Destination {
            configured: row["configured"] == true,
            accepted: number(&row["accepted"]),
            sent: number(&row["sent"]),
            waiting: number(&row["waiting"]["records"]),
            quarantined: number(&row["quarantined"]),
            dropped: number(&row["dropped"]),
            damaged: number(&row["damaged"]),
            last_error: row["last_error"]["text"].as_str().unwrap_or("").to_owned(),
        }
    }

    /// accepted = sent + waiting + quarantined + dropped + damaged.
    pub fn adds_up(&self) -> bool {
        self.accepted == self.sent + self.waiting + self.quarantined + self.dropped + self.damaged
    }
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let from = text.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}
