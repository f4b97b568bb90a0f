//! The first words of an HTTP/2 connection, read before anything is set up for it.
//!
//! Like asking who is there before opening: whoever stays silent is left outside, and whoever knocks at the wrong door is told
//! where the right one is. Weakness: what was read has to be read again by the protocol, so the stream gets a small front piece.

use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// RFC 9113, section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a sender of HTTP/1.1 is told, in its own words.
const WRONG_DOOR: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port takes OTLP over gRPC (HTTP/2); OTLP over HTTP/1.1 has a port of its own, usually 4318\n";

/// Reads the preface; `None` if the peer speaks something else, leaves, or is silent. Give it a deadline.
pub(super) async fn expect<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Option<Prefixed<S>> {
    let mut got = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < got.len() {
        match stream.read(&mut got[filled..]).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => filled += read,
        }
        if got[..filled] != PREFACE[..filled] {
            if got[..filled].iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
                let _ = stream.write_all(WRONG_DOOR).await;
                let _ = stream.shutdown().await;
                // Unread bytes would turn the close into a reset, and the text would be lost on the way.
                let _ = tokio::io::copy(&mut stream.take(READ_AFTER_ANSWER), &mut tokio::io::sink()).await;
            }
            return None;
        }
    }
    Some(Prefixed { front: Bytes::from_static(PREFACE), stream })
}

/// Bytes of a request at the wrong door that are read and thrown away after the answer.
const READ_AFTER_ANSWER: u64 = 64 << 10;

/// A stream whose first bytes were already taken and are given again.
pub(super) struct Prefixed<S> {
    front: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.front.has_remaining() {
            let length = self.front.len().min(buf.remaining());
            buf.put_slice(&self.front.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
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
