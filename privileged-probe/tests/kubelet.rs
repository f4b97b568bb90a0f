//! What a kubelet writes, read by the probe's part and joined by the gateway's: every line once, whole, in order.
//!
//! The writer (`kubelet.py`) is a program of its own that knows nothing of the reader: lines with numbers, pieces, rotations (two
//! at once too), restarts, pods that go. What is proved is the whole way from the file to the line, kills included.

mod common;

use common::{Desk, Event, Held, Node, Reader};
use model::chunk::join::{Joiner, Piece};
use model::envelope::FileRef;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

/// Starts the writer. None: there is no python3, and that has been said.
fn writer(node: &Node, seconds: u32, seed: u32) -> Option<Child> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kubelet.py");
    let args = [&node.path("pods").display().to_string(), &seconds.to_string(), &seed.to_string(), "1000000"];
    match Command::new("python3").arg(script).args(args).stdout(Stdio::piped()).spawn() {
        Ok(child) => Some(child),
        Err(e) => {
            println!("skipped: kubelet: python3 does not start ({e}): Debian's python3");
            None
        }
    }
}

/// Lines by writer, each with its number, as the gateway would make them of the chunks.
fn lines(held: &Held) -> BTreeMap<String, Vec<u64>> {
    let mut joiner = Joiner::new(1 << 20, 64 << 20);
    let mut out: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut paths = BTreeMap::new();
    for (seq, event) in held.events.iter().enumerate() {
        let (key, offset, raw, end) = match event {
            Event::Opened(opened) => {
                paths.insert((opened.id, opened.generation), String::from_utf8_lossy(&opened.path).into_owned());
                continue;
            }
            Event::Bytes { key, offset, bytes } => (key, *offset, &bytes[..], None),
            Event::Closed { key, end, reason } => (key, *end, &[][..], Some(reason.clone())),
        };
        let file = FileRef { root: "pods".into(), path: paths[key].clone(), id: key.0, generation: key.1, offset, end };
        let piece = Piece { seq: seq as u64, received_at: 1, file: &file, enrichment: &[], raw };
        let mut walk = joiner.begin(&piece);
        while let Some(line) = joiner.next(&piece, &mut walk) {
            assert!(line.source.pod.is_some(), "{:?}", line.source);
            let text = String::from_utf8(line.text.into_owned()).expect("the writer writes text");
            if let Some((who, number)) = check(&text, line.stream.map(|s| s.name())) {
                out.entry(who).or_default().push(number);
            }
        }
    }
    out
}

/// Who wrote a line and which number it has; panics if it is not whole. None: one of the lines without a number.
fn check(text: &str, stream: Option<&str>) -> Option<(String, u64)> {
    if text == "between two rotations" || text == "written to the renamed file" {
        return None;
    }
    let words: Vec<&str> = text.splitn(6, ' ').collect();
    let [pod, container, restart, said, number, rest] = words[..] else {
        panic!("not a line of ours: {text:.100} ({} bytes, {stream:?})", text.len())
    };
    let number: u64 = number.parse().expect("a number");
    // The last line of a container that ended in the middle of it.
    let Some((filler, size)) = rest.rsplit_once('|').filter(|(f, s)| s.parse() == Ok(f.len())) else {
        return Some((format!("{pod}/{container}/{restart}/{said}/torn"), number));
    };
    assert!(
        filler.as_bytes().chunks(9).all(|c| format!("{number:08}-").as_bytes().starts_with(c)),
        "{size}: {text:.200}"
    );
    assert_eq!(Some(said), stream, "{text:.200}");
    Some((format!("{pod}/{container}/{restart}/{said}"), number))
}

/// Compares with what the writer says it wrote.
fn prove(node: &Node, desk: &Desk, child: Child, what: &str) {
    let out = child.wait_with_output().expect("the writer ends");
    assert!(out.status.success(), "the writer failed");
    let written: BTreeMap<String, u64> = serde_json::from_slice(&out.stdout).expect("its counts");
    let total: u64 = written.values().sum();
    assert!(total > 500 && written.len() > 8, "the writer had enough to do: {total} lines of {}", written.len());
    let last = |held: &Held| lines(held);
    let end = std::time::Instant::now() + common::PATIENCE;
    loop {
        let found = desk.with(last);
        let count: u64 = written.keys().filter_map(|who| found.get(who)).map(|n| n.len() as u64).sum();
        if count >= total || std::time::Instant::now() > end {
            for (who, count) in &written {
                let numbers = found.get(who).cloned().unwrap_or_default();
                let expected: Vec<u64> = (0..*count).collect();
                let missing = expected.iter().filter(|n| !numbers.contains(n)).count();
                assert_eq!(
                    numbers,
                    expected,
                    "{what}: {who}: {missing} missing, {} came, {count} written",
                    numbers.len()
                );
            }
            let torn = found.keys().filter(|who| who.ends_with("/torn")).count();
            println!("{what}: {total} lines of {} outputs, {torn} cut by their container's end", written.len());
            break;
        }
        desk.until("more", |_| true);
        // Between two looks at what came; the end is everything having come.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let _ = node;
}

#[test]
fn every_line_of_a_busy_node_comes_once_whole_and_in_order() {
    let (node, desk) = (Node::new(), Desk::new());
    let Some(child) = writer(&node, 15, 1) else { return };
    let reader = Reader::start(&desk, &node.options());
    prove(&node, &desk, child, "undisturbed");
    reader.stop();
    desk.with(|held| {
        let rotated = held.closed().iter().filter(|(_, reason)| reason == "rotated").count();
        assert!(rotated > 5, "there were rotations: {rotated}");
    });
}

#[test]
fn a_reader_that_is_killed_and_loses_its_positions_now_and_then_loses_no_line_and_doubles_none() {
    let (node, mut desk) = (Node::new(), Desk::new());
    let Some(mut child) = writer(&node, 15, 2) else { return };
    let mut kills = 0;
    while child.try_wait().expect("the writer can be asked").is_none() {
        let positions = node.path("state/positions");
        let before = std::fs::read(&positions).ok();
        let reader = Reader::start(&desk, &node.options());
        // A moment of reading, so that the stop falls anywhere; no result depends on its length.
        std::thread::sleep(std::time::Duration::from_millis(700));
        reader.stop();
        // As after `kill -9`: what was written down at the end was not.
        match before {
            Some(bytes) if kills % 4 != 3 => std::fs::write(&positions, bytes).expect("put back"),
            _ => drop(std::fs::remove_file(&positions)),
        }
        desk = desk.reconnect();
        kills += 1;
    }
    assert!(kills > 10, "{kills}");
    let reader = Reader::start(&desk, &node.options());
    prove(&node, &desk, child, &format!("{kills} kills"));
    reader.stop();
    desk.with(|held| assert!(held.trimmed > 0, "something was read twice and trimmed"));
}
