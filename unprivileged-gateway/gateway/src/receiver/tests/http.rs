//! Every answer of the HTTP door.

use super::*;
use crate::receiver::answer::{RetryInfo, RpcStatus};
use crate::seam::RefusalClass;
use std::time::Duration;

fn status_of(body: &[u8]) -> RpcStatus {
    RpcStatus::decode(body).unwrap()
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn a_protobuf_export_is_kept_as_it_came_and_answered_with_an_empty_partial_success() -> Outcome {
    let doors = open_doors();
    let body = logs(3, 20).encode_to_vec();
    let (status, headers, answer) = send(doors.http, post("/v1/logs", &[], body.clone())).await?;
    assert_eq!(
        (status, content_type(&headers), &answer[..]),
        (StatusCode::OK, "application/x-protobuf", &[0x0a, 0][..])
    );
    let got = doors.intake.got();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].signal, got[0].source, got[0].items), (Signal::Logs, Source::OtlpHttp, 3));
    assert_eq!((got[0].peer.as_str(), &got[0].body[..]), ("127.0.0.1", &body[..]));
    assert_eq!(*doors.tally.accepted.lock().unwrap(), 3);
    let (status, ..) = send(doors.http, post("/v1/traces", &[], traces(2).encode_to_vec())).await?;
    assert_eq!((status, doors.intake.got()[1].items), (StatusCode::OK, 2));
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn a_json_export_is_kept_as_protobuf_and_answered_in_json() -> Outcome {
    let doors = open_doors();
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"5","body":{"stringValue":"hello"},
        "traceId":"000102030405060708090A0B0C0D0E0F"}]}]}]}"#;
    let headers = [("content-type", "application/json; charset=utf-8")];
    let (status, headers, answer) = send(doors.http, post("/v1/logs", &headers, json)).await?;
    assert_eq!((status, content_type(&headers)), (StatusCode::OK, "application/json"));
    assert_eq!(&answer[..], br#"{"partialSuccess":{}}"#);
    let kept = ExportLogsServiceRequest::decode(&doors.intake.got()[0].body[..])?;
    let record = &kept.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((record.time_unix_nano, &record.body, record.trace_id[15]), (5, &text("hello"), 15));
    Ok(())
}

#[tokio::test]
async fn every_compression_is_unpacked_before_it_is_kept() -> Outcome {
    let doors = open_doors();
    let body = logs(200, 100).encode_to_vec();
    let packed: [(&str, Vec<u8>); 9] = [
        ("identity", body.clone()),
        ("gzip", gzip(&body)),
        ("zstd", zstd(&body)),
        ("zlib", zlib(&body)),
        ("deflate", zlib(&body)),
        ("snappy", snap::raw::Encoder::new().compress_vec(&body)?),
        ("snappy", snappy_stream(&body)),
        ("lz4", lz4(&body)),
        ("gzip", [gzip(&body[..1000]), gzip(&body[1000..])].concat()), // members in a row are one stream (RFC 1952)
    ];
    for (n, (name, packed)) in packed.into_iter().enumerate() {
        let (status, ..) = send(doors.http, post("/v1/logs", &[("content-encoding", name)], packed)).await?;
        assert_eq!(status, StatusCode::OK, "{name}");
        assert_eq!(&doors.intake.got()[n].body[..], &body[..], "{name}");
    }
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn a_chunked_body_is_taken_like_any_other() -> Outcome {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let doors = open_doors();
    let body = gzip(&logs(50, 100).encode_to_vec());
    let mut socket = dial(doors.http).await?;
    let head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n\
                content-encoding: gzip\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    for chunk in body.chunks(100) {
        socket.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        socket.write_all(chunk).await?;
        socket.write_all(b"\r\n").await?;
    }
    socket.write_all(b"0\r\n\r\n").await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(doors.intake.got()[0].items, 50);
    Ok(())
}

#[tokio::test]
async fn a_request_without_records_is_fine_and_goes_nowhere() -> Outcome {
    let doors = open_doors();
    let empty_scope = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs::default()] };
    for body in [Vec::new(), empty_scope.encode_to_vec()] {
        let (status, _, answer) = send(doors.http, post("/v1/logs", &[], body)).await?;
        assert_eq!((status, &answer[..]), (StatusCode::OK, &[0x0a, 0][..]));
    }
    let (status, ..) = send(doors.http, post("/v1/logs", &[("content-type", "application/json")], "{}")).await?;
    assert_eq!(status, StatusCode::OK);
    assert!(doors.intake.got().is_empty() && doors.tally.refused.lock().unwrap().is_empty());
    Ok(())
}

