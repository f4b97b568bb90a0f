//! One thread a destination and signal, so that a slow transform or a stuck backend never shares a thread with intake.

use crate::config::Config;
use crate::destination::http::SetupError;
use crate::destination::lines;
use crate::destination::loki::LokiOut;
use crate::destination::otlp::OtlpOut;
use crate::destination::pyroscope::PyroscopeOut;
use crate::destination::run::{Out, Runner, Setup};
use crate::seam::Signal;
use crate::store::{Store, VIEW, destinations_of};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use wal::DestinationId;

/// Streams that are limited by name are tried this long where the configuration cannot say otherwise.
const PATIENCE: Duration = Duration::from_secs(600);

/// Starts every configured destination.
///
/// Errors: a destination that cannot be set up (certificates, headers), or a refused thread. Nothing runs then: `stop` ends the
/// threads that were already started.
pub fn start(config: &Config, store: &Store, stop: &watch::Receiver<bool>) -> Result<Vec<JoinHandle<()>>, SetupError> {
    let mut threads = Vec::new();
    for signal in Signal::ALL {
        for destination in destinations_of(config, signal).into_iter().filter(|d| d.kind != VIEW.0) {
            let (out, patience, line_bytes) = protocol(config, store, &destination.kind, &destination.name, signal)?;
            let id = DestinationId::new(&destination.kind, &destination.name);
            let failed = |why: String| SetupError::Other { destination: id.to_string(), why };
            let served = store.log(signal).ok_or_else(|| failed(format!("{signal} has no log")))?;
            let ledger = served.ledgers.get(&id).ok_or_else(|| failed("it was not registered".into()))?;
            let runner = Runner::new(Setup {
                id: id.clone(),
                signal,
                log: served.log.clone(),
                rounds: served.committer.rounds(),
                out,
                ledger: ledger.clone(),
                quarantine: store.quarantine().clone(),
                stream_patience: patience,
                stop: stop.clone(),
                files: lines::labels(config),
                joiner: lines::joiner(config, line_bytes),
            });
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| failed(format!("no event loop: {e}")))?;
            let thread = std::thread::Builder::new()
                .name(format!("{}/{signal}", destination.name))
                .spawn(move || runtime.block_on(runner.run()))
                .map_err(|e| failed(format!("no thread: {e}")))?;
            threads.push(thread);
        }
    }
    Ok(threads)
}

/// How a destination is spoken to, how long limited streams are tried, and where its lines end (bytes).
fn protocol(
    config: &Config,
    store: &Store,
    kind: &str,
    name: &str,
    signal: Signal,
) -> Result<(Out, Duration, usize), SetupError> {
    if let (true, Some(loki)) = (kind == "loki", config.send.loki.get(name)) {
        let out = Out::Loki(Box::new(LokiOut::new(name, loki, lines::labels(config))?));
        return Ok((out, loki.limits.stream_patience, loki.limits.line as usize));
    }
    if let (true, Some(pyroscope)) = (kind == "pyroscope", config.send.pyroscope.get(name)) {
        let out = Out::Pyroscope(Box::new(PyroscopeOut::new(name, pyroscope, store.folder().node())?));
        return Ok((out, PATIENCE, lines::OTLP_LINE_BYTES));
    }
    match config.send.otlp.get(name).filter(|_| kind == "otlp") {
        Some(otlp) => Ok((Out::Otlp(Box::new(OtlpOut::new(name, otlp, signal)?)), PATIENCE, lines::OTLP_LINE_BYTES)),
        None => Err(SetupError::Other {
            destination: format!("{kind}/{name}"),
            why: "it is not in the configuration".into(),
        }),
    }
}
