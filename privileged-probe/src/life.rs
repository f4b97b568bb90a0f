//! The probe's life, in the order that matters: become small, load, open, drop, prove, lock in, serve, end.
//!
//! Like a theatre before a play: the workers with tools finish and leave before the doors open. What needs a capability or a
//! new thread happens before the filter; what meets anybody else's bytes happens after it. The first thread does nothing then
//! but watch: signals, the list of CPUs, threads that ended. The weakness: CPUs that come later cannot be sampled by a process
//! that gave up PERFMON; it exits with 75 and is started again.

use crate::cli::LogFormat;
use crate::config::Options;
use crate::nursery::Nursery;
use crate::outbox::Outbox;
use crate::pod_log;
use crate::privilege::{self, Proof, Refusal};
use crate::profiler::{self, Profiler};
use crate::serve::{Door, Limits, ListenError, Serve};
use crate::{doctor, seccomp, vitals};
use ipc::{Feature, Hello};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use thiserror::Error;

/// Threads have this long to end after SIGTERM; positions are written well within it.
const END_WITHIN: Duration = Duration::from_secs(4);
/// How often the list of CPUs is looked at, milliseconds.
const WATCH_EVERY_MS: u16 = 1000;
/// Kernel's list of CPUs that are on.
const CPUS_ONLINE: &str = "/sys/devices/system/cpu/online";

/// Why the probe ended, as an exit code and a sentence.
#[derive(Debug, Error)]
pub enum End {
    /// 1.
    #[error("{0}")]
    Failed(String),
    /// 69.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// 75: start me again.
    #[error("{0}; start the probe again (systemd: Restart=always does)")]
    Again(String),
    /// 77.
    #[error(transparent)]
    Privilege(#[from] Refusal),
}

impl End {
    /// The exit code of `interface`: 1, 69, 75 or 77.
    pub fn code(&self) -> u8 {
        match self {
            End::Failed(_) => 1,
            End::Listen(_) => 69,
            End::Again(_) => 75,
            End::Privilege(_) => 77,
        }
    }
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> End {
    move |e| End::Failed(format!("{what}: {e}"))
}

/// Runs until SIGTERM or SIGINT (exit 0 within 5 s) or until something ends it.
pub fn run(options: &Options, format: LogFormat) -> ExitCode {
    log(format);
    // A thread that panics would leave a probe that samples or reads nothing and looks alive.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            tracing::error!(exit = end.code(), "{end}");
            ExitCode::from(end.code())
        }
    }
}

fn log(format: LogFormat) {
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    if text { subscriber.init() } else { subscriber.json().flatten_event(true).init() }
}

fn start(options: &Options) -> Result<(), End> {
    privilege::assume()?;
    // Before there is a thread, a socket or a program in the kernel: what does not exist yet cannot be inherited.
    let nursery = match &options.cpu {
        Some(_) => Some(Arc::new(Nursery::start().map_err(failed("starting the nursery"))?)),
        None => None,
    };
    let signals = signals().map_err(failed("taking signals"))?;
    let cpus = online();
    let mut features = Vec::new();
    let door = Door::open(&options.socket, &options.peer)?;
    let profiler = load_profiler(options, nursery.clone(), &mut features);
    let logs = open_logs(options, &mut features);

    privilege::drop()?;
    let mut proofs = privilege::prove_drop();
    privilege::insist(&proofs)?;

    let outbox = Outbox::new().map_err(failed("making the outbox"))?;
    let hello = hello(options, features).map_err(failed("describing this machine"))?;
    for f in hello.features.iter().filter(|f| !f.on) {
        tracing::warn!("{} is off: {}", f.name, f.reason);
    }
    let serve = Serve { listener: door.listener, rule: options.peer, hello, limits: Limits::default() };
    let mut crew = Crew::new(&outbox);
    crew.spawn("door", move |outbox| serve.run(outbox).map_err(|e| e.to_string()))?;

    if let Some(logs) = logs {
        crew.spawn("logs", move |outbox| {
            logs.run(outbox);
            Ok(())
        })?;
    }

    for (name, job) in profiler.map(Profiler::jobs).unwrap_or_default() {
        crew.spawn(name, move |outbox| {
            job(outbox);
            Ok(())
        })?;
    }

    let systemd = systemd();
    seccomp::apply().map_err(|why| Refusal::Step { step: "locking in", why })?;
    proofs.extend(privilege::prove_filter());
    privilege::insist(&proofs)?;
    publish(&outbox, &proofs);
    // A datagram that gets lost shows as a start that systemd times out.
    let _ = systemd.map(|s| s.send(b"READY=1"));
    tracing::info!(socket = %options.socket.display(), proofs = proofs.len(), "ready: privileges dropped and proven");

    let watched = watch(&signals, cpus.as_deref(), &crew, nursery.as_deref());
    outbox.stop();
    crew.end();
    if let Some(path) = door.made {
        // The folder may be ours no more; a socket that stays is replaced at the next start.
        let _ = std::fs::remove_file(path);
    }
    watched
}

fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn online() -> Option<String> {
    std::fs::read_to_string(CPUS_ONLINE).ok()
}

