//! What both doors do with a request once its bytes are here: check, count, hand to the intake.
//!
//! Like the counter behind two entrances: whoever comes in, the parcel is weighed and stamped in the same way. Weakness: the
//! check reads every byte on the thread that read the socket; a 16 MiB request keeps that thread for some milliseconds.

use super::answer::Fault;
use super::auth::Gate;
use super::body::Meter;
use super::counters::{Answered, Counters};
use crate::budget::Budget;
use crate::seam::{Intake, Offered, Signal, Source};
use bytes::Bytes;
use model::envelope::{Kind, Sidecar};
use model::otlp::{Request, check};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// An `Export…ServiceResponse` whose partial success is present and empty: everything was taken.
pub(super) const SUCCESS: [u8; 2] = [0x0a, 0x00];
/// Headers of one request, names and values together, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// What every call of every connection needs.
pub(super) struct Shared<I> {
    pub(super) intake: I,
    pub(super) budget: Budget,
    pub(super) counters: Arc<dyn Counters>,
    pub(super) gate: Gate,
    /// Largest request, before and after decompression, in bytes.
    pub(super) max_request: usize,
    /// Hosts whose pages may send, lower case, without port.
    pub(super) origins: Vec<String>,
}

/// One call being answered; counts itself when it ends, however it ends.
pub(super) struct Call<'a> {
    counters: &'a dyn Counters,
    source: Source,
    pub(super) signal: Option<Signal>,
    started: Instant,
    pub(super) wire_bytes: u64,
}

impl<'a> Call<'a> {
    pub(super) fn start<I>(shared: &'a Shared<I>, source: Source, signal: Option<Signal>) -> Call<'a> {
        Call { counters: &*shared.counters, source, signal, started: Instant::now(), wire_bytes: 0 }
    }

    pub(super) fn answered(&self, code: u16) {
        let Call { source, signal, wire_bytes, .. } = *self;
        self.counters.answered(Answered { source, signal, code, took: self.started.elapsed(), wire_bytes });
    }

    pub(super) fn refused(&self, fault: &Fault) {
        self.counters.refused(self.source, self.signal, fault.reason(), fault.records());
    }

    pub(super) fn refused_because(&self, reason: &'static str) {
        self.counters.refused(self.source, self.signal, reason, 1);
    }
}

impl<I: Intake> Shared<I> {
    /// Resolves once the request is safe on the disk. The bytes stay charged to the budget until then.
    pub(super) async fn offer(
        &self,
        source: Source,
        signal: Signal,
        peer: IpAddr,
        bytes: Bytes,
        mut meter: Meter,
    ) -> Result<(), Fault> {
        let (kind, items) = judge(signal, &bytes)?;
        if items == 0 {
            return Ok(()); // nothing to keep: fine at once, as other receivers say it
        }
        let length = bytes.len() as u64;
        meter.shrink_to(length);
        let received_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let sidecar =
            Sidecar { received_at, peer: peer.to_canonical().to_string(), enrichment: Vec::new(), file: None };
        let offered = Offered { signal, kind, items, sidecar, body: vec![bytes], source, origin: None };
        match self.intake.accept(offered).await {
            Ok(()) => {
                self.counters.accepted(source, signal, items, length);
                Ok(())
            }
            Err(refusal) => Err(Fault::Refused(refusal, items)),
        }
    }
}

/// Is this an export request of its signal, and how many records does it hold?
fn judge(signal: Signal, bytes: &[u8]) -> Result<(Kind, u32), Fault> {
    let (kind, request) = match signal {
        Signal::Logs => (Kind::OtlpLogs, Request::Logs),
        Signal::Traces => (Kind::OtlpTraces, Request::Traces),
        Signal::Metrics => (Kind::OtlpMetrics, Request::Metrics),
        Signal::Profiles => return Err(Fault::Unserved("profiles are not taken here".into())),
    };
    let counts = check(request, bytes).map_err(|error| Fault::Malformed(format!("not an OTLP request: {error}")))?;
    Ok((kind, counts.items))
}
