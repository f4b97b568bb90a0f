//! Taking a request's bytes off the wire, never faster than the memory budget allows.
//!
//! Like filling a measured jug from a tap: the room is reserved first, in steps, and while there is none the tap is simply not
//! opened, so the sender's own window fills and it waits. The algorithm: a declared length is reserved up to [`STEP`] ahead;
//! bytes that nobody declared are taken one chunk at a time through the budget's gate and charged in the same poll. A body that
//! arrives whole in one chunk is never copied. Weakness: a body in many chunks is gathered into one piece (one copy), because it
//! is validated as one.

use super::answer::Fault;
use crate::budget::{Budget, Permit, Share};
use bytes::Bytes;
use http_body::Body;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How far ahead of the bytes that are here room is reserved, in bytes.
pub(super) const STEP: u64 = 1 << 20;
/// How long one request waits for memory in all its steps together: a refusal comes within a second.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Longest silence inside a body.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(10);
/// After [`BODY_IDLE`] a body must have come at this many bytes a second, or it only holds memory.
pub(super) const BODY_RATE_MIN: u64 = 1024;

/// The memory of one request and the patience it has left.
pub(super) struct Meter {
    permit: Permit,
    patience: Duration,
}

impl Meter {
    pub(super) fn new(budget: &Budget) -> Meter {
        Meter { permit: budget.permit(Share::Ingest), patience: PATIENCE }
    }

    /// Room for `total` bytes in all.
    pub(super) async fn reach(&mut self, total: u64) -> Result<(), Fault> {
        match total.checked_sub(self.permit.bytes()) {
            None | Some(0) => Ok(()),
            Some(more) => self.grow(more).await,
        }
    }

    /// Room for `more` bytes on top of what is held.
    pub(super) async fn grow(&mut self, more: u64) -> Result<(), Fault> {
        if self.permit.try_grow(more) {
            return Ok(());
        }
        let start = Instant::now();
        let grown = self.permit.grow(more, self.patience).await.map_err(Fault::Memory);
        self.patience = self.patience.saturating_sub(start.elapsed());
        grown
    }

    pub(super) fn shrink_to(&mut self, bytes: u64) {
        self.permit.shrink_to(bytes);
    }

    pub(super) fn held(&self) -> u64 {
        self.permit.bytes()
    }
}

/// A body being read.
pub(super) struct Reader<B> {
    body: B,
    pub(super) meter: Meter,
    started: Instant,
    /// Body bytes taken so far.
    pub(super) taken: u64,
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub(super) fn new(body: B, budget: &Budget) -> Reader<B> {
        Reader { body, meter: Meter::new(budget), started: Instant::now(), taken: 0 }
    }

    /// Waits for the end of a body that should hold nothing more; false if something came.
    pub(super) async fn ends(&mut self) -> Result<bool, Fault> {
        if self.body.is_end_stream() {
            return Ok(true);
        }
        loop {
            match self.next_chunk(true).await? {
                None => return Ok(true),
                Some(chunk) if chunk.is_empty() => {}
                Some(_) => return Ok(false),
            }
        }
    }

    /// The next piece of the body, charged to the budget; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        self.next_chunk(false).await
    }

    /// `free`: looking costs nothing, because only the end is expected.
    async fn next_chunk(&mut self, free: bool) -> Result<Option<Bytes>, Fault> {
        let Reader { body, meter, taken, .. } = self;
        let next = poll_fn(|context| {
            let paid = free || meter.permit.bytes() > *taken;
            if !paid && !body.is_end_stream() && !meter.permit.gate_is_open(context) {
                return Poll::Ready(Err(()));
            }
            Pin::new(&mut *body).poll_frame(context).map(Ok)
        });
        // While the budget is short the body is not even looked at: its bytes stay in the sender's window.
        let frame = match timeout(BODY_IDLE, next).await {
            Err(_) => return Err(self.stalled()),
            Ok(Ok(frame)) => frame,
            Ok(Err(())) => self.chunk_behind_gate().await?,
        };
        let data = match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Fault::Slow(format!("the request body broke off: {error}"))),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        self.charge(data.len() as u64);
        if self.started.elapsed() > BODY_IDLE && self.taken < BODY_RATE_MIN * self.started.elapsed().as_secs() {
            return Err(self.stalled());
        }
        Ok(Some(data))
    }

    /// The slow way: waits at the gate, within the request's patience.
    async fn chunk_behind_gate(&mut self) -> Result<Option<Result<http_body::Frame<Bytes>, B::Error>>, Fault> {
        let start = Instant::now();
        let mut patience: Pin<Box<Sleep>> = Box::pin(sleep(self.meter.patience));
        let mut idle: Pin<Box<Sleep>> = Box::pin(sleep(BODY_IDLE));
        let Reader { body, meter, .. } = self;
        let frame = poll_fn(|context| {
            if meter.permit.gate_is_open(context) {
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                    return Poll::Ready(Some(frame));
                }
                return idle.as_mut().poll(context).map(|()| None);
            }
            patience.as_mut().poll(context).map(|()| None)
        })
        .await;
        self.meter.patience = self.meter.patience.saturating_sub(start.elapsed());
        match frame {
            Some(frame) => Ok(frame),
            None if self.meter.patience.is_zero() => Err(self.no_room()),
            None => Err(self.stalled()),
        }
    }

    fn charge(&mut self, bytes: u64) {
        self.taken += bytes;
        let owed = self.taken.saturating_sub(self.meter.held());
        if owed > 0 {
            self.meter.permit.owe(owed);
        }
    }

    fn stalled(&self) -> Fault {
        let (got, took) = (self.taken, self.started.elapsed().as_secs());
        Fault::Slow(format!("the request body came too slowly: {got} bytes in {took} s; send it again"))
    }

    fn no_room(&self) -> Fault {
        Fault::Memory(self.meter.permit.short(1, PATIENCE))
    }

    /// Reads the rest into one piece: exactly `declared` bytes if that is known, else to the end, at most `max`.
    ///
    /// `first` is what is already here. A declared length must already have been compared with `max`.
    pub(super) async fn gather(&mut self, first: Bytes, declared: Option<usize>, max: usize) -> Result<Bytes, Fault> {
        let mut first = first;
        if let Some(length) = declared {
            if first.is_empty() && length > 0 {
                self.meter.reach(self.taken + (length as u64).min(STEP)).await?;
                first = self.chunk().await?.unwrap_or_default();
            }
            if first.len() == length {
                return Ok(first);
            }
        }
        let mut all = Vec::with_capacity(declared.unwrap_or(first.len()));
        all.extend_from_slice(&first);
        drop(first);
        loop {
            if let Some(missing) = declared.and_then(|length| length.checked_sub(all.len())) {
                self.meter.reach(self.taken + (missing as u64).min(STEP)).await?;
            }
            let Some(chunk) = self.chunk().await? else { break };
            all.extend_from_slice(&chunk);
            if all.len() > declared.unwrap_or(max) {
                return Err(match declared {
                    Some(length) => Fault::Malformed(format!("more bytes than the {length} that were announced")),
                    None => Fault::TooLarge(format!("the request is larger than {max} bytes; send smaller batches")),
                });
            }
            if declared == Some(all.len()) {
                break;
            }
        }
        match declared {
            Some(length) if length != all.len() => {
                Err(Fault::Malformed(format!("{} bytes of {length} announced, then nothing more", all.len())))
            }
            _ => Ok(Bytes::from(all)),
        }
    }
}
