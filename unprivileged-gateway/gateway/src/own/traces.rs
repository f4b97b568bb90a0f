//! The gateway's own spans on their way to the page.
//!
//! The boy who carries the photographs from the roadside to the shop window, once a second. He does not pass the store: see
//! `telemetry/spans.rs` for why nothing can go round in a circle. Weakness: what he carries when the process ends is lost.

use crate::store::now_ns;
use crate::telemetry::Telemetry;
use crate::view::View;
use model::envelope::Sidecar;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How long a span may wait before the view shows it.
const EVERY: Duration = Duration::from_secs(1);

/// Samples spans and shows them, until `stop` says true.
pub async fn run(telemetry: Telemetry, view: View, node: String, mut stop: watch::Receiver<bool>) {
    telemetry.trace();
    let mut strokes = tokio::time::interval(EVERY);
    strokes.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = strokes.tick() => {}
        }
        let Some((raw, _)) = telemetry.own_spans(&node) else { continue };
        if let Err(e) = view.own_traces(&Sidecar { received_at: now_ns(), ..Sidecar::default() }, &raw) {
            tracing::error!(error = %e, "own spans are left out of the local view");
        }
    }
}
