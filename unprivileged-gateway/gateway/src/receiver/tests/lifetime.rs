//! How connections end: by age, by a stop, by being slow.

use super::grpc::{LOGS, channel, export_logs, framed};
use super::*;
use crate::receiver::{connection, watch as head_watch};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tonic::client::Grpc;

const SOON: Duration = Duration::from_secs(5);

fn aged(age: Duration) -> Doors {
    open_with(config::Otlp { max_connection_age: age, ..config() }, &[], 64 << 20, Fake::new())
}

#[tokio::test]
async fn an_old_grpc_connection_finishes_its_calls_and_takes_no_more() -> Outcome {
    let doors = aged(Duration::from_millis(200));
    doors.intake.open(false);
    let socket = dial(doors.grpc).await?;
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(socket)).await?;
    let driver = tokio::spawn(connection);
    let request = || {
        let body = Full::new(Bytes::from(framed(0, &logs(1, 1).encode_to_vec())));
        Request::post(format!("http://a{LOGS}")).header(header::CONTENT_TYPE, "application/grpc").body(body)
    };
    let call = sender.send_request(request()?);
    let call = tokio::spawn(call);
    doors.intake.offers().wait_for(|offers| *offers == 1).await?;
    // GOAWAY shows as a sender that is never ready again, while the call goes on.
    timeout(SOON, async {
        while sender.ready().await.is_ok() && sender.send_request(request().unwrap()).await.is_ok() {}
    })
    .await
    .ok();
    assert!(!call.is_finished());
    doors.intake.open(true);
    let trailers = timeout(SOON, call).await???.into_body().collect().await?.trailers().cloned();
    assert_eq!(
        trailers.and_then(|trailers| trailers.get("grpc-status").cloned()).as_ref().map(|v| v.as_bytes()),
        Some(&b"0"[..])
    );
    timeout(SOON, driver).await??.ok();
    doors.tally.open.subscribe().wait_for(|open| *open == 0).await?;
    // A client with a channel just takes its next call to a new connection.
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    for _ in 0..5 {
        export_logs(&mut grpc, logs(1, 1)).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn an_old_http_connection_says_that_it_closes() -> Outcome {
    let doors = aged(Duration::from_millis(300));
    let socket = dial(doors.http).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let driver = tokio::spawn(connection);
    let request = || post("/v1/logs", &[], logs(1, 1).encode_to_vec());
    let (status, headers, _) = read(sender.send_request(request()).await?).await?;
    assert_eq!((status, headers.get(header::CONNECTION)), (StatusCode::OK, None));
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (status, headers, _) = read(sender.send_request(request()).await?).await?;
    assert_eq!((status, headers[header::CONNECTION].as_bytes()), (StatusCode::OK, &b"close"[..]));
    timeout(SOON, driver).await??.ok();
    Ok(())
}

#[tokio::test]
async fn a_stop_lets_calls_in_flight_finish_and_nobody_new_in() -> Outcome {
    let mut doors = open_doors();
    doors.intake.open(false);
    let (grpc_to, http_to) = (doors.grpc, doors.http);
    let grpc = tokio::spawn(async move {
        let mut grpc = Grpc::new(channel(grpc_to).await.unwrap());
        export_logs(&mut grpc, logs(1, 1)).await
    });
    let http = tokio::spawn(async move { send(http_to, post("/v1/logs", &[], logs(1, 1).encode_to_vec())).await });
    let idle = dial(doors.http).await?;
    doors.intake.offers().wait_for(|offers| *offers == 2).await?;
    doors.stop.take().map(|stop| stop.send(()));
    eventually("the doors are shut", || std::net::TcpStream::connect(doors.grpc).is_err()).await;
    assert!(!doors.served.is_finished());
    doors.intake.open(true);
    grpc.await??;
    assert_eq!(http.await??.0, StatusCode::OK);
    timeout(SOON, doors.served).await??;
    assert_eq!(doors.intake.got().len(), 2);
    drop(idle);
    Ok(())
}

#[tokio::test]
async fn a_stop_does_not_wait_longer_than_its_deadline() -> Outcome {
    let mut doors = open_doors();
    doors.intake.open(false);
    let to = doors.http;
    let _call = tokio::spawn(async move { send(to, post("/v1/logs", &[], logs(1, 1).encode_to_vec())).await.is_ok() });
    doors.intake.offers().wait_for(|offers| *offers == 1).await?;
    doors.stop.take().map(|stop| stop.send(()));
    timeout(DRAIN + Duration::from_secs(2), doors.served).await??;
    Ok(())
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut_off_and_an_idle_connection_is_not() -> Outcome {
    let doors = open_doors();
    let mut idle = dial(doors.http).await?;
    let mut slow = dial(doors.http).await?;
    slow.write_all(b"POST /v1/lo").await?;
    doors.tally.open.subscribe().wait_for(|open| *open == 2).await?;
    tokio::time::sleep(Duration::from_millis(100)).await; // the first bytes reach the door
    tokio::time::pause();
    tokio::time::advance(head_watch::HEAD + Duration::from_millis(1)).await;
    tokio::time::resume();
    assert_eq!(timeout(SOON, slow.read(&mut [0; 100])).await??, 0, "closed without a word");
    let body = logs(1, 1).encode_to_vec();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    idle.write_all(&[head.as_bytes(), &body].concat()).await?;
    let mut answer = vec![0; 400];
    let read = idle.read(&mut answer).await?;
    assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK\r\n"));
    Ok(())
}

#[tokio::test]
async fn a_silent_grpc_connection_is_closed_and_http_1_is_told_where_to_go() -> Outcome {
    let doors = open_doors();
    let mut silent = dial(doors.grpc).await?;
    let mut dribble = dial(doors.grpc).await?;
    dribble.write_all(b"PRI * HT").await?;
    doors.tally.open.subscribe().wait_for(|open| *open == 2).await?;
    tokio::time::sleep(Duration::from_millis(100)).await; // the first bytes reach the door
    tokio::time::pause();
    tokio::time::advance(connection::HANDSHAKE + Duration::from_millis(1)).await;
    tokio::time::resume();
    assert_eq!(timeout(SOON, silent.read(&mut [0; 10])).await??, 0);
    assert_eq!(timeout(SOON, dribble.read(&mut [0; 10])).await??, 0);
    let mut lost = dial(doors.grpc).await?;
    lost.write_all(b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await?;
    let mut answer = vec![0; 400];
    let read = timeout(SOON, lost.read(&mut answer)).await??;
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("4318"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn one_address_cannot_fill_the_lobby() -> Outcome {
    let lobby = connection::Lobby::new(64 << 20);
    let far: std::net::IpAddr = "192.0.2.7".parse()?;
    let enter = async |peer| {
        let place = lobby.places().acquire_owned().await.ok()?;
        lobby.enter(peer, place)
    };
    let mut inside = Vec::new();
    for _ in 0..connection::CONNECTIONS_PER_PEER_MAX {
        inside.push(enter(far).await.ok_or("turned away")?);
    }
    assert!(enter(far).await.is_none());
    assert!(enter("192.0.2.8".parse()?).await.is_some());
    inside.clear();
    assert!(enter(far).await.is_some());
    let windows: Vec<u64> = {
        let mut guests = Vec::new();
        for _ in 0..40 {
            guests.push(enter(far).await.ok_or("turned away")?);
        }
        guests.iter().map(|guest| guest.room()).collect()
    };
    assert_eq!((windows[0], windows[39]), (4 << 20, 64 << 10));
    assert!(windows.iter().sum::<u64>() <= (16 << 20) + 40 * (64 << 10));
    let again = enter(far).await.ok_or("turned away")?;
    assert_eq!(again.room(), 4 << 20, "windows come back");
    Ok(())
}
