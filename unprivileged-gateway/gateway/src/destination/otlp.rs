//! OTLP out: Tempo, another collector, anything that speaks it.
//!
//! Image: envelopes from one sender are put into a larger envelope unopened. Requests lie in the log as they came, and requests
//! laid end to end are one request, so a batch is a list of slices. Weakness: what the sender encoded badly is passed on badly;
//! the receiver has checked its structure, not its taste.

use crate::config::{self, Compression, OutTls, Protocol};
use crate::destination::answer::{Answer, judge_otlp_grpc, judge_otlp_http, partial_success};
use crate::destination::http::{HttpClient, SetupError, chain, client_tls};
use crate::destination::raw_codec::RawCodec;
use crate::destination::tls::client_config;
use crate::seam::Signal;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};

/// Largest request that is put together from several records: gRPC receivers refuse more than 4 MiB unless told otherwise.
pub const REQUEST_BYTES: usize = 3 << 20;
/// Largest answer that is read. Unit: bytes.
const ANSWER_MAX: usize = 64 << 10;

/// One OTLP backend for one signal.
pub struct OtlpOut {
    transport: Transport,
    compression: Compression,
}

enum Transport {
    Grpc { client: Box<tonic::client::Grpc<Channel>>, path: PathAndQuery, common: Box<config::Common> },
    Http(Box<HttpClient>),
}

/// `host:port` with `tls: off` is plain text, without it TLS; a scheme says it itself.
pub fn url_of(destination: &config::OtlpOut) -> String {
    match destination.endpoint.contains("://") {
        true => destination.endpoint.clone(),
        false if destination.common.tls == Some(OutTls::Off) => format!("http://{}", destination.endpoint),
        false => format!("https://{}", destination.endpoint),
    }
}

impl OtlpOut {
    pub fn new(name: &str, config: &config::OtlpOut, signal: Signal) -> Result<OtlpOut, SetupError> {
        let other = |why: String| SetupError::Other { destination: format!("otlp/{name}"), why };
        let url = url_of(config);
        let transport = match config.protocol {
            Protocol::Grpc => {
                let path = match signal {
                    Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                    Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
                    Signal::Logs | Signal::Profiles => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                };
                let channel = channel(&url, &config.common).map_err(other)?;
                let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(ANSWER_MAX);
                client = match config.compression {
                    Compression::None => client,
                    Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
                    Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
                };
                Transport::Grpc {
                    client: Box::new(client),
                    path: PathAndQuery::from_static(path),
                    common: Box::new(config.common.clone()),
                }
            }
            Protocol::Http => {
                let mut headers = HeaderMap::new();
                headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                match config.compression {
                    Compression::None => {}
                    Compression::Gzip => {
                        drop(headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip")))
                    }
                    Compression::Zstd => {
                        drop(headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("zstd")))
                    }
                }
                let url = format!("{}/v1/{}", url.trim_end_matches('/'), signal.name());
                Transport::Http(Box::new(HttpClient::new(&format!("otlp/{name}"), &url, headers, &config.common)?))
            }
        };
        Ok(OtlpOut { transport, compression: config.compression })
    }

    /// Sends the parts as one request. Returns the answer and the bytes put on the wire (before TLS).
    pub async fn send(&mut self, parts: Vec<Bytes>) -> (Answer, u64) {
        let raw: u64 = parts.iter().map(|p| p.len() as u64).sum();
        match &mut self.transport {
            Transport::Grpc { client, path, common } => (grpc(client, path.clone(), common, parts).await, raw),
            Transport::Http(client) => {
                let body = match compress(self.compression, parts) {
                    Ok(body) => body,
                    Err(e) => {
                        return (
                            Answer::Retry {
                                status: -1,
                                after: None,
                                text: format!("compressing the request failed: {e}"),
                            },
                            0,
                        );
                    }
                };
                let bytes = body.len() as u64;
                match client.post(body).await {
                    Ok(r) => (judge_otlp_http(r.status, &r.headers, &r.body), bytes),
                    Err(text) => (Answer::Retry { status: -1, after: None, text }, bytes),
                }
            }
        }
    }
}

