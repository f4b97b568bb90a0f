//! The encoder: which records of a request go into which stream, and what becomes of the rest.
//!
//! Three loops in one another, as the request is nested: resources, scopes, records. Each passes on what it has worked out
//! once ([`Known`], then [`Shared`]) and can stop between two records and go on from there.

use super::entry::{self, Shared, Tools, Weight};
use super::metadata::Level;
use super::resource::{self, ByHash, Cache, Known};
use super::stream::{Snappy, Stream};
use super::value::Odd;
use super::{Added, Limits, Line, Offence, Offender, Options, Place, Push, alloy, merge};
use crate::Malformed;
use crate::envelope::Sidecar;
use crate::otlp;
use crate::wire::{Fault, Fields, Value, put_varint};
use std::sync::Arc;

#[path = "lines.rs"]
pub(super) mod lines;

/// Collects entries of one destination until [`Encoder::finish`] makes pushes of them.
pub struct Encoder {
    options: Options,
    cache: Cache,
    tools: Tools,
    snappy: Snappy,
    streams: Vec<Stream>,
    by_labels: ByHash<usize>,
    /// Cleared streams whose buffers are used again.
    spare: Vec<Stream>,
    scope: Level,
    bytes: usize,
    stamps: Vec<lines::Stamp>,
}

/// Cleared streams that are kept; each holds at most 256 KiB.
const SPARE_STREAMS: usize = 32;

/// One request on its way in.
struct Job<'a> {
    seq: u64,
    sidecar: &'a Sidecar,
    seed: u64,
    until_bytes: usize,
    added: Added,
    /// Bytes that the offenders hold; they count as if they were in the push.
    offenders_bytes: usize,
}

impl Encoder {
    pub fn new(options: Options) -> Encoder {
        Encoder {
            options,
            cache: Cache::default(),
            tools: Tools::default(),
            snappy: Snappy::default(),
            streams: Vec::new(),
            by_labels: ByHash::default(),
            spare: Vec::new(),
            scope: Level::default(),
            bytes: 0,
            stamps: Vec::new(),
        }
    }

    /// Adds a whole `ExportLogsServiceRequest`, however large it becomes. Never panics, whatever the bytes.
    pub fn add(&mut self, seq: u64, sidecar: &Sidecar, request: &[u8]) -> Added {
        self.add_from(seq, sidecar, request, Place::default(), usize::MAX)
    }

    /// Adds a request from `from` on until [`Encoder::bytes`] reaches `until_bytes`; then [`Added::next`] says where to
    /// go on. An empty encoder always takes at least one record.
    pub fn add_from(&mut self, seq: u64, sidecar: &Sidecar, request: &[u8], from: Place, until_bytes: usize) -> Added {
        let seed = resource::enrichment_seed(sidecar);
        let until_bytes = until_bytes.max(1);
        let mut job = Job { seq, sidecar, seed, until_bytes, added: Added::default(), offenders_bytes: 0 };
        match self.request(&mut job, request, from) {
            Ok(next) => job.added.next = next,
            Err(odd) => job.added.malformed = Some(locate(request, odd)),
        }
        job.added
    }

