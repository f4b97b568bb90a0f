//! Every answer of the gRPC door, seen by tonic's client.

use super::*;
use crate::receiver::answer::{RETRY_INFO, RetryInfo, RpcStatus};
use crate::seam::RefusalClass;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

pub(super) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub(super) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(super) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

pub(super) async fn channel(to: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{to}"))?.connect().await
}

/// One unary call with any messages.
pub(super) async fn call<Q, A>(grpc: &mut Grpc<Channel>, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = ::http::uri::PathAndQuery::from_static(path);
    let answer = grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
    Ok(answer.into_inner())
}

pub(super) async fn export_logs(
    grpc: &mut Grpc<Channel>,
    request: ExportLogsServiceRequest,
) -> Result<ExportLogsServiceResponse, Status> {
    call(grpc, LOGS, request).await
}

#[tokio::test]
async fn an_export_is_kept_as_it_came_and_answered_with_an_empty_partial_success() -> Outcome {
    let doors = open_doors();
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    let answer = export_logs(&mut grpc, logs(3, 20)).await?;
    assert_eq!(answer.partial_success, Some(Default::default()));
    let got = doors.intake.got();
    assert_eq!((got[0].signal, got[0].source, got[0].items), (Signal::Logs, Source::OtlpGrpc, 3));
    assert_eq!((got[0].peer.as_str(), &got[0].body[..]), ("127.0.0.1", &logs(3, 20).encode_to_vec()[..]));
    let _: ExportTraceServiceResponse = call(&mut grpc, TRACES, traces(2)).await?;
    assert_eq!((doors.intake.got()[1].signal, doors.intake.got()[1].items), (Signal::Traces, 2));
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn gzip_zstd_and_large_messages_are_taken() -> Outcome {
    let doors = open_doors();
    let mut plain = Grpc::new(channel(doors.grpc).await?);
    // 12 MiB: many frames, many steps of the budget.
    export_logs(&mut plain, logs(12_000, 1000)).await?;
    for packing in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut grpc = Grpc::new(channel(doors.grpc).await?).send_compressed(packing);
        export_logs(&mut grpc, logs(500, 20)).await?;
    }
    let bodies: Vec<usize> = doors.intake.got().iter().map(|got| got.body.len()).collect();
    assert_eq!(bodies[0], logs(12_000, 1000).encoded_len());
    assert_eq!(bodies[1..], [logs(500, 20).encoded_len(); 2]);
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}

#[tokio::test]
async fn a_request_without_records_is_fine_and_goes_nowhere() -> Outcome {
    let doors = open_doors();
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    export_logs(&mut grpc, ExportLogsServiceRequest::default()).await?;
    export_logs(&mut grpc, ExportLogsServiceRequest { resource_logs: vec![ResourceLogs::default()] }).await?;
    assert!(doors.intake.got().is_empty() && doors.tally.refused.lock().unwrap().is_empty());
    Ok(())
}

#[tokio::test]
async fn what_nobody_takes_is_unimplemented() -> Outcome {
    let doors = open_doors();
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    for path in [METRICS, "/grpc.health.v1.Health/Check", "/"] {
        let refused = call::<_, ExportLogsServiceResponse>(&mut grpc, path, logs(1, 1)).await;
        assert_eq!(refused.err().map(|status| status.code()), Some(Code::Unimplemented), "{path}");
    }
    let doors = open_with(config(), &[], 64 << 20, Fake::serving(&[Signal::Metrics]));
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    let _: ExportLogsServiceResponse = call(&mut grpc, METRICS, ExportLogsServiceRequest::default()).await?;
    let refused = export_logs(&mut grpc, logs(1, 1)).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(Code::Unimplemented));
    Ok(())
}

