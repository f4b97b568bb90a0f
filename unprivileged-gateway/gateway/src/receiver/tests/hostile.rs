//! Bombs, mutations and noise: a clean no, bounded memory, and the doors stay open.

use super::grpc::{framed, raw};
use super::*;
use crate::receiver::answer::RpcStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// 8 MiB of zeros, packed.
fn bomb(pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    pack(&vec![0; 8 << 20])
}

#[tokio::test]
async fn bombs_are_defused_in_any_packing() -> Outcome {
    // A budget that could not hold what the bombs unpack to: they are stopped by their limits, not by the lack of memory.
    let config = config::Otlp { max_request: 3 << 20, ..config() };
    let doors = open_with(config, &[], 16 << 20, Fake::new());
    let mut lying_block = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    lying_block.extend_from_slice(&[0; 100]);
    // A zstd frame that asks for a window of 1 GiB: magic, descriptor (no size), window byte.
    let wide_window = [&0xfd2f_b528u32.to_le_bytes()[..], &[0x00, 20 << 3], &[0x03, 0, 0, 0]].concat();
    let cases: [(&str, Vec<u8>); 8] = [
        ("gzip", bomb(gzip)),
        ("zstd", bomb(zstd)),
        ("zlib", bomb(zlib)),
        ("lz4", bomb(lz4)),
        ("snappy", bomb(snappy_stream)),
        ("snappy", snap::raw::Encoder::new().compress_vec(&vec![0; 6 << 20])?),
        ("snappy", lying_block),
        ("zstd", wide_window),
    ];
    for (n, (name, body)) in cases.into_iter().enumerate() {
        let (status, _, answer) = send(doors.http, post("/v1/logs", &[("content-encoding", name)], body)).await?;
        let status_body = RpcStatus::decode(&answer[..])?;
        assert_eq!((status, status_body.code), (StatusCode::BAD_REQUEST, 3), "case {n}, {name}: {status_body:?}");
    }
    let (code, headers) = raw(doors.grpc, &[("grpc-encoding", "gzip")], framed(1, &bomb(gzip))).await?;
    assert_eq!((code, headers.get("grpc-status-details-bin")), (8, None));
    assert!(doors.intake.got().is_empty());
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn a_small_body_may_be_as_repetitive_as_it_likes_and_a_large_one_may_not() -> Outcome {
    let doors = open_doors();
    for (size, expected) in [(900_000, StatusCode::OK), (4 << 20, StatusCode::BAD_REQUEST)] {
        let body = logs(1, size).encode_to_vec();
        let packed = zstd(&body);
        assert!(packed.len() * 100 < body.len());
        let (status, ..) = send(doors.http, post("/v1/logs", &[("content-encoding", "zstd")], packed)).await?;
        assert_eq!(status, expected, "{size}");
    }
    Ok(())
}

/// Changes a few bytes: flips, cuts, doublings, lengths blown up.
fn mutate(random: &mut fastrand::Rng, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..random.usize(1..3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.usize(..bytes.len());
        match random.u8(..9) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes.truncate(at),
            3 => bytes[at] = 0xff,
            5..=8 => bytes[at] = bytes[at].wrapping_add(1), // often still a request, with other content
            4 => {
                let piece = bytes[at..(at + random.usize(1..20)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => drop(bytes.drain(at..(at + random.usize(1..20)).min(bytes.len()))),
        }
    }
    bytes
}

fn items_of(bytes: &[u8]) -> Option<u32> {
    let request = ExportLogsServiceRequest::decode(bytes).ok()?;
    Some(request.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|scope| scope.log_records.len() as u32).sum())
}

#[tokio::test]
async fn two_thousand_mutated_requests_get_the_verdict_that_prost_gives() -> Outcome {
    let doors = open_doors();
    let mut random = fastrand::Rng::with_seed(20);
    let (mut fine, mut kept) = (0, 0);
    let socket = dial(doors.http).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    for n in 0..2000 {
        let whole = logs(random.usize(..4), random.usize(..40)).encode_to_vec();
        let bytes = mutate(&mut random, &whole);
        let expected = items_of(&bytes);
        let accepted = if n % 4 == 0 {
            let code = raw(doors.grpc, &[], framed(0, &bytes)).await?.0;
            assert!(code == 0 || code == 3, "gRPC status {code}");
            code == 0
        } else {
            sender.ready().await?;
            let (status, ..) = read(sender.send_request(post("/v1/logs", &[], bytes.clone())).await?).await?;
            assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{status}");
            status == StatusCode::OK
        };
        assert_eq!(accepted, expected.is_some(), "case {n}: {bytes:?}");
        fine += usize::from(accepted);
        if let Some(items @ 1..) = expected {
            kept += 1;
            let last = doors.intake.got().pop().ok_or("nothing kept")?;
            assert_eq!((last.items, &last.body[..]), (items, &bytes[..]), "case {n}");
        }
    }
    assert_eq!(doors.intake.got().len(), kept);
    assert!((200..1800).contains(&fine), "{fine} of 2000 accepted: the mutations say nothing");
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn mutated_compressed_bodies_are_taken_or_refused_cleanly() -> Outcome {
    let doors = open_doors();
    let mut random = fastrand::Rng::with_seed(21);
    let body = logs(20, 30).encode_to_vec();
    let packings: [(&str, Vec<u8>); 6] = [
        ("gzip", gzip(&body)),
        ("zstd", zstd(&body)),
        ("zlib", zlib(&body)),
        ("snappy", snap::raw::Encoder::new().compress_vec(&body)?),
        ("snappy", snappy_stream(&body)),
        ("lz4", lz4(&body)),
    ];
    for n in 0..900 {
        let (name, whole) = &packings[n % packings.len()];
        let packed = mutate(&mut random, whole);
        let (status, ..) = send(doors.http, post("/v1/logs", &[("content-encoding", name)], packed)).await?;
        assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{name}: {status}");
    }
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn noise_on_the_line_closes_the_line_and_nothing_else() -> Outcome {
    let doors = open_doors();
    let mut random = fastrand::Rng::with_seed(22);
    for n in 0..60 {
        let to = if n % 2 == 0 { doors.grpc } else { doors.http };
        let mut socket = dial(to).await?;
        let mut noise = vec![0; random.usize(1..2000)];
        random.fill(&mut noise);
        if n % 3 == 0 {
            noise.splice(..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        let _ = socket.write_all(&noise).await;
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    doors.tally.open.subscribe().wait_for(|open| *open == 0).await?;
    assert_eq!(send(doors.http, post("/v1/logs", &[], logs(1, 1).encode_to_vec())).await?.0, StatusCode::OK);
    assert_eq!(raw(doors.grpc, &[], framed(0, &logs(1, 1).encode_to_vec())).await?.0, 0);
    Ok(())
}
