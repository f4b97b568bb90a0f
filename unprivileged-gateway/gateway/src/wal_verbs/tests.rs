//! The verbs on real folders, beside a gateway that has ended, one that runs, and one that cannot be reached.

use super::*;
use crate::admin::{self, Addresses, Admin, ConfigPage, NodeInfo};
use crate::budget::Budget;
use crate::config::{Auth, Imagined, Override, Request, load};
use crate::seam::{Intake, Offered, Signal, Source as From_};
use crate::status::Status;
use crate::store::operator::{Desk, FORGET_RULE};
use crate::store::{QuarantineItem, Store};
use crate::telemetry::Telemetry;
use model::envelope::{Kind, Sidecar};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::oneshot;
use wal::DestinationId;

const OLD: &str = "send: { loki: { logs: { url: 'http://127.0.0.1:1' }, old: { url: 'http://127.0.0.1:1' } } }\n";
const NEW: &str = "send: { loki: { logs: { url: 'http://127.0.0.1:1' } } }\n";

struct House {
    dir: TempDir,
    more: String,
}

impl House {
    fn new() -> House {
        House { dir: tempfile::tempdir().unwrap(), more: "http: { listen: '127.0.0.1:9' }\n".to_owned() }
    }

    fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    fn loaded(&self, send: &str) -> Loaded {
        let file = self.dir.path().join("gateway.yaml");
        let text = format!("storage: {{ path: '{}', max: 64MiB }}\n{send}{}", self.storage().display(), self.more);
        std::fs::write(&file, text).unwrap();
        let request = Request { files: vec![file], ..Request::default() };
        load(&request, &Imagined::default()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn store(&self, send: &str) -> (Store, Telemetry) {
        let telemetry = Telemetry::new();
        (Store::open(&self.loaded(send).config, telemetry.clone()).unwrap(), telemetry)
    }

    /// 20 requests of two log lines each, a frame that is none, and three quarantined pieces.
    async fn fill(&self) -> Store {
        let (store, _) = self.store(OLD);
        for i in 0..20 {
            offer(&store, request(i).encode_to_vec().into(), 2).await;
        }
        offer(&store, "no protobuf".into(), 1).await;
        let id = DestinationId::new("loki", "logs");
        let item = |seq, reason, format| QuarantineItem::new(&id, Signal::Logs, seq, reason, "too\u{7}long", format);
        let labels = "{app=\"a\"}".to_owned();
        let line = item(3, "line_too_long", "line").with_labels(labels).with_payload("a line".into(), 1);
        let otlp = item(4, "partly_stored", "otlp").with_payload(request(4).encode_to_vec().into(), 2);
        let push = item(5, "partly_stored", "loki").with_payload(push(), 1);
        for item in [line, otlp, push] {
            store.quarantine().keep(&item).await.unwrap();
        }
        store
    }

    async fn filled(&self) {
        let store = self.fill().await;
        store.close();
    }

    fn say(&self, send: &str, verb: &WalVerb) -> Said {
        said(&self.loaded(send), verb)
    }
}

async fn offer(store: &Store, body: bytes::Bytes, items: u32) {
    let sidecar = Sidecar { received_at: now_ns(), peer: "127.0.0.1:7".into(), enrichment: Vec::new(), file: None };
    let kind = Kind::OtlpLogs;
    let (signal, source) = (Signal::Logs, From_::OtlpHttp);
    let offered = Offered { signal, kind, items, sidecar, body: vec![body], source, origin: None };
    store.accept(offered).await.unwrap();
}

fn request(i: u64) -> ExportLogsServiceRequest {
    let line = |n: u64| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + n,
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(format!("line {n}"))) }),
        trace_id: vec![7; 16],
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: vec![line(2 * i), line(2 * i + 1)], ..ScopeLogs::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }],
    }
}

/// One stream, one entry, one pair of metadata, as Loki takes it.
fn push() -> bytes::Bytes {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let time = [0x08, 0x05, 0x10, 0x07];
    let pair = [field(1, b"k"), field(2, b"v")].concat();
    let entry = [field(1, &time), field(2, b"hello"), field(3, &pair)].concat();
    let stream = [field(1, b"{app=\"a\"}"), field(2, &entry)].concat();
    snap::raw::Encoder::new().compress_vec(&field(1, &stream)).unwrap().into()
}

