//! Memory is asked for before bytes are taken, and given back whatever happens.

use super::grpc::{LOGS, channel, export_logs, framed};
use super::*;
use crate::budget::Share;
use crate::receiver::answer::RpcStatus;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic::client::Grpc;

const MIB: u64 = 1 << 20;

fn head(length: u64) -> String {
    format!(
        "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_announced_as_too_large_is_refused_unread() -> Outcome {
    let doors = open_doors();
    let mut socket = dial(doors.http).await?;
    socket.write_all(head(16 * MIB + 1).as_bytes()).await?;
    let mut answer = vec![0; 400];
    let read = socket.read(&mut answer).await?;
    assert!(answer[..read].starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    let calls = doors.tally.calls.lock().unwrap().clone();
    assert_eq!((calls[0].code, calls[0].wire_bytes), (400, 0));
    assert_eq!(*doors.tally.refused.lock().unwrap(), [("too_large", 1)]);
    Ok(())
}

/// A body of which the first piece is sent and the rest never comes.
struct Stalled(Option<Bytes>);

impl ::http_body::Body for Stalled {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<::http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(::http_body::Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }
}

type Sender = hyper::client::conn::http2::SendRequest<Stalled>;

async fn http2(
    to: SocketAddr,
) -> Result<(Sender, JoinHandle<hyper::Result<()>>), Box<dyn std::error::Error + Send + Sync>> {
    let socket = dial(to).await?;
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(socket)).await?;
    Ok((sender, tokio::spawn(connection)))
}

fn stalled(first: Vec<u8>) -> Request<Stalled> {
    let request = Request::post(format!("http://a{LOGS}")).header(header::CONTENT_TYPE, "application/grpc");
    request.body(Stalled(Some(first.into()))).unwrap()
}

#[tokio::test]
async fn a_message_announced_as_too_large_is_refused_unread() -> Outcome {
    let doors = open_doors();
    let (mut sender, _driver) = http2(doors.grpc).await?;
    let prefix = [&[0u8][..], &(16 * MIB as u32 + 1).to_be_bytes()].concat();
    let response = sender.send_request(stalled(prefix)).await?;
    let status = response.headers().get("grpc-status").unwrap();
    assert_eq!(status, "8");
    assert!(response.headers().get("grpc-status-details-bin").is_none(), "it must not be sent again");
    assert_eq!(doors.tally.calls.lock().unwrap()[0].wire_bytes, 5);
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_refused_at_the_limit() -> Outcome {
    let doors = open_with(config::Otlp { max_request: 100_000, ..config() }, &[], 64 << 20, Fake::new());
    let mut socket = dial(doors.http).await?;
    let head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n\
                transfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    for _ in 0..11 {
        socket.write_all(format!("2710\r\n{}\r\n", "\0".repeat(10_000)).as_bytes()).await?;
    }
    let mut answer = vec![0; 400];
    let read = socket.read(&mut answer).await?;
    assert!(answer[..read].starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    // Exactly the limit is fine.
    let padding = 100_000 - logs(1, 99_000).encoded_len();
    let exact = logs(1, 99_000 + padding).encode_to_vec();
    assert_eq!(exact.len(), 100_000);
    for packed in [false, true] {
        let (headers, body) =
            if packed { (&[("content-encoding", "gzip")][..], gzip(&exact)) } else { (&[][..], exact.clone()) };
        assert_eq!(send(doors.http, post("/v1/logs", headers, body)).await?.0, StatusCode::OK);
    }
    let over = logs(1, 99_001 + padding).encode_to_vec();
    let (status, _, body) = send(doors.http, post("/v1/logs", &[("content-encoding", "gzip")], gzip(&over))).await?;
    assert_eq!((status, RpcStatus::decode(&body[..])?.code), (StatusCode::BAD_REQUEST, 3));
    Ok(())
}

#[tokio::test]
async fn without_memory_not_a_byte_is_taken_and_the_sender_is_told_within_a_second() -> Outcome {
    let doors = open_doors();
    let all = doors.budget.take(Share::ReadAhead, doors.budget.limit(), Duration::ZERO).await?;
    let start = Instant::now();
    let body = logs(100, 100).encode_to_vec();
    let (status, headers, _) = send(doors.http, post("/v1/logs", &[], body.clone())).await?;
    assert_eq!((status, headers[header::RETRY_AFTER].as_bytes()), (StatusCode::SERVICE_UNAVAILABLE, &b"1"[..]));
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    let Err(status) = export_logs(&mut grpc, logs(100, 100)).await else { return Err("accepted".into()) };
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(RpcStatus::decode(status.details())?.details.len(), 1, "RetryInfo");
    assert!(start.elapsed() < Duration::from_secs(2), "two refusals took {:?}", start.elapsed());
    assert!(doors.tally.calls.lock().unwrap().iter().all(|call| call.wire_bytes == 0));
    assert_eq!(*doors.tally.refused.lock().unwrap(), [("budget", 1); 2]);
    drop(all);
    export_logs(&mut grpc, logs(100, 100)).await?;
    assert_eq!(send(doors.http, post("/v1/logs", &[], body)).await?.0, StatusCode::OK);
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn an_intake_that_waits_is_felt_by_senders_and_not_by_memory() -> Outcome {
    let budget = 8 * MIB;
    let doors = open_with(config::Otlp { max_request: MIB, ..config() }, &[], budget, Fake::new());
    doors.intake.open(false);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..30 {
        let (grpc, http) = (doors.grpc, doors.http);
        calls.spawn(async move {
            let body = logs(500, 1000);
            if n % 2 == 0 {
                let mut grpc = Grpc::new(channel(grpc).await.unwrap());
                return export_logs(&mut grpc, body).await.map(|_| ()).map_err(|status| {
                    assert_eq!(status.code(), Code::Unavailable);
                    assert!(!status.details().is_empty());
                });
            }
            let (status, headers, _) = send(http, post("/v1/logs", &[], body.encode_to_vec())).await.unwrap();
            let told = status == StatusCode::OK || headers.contains_key(header::RETRY_AFTER);
            assert!(told, "{status}");
            if status == StatusCode::OK { Ok(()) } else { Err(()) }
        });
    }
    // Those that found no memory are told so while the intake is still shut.
    let (mut refused, mut accepted, mut most) = (0, 0, 0);
    while let Ok(Some(call)) = tokio::time::timeout(Duration::from_millis(1500), calls.join_next()).await {
        assert!(call?.is_err(), "accepted by a shut intake");
        refused += 1;
        most = most.max(doors.budget.used());
    }
    assert!(most <= budget, "{most} bytes held with a budget of {budget}");
    let held = *doors.intake.offers().borrow();
    assert_eq!(held + refused, 30);
    assert!((3..=16).contains(&held), "{held} requests of half a MiB in a budget of 8 MiB");
    doors.intake.open(true);
    while let Some(call) = calls.join_next().await {
        accepted += usize::from(call?.is_ok());
    }
    assert_eq!((accepted, doors.intake.got().len()), (held, held), "nothing is kept whose call was refused");
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_midway_takes_its_permits_with_it() -> Outcome {
    let doors = open_doors();
    // In the middle of a body.
    let mut socket = dial(doors.http).await?;
    socket.write_all(head(MIB).as_bytes()).await?;
    socket.write_all(&vec![0; 300_000]).await?;
    let (mut sender, driver) = http2(doors.grpc).await?;
    let half = framed(0, &vec![0; 200_000])[..100_000].to_vec();
    let call = tokio::spawn(async move { sender.send_request(stalled(half)).await });
    eventually("half-read bodies are charged", || doors.budget.used() > MIB).await;
    drop(socket);
    driver.abort();
    call.abort();
    eventually("permits of half-read bodies given back", || doors.budget.used() == 0).await;
    // While the intake has not answered yet.
    doors.intake.open(false);
    let body = logs(10, 1000).encode_to_vec();
    let mut socket = dial(doors.http).await?;
    socket.write_all(&[head(body.len() as u64).as_bytes(), &body].concat()).await?;
    let (mut sender, driver) = http2(doors.grpc).await?;
    let whole = framed(0, &body);
    let request = Request::post(format!("http://a{LOGS}")).header(header::CONTENT_TYPE, "application/grpc");
    let request = request.header(header::CONTENT_LENGTH, whole.len()).body(Stalled(Some(whole.into())))?;
    let call = tokio::spawn(async move { sender.send_request(request).await });
    doors.intake.offers().wait_for(|offers| *offers >= 1).await?;
    eventually("both bodies are charged", || doors.budget.used() as usize >= 2 * body.len()).await;
    drop(socket);
    driver.abort();
    call.abort();
    eventually("permits of unanswered calls given back", || doors.budget.used() == 0).await;
    doors.tally.open.subscribe().wait_for(|open| *open == 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() -> Outcome {
    let doors = open_doors();
    let mut socket = dial(doors.http).await?;
    socket.write_all(head(MIB).as_bytes()).await?;
    socket.write_all(&vec![0; 300_000]).await?;
    eventually("the body is being read", || doors.budget.used() > 0).await;
    tokio::time::pause();
    tokio::time::advance(crate::receiver::body::BODY_IDLE + Duration::from_millis(1)).await;
    tokio::time::resume();
    let mut answer = vec![0; 400];
    let read = socket.read(&mut answer).await?;
    assert!(answer[..read].starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
    assert_eq!(*doors.tally.refused.lock().unwrap(), [("slow", 1)]);
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

/// A request that no packing makes much smaller.
fn dense(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut request = logs(1, 0);
    let line: String = std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect();
    request.resource_logs[0].scope_logs[0].log_records[0].body = text(&line);
    request.encode_to_vec()
}

#[tokio::test]
async fn unpacked_and_translated_bytes_are_paid_for_as_well() -> Outcome {
    let config = config::Otlp { max_request: 3 << 20, ..config() };
    let doors = open_with(config, &[], 24 * MIB, Fake::new());
    let body = dense(3_000_000);
    let request: ExportLogsServiceRequest = Message::decode(&body[..])?;
    let json = serde_json::to_vec(&request)?;
    let (protobuf, text) = ("application/x-protobuf", "application/json");
    for (kind, name, packed) in [
        (protobuf, "gzip", gzip(&body)),
        (protobuf, "zstd", zstd(&body)),
        (protobuf, "lz4", lz4(&body)),
        (text, "identity", json.clone()),
    ] {
        // Room for what comes over the wire, not for what comes out.
        let others = doors.budget.limit() - packed.len() as u64 - MIB;
        let others = doors.budget.take(Share::ReadAhead, others, Duration::ZERO).await?;
        let request = || post("/v1/logs", &[("content-type", kind), ("content-encoding", name)], packed.clone());
        assert_eq!(send(doors.http, request()).await?.0, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        drop(others);
        assert_eq!(send(doors.http, request()).await?.0, StatusCode::OK, "{name}");
    }
    assert_eq!(*doors.tally.refused.lock().unwrap(), [("budget", 1); 4]);
    // What waits for the intake is charged at its full size.
    let kinds = [(protobuf, "gzip", gzip(&body)), (text, "gzip", gzip(&json))];
    for (kind, encoding, packed) in kinds {
        doors.intake.open(false);
        let before = *doors.intake.offers().borrow();
        let request = post("/v1/logs", &[("content-type", kind), ("content-encoding", encoding)], packed);
        let call = tokio::spawn(send(doors.http, request));
        doors.intake.offers().wait_for(|offers| *offers > before).await?;
        assert_eq!(doors.budget.used(), body.len() as u64, "{kind}");
        doors.intake.open(true);
        assert_eq!(call.await??.0, StatusCode::OK);
    }
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}
