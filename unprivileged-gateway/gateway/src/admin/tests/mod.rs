//! The front office on a loopback socket, with a store that is only played.

mod answers;
mod door;
mod profiles;
mod streams;

use super::*;
use crate::config::Auth;
use crate::seam::{Signal, Source};
use crate::telemetry::{
    Destination, DestinationInfo, DestinationState, DestinationStatus, Held, LogStatus, Loss, Ready, Settled, Waiting,
    Wire,
};
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A store with one log and one destination that has sent seven of ten records.
struct Played {
    destination: Arc<Destination>,
    why: Mutex<Vec<String>>,
    closed: Mutex<Option<String>>,
}

impl StatusSource for Played {
    fn snapshot(&self) -> StatusSnapshot {
        let waiting = Waiting { records: 2, bytes: 500, oldest_age_s: 1.5 };
        let ledger = self.destination.read(Signal::Logs, || Held { accepted: 10, waiting });
        let destination = DestinationStatus {
            info: self.destination.info().clone(),
            configured: true,
            state: DestinationState::Ok,
            last_error: None,
            next_try_ms: None,
            ledgers: vec![ledger],
        };
        let closed = self.closed.lock().unwrap().clone();
        let log = LogStatus { name: "logs", served: true, bytes: 4096, segments: 2, closed, ..LogStatus::default() };
        StatusSnapshot {
            ready: Ready { why: self.why.lock().unwrap().clone() },
            logs: vec![log],
            destinations: vec![destination],
            ..StatusSnapshot::default()
        }
    }
}

struct Office {
    address: SocketAddr,
    telemetry: Telemetry,
    view: View,
    played: Arc<Played>,
    /// Dropped: the office closes.
    _open: oneshot::Sender<()>,
    closed: tokio::task::JoinHandle<()>,
}

async fn office() -> Office {
    office_with(Http::default(), Arc::new(NoDesk)).await
}

async fn office_with(http: Http, wal: Arc<dyn WalDesk>) -> Office {
    office_on("127.0.0.1:0", http, wal, None).await
}

async fn office_on(listen: &str, http: Http, wal: Arc<dyn WalDesk>, tls: Option<Arc<tls::Server>>) -> Office {
    let telemetry = Telemetry::new();
    telemetry.accepted(Source::OtlpGrpc, Signal::Logs, 10, 4000);
    telemetry.refused(Source::OtlpHttp, Signal::Logs, "full", 3);
    let destination = telemetry.register(DestinationInfo {
        kind: "loki".to_owned(),
        name: "logs".to_owned(),
        wire: Wire::LokiPush,
        signals: vec![Signal::Logs],
        url: "http://127.0.0.1:3100".to_owned(),
        host: "127.0.0.1:3100".to_owned(),
        tenant: String::new(),
    });
    let quarantined = [("line_too_long", Loss { records: 1, bytes: 9 })];
    let settled = Settled { sent: 7, sent_bytes: 700, quarantined: &quarantined, ..Settled::default() };
    destination.settle(Signal::Logs, &settled, || ());
    let played = Arc::new(Played { destination, why: Mutex::default(), closed: Mutex::default() });
    let view = View::new(1 << 20, Duration::from_secs(900));
    let admin = Admin::new(Parts {
        telemetry: telemetry.clone(),
        status: played.clone(),
        view: Some(view.clone()),
        probe: None,
        wal,
        node: NodeInfo { name: "n1".to_owned(), id: "ab".repeat(16), role: "node" },
        addresses: Addresses::default(),
        config: ConfigPage { yaml: "node: {}\n".to_owned(), ..ConfigPage::default() },
        http,
        token: Secret::new(TOKEN),
    });
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, closing) = oneshot::channel::<()>();
    let closed = tokio::spawn(admin.serve(listener, tls, async {
        let _ = closing.await;
    }));
    Office { address, telemetry, view, played, _open: open, closed }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn of(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Reply { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

impl Office {
    /// Sends the bytes as they are and reads until the other side closes.
    async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A refused request may be reset once it is answered; what came before counts.
        let _ = socket.read_to_end(&mut answer).await;
        answer
    }

    async fn ask(&self, line: &str, headers: &[&str]) -> Reply {
        let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
            request += &format!("Host: {}\r\n", self.address);
        }
        for header in headers {
            request += &format!("{header}\r\n");
        }
        Reply::of(&self.raw(format!("{request}\r\n").as_bytes()).await)
    }

    /// With the token.
    async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[&format!("Authorization: Bearer {TOKEN}")]).await
    }
}
