//! The life of a gateway, from configuration to the last commit.
//!
//! Order of starting: log first (nothing is accepted before what was accepted is known), then the doors are bound, then destinations,
//! page and doors begin to work. Order of ending, on SIGTERM or Ctrl-C: doors, destinations, the last group, exit 0. The log stays.

use crate::admin::{self, Addresses, Admin, ConfigPage, NodeInfo};
use crate::budget::Budget;
use crate::cli::Exit;
use crate::config::{Auth, Config, Loaded};
use crate::destination;
use crate::host::{self, Host};
use crate::journal;
use crate::own::{self, Own};
use crate::probe::{self, Board};
use crate::receiver::{self, LocalAddrs};
use crate::scrape::{Round, Target};
use crate::seam::Signal;
use crate::status::{Phase, Status};
use crate::store::operator::Desk;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::tls;
use crate::view::View;
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
            receiver::Otlp::bind(otlp, &config.http.hosts, budget.clone(), counters)
                .map_err(|e| Failure(Exit::Unavailable, e.to_string()))?,
        ),
        None => None,
    };
    let addresses = doors.as_ref().map(receiver::Bound::local_addrs).unwrap_or_default();
    let view = config.local_view.as_ref().map(|v| View::new(v.max, v.window));
    let (board, client) = probe::start(&config, &store, &budget, &telemetry, &stopped)
        .map_err(|e| Failure(Exit::Failed, format!("no thread for the probe: {e}")))?
        .unzip();
    let page = Page::open(&loaded, &store, &status, &telemetry, (view.clone(), board), addresses)?;
    let mut threads =
        destination::start::start(&config, &store, &stopped).map_err(|e| Failure(Exit::Config, e.to_string()))?;
    let shown = view.clone();
    threads.extend(client);
    threads.extend(
        journal::start(&config, &store, &telemetry, &stopped)
            .map_err(|e| Failure(Exit::Failed, format!("no thread for the journal: {e}")))?,
    );
    if let Some(view) = view {
        threads.extend(
            destination::view::start(&config, &store, &view, &stopped)
                .map_err(|e| Failure(Exit::Failed, e.to_string()))?,
        );
    }

    banner(&loaded, &store, &page.url, addresses);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(doors) = doors {
        tasks.spawn(doors.serve(store.clone(), ended(stopped.clone())));
    }
    tasks.spawn(page.admin.serve(page.listener, page.tls, ended(stopped.clone())));
    if let Some(view) = shown {
        let node = config.node.name.clone();
        tasks.spawn(own::traces::run(telemetry.clone(), view, node, stopped.clone()));
    }
    start_scrapes(&config, &store, &status, &telemetry, &stopped, &mut tasks);
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
                tracing::error!(
                    "a destination or the probe's client ended by panic; records are still in the log, or with the probe"
                );
            }
        }
        store.close();
    });
    closing.await.map_err(|e| Failure(Exit::Failed, format!("closing the log: {e}")))
}

/// The rounds of this node's own scrapers, if anything takes metrics.
fn start_scrapes(
    config: &Config,
    store: &Store,
    status: &Status,
    telemetry: &Telemetry,
    stopped: &watch::Receiver<bool>,
    tasks: &mut tokio::task::JoinSet<()>,
) {
    let Some(scrape) = config.scrape.as_ref().filter(|_| store.log(Signal::Metrics).is_some()) else { return };
    let host: Arc<dyn Target> = Arc::new(Host::new(host::Root::default(), telemetry.clone()));
    let own: Arc<dyn Target> = Arc::new(Own::new(telemetry.clone(), Arc::new(status.clone())));
    for (every, target) in [(scrape.host, host), (scrape.own, own)] {
        let Some(every) = every else { continue };
        let instance = config.node.name.clone();
        let round = Round { target, instance, intake: store.clone(), telemetry: telemetry.clone() };
        tasks.spawn(round.run(every.interval, stopped.clone()));
    }
}

