//! Stacks from a scripted probe, through the gateway's log, to Pyroscope: a recording one, and the real one where
//! `BULKHEAD_PYROSCOPE_BIN` names it.

use crate::real::{UP, start};
use crate::shared;
use e2e::gateway::Setup;
use e2e::load::sink;
use e2e::{free_port, http, wait_for};
use ipc::stacks::{End, Kind, Location, Stack, Strings, Table};
use ipc::{DURABLE_BYTES, Durable, Hello, Index, Message, Process, Stacks, VERSION};
use loadgen::sink::fault::Fault;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);
const SECOND_NS: u64 = 1_000_000_000;
/// Samples of a window are its number times this.
const A_WINDOW: u64 = 10;

/// A probe that follows a script.
struct Probe(UnixListener);

/// One connection of it, and what the gateway holds of its stacks.
struct Line {
    stream: UnixStream,
    holds: u64,
}

impl Probe {
    fn listen(setup: &Setup) -> Probe {
        Probe(UnixListener::bind(socket(setup)).expect("a socket in a temporary folder"))
    }

    fn greet(&self) -> Line {
        let (mut stream, _) = self.0.accept().expect("the gateway comes");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let hello = Hello { version: VERSION, start: [7; 16], host: "e2e".into(), cpus: 2, hz: 97, ..Hello::default() };
        ipc::write_frame(&mut stream, 0, &Message::Hello(hello), b"").expect("the gateway reads");
        let mut line = Line { stream, holds: 0 };
        for _ in Index::ALL {
            if let (Index::Profiles, seq) = line.durable() {
                line.holds = seq;
            }
        }
        line
    }
}

impl Line {
    fn durable(&mut self) -> (Index, u64) {
        let mut record = [0; DURABLE_BYTES];
        self.stream.read_exact(&mut record).expect("a number comes");
        let record = Durable::from_bytes(record);
        (Index::from_number(record.index).expect("a stream"), record.seq)
    }