    /// Raw size of what [`Encoder::finish`] would send.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(|s| s.count == 0)
    }

    fn request(&mut self, job: &mut Job, request: &[u8], from: Place) -> Result<Option<Place>, Odd> {
        let mut fields = Fields(request.get(from.resource..).ok_or(Fault::Short)?);
        let mut inner = (from.scope, from.record);
        loop {
            let resource = request.len() - fields.0.len();
            match fields.next() {
                None => return Ok(None),
                Some(field) => match field? {
                    (1, Value::Bytes(b)) => {
                        let (scope, record) = std::mem::take(&mut inner);
                        if let Some((scope, record)) = self.resource_logs(job, b, scope, record)? {
                            return Ok(Some(Place { resource, scope, record }));
                        }
                    }
                    (1, _) => return Err(Fault::Type.into()),
                    _ => {}
                },
            }
        }
    }

    fn resource_logs(
        &mut self,
        job: &mut Job,
        b: &[u8],
        from: usize,
        record: usize,
    ) -> Result<Option<(usize, usize)>, Odd> {
        let mut merged = Vec::new();
        let resource = singular(b, &mut merged)?;
        let known = self.cache.get(resource, job.sidecar, job.seed, &self.options)?;
        let mut fields = Fields(b.get(from..).ok_or(Fault::Short)?);
        let mut record = record;
        loop {
            let scope = b.len() - fields.0.len();
            match fields.next() {
                None => return Ok(None),
                Some(field) => match field? {
                    (2, Value::Bytes(b)) => {
                        if let Some(record) = self.scope_logs(job, b, &known, std::mem::take(&mut record))? {
                            return Ok(Some((scope, record)));
                        }
                    }
                    (2, _) => return Err(Fault::Type.into()),
                    _ => {}
                },
            }
        }
    }

    fn scope_logs(&mut self, job: &mut Job, b: &[u8], known: &Arc<Known>, from: usize) -> Result<Option<usize>, Odd> {
        let mut merged = Vec::new();
        let scope = singular(b, &mut merged)?;
        let mut level = std::mem::take(&mut self.scope);
        let done = render_scope(&mut level, scope, &self.options.limits).and_then(|()| {
            let filtered = known.metadata.overridden_by(&level).then(|| known.metadata.without(&level));
            let resource = filtered.as_ref().unwrap_or(&known.metadata);
            let shared = Shared::new(resource, &level, job.sidecar.received_at);
            self.records(job, b, known, scope, &shared, from)
        });
        self.scope = level;
        done
    }

    fn records(
        &mut self,
        job: &mut Job,
        b: &[u8],
        known: &Arc<Known>,
        scope: &[u8],
        shared: &Shared,
        from: usize,
    ) -> Result<Option<usize>, Odd> {
        let mut fields = Fields(b.get(from..).ok_or(Fault::Short)?);
        let mut stream = None;
        loop {
            let at = b.len() - fields.0.len();
            let record = match fields.next() {
                None => return Ok(None),
                Some(field) => match field? {
                    (2, Value::Bytes(record)) => record,
                    (2, _) => return Err(Fault::Type.into()),
                    _ => continue,
                },
            };
            if self.bytes.saturating_add(job.offenders_bytes) >= job.until_bytes {
                return Ok(Some(at));
            }
            let offence = match self.options.line {
                Line::Body => self.body_record(&mut job.added, record, known, shared, &mut stream),
                Line::AlloyJson => self.alloy_record(job, record, known, scope),
            };
            if let Err((offence, labels, line)) = offence {
                let offender = Offender {
                    seq: job.seq,
                    reason: offence.reason,
                    detail: offence.detail,
                    labels,
                    line,
                    known: known.clone(),
                    scope: scope.into(),
                    record: record.to_vec(),
                };
                job.offenders_bytes += offender.weight();
                job.added.offenders.push(offender);
            }
        }
    }

    /// One record whose line is its body. `stream`: where its siblings went.
    #[inline]
    fn body_record(
        &mut self,
        added: &mut Added,
        record: &[u8],
        known: &Arc<Known>,
        shared: &Shared,
        stream: &mut Option<usize>,
    ) -> Result<(), Refused> {
        let index = match *stream {
            Some(index) => index,
            None => *stream.insert(self.stream(&known.labels, known.labels_hash)),
        };
        let Encoder { options, tools, streams, snappy, bytes, .. } = self;
        let limits = &options.limits;
        let Some(stream) = streams.get_mut(index) else { return Ok(()) };
        let before = stream.entries.len();
        let out = &mut stream.entries;
        let mut weight = entry::entry(out, record, shared, tools, limits);
        if weight == Err(Odd::Twice) {
            out.truncate(before);
            weight = merge::entry(out, record, shared, tools, limits);
        }
        match weight {
            Ok(weight) if known.offence.is_none() && weight.fits(limits) => {
                *bytes += out.len() - before;
                added.entries += 1;
                added.cut += u32::from(weight.cut);
                stream.count += 1;
                stream.pack(snappy);
                Ok(())
            }
            weight => {
                let offence = offence(weight, known, limits);
                let line = entry::line_of(&out[before..]);
                out.truncate(before);
                Err((offence, known.labels.clone(), line))
            }
        }
    }

    /// One record whose line holds everything. See [`alloy`].
    fn alloy_record(&mut self, job: &mut Job, record: &[u8], known: &Known, scope: &[u8]) -> Result<(), Refused> {
        let received_at = job.sidecar.received_at;
        let made = alloy::make(record, &known.enriched, scope, received_at, &self.options)
            .map_err(|odd| (offence(Err(odd), known, &self.options.limits), known.labels.clone(), Vec::new()))?;
        let labels: Arc<str> = made.labels.into();
        if let Some(offence) = made.offence {
            return Err((offence, labels, made.line));
        }
        let index = self.stream(&labels, resource::labels_hash(&labels));
        let Some(stream) = self.streams.get_mut(index) else { return Ok(()) };
        let before = stream.entries.len();
        entry::line_entry(&mut stream.entries, &made.line, made.timestamp);
        self.bytes += stream.entries.len() - before;
        stream.count += 1;
        stream.pack(&mut self.snappy);
        job.added.entries += 1;
        job.added.cut += u32::from(made.cut);
        Ok(())
    }

    /// The stream of a label set, made if it is not there.
    fn stream(&mut self, labels: &Arc<str>, hash: u64) -> usize {
        let known = self.by_labels.get(&hash).copied();
        if let Some(index) = known
            && self.streams.get(index).is_some_and(|s| s.labels == *labels)
        {
            return index;
        }
        // Two label sets with one 64-bit hash: the later one is found by looking at all.
        if known.is_some()
            && let Some(index) = self.streams.iter().position(|s| s.labels == *labels)
        {
            return index;
        }
        let mut stream = self.spare.pop().unwrap_or_default();
        (stream.labels, stream.hash) = (labels.clone(), hash);
        self.bytes += labels.len();
        self.streams.push(stream);
        self.by_labels.entry(hash).or_insert(self.streams.len() - 1);
        self.streams.len() - 1
    }

    /// Makes pushes of everything added since the last call, and forgets it.
    ///
    /// A stream goes to shard `hash(labels) % shards`, so that its order is kept however many shards there are. Streams
    /// whose labels `keep` refuses are left out (and forgotten too): add the same frames again to send those. Shards
    /// without entries have no push. Same input, same bytes.
    pub fn finish(&mut self, shards: usize, keep: &dyn Fn(&str) -> bool) -> Vec<Push> {
        let shards = shards.max(1);
        let mut by_shard: Vec<Vec<&Stream>> = vec![Vec::new(); shards];
        for stream in self.streams.iter().filter(|s| s.count > 0 && keep(&s.labels)) {
            by_shard[(stream.hash % shards as u64) as usize].push(stream);
        }
        let snappy = &mut self.snappy;
        let pushes = by_shard.iter().enumerate().filter(|(_, streams)| !streams.is_empty());
        let pushes = pushes.map(|(shard, streams)| push(shard, streams, snappy)).collect();
        self.bytes = 0;
        self.by_labels.clear();
        self.tools.severities.forget_long();
        for mut stream in self.streams.drain(..) {
            if self.spare.len() < SPARE_STREAMS {
                stream.clear();
                self.spare.push(stream);
            }
        }
        pushes
    }
}

