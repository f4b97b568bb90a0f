//! The load: workers who each take the next due batch, stamp it, send it and book the answer.
//!
//! At a fixed rate the due times are a railway timetable: batch i leaves at i x batch / rate whether or not its predecessors have
//! arrived, and latency counts from the timetable, so a stalled receiver cannot hide its delay (no coordinated omission). At
//! saturation a worker sends again as soon as it has its answer. Weakness: calls in flight are bounded by `connections` x
//! `in_flight`; beyond that the timetable slips, which the summary says as `late`.

use crate::client::{Line, Target};
use crate::ledger::{self, Outcome, Writer};
use crate::payload::{Shape, Template, VARIANTS};
use crate::{Compression, Endpoint, Protocol, Signal};
use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// Latencies above this are booked as this, microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;
/// A refused worker at saturation waits what the receiver asks, at most this.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// Different messages of broken calls that are remembered.
const REASONS_MAX: usize = 50;

#[derive(Clone, Debug)]
pub struct Options {
    pub endpoint: Endpoint,
    pub signal: Signal,
    /// Records a request.
    pub batch: usize,
    pub body_bytes: usize,
    /// Records a second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
    pub connections: usize,
    /// Calls in flight a connection (HTTP/1.1: always 1).
    pub in_flight: usize,
    pub duration: Duration,
    /// Stop after this many records have been sent.
    pub records: Option<u64>,
    pub compression: Compression,
    /// Deadline of one call.
    pub timeout: Duration,
    /// Number of the first connection's sender; the others follow.
    pub first_sender: u32,
    pub out: Option<PathBuf>,
    /// A line on stderr every five seconds.
    pub progress: bool,
}

impl Options {
    pub fn new(endpoint: Endpoint, signal: Signal) -> Options {
        Options {
            endpoint,
            signal,
            batch: 100,
            body_bytes: 95,
            rate: None,
            connections: 2,
            in_flight: 4,
            duration: Duration::from_secs(10),
            records: None,
            compression: Compression::None,
            timeout: Duration::from_secs(10),
            first_sender: 1,
            out: None,
            progress: false,
        }
    }
}

/// Microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub calls: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    fn of(h: &Histogram<u64>) -> Latency {
        let at = |q| h.value_at_quantile(q);
        Latency { calls: h.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: h.max() }
    }
}

/// Records a second, one row each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    pub acked: u64,
    pub refused: u64,
    pub broken: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub elapsed_s: f64,
    /// Records by outcome.
    pub acked: u64,
    pub refused: u64,
    pub broken: u64,
    /// Calls by outcome; connects that failed before anything was sent.
    pub calls_acked: u64,
    pub calls_refused: u64,
    pub calls_broken: u64,
    pub connects_failed: u64,
    /// Refused calls that carried RetryInfo or Retry-After.
    pub refused_with_retry: u64,
    pub refusals_by_code: BTreeMap<u16, u64>,
    pub broken_by_reason: BTreeMap<String, u64>,
    /// Body bytes offered, after compression.
    pub bytes: u64,
    pub offered_rate: Option<f64>,
    /// Records sent a second, whatever the answer.
    pub sent_rate: f64,
    pub acked_rate: f64,
    /// Due batches that had not left when the time was over: the sender, or the receiver's answers, were too slow.
    pub late: u64,
    pub acked_latency_us: Latency,
    pub refused_latency_us: Latency,
    pub seconds: Vec<Second>,
}

struct Books {
    summary: Summary,
    acked: Histogram<u64>,
    refused: Histogram<u64>,
    ledger: Writer,
}

struct Shared {
    options: Options,
    target: Target,
    books: Mutex<Books>,
    turns: AtomicU64,
    turns_max: u64,
    start: Instant,
    stop: watch::Receiver<bool>,
}

