//! A journal folder that grows under the reader, written by systemd's own writer.

use super::*;
use crate::config::{Imagined, Request, load};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use std::io::Write;
use std::path::{Path, PathBuf};

const PATIENCE: Duration = Duration::from_secs(30);

/// systemd-journal-remote, and a journalctl to read with. None: that was said.
fn writer() -> Option<PathBuf> {
    let named = std::env::var_os("BULKHEAD_JOURNAL_REMOTE").map(PathBuf::from);
    let starts = |path: &PathBuf| {
        journal_remote(path).arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let found = named.into_iter().chain(["/lib/systemd/systemd-journal-remote".into()]).find(starts);
    let reads = Command::new("journalctl").arg("--version").stdout(Stdio::null()).status().is_ok();
    if found.is_none() || !reads {
        println!(
            "skipped: journal: no systemd-journal-remote or no journalctl: Debian's systemd-journal-remote and systemd (BULKHEAD_JOURNAL_REMOTE names the first)"
        );
    }
    found.filter(|_| reads)
}

/// The writer as a command; taken out of its package, it needs its library beside it.
fn journal_remote(path: &Path) -> Command {
    let mut command = Command::new(path);
    if let Some(libraries) = std::env::var_os("BULKHEAD_JOURNAL_REMOTE_LIBS") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

/// Writes entries `from..to` into a journal file of the folder.
fn write(remote: &Path, folder: &Path, file: &str, from: u32, to: u32) {
    let mut child = journal_remote(remote)
        .arg(format!("--output={}", folder.join(file).display()))
        .args(["--split-mode=none", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the writer starts");
    let mut input = child.stdin.take().expect("it reads");
    for i in from..to {
        let at = 1_700_000_000_000_000_u64 + u64::from(i);
        let text = format!(
            "__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={i}\n_BOOT_ID=0123456789abcdef0123456789abcdef\nMESSAGE=entry {i}\nPRIORITY={}\n_SYSTEMD_UNIT=unit{}.service\n_HOSTNAME=h1\n\n",
            i % 8,
            i % 3
        );
        input.write_all(text.as_bytes()).expect("written");
    }
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

struct Node {
    dir: tempfile::TempDir,
    store: Store,
    telemetry: Telemetry,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("j")).expect("a folder");
        let telemetry = Telemetry::new();
        let store = Store::open(&Node::config(dir.path()), telemetry.clone()).expect("a store");
        Node { dir, store, telemetry }
    }

    fn config(dir: &Path) -> Config {
        let text = format!(
            "storage: {{ path: {0}/wal, max: 64MiB }}\nlocal_view: {{}}\nlogs: {{ journal: {{ directory: {0}/j }} }}\n",
            dir.display()
        );
        std::fs::write(dir.join("c.yaml"), text).expect("written");
        let request = Request { files: vec![dir.join("c.yaml")], ..Request::default() };
        load(&request, &Imagined::default()).expect("a configuration").config
    }

    fn start(&self) -> (watch::Sender<bool>, JoinHandle<()>) {
        let (stop, stopped) = watch::channel(false);
        let config = Node::config(self.dir.path());
        let thread =
            start(&config, &self.store, &self.telemetry, &stopped).expect("a thread").expect("it is configured");
        (stop, thread)
    }

    /// All messages in the log, in order.
    fn messages(&self) -> Vec<String> {
        let log = &self.store.log(Signal::Logs).expect("served").log;
        let (mut reader, mut out) = (log.reader(0), Vec::new());
        loop {
            let batch = reader.read(8 << 20).expect("readable");
            if batch.frames.is_empty() {
                return out;
            }
            for frame in &batch.frames {
                let (_, _, raw) = model::envelope::open(&frame.payload).expect("a frame");
                let request = ExportLogsServiceRequest::decode(raw).expect("a request");
                let records = request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records);
                let mut texts: Vec<(u64, String)> =
                    records.map(|r| (r.time_unix_nano, format!("{:?}", r.body))).collect();
                assert_eq!(texts.len(), frame.items as usize);
                texts.sort();
                out.extend(texts.into_iter().map(|(_, text)| text));
            }
        }
    }

    fn until(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.messages().len() < count {
            assert!(Instant::now() < end, "{} of {count} entries", self.messages().len());
            std::thread::sleep(LOOK);
        }
    }
}

#[test]
fn a_growing_journal_is_read_once_across_stops_and_its_child_ends_with_us() {
    let Some(remote) = writer() else { return };
    let node = Node::new();
    let folder = node.dir.path().join("j");
    write(&remote, &folder, "a.journal", 0, 200);
    let (stop, thread) = node.start();
    node.until(200);
    write(&remote, &folder, "b.journal", 200, 300);
    node.until(300);
    let _ = stop.send(true);
    thread.join().expect("it ends");
    write(&remote, &folder, "c.journal", 300, 1_800);
    let (stop, thread) = node.start();
    node.until(1_800);
    let _ = stop.send(true);
    thread.join().expect("it ends");
    let messages = node.messages();
    let expected: Vec<String> =
        (0..1_800).map(|i| format!("Some(AnyValue {{ value: Some(StringValue(\"entry {i}\")) }})")).collect();
    assert_eq!(messages, expected);
    node.store.close();
}

#[test]
fn a_folder_that_is_no_journal_is_said_and_tried_again_until_the_end() {
    let node = Node::new();
    std::fs::remove_dir(node.dir.path().join("j")).expect("removed");
    let (stop, thread) = node.start();
    // Long enough for a first attempt, most times; the claim (it ends) holds before and after one.
    std::thread::sleep(LOOK);
    let _ = stop.send(true);
    thread.join().expect("it ends although journalctl does not start");
    node.store.close();
}

#[test]
fn a_line_longer_than_the_limit_is_left_out_and_the_next_one_is_read() {
    let text = format!("short\n{}\nnext\nhalf", "x".repeat(3 * LINE_BYTES_MAX));
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat is everywhere");
    let (mut input, out) = (child.stdin.take().expect("in"), child.stdout.take().expect("out"));
    let writes = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let (lines, heard) = sync_channel(LINES_WAITING);
    read(out, &lines);
    drop(lines);
    let heard: Vec<Option<Vec<u8>>> = heard
        .iter()
        .map(|h| match h {
            Heard::Line(line) => Some(line),
            Heard::TooLong => None,
        })
        .collect();
    assert_eq!(heard, [Some(b"short\n".to_vec()), None, Some(b"next\n".to_vec())]);
    writes.join().expect("written").expect("written");
    let _ = child.wait();
}
