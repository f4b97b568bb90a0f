//! Resources, rendered once.
//!
//! A process sends the same resource with every request. So labels and metadata are rendered when its bytes are first seen
//! and found by their hash afterwards (13 ns instead of 400, performance notes 2); the bytes are compared as well, since
//! a hash is a hint. What the gateway knew at receipt is part of the key: the same bytes from two pods are two streams.
//!
//! Memory is bounded by bytes, in two generations: what was not asked for while one filled goes when the next is full.
//! The weakness: a sender that puts a fresh id into every resource makes the cache useless, though never large.

use super::label::Labels;
use super::metadata::{Level, lone_string};
use super::value::{Any, Odd, key_value, text};
use super::{Line, Offence, Options};
use crate::envelope::Sidecar;
use crate::otlp;
use crate::wire::{Fault, Fields, Value, put_bytes};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes that one of the two generations of known resources may hold.
const GENERATION_BYTES: usize = 2 << 20;
/// What a known resource takes beside its bytes, generously.
const KNOWN_OVERHEAD_BYTES: usize = 512;
/// A larger resource is rendered each time rather than kept.
const KEPT_RESOURCE_BYTES: usize = GENERATION_BYTES / 8;

/// Resource attributes that become stream labels (interface, "OTLP logs").
const LABELS: [(&str, &str); 5] = [
    ("service.name", "service_name"),
    ("service.namespace", "service_namespace"),
    ("k8s.namespace.name", "namespace"),
    ("k8s.pod.name", "pod"),
    ("k8s.container.name", "container"),
];

/// An entry of the system journal says by this attribute what its `job` is; its labels are those of interface.md's row "files,
/// journal", and the name of its service is none of them.
pub const JOURNAL: &str = "bulkhead.journal";
const JOURNAL_LABELS: [(&str, &str); 5] =
    [(JOURNAL, "job"), ("systemd.unit", "unit"), ("host.name", "hostname"), ("level", "level"), ("service.name", "")];

/// JSON of a nested value that would be a label stops soon after this; no backend takes a label half as long.
pub(super) const NESTED_LABEL_BYTES_MAX: usize = 64 << 10;

/// The key is a hash already.
#[derive(Default)]
pub(super) struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = v;
    }
}

pub(super) type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Already>>;

/// A resource and what follows from it.
#[derive(Debug)]
pub(super) struct Known {
    /// As received.
    pub(super) bytes: Box<[u8]>,
    enrichment: Vec<(String, String)>,
    pub(super) labels: Arc<str>,
    pub(super) labels_hash: u64,
    /// Attributes that are not labels.
    pub(super) metadata: Level,
    /// A `Resource` with what was known at receipt in front and nothing in it twice; empty unless lines need it.
    pub(super) enriched: Box<[u8]>,
    /// A limit that every record of this resource breaks.
    pub(super) offence: Option<Offence>,
}

impl Known {
    fn is(&self, bytes: &[u8], sidecar: &Sidecar) -> bool {
        *self.bytes == *bytes && self.enrichment == sidecar.enrichment
    }

    fn weight(&self) -> usize {
        let enrichment: usize = self.enrichment.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        let names = 8 * self.metadata.names.hashes.len();
        KNOWN_OVERHEAD_BYTES
            + self.bytes.len()
            + enrichment
            + self.labels.len()
            + self.enriched.len()
            + self.metadata.rendered.capacity()
            + names
    }
}

/// Resources seen lately.
#[derive(Default)]
pub(super) struct Cache {
    young: ByHash<Arc<Known>>,
    old: ByHash<Arc<Known>>,
    young_bytes: usize,
}

/// Hash of what the gateway knew at receipt; once per request.
pub(super) fn enrichment_seed(sidecar: &Sidecar) -> u64 {
    sidecar.enrichment.iter().fold(0, |seed, (name, value)| {
        let seed = xxh3_64_with_seed(name.as_bytes(), seed.wrapping_add(1));
        xxh3_64_with_seed(value.as_bytes(), seed)
    })
}

impl Cache {
    /// `seed` is [`enrichment_seed`] of the same sidecar.
    pub(super) fn get(
        &mut self,
        bytes: &[u8],
        sidecar: &Sidecar,
        seed: u64,
        options: &Options,
    ) -> Result<Arc<Known>, Odd> {
        let key = xxh3_64_with_seed(bytes, seed);
        if let Some(known) = self.young.get(&key)
            && known.is(bytes, sidecar)
        {
            return Ok(known.clone());
        }
        let known = match self.old.remove(&key) {
            Some(known) if known.is(bytes, sidecar) => known,
            _ => Arc::new(learn(bytes, sidecar, options)?),
        };
        self.keep(key, known.clone());
        Ok(known)
    }

