//! One numbered slip of the door: what waits to be laid, what is laid and not yet synced, what may be acknowledged.
//!
//! Image: a queue at a counter, first come, first served, and nobody is sent to the end. A frame that the log refuses stays in front
//! and is offered again; those behind it wait. A frame is acknowledged when it and all before it are synced. If the log takes a laid
//! frame back (two failed writes), the connection ends and the probe, which still holds everything unacknowledged, begins again there.
//!
//! Weakness: frames that wait are held in memory. How much is bounded ([`Lane::is_full`]); then the socket is not read.

use super::files::{Known, LogFile};
use super::session::End;
use crate::budget::Permit;
use crate::seam::{Refusal, RefusalClass, Signal, Source};
use crate::store::{Laid, Receipt, SignalLog, Store, now_ns};
use crate::telemetry::Telemetry;
use bytes::Bytes;
use futures_util::FutureExt;
use ipc::Closed;
use std::collections::VecDeque;
use std::sync::Arc;
use wal::Stream;

/// What may wait in one lane before nothing more is read: the probe itself never has more than 4 MiB of log bytes on the way.
pub(super) const LANE_BYTES_MAX: u64 = 6 << 20;
/// Below this a piece is not halved further when the log says that it is too large. Unit: bytes.
const PIECE_BYTES_MIN: usize = 4 << 10;

/// A frame on its way into the log.
pub(super) enum Parcel {
    Bytes {
        seq: u64,
        file: Arc<LogFile>,
        offset: u64,
        bytes: Bytes,
        known: Known,
    },
    /// The end of a file; not numbered.
    Close {
        file: Arc<LogFile>,
        closed: Closed,
        known: Known,
    },
    /// The pieces of a window that are not yet laid, in order. None: it was unreadable, and only its number goes into the log.
    Window {
        seq: u64,
        start: [u8; 16],
        pieces: VecDeque<crate::seam::Offered>,
        unreadable: bool,
    },
}

struct Waiting {
    parcel: Parcel,
    permit: Permit,
    /// Records and bytes of it that are laid, and the last receipt.
    laid: Sum,
    refused: bool,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    receipt: Option<Receipt>,
    items: u64,
    bytes: u64,
}

struct Sent {
    seq: u64,
    sum: Sum,
}

/// Part of a source that is gone for good: what was missing and how much of it.
pub(super) struct Gap {
    pub(super) what: String,
    pub(super) amount: u64,
}

/// One slip.
pub(super) struct Lane {
    signal: Signal,
    waiting: VecDeque<Waiting>,
    bytes: u64,
    sent: VecDeque<Sent>,
    /// The frame that the next one must not overtake.
    last: Option<Receipt>,
    /// Highest number that came on this connection.
    newest: Option<u64>,
}

/// Why a parcel stays in front.
enum Stuck {
    Refused(Refusal),
    Lost(End),
}

impl Lane {
    pub(super) fn new(signal: Signal) -> Lane {
        Lane { signal, waiting: VecDeque::new(), bytes: 0, sent: VecDeque::new(), last: None, newest: None }
    }

    /// Holds a number against the order of the door. Stacks may leave numbers out: the probe's ring drops its oldest.
    pub(super) fn number(&mut self, seq: u64) -> Result<(), String> {
        let (signal, newest) = (self.signal, self.newest);
        let next = match (newest, signal) {
            (None, _) => true,
            (Some(newest), Signal::Logs) => newest.checked_add(1) == Some(seq),
            (Some(newest), _) => seq > newest,
        };
        match next {
            true => self.newest = Some(seq),
            false => return Err(format!("frame {seq} of {signal} after frame {}", newest.unwrap_or(0))),
        }
        Ok(())
    }

