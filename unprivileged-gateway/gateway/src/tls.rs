//! TLS for listeners, with certificates that may be renewed while we run.
//!
//! Like a doorman who checks the key box now and then: a new key is taken only if it opens the lock; otherwise the old one stays
//! on the ring and the mistake is reported. The algorithm: the whole server configuration is swapped as one value, so certificate,
//! key and client authorities always belong together. Weakness: open connections keep what they were accepted with, until their
//! age ends them.

use crate::config::ServerTls;
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Names of the protocols, as a TLS client asks for them.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
pub const ALPN_HTTP2: &[u8] = b"h2";
/// Largest PEM file that is read, in bytes; a larger one is a wrong path.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// A certificate that cannot be served. At start nothing listens; at a renewal the old one stays in use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}; check that it exists and that this user may read it")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what} in PEM form: {why}")]
    Pem { path: PathBuf, what: &'static str, why: String },
    #[error("{cert} and {key} cannot be used together: {source}; is the key the one of that certificate?")]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{path} cannot be used as client authorities: {why}")]
    ClientCa { path: PathBuf, why: String },
}

/// One listener's TLS: hands every new connection the newest configuration that loaded.
pub struct Server {
    files: ServerTls,
    alpn: Vec<Vec<u8>>,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// What tells a changed file from an unchanged one. Following links, so that Kubernetes' swapped folders count as a change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// What a look at the files brought.
#[derive(Debug)]
pub enum Reload {
    Unchanged,
    Renewed,
    /// The files changed but cannot be used; the old certificate stays.
    Kept(TlsError),
}

impl Server {
    pub fn load(files: &ServerTls, alpn: &[&[u8]]) -> Result<Arc<Server>, TlsError> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let seen = stamps(files);
        let config = read(files, &alpn)?;
        Ok(Arc::new(Server {
            files: files.clone(),
            alpn,
            current: ArcSwap::from_pointee(config),
            seen: Mutex::new(seen),
        }))
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// The handshake. Give it a deadline.
    pub fn accept<S>(&self, socket: S) -> impl Future<Output = io::Result<TlsStream<S>>> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        TlsAcceptor::from(self.current()).accept(socket)
    }

    /// Looks at the files once; reads them if they changed.
    pub fn check(&self) -> Reload {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Stamped before reading: a change in between is seen the next time.
        let now = stamps(&self.files);
        if *seen == now {
            return Reload::Unchanged;
        }
        *seen = now;
        match read(&self.files, &self.alpn) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                Reload::Renewed
            }
            Err(error) => Reload::Kept(error),
        }
    }

    /// Looks at the files every [`CHECK_EVERY`], for ever.
    pub async fn watch(self: Arc<Server>) {
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            let cert = self.files.cert_file.display();
            match self.check() {
                Reload::Unchanged => {}
                Reload::Renewed => tracing::info!(%cert, "certificate renewed"),
                Reload::Kept(error) => tracing::error!(%error, "certificate not renewed: the old one stays in use"),
            }
        }
    }
}

fn stamps(files: &ServerTls) -> Vec<Option<Stamp>> {
    use std::os::unix::fs::MetadataExt;
    let paths = [Some(&files.cert_file), Some(&files.key_file), files.client_ca_file.as_ref()];
    let stamp = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some(Stamp { modified: data.modified().ok(), length: data.len(), inode: data.ino() })
    };
    paths.into_iter().flatten().map(stamp).collect()
}

fn read(files: &ServerTls, alpn: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.cert_file)?;
    let key_pem = read_file(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| TlsError::Pem {
        path: files.key_file.clone(),
        what: "private key",
        why: error.to_string(),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pair = |source| TlsError::Pair { cert: files.cert_file.clone(), key: files.key_file.clone(), source };
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(pair)?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable = |why: String| TlsError::ClientCa { path: path.clone(), why };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = |why: String| TlsError::Pem { path: path.to_owned(), what: "certificate", why };
    let pem = read_file(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| none(error.to_string()))?;
    if chain.is_empty() { Err(none("no BEGIN CERTIFICATE line in it".into())) } else { Ok(chain) }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(PEM_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
