//! The doors behind TLS: certificates, clients' certificates, renewal.

use super::grpc::export_logs;
use super::*;
use crate::tls::{Reload, Server, TlsError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key in PEM form.
fn leaf(authority: &Authority, names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write_pair(folder: &Path, pair: &(String, String)) -> config::ServerTls {
    let files =
        config::ServerTls { cert_file: folder.join("tls.crt"), key_file: folder.join("tls.key"), client_ca_file: None };
    std::fs::write(&files.cert_file, &pair.0).unwrap();
    std::fs::write(&files.key_file, &pair.1).unwrap();
    files
}

fn client(authority: &Authority, identity: Option<&(String, String)>) -> ClientTlsConfig {
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("localhost");
    match identity {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

async fn export(to: SocketAddr, tls: ClientTlsConfig) -> Outcome {
    let channel = Endpoint::from_shared(format!("https://{to}"))?.tls_config(tls)?.connect().await?;
    export_logs(&mut Grpc::new(channel), logs(1, 1)).await?;
    Ok(())
}

#[tokio::test]
async fn both_doors_speak_tls() -> Outcome {
    let folder = tempfile::tempdir()?;
    let authority = authority();
    let tls = Some(write_pair(folder.path(), &leaf(&authority, &["localhost"])));
    let doors = open_with(config::Otlp { tls, ..config() }, &[], 64 << 20, Fake::new());
    export(doors.grpc, client(&authority, None)).await?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let socket = dial(doors.http).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(post("/v1/logs", &[], logs(1, 1).encode_to_vec())).await?;
    assert_eq!(read(response).await?.0, StatusCode::OK);
    assert_eq!(doors.intake.got().len(), 2);
    Ok(())
}

#[tokio::test]
async fn without_the_right_client_certificate_nobody_comes_in() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (authority, stranger) = (authority(), authority());
    let mut files = write_pair(folder.path(), &leaf(&authority, &["localhost"]));
    let ca = folder.path().join("clients.pem");
    std::fs::write(&ca, authority.pem())?;
    files.client_ca_file = Some(ca);
    let config = config::Otlp { tls: Some(files), auth: Auth::Mtls, ..config() };
    let doors = open_with(config, &[], 64 << 20, Fake::new());
    assert!(export(doors.grpc, client(&authority, None)).await.is_err());
    assert!(export(doors.grpc, client(&authority, Some(&leaf(&stranger, &["sender"])))).await.is_err());
    assert!(doors.intake.got().is_empty());
    export(doors.grpc, client(&authority, Some(&leaf(&authority, &["sender"])))).await?;
    assert_eq!(doors.intake.got().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_renewed_pair_is_served_and_a_broken_one_is_not() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (old, new) = (authority(), authority());
    let files = write_pair(folder.path(), &leaf(&old, &["localhost"]));
    let server = Server::load(&files, &[crate::tls::ALPN_HTTP2])?;
    let first = server.current();
    assert!(matches!(server.check(), Reload::Unchanged));
    // The certificate of one pair with the key of another, as seen in the middle of a renewal.
    let pair = leaf(&new, &["localhost"]);
    std::fs::write(&files.cert_file, &pair.0)?;
    let kept = server.check();
    let Reload::Kept(error @ TlsError::Pair { .. }) = kept else { return Err(format!("{kept:?}").into()) };
    assert!(error.to_string().contains("tls.key"), "{error}");
    assert!(Arc::ptr_eq(&first, &server.current()));
    std::fs::write(&files.cert_file, "no certificate")?;
    assert!(matches!(server.check(), Reload::Kept(TlsError::Pem { .. })));
    std::fs::remove_file(&files.cert_file)?;
    assert!(matches!(server.check(), Reload::Kept(TlsError::Read { .. })));
    assert!(Arc::ptr_eq(&first, &server.current()));
    write_pair(folder.path(), &pair);
    assert!(matches!(server.check(), Reload::Renewed));
    assert!(!Arc::ptr_eq(&first, &server.current()));
    PrivateKeyDer::from_pem_slice(pair.1.as_bytes())?;
    Ok(())
}

#[tokio::test]
async fn a_renewed_pair_reaches_new_connections_of_a_running_door() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (old, new) = (authority(), authority());
    let tls = Some(write_pair(folder.path(), &leaf(&old, &["localhost"])));
    let doors = open_with(config::Otlp { tls, ..config() }, &[], 64 << 20, Fake::new());
    export(doors.grpc, client(&old, None)).await?;
    assert!(export(doors.grpc, client(&new, None)).await.is_err());
    write_pair(folder.path(), &leaf(&new, &["localhost"]));
    tokio::time::pause();
    tokio::time::advance(crate::tls::CHECK_EVERY + Duration::from_millis(1)).await;
    tokio::time::resume();
    tokio::task::yield_now().await;
    export(doors.grpc, client(&new, None)).await?;
    assert!(export(doors.grpc, client(&old, None)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() -> Outcome {
    use tokio::io::AsyncReadExt;
    let folder = tempfile::tempdir()?;
    let tls = Some(write_pair(folder.path(), &leaf(&authority(), &["localhost"])));
    let doors = open_with(config::Otlp { tls, ..config() }, &[], 64 << 20, Fake::new());
    let mut socket = dial(doors.grpc).await?;
    doors.tally.open.subscribe().wait_for(|open| *open == 1).await?;
    tokio::time::pause();
    tokio::time::advance(crate::receiver::connection::HANDSHAKE + Duration::from_millis(1)).await;
    tokio::time::resume();
    assert_eq!(socket.read(&mut [0; 10]).await?, 0);
    assert_eq!(*doors.tally.turned_away.lock().unwrap(), ["handshake"]);
    Ok(())
}

#[tokio::test]
async fn unsafe_configurations_do_not_bind() {
    let bind = |config: config::Otlp| Otlp::bind(&config, &[], Budget::new(1 << 20), Arc::new(Tally::default())).err();
    let everywhere = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    let open = bind(config::Otlp { grpc: everywhere, ..config() });
    assert!(matches!(open, Some(BindError::Unprotected { key: "receive.otlp.grpc", .. })));
    assert!(matches!(bind(config::Otlp { auth: Auth::Mtls, ..config() }), Some(BindError::NoClientCa)));
    let missing = config::ServerTls {
        cert_file: "/nonexistent/tls.crt".into(),
        key_file: "/nonexistent/tls.key".into(),
        client_ca_file: None,
    };
    let missing = bind(config::Otlp { tls: Some(missing), ..config() });
    assert!(missing.is_some_and(|error| error.to_string().contains("/nonexistent/tls.crt")));
}