/// Runs the load until its time, its records, or `stop` (turned true) end it. Errors: the ledger file.
pub async fn run(options: Options, stop: watch::Receiver<bool>) -> io::Result<Summary> {
    let shared = Arc::new(Shared::new(options, stop)?);
    let o = &shared.options;
    let in_flight = if o.endpoint.protocol == Protocol::Http { 1 } else { o.in_flight.max(1) };
    let each = (VARIANTS / (o.connections * in_flight).max(1)).max(1);
    let shape = Shape { signal: o.signal, batch: o.batch.max(1), body_bytes: o.body_bytes };
    let mut workers = tokio::task::JoinSet::new();
    for connection in 0..o.connections.max(1) {
        let line = Arc::new(Line::new(shared.target));
        let next_seq = Arc::new(AtomicU64::new(0));
        for call in 0..in_flight {
            let first = (connection * in_flight + call) * each;
            let worker = Worker {
                shared: shared.clone(),
                line: line.clone(),
                sender: o.first_sender.wrapping_add(connection as u32),
                next_seq: next_seq.clone(),
                templates: (0..each).map(|i| Template::build(shape, (first + i) % VARIANTS)).collect(),
                buffer: BytesMut::new(),
            };
            workers.spawn(worker.work());
        }
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut ticks = 0;
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                None => break,
                Some(Err(e)) => return Err(io::Error::other(format!("a worker died: {e}"))),
                Some(Ok(())) => {}
            },
            _ = tick.tick() => {
                ticks += 1;
                shared.tick(ticks);
            }
        }
    }
    drop(workers);
    shared.finish()
}

impl Shared {
    fn new(options: Options, stop: watch::Receiver<bool>) -> io::Result<Shared> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(io::Error::other);
        let mut ledger = Writer::create(options.out.as_deref())?;
        ledger.write(&ledger::Line::Begin {
            version: 1,
            endpoint: options.endpoint.to_string(),
            signal: options.signal,
            batch: options.batch,
            started_ms: unix_ns() / 1_000_000,
        });
        let summary = Summary { offered_rate: options.rate, ..Summary::default() };
        let batch = options.batch.max(1) as u64;
        let by_rate = options.rate.map(|r| (r * options.duration.as_secs_f64() / batch as f64).ceil() as u64);
        let by_records = options.records.map(|r| r.div_ceil(batch));
        Ok(Shared {
            target: Target {
                protocol: options.endpoint.protocol,
                address: options.endpoint.address,
                signal: options.signal,
                compression: options.compression,
            },
            books: Mutex::new(Books { summary, acked: histogram()?, refused: histogram()?, ledger }),
            turns: AtomicU64::new(0),
            turns_max: by_rate.unwrap_or(u64::MAX).min(by_records.unwrap_or(u64::MAX)),
            start: Instant::now(),
            stop,
            options,
        })
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self) -> bool {
        *self.stop.borrow() || self.start.elapsed() >= self.options.duration
    }

    /// Resolves when the load is to end.
    async fn end(&self) {
        let mut stop = self.stop.clone();
        let stopped = async {
            let nobody_can_stop_us = stop.wait_for(|s| *s).await.is_err();
            if nobody_can_stop_us {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(self.start + self.options.duration) => {}
            () = stopped => {}
        }
    }

    fn book(&self, sender: u32, from: u64, count: u64, bytes: u64, since: Instant, outcome: &Outcome) {
        let now = Instant::now();
        let us = (now.saturating_duration_since(since).as_micros() as u64).clamp(1, LATENCY_US_MAX);
        let mut books = self.books();
        let Books { summary: s, acked, refused, ledger } = &mut *books;
        ledger.book(sender, from, count, outcome);
        s.bytes += bytes;
        let row = (now - self.start).as_secs() as usize;
        if s.seconds.len() <= row {
            s.seconds.resize(row + 1, Second::default());
        }
        match outcome {
            Outcome::Acked => {
                (s.acked, s.calls_acked) = (s.acked + count, s.calls_acked + 1);
                s.seconds[row].acked += count;
                acked.saturating_record(us);
            }
            Outcome::Refused(refusal) => {
                (s.refused, s.calls_refused) = (s.refused + count, s.calls_refused + 1);
                s.seconds[row].refused += count;
                s.refused_with_retry += u64::from(refusal.retry_after_ms.is_some());
                *s.refusals_by_code.entry(refusal.code).or_default() += 1;
                refused.saturating_record(us);
            }
            Outcome::Broken(why) => {
                (s.broken, s.calls_broken) = (s.broken + count, s.calls_broken + 1);
                s.seconds[row].broken += count;
                let known = s.broken_by_reason.len() < REASONS_MAX || s.broken_by_reason.contains_key(why);
                *s.broken_by_reason.entry(if known { why.clone() } else { "other".into() }).or_default() += 1;
            }
        }
    }

    fn tick(&self, ticks: u64) {
        let mut books = self.books();
        books.ledger.flush();
        if self.options.progress && ticks % 5 == 1 && ticks > 1 {
            let s = &books.summary;
            let _ = writeln!(
                io::stderr(),
                "{:4} s: acked {}, refused {}, broken {}, ack p99 {:.1} ms",
                self.start.elapsed().as_secs(),
                s.acked,
                s.refused,
                s.broken,
                books.acked.value_at_quantile(0.99) as f64 / 1e3
            );
        }
    }

    fn finish(&self) -> io::Result<Summary> {
        let mut books = self.books();
        let elapsed = self.start.elapsed().as_secs_f64();
        let (acked, refused) = (Latency::of(&books.acked), Latency::of(&books.refused));
        let s = &mut books.summary;
        s.elapsed_s = elapsed;
        s.sent_rate = (s.acked + s.refused + s.broken) as f64 / elapsed.max(1e-9);
        s.acked_rate = s.acked as f64 / elapsed.max(1e-9);
        if self.options.rate.is_some() {
            let calls = s.calls_acked + s.calls_refused + s.calls_broken;
            s.late = self.turns_max.saturating_sub(calls);
        }
        (s.acked_latency_us, s.refused_latency_us) = (acked, refused);
        let summary = s.clone();
        let mut ledger = std::mem::replace(&mut books.ledger, Writer::create(None)?);
        ledger.flush();
        ledger.write(&ledger::Line::End(Box::new(summary.clone())));
        ledger.finish()?;
        Ok(summary)
    }
}

