//! The one loop of every destination: read in log order, transform, send, try again for ever, move the cursor.
//!
//! Image: a postman with a bag. He takes the next letters off the pile (a *batch*), sorts them by street (*pushes*), rings at each
//! door until somebody signs, and only then tells the office to cross them off. Letters for a street that is closed for an hour go
//! into a side pocket (*parked*) so that the other streets need not wait; the office crosses off nothing beyond them until they
//! are delivered or, after their patience, laid in the lost-letters cupboard (*quarantine*).
//!
//! The transform is a pure function of records and configuration, so a crash repeats bytes and invents none.
//! Weakness: a batch is a barrier; one slow push holds the next batch of the same destination (not of any other).

use crate::destination::answer::Answer;
use crate::destination::loki::LokiOut;
use crate::destination::otlp::{self, OtlpOut};
use crate::destination::pass::{Belt, Counts};
use crate::destination::retry::Backoff;
use crate::seam::Signal;
use crate::store::{Ledger, QuarantineItem, Quarantined};
use crate::telemetry::Request;
use bytes::Bytes;
use futures_util::future::join_all;
use model::envelope;
use model::loki::Place;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wal::{DestinationId, Frame, Log};

/// Records that already wait on the disk are sent a little later in fewer, larger pushes: nobody waits for the answer.
const LINGER: Duration = Duration::from_millis(200);
/// Log bytes that make a batch.
pub const BATCH_BYTES: usize = 1 << 20;
/// A push below this size is not worth another connection's round trip. Unit: uncompressed bytes.
const BYTES_A_SHARD: usize = 256 << 10;
/// What one round of pushes holds before it is sent, however large a request was. Unit: uncompressed bytes.
const PUSH_BYTES: usize = 4 << 20;
/// Most pushes of one batch in flight.
const SHARDS_MAX: usize = 4;
/// Batches that may lie behind a parked one before the loop waits for it.
const BELT_MAX: usize = 512;
/// Pause after a failed read of the log.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A protocol.
pub enum Out {
    Loki(Box<LokiOut>),
    Otlp(Box<OtlpOut>),
}

/// Everything one destination needs for one signal.
pub struct Runner {
    pub id: DestinationId,
    pub signal: Signal,
    pub log: Log,
    pub rounds: watch::Receiver<u64>,
    pub out: Out,
    pub ledger: Arc<Ledger>,
    pub quarantine: Quarantined,
    pub stream_patience: Duration,
    pub stop: watch::Receiver<bool>,
}

/// Streams of one batch that the backend limits, waiting on their own.
struct Parked {
    batch: u64,
    seqs: Range<u64>,
    streams: BTreeSet<String>,
    since: Instant,
    due: Instant,
    backoff: Backoff,
}

/// A part of a batch still to be sent: frames by index, and which streams of them.
struct Work {
    frames: Range<usize>,
    streams: Option<BTreeSet<String>>,
}

/// A request that is on its way: its bytes and which part of the batch it came from.
struct Push {
    body: Bytes,
    items: u64,
    streams: Vec<String>,
    frames: Range<usize>,
}

/// What is left to do after a push.
enum Settled {
    Done(Counts),
    /// Send the named streams later, the rest of this push now.
    Limited(Vec<String>, Duration),
    /// Too large or refused as a whole: in smaller parts.
    Split {
        reason: &'static str,
        text: String,
    },
    Quarantine {
        reason: &'static str,
        text: String,
    },
    Stopped,
}

impl Runner {
    /// Runs until `stop` turns true. Whatever was not finished is read again by the next start.
    pub async fn run(mut self) {
        let from = self.log.cursor(&self.id).map_or(0, |c| c.seq);
        let mut reader = self.log.reader(from);
        let (mut belt, mut parked) = (Belt::default(), Vec::new());
        while !*self.stop.borrow() {
            self.retry_parked(&mut belt, &mut parked).await;
            self.step(&mut belt);
            if belt.len() >= BELT_MAX {
                self.wait(&parked, false).await;
                continue;
            }
            match reader.read(BATCH_BYTES) {
                Ok(batch) if batch.frames.is_empty() && batch.skipped.is_empty() => self.wait(&parked, true).await,
                Ok(batch) => {
                    self.skip_damage(&batch, &mut belt);
                    self.deliver(&batch.frames, &mut belt, &mut parked).await;
                    self.step(&mut belt);
                }
                Err(e) => {
                    tracing::error!(destination = %self.id, signal = %self.signal, error = %e, "reading the log failed; trying again");
                    self.ledger.failed(format!("reading the log: {e}"), READ_AGAIN);
                    self.pause(READ_AGAIN).await;
                }
            }
        }
    }

