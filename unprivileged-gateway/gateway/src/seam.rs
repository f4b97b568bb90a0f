//! The words that receivers, store, destinations and page share.
//!
//! Like the flange between two pipes: no logic, only shapes both sides agree on. A receiver knows [`Intake`] and nothing of the
//! disk; the store knows [`Offered`] and nothing of HTTP. Weakness: a closed set; a fifth signal touches every `match`, on purpose.

use bytes::Bytes;
use model::envelope::{Kind, Sidecar};
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// The four kinds of telemetry; each has a log of its own (ADR 0011).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Signal {
    Logs,
    Traces,
    Metrics,
    Profiles,
}

impl Signal {
    pub const ALL: [Signal; 4] = [Signal::Logs, Signal::Traces, Signal::Metrics, Signal::Profiles];

    /// Lower-case plural, as in folder names, metric labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Logs => "logs",
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Profiles => "profiles",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a record came in; the label `source` of `bulkhead_accepted_records_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    OtlpGrpc,
    OtlpHttp,
    /// Log bytes and stacks from the privileged probe.
    Probe,
    /// The system journal of this machine.
    Journal,
    /// This machine's basics: processor, memory, disk, network, pressure.
    Host,
    /// The gateway's own spans and series.
    Own,
}

impl Source {
    pub const fn name(self) -> &'static str {
        match self {
            Source::OtlpGrpc => "otlp/grpc",
            Source::OtlpHttp => "otlp/http",
            Source::Probe => "probe",
            Source::Journal => "journal",
            Source::Host => "host",
            Source::Own => "own",
        }
    }

    /// Can this signal arrive here?
    pub const fn brings(self, signal: Signal) -> bool {
        match self {
            Source::OtlpGrpc | Source::OtlpHttp => !matches!(signal, Signal::Profiles),
            Source::Probe => matches!(signal, Signal::Logs | Signal::Profiles),
            Source::Journal => matches!(signal, Signal::Logs),
            Source::Host => matches!(signal, Signal::Metrics),
            Source::Own => matches!(signal, Signal::Metrics | Signal::Traces),
        }
    }
}

/// One checked request on its way into the log.
///
/// Shape: the raw protobuf bytes in the pieces in which they came, `items` records in all, and what was known at receipt.
/// Whoever builds it has already held the bytes against the byte budget and validated them.
#[derive(Debug)]
pub struct Offered {
    pub signal: Signal,
    pub kind: Kind,
    pub items: u32,
    pub sidecar: Sidecar,
    pub body: Vec<Bytes>,
    pub source: Source,
    /// Its place in the source, where a source numbers its records: what is held already is not stored twice.
    pub origin: Option<wal::Origin>,
}

/// What kind of no: decides the gRPC status and the HTTP code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// gRPC UNAVAILABLE, HTTP 503: starting, draining, the disk does not answer.
    Unavailable,
    /// gRPC RESOURCE_EXHAUSTED with RetryInfo, HTTP 429 with Retry-After: no room.
    Exhausted,
    /// gRPC INVALID_ARGUMENT, HTTP 400: sending it again will not help.
    Invalid,
}

/// The sender still holds the data. `reason` is a metric label from a small fixed set, `message` names the thing and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub class: RefusalClass,
    pub reason: &'static str,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The door to the log, as receivers see it.
pub trait Intake: Clone + Send + Sync + 'static {
    /// False: what comes as OTLP of this signal is not taken: there is neither a destination nor a local view for it.
    fn serves(&self, signal: Signal) -> bool;

    /// Resolves only after the `fdatasync` that covers the frame; an error means nothing of it was kept.
    fn accept(&self, offered: Offered) -> impl Future<Output = Result<(), Refusal>> + Send;
}