    #[cold]
    fn keep(&mut self, key: u64, known: Arc<Known>) {
        let weight = known.weight();
        if weight > KEPT_RESOURCE_BYTES {
            return;
        }
        if self.young_bytes + weight > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += weight;
        if let Some(replaced) = self.young.insert(key, known) {
            self.young_bytes -= replaced.weight();
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.young.values().chain(self.old.values()).map(|k| k.weight()).sum()
    }
}

/// Renders labels and metadata of a resource not seen before.
#[cold]
fn learn(bytes: &[u8], sidecar: &Sidecar, options: &Options) -> Result<Known, Odd> {
    let limits = &options.limits;
    let resource = otlp::merged_resource(bytes)?;
    let mut values: [Option<Vec<u8>>; LABELS.len()] = Default::default();
    let mut metadata = Level::default();
    let mut attributes: Vec<&[u8]> = Vec::new();
    for field in Fields(&resource) {
        match field? {
            (1, Value::Bytes(kv)) => attributes.push(kv),
            (1, _) => return Err(Fault::Type.into()),
            _ => {}
        }
    }
    let is_journal = |kv: &&[u8]| key_value(kv).is_ok_and(|(name, _)| name == JOURNAL.as_bytes());
    let journal = attributes.iter().any(is_journal);
    let table = if journal { &JOURNAL_LABELS } else { &LABELS };
    let mut enriched = Vec::new();
    let enrichment: Vec<Vec<u8>> = sidecar.enrichment.iter().map(|(name, value)| encode(name, value)).collect();
    // What was known at receipt comes first and so is the weaker one, for labels and for metadata.
    for kv in enrichment.iter().map(Vec::as_slice).chain(attributes) {
        let (name, any) = key_value(kv)?;
        if options.line == Line::AlloyJson {
            put_bytes(&mut enriched, 1, kv);
        }
        match table.iter().position(|l| l.0.as_bytes() == name) {
            Some(i) => values[i] = Some(label_value(any)?),
            None => metadata.attribute(kv, limits.metadata_bytes)?,
        }
    }
    metadata.settle();
    let mut labels = Labels::default();
    for ((_, label), value) in table.iter().zip(&values).filter(|((_, label), _)| !label.is_empty()) {
        labels.set(label, value.as_deref().unwrap_or_default());
    }
    if !journal {
        labels.set("exporter", b"OTLP");
        let [name, namespace] = [&values[0], &values[1]].map(|v| v.as_deref().unwrap_or_default());
        labels.set("job", &job(namespace, name));
    }
    labels.under(&options.external_labels);
    let (labels, offence) = labels.finish(limits);
    Ok(Known {
        bytes: bytes.into(),
        enrichment: sidecar.enrichment.clone(),
        labels_hash: labels_hash(&labels),
        labels: labels.into(),
        metadata,
        enriched: enriched.into(),
        offence,
    })
}

/// What a stream is found and sharded by.
pub(super) fn labels_hash(labels: &str) -> u64 {
    xxh3_64(labels.as_bytes())
}

/// `service.namespace/service.name`, the name alone, or nothing without a name.
pub(super) fn job(namespace: &[u8], name: &[u8]) -> Vec<u8> {
    match (namespace.is_empty(), name.is_empty()) {
        (_, true) => Vec::new(),
        (true, false) => name.to_vec(),
        (false, false) => [namespace, b"/", name].concat(),
    }
}

fn label_value(any: &[u8]) -> Result<Vec<u8>, Odd> {
    let mut value = Vec::new();
    match lone_string(any) {
        Some(s) => value.extend_from_slice(s),
        None => text(&mut value, Any::parse(any)?, NESTED_LABEL_BYTES_MAX)?,
    }
    Ok(value)
}

/// A `KeyValue` with a string.
pub(super) fn encode(name: &str, value: &str) -> Vec<u8> {
    let (mut any, mut kv) = (Vec::new(), Vec::new());
    put_bytes(&mut any, 1, value.as_bytes());
    put_bytes(&mut kv, 1, name.as_bytes());
    put_bytes(&mut kv, 2, &any);
    kv
}
