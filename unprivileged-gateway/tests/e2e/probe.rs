//! The probe beside the gateway: what it reads arrives, whoever dies meanwhile.

use crate::alone;
use e2e::gateway::{Gateway, READY_MAX, Setup};
use e2e::load::sink;
use e2e::pods::Pods;
use e2e::probe::{Probe, ProbeSetup, UID, missing};
use e2e::{rounds, skip, wait_for};
use loadgen::sink::Sink;
use loadgen::sink::record::Lane;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Containers, and the lines they write together each second.
const PODS: std::ops::Range<u32> = 9_000..9_004;
const LINES_A_SECOND: u64 = 2_000;
/// interface.md, "Times": sent again after a crash, at most what was sent in the last second; pod logs with an open partial: 5 s.
const AGAIN_S: u64 = 5;
/// What one push or one window in flight holds beyond it.
const AGAIN_SLACK: u64 = 4_000;
/// Seconds of one window of stacks in these scenes.
const WINDOW_S: u64 = 1;

struct Street {
    sink: Sink,
    setup: Setup,
    probe: ProbeSetup,
    probe_runs: Option<Probe>,
    gateway: Option<Gateway>,
    /// Profiles that the last gateway has acknowledged to the probe, as it said itself.
    acknowledged: u64,
    acknowledged_now: u64,
}

impl Street {
    async fn build() -> Street {
        let sink = sink().await;
        let mut setup = Setup::default().loki("logs", sink.loki, "");
        let mut probe = ProbeSetup::default();
        probe.arguments = vec!["--window".into(), format!("{WINDOW_S}s")];
        setup.storage_max = "256MiB".into();
        setup.extra = format!(
            "  pyroscope:\n    profiles: {{ url: \"http://{}\" }}\nprobe: {{ socket: {} }}\nlogs:\n  pods: {{}}\nprofiles:\n  cpu: {{ window: {WINDOW_S}s }}\n",
            sink.pyroscope.expect("an open door"),
            probe.socket().display()
        );
        Street { sink, setup, probe, probe_runs: None, gateway: None, acknowledged: 0, acknowledged_now: 0 }
    }

    fn open(&mut self) {
        self.probe_runs = Some(self.probe.start());
        self.gateway = Some(self.setup.start());
    }

    /// Profiles taken from the probe by this run of the gateway.
    fn look(&mut self) {
        let Some(gateway) = &self.gateway else { return };
        let status = gateway.status();
        let rows = status["sources"].as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|r| r["name"] == "probe" && r["signal"] == "profiles");
        self.acknowledged_now = row.and_then(|r| r["accepted"].as_u64()).unwrap_or(0);
    }

    fn kill_gateway(&mut self) {
        self.look();
        self.acknowledged += self.acknowledged_now;
        self.acknowledged_now = 0;
        self.gateway.take().expect("it runs").kill();
        let mut next = self.setup.spawn(&self.setup.command());
        next.wait_ready(READY_MAX);
        self.gateway = Some(next);
    }

    fn kill_probe(&mut self) {
        self.probe_runs.take().expect("it runs").kill();
        self.probe_runs = Some(self.probe.start());
    }

    /// The probe notices, and asks to be started again.
    fn kill_nursery(&mut self) {
        let probe = self.probe_runs.take().expect("it runs");
        let nursery = wait_for("a nursery", Duration::from_secs(5), || probe.nursery());
        kill(Pid::from_raw(nursery as i32), Signal::SIGKILL).expect("a grandchild of ours");
        let status = probe.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(75), "a probe without its nursery asks to be started again");
        self.probe_runs = Some(self.probe.start());
    }

    fn missing(&self, written: &[(u32, u64)]) -> u64 {
        written.iter().map(|(sender, n)| self.sink.missing(Lane::Loki, *sender, *n)).sum()
    }
}

/// Keeps one processor busy while the scene plays, so that there are stacks to lose.
struct Busy(Child);