#[tokio::test]
async fn a_refusal_of_the_intake_carries_retry_info() -> Outcome {
    let refusal =
        |class, retry_after| Refusal { class, reason: "full", message: "logs are full: 95 %".into(), retry_after };
    let wait = Some(Duration::from_millis(1500));
    for (class, retry, code, delay) in [
        (RefusalClass::Exhausted, wait, Code::ResourceExhausted, Some((1, 500_000_000))),
        (RefusalClass::Exhausted, None, Code::ResourceExhausted, Some((1, 0))),
        (RefusalClass::Unavailable, None, Code::Unavailable, Some((1, 0))),
        (RefusalClass::Invalid, wait, Code::InvalidArgument, None),
    ] {
        let doors = open_doors();
        doors.intake.refuse(refusal(class, retry));
        let mut grpc = Grpc::new(channel(doors.grpc).await?);
        let Err(status) = export_logs(&mut grpc, logs(4, 5)).await else { return Err("accepted".into()) };
        assert_eq!((status.code(), status.message()), (code, "logs are full: 95 %"));
        match delay {
            None => assert!(status.details().is_empty()),
            Some(delay) => {
                let details = RpcStatus::decode(status.details())?;
                assert_eq!((details.code, details.details[0].type_url.as_str()), (code as i32, RETRY_INFO));
                let info = RetryInfo::decode(&details.details[0].value[..])?.retry_delay.unwrap();
                assert_eq!((info.seconds, info.nanos), delay);
            }
        }
        assert_eq!(*doors.tally.refused.lock().unwrap(), [("full", 4)]);
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_credential_is_unauthenticated() -> Outcome {
    let password = config::SecretSource::Inline(config::Secret::new("sesame"));
    let auth = Auth::Basic(config::Basic { user: "ali".into(), password });
    let doors = open_with(config::Otlp { auth, ..config() }, &[], 64 << 20, Fake::new());
    let mut grpc = Grpc::new(channel(doors.grpc).await?);
    for (shown, expected) in [(None, Err(Code::Unauthenticated)), (Some("Basic YWxpOnNlc2FtZQ=="), Ok(()))] {
        grpc.ready().await?;
        let mut request = tonic::Request::new(logs(1, 1));
        if let Some(shown) = shown {
            request.metadata_mut().insert("authorization", shown.parse()?);
        }
        let path = ::http::uri::PathAndQuery::from_static(LOGS);
        let codec = ProstCodec::<ExportLogsServiceRequest, ExportLogsServiceResponse>::default();
        let answer = grpc.unary(request, path, codec).await;
        assert_eq!(answer.map(|_| ()).map_err(|status| status.code()), expected);
    }
    Ok(())
}

/// One call with hand-made bytes and headers; the gRPC status, wherever it stands.
pub(super) async fn raw(
    to: SocketAddr,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<(u16, HeaderMap), Box<dyn std::error::Error + Send + Sync>> {
    let socket = dial(to).await?;
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(socket)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::post(format!("http://a{LOGS}"));
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header(header::CONTENT_TYPE, "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body.into()))?).await?;
    let mut headers = response.headers().clone();
    let status = response.status();
    if let Some(trailers) = response.into_body().collect().await?.trailers() {
        headers.extend(trailers.clone());
    }
    drop(sender);
    driver.abort();
    match headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok()) {
        Some(code) => Ok((code, headers)),
        None => Ok((status.as_u16(), headers)),
    }
}

pub(super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

#[tokio::test]
async fn broken_framing_is_a_status_and_not_a_closed_connection() -> Outcome {
    let doors = open_doors();
    let whole = logs(2, 10).encode_to_vec();
    let gzip_named = [("grpc-encoding", "gzip")];
    /// Headers, body, gRPC status.
    type Case<'a> = (&'a [(&'a str, &'a str)], Vec<u8>, u16);
    let cases: [Case<'_>; 13] = [
        (&[], framed(0, &whole), 0),
        (&[], Vec::new(), 3),
        (&[], vec![0, 0, 0], 3),
        (&[], framed(0, &whole)[..20].to_vec(), 3),
        (&[], [framed(0, &whole), framed(0, &whole)].concat(), 3),
        (&[], [framed(0, &whole), vec![0]].concat(), 3),
        (&[], framed(1, &whole), 3),
        (&[], framed(2, &whole), 3),
        (&gzip_named, framed(0, &whole), 0),
        (&gzip_named, framed(1, &gzip(&whole)), 0),
        (&gzip_named, framed(1, &whole), 3),
        (&[("grpc-encoding", "snappy")], framed(1, &snappy_stream(&whole)), 0),
        (&[("content-type", "application/grpc+proto")], framed(0, &whole), 0),
    ];
    for (n, (headers, body, expected)) in cases.into_iter().enumerate() {
        assert_eq!(raw(doors.grpc, headers, body).await?.0, expected, "case {n}");
    }
    let (code, headers) = raw(doors.grpc, &[("grpc-encoding", "br")], framed(1, &whole)).await?;
    assert_eq!((code, headers["grpc-accept-encoding"].as_bytes()), (12, &b"identity,gzip,zstd,snappy"[..]));
    let (code, _) = raw(doors.grpc, &[("content-type", "application/grpcx")], framed(0, &whole)).await?;
    assert_eq!(code, 415);
    assert_eq!(doors.intake.got().len(), 5);
    eventually("permits given back", || doors.budget.used() == 0).await;
    Ok(())
}