    pub(super) fn push(&mut self, parcel: Parcel, mut permit: Permit) {
        permit.shrink_to(parcel.bytes());
        self.bytes += parcel.bytes();
        self.waiting.push_back(Waiting { parcel, permit, laid: Sum::default(), refused: false });
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= LANE_BYTES_MAX
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lays what the log takes. `say` hears of every gap; the text of the refusal that holds the lane up, if one does.
    pub(super) fn lay(
        &mut self,
        store: &Store,
        telemetry: &Telemetry,
        say: &mut dyn FnMut(Gap),
    ) -> Result<Option<Refusal>, End> {
        let Some(log) = store.log(self.signal) else { return Ok(None) };
        while let Some(front) = self.waiting.front_mut() {
            let before = front.parcel.bytes();
            let mut lay = Laying { store, log, last: &mut self.last, sum: &mut front.laid, say };
            let stuck = lay.parcel(&mut front.parcel);
            let left = front.parcel.bytes();
            self.bytes = self.bytes.saturating_sub(before.saturating_sub(left));
            front.permit.shrink_to(left);
            match stuck {
                Ok(()) => {}
                Err(Stuck::Lost(end)) => return Err(end),
                Err(Stuck::Refused(refusal)) => {
                    if !std::mem::replace(&mut front.refused, true) {
                        telemetry.refused(Source::Probe, self.signal, refusal.reason, front.parcel.items());
                    }
                    return Ok(Some(refusal));
                }
            }
            if let Some(done) = self.waiting.pop_front()
                && let Some(seq) = done.parcel.seq()
            {
                self.bytes = self.bytes.saturating_sub(left);
                self.sent.push_back(Sent { seq, sum: done.laid });
            }
        }
        Ok(None)
    }

    /// Waits until the next frame is synced and gives the number up to which all are. Never returns while nothing is laid.
    /// Safe to cancel. Errors: the log took a frame back.
    pub(super) async fn acknowledged(&mut self, store: &Store, telemetry: &Telemetry) -> Result<u64, End> {
        let Some(at) = self.sent.iter().position(|s| s.sum.receipt.is_some()) else {
            return std::future::pending().await;
        };
        self.settled(store, at).await?;
        let mut upto = at;
        while let Some(next) = (upto + 1..self.sent.len()).find(|i| self.sent[*i].sum.receipt.is_some()) {
            match self.settled(store, next).now_or_never() {
                Some(settled) => settled?,
                None => break,
            }
            upto = next;
        }
        let mut seq = 0;
        for sent in self.sent.drain(..=upto) {
            telemetry.accepted(Source::Probe, self.signal, sent.sum.items, sent.sum.bytes);
            seq = sent.seq;
        }
        Ok(seq)
    }

    async fn settled(&self, store: &Store, at: usize) -> Result<(), End> {
        match self.sent.get(at).and_then(|s| s.sum.receipt) {
            Some(receipt) => store.synced(receipt).await.map_err(|refusal| End::Refused(refusal.message)),
            None => Ok(()),
        }
    }
}

impl Parcel {
    fn seq(&self) -> Option<u64> {
        match self {
            Parcel::Bytes { seq, .. } | Parcel::Window { seq, .. } => Some(*seq),
            Parcel::Close { .. } => None,
        }
    }

    /// In memory, of what is not yet laid.
    fn bytes(&self) -> u64 {
        match self {
            Parcel::Bytes { bytes, .. } => bytes.len() as u64,
            Parcel::Close { .. } => 0,
            Parcel::Window { pieces, .. } => pieces.iter().flat_map(|p| &p.body).map(|b| b.len() as u64).sum(),
        }
    }

    /// Records in it, for the count of refusals.
    fn items(&self) -> u64 {
        match self {
            Parcel::Bytes { bytes, .. } => bytes.iter().filter(|b| **b == b'\n').count().max(1) as u64,
            Parcel::Close { .. } => 0,
            Parcel::Window { pieces, .. } => pieces.len() as u64,
        }
    }
}

/// One attempt at the front of a lane.
struct Laying<'a> {
    store: &'a Store,
    log: &'a SignalLog,
    last: &'a mut Option<Receipt>,
    sum: &'a mut Sum,
    say: &'a mut dyn FnMut(Gap),
}