struct Worker {
    shared: Arc<Shared>,
    line: Arc<Line>,
    sender: u32,
    next_seq: Arc<AtomicU64>,
    templates: Vec<Template>,
    buffer: BytesMut,
}

impl Worker {
    async fn work(mut self) {
        let shared = self.shared.clone();
        for round in 0usize.. {
            let turn = shared.turns.fetch_add(1, Relaxed);
            if turn >= shared.turns_max || shared.over() {
                return;
            }
            let due = shared.options.rate.map(|r| {
                shared.start + Duration::from_secs_f64(turn as f64 * shared.options.batch as f64 / r.max(1e-9))
            });
            let connect = async {
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                self.line.channel(|_| shared.books().summary.connects_failed += 1).await
            };
            let channel = tokio::select! {
                channel = connect => channel,
                () = shared.end() => return,
            };
            self.send(channel, round, due).await;
        }
    }

    /// From here on the sequences are taken, and every one ends up in the ledger.
    async fn send(&mut self, mut channel: crate::client::Channel, round: usize, due: Option<Instant>) {
        let shared = self.shared.clone();
        let template = round % self.templates.len();
        let count = self.templates[template].records();
        let from = self.next_seq.fetch_add(count, Relaxed);
        let body = self.body(template, from);
        let bytes = body.len() as u64;
        let since = due.unwrap_or_else(Instant::now);
        let outcome = channel.export(&shared.target, body.clone(), shared.options.timeout).await;
        shared.book(self.sender, from, count, bytes, since, &outcome);
        if let Ok(buffer) = body.try_into_mut() {
            self.buffer = buffer; // the transport has let go of it: no allocation for the next one
        }
        match outcome {
            Outcome::Broken(_) => {} // an HTTP/1.1 channel is dropped with its connection; HTTP/2 finds out at `ready`
            Outcome::Refused(refusal) => {
                self.line.put_back(channel).await;
                if due.is_none() {
                    let asked = refusal.retry_after_ms.map_or(PAUSE, Duration::from_millis).min(PAUSE_MAX);
                    tokio::select! {
                        () = tokio::time::sleep(asked) => {}
                        () = shared.end() => {}
                    }
                }
            }
            Outcome::Acked => self.line.put_back(channel).await,
        }
    }

    /// The stamped request as it goes on the wire, in the buffer of the last one if that is free.
    fn body(&mut self, template: usize, from: u64) -> Bytes {
        let target = &self.shared.target;
        let template = &self.templates[template];
        let framing = if target.protocol == Protocol::Grpc { 5 } else { 0 };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&[0; 5][..framing]);
        buffer.extend_from_slice(&template.bytes);
        template.stamp(&mut buffer, framing, self.sender, from, unix_ns());
        if target.compression != Compression::None {
            let packed = compress(target.compression, &buffer[framing..]);
            buffer.truncate(framing);
            buffer.extend_from_slice(&packed);
        }
        if framing > 0 {
            let length = (buffer.len() - framing) as u32;
            buffer[0] = u8::from(target.compression != Compression::None);
            buffer[1..5].copy_from_slice(&length.to_be_bytes());
        }
        buffer.freeze()
    }
}

fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let packed = match compression {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        Compression::Zstd => zstd::bulk::compress(bytes, 1),
    };
    packed.unwrap_or_default() // writing to memory does not fail; an empty request would show at once in the counts
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
