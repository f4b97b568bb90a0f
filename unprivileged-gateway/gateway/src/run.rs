//! The life of a gateway, from configuration to the last commit.
//!
//! Order of starting: log first (nothing is accepted before what was accepted is known), then the doors are bound, then destinations,
//! page and doors begin to work. Order of ending, on SIGTERM or Ctrl-C: doors, destinations, the last group, exit 0. The log stays.

use crate::budget::Budget;
use crate::cli::Exit;
use crate::config::{Config, Loaded};
use crate::destination;
use crate::receiver::{self, LocalAddrs};
use crate::seam::Signal;
use crate::status::{Phase, Status};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A restart is over within this time (interface, "Times"), calls in flight included.
const DRAIN: Duration = Duration::from_secs(4);

/// Why the gateway did not start, and with which code it ends.
struct Failure(Exit, String);

/// Runs until a signal ends it. Errors go to stderr as one sentence each.
pub fn run(loaded: Loaded) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("gateway").build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: no event loop could be started: {e}");
            return Exit::Failed.into();
        }
    };
    let code = match runtime.block_on(serve(loaded)) {
        Ok(()) => Exit::Fine,
        Err(Failure(code, text)) => {
            eprintln!("error: {text}");
            code
        }
    };
    // Idle keep-alive connections and watchers hold nothing that must be kept.
    runtime.shutdown_background();
    code.into()
}

async fn serve(loaded: Loaded) -> Result<(), Failure> {
    let config = Arc::new(loaded.config.clone());
    let telemetry = Telemetry::new();
    telemetry.config_loaded(&fingerprint(&loaded), true);
    let store = Store::open(&config, telemetry.clone()).map_err(storage)?;
    let budget = Budget::new(config.memory.budget);
    let status = Status::new(&config, store.clone(), budget.clone());
    let (stop, stopped) = watch::channel(false);

    let counters = Arc::new(telemetry.clone());
    let doors = match &config.receive.otlp {
        Some(otlp) => Some(
            receiver::Otlp::bind(otlp, &config.http.hosts, budget, counters)
                .map_err(|e| Failure(Exit::Unavailable, e.to_string()))?,
        ),
        None => None,
    };
    let addresses = doors.as_ref().map(receiver::Bound::local_addrs).unwrap_or_default();
    let threads =
        destination::start::start(&config, &store, &stopped).map_err(|e| Failure(Exit::Config, e.to_string()))?;

    banner(&loaded, &store, "", config.http.listen, addresses);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(doors) = doors {
        tasks.spawn(doors.serve(store.clone(), ended(stopped.clone())));
    }
    status.enter(Phase::Serving);
    wait_for_signal().await?;

    tracing::info!("draining: calls in flight finish, the log stays");
    status.enter(Phase::Draining);
    let _ = stop.send(true);
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some calls did not finish in {} s; their senders hold what was not answered", DRAIN.as_secs());
    }
    let closing = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a destination ended by panic; its records are still in the log");
            }
        }
        store.close();
    });
    closing.await.map_err(|e| Failure(Exit::Failed, format!("closing the log: {e}")))
}

fn storage(e: StoreError) -> Failure {
    Failure(Exit::Storage, e.to_string())
}

/// Tells two configurations apart in `alloy_config_hash`; not a signature.
fn fingerprint(loaded: &Loaded) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(loaded.yaml().as_bytes()))
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    // The sender lives as long as `serve`; should it be gone, the end has come too.
    let _ = stopped.wait_for(|s| *s).await;
}

async fn wait_for_signal() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure(Exit::Failed, format!("signals cannot be received: {e}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// What a person needs to know, on stdout; programs read `/api/v1/status`.
fn banner(loaded: &Loaded, store: &Store, url: &str, http: SocketAddr, otlp: LocalAddrs) {
    let config: &Config = &loaded.config;
    let what = match loaded.built_in() {
        true => "no configuration: everything stays on this machine",
        false => "running",
    };
    let shown = |a: Option<SocketAddr>| a.map_or("off".to_owned(), |a| a.to_string());
    println!("gateway {}  {what}", env!("CARGO_PKG_VERSION"));
    println!("  page        {url}");
    println!("  OTLP        grpc {}   http {}", shown(otlp.grpc), shown(otlp.http));
    println!("  log         {} (at most {})", config.storage.path.display(), human(config.storage.max));
    let unserved: Vec<&str> =
        [Signal::Logs, Signal::Traces].into_iter().filter(|s| store.log(*s).is_none()).map(Signal::name).collect();
    if !unserved.is_empty() {
        println!("  not served  {}: no destination takes it and local_view is off", unserved.join(", "));
    }
    if loaded.built_in() {
        let endpoint = otlp.http.unwrap_or(http);
        println!("  try         OTEL_EXPORTER_OTLP_ENDPOINT=http://{endpoint} your-app");
        println!("              gateway demo --endpoint http://{endpoint}");
    }
    // A script that waits for this line must not wait for a full buffer.
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{:.1} GiB", b as f64 / f64::from(1 << 30)),
        b => format!("{} MiB", b >> 20),
    }
}
