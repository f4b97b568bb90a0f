//! Frames off the socket, one at a time, each paid for before it is read.
//!
//! The first 24 bytes say how long a frame is; memory for the rest is asked of the byte budget before a byte of it is read, so that a
//! probe with much to say waits like every other sender. Weakness: a frame that was begun is waited for, at most [`SILENCE`] a piece.

use crate::budget::{Budget, Permit, Share, Short};
use ipc::{CONTROL_BYTES_MAX, Decoder, Frame, HEADER_BYTES, STACKS_BULK_BYTES_MAX};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The probe says how it is each second; after this long without a byte it is not alive.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// How long the budget is asked at a time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Taken off the socket at a time. Unit: bytes.
const CHUNK: usize = 64 << 10;
/// Kind of a frame with stacks in its header.
const STACKS_KIND: u8 = 5;
/// What a table of stacks takes while it is turned into a profile, in its own lengths.
const STACKS_FACTOR: u64 = 3;

/// A frame, and the memory it takes until it lies in the log.
pub(super) struct Arrived {
    pub(super) frame: Frame,
    pub(super) permit: Permit,
}

/// Why no frame comes.
#[derive(Debug)]
pub(super) enum Fault {
    /// The other end is gone, or its machine is in trouble: nobody's fault.
    Gone(String),
    /// What came is not the protocol.
    Broken(String),
}

/// The reading half of a connection.
pub(super) struct Inbox<R> {
    from: R,
    budget: Budget,
    decoder: Decoder,
    head: [u8; HEADER_BYTES],
    have: usize,
    /// Of the frame's body, once its header was taken.
    rest: Option<usize>,
    permit: Option<Permit>,
    chunk: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    pub(super) fn new(from: R, budget: Budget) -> Inbox<R> {
        Inbox {
            from,
            budget,
            decoder: Decoder::new(),
            head: [0; HEADER_BYTES],
            have: 0,
            rest: None,
            permit: None,
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// The next frame. Safe to cancel: what was read stays.
    pub(super) async fn next(&mut self) -> Result<Arrived, Fault> {
        loop {
            while self.have < HEADER_BYTES {
                let taken = read(&mut self.from, &mut self.head[self.have..]).await?;
                if taken == 0 {
                    return Err(self.ended());
                }
                self.have += taken;
            }
            let rest = match self.rest {
                Some(rest) => rest,
                None => {
                    self.pay().await?;
                    let (head, body) = (self.head, self.body());
                    if let Some(frame) = self.feed(&head)? {
                        return Ok(self.whole(frame));
                    }
                    self.rest = Some(body);
                    body
                }
            };
            let room = rest.min(self.chunk.len());
            let taken = read(&mut self.from, &mut self.chunk[..room]).await?;
            if taken == 0 {
                return Err(self.ended());
            }
            self.rest = Some(rest - taken);
            let fed = self.decoder.feed(&mut &self.chunk[..taken]);
            if let Some(frame) = fed.map_err(|e| Fault::Broken(e.to_string()))? {
                return Ok(self.whole(frame));
            }
        }
    }

    /// Length of what follows the header. A length above its cap is refused by the decoder, which must get as far as saying so.
    fn body(&self) -> usize {
        let word =
            |at: usize| u32::from_le_bytes([self.head[at], self.head[at + 1], self.head[at + 2], self.head[at + 3]]);
        (word(8) as usize).min(CONTROL_BYTES_MAX) + (word(12) as usize).min(STACKS_BULK_BYTES_MAX)
    }

    /// Waits for the frame's memory.
    async fn pay(&mut self) -> Result<(), Fault> {
        let factor = if self.head[4] == STACKS_KIND { STACKS_FACTOR } else { 1 };
        // A budget so small that a frame takes half of it still gets frames, one at a time.
        let need = (self.body() as u64 * factor).min(self.budget.limit() / 2).max(self.body() as u64);
        let budget = &self.budget;
        let permit = self.permit.get_or_insert_with(|| budget.permit(Share::Ingest));
        while permit.bytes() < need {
            match permit.grow(need - permit.bytes(), PATIENCE).await {
                Ok(()) => {}
                // Others hold the memory: the probe waits, as every sender does.
                Err(Short::Busy { .. }) => {}
                Err(e @ Short::Never { .. }) => return Err(Fault::Broken(format!("a frame of {need} bytes: {e}"))),
            }
        }
        Ok(())
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Option<Frame>, Fault> {
        self.decoder.feed(&mut &*bytes).map_err(|e| Fault::Broken(e.to_string()))
    }

    fn whole(&mut self, frame: Frame) -> Arrived {
        (self.have, self.rest) = (0, None);
        let budget = &self.budget;
        let permit = self.permit.take().unwrap_or_else(|| budget.permit(Share::Ingest));
        Arrived { frame, permit }
    }

    fn ended(&self) -> Fault {
        match self.have {
            0 => Fault::Gone("the probe closed the connection".into()),
            _ => Fault::Gone("the probe closed the connection in the middle of a frame".into()),
        }
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> Result<usize, Fault> {
    match tokio::time::timeout(SILENCE, from.read(into)).await {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(e)) => Err(Fault::Gone(format!("reading from the probe failed: {e}"))),
        Err(_) => Err(Fault::Gone(format!("the probe has said nothing for {} s", SILENCE.as_secs()))),
    }
}
