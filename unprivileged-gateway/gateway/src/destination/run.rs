//! The one loop of every destination: read in log order, transform, send, try again for ever, move the cursor.
//!
//! Image: a postman with a bag. He takes the next letters off the pile (a *batch*), sorts them by street (*pushes*), rings at each
//! door until somebody signs, and only then tells the office to cross them off. Letters for a street that is closed for an hour go
//! into a side pocket (*parked*) so that the other streets need not wait; the office crosses off nothing beyond them until they
//! are delivered or, after their patience, laid in the lost-letters cupboard (*quarantine*).
//!
//! The transform is a pure function of records and configuration, so a crash repeats bytes and invents none. Lines of files may begin in
//! one frame and end in another: then the cursor stays where the line began, `sent_upto` says what was sent, and the next start reads
//! what lies between for its unfinished lines only.
//! Weakness: a batch is a barrier; one slow push holds the next batch of the same destination (not of any other).

use crate::destination::answer::Answer;
use crate::destination::attempt::{Attempts, Settled, unless_stopped};
use crate::destination::lines::Closing;
use crate::destination::loki::LokiOut;
use crate::destination::otlp::OtlpOut;
use crate::destination::pass::{Belt, Counts};
use crate::destination::pyroscope::PyroscopeOut;
use crate::destination::retry::Backoff;
use crate::destination::transform::{Part, Push, Reader, Round, Walk};
use crate::seam::Signal;
use crate::store::{Ledger, QuarantineItem, Quarantined, now_ns};
use futures_util::future::join_all;
use model::chunk::FileLabels;
use model::chunk::join::Joiner;
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
/// Batches that may lie behind a parked one before the loop waits for it.
const BELT_MAX: usize = 512;
/// Pause after a failed read of the log.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// First pause of streams that are put aside because earlier ones of theirs still wait.
const BEHIND_OTHERS: Duration = Duration::from_secs(1);

/// A protocol.
pub enum Out {
    Loki(Box<LokiOut>),
    Otlp(Box<OtlpOut>),
    Pyroscope(Box<PyroscopeOut>),
}

/// Everything one destination needs for one signal.
pub struct Setup {
    pub id: DestinationId,
    pub signal: Signal,
    pub log: Log,
    pub rounds: watch::Receiver<u64>,
    pub out: Out,
    pub ledger: Arc<Ledger>,
    pub quarantine: Quarantined,
    pub stream_patience: Duration,
    pub stop: watch::Receiver<bool>,
    pub files: Arc<FileLabels>,
    /// Empty: for lines of files that are open between two batches.
    pub joiner: Joiner,
}

/// The postman.
pub struct Runner {
    it: Setup,
    belt: Belt,
    parked: Vec<Parked>,
    /// Frames below it were sent by an earlier run.
    sent_upto: u64,
    closing: Closing,
}

/// Streams of one batch that wait on their own.
struct Parked {
    batch: u64,
    seqs: Range<u64>,
    /// Where lines began that were open in front of the batch; it is read from there again.
    lead: u64,
    streams: BTreeSet<String>,
    since: Instant,
    due: Instant,
    backoff: Backoff,
}

impl Runner {
    pub fn new(setup: Setup) -> Runner {
        Runner { it: setup, belt: Belt::default(), parked: Vec::new(), sent_upto: 0, closing: Closing::default() }
    }

