//! Keeps a connection to the probe, whatever becomes of it.
//!
//! Like a lamp lighter on his round: a lamp that is out is lit again, at once if it was the wind, after a longer and longer while if
//! somebody keeps blowing it out. Weakness: a probe that speaks nonsense once a minute is asked once a minute, for ever.

use super::board::Board;
use super::inbox::Inbox;
use super::session::{self, Desk, End};
use crate::budget::Budget;
use crate::config::Config;
use crate::store::Store;
use crate::telemetry::Telemetry;
use model::pprof::Limits;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// Pauses after a probe that is not there: it may be starting.
const ABSENT_FIRST: Duration = Duration::from_millis(200);
const ABSENT_MAX: Duration = Duration::from_secs(5);
/// Pauses after one that does not keep to the protocol.
const BROKEN_FIRST: Duration = Duration::from_secs(1);
const BROKEN_MAX: Duration = Duration::from_secs(60);
/// A connection that held this long has made up for what was before.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// What the client needs.
pub struct Setup {
    pub socket: PathBuf,
    pub node: String,
    /// Names of the configured log sources, `pods` among them.
    pub sources: std::collections::BTreeSet<String>,
    /// Length of a window of stacks as configured.
    pub window: Option<Duration>,
    pub store: Store,
    pub budget: Budget,
    pub telemetry: Telemetry,
    pub stop: watch::Receiver<bool>,
}

/// Starts the client, if the configuration expects a probe. Errors: a refused thread.
pub fn start(
    config: &Config,
    store: &Store,
    budget: &Budget,
    telemetry: &Telemetry,
    stop: &watch::Receiver<bool>,
) -> std::io::Result<Option<(Board, JoinHandle<()>)>> {
    let Some(probe) = &config.probe else { return Ok(None) };
    let logs = config.logs.clone().unwrap_or_default();
    let sources = logs.files.into_keys().chain(logs.pods.map(|_| "pods".to_owned())).collect();
    Setup {
        socket: probe.socket.clone(),
        node: config.node.name.clone(),
        sources,
        window: config.profiles.as_ref().and_then(|p| p.cpu.as_ref()).map(|cpu| cpu.window),
        store: store.clone(),
        budget: budget.clone(),
        telemetry: telemetry.clone(),
        stop: stop.clone(),
    }
    .start()
    .map(Some)
}

impl Setup {
    /// One thread with its own event loop: turning stacks into profiles never shares a thread with intake.
    pub fn start(self) -> std::io::Result<(Board, JoinHandle<()>)> {
        let board = Board::new(&self.socket, self.telemetry.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mine = board.clone();
        let thread =
            std::thread::Builder::new().name("probe".into()).spawn(move || runtime.block_on(self.run(mine)))?;
        Ok((board, thread))
    }

    async fn run(self, board: Board) {
        let Setup { socket, node, sources, window, store, budget, telemetry, mut stop } = self;
        let limits = Limits::default();
        let mut desk = Desk { store, telemetry, board, node, sources, window, limits, said: Default::default() };
        let (mut absent, mut broken) = (Pause::new(ABSENT_FIRST, ABSENT_MAX), Pause::new(BROKEN_FIRST, BROKEN_MAX));
        while !*stop.borrow() {
            let begun = Instant::now();
            let (end, greeted) = match UnixStream::connect(&socket).await {
                Ok(stream) => {
                    let budget = budget.clone();
                    session::run(&mut desk, |from| Inbox::new(from, budget), stream, stop.clone()).await
                }
                Err(e) => (End::Gone(format!("no probe answers at {}: {e}", socket.display())), false),
            };
            if greeted {
                absent.reset();
                if begun.elapsed() >= GOOD_AFTER {
                    broken.reset();
                }
            }
            let (text, pause) = match end {
                End::Stopped => break,
                End::Gone(text) => (text, absent.next()),
                End::Refused(text) => (format!("the log took frames back: {text}"), absent.next()),
                End::Broken(text) => {
                    let pause = broken.next();
                    tracing::error!(
                        why = text,
                        pause_s = pause.as_secs(),
                        "the probe does not keep to the door's protocol"
                    );
                    (format!("the probe does not keep to the protocol: {text}"), pause)
                }
            };
            if desk.board.gone(Some(&text)) {
                tracing::warn!(why = text, "not connected to the probe; trying again");
            }
            tokio::select! { _ = stop.wait_for(|s| *s) => {} () = tokio::time::sleep(pause) => {} }
        }
        desk.board.gone(None);
    }
}

/// A pause that doubles.
struct Pause {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Pause {
    fn new(first: Duration, most: Duration) -> Pause {
        Pause { first, most, next: first }
    }

    fn next(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.most);
        now
    }

    fn reset(&mut self) {
        self.next = self.first;
    }
}
