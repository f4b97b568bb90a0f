//! The event stream and the curves.

use super::answers::{request, sidecar};
use super::*;

/// One open event stream, read event by event.
struct Stream {
    socket: TcpStream,
    text: String,
}

impl Stream {
    async fn open(office: &Office, query: &str) -> Stream {
        let mut socket = TcpStream::connect(office.address).await.unwrap();
        let request =
            format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream { socket, text: String::new() };
        while !stream.text.contains("\r\n\r\n") {
            assert!(stream.more().await, "{}", stream.text);
        }
        stream
    }

    /// False at the end.
    async fn more(&mut self) -> bool {
        let mut bytes = [0; 65536];
        let count = self.socket.read(&mut bytes).await.unwrap_or(0);
        self.text += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Data of the next event of that name; others are passed over.
    async fn next(&mut self, name: &str) -> serde_json::Value {
        let start = format!("event: {name}\ndata: ");
        loop {
            if let Some(at) = self.text.find(&start)
                && let Some(length) = self.text[at..].find("\n\n")
            {
                let data = self.text[at + start.len()..at + length].to_owned();
                self.text.drain(..at + length);
                return serde_json::from_str(&data).unwrap();
            }
            assert!(self.more().await, "the stream ended");
        }
    }
}

#[tokio::test]
async fn a_stream_tells_the_status_at_once_and_every_second() {
    let office = office().await;
    let mut stream = Stream::open(&office, "").await;
    assert!(stream.text.contains("text/event-stream") && stream.text.contains("no-store"));
    let first = stream.next("status").await;
    assert_eq!(first["destinations"][0]["sent"], 7);
    office.telemetry.accepted(Source::OtlpGrpc, Signal::Logs, 5, 1);
    loop {
        let later = stream.next("status").await;
        if later["signals"]["logs"]["accepted"] == 15 {
            break;
        }
    }
}

#[tokio::test]
async fn a_tail_sends_lines_that_match_and_says_what_it_left_out() {
    let office = office().await;
    let mut stream = Stream::open(&office, "?logs=1&level=error").await;
    office.view.logs(1, &sidecar(), &request(&[9, 17, 9])).unwrap();
    let event = stream.next("logs").await;
    assert_eq!((event["lines"].as_array().unwrap().len(), event["skipped"].as_u64()), (1, Some(0)));
    assert_eq!(event["lines"][0]["level"], "error");
    office.view.logs(2, &sidecar(), &request(&[17; 700])).unwrap();
    let (mut lines, mut skipped) = (0, 0);
    while lines + skipped < 700 {
        let event = stream.next("logs").await;
        let count = event["lines"].as_array().unwrap().len() as u64;
        assert!(count <= 200);
        lines += count;
        skipped += event["skipped"].as_u64().unwrap();
    }
    assert_eq!(lines + skipped, 700);
}

#[tokio::test]
async fn new_traces_are_announced() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message as _;
    let office = office().await;
    let mut stream = Stream::open(&office, "").await;
    stream.next("status").await;
    let spans = (1..4).map(|i| Span { trace_id: vec![i; 16], span_id: vec![1; 8], ..Span::default() }).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    office.view.traces(1, &sidecar(), &ExportTraceServiceRequest { resource_spans }.encode_to_vec()).unwrap();
    assert_eq!(stream.next("traces").await["new"], 3);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_end_with_the_office() {
    let office = office().await;
    let mut streams = Vec::new();
    for _ in 0..events::STREAMS_MAX {
        streams.push(Stream::open(&office, "").await);
    }
    assert_eq!(office.get("/api/v1/events").await.status, 503);
    assert_eq!(office.get("/api/v1/status").await.status, 200);
    let Office { _open, closed, .. } = office;
    drop(_open);
    for stream in &mut streams {
        while stream.more().await {}
        // The last chunk of the encoding: ended, not cut off.
        assert!(stream.text.ends_with("\r\n0\r\n\r\n"), "{}", stream.text);
    }
    closed.await.unwrap();
}

#[tokio::test]
async fn the_curves_begin_with_the_office() {
    let office = office().await;
    let mut stream = Stream::open(&office, "").await;
    stream.next("status").await;
    stream.next("status").await;
    let history = office.get("/api/v1/history?window_s=60").await.json();
    assert_eq!(history["step_s"], 1);
    let newest = |name: &str| history["series"][name].as_array().and_then(|series| series.last().cloned());
    assert_eq!(newest("wal_bytes"), Some(4096.0.into()));
    assert_eq!(newest("waiting_bytes"), Some(500.0.into()));
    assert_eq!(newest("out.loki/logs"), Some(0.0.into()));
    assert!(newest("in.logs").is_some() && newest("refused").is_some());
}
