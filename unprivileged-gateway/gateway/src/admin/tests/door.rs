//! Who comes in: host, origin, token, the other kinds of auth, limits.

use super::*;
use crate::config::{Basic, SecretSource, ServerTls};

const COOKIE_HEX: &str = "3031323334353637383961626364656630313233343536373839616263646566";

#[tokio::test]
async fn without_a_key_only_health_and_metrics_are_open() {
    let office = office().await;
    for path in ["/-/ready", "/-/healthy", "/-/live", "/metrics"] {
        assert_eq!(office.ask(&format!("GET {path}"), &[]).await.status, 200, "{path}");
    }
    // Not yet served, but not behind the key either.
    assert_eq!(office.ask("GET /api/v0/web/peers", &[]).await.status, 404);
    let api = ["status", "events", "history", "logs", "traces", "traces/00", "config", "wal/stats", "nothing"];
    for path in api {
        let reply = office.ask(&format!("GET /api/v1/{path}"), &[]).await;
        assert_eq!((reply.status, reply.header("content-type")), (401, Some("application/json")), "{path}");
        assert!(reply.json()["error"].as_str().unwrap().contains("token"), "{path}");
    }
    for path in ["/", "/index.html", "/assets/app.js", "/metrics/", "/-/ready/x", "//metrics", "/%6detrics"] {
        assert_eq!(office.ask(&format!("GET {path}"), &[]).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn the_token_opens_as_header_cookie_or_in_the_url() {
    let office = office().await;
    let port = office.address.port();
    assert_eq!(office.get("/api/v1/status").await.status, 200);
    assert_eq!(office.ask(&format!("GET /api/v1/status?token={TOKEN}"), &[]).await.status, 200);
    let welcome = office.ask(&format!("GET /?token={TOKEN}&x=1"), &[]).await;
    assert_eq!((welcome.status, welcome.header("location")), (303, Some("/?x=1")));
    let cookie = welcome.header("set-cookie").unwrap();
    assert!(cookie.starts_with(&format!("bulkhead_{port}={COOKIE_HEX}; ")), "{cookie}");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains("Secure"),
        "{cookie}"
    );
    let cookie = format!("Cookie: other=1; bulkhead_{port}={COOKIE_HEX}; more=2");
    assert_eq!(office.ask("GET /", &[&cookie]).await.status, 200);
    assert_eq!(office.ask("GET /api/v1/status", &[&cookie]).await.status, 200);
}

#[tokio::test]
async fn a_wrong_token_opens_nothing() {
    let office = office().await;
    let port = office.address.port();
    let nearly = TOKEN.replace("cdef", "cdee");
    let wrong =
        ["Bearer", "Bearer ", &format!("Bearer {nearly}"), &format!("Bearer {TOKEN}0"), &format!("Basic {TOKEN}")];
    for credential in wrong {
        let reply = office.ask("GET /api/v1/status", &[&format!("Authorization: {credential}")]).await;
        assert_eq!(reply.status, 401, "{credential}");
    }
    for query in ["token=", "token", &format!("token={nearly}"), &format!("Token={TOKEN}"), "token=%"] {
        assert_eq!(office.ask(&format!("GET /?{query}"), &[]).await.status, 401, "{query}");
    }
    for cookie in [format!("bulkhead_{port}="), format!("bulkhead_{port}=3z"), format!("bulkhead_1={COOKIE_HEX}")] {
        assert_eq!(office.ask("GET /", &[&format!("Cookie: {cookie}")]).await.status, 401, "{cookie}");
    }
}

#[tokio::test]
async fn a_browser_without_the_key_is_told_where_to_find_it() {
    let office = office().await;
    let html = "Accept: text/html";
    let reply = office.ask("GET /", &[html]).await;
    assert_eq!((reply.status, reply.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(reply.text().contains("printed at its start") && !reply.text().contains("refresh"));
    let linked = office.ask("GET /", &[html, "Sec-Fetch-Site: cross-site"]).await;
    assert!(linked.text().contains("http-equiv=\"refresh\""), "a link from elsewhere carries no strict cookie");
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused_even_for_open_paths() {
    let http = Http { hosts: vec!["bulkhead.Example".to_owned()], ..Http::default() };
    let office = office_with(http, Arc::new(NoDesk)).await;
    let port = office.address.port();
    let ours =
        ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "127.0.0.2", "bulkhead.example:9", "BULKHEAD.example"];
    for host in ours {
        assert_eq!(office.ask("GET /metrics", &[&format!("Host: {host}")]).await.status, 200, "{host}");
    }
    let port_name = format!("evil.example:{port}");
    let strange = [
        "evil.example",
        &port_name,
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.evil.example",
        "a@localhost",
        "[::2]",
    ];
    for host in strange {
        let reply =
            office.ask("GET /metrics", &[&format!("Host: {host}"), &format!("Authorization: Bearer {TOKEN}")]).await;
        assert_eq!(reply.status, 403, "{host}");
        assert!(reply.text().contains("http.hosts"), "{}", reply.text());
    }
    assert_eq!(office.ask("GET http://evil.example/metrics", &["Host: localhost"]).await.status, 403);
    assert_eq!(office.ask("GET /metrics", &["Host: localhost", "Host: localhost"]).await.status, 400);
    assert_eq!(office.ask("GET /metrics", &["Host:"]).await.status, 400);
}

#[tokio::test]
async fn what_changes_something_must_come_from_our_own_page_or_no_browser() {
    let office = office().await;
    let port = office.address.port();
    let key = format!("Authorization: Bearer {TOKEN}");
    let post = async |origin: &str| {
        let headers = [key.as_str(), "Content-Length: 0", origin];
        let headers = if origin.is_empty() { &headers[..2] } else { &headers[..] };
        office.ask("POST /api/v1/wal/forget/loki/logs", headers).await.status
    };
    // 404: through the gate, to a desk that holds nothing.
    assert_eq!(post("").await, 404);
    assert_eq!(post(&format!("Origin: http://127.0.0.1:{port}")).await, 404);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://", "http://"] {
        assert_eq!(post(&format!("Origin: {origin}")).await, 403, "{origin}");
    }
    let reply = office.ask("GET /api/v1/status", &[&key, "Origin: http://evil.example"]).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None), "no CORS");
    let preflight = ["Origin: http://evil.example", "Access-Control-Request-Method: POST"];
    assert_eq!(office.ask("OPTIONS /api/v1/status", &preflight).await.status, 403);
}

#[tokio::test]
async fn auth_none_opens_and_bearer_and_basic_ask_for_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "open sesame\n").unwrap();
    let file = SecretSource::File(path.clone());
    let with = async |auth: Auth| office_with(Http { auth, ..Http::default() }, Arc::new(NoDesk)).await;

    let open = with(Auth::Open).await;
    assert_eq!(open.ask("GET /api/v1/status", &[]).await.status, 200);
    assert_eq!(open.ask("GET /api/v1/status", &["Host: evil.example"]).await.status, 403, "names still count");

    let bearer = with(Auth::Bearer(file.clone())).await;
    assert_eq!(bearer.get("/api/v1/status").await.status, 401, "the loopback token is not asked for");
    assert_eq!(bearer.ask("GET /api/v1/status", &["Authorization: bearer open sesame"]).await.status, 200);
    assert_eq!(bearer.ask("GET /metrics", &[]).await.status, 200);
    assert_eq!(bearer.ask("GET /?token=open%20sesame", &[]).await.status, 303);

    let basic = with(Auth::Basic(Basic { user: "Aladdin".to_owned(), password: file })).await;
    let reply = basic.ask("GET /", &[]).await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").unwrap().starts_with("Basic "));
    let credential = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    assert_eq!(basic.ask("GET /", &[credential]).await.status, 200);
    assert_eq!(basic.ask("GET /", &["Authorization: Basic QWxhZGRpbjpvcGVu"]).await.status, 401);

    std::fs::remove_file(&path).unwrap();
    let gone = with(Auth::Bearer(SecretSource::File(path))).await;
    let reply = gone.ask("GET /api/v1/status", &["Authorization: Bearer open sesame"]).await;
    assert_eq!(reply.status, 503);
    assert!(!reply.text().contains("secret"), "the path is for the log: {}", reply.text());
}

