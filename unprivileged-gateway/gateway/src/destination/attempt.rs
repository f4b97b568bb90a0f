//! One push, tried until it is settled or the process ends.

use crate::destination::answer::Answer;
use crate::destination::pass::Counts;
use crate::destination::retry::Backoff;
use crate::destination::transform::Push;
use crate::store::Ledger;
use crate::telemetry::Request;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a push that is on its way may go on after the end has come, so that its answer still moves the cursor.
const GRACE: Duration = Duration::from_secs(1);

/// What is left to do after a push.
#[derive(Debug)]
pub(super) enum Settled {
    Done(Counts),
    /// Send the named streams later, the rest of this push now.
    Limited(Vec<String>, Duration),
    /// Too large, or refused as a whole: try smaller parts.
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

/// What a try needs beside the protocol.
#[derive(Clone)]
pub(super) struct Attempts<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) patience: Duration,
}

impl Attempts<'_> {
    /// Sends `push` with `send` (which returns the answer and the bytes on the wire) for as long as it takes.
    /// `last_seq`: of the last frame in it.
    pub(super) async fn until_settled(
        mut self,
        push: &Push,
        last_seq: u64,
        mut send: impl AsyncFnMut() -> (Answer, u64),
    ) -> Settled {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let Some((answer, bytes)) = unless_stopped(&self.stop, send()).await else { return Settled::Stopped };
            self.ledger.requested(Request {
                signal: self.ledger.signal,
                status: answer.status(),
                seconds: begun.elapsed().as_secs_f64(),
                bytes,
                items: push.items,
                age_s: None,
                last_seq,
            });
            if let Some(settled) = self.settle(named_here(answer, push), bytes, &mut backoff).await {
                return settled;
            }
        }
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

/// What `work` gives, or None when the end has come and [`GRACE`] has passed since: a restart does not wait for a backend that does
/// not answer. What was on its way is then sent again by the next start.
pub(super) async fn unless_stopped<T>(stop: &watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    let mut stop = stop.clone();
    let too_long = async {
        // A sender that is gone says the same.
        let _ = stop.wait_for(|s| *s).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        done = work => Some(done),
        () = too_long => None,
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