/// The front office, bound and ready to serve.
struct Page {
    admin: Admin,
    listener: tokio::net::TcpListener,
    tls: Option<Arc<tls::Server>>,
    /// With the token, if one is asked for: what a person opens.
    url: String,
}

impl Page {
    fn open(
        loaded: &Loaded,
        store: &Store,
        status: &Status,
        telemetry: &Telemetry,
        (view, probe): (Option<View>, Option<Board>),
        otlp: LocalAddrs,
    ) -> Result<Page, Failure> {
        let http = &loaded.config.http;
        let unavailable = |e: &dyn std::fmt::Display| Failure(Exit::Unavailable, e.to_string());
        let listener = receiver::bind::listen("http.listen", http.listen).map_err(|e| unavailable(&e))?;
        let address = listener.local_addr().map_err(|e| unavailable(&e))?;
        let tls = match &http.tls {
            Some(files) => Some(tls::Server::load(files, &[tls::ALPN_HTTP1]).map_err(|e| unavailable(&e))?),
            None => None,
        };
        let token = admin::token(&loaded.config.storage.path).map_err(|e| Failure(Exit::Storage, e.to_string()))?;
        let base = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let url = match http.auth.is_unset() {
            true => format!("{base}/?token={}", token.expose()),
            false => format!("{base}/"),
        };
        let shown = |a: Option<SocketAddr>| a.map(|a| format!("http://{a}"));
        let parts = admin::Parts {
            telemetry: telemetry.clone(),
            status: Arc::new(status.clone()),
            view,
            probe,
            wal: Arc::new(Desk::new(store.clone(), Arc::new(loaded.config.clone()), telemetry.clone())),
            node: NodeInfo {
                name: loaded.config.node.name.clone(),
                id: store.folder().node().to_string(),
                role: "node",
            },
            addresses: Addresses { ui: Some(base), otlp_grpc: shown(otlp.grpc), otlp_http: shown(otlp.http) },
            config: ConfigPage::of(loaded),
            http: http.clone(),
            token,
        };
        Ok(Page { admin: Admin::new(parts), listener, tls, url })
    }
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
fn banner(loaded: &Loaded, store: &Store, url: &str, otlp: LocalAddrs) {
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
    for clear in config.sent_in_the_clear() {
        println!("  in clear    {clear}");
    }
    for open in open_doors(config) {
        println!("  open door   {open}");
    }
    let unserved: Vec<&str> =
        [Signal::Logs, Signal::Traces].into_iter().filter(|s| store.log(*s).is_none()).map(Signal::name).collect();
    if !unserved.is_empty() {
        println!("  not served  {}: no destination takes it and local_view is off", unserved.join(", "));
    }
    if let (true, Some(endpoint)) = (loaded.built_in(), otlp.http) {
        println!("  try         OTEL_EXPORTER_OTLP_ENDPOINT=http://{endpoint} your-app");
        println!("              gateway demo --endpoint http://{endpoint}");
    }
    // A script that waits for this line must not wait for a full buffer.
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

/// Doors off loopback that ask nobody who they are: allowed because somebody said `auth: none`, and said again at every start.
fn open_doors(config: &Config) -> Vec<String> {
    let mut doors = Vec::new();
    let mut judge = |key: &str, address: Option<SocketAddr>, auth: &Auth| {
        if let Some(address) = address.filter(|a| *auth == Auth::Open && !a.ip().to_canonical().is_loopback()) {
            doors.push(format!("{key} {address}: whoever reaches it is let in (auth: none)"));
        }
    };
    judge("http.listen", Some(config.http.listen), &config.http.auth);
    if let Some(otlp) = &config.receive.otlp {
        judge("receive.otlp.grpc", otlp.grpc, &otlp.auth);
        judge("receive.otlp.http", otlp.http, &otlp.auth);
    }
    doors
}

fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{:.1} GiB", b as f64 / f64::from(1 << 30)),
        b => format!("{} MiB", b >> 20),
    }
}