#[tokio::test]
async fn mtls_without_a_certificate_is_refused() {
    let office = office_with(Http { auth: Auth::Mtls, ..Http::default() }, Arc::new(NoDesk)).await;
    assert_eq!(office.get("/api/v1/status").await.status, 401);
    assert_eq!(office.ask("GET /-/ready", &[]).await.status, 200);
}

#[tokio::test]
async fn https_speaks_the_same_and_its_cookie_is_secure() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = ServerTls { cert_file: cert, key_file: key, client_ca_file: None };
    let server = tls::Server::load(&files, &[tls::ALPN_HTTP1]).unwrap();
    let office = office_on("127.0.0.1:0", Http::default(), Arc::new(NoDesk), Some(server)).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(office.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let request = format!("GET /?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let reply = Reply::of(&answer);
    assert_eq!(reply.status, 303);
    assert!(reply.header("set-cookie").unwrap().ends_with("; Secure"));
}

#[tokio::test]
async fn headers_beyond_the_limit_and_bytes_that_are_no_http_end_cleanly() {
    let office = office().await;
    let long = format!("X-Long: {}", "x".repeat(HEADER_BYTES_MAX));
    assert_eq!(office.ask("GET /-/live", &[&long]).await.status, 431);
    let fits = format!("X-Long: {}", "x".repeat(HEADER_BYTES_MAX - 1024));
    assert_eq!(office.ask("GET /-/live", &[&fits]).await.status, 200);
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..50 {
        let mut bytes: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
        bytes.extend(b"\r\n\r\n");
        office.raw(&bytes).await;
    }
    assert_eq!(office.ask("GET /-/live", &[]).await.status, 200);
}

#[tokio::test]
async fn the_port_turns_away_beyond_its_places_and_serves_again_when_one_leaves() {
    let office = office().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut socket = TcpStream::connect(office.address).await.unwrap();
        socket.write_all(b"GET /-/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(socket);
    }
    assert!(office.raw(b"GET /-/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_empty());
    held.clear();
    // The office learns of the closed sockets by itself; ask until it has.
    loop {
        let answer = office.raw(b"GET /-/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        if !answer.is_empty() {
            assert_eq!(Reply::of(&answer).status, 200);
            break;
        }
        tokio::task::yield_now().await;
    }
}