#[tokio::test]
async fn wrong_method_and_wrong_content_type_get_the_texts_that_senders_know() -> Outcome {
    let doors = open_doors();
    let get = Request::get("/v1/logs").header(header::HOST, "a").body(Full::default())?;
    let (status, headers, body) = send(doors.http, get).await?;
    assert_eq!((status, content_type(&headers)), (StatusCode::METHOD_NOT_ALLOWED, "text/plain"));
    assert_eq!(&body[..], b"405 method not allowed, supported: [POST]");
    for kind in ["text/plain", "application/x-protobuf2", ""] {
        let (status, headers, body) = send(doors.http, post("/v1/logs", &[("content-type", kind)], "{}")).await?;
        assert_eq!((status, content_type(&headers)), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "text/plain"));
        let expected = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
        assert_eq!(&body[..], expected.as_bytes());
    }
    Ok(())
}

#[tokio::test]
async fn what_nobody_takes_is_not_found() -> Outcome {
    let doors = open_doors();
    for path in ["/v1/metrics", "/v1development/profiles", "/", "/v1/logs/"] {
        let (status, ..) = send(doors.http, post(path, &[], "")).await?;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let doors = open_with(config(), &[], 64 << 20, Fake::serving(&[Signal::Metrics]));
    let (status, ..) = send(doors.http, post("/v1/metrics", &[], "")).await?;
    assert_eq!(status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn an_unreadable_body_is_400_with_a_status_in_the_senders_encoding() -> Outcome {
    let doors = open_doors();
    let whole = logs(5, 50).encode_to_vec();
    let cases: [(&str, Vec<u8>); 6] = [
        ("", b"\xff\xff\xff".to_vec()),
        ("", whole[..whole.len() - 3].to_vec()),
        ("gzip", b"not gzip".to_vec()),
        ("gzip", gzip(&whole)[..40].to_vec()),
        ("zstd", zstd(&whole)[..40].to_vec()),
        ("br", whole.clone()),
    ];
    for (encoding, body) in cases {
        let headers = [("content-encoding", encoding)];
        let (status, headers, body) = send(doors.http, post("/v1/logs", &headers, body)).await?;
        assert_eq!((status, content_type(&headers)), (StatusCode::BAD_REQUEST, "application/x-protobuf"), "{encoding}");
        assert_eq!(status_of(&body).code, 3, "{encoding}");
        assert!(!status_of(&body).message.is_empty());
    }
    let json = [("content-type", "application/json")];
    for body in ["", "[]", "{", r#"{"resourceLogs":3}"#, r#"{"resourceLogs":[{}]} x"#] {
        let (status, headers, body) = send(doors.http, post("/v1/logs", &json, body)).await?;
        assert_eq!((status, content_type(&headers)), (StatusCode::BAD_REQUEST, "application/json"));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body)?["code"], 3);
    }
    assert!(doors.intake.got().is_empty());
    let refused = doors.tally.refused.lock().unwrap().clone();
    assert_eq!(refused.iter().filter(|(reason, _)| *reason == "malformed").count(), 10);
    assert_eq!(refused.iter().filter(|(reason, _)| *reason == "unsupported").count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_refusal_of_the_intake_is_spoken_in_http() -> Outcome {
    let refusal = |class, retry_after| Refusal { class, reason: "full", message: "logs are full".into(), retry_after };
    let minute = Some(Duration::from_millis(1500));
    for (class, retry, status, code, wait) in [
        (RefusalClass::Exhausted, minute, StatusCode::TOO_MANY_REQUESTS, 8, Some("2")),
        (RefusalClass::Exhausted, None, StatusCode::TOO_MANY_REQUESTS, 8, Some("1")),
        (RefusalClass::Unavailable, minute, StatusCode::SERVICE_UNAVAILABLE, 14, Some("2")),
        (RefusalClass::Invalid, None, StatusCode::BAD_REQUEST, 3, None),
    ] {
        let doors = open_doors();
        doors.intake.refuse(refusal(class, retry));
        let (got, headers, body) = send(doors.http, post("/v1/logs", &[], logs(4, 5).encode_to_vec())).await?;
        assert_eq!((got, status_of(&body).code), (status, code));
        assert_eq!(headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap()), wait);
        assert_eq!(status_of(&body).message, "logs are full");
        let details = status_of(&body).details;
        assert_eq!(details.len(), usize::from(wait.is_some()));
        if let Some(any) = details.first() {
            let delay = RetryInfo::decode(&any.value[..])?.retry_delay.unwrap();
            assert_eq!((delay.seconds, delay.nanos), if retry.is_some() { (1, 500_000_000) } else { (1, 0) });
        }
        assert_eq!(*doors.tally.refused.lock().unwrap(), [("full", 4)]);
        let json = [("content-type", "application/json")];
        let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
        let (got, _, body) = send(doors.http, post("/v1/logs", &json, body)).await?;
        assert_eq!(
            (got, serde_json::from_slice::<serde_json::Value>(&body)?["code"].as_i64()),
            (status, Some(code.into()))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_another_host_may_not_send() -> Outcome {
    let doors = open_with(config(), &["Shop.example", "odd.example:8443"], 64 << 20, Fake::new());
    let body = logs(1, 1).encode_to_vec();
    for origin in
        ["https://evil.example", "null", "https://shop.example.evil.example", "odd.example", "http://localhost"]
    {
        let (status, ..) = send(doors.http, post("/v1/logs", &[("origin", origin)], body.clone())).await?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
    }
    assert!(doors.intake.got().is_empty());
    for origin in ["https://shop.example", "http://SHOP.example:8080", "https://odd.example:8443"] {
        let (status, ..) = send(doors.http, post("/v1/logs", &[("origin", origin)], body.clone())).await?;
        assert_eq!(status, StatusCode::OK, "{origin}");
    }
    Ok(())
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() -> Outcome {
    let doors = open_doors();
    let long = "a".repeat(20 << 10);
    let (status, ..) = send(doors.http, post("/v1/logs", &[("x-long", &long)], "")).await?;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let names: Vec<String> = (0..70).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let (status, ..) = send(doors.http, post("/v1/logs", &many, "")).await?;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    Ok(())
}

#[tokio::test]
async fn a_missing_or_wrong_credential_lets_nothing_in() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("token");
    std::fs::write(&path, "sesame\n")?;
    let auth = Auth::Bearer(config::SecretSource::File(path.clone()));
    let doors = open_with(config::Otlp { auth, ..config() }, &[], 64 << 20, Fake::new());
    let body = logs(1, 1).encode_to_vec();
    for shown in ["", "Bearer sesam", "Bearer sesame2", "Basic sesame", "sesame"] {
        let headers = [("authorization", shown)];
        let headers = if shown.is_empty() { &[][..] } else { &headers[..] };
        let (status, answer, _) = send(doors.http, post("/v1/logs", headers, body.clone())).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{shown}");
        assert_eq!(answer.get(header::WWW_AUTHENTICATE).map(|value| value.as_bytes()), Some(&b"Bearer"[..]));
    }
    assert!(doors.intake.got().is_empty());
    for shown in ["Bearer sesame", "bearer sesame"] {
        let (status, ..) = send(doors.http, post("/v1/logs", &[("authorization", shown)], body.clone())).await?;
        assert_eq!(status, StatusCode::OK, "{shown}");
    }
    Ok(())
}