impl Laying<'_> {
    fn parcel(&mut self, parcel: &mut Parcel) -> Result<(), Stuck> {
        match parcel {
            Parcel::Bytes { file, offset, bytes, known, .. } => self.bytes(file, offset, bytes, known),
            Parcel::Close { file, closed, known } => self.close(file, closed, known),
            Parcel::Window { seq, start, pieces, unreadable } => self.window(*seq, *start, pieces, *unreadable),
        }
    }

    /// What is laid is taken off the front of `bytes`, so that the next attempt goes on behind it.
    fn bytes(&mut self, file: &LogFile, offset: &mut u64, bytes: &mut Bytes, known: &Known) -> Result<(), Stuck> {
        let mut most = bytes.len();
        while !bytes.is_empty() {
            self.close_gap(&file.stream(), 0, *offset, |missing| Gap {
                what: format!("{} bytes of {}/{} before byte {offset}", missing, file.root, file.path),
                amount: missing,
            })?;
            let len = most.min(bytes.len());
            let offered = file.chunk(known, *offset, bytes.slice(..len));
            let laid = match self.store.lay(&offered, *self.last) {
                Err(e) if e.class == RefusalClass::Invalid && len > PIECE_BYTES_MIN => {
                    most = cut(&bytes[..len]);
                    continue;
                }
                laid => laid.map_err(stuck)?,
            };
            let done = match laid {
                Laid::New(receipt) => {
                    self.count(receipt, offered.items.into(), len as u64);
                    len
                }
                Laid::Held(receipt) => {
                    self.note(receipt);
                    len
                }
                // What lies before the new part is held; the new part goes alone.
                Laid::Trim { from, to } => {
                    most = usize::try_from(to.saturating_sub(from)).unwrap_or(len).max(1);
                    usize::try_from(from.saturating_sub(*offset)).unwrap_or(len).min(len)
                }
                Laid::Rewind { to } => return Err(stuck(odd(format!("the log wants byte {to} of a file first")))),
            };
            if !matches!(laid, Laid::Trim { .. }) {
                most = bytes.len();
            }
            *offset += done as u64;
            drop(bytes.split_to(done));
        }
        Ok(())
    }

    /// A file of which nothing is held needs no end.
    fn close(&mut self, file: &LogFile, closed: &Closed, known: &Known) -> Result<(), Stuck> {
        if self.log.log.mark(&file.stream()).is_none() {
            return Ok(());
        }
        match self.store.lay(&file.last(known, closed), *self.last).map_err(stuck)? {
            Laid::New(receipt) | Laid::Held(receipt) => self.note(receipt),
            Laid::Trim { .. } | Laid::Rewind { .. } => {}
        }
        Ok(())
    }

    fn window(
        &mut self,
        seq: u64,
        start: [u8; 16],
        pieces: &mut VecDeque<crate::seam::Offered>,
        unreadable: bool,
    ) -> Result<(), Stuck> {
        let stream = Stream::Stack(start);
        self.close_gap(&stream, 1, seq, |missing| Gap {
            what: format!("{missing} windows of stacks before number {seq}"),
            amount: missing,
        })?;
        while let Some(piece) = pieces.front() {
            if let Some(origin @ wal::Origin::Stack { start: of, .. }) = &piece.origin
                && *of != start
            {
                // The numbers of a piece beyond the last have holes by nature: nobody misses what is in them.
                let (stream, from, _) = origin.range();
                self.close_gap(&stream, 1, from, |_| Gap { what: String::new(), amount: 0 })?;
            }
            match self.store.lay(piece, *self.last) {
                Ok(Laid::New(receipt)) => {
                    let bytes = piece.body.iter().map(|b| b.len() as u64).sum();
                    self.count(receipt, piece.items.into(), bytes);
                }
                Ok(Laid::Held(receipt)) => self.note(receipt),
                Ok(other) => return Err(stuck(odd(format!("the log answered {other:?} to a window of stacks")))),
                Err(e) if e.class == RefusalClass::Invalid => {
                    (self.say)(Gap { what: format!("a profile: {e}"), amount: 1 });
                }
                Err(e) => return Err(stuck(e)),
            }
            pieces.pop_front();
        }
        // Whatever became of it, its number is passed: otherwise the next start would ask for it again.
        self.close_gap(&stream, 1, seq.saturating_add(1), |missing| Gap {
            what: format!("window {seq} of stacks, which could not be read"),
            amount: if unreadable { missing } else { 0 },
        })
    }

    /// Declares what lies between what is held of a stream and `upto`, if anything does.
    fn close_gap(&mut self, stream: &Stream, first: u64, upto: u64, gap: impl Fn(u64) -> Gap) -> Result<(), Stuck> {
        let held = self.log.log.mark(stream).and_then(|m| m.contiguous_end());
        let from = held.unwrap_or(first).max(first);
        if from >= upto {
            return Ok(());
        }
        let reason = match held {
            Some(_) => "the probe is beyond what this log holds",
            None => "the probe began here, or an earlier log held what is before",
        };
        let declared = self.log.log.gap(stream, from, upto, reason, now_ns());
        declared.map_err(|e| stuck(Refusal { reason: "closed", ..odd(e.to_string()) }))?;
        let gap = gap(upto - from);
        if gap.amount > 0 {
            (self.say)(gap);
        }
        Ok(())
    }

    fn note(&mut self, receipt: Receipt) {
        *self.last = Some(receipt);
        self.sum.receipt = Some(receipt);
    }

    fn count(&mut self, receipt: Receipt, items: u64, bytes: u64) {
        self.note(receipt);
        self.sum.items += items;
        self.sum.bytes += bytes;
    }
}

/// A refusal means "later", unless the log has taken back the frame before: then the connection has no meaning any more.
fn stuck(refusal: Refusal) -> Stuck {
    match refusal.reason {
        "order" => Stuck::Lost(End::Refused(refusal.message)),
        _ => Stuck::Refused(refusal),
    }
}

fn odd(message: String) -> Refusal {
    Refusal { class: RefusalClass::Unavailable, reason: "origin", message, retry_after: None }
}

/// Where to cut a piece that is too large: behind the last line of its first half.
fn cut(bytes: &[u8]) -> usize {
    let half = bytes.len() / 2;
    bytes[..half].iter().rposition(|b| *b == b'\n').map_or(half, |at| at + 1).max(1)
}
