//! The reader's thread: follow the log, transcode with the product's codec, POST. Plain blocking IO: one request is in flight.

use crate::log::Reader;
use model::envelope::Sidecar;
use model::loki::{Encoder, Options};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// OTLP bytes that make a push worth its fixed cost.
const BATCH: u64 = 1 << 20;
/// Records already lie on disk and their senders have their answers: nobody notices the wait.
const LINGER: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_secs(120);

pub(crate) fn run(mut log: Reader, sink: SocketAddr) {
    let mut loki = Encoder::new(Options::default());
    let mut client = Client { sink, stream: None };
    let mut seq = 0;
    loop {
        let mut left = log.wait(BATCH, LINGER).min(BATCH);
        while left > 0 {
            let before = log.position;
            let read = log.read(left, |request, received_at| {
                seq += 1;
                loki.add(seq, &Sidecar { received_at, ..Sidecar::default() }, request);
            });
            if let Err(e) = read {
                eprintln!("floor-twin: {e}");
                std::process::exit(74);
            }
            left = left.saturating_sub(log.position - before);
        }
        for push in loki.finish(1, &|_| true) {
            while let Err(e) = client.post(&push.body) {
                eprintln!("floor-twin: push: {e}");
                client.stream = None;
                std::thread::sleep(RETRY);
            }
        }
        log.delivered();
    }
}

struct Client {
    sink: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    fn post(&mut self, body: &[u8]) -> io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let stream = TcpStream::connect_timeout(&self.sink, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER))?;
                empty.insert(stream)
            }
        };
        let head = format!(
            "POST /loki/api/v1/push HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-protobuf\r\n\
             content-encoding: snappy\r\ncontent-length: {}\r\n\r\n",
            self.sink,
            body.len()
        );
        let sent = stream.write_vectored(&[IoSlice::new(head.as_bytes()), IoSlice::new(body)])?;
        let rest = body.get(sent.wrapping_sub(head.len())..).ok_or(io::ErrorKind::WriteZero)?;
        stream.write_all(rest)?;
        match answer(stream)? {
            200..300 => Ok(()),
            status => Err(io::Error::other(format!("status {status}"))),
        }
    }
}

/// Reads one answer to its end, so that the connection can be used again. Gives the status.
fn answer(stream: &mut TcpStream) -> io::Result<u16> {
    let mut buffer = [0; 8192];
    let mut have = 0;
    let head = loop {
        let got = stream.read(buffer.get_mut(have..).unwrap_or(&mut []))?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += got;
        if let Some(end) = buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let status = text.get(9..12).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let mut rest = (head + length.unwrap_or(0)).saturating_sub(have);
    while rest > 0 {
        let room = rest.min(buffer.len());
        match stream.read(&mut buffer[..room])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => rest -= got,
        }
    }
    Ok(status)
}
