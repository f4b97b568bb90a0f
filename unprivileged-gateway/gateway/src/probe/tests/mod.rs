//! The client of the door against a probe that follows a script: every frame, every number and every rudeness is the test's.

mod door;
mod hostile;
mod once;

use super::{Board, Setup};
use crate::budget::Budget;
use crate::config::{Imagined, Request, load};
use crate::seam::Signal;
use crate::store::Store;
use crate::telemetry::Telemetry;
use ipc::stacks::{End, Kind, Location, Stack, Strings, Table};
use ipc::{
    Closed, DURABLE_BYTES, Durable, Hello, Index, Judge, LogBytes, Message, Opened, Process, Root, Stacks, VERSION,
};
use model::envelope::{self, Sidecar};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Nothing here takes this long; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway without receivers, pages and destinations.
pub(super) struct House {
    pub(super) dir: tempfile::TempDir,
    pub(super) storage: PathBuf,
}

/// A store and the client that feeds it.
pub(super) struct Gateway {
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    pub(super) board: Board,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl House {
    pub(super) fn new() -> House {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let storage = dir.path().join("storage");
        House { dir, storage }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("probe.sock")
    }

    pub(super) fn store(&self, storage: &Path) -> (Store, Telemetry) {
        let file = self.dir.path().join("gateway.yaml");
        let text = format!(
            "storage: {{ path: '{}', max: 64MiB }}\nsend:\n  loki: {{ logs: {{ url: 'http://127.0.0.1:9' }} }}\nlocal_view: {{ max: 16MiB }}\n",
            storage.display()
        );
        std::fs::write(&file, text).expect("a temporary folder takes a file");
        let request = Request { files: vec![file], ..Request::default() };
        let loaded = load(&request, &Imagined::default()).unwrap_or_else(|e| panic!("{e}"));
        let telemetry = Telemetry::new();
        (Store::open(&loaded.config, telemetry.clone()).expect("the folder opens"), telemetry)
    }

    pub(super) fn gateway(&self, storage: &Path) -> Gateway {
        let (store, telemetry) = self.store(storage);
        let (stop, stopped) = watch::channel(false);
        let setup = Setup {
            socket: self.socket(),
            node: "n1".into(),
            sources: ["pods".to_owned()].into(),
            window: None,
            store: store.clone(),
            budget: Budget::new(64 << 20),
            telemetry: telemetry.clone(),
            stop: stopped,
        };
        let (board, thread) = setup.start().expect("a thread");
        Gateway { store, telemetry, board, stop, thread }
    }
}

/// A house, a probe that listens in it, and a gateway that comes to it.
pub(super) fn street() -> (House, Probe, Gateway) {
    let house = House::new();
    let probe = Probe::listen(&house);
    let gateway = house.gateway(&house.storage);
    (house, probe, gateway)
}

impl Gateway {
    pub(super) fn end(self) {
        let _ = self.stop.send(true);
        self.thread.join().expect("the client does not panic");
        self.store.close();
    }

    /// Everything in a signal's log: sidecar and raw bytes.
    pub(super) fn held(&self, signal: Signal) -> Vec<(Sidecar, Vec<u8>)> {
        held(&self.store, signal)
    }

    /// The text of a log file, put together in log order.
    pub(super) fn text(&self) -> String {
        let held = self.held(Signal::Logs);
        String::from_utf8(held.into_iter().flat_map(|(_, raw)| raw).collect()).expect("text")
    }
}

pub(super) fn held(store: &Store, signal: Signal) -> Vec<(Sidecar, Vec<u8>)> {
    let mut reader = store.log(signal).expect("served").log.reader(0);
    let mut out = Vec::new();
    loop {
        let batch = reader.read(1 << 20).expect("the log is readable");
        if batch.frames.is_empty() {
            return out;
        }
        for frame in batch.frames {
            let (_, sidecar, raw) = envelope::open(&frame.payload).expect("an envelope");
            out.push((sidecar, raw.to_vec()));
        }
    }
}

/// The other end.
pub(super) struct Probe {
    listener: UnixListener,
    pub(super) judge: Judge,
}

/// One connection of it.
pub(super) struct Line<'a> {
    stream: UnixStream,
    judge: &'a mut Judge,
    /// What the gateway said it holds of each stream.
    pub(super) holds: [u64; 2],
}