    /// Windows of 15 s, the last of which ends now.
    fn windows(&mut self, seqs: std::ops::RangeInclusive<u64>) {
        let (last, now) = (*seqs.end(), SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
        for seq in seqs {
            let to_ns = now.as_nanos() as u64 - (last - seq) * 15 * SECOND_NS;
            let (head, table) = window(seq, to_ns);
            ipc::write_frame(&mut self.stream, seq, &Message::Stacks(head), &table.encode())
                .expect("the gateway reads");
        }
        while self.durable() != (Index::Profiles, last) {}
    }
}

fn window(seq: u64, to_ns: u64) -> (Stacks, Table) {
    let mut strings = Strings::default();
    let functions = ["work", "main"].map(|name| strings.number(name));
    let location = |function| Location { address: 4096, mapping: 0, function, file: 0, line: 0, kind: Kind::User };
    let count = (seq * A_WINDOW) as u32;
    let table = Table {
        strings: strings.into_list(),
        mappings: vec![],
        locations: functions.map(location).into(),
        stacks: vec![Stack { process: 0, count, end: End::Complete, locations: vec![0, 1] }],
    };
    let head = Stacks {
        from_ns: to_ns - 15 * SECOND_NS,
        to_ns,
        hz: 97,
        comm: "app".into(),
        processes: vec![Process { tgid: 7, comm: "app".into() }],
        samples: count.into(),
        ..Stacks::default()
    };
    (head, table)
}

fn socket(setup: &Setup) -> PathBuf {
    setup.scratch.path().join("probe.sock")
}

/// A gateway between the probe's socket and a Pyroscope.
fn setup(pyroscope: SocketAddr) -> Setup {
    let mut setup = Setup::default();
    setup.extra = format!(
        "probe: {{ socket: {} }}\nprofiles: {{ cpu: {{ }} }}\nsend: {{ pyroscope: {{ p: {{ url: \"http://{pyroscope}\", external_labels: {{ cluster: c1 }} }} }} }}\n",
        socket(&setup).display()
    );
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_reach_pyroscope_through_an_outage_a_kill_and_a_refusal() {
    let _stage = shared().await;
    let sink = sink().await;
    let setup = setup(sink.pyroscope.expect("an open door"));
    let probe = Probe::listen(&setup);
    sink.fault(Fault { status: Some(503), text: Some(r#"{"code":"unavailable"}"#.into()), ..Fault::default() });
    let gateway = setup.start();
    probe.greet().windows(1..=10);
    let waiting = gateway.destination("pyroscope", "p");
    assert!(waiting.adds_up() && waiting.waiting == 10, "an outage holds them: {waiting:?}");
    gateway.kill();

    let gateway = setup.start();
    let mut line = probe.greet();
    assert_eq!(line.holds, 10, "the log remembers what it holds of this probe start");
    sink.fault(Fault::default());
    wait_for("ten windows arrive", PATIENCE, || Some(()).filter(|()| sink.profiles().by_id.len() == 10));
    let text = r#"{"code":"invalid_argument","message":"too old"}"#.to_owned();
    sink.fault(Fault { status: Some(400), text: Some(text), ..Fault::default() });
    line.windows(11..=11);
    let ledger = wait_for("the refusal is settled", PATIENCE, || {
        Some(gateway.destination("pyroscope", "p")).filter(|d| d.quarantined == 1)
    });
    assert!(ledger.adds_up() && ledger.sent == 10, "{ledger:?}");
    sink.fault(Fault::default());
    line.windows(12..=12);
    wait_for("the next one arrives", PATIENCE, || Some(()).filter(|()| sink.profiles().by_id.len() == 11));

    let profiles = sink.profiles();
    assert_eq!(profiles.stacks(), A_WINDOW * ((1..=10).sum::<u64>() + 12));
    let labels = profiles.by_id.values().next().expect("eleven").labels.clone();
    let expected = [("__name__", "process_cpu"), ("cluster", "c1"), ("node", "e2e"), ("service_name", "ebpf/app")];
    assert_eq!(labels, expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    assert!(profiles.by_id.values().all(|p| (p.period, p.duration_ns) == (10_309_278, 15 * SECOND_NS)));
    let shown = http::get(setup.http, "/api/v1/probe").expect("the admin port answers").json();
    assert_eq!((&shown["connected"], &shown["hello"]["host"]), (&true.into(), &"e2e".into()));
}

fn pyroscope_yaml(folder: &std::path::Path, at: u16, grpc: u16) -> String {
    let folder = folder.display();
    format!(
        "server: {{ http_listen_address: 127.0.0.1, http_listen_port: {at}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc} }}
pyroscopedb: {{ data_path: {folder}/data }}
storage: {{ backend: filesystem, filesystem: {{ dir: {folder}/blocks }} }}
memberlist: {{ bind_addr: [ 127.0.0.1 ], bind_port: 0 }}
analytics: {{ reporting_enabled: false }}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_pyroscope_answers_a_query_with_every_sample() {
    let _stage = shared().await;
    let scene = "a_real_pyroscope_answers_a_query_with_every_sample";
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let setup = setup(at);
    let folder = setup.scratch.path().join("pyroscope");
    let yaml = pyroscope_yaml(&folder, at.port(), free_port());
    let Some(_pyroscope) = start("BULKHEAD_PYROSCOPE_BIN", scene, &folder, &yaml) else { return };
    wait_for("Pyroscope is ready", UP, || http::get(at, "/ready").ok().filter(|a| a.status == 200));
    let probe = Probe::listen(&setup);
    let gateway = setup.start();
    probe.greet().windows(1..=3);
    wait_for("three windows are sent", UP, || Some(()).filter(|()| gateway.destination("pyroscope", "p").sent == 3));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let query = serde_json::json!({
        "profileTypeID": "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        "labelSelector": "{service_name=\"ebpf/app\", cluster=\"c1\"}",
        "start": now - 600_000,
        "end": now + 60_000,
    });
    let total = (A_WINDOW * 6 * 10_309_278).to_string();
    let path = "/querier.v1.QuerierService/SelectMergeStacktraces";
    let headers = [("content-type", "application/json")];
    let graph = wait_for("every sample by query", UP, || {
        let answer = http::request(at, "POST", path, &headers, query.to_string().as_bytes()).ok()?;
        let graph = Some(answer).filter(|a| a.status == 200)?.json()["flamegraph"].clone();
        (graph["total"].as_str() == Some(total.as_str())).then_some(graph)
    });
    let names = graph["names"].as_array().cloned().unwrap_or_default();
    assert!(["main", "work"].iter().all(|name| names.contains(&(*name).into())), "{graph:#}");
}