    fn skip_damage(&self, batch: &wal::ReadBatch, belt: &mut Belt) {
        for gap in &batch.skipped {
            tracing::error!(destination = %self.id, signal = %self.signal, from = gap.from, to = gap.to, "unreadable records skipped");
            let id = belt.place(gap.to, gap.items);
            belt.finish(id, Counts::damaged(gap.items));
        }
    }

    /// Until there is more to read, a parked stream is due, or the end.
    async fn wait(&mut self, parked: &[Parked], linger: bool) {
        self.ledger.idle();
        let due = parked.iter().map(|p| p.due).min();
        let parked_due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.stop.changed() => {}
            () = parked_due => {}
            _ = self.rounds.changed(), if linger => {
                if self.log.waiting(&self.id).bytes < BATCH_BYTES as u64 {
                    tokio::select! { _ = self.stop.changed() => {} () = tokio::time::sleep(LINGER) => {} }
                }
            }
        }
    }

    async fn pause(&mut self, how_long: Duration) {
        tokio::select! { _ = self.stop.changed() => {} () = tokio::time::sleep(how_long) => {} }
    }

    fn step(&self, belt: &mut Belt) {
        if let Some(step) = belt.step() {
            self.ledger.pass(&self.log, &step);
        }
    }

    /// Sends a batch, part by part, until every part is sent, parked or in quarantine.
    async fn deliver(&mut self, frames: &[Frame], belt: &mut Belt, parked: &mut Vec<Parked>) {
        let Some(last) = frames.last() else { return };
        let mine = |f: &Frame| !f.is_done(&self.id);
        let items = frames.iter().filter(|f| mine(f)).map(|f| u64::from(f.items)).sum();
        // The batch itself is one open piece until all its parts are on their way.
        let batch = belt.place(last.seq + 1, items);
        let mut work = vec![Work { frames: 0..frames.len(), streams: None }];
        let mut first = true;
        while let Some(next) = work.pop() {
            let held = if first { parked_streams(parked) } else { BTreeSet::new() };
            let (rounds, hit) = self.transform(frames, &next, &held, first, belt, batch).await;
            first = false;
            if hit {
                belt.hold(batch);
                parked.push(Parked::new(batch, frames[0].seq..last.seq + 1, held, self.first_due()));
            }
            for pushes in rounds {
                let settled = self.send_all(&pushes).await;
                for (push, outcome) in pushes.into_iter().zip(settled) {
                    if !self.conclude(push, outcome, frames, &mut work, belt, batch, parked).await {
                        return;
                    }
                }
            }
        }
        belt.finish(batch, Counts::default());
    }

    /// What follows from the end of one push. False: stopped, nothing more is to be done.
    #[expect(clippy::too_many_arguments, reason = "the state of one batch; it lives no longer than the loop above")]
    async fn conclude(
        &mut self,
        push: Push,
        outcome: Settled,
        frames: &[Frame],
        work: &mut Vec<Work>,
        belt: &mut Belt,
        batch: u64,
        parked: &mut Vec<Parked>,
    ) -> bool {
        {
            {
                match outcome {
                    Settled::Done(counts) => belt.count(batch, counts),
                    Settled::Limited(streams, pause) => {
                        let limited: BTreeSet<String> = streams.into_iter().collect();
                        let rest: BTreeSet<String> =
                            push.streams.iter().filter(|s| !limited.contains(*s)).cloned().collect();
                        if !rest.is_empty() {
                            work.push(Work { frames: push.frames.clone(), streams: Some(rest) });
                        }
                        let seqs = frames[push.frames.start].seq..frames[push.frames.end - 1].seq + 1;
                        belt.hold(batch);
                        parked.push(Parked::new(batch, seqs, limited, Instant::now() + pause));
                    }
                    Settled::Split { .. } if push.frames.len() > 1 => {
                        let middle = push.frames.start + push.frames.len() / 2;
                        let streams =
                            (!push.streams.is_empty()).then(|| push.streams.iter().cloned().collect::<BTreeSet<_>>());
                        // Popped from the end: the first half goes first.
                        work.push(Work { frames: middle..push.frames.end, streams: streams.clone() });
                        work.push(Work { frames: push.frames.start..middle, streams });
                    }
                    Settled::Split { reason, text } | Settled::Quarantine { reason, text } => {
                        let seq = frames[push.frames.start].seq;
                        let kind = if push.streams.is_empty() { "otlp" } else { "loki" };
                        let item = QuarantineItem::new(&self.id, self.signal, seq, reason, &text, kind)
                            .with_labels(push.streams.join(" "))
                            .with_payload(push.body.clone(), push.items);
                        if !self.to_quarantine(item).await {
                            return false;
                        }
                        belt.count(batch, Counts::quarantined(reason, push.items, push.body.len() as u64));
                    }
                    Settled::Stopped => return false,
                }
            }
        }
        true
    }

    /// Part of a batch to requests. The second value says that streams in `held` were met and left out.
    async fn transform(
        &mut self,
        frames: &[Frame],
        work: &Work,
        held: &BTreeSet<String>,
        report: bool,
        belt: &mut Belt,
        batch: u64,
    ) -> (Vec<Vec<Push>>, bool) {
        let (id, signal) = (self.id.clone(), self.signal);
        let mut bad = Vec::new();
        let mut rounds = Vec::new();
        let hit = Cell::new(false);
        match &mut self.out {
            Out::Otlp(_) => {
                let mut pushes = Vec::new();
                for (i, frame) in frames.iter().enumerate().take(work.frames.end).skip(work.frames.start) {
                    if frame.is_done(&id) {
                        continue;
                    }
                    match envelope::open(&frame.payload) {
                        Ok((_, _, raw)) => pushes.push(Push {
                            body: frame.payload.slice_ref(raw),
                            items: u64::from(frame.items),
                            streams: Vec::new(),
                            frames: i..i + 1,
                        }),
                        Err(e) => bad.push(
                            QuarantineItem::new(&id, signal, frame.seq, "malformed", &e.to_string(), "frame")
                                .with_payload(frame.payload.clone(), u64::from(frame.items)),
                        ),
                    }
                }
                rounds.push(merge(pushes));
            }
            Out::Loki(loki) => {
                let keep = |labels: &str| match (held.contains(labels), &work.streams) {
                    (true, _) => {
                        hit.set(true);
                        false
                    }
                    (false, Some(only)) => only.contains(labels),
                    (false, None) => true,
                };
                for frame in frames[work.frames.clone()].iter().filter(|f| !f.is_done(&id)) {
                    let mut place = Some(Place::default());
                    while let Some(from) = place {
                        place = encode(loki, frame, from, PUSH_BYTES, &id, signal, &mut bad);
                        if place.is_some() {
                            // Full in the middle of a request: what is there goes first, the rest in the next round.
                            rounds.push(pushes_of(loki, &keep, &work.frames));
                        }
                    }
                }
                rounds.push(pushes_of(loki, &keep, &work.frames));
            }
        }
        if report {
            // A part that is sent again meets the same offenders again; they are in quarantine already.
            for item in bad {
                let counts = Counts::quarantined(item.reason, item.items, item.bytes());
                if self.to_quarantine(item).await {
                    belt.count(batch, counts);
                }
            }
        }
        (rounds, hit.get())
    }

    /// All requests of a part, at once for Loki (they hold different streams), in order for OTLP.
    async fn send_all(&mut self, pushes: &[Push]) -> Vec<Settled> {
        let ctx = Context { ledger: &self.ledger, stop: self.stop.clone(), patience: self.stream_patience };
        match &mut self.out {
            Out::Loki(loki) => {
                let loki = &**loki;
                join_all(pushes.iter().map(|p| {
                    let mut ctx = ctx.clone();
                    async move {
                        let mut backoff = Backoff::default();
                        loop {
                            let begun = Instant::now();
                            let answer = named_here(loki.send(p.body.clone()).await, p);
                            ctx.tried(&answer, p, p.body.len() as u64, begun.elapsed());
                            if let Some(settled) = ctx.settle(answer, p.body.len() as u64, &mut backoff).await {
                                return settled;
                            }
                        }
                    }
                }))
                .await
            }
            Out::Otlp(out) => {
                let mut settled = Vec::with_capacity(pushes.len());
                for p in pushes {
                    let (mut ctx, mut backoff) = (ctx.clone(), Backoff::default());
                    let outcome = loop {
                        let begun = Instant::now();
                        let (answer, bytes) = out.send(vec![p.body.clone()]).await;
                        ctx.tried(&answer, p, bytes, begun.elapsed());
                        if let Some(outcome) = ctx.settle(answer, bytes, &mut backoff).await {
                            break outcome;
                        }
                    };
                    settled.push(outcome);
                }
                settled
            }
        }
    }

    /// Tries parked streams whose time has come, oldest batch first.
    async fn retry_parked(&mut self, belt: &mut Belt, parked: &mut Vec<Parked>) {
        let mut i = 0;
        while i < parked.len() && !*self.stop.borrow() {
            if parked[i].due > Instant::now() {
                i += 1;
                continue;
            }
            match self.try_parked(&mut parked[i]).await {
                Some(counts) => {
                    let p = parked.remove(i);
                    belt.finish(p.batch, counts);
                }
                None => i += 1,
            }
        }
    }

    /// One try for one parked part: re-read, re-encode (the transform is pure), send once.
    async fn try_parked(&mut self, p: &mut Parked) -> Option<Counts> {
        let frames = self.read_again(p.seqs.clone())?;
        let Out::Loki(loki) = &mut self.out else { return Some(Counts::default()) };
        // Offenders went to quarantine when the batch was first sent.
        let mut known = Vec::new();
        for frame in frames.iter().filter(|f| !f.is_done(&self.id)) {
            encode(loki, frame, Place::default(), usize::MAX, &self.id, self.signal, &mut known);
        }
        let push = loki.encoder.finish(1, &|labels| p.streams.contains(labels)).into_iter().next();
        let Some(push) = push else { return Some(Counts::default()) };
        let (body, items) = (Bytes::from(push.body), u64::from(push.entries));
        let answer = loki.send(body.clone()).await;
        let (reason, text) = match answer {
            Answer::Stored { .. } => {
                return Some(Counts::sent(body.len() as u64));
            }
            Answer::Retry { after, text, .. } | Answer::RetryStreams { after, text, .. } => {
                let pause = p.backoff.next(fastrand::f64(), after);
                p.due = Instant::now() + pause;
                self.ledger.failed(text.clone(), pause);
                if p.since.elapsed() < self.stream_patience {
                    return None;
                }
                ("stream_limited", text)
            }
            Answer::PartlyStored { text } => ("partly_stored", text),
            Answer::TooLarge { text } => ("too_large", text),
            Answer::Refused { reason, text, .. } => (reason, text),
        };
        let counts = Counts::quarantined(reason, items, body.len() as u64);
        let item = QuarantineItem::new(&self.id, self.signal, p.seqs.start, reason, &text, "loki")
            .with_labels(push.streams.join(" "))
            .with_payload(body, items);
        self.to_quarantine(item).await.then_some(counts)
    }

    fn read_again(&self, seqs: Range<u64>) -> Option<Vec<Frame>> {
        let mut reader = self.log.reader(seqs.start);
        let mut frames = Vec::new();
        loop {
            let batch = reader.read(BATCH_BYTES).ok()?;
            let done = batch.frames.is_empty() || batch.frames.last().is_some_and(|f| f.seq + 1 >= seqs.end);
            frames.extend(batch.frames.into_iter().filter(|f| seqs.contains(&f.seq)));
            if done {
                return Some(frames);
            }
        }
    }

    fn first_due(&self) -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    /// True once the item is synced in the quarantine log. It is tried until then: the cursor must not pass it before.
    async fn to_quarantine(&mut self, item: QuarantineItem) -> bool {
        let mut backoff = Backoff::default();
        loop {
            match self.quarantine.keep(&item).await {
                Ok(()) => return true,
                Err(refusal) => {
                    let pause = backoff.next(fastrand::f64(), refusal.retry_after);
                    tracing::error!(destination = %self.id, error = %refusal, "quarantine cannot take a refused record; the destination waits");
                    self.ledger.failed(format!("quarantine: {refusal}"), pause);
                    self.pause(pause).await;
                    if *self.stop.borrow() {
                        return false;
                    }
                }
            }
        }
    }
}