    /// Runs until `stop` turns true. Whatever was not finished is read again by the next start.
    pub async fn run(mut self) {
        let cursor = self.it.log.cursor(&self.it.id).unwrap_or_default();
        self.sent_upto = if self.it.signal == Signal::Logs { cursor.sent_upto } else { 0 };
        let mut reader = self.it.log.reader(cursor.seq);
        while !self.stopped() {
            self.retry_parked().await;
            self.step();
            if self.belt.len() >= BELT_MAX {
                self.wait(false).await;
                continue;
            }
            match reader.read(BATCH_BYTES) {
                Ok(batch) if batch.frames.is_empty() && batch.skipped.is_empty() => self.wait(true).await,
                Ok(batch) => {
                    self.skip_damage(&batch);
                    self.deliver(&batch.frames).await;
                    self.step();
                }
                Err(e) => {
                    let (destination, signal) = (&self.it.id, self.it.signal);
                    tracing::error!(%destination, %signal, error = %e, "reading the log failed; trying again");
                    self.it.ledger.failed(format!("reading the log: {e}"), READ_AGAIN);
                    self.pause(READ_AGAIN).await;
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        *self.it.stop.borrow()
    }

    fn skip_damage(&mut self, batch: &wal::ReadBatch) {
        for gap in &batch.skipped {
            let (destination, signal) = (&self.it.id, self.it.signal);
            tracing::error!(%destination, %signal, from = gap.from, to = gap.to, "unreadable records skipped");
            let id = self.belt.place(gap.to, gap.items);
            self.belt.finish(id, Counts::damaged(gap.items));
        }
    }

    /// Until there is more to read (if `more` is of interest), something parked is due, or the end.
    async fn wait(&mut self, more: bool) {
        self.it.ledger.idle();
        let due = self.parked.iter().map(|p| p.due).min();
        let parked_due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let closing = self.closing.due(&self.it.joiner).filter(|_| more);
        let silence = async {
            match closing {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let it = &mut self.it;
        tokio::select! {
            _ = it.stop.changed() => {}
            () = parked_due => {}
            () = silence => self.closing.append(&it.log, now_ns()),
            _ = it.rounds.changed(), if more => {
                if it.log.waiting(&it.id).bytes < BATCH_BYTES as u64 {
                    tokio::select! { _ = it.stop.changed() => {} () = tokio::time::sleep(LINGER) => {} }
                }
            }
        }
    }

    async fn pause(&mut self, how_long: Duration) {
        tokio::select! { _ = self.it.stop.changed() => {} () = tokio::time::sleep(how_long) => {} }
    }

    fn step(&mut self) {
        if let Some(step) = self.belt.step() {
            self.it.ledger.pass(&self.it.log, &step);
        }
    }

    /// Sends a batch, part by part, until every part is sent, parked or in quarantine.
    async fn deliver(&mut self, frames: &[Frame]) {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        let items = frames.iter().map(|f| u64::from(f.items)).sum();
        let mine = self.reader().items(frames);
        // The batch itself is one open piece until all its parts are on their way.
        let batch = self.belt.place(last.seq + 1, items);
        self.belt.count(batch, Counts::dropped(items - mine));
        let whole = frames.partition_point(|f| f.seq < self.sent_upto)..frames.len();
        let lead = self.it.joiner.needs().unwrap_or(first.seq).min(first.seq);
        let mut walk = self.walk(frames, 0, Part { frames: whole, streams: None });
        let held: BTreeSet<String> = self.parked.iter().flat_map(|p| p.streams.iter().cloned()).collect();
        let mut parts = Vec::new();
        let mut parked = false;
        while let Some(round) = self.round(frames, &mut walk, &held) {
            if round.met_held && !parked {
                // A stream must not overtake itself: what of it is in this batch waits behind what is parked.
                self.park(batch, (lead, first.seq..last.seq + 1), held.clone(), BEHIND_OTHERS);
                parked = true;
            }
            self.belt.count(batch, Counts { cut: round.cut, ..Counts::default() });
            for item in round.bad {
                let counts = Counts::quarantined(item.reason, item.items, item.bytes());
                if !self.keep_in_quarantine(item).await {
                    return;
                }
                self.belt.count(batch, counts);
            }
            if !self.send(batch, lead, frames, round.pushes, &mut parts).await {
                return;
            }
        }
        while let Some(part) = parts.pop() {
            let mut walk = self.walk(frames, 0, part);
            // A part meets the offenders of the whole again; they are in quarantine already.
            while let Some(round) = self.round(frames, &mut walk, &BTreeSet::new()) {
                if !self.send(batch, lead, frames, round.pushes, &mut parts).await {
                    return;
                }
            }
        }
        self.it.joiner = walk.into_joiner();
        if let Some(seq) = self.it.joiner.needs() {
            self.belt.needs(batch, seq);
        }
        self.belt.finish(batch, Counts::default());
    }

    fn reader(&self) -> Reader<'_> {
        Reader { id: &self.it.id, signal: self.it.signal, files: &self.it.files }
    }

    /// A walk through a part, past the frames between `from` and it.
    fn walk(&self, frames: &[Frame], from: usize, part: Part) -> Walk {
        let mut joiner = self.it.joiner.clone();
        if self.it.signal == Signal::Logs {
            self.reader().skim(&mut joiner, frames.get(from..part.frames.start).unwrap_or_default());
        }
        Walk::new(part, joiner)
    }

    /// The next round of a part. None: there is no more of it.
    fn round(&mut self, frames: &[Frame], walk: &mut Walk, held: &BTreeSet<String>) -> Option<Round> {
        let reader = Reader { id: &self.it.id, signal: self.it.signal, files: &self.it.files };
        match &mut self.it.out {
            Out::Loki(loki) => reader.loki(loki, frames, walk, held),
            Out::Otlp(_) => reader.otlp(frames, walk),
            Out::Pyroscope(to) => reader.pyroscope(to.packer(), frames, walk),
        }
    }

    /// Sends a round; what is left to do is put on `parts`. False: stopped.
    async fn send(
        &mut self,
        batch: u64,
        lead: u64,
        frames: &[Frame],
        pushes: Vec<Push>,
        parts: &mut Vec<Part>,
    ) -> bool {
        let settled = self.send_round(frames, &pushes).await;
        for (push, outcome) in pushes.into_iter().zip(settled) {
            if !self.conclude((batch, lead), frames, push, outcome, parts).await {
                return false;
            }
        }
        true
    }

    /// All pushes of a round: at once for Loki (they hold different streams), in order for the others.
    async fn send_round(&mut self, frames: &[Frame], pushes: &[Push]) -> Vec<Settled> {
        let last_seq = |push: &Push| frames.get(push.frames.end.saturating_sub(1)).map_or(0, |frame| frame.seq);
        let it = &mut self.it;
        let attempts = Attempts { ledger: &it.ledger, stop: it.stop.clone(), patience: it.stream_patience };
        match &mut it.out {
            Out::Loki(loki) => {
                let loki = &**loki;
                join_all(pushes.iter().map(|push| {
                    let attempts = attempts.clone();
                    let seq = last_seq(push);
                    async move {
                        attempts
                            .until_settled(push, seq, async || (loki.send(push.body.clone()).await, push.bytes()))
                            .await
                    }
                }))
                .await
            }
            Out::Otlp(out) => {
                let mut settled = Vec::with_capacity(pushes.len());
                for push in pushes {
                    let send = async || out.send(vec![push.body.clone()]).await;
                    settled.push(attempts.clone().until_settled(push, last_seq(push), send).await);
                }
                settled
            }
            Out::Pyroscope(out) => {
                let mut settled = Vec::with_capacity(pushes.len());
                for push in pushes {
                    let send = async || (out.send(push.body.clone()).await, push.bytes());
                    settled.push(attempts.clone().until_settled(push, last_seq(push), send).await);
                }
                settled
            }
        }
    }

    /// What follows from the end of one push. False: stopped, nothing more is to be done.
    async fn conclude(
        &mut self,
        (batch, lead): (u64, u64),
        frames: &[Frame],
        push: Push,
        outcome: Settled,
        parts: &mut Vec<Part>,
    ) -> bool {
        match outcome {
            Settled::Done(counts) => self.belt.count(batch, counts),
            Settled::Limited(streams, pause) => {
                let limited: BTreeSet<String> = streams.into_iter().collect();
                let rest: BTreeSet<String> = push.streams.into_iter().filter(|s| !limited.contains(s)).collect();
                let seqs = frames[push.frames.start].seq..frames[push.frames.end - 1].seq + 1;
                if !rest.is_empty() {
                    parts.push(Part { frames: push.frames, streams: Some(rest) });
                }
                self.park(batch, (lead, seqs), limited, pause);
            }
            Settled::Split { .. } if push.frames.len() > 1 => {
                let middle = push.frames.start + push.frames.len() / 2;
                let streams = (!push.streams.is_empty()).then(|| push.streams.into_iter().collect::<BTreeSet<_>>());
                // Taken from the end: the first half goes first.
                parts.push(Part { frames: middle..push.frames.end, streams: streams.clone() });
                parts.push(Part { frames: push.frames.start..middle, streams });
            }
            Settled::Split { reason, text } | Settled::Quarantine { reason, text } => {
                let counts = Counts::quarantined(reason, push.items, push.bytes());
                let item = self.item(frames[push.frames.start].seq, reason, &text, push);
                if !self.keep_in_quarantine(item).await {
                    return false;
                }
                self.belt.count(batch, counts);
            }
            Settled::Stopped => return false,
        }
        true
    }

    fn item(&self, seq: u64, reason: &'static str, text: &str, push: Push) -> QuarantineItem {
        let format = match &self.it.out {
            Out::Loki(_) => "loki",
            Out::Otlp(_) => "otlp",
            Out::Pyroscope(_) => "pyroscope",
        };
        QuarantineItem::new(&self.it.id, self.it.signal, seq, reason, text, format)
            .with_labels(push.streams.join(" "))
            .with_payload(push.body, push.items)
    }

    fn park(&mut self, batch: u64, (lead, seqs): (u64, Range<u64>), streams: BTreeSet<String>, pause: Duration) {
        let now = Instant::now();
        self.belt.hold(batch);
        let backoff = Backoff::default();
        self.parked.push(Parked { batch, seqs, lead, streams, since: now, due: now + pause, backoff });
    }

    /// Tries parked streams whose time has come, in the order in which they were put aside.
    async fn retry_parked(&mut self) {
        let mut waiting = BTreeSet::new();
        for mut parked in std::mem::take(&mut self.parked) {
            // Behind an earlier part of the same stream that still waits, nothing is due.
            let blocked = parked.streams.iter().any(|s| waiting.contains(s));
            let counts = match blocked || parked.due > Instant::now() || self.stopped() {
                true => None,
                false => self.try_parked(&mut parked).await,
            };
            match counts {
                Some(counts) => self.belt.finish(parked.batch, counts),
                None => {
                    waiting.extend(parked.streams.iter().cloned());
                    self.parked.push(parked);
                }
            }
        }
    }

    /// One try for one parked part: read again, encode again (the transform is pure), send each round once. None: it stays parked.
    async fn try_parked(&mut self, parked: &mut Parked) -> Option<Counts> {
        let frames = self.read_again(parked.lead..parked.seqs.end)?;
        let from = frames.partition_point(|f| f.seq < parked.seqs.start.max(self.sent_upto));
        let mut joiner = self.it.joiner.fresh();
        self.reader().skim(&mut joiner, frames.get(..from).unwrap_or_default());
        let mut walk = Walk::new(Part { frames: from..frames.len(), streams: Some(parked.streams.clone()) }, joiner);
        let mut counts = Counts::default();
        while let Some(round) = self.round(&frames, &mut walk, &BTreeSet::new()) {
            for push in round.pushes {
                counts += self.try_parked_push(parked, push).await?;
            }
        }
        Some(counts)
    }

    async fn try_parked_push(&mut self, parked: &mut Parked, push: Push) -> Option<Counts> {
        let Out::Loki(loki) = &self.it.out else { return Some(Counts::default()) };
        let (reason, text) = match unless_stopped(&self.it.stop, loki.send(push.body.clone())).await? {
            Answer::Stored { .. } => return Some(Counts::sent(push.bytes())),
            Answer::Retry { after, text, .. } | Answer::RetryStreams { after, text, .. } => {
                let pause = parked.backoff.next(fastrand::f64(), after);
                parked.due = Instant::now() + pause;
                self.it.ledger.failed(text.clone(), pause);
                if parked.since.elapsed() < self.it.stream_patience {
                    return None;
                }
                ("stream_limited", text)
            }
            Answer::PartlyStored { text } => ("partly_stored", text),
            Answer::TooLarge { text } => ("too_large", text),
            Answer::Refused { reason, text, .. } => (reason, text),
        };
        let counts = Counts::quarantined(reason, push.items, push.bytes());
        let item = self.item(parked.seqs.start, reason, &text, push);
        self.keep_in_quarantine(item).await.then_some(counts)
    }

    fn read_again(&self, seqs: Range<u64>) -> Option<Vec<Frame>> {
        let mut reader = self.it.log.reader(seqs.start);
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

    /// True once the item is synced in the quarantine log. It is tried until then: the cursor must not pass it before.
    async fn keep_in_quarantine(&mut self, item: QuarantineItem) -> bool {
        let mut backoff = Backoff::default();
        loop {
            let refusal = match unless_stopped(&self.it.stop, self.it.quarantine.keep(&item)).await {
                Some(Ok(())) => return true,
                Some(Err(refusal)) => refusal,
                None => return false,
            };
            let pause = backoff.next(fastrand::f64(), refusal.retry_after);
            tracing::error!(destination = %self.it.id, error = %refusal, "quarantine cannot take a refused record; waiting");
            self.it.ledger.failed(format!("quarantine: {refusal}"), pause);
            self.pause(pause).await;
            if self.stopped() {
                return false;
            }
        }
    }
}