fn channel(url: &str, common: &config::Common) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| format!("endpoint {url}: {e}"))?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .timeout(common.timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| e.to_string())?;
    if !url.starts_with("https://") {
        return Ok(endpoint.connect_lazy());
    }
    let tls = client_config(&client_tls(common), &[b"h2"]).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: http::Uri| dial(uri, connector.clone()))))
}

/// TCP, then TLS for the host of the URL.
async fn dial(
    uri: http::Uri,
    tls: tokio_rustls::TlsConnector,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let socket = tokio::net::TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    socket.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::try_from(host).map_err(std::io::Error::other)?;
    Ok(TokioIo::new(tls.connect(name, socket).await?))
}

async fn grpc(
    client: &mut tonic::client::Grpc<Channel>,
    path: PathAndQuery,
    common: &config::Common,
    parts: Vec<Bytes>,
) -> Answer {
    let mut request = tonic::Request::new(parts);
    if let Err(text) = metadata(common, request.metadata_mut()) {
        return Answer::Retry { status: -1, after: None, text };
    }
    if let Err(e) = client.ready().await {
        return Answer::Retry { status: -1, after: None, text: chain(&e) };
    }
    match client.unary(request, path, RawCodec).await {
        Ok(response) => partial_success(&response.into_inner()),
        Err(status) => judge_otlp_grpc(&status),
    }
}

/// Headers and credentials, read now.
fn metadata(common: &config::Common, to: &mut MetadataMap) -> Result<(), String> {
    for (name, value) in &common.headers {
        let value = value.read().map_err(|e| e.to_string())?;
        let key = AsciiMetadataKey::from_str(name).map_err(|_| format!("header {name} is no gRPC metadata name"))?;
        let value =
            AsciiMetadataValue::from_str(value.expose()).map_err(|_| format!("header {name} is not visible ASCII"))?;
        to.insert(key, value);
    }
    if let Some(value) = common.authorization().map_err(|e| e.to_string())? {
        let value = AsciiMetadataValue::from_str(value.expose()).map_err(|_| "the credential is not visible ASCII")?;
        to.insert("authorization", value);
    }
    Ok(())
}

fn compress(how: Compression, parts: Vec<Bytes>) -> std::io::Result<Bytes> {
    let total = parts.iter().map(Bytes::len).sum();
    match how {
        Compression::None if parts.len() == 1 => Ok(parts.into_iter().next().unwrap_or_default()),
        Compression::None => {
            let mut body = Vec::with_capacity(total);
            parts.iter().for_each(|p| body.extend_from_slice(p));
            Ok(body.into())
        }
        Compression::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::with_capacity(total / 4), flate2::Compression::fast());
            parts.iter().try_for_each(|p| out.write_all(p))?;
            Ok(out.finish()?.into())
        }
        Compression::Zstd => {
            let mut out = zstd::stream::Encoder::new(Vec::with_capacity(total / 4), 1)?;
            parts.iter().try_for_each(|p| out.write_all(p))?;
            Ok(out.finish()?.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_laid_end_to_end_are_one_request() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Request;
        use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
        use prost::Message;
        let one = |url: &str| Request {
            resource_spans: vec![ResourceSpans { schema_url: url.into(), ..Default::default() }],
        };
        let parts = vec![Bytes::from(one("a").encode_to_vec()), Bytes::from(one("b").encode_to_vec())];
        let body = compress(Compression::None, parts).expect("memory");
        let both = Request::decode(body).expect("one request");
        let urls: Vec<_> = both.resource_spans.iter().map(|r| r.schema_url.as_str()).collect();
        assert_eq!(urls, ["a", "b"]);
    }
}