/// Why a record is in no push, with its labels and its line.
type Refused = (Offence, Arc<str>, Vec<u8>);

impl Weight {
    fn fits(&self, limits: &Limits) -> bool {
        self.entries <= limits.metadata_entries && self.size <= limits.metadata_bytes
    }
}

#[cold]
fn offence(weight: Result<Weight, Odd>, known: &Known, limits: &Limits) -> Offence {
    let weight = match weight {
        Err(Odd::Fault(fault)) => return Offence { reason: "malformed", detail: fault.text().to_owned() },
        Err(Odd::Twice) => return Offence { reason: "malformed", detail: "a singular field appears twice".to_owned() },
        Ok(weight) => weight,
    };
    if let Some(offence) = &known.offence {
        return offence.clone();
    }
    if weight.entries > limits.metadata_entries {
        let detail = format!("{} pairs of metadata, the limit is {}", weight.entries, limits.metadata_entries);
        return Offence { reason: "structured_metadata_too_many", detail };
    }
    let detail = format!("{} bytes of metadata, the limit is {}", weight.size, limits.metadata_bytes);
    Offence { reason: "structured_metadata_too_large", detail }
}

/// Lays streams side by side under one length.
fn push(shard: usize, streams: &[&Stream], snappy: &mut Snappy) -> Push {
    let heads: Vec<Vec<u8>> = streams.iter().map(|s| s.head()).collect();
    let raw_bytes = heads.iter().map(Vec::len).sum::<usize>() + streams.iter().map(|s| s.raw_bytes()).sum::<usize>();
    let mut body = Vec::new();
    put_varint(&mut body, raw_bytes as u64);
    for (head, stream) in heads.iter().zip(streams) {
        Snappy::literal(head, &mut body);
        stream.write(snappy, &mut body);
    }
    Push {
        shard,
        body,
        raw_bytes,
        entries: streams.iter().map(|s| s.count).sum(),
        streams: streams.iter().map(|s| s.labels.to_string()).collect(),
    }
}