impl Parked {
    fn new(batch: u64, seqs: Range<u64>, streams: BTreeSet<String>, due: Instant) -> Parked {
        Parked { batch, seqs, streams, since: Instant::now(), due, backoff: Backoff::default() }
    }
}

/// Of the streams a backend names, those that are in this push; if none is, the whole push is meant.
fn named_here(answer: Answer, push: &Push) -> Answer {
    match answer {
        Answer::RetryStreams { streams, after, text } => {
            let streams: Vec<String> = streams.into_iter().filter(|s| push.streams.contains(s)).collect();
            match streams.is_empty() {
                true => Answer::Retry { status: 429, after, text },
                false => Answer::RetryStreams { streams, after, text },
            }
        }
        other => other,
    }
}

fn parked_streams(parked: &[Parked]) -> BTreeSet<String> {
    parked.iter().flat_map(|p| p.streams.iter().cloned()).collect()
}

fn pushes_of(loki: &mut LokiOut, keep: &dyn Fn(&str) -> bool, frames: &Range<usize>) -> Vec<Push> {
    let shards = (loki.encoder.bytes() / BYTES_A_SHARD).clamp(1, SHARDS_MAX);
    let pushes = loki.encoder.finish(shards, keep).into_iter();
    pushes
        .map(|p| Push { body: p.body.into(), items: u64::from(p.entries), streams: p.streams, frames: frames.clone() })
        .collect()
}