/// Loads and attaches while that is allowed; says why if it cannot be.
fn load_profiler(options: &Options, nursery: Option<Arc<Nursery>>, features: &mut Vec<Feature>) -> Option<Profiler> {
    let loaded = match (&options.cpu, nursery) {
        (Some(cpu), Some(nursery)) => {
            let wanted = profiler::Options { hz: cpu.hz, tables: cpu.tables, window: cpu.window };
            // What the doctor finds missing explains a refusal better than the refusal.
            Profiler::load(&wanted, nursery).map_err(|off| match doctor::against_cpu() {
                why if why.is_empty() => off.to_string(),
                why => why,
            })
        }
        _ => Err("switched off by configuration".into()),
    };
    match loaded {
        Ok(profiler) => {
            features.extend(profiler.features());
            Some(profiler)
        }
        Err(reason) => {
            features.push(Feature { name: "cpu".into(), on: false, reason });
            None
        }
    }
}

/// Opens log roots while that is allowed; says why if there is nothing to read.
fn open_logs(options: &Options, features: &mut Vec<Feature>) -> Option<pod_log::Logs> {
    let opened = match &options.logs {
        None => Err("switched off by configuration".into()),
        Some(logs) => {
            // The default root is for nodes with pods; a machine without them need not be told that it has none.
            let asked = |root: &&PathBuf| root.as_os_str() != pod_log::PODS_ROOT || root.is_dir();
            let roots = logs.roots.iter().filter(asked).cloned().collect();
            let wanted = pod_log::Options { roots, files: logs.files.clone(), state: options.state.clone() };
            pod_log::Logs::open(&wanted).map_err(|e| e.to_string())
        }
    };
    let reason = opened.as_ref().err().cloned().unwrap_or_default();
    features.push(Feature { name: "logs".into(), on: opened.is_ok(), reason });
    opened.ok()
}

fn hello(options: &Options, features: Vec<Feature>) -> std::io::Result<Hello> {
    let line = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned());
    let mut start = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut start)?;
    Ok(Hello {
        version: ipc::VERSION,
        start,
        boot: line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        host: line("/proc/sys/kernel/hostname").unwrap_or_default(),
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        hz: options.cpu.as_ref().map_or(0, |c| c.hz),
        features,
    })
}

fn publish(outbox: &Outbox, proofs: &[Proof]) {
    outbox.status(|s| {
        s.dropped_proof = proofs.iter().map(|p| (p.what.clone(), p.refused)).collect();
        vitals::refresh(s);
    });
}

/// The threads, and a channel that closes when the last of them has ended.
struct Crew {
    outbox: Outbox,
    send: Option<mpsc::Sender<(&'static str, Result<(), String>)>>,
    ended: mpsc::Receiver<(&'static str, Result<(), String>)>,
}

impl Crew {
    fn new(outbox: &Outbox) -> Crew {
        let (send, ended) = mpsc::channel();
        Crew { outbox: outbox.clone(), send: Some(send), ended }
    }

    fn spawn<F>(&mut self, name: &'static str, work: F) -> Result<(), End>
    where
        F: FnOnce(&Outbox) -> Result<(), String> + Send + 'static,
    {
        let (outbox, send) = (self.outbox.clone(), self.send.clone());
        let run = move || {
            let how = work(&outbox);
            if let Some(send) = send {
                // Nobody listens only when the process ends.
                let _ = send.send((name, how));
            }
        };
        std::thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(failed("starting a thread"))
    }

    /// Waits until every thread has ended, or for [`END_WITHIN`].
    fn end(mut self) {
        self.send = None;
        let last = std::time::Instant::now() + END_WITHIN;
        loop {
            match self.ended.recv_timeout(last.saturating_duration_since(std::time::Instant::now())) {
                Ok((name, Err(e))) => tracing::error!("{name} ended with an error: {e}"),
                Ok((_, Ok(()))) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    tracing::warn!("some threads did not end within {END_WITHIN:?}; leaving without them");
                    return;
                }
            }
        }
    }
}

/// What the first thread does from here on. `Ok`: asked to end.
fn watch(signals: &SignalFd, cpus: Option<&str>, crew: &Crew, nursery: Option<&Nursery>) -> Result<(), End> {
    loop {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // Nothing comes out of the nursery; a hang-up wakes without being asked for.
        fds.extend(nursery.map(|n| PollFd::new(n.gone_fd(), PollFlags::empty())));
        match poll(&mut fds, PollTimeout::from(WATCH_EVERY_MS)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed("waiting")(e)),
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            // A hang-up asks for a new configuration, and there is none to reload.
            if signal.ssi_signo != Signal::SIGHUP as u32 {
                tracing::info!("asked to end");
                return Ok(());
            }
        }
        if let Ok((name, how)) = crew.ended.try_recv() {
            return Err(End::Failed(format!(
                "{name} ended: {}",
                how.err().unwrap_or_else(|| "without a reason".into())
            )));
        }
        if cpus.is_some() && online().as_deref() != cpus {
            return Err(End::Again("the list of CPUs changed".into()));
        }
        if nursery.is_some_and(|n| !n.alive()) {
            return Err(End::Again("the nursery is gone".into()));
        }
    }
}

/// A socket to systemd, if it started us with `Type=notify`: made before the filter, used after it.
fn systemd() -> Option<UnixDatagram> {
    let path = std::env::var("NOTIFY_SOCKET").ok()?;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let connected = address.and_then(|a| {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&a)?;
        Ok(socket)
    });
    connected.inspect_err(|e| tracing::warn!("systemd cannot be told when the start is done: {e}")).ok()
}
