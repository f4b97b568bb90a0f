//! TLS towards backends: which authorities are trusted, and who we say we are.
//!
//! One rustls configuration serves HTTP and gRPC alike. The provider is named here and nowhere else, so that no crate picks its own.

use crate::config::ClientTls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// What is wrong with the certificates towards a backend.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    #[error("cannot use {what} in {path}: {why}; it must hold PEM and be readable by this user")]
    File { what: &'static str, path: String, why: String },
    #[error(
        "this system has no root certificates, so no backend can be trusted; install ca-certificates or set tls.ca_file"
    )]
    NoRoots,
    #[error("tls: {0}")]
    Other(String),
}

/// A client configuration with `alpn` as the protocols it offers.
pub fn client_config(tls: &ClientTls, alpn: &[&[u8]]) -> Result<ClientConfig, ClientTlsError> {
    let other = |e: &dyn std::fmt::Display| ClientTlsError::Other(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(tls)?);
    let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().map_err(|e| other(&e))?;
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| other(&e))?;
    let builder = match &tls.server_name {
        None => builder.with_webpki_verifier(webpki),
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|e| other(&format!("server_name {name}: {e}")))?;
            // Not a weaker check: the same verifier, asked about the name the operator gave.
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Named { webpki, name }))
        }
    };
    let mut config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates("cert_file", cert)?, private_key(key)?).map_err(|e| other(&e))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// For plain text URLs: no handshake can succeed with it, and none is tried.
pub fn trusts_nobody() -> Result<ClientConfig, ClientTlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| ClientTlsError::Other(e.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn roots(tls: &ClientTls) -> Result<RootCertStore, ClientTlsError> {
    let mut store = RootCertStore::empty();
    let found = match &tls.ca_file {
        Some(path) => certificates("ca_file", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(found);
    match (&tls.ca_file, store.is_empty()) {
        (_, false) => Ok(store),
        (None, true) => Err(ClientTlsError::NoRoots),
        (Some(path), true) => Err(file_error("ca_file", path, "no certificate in it")),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| file_error(what, path, e))?.collect();
    let found = found.map_err(|e| file_error(what, path, e))?;
    if found.is_empty() { Err(file_error(what, path, "no certificate in it")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientTlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| file_error("key_file", path, e))
}

fn file_error(what: &'static str, path: &Path, why: impl std::fmt::Display) -> ClientTlsError {
    ClientTlsError::File { what, path: path.display().to_string(), why: why.to_string() }
}

/// Checks a certificate against a name other than the one dialled.
#[derive(Debug)]
struct Named {
    webpki: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.webpki.verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