/// One frame into the encoder, from a place on; what may not be sent goes to `bad`. Returns where to go on if the push is full.
fn encode(
    loki: &mut LokiOut,
    frame: &Frame,
    from: Place,
    until: usize,
    id: &DestinationId,
    signal: Signal,
    bad: &mut Vec<QuarantineItem>,
) -> Option<Place> {
    let malformed = |text: String| {
        QuarantineItem::new(id, signal, frame.seq, "malformed", &text, "frame")
            .with_payload(frame.payload.clone(), u64::from(frame.items))
    };
    let (sidecar, raw) = match envelope::open(&frame.payload) {
        Ok((_, sidecar, raw)) => (sidecar, raw),
        Err(e) => {
            bad.push(malformed(e.to_string()));
            return None;
        }
    };
    let added = loki.encoder.add_from(frame.seq, &sidecar, raw, from, until);
    if let Some(e) = added.malformed {
        bad.push(malformed(e.to_string()));
    }
    for offender in added.offenders {
        bad.push(
            QuarantineItem::new(id, signal, frame.seq, offender.reason, &offender.detail, "otlp")
                .with_labels(offender.labels.to_string())
                .with_payload(offender.request().into(), 1),
        );
    }
    added.next
}

/// Neighbouring requests become one, up to the size every receiver takes.
fn merge(parts: Vec<Push>) -> Vec<Push> {
    let mut out: Vec<Push> = Vec::new();
    let mut open: Vec<Push> = Vec::new();
    let mut size = 0;
    for p in parts {
        if !open.is_empty() && size + p.body.len() > otlp::REQUEST_BYTES {
            out.extend(joined(std::mem::take(&mut open)));
            size = 0;
        }
        size += p.body.len();
        open.push(p);
    }
    out.extend(joined(open));
    out
}

