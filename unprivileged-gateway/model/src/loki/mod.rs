//! OTLP log requests in, Loki pushes out, and no struct in between.
//!
//! A typesetter at a conveyor belt: lines come by as bytes, are set in the form of the newspaper they go to, and a page is
//! pressed as soon as it is full. Nothing on the belt is picked up twice, and no page waits unpressed.
//!
//! [`Encoder::add`] walks a request forward (`entry.rs`), with what belongs to a resource rendered once (`resource.rs`) and
//! each stream compressed while it fills (`stream.rs`); [`Encoder::finish`] lays the streams side by side, sharded by label
//! set. The output is a function of the input alone: not of time, not of what was seen before, not of the cache.
//!
//! Weakness: a record can become much larger than it was, since its resource goes out with each of them. So a push is
//! bounded by what it has become, not by what went in: use [`Encoder::add_from`].

pub mod answer;

mod alloy;
mod encoder;
mod entry;
mod label;
mod logfmt;
mod merge;
mod metadata;
mod resource;
mod severity;
mod stream;
mod value;

use crate::Malformed;
use crate::chunk::FileLabels;
use crate::wire::put_bytes;
use resource::Known;
use std::sync::Arc;

pub use encoder::Encoder;
pub use encoder::lines::{LineAdded, RefusedLine};
pub use resource::JOURNAL;

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// The body, attributes beside it as structured metadata.
    #[default]
    Body,
    /// Everything in the line as JSON (or as the record's `loki.format` says), labels as Alloy's exporter chose them.
    AlloyJson,
}

/// What the backend accepts. Defaults are Loki's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longer lines are cut to this, marker included. Unit: bytes.
    pub line_bytes: usize,
    /// Labels of a stream.
    pub label_names: usize,
    /// Unit: bytes.
    pub label_name_bytes: usize,
    /// Unit: bytes.
    pub label_value_bytes: usize,
    /// Names and values of a line's structured metadata together. Unit: bytes.
    pub metadata_bytes: usize,
    /// Pairs of structured metadata of a line.
    pub metadata_entries: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_bytes: 256 << 10,
            label_names: 15,
            label_name_bytes: 1_024,
            label_value_bytes: 2_048,
            metadata_bytes: 64 << 10,
            metadata_entries: 128,
        }
    }
}

/// How one destination wants its logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Added to every stream that does not have a label of that name.
    pub external_labels: Vec<(String, String)>,
    pub line: Line,
    pub limits: Limits,
    /// Labels of lines of files.
    pub files: Arc<FileLabels>,
}

/// A limit that a record breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    /// Loki's name for it, as in `loki_discarded_samples_total{reason}`.
    reason: &'static str,
    detail: String,
}

/// A record that the backend would not take. It is in no push; it belongs into quarantine.
#[derive(Clone, Debug)]
pub struct Offender {
    /// Of the frame it came in.
    pub seq: u64,
    /// Loki's name of the limit (`structured_metadata_too_large`, ...) or `malformed`.
    pub reason: &'static str,
    /// Which one, how much and what the limit is.
    pub detail: String,
    /// Stream labels as they would have been.
    pub labels: Arc<str>,
    /// Line as it would have been, cut where needed. Empty if the record could not be read.
    pub line: Vec<u8>,
    known: Arc<Known>,
    scope: Arc<[u8]>,
    record: Vec<u8>,
}

impl Offender {
    /// An `ExportLogsServiceRequest` that holds this record alone, under its resource and scope, all as received. With the
    /// frame's sidecar beside it, it can be sent again once the limit is raised.
    pub fn request(&self) -> Vec<u8> {
        let (mut scope_logs, mut resource_logs, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut scope_logs, 1, &self.scope);
        put_bytes(&mut scope_logs, 2, &self.record);
        put_bytes(&mut resource_logs, 1, &self.known.bytes);
        put_bytes(&mut resource_logs, 2, &scope_logs);
        put_bytes(&mut request, 1, &resource_logs);
        request
    }

    fn weight(&self) -> usize {
        size_of::<Offender>() + self.detail.len() + self.line.len() + self.record.len()
    }
}

/// Where in a request to go on. Opaque; `Place::default()` is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Offsets: of the `ResourceLogs` in the request, of the `ScopeLogs` in that, of the record in that.
    resource: usize,
    scope: usize,
    record: usize,
}

/// What became of a request. Every record is counted once: in `entries` or in `offenders`.
#[derive(Debug, Default)]
pub struct Added {
    /// Records that are in the push.
    pub entries: u32,
    /// How many of those have a line that was cut.
    pub cut: u32,
    /// Records over a limit, in order.
    pub offenders: Vec<Offender>,
    /// The request could not be read beyond some point; what came before it is counted above and stays.
    pub malformed: Option<Malformed>,
    /// Set if the push was full before the request ended: finish it, then call [`Encoder::add_from`] from here.
    pub next: Option<Place>,
}

/// One body for Loki's push endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub shard: usize,
    /// Snappy block of a `PushRequest`.
    pub body: Vec<u8>,
    pub entries: u32,
    /// Size of the `PushRequest` before compression.
    pub raw_bytes: usize,
    /// Label text of each stream in it.
    pub streams: Vec<String>,
}