impl Busy {
    fn start() -> Busy {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        Busy(child.expect("a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_gateway_probe_and_nursery_loses_no_log_byte_and_no_acknowledged_profile() {
    if let Some(why) = missing() {
        return skip("kill -9 of gateway, probe and nursery", &why);
    }
    let _stage = alone().await;
    let mut street = Street::build().await;
    street.open();
    let _busy = Busy::start();
    let pods = Pods::start(&street.probe.log_root, PODS, LINES_A_SECOND);
    let kills = rounds("BULKHEAD_PROBE_KILLS", 2);
    for round in 0..kills * 3 {
        // Moments spread over a commit, a save of positions and a window, the same in every run.
        tokio::time::sleep(Duration::from_millis(300 + u64::from(round) * 617 % 2_300)).await;
        let victim = ["gateway", "probe", "nursery"][round as usize % 3];
        tokio::task::block_in_place(|| match victim {
            "gateway" => street.kill_gateway(),
            "probe" => street.kill_probe(),
            _ => street.kill_nursery(),
        });
        println!("round {round}: {victim} killed");
    }
    // Long enough for one more window, so that there is a profile even after the last kill.
    tokio::time::sleep(Duration::from_secs(WINDOW_S * 2)).await;
    let written = pods.stop();
    let lines: u64 = written.iter().map(|w| w.1).sum();
    tokio::task::block_in_place(|| {
        wait_for("every line at the backend", Duration::from_secs(60), || {
            (street.missing(&written) == 0).then_some(())
        });
        street.look();
    });
    let report = street.sink.report(false);
    let again: u64 = report.senders.iter().filter(|s| PODS.contains(&s.sender)).map(|s| s.duplicates).sum();
    let allowed = u64::from(kills * 3) * (AGAIN_S * LINES_A_SECOND + AGAIN_SLACK);
    let acknowledged = street.acknowledged + street.acknowledged_now;
    let profiles = tokio::task::block_in_place(|| {
        wait_for("every acknowledged profile at the backend", Duration::from_secs(20), || {
            let profiles = street.sink.profiles();
            (profiles.by_id.len() as u64 >= acknowledged).then_some(profiles)
        })
    });
    println!(
        "{} kills: {lines} lines, {again} twice (allowed {allowed}); {acknowledged} profiles acknowledged, {} at the backend, {} twice, {} stacks",
        kills * 3,
        profiles.by_id.len(),
        profiles.repeats(),
        profiles.stacks()
    );
    assert!(again <= allowed, "{again} lines twice, allowed {allowed}");
    assert!(acknowledged > 0 && profiles.stacks() > 0, "nothing was sampled");
    let waiting = street.gateway.as_ref().expect("it runs").destination("loki", "logs");
    assert!(waiting.adds_up() && waiting.damaged == 0 && waiting.dropped == 0, "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_processes_hold_what_they_need_and_no_more() {
    if let Some(why) = missing() {
        return skip("privileges of gateway, probe and nursery", &why);
    }
    let _stage = alone().await;
    let mut street = Street::build().await;
    street.open();
    let probe = street.probe_runs.as_ref().expect("it runs");
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line[name.len()..].trim().to_owned()
    };
    let status = wait_for("the probe has dropped what it started with", Duration::from_secs(20), || {
        let status = probe.proc("status");
        (field(&status, "Seccomp:") == "2").then_some(status)
    });
    let ptrace_only = format!("{:016x}", 1u64 << 19);
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(field(&status, set), ptrace_only, "{set} of the probe");
    }
    assert!(field(&status, "Uid:").split_whitespace().all(|uid| uid == UID.to_string()), "{status}");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    let nursery = probe.nursery().expect("a nursery");
    let status = std::fs::read_to_string(format!("/proc/{nursery}/status")).expect("its /proc entry");
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set} of the nursery");
    }
    assert_eq!((field(&status, "NoNewPrivs:"), field(&status, "Seccomp:")), ("1".into(), "2".into()));
}
