//! Catches a peer that sends a request's head one byte at a time.
//!
//! Like a guard who looks at his watch when somebody starts to fill in a form: an empty hall may wait, a begun form may not.
//! hyper's own timer runs from the end of the last answer, so it must be as long as a keep-alive; this one starts at the first
//! byte. Weakness: a head that arrives together with the end of the previous body is timed from that body's answer on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Longest time from the first byte of a head to its last.
pub(super) const HEAD: Duration = Duration::from_secs(5);

const IDLE: u8 = 0;
const READING_HEAD: u8 = 1;
const BUSY: u8 = 2;

/// What one connection is doing.
pub(super) struct Watch {
    phase: AtomicU8,
    /// Which head it is: tells a slow one from the next one.
    head: AtomicU64,
    begun: Notify,
}

impl Watch {
    pub(super) fn new() -> Arc<Watch> {
        Arc::new(Watch { phase: AtomicU8::new(IDLE), head: AtomicU64::new(0), begun: Notify::new() })
    }

    fn bytes_came(&self) {
        if self.phase.compare_exchange(IDLE, READING_HEAD, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.head.fetch_add(1, Ordering::AcqRel);
            self.begun.notify_one();
        }
    }

    /// A whole head is here; the guard goes home until the answer is given.
    pub(super) fn head_is_read(self: &Arc<Watch>) -> Busy {
        self.phase.store(BUSY, Ordering::Release);
        Busy(self.clone())
    }

    /// Resolves when a head has been coming for longer than [`HEAD`].
    pub(super) async fn head_is_late(&self) {
        loop {
            self.begun.notified().await;
            let head = self.head.load(Ordering::Acquire);
            sleep(HEAD).await;
            let same = self.head.load(Ordering::Acquire) == head;
            if same && self.phase.load(Ordering::Acquire) == READING_HEAD {
                return;
            }
            if !same {
                // Another head began while this one was timed: its notice may have been merged with ours.
                self.begun.notify_one();
            }
        }
    }
}

/// A request being answered.
pub(super) struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.phase.store(IDLE, Ordering::Release);
    }
}

/// A stream whose reads are seen by a [`Watch`].
pub(super) struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, watch: Arc<Watch>) -> Watched<S> {
        Watched { stream, watch }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.watch.bytes_came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
