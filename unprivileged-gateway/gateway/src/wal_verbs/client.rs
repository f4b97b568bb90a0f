//! A telephone to the gateway that holds the folder: one call a question, over HTTP/1.1 on port 12345.
//!
//! The number is `http.listen`, the password whatever `http.auth` asks for (the token file beside the log, unless something else is
//! configured). With `http.tls` the voice must be the one of `http.tls.cert_file`: that very certificate, not merely one that some
//! authority signed. Weakness: with `auth: mtls` there is no client certificate to show, so that door stays closed to us.

use crate::admin::TOKEN_FILE;
use crate::config::{Auth, Config, Secret};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A gateway on this machine accepts at once or not at all.
const CONNECT: Duration = Duration::from_secs(3);
/// Largest answer that is read; a quarantined piece or a page of an export with one frame of 64 MiB fits. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Largest token file that is read.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Impossible(String),
    #[error(
        "its API on {address} cannot be reached: {why}; name its configuration with -c, or its address with --http"
    )]
    Unreachable { address: SocketAddr, why: String },
    #[error("its API on {address} answers {status}: {message}")]
    Refused { address: SocketAddr, status: u16, message: String },
}

pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Client, Trouble> {
        let listen = config.http.listen;
        if listen.port() == 0 {
            return Err(Trouble::Impossible(
                "http.listen leaves the port to the system, so its API cannot be found".into(),
            ));
        }
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Client {
            runtime: runtime.map_err(|e| Trouble::Impossible(format!("no event loop could be started: {e}")))?,
            address: SocketAddr::new(ip, listen.port()),
            authorization: authorization(config)?,
            tls: tls(config)?,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` below `/api/v1/wal/`.
    pub(super) fn get(&self, path: &str, wait: Duration) -> Result<Value, Trouble> {
        self.ask(Method::GET, path, wait)
    }

    pub(super) fn post(&self, path: &str, wait: Duration) -> Result<Value, Trouble> {
        self.ask(Method::POST, path, wait)
    }

    fn ask(&self, method: Method, path: &str, wait: Duration) -> Result<Value, Trouble> {
        let mut request = Request::new(Empty::<bytes::Bytes>::new());
        let impossible = |e: &dyn std::fmt::Display| Trouble::Impossible(format!("/api/v1/wal/{path}: {e}"));
        *request.method_mut() = method;
        *request.uri_mut() = format!("/api/v1/wal/{path}").parse().map_err(|e| impossible(&e))?;
        let host = HeaderValue::from_str(&self.address.to_string()).map_err(|e| impossible(&e))?;
        request.headers_mut().insert(header::HOST, host);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        self.runtime.block_on(async {
            match timeout(wait, self.call(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.unreachable(format!("no answer within {} s", wait.as_secs()))),
            }
        })
    }

    fn unreachable(&self, why: impl ToString) -> Trouble {
        Trouble::Unreachable { address: self.address, why: why.to_string() }
    }

    async fn call(&self, request: Request<Empty<bytes::Bytes>>) -> Result<Value, Trouble> {
        let socket = match timeout(CONNECT, TcpStream::connect(self.address)).await {
            Ok(connected) => connected.map_err(|e| self.unreachable(e))?,
            Err(_) => return Err(self.unreachable(format!("nobody accepts within {} s", CONNECT.as_secs()))),
        };
        let Some(tls) = &self.tls else { return self.talk(socket, request).await };
        let name = ServerName::IpAddress(self.address.ip().into());
        let connected = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, socket).await;
        self.talk(connected.map_err(|e| self.unreachable(format!("https: {e}")))?, request).await
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Empty<bytes::Bytes>>,
    ) -> Result<Value, Trouble> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(e))?;
        let driven = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|e| self.unreachable(e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| {
            match e.downcast_ref::<LengthLimitError>() {
                Some(_) => self.unreachable(format!("the answer is larger than {} MiB", ANSWER_BYTES_MAX >> 20)),
                None => self.unreachable(e),
            }
        })?;
        driven.abort();
        let body = body.to_bytes();
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        let address = self.address;
        match (status.is_success(), value) {
            (true, Some(value)) => Ok(value),
            (true, None) => Err(self.unreachable("what answers there is no gateway")),
            (false, value) => {
                let said = value.as_ref().and_then(|v| v["error"].as_str()).unwrap_or("without a word");
                Err(Trouble::Refused { address, status: status.as_u16(), message: said.to_owned() })
            }
        }
    }
}

/// What the door asks for.
fn authorization(config: &Config) -> Result<Option<HeaderValue>, Trouble> {
    let bearer = |secret: Secret| Secret::new(format!("Bearer {}", secret.expose()));
    let text = match &config.http.auth {
        Auth::Open => return Ok(None),
        Auth::Mtls => {
            return Err(Trouble::Impossible(
                "its API asks for a client certificate (http.auth: mtls), which this verb does not have".into(),
            ));
        }
        Auth::Unset => match token(config)? {
            Some(token) => bearer(token),
            None => return Ok(None),
        },
        Auth::Bearer(source) => bearer(source.read().map_err(|e| Trouble::Impossible(e.to_string()))?),
        Auth::Basic(basic) => basic.header().map_err(|e| Trouble::Impossible(e.to_string()))?,
    };
    let mut value = HeaderValue::from_str(text.expose())
        .map_err(|_| Trouble::Impossible("the credential of http.auth cannot be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Of `storage.path`; read, never made. `None`: there is none yet.
fn token(config: &Config) -> Result<Option<Secret>, Trouble> {
    use std::io::Read;
    let path = config.storage.path.join(TOKEN_FILE);
    let mut text = String::new();
    match std::fs::File::open(&path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(Secret::new(text.trim()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Trouble::Impossible(format!(
            "the token of its API in {} cannot be read: {e}; run this as the user that runs the gateway",
            path.display()
        ))),
    }
}

fn tls(config: &Config) -> Result<Option<Arc<ClientConfig>>, Trouble> {
    let Some(files) = &config.http.tls else { return Ok(None) };
    let impossible = |e: &dyn std::fmt::Display| {
        Trouble::Impossible(format!("its API speaks https, and {} cannot be used: {e}", files.cert_file.display()))
    };
    let certificate = CertificateDer::from_pem_file(&files.cert_file).map_err(|e| impossible(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(OnlyThis { certificate, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| impossible(&e))?
        // Stricter than the usual check: one certificate is right, whatever name and authority it carries.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

/// Accepts the certificate of the configuration and no other.
#[derive(Debug)]
struct OnlyThis {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OnlyThis {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *end_entity == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("it shows another certificate than http.tls.cert_file".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