#[derive(Debug)]
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        assert_eq!(self.err, "");
        serde_json::from_str(&self.out).unwrap()
    }
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn said(loaded: &Loaded, verb: &WalVerb) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = answer(loaded, verb, &mut out, &mut err);
    Said { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn stats(format: Format) -> WalVerb {
    WalVerb::Stats { format }
}

fn verify(format: Format) -> WalVerb {
    WalVerb::Verify { format }
}

fn export() -> WalVerb {
    WalVerb::Export { signal: None, output: None }
}

fn forgetting(destination: &str) -> WalVerb {
    WalVerb::Forget { destination: destination.to_owned() }
}

fn list() -> WalVerb {
    WalVerb::Quarantine(QuarantineVerb::List { format: Format::Json })
}

fn show(id: u64) -> WalVerb {
    WalVerb::Quarantine(QuarantineVerb::Show { id })
}

fn export_quarantine() -> WalVerb {
    WalVerb::Quarantine(QuarantineVerb::Export { output: None })
}

fn files(path: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, all),
            false => drop(all.insert(path.clone(), std::fs::read(path).unwrap())),
        }
    }
}

fn destination<'a>(stats: &'a Value, log: &str, name: &str) -> &'a Value {
    let logs = stats["logs"].as_array().unwrap();
    let log = logs.iter().find(|l| l["name"] == log).unwrap();
    log["destinations"].as_array().unwrap().iter().find(|d| d["destination"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_gateways_folder_is_shown_and_not_a_byte_of_it_changes() {
    let house = House::new();
    house.filled().await;
    let mut before = BTreeMap::new();
    files(&house.storage(), &mut before);
    tokio::task::block_in_place(|| {
        let value = house.say(NEW, &stats(Format::Json)).json();
        let (kept, gone) = (destination(&value, "logs", "loki/logs"), destination(&value, "logs", "loki/old"));
        assert_eq!((&kept["waiting"]["records"], &kept["configured"]), (&41.into(), &true.into()));
        assert_eq!((&gone["waiting"]["records"], &gone["configured"]), (&41.into(), &false.into()));
        let text = house.say(NEW, &stats(Format::Text)).out;
        assert!(text.contains("held by nobody") && text.contains("loki/old"), "{text}");
        let checked = house.say(NEW, &verify(Format::Json));
        assert_eq!((checked.exit, &checked.json()["ok"]), (Exit::Fine, &true.into()));
        let text = house.say(NEW, &verify(Format::Text)).out;
        assert!(text.contains("whole") && !text.contains("DAMAGED"), "{text}");
        assert_eq!(house.say(NEW, &export()).lines().len(), 21);
        assert_eq!(house.say(NEW, &list()).json()["total"], 3);
        assert_eq!(house.say(NEW, &export_quarantine()).lines().len(), 3);
    });
    let mut after = BTreeMap::new();
    files(&house.storage(), &mut after);
    assert!(before == after, "an inspection writes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_what_was_sent() {
    let house = House::new();
    house.filled().await;
    tokio::task::block_in_place(|| {
        let file = house.dir.path().join("out.jsonl");
        let verb = WalVerb::Export { signal: Some("logs".to_owned()), output: Some(file.clone()) };
        let told = house.say(NEW, &verb);
        assert_eq!((told.exit, told.out.as_str(), told.err.as_str()), (Exit::Fine, "", ""));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (i, line) in lines[..20].iter().enumerate() {
            let back: ExportLogsServiceRequest = serde_json::from_value(line["payload"]["value"].clone()).unwrap();
            assert_eq!(back, request(i as u64));
            assert_eq!(
                (&line["seq"], &line["items"], &line["kind"]),
                (&(i + 1).into(), &2.into(), &"otlp_logs".into())
            );
            assert_eq!((&line["signal"], &line["sidecar"]["peer"]), (&"logs".into(), &"127.0.0.1:7".into()));
            assert_eq!(line["appended_at"], line["sidecar"]["received_at"]);
        }
        assert_eq!(lines[20]["payload"], json!({"encoding": "base64", "value": "bm8gcHJvdG9idWY="}));
        assert!(lines[20]["problem"].as_str().unwrap().contains("no OTLP request"), "{}", lines[20]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_an_export_join_without_gap_or_repeat() {
    let house = House::new();
    house.filled().await;
    let view = Inspection::open(&house.storage()).unwrap().log("logs").unwrap();
    let (mut from, mut seqs, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = report::export_page(&view, from, 300);
        seqs.extend(page["frames"].as_array().unwrap().iter().map(|frame| frame["seq"].as_u64().unwrap()));
        pages += 1;
        let Some(next) = page["next"].as_u64() else { break };
        from = next;
    }
    assert_eq!(seqs, (1..=21).collect::<Vec<_>>());
    assert!(pages > 5, "{pages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_pieces_are_listed_newest_first_and_opened() {
    let house = House::new();
    house.filled().await;
    tokio::task::block_in_place(|| {
        let value = house.say(NEW, &list()).json();
        let items = value["items"].as_array().unwrap();
        let seqs: Vec<&Value> = items.iter().map(|item| &item["seq"]).collect();
        assert_eq!((seqs, &value["records"]), (vec![&json!(5), &json!(4), &json!(3)], &json!(4)));
        let id = |i: usize| items[i]["id"].as_u64().unwrap();
        let text = house.say(NEW, &show(id(2))).out;
        assert!(text.contains("line_too_long") && text.contains("a line") && text.contains("too long"), "{text}");
        let text = house.say(NEW, &show(id(0))).out;
        for part in ["hello", "5000000007", "\"k\": \"v\"", "app="] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let missing = house.say(NEW, &show(99));
        assert_eq!(missing.exit, Exit::Failed);
        assert!(missing.err.contains("99"), "{}", missing.err);
        let lines = house.say(NEW, &export_quarantine()).lines();
        let back: ExportLogsServiceRequest = serde_json::from_value(lines[1]["payload"]["value"].clone()).unwrap();
        assert_eq!((back, &lines[0]["payload"]["value"]), (request(4), &"a line".into()));
        let text = house.say(NEW, &WalVerb::Quarantine(QuarantineVerb::List { format: Format::Text })).out;
        assert!(text.contains("3 pieces, 4 records") && !text.contains('\u{7}'), "{text}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_ends_verify_and_export_with_one_and_is_named() {
    let house = House::new();
    house.filled().await;
    tokio::task::block_in_place(|| {
        let logs = house.storage().join("logs");
        let names = std::fs::read_dir(&logs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let name = names.filter(|n| n.ends_with(".seg")).max().unwrap();
        let bytes = std::fs::read(logs.join(&name)).unwrap();
        let at = bytes.windows(7).position(|w| w == b"line 20").unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(logs.join(&name)).unwrap();
        file.write_all_at(b"rot", at as u64).unwrap();
        let checked = house.say(NEW, &verify(Format::Json));
        assert_eq!((checked.exit, &checked.json()["ok"]), (Exit::Failed, &false.into()));
        let log = &checked.json()["logs"][0];
        assert_eq!((&log["name"], &log["lost_records"]), (&"logs".into(), &2.into()));
        let hole = &log["stretches"][0];
        assert_eq!(hole["file"], format!("logs/{name}"));
        let range = hole["from"].as_u64().unwrap()..hole["to"].as_u64().unwrap();
        assert!(range.contains(&(at as u64)), "{hole}");
        let text = house.say(NEW, &verify(Format::Text)).out;
        assert!(text.contains("DAMAGED") && text.contains(&format!("logs/{name}: bytes")), "{text}");
        let told = house.say(NEW, &export());
        assert_eq!((told.exit, told.lines().len()), (Exit::Failed, 20));
        assert!(told.err.contains(&name) && told.err.contains("not complete"), "{}", told.err);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_folder_whose_holder_does_not_answer_is_refused_with_its_pid() {
    let house = House::new();
    let store = house.fill().await;
    tokio::task::block_in_place(|| {
        for verb in [stats(Format::Text), verify(Format::Text), export(), forgetting("loki/old"), list()] {
            let told = house.say(NEW, &verb);
            assert_eq!((told.exit, told.out.as_str()), (Exit::Unavailable, ""), "{verb:?}");
            assert!(told.err.contains(&format!("process {}", std::process::id())), "{}", told.err);
            assert!(told.err.contains("127.0.0.1:9"), "{}", told.err);
        }
    });
    store.close();
    drop(store);
    std::fs::remove_dir_all(house.storage()).unwrap();
    let told = tokio::task::block_in_place(|| house.say(NEW, &stats(Format::Text)));
    assert_eq!(told.exit, Exit::Storage);
    assert!(told.err.contains("there is no storage folder") && !house.storage().exists(), "{}", told.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_beside_a_stopped_gateway_lasts_and_what_is_in_use_is_refused() {
    let house = House::new();
    house.filled().await;
    tokio::task::block_in_place(|| {
        let told = house.say(OLD, &forgetting("loki/old"));
        assert_eq!(told.exit, Exit::Failed);
        assert!(told.err.contains("still in the configuration"), "{}", told.err);
        let told = house.say(NEW, &forgetting("loki/none"));
        assert!(told.exit == Exit::Failed && told.err.contains("loki/logs, loki/old"), "{}", told.err);
        let told = house.say(NEW, &forgetting("operator/keep"));
        assert!(told.exit == Exit::Failed && told.err.contains("still in the configuration"), "{}", told.err);
        let place = ("storage.path", house.storage().display().to_string());
        let overrides = vec![Override {
            layer: crate::config::Layer::Flag,
            name: "--storage".to_owned(),
            value: crate::config::Given::At(place.0, place.1),
        }];
        let unconfigured = load(&Request { overrides, ..Request::default() }, &Imagined::default()).unwrap();
        let told = said(&unconfigured, &forgetting("loki/old"));
        assert!(told.exit == Exit::Usage && told.err.contains("-c"), "{}", told.err);

        let told = house.say(NEW, &forgetting("loki/old"));
        assert_eq!((told.exit, told.err.as_str()), (Exit::Fine, ""));
        assert!(told.out.contains("loki/old is forgotten in the logs log: 41 records"), "{}", told.out);
        let value = house.say(NEW, &stats(Format::Json)).json();
        assert_eq!(destination(&value, "logs", "loki/old"), &Value::Null);
        assert_eq!(destination(&value, "logs", "loki/logs")["waiting"]["records"], 41);
    });
    let (store, _) = house.store(NEW);
    let names: Vec<String> = store.logs().flat_map(|l| l.log.stats().destinations).map(|d| d.id.to_string()).collect();
    assert_eq!(names, ["loki/logs"]);
    store.close();
}

/// A running gateway's office on a port that is then written into the configuration.
async fn serving(house: &mut House, http: &str, send: &str) -> (Store, Telemetry, oneshot::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    house.more = format!("http: {{ listen: '{}'{http} }}\n", listener.local_addr().unwrap());
    let (store, telemetry) = house.store(send);
    let loaded = house.loaded(send);
    let config = Arc::new(loaded.config.clone());
    let tls = config.http.tls.as_ref().map(|files| crate::tls::Server::load(files, &[crate::tls::ALPN_HTTP1]).unwrap());
    let admin = Admin::new(admin::Parts {
        telemetry: telemetry.clone(),
        status: Arc::new(Status::new(&config, store.clone(), Budget::new(1 << 20))),
        view: None,
        probe: None,
        wal: Arc::new(Desk::new(store.clone(), config.clone(), telemetry.clone())),
        node: NodeInfo::default(),
        addresses: Addresses::default(),
        config: ConfigPage::of(&loaded),
        http: config.http.clone(),
        token: admin::token(&config.storage.path).unwrap(),
    });
    let (open, closing) = oneshot::channel::<()>();
    tokio::spawn(admin.serve(listener, tls, async {
        let _ = closing.await;
    }));
    (store, telemetry, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_answers_as_its_folder_would() {
    let mut house = House::new();
    house.filled().await;
    let (alone, kept) = tokio::task::block_in_place(|| {
        (house.say(NEW, &export()).lines(), house.say(NEW, &export_quarantine()).lines())
    });
    let (store, telemetry, _open) = serving(&mut house, "", NEW).await;
    tokio::task::block_in_place(|| {
        let value = house.say(NEW, &stats(Format::Json)).json();
        assert_eq!(value["pid"], std::process::id());
        assert_eq!(destination(&value, "logs", "loki/old")["configured"], false);
        assert_eq!(destination(&value, "logs", "loki/old")["waiting"]["records"], 41);
        let text = house.say(NEW, &stats(Format::Text)).out;
        assert!(text.contains("which answers"), "{text}");
        assert_eq!(house.say(NEW, &verify(Format::Text)).exit, Exit::Fine);
        assert_eq!(house.say(NEW, &export()).lines(), alone);
        assert_eq!(house.say(NEW, &export_quarantine()).lines(), kept);
        let listed = house.say(NEW, &list()).json();
        assert_eq!(listed["total"], 3);
        let shown = house.say(NEW, &show(listed["items"][2]["id"].as_u64().unwrap()));
        assert!(shown.out.contains("a line"), "{shown:?}");
        let missing = house.say(NEW, &show(99));
        assert_eq!((missing.exit, missing.err.contains("99")), (Exit::Failed, true));

        for (name, sentence) in [("loki/logs", "still in the configuration"), ("loki/no/ne", "not registered")] {
            let told = house.say(NEW, &forgetting(name));
            assert!(told.exit == Exit::Failed && told.err.contains(sentence), "{told:?}");
        }
        let told = house.say(NEW, &forgetting("loki/old"));
        assert!(told.exit == Exit::Fine && told.out.contains("41 records"), "{told:?}");
        assert_eq!(destination(&house.say(NEW, &stats(Format::Json)).json(), "logs", "loki/old"), &Value::Null);
    });
    let dropped = telemetry.dropped_by_rule(Signal::Logs, &Default::default());
    assert_eq!(dropped.get(FORGET_RULE), Some(&41));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_another_folder_is_not_taken_for_the_holder() {
    let (mut asked, mut other) = (House::new(), House::new());
    let held = asked.fill().await;
    let (store, _, _open) = serving(&mut other, ", auth: none", NEW).await;
    asked.more = other.more.clone();
    // One process plays both gateways here, so the lock of the first is made to name another.
    std::fs::write(asked.storage().join("lock"), "1\n").unwrap();
    let told = tokio::task::block_in_place(|| asked.say(NEW, &forgetting("loki/old")));
    assert_eq!(told.exit, Exit::Unavailable);
    assert!(told.err.contains("process 1 holds") && told.err.contains("instead"), "{}", told.err);
    let told = tokio::task::block_in_place(|| other.say(NEW, &stats(Format::Text)));
    assert_eq!(told.exit, Exit::Fine, "auth: none needs no key");
    held.close();
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_only_the_configured_certificate_is_believed() {
    let mut house = House::new();
    let pem = |name: &str| house.dir.path().join(name);
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(vec!["elsewhere.example".to_owned()]).unwrap();
        std::fs::write(pem(&format!("{name}.crt")), made.cert.pem()).unwrap();
        std::fs::write(pem(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    let (cert, key) = (pem("a.crt"), pem("a.key"));
    let tls = format!(", tls: {{ cert_file: '{}', key_file: '{}' }}", cert.display(), key.display());
    let (store, _, _open) = serving(&mut house, &tls, NEW).await;
    let told = tokio::task::block_in_place(|| house.say(NEW, &stats(Format::Text)));
    assert_eq!((told.exit, told.err.as_str()), (Exit::Fine, ""));
    std::fs::copy(house.dir.path().join("b.crt"), &cert).unwrap();
    let told = tokio::task::block_in_place(|| house.say(NEW, &stats(Format::Text)));
    assert_eq!(told.exit, Exit::Unavailable);
    assert!(told.err.contains("another certificate"), "{}", told.err);
    let mut mutual = house.loaded(NEW);
    mutual.config.http.auth = Auth::Mtls;
    let told = tokio::task::block_in_place(|| said(&mutual, &stats(Format::Text)));
    assert!(told.exit == Exit::Unavailable && told.err.contains("client certificate"), "{}", told.err);
    store.close();
}
