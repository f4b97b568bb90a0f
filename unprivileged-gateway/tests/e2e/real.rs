//! The real Loki and the real Tempo, when `BULKHEAD_LOKI_BIN` and `BULKHEAD_TEMPO_BIN` name them: read back by query.

use crate::shared;
use e2e::gateway::Setup;
use e2e::load::Load;
use e2e::{free_port, http, skip, wait_for};
use loadgen::payload::find_id;
use loadgen::{Protocol, Signal};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const RECORDS: u64 = 2_000;
pub(crate) const UP: Duration = Duration::from_secs(90);

pub(crate) struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(variable: &str, scene: &str, folder: &Path, yaml: &str) -> Option<Backend> {
    let Some(binary) = std::env::var_os(variable) else {
        skip(scene, &format!("{variable} is not set"));
        return None;
    };
    fs::create_dir_all(folder).expect("the backend's folder");
    let file = folder.join("config.yaml");
    fs::write(&file, yaml).expect("the backend's configuration");
    let log = fs::File::create(folder.join("log")).expect("the backend's log");
    let second = log.try_clone().expect("a second handle");
    let mut command = Command::new(&binary);
    command.arg(format!("-config.file={}", file.display())).current_dir(folder);
    let child = command.stdin(Stdio::null()).stdout(second).stderr(log).spawn();
    Some(Backend(child.unwrap_or_else(|e| panic!("{variable}={}: {e}", binary.display()))))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn loki_yaml(folder: &Path, at: u16, grpc: u16) -> String {
    let folder = folder.display();
    format!(
        "auth_enabled: false
server: {{ http_listen_address: 127.0.0.1, http_listen_port: {at}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc} }}
common:
  instance_addr: 127.0.0.1
  path_prefix: {folder}
  replication_factor: 1
  ring: {{ kvstore: {{ store: inmemory }} }}
  storage: {{ filesystem: {{ chunks_directory: {folder}/chunks, rules_directory: {folder}/rules }} }}
schema_config:
  configs: [ {{ from: 2024-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {{ prefix: index_, period: 24h }} }} ]
limits_config: {{ allow_structured_metadata: true, ingestion_rate_mb: 64, ingestion_burst_size_mb: 64 }}
analytics: {{ reporting_enabled: false }}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_loki_answers_a_query_with_every_line() {
    let _stage = shared().await;
    let scene = "a_real_loki_answers_a_query_with_every_line";
    let at = local(free_port());
    let setup = Setup::default().loki("logs", Some(at), "");
    let folder = setup.scratch.path().join("loki");
    let yaml = loki_yaml(&folder, at.port(), free_port());
    let Some(_loki) = start("BULKHEAD_LOKI_BIN", scene, &folder, &yaml) else { return };
    wait_for("Loki is ready", UP, || http::get(at, "/ready").ok().filter(|a| a.status == 200));
    let _gateway = setup.start();
    let sent = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(RECORDS).send().await;
    assert_eq!(sent.summary.acked, RECORDS);
    let query = "/loki/api/v1/query_range?limit=5000&query=%7Bservice_namespace%3D%22shop%22%7D&since=1h";
    let seen = wait_for("every line by query", UP, || {
        let answer = http::get(at, query).ok().filter(|a| a.status == 200)?.json();
        let streams = answer["data"]["result"].as_array()?.clone();
        let lines = streams.iter().flat_map(|s| s["values"].as_array().cloned().unwrap_or_default());
        let ids: BTreeSet<_> = lines.filter_map(|l| find_id(l[1].as_str()?.as_bytes())).collect();
        (ids.len() as u64 >= RECORDS).then_some(ids.len() as u64)
    });
    assert_eq!(seen, RECORDS);
}

fn tempo_yaml(folder: &Path, at: u16, grpc: u16, otlp: u16) -> String {
    let folder = folder.display();
    format!(
        "server: {{ http_listen_address: 127.0.0.1, http_listen_port: {at}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc} }}
distributor: {{ receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{otlp}\" }} }} }} }} }}
storage: {{ trace: {{ backend: local, local: {{ path: {folder}/blocks }}, wal: {{ path: {folder}/wal }} }} }}
memberlist: {{ bind_addr: [ 127.0.0.1 ], bind_port: 0 }}
usage_report: {{ reporting_enabled: false }}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_tempo_answers_with_whole_traces() {
    let _stage = shared().await;
    let scene = "a_real_tempo_answers_with_whole_traces";
    let (at, otlp) = (local(free_port()), local(free_port()));
    let setup = Setup::default().otlp("tempo", Some(otlp), "protocol: grpc, signals: [ traces ]");
    let folder = setup.scratch.path().join("tempo");
    let yaml = tempo_yaml(&folder, at.port(), free_port(), otlp.port());
    let Some(_tempo) = start("BULKHEAD_TEMPO_BIN", scene, &folder, &yaml) else { return };
    wait_for("Tempo is ready", UP, || http::get(at, "/ready").ok().filter(|a| a.status == 200));
    let _gateway = setup.start();
    let load = Load::new(&setup, Protocol::Grpc, Signal::Traces).records(RECORDS).with(|o| o.connections = 1);
    let sender = load.options.first_sender;
    assert_eq!(load.send().await.summary.acked, RECORDS);
    // The load puts four neighbouring spans into a trace, named by sender and number.
    for trace in [1, 7, RECORDS / 4] {
        let path = format!("/api/traces/{:016x}{trace:016x}", u64::from(sender));
        let spans = wait_for("the trace by its id", UP, || {
            let answer = http::get(at, &path).ok().filter(|a| a.status == 200)?;
            let spans = answer.text().matches("\"spanId\"").count();
            (spans >= 4).then_some(spans)
        });
        assert_eq!(spans, 4);
    }
}