impl Probe {
    pub(super) fn listen(house: &House) -> Probe {
        let _ = std::fs::remove_file(house.socket());
        Probe { listener: UnixListener::bind(house.socket()).expect("a socket"), judge: Judge::default() }
    }

    /// The next connection, before a word is said.
    pub(super) fn accept(&mut self) -> Line<'_> {
        let (stream, _) = self.listener.accept().expect("the gateway comes");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        self.judge.connected();
        Line { stream, judge: &mut self.judge, holds: [0; 2] }
    }

    /// The next connection, greeted, with the gateway's first two numbers.
    pub(super) fn greet(&mut self, start: u8) -> Line<'_> {
        let mut line = self.accept();
        line.say(0, &Message::Hello(hello(start)), b"");
        for _ in Index::ALL {
            let (index, seq) = line.durable();
            line.holds[index as usize] = seq;
        }
        line
    }
}

impl Line<'_> {
    pub(super) fn say(&mut self, seq: u64, message: &Message, bulk: &[u8]) {
        ipc::write_frame(&mut self.stream, seq, message, bulk).expect("the gateway reads");
        if let Some(index) = message.index() {
            self.judge.sent(index, seq);
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        // A gateway that has hung up is what some tests want.
        let _ = self.stream.write_all(bytes);
    }

    /// The next number, if it is one to believe.
    pub(super) fn durable(&mut self) -> (Index, u64) {
        let mut record = [0; DURABLE_BYTES];
        self.stream.read_exact(&mut record).expect("a number comes");
        self.judge.judge(Durable::from_bytes(record)).expect("a number to believe")
    }

    /// Reads numbers until `index` has reached `seq`.
    pub(super) fn until(&mut self, index: Index, seq: u64) {
        while self.durable() != (index, seq) {}
    }

    pub(super) fn open(&mut self, file: u32, id: u8, position: u64) {
        self.say(0, &Message::Opened(opened(file, id, position)), b"");
    }

    pub(super) fn bytes(&mut self, seq: u64, file: u32, offset: u64, text: &str) {
        self.say(seq, &Message::LogBytes(LogBytes { file, offset }), text.as_bytes());
    }

    pub(super) fn close(&mut self, file: u32, end: u64) {
        self.say(0, &Message::Closed(Closed { file, end, reason: "deleted".into() }), b"");
    }

    pub(super) fn stacks(&mut self, seq: u64, count: u32) {
        let (head, table) = window(seq, count);
        self.say(seq, &Message::Stacks(head), &table.encode());
    }

    /// Waits for the gateway to hang up.
    pub(super) fn hung_up(mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
    }
}

pub(super) fn hello(start: u8) -> Hello {
    let host = "machine".into();
    Hello { version: VERSION, start: [start; 16], host, cpus: 2, hz: 97, ..Hello::default() }
}

pub(super) fn opened(file: u32, id: u8, position: u64) -> Opened {
    Opened {
        file,
        root: Root::Pods,
        path: b"ns_pod_uid/app/0.log".to_vec(),
        id: [id; 16],
        generation: 0,
        device: 1,
        inode: 2,
        length: 0,
        position,
        rotated: false,
    }
}

/// A window of one stack, met `count` times, from the second `seq` on.
pub(super) fn window(seq: u64, count: u32) -> (Stacks, Table) {
    let mut strings = Strings::default();
    let function = strings.number("main");
    let location = Location { address: 4096, mapping: 0, function, file: 0, line: 0, kind: Kind::User };
    let table = Table {
        strings: strings.into_list(),
        mappings: vec![],
        locations: vec![location],
        stacks: vec![Stack { process: 0, count, end: End::Gap, locations: vec![0] }],
    };
    let second = 1_000_000_000;
    let head = Stacks {
        from_ns: seq * second,
        to_ns: (seq + 1) * second,
        hz: 97,
        comm: "app".into(),
        processes: vec![Process { tgid: 7, comm: "app".into() }],
        samples: count.into(),
        ..Stacks::default()
    };
    (head, table)
}

/// Waits for something that happens on another thread.
pub(super) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}: it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}