/// Field 1 of `ResourceLogs` or `ScopeLogs`, wherever it stands. If it is there more than once, all laid end to end in
/// `merged`: that is how protobuf merges messages.
#[inline]
fn singular<'a>(b: &'a [u8], merged: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    let mut found: Option<&[u8]> = None;
    for field in Fields(b) {
        match field? {
            (1, Value::Bytes(b)) => match found {
                None => found = Some(b),
                Some(first) => {
                    if merged.is_empty() {
                        merged.extend_from_slice(first);
                    }
                    merged.extend_from_slice(b);
                }
            },
            (1, _) => return Err(Fault::Type),
            _ => {}
        }
    }
    Ok(if merged.is_empty() { found.unwrap_or(&[]) } else { merged })
}

/// Attributes of a scope, and its name and version as `scope_name` and `scope_version`.
#[inline]
fn render_scope(level: &mut Level, scope: &[u8], limits: &Limits) -> Result<(), Odd> {
    level.clear();
    match read_scope(level, scope, limits) {
        Err(Odd::Twice) => {
            level.clear();
            read_scope(level, &otlp::merged_scope(scope)?, limits)?;
        }
        done => done?,
    }
    level.settle();
    Ok(())
}

fn read_scope(level: &mut Level, scope: &[u8], limits: &Limits) -> Result<(), Odd> {
    let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(scope) {
        match field? {
            (1, Value::Bytes(b)) => name = b,
            (2, Value::Bytes(b)) => version = b,
            (3, Value::Bytes(kv)) => level.attribute(kv, limits.metadata_bytes)?,
            (1..=3, _) => return Err(Fault::Type.into()),
            _ => {}
        }
    }
    for (key, value) in [("scope_name", name), ("scope_version", version)] {
        if !value.is_empty() {
            level.plain(key, value);
        }
    }
    Ok(())
}

/// Where a request that turned out malformed is damaged. Reads it once more, since the hot path keeps no positions.
#[cold]
fn locate(request: &[u8], odd: Odd) -> Malformed {
    let what = match odd {
        Odd::Fault(fault) => fault.text(),
        Odd::Twice => "a singular field appears twice",
    };
    let unknown = Malformed { part: "ExportLogsServiceRequest", what, at: 0 };
    otlp::check(otlp::Request::Logs, request).err().unwrap_or(unknown)
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