fn joined(mut parts: Vec<Push>) -> Option<Push> {
    if parts.len() <= 1 {
        return parts.pop();
    }
    let (first, last) = (parts.first()?.frames.start, parts.last()?.frames.end);
    let mut body = Vec::with_capacity(parts.iter().map(|p| p.body.len()).sum());
    parts.iter().for_each(|p| body.extend_from_slice(&p.body));
    let items = parts.iter().map(|p| p.items).sum();
    Some(Push { body: body.into(), items, streams: Vec::new(), frames: first..last })
}

/// What a try needs beside the protocol.
#[derive(Clone)]
struct Context<'a> {
    ledger: &'a Ledger,
    stop: watch::Receiver<bool>,
    patience: Duration,
}

impl Context<'_> {
    fn tried(&self, answer: &Answer, push: &Push, bytes: u64, took: Duration) {
        self.ledger.requested(Request {
            signal: self.ledger.signal,
            status: answer.status(),
            seconds: took.as_secs_f64(),
            bytes,
            items: push.items,
            age_s: None,
        });
    }

    /// None: the pause is over, try again.
    async fn settle(&mut self, answer: Answer, bytes: u64, backoff: &mut Backoff) -> Option<Settled> {
        match answer {
            Answer::Stored { rejected: 0, .. } => {
                self.ledger.succeeded();
                Some(Settled::Done(Counts::sent(bytes)))
            }
            Answer::Stored { text, .. } | Answer::PartlyStored { text } => {
                self.ledger.succeeded();
                Some(Settled::Quarantine { reason: "partly_stored", text })
            }
            Answer::TooLarge { text } => Some(Settled::Split { reason: "too_large", text }),
            Answer::Refused { reason, text, .. } => Some(Settled::Split { reason, text }),
            Answer::RetryStreams { streams, after, text } => {
                let pause = backoff.next(fastrand::f64(), after).min(self.patience);
                self.ledger.failed(text, pause);
                Some(Settled::Limited(streams, pause))
            }
            Answer::Retry { after, text, .. } => {
                let pause = backoff.next(fastrand::f64(), after);
                if backoff.tries() == 1 {
                    let (destination, signal) = (&self.ledger.id, self.ledger.signal);
                    tracing::warn!(%destination, %signal, error = text, "not delivered; the log holds it");
                }
                self.ledger.failed(text, pause);
                tokio::select! {
                    _ = self.stop.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                (*self.stop.borrow()).then_some(Settled::Stopped)
            }
        }
    }
}
