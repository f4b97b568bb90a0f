//! Log files as they live: rotated, shortened, removed, replaced, while the reader is there and while it is not.

mod common;

use common::{Desk, Event, Node, Reader, append};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[test]
fn lines_are_read_as_they_are_written_and_half_a_line_waits() {
    let (node, desk) = (Node::new(), Desk::new());
    let file = node.container().join("0.log");
    append(&file, "one\ntw");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "one\n");
    append(&file, "o\nthree\n");
    desk.until_text(&node.shown("0.log"), "one\ntwo\nthree\n");
    append(&node.path("plain/a.log"), "plain\n");
    append(&node.path("plain/a.txt"), "not asked for\n");
    desk.until_text(&node.path("plain/a.log").display().to_string(), "plain\n");
    reader.stop();
    desk.with(|held| {
        let roots: Vec<&str> = held.opened().map(|o| common::root_name(&o.root)).collect();
        assert_eq!(roots, ["pods", "sys"]);
    });
}

#[test]
fn two_rotations_between_two_looks_lose_nothing_and_keep_the_order() {
    let (node, desk) = (Node::new(), Desk::new());
    let live = node.container().join("0.log");
    append(&live, "a1\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "a1\n");
    reader.stop();
    // Nobody looks.
    append(&live, "a2\n");
    fs::rename(&live, node.container().join("0.log.20260101-000000")).expect("renamed");
    append(&live, "b1\n");
    fs::rename(&live, node.container().join("0.log.20260101-000010")).expect("renamed");
    append(&live, "c1\n");
    let desk = desk.reconnect();
    let reader = Reader::start(&desk, &node.options());
    let all = |held: &common::Held| {
        let bytes = held.events.iter().filter_map(|e| match e {
            Event::Bytes { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        bytes.collect::<String>()
    };
    desk.until("all volumes", |held| all(held) == "a1\na2\nb1\nc1\n");
    reader.stop();
    desk.with(|held| {
        assert_eq!(held.trimmed, 0);
        let reasons: Vec<String> = held.closed().into_iter().map(|(_, reason)| reason).collect();
        assert_eq!(reasons, ["rotated", "rotated"]);
    });
}

#[test]
fn a_file_that_is_removed_is_read_to_its_end_from_the_descriptor() {
    let (node, desk) = (Node::new(), Desk::new().slow());
    let file = node.container().join("0.log");
    append(&file, &"first\n".repeat(10));
    let reader = Reader::start(&desk, &node.options());
    desk.until("the beginning", |held| !held.events.is_empty() && held.streams.values().any(|s| !s.is_empty()));
    append(&file, "last\nwithout an end");
    fs::remove_dir_all(node.path("pods").join(common::POD)).expect("removed");
    desk.sign();
    desk.until("its end", |held| held.closed().iter().any(|(_, reason)| reason == "deleted"));
    let text = desk.text(&node.shown("0.log"));
    assert!(text.ends_with("last\nwithout an end"), "{text:?}");
    reader.stop();
}

#[test]
fn a_shortened_file_is_a_new_generation_and_begins_anew() {
    let (node, desk) = (Node::new(), Desk::new());
    let file = node.path("plain/a.log");
    let shown = file.display().to_string();
    append(&file, "header\none\ntwo\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&shown, "header\none\ntwo\n");
    fs::write(&file, "header\n3\n").expect("rewritten");
    desk.until("the second generation", |held| {
        held.streams.iter().any(|((_, generation), bytes)| *generation == 1 && bytes == b"header\n3\n")
    });
    reader.stop();
    desk.with(|held| {
        assert_eq!(held.closed(), [(shown.clone(), "truncated".to_owned())]);
        let ids: Vec<_> = held.opened().map(|o| (o.id, o.generation)).collect();
        assert_eq!((ids[0].0, ids[0].1, ids[1].1), (ids[1].0, 0, 1), "it begins as before, so it is the same file");
    });
    // Shortened while nobody looks.
    fs::write(&file, "header\n").expect("rewritten");
    let desk = desk.reconnect();
    let reader = Reader::start(&desk, &node.options());
    desk.until("the third generation", |held| {
        held.streams.iter().any(|((_, generation), bytes)| *generation == 2 && bytes == b"header\n")
    });
    reader.stop();
}

#[test]
fn a_file_shortened_below_what_was_handed_over_is_a_new_generation_although_no_receipt_came() {
    let (node, desk) = (Node::new(), Desk::new().slow());
    let file = node.path("plain/a.log");
    append(&file, "header\none\ntwo\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&file.display().to_string(), "header\none\ntwo\n");
    reader.stop();
    fs::write(&file, "header\n3\n").expect("rewritten");
    let desk = desk.reconnect();
    let reader = Reader::start(&desk, &node.options());
    desk.until("the second generation", |held| {
        held.streams.iter().any(|((_, generation), bytes)| *generation == 1 && bytes == b"header\n3\n")
    });
    reader.stop();
}

#[test]
fn a_file_that_is_rewritten_longer_than_before_is_noticed_by_its_first_line() {
    let (node, desk) = (Node::new(), Desk::new());
    let file = node.path("plain/a.log");
    append(&file, "one\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&file.display().to_string(), "one\n");
    fs::write(&file, "another beginning\nand more\n").expect("rewritten");
    desk.until("the other stream", |held| held.streams.values().any(|s| s == b"another beginning\nand more\n"));
    reader.stop();
}

#[test]
fn a_replaced_file_is_another_file_even_with_the_same_inode() {
    let (node, desk) = (Node::new(), Desk::new());
    let file = node.container().join("0.log");
    append(&file, "same\nold\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "same\nold\n");
    reader.stop();
    // With nobody holding it, the inode is free; ext4 gives it to the next file.
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("a file"));
    let before = inode(&file);
    fs::remove_file(&file).expect("removed");
    append(&file, "same\nnew and longer\n");
    if inode(&file) != before {
        println!("skipped: a_replaced_file_with_the_same_inode: this filesystem did not reuse it: TMPDIR on ext4");
    }
    let desk = desk.reconnect();
    let reader = Reader::start(&desk, &node.options());
    desk.until("the new file from its beginning", |held| held.streams.values().any(|s| s == b"same\nnew and longer\n"));
    reader.stop();
}

#[test]
fn lost_positions_lose_nothing_and_repeat_nothing_that_is_held() {
    let (node, desk) = (Node::new(), Desk::new());
    let file = node.container().join("0.log");
    append(&file, "one\ntwo\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "one\ntwo\n");
    reader.stop();
    fs::remove_file(node.path("state/positions")).expect("there were positions");
    append(&file, "three\n");
    fs::rename(&file, node.container().join("0.log.20260101-000000")).expect("renamed");
    append(&file, "four\n");
    let desk = desk.reconnect();
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "one\ntwo\nthree\nfour\n");
    reader.stop();
    desk.with(|held| assert_eq!(held.trimmed, 8, "the same file under another name is known again"));
}

#[test]
fn without_receipts_reading_stops_at_the_outbox_and_goes_on_with_them() {
    let (node, desk) = (Node::new(), Desk::new().slow());
    let line = "x".repeat(999) + "\n";
    append(&node.container().join("0.log"), &line.repeat(12_000));
    append(&node.container().join("1.log"), "quiet\n");
    let reader = Reader::start(&desk, &node.options());
    let bytes = |held: &common::Held| held.streams.values().map(Vec::len).sum::<usize>();
    desk.until("as much as the outbox takes", |held| bytes(held) > 3 << 20);
    // A second look: the status comes once a second.
    let read = desk.with(|held| held.status.log.read);
    desk.until("another status", |held| held.status.log.read >= read && held.status.log.files_open == 2);
    assert!(desk.with(bytes) <= 4 << 20, "{}", desk.with(bytes));
    while desk.with(bytes) < 12_000_006 {
        let before = desk.with(bytes);
        desk.sign();
        desk.until("more", |held| bytes(held) > before || bytes(held) == 12_000_006);
    }
    reader.stop();
}

#[test]
fn a_shouting_pod_does_not_keep_a_quiet_one_waiting() {
    let (node, desk) = (Node::new(), Desk::new().slow());
    append(&node.container().join("0.log"), &"loud\n".repeat(2_000_000));
    for i in 0..20 {
        let folder = node.path("pods").join(format!("a_b{i}_0d1c2b3a-0000-4000-8000-00000000abcd/c"));
        fs::create_dir_all(&folder).expect("a pod");
        append(&folder.join("0.log"), "quiet\n");
    }
    let reader = Reader::start(&desk, &node.options());
    let quiet = |held: &common::Held| held.streams.values().filter(|s| &s[..] == b"quiet\n").count();
    desk.until("all quiet pods, before the first receipt", |held| quiet(held) == 20);
    let loud = desk.with(|held| held.streams.values().map(Vec::len).max());
    assert!(loud < Some(4 << 20), "{loud:?}");
    reader.stop();
}

#[test]
fn a_line_of_any_length_crosses_whole_in_pieces() {
    let (node, desk) = (Node::new(), Desk::new());
    let text = "a".repeat(700_000) + "\n" + &"b".repeat(3_000_000) + "\nshort\n";
    append(&node.container().join("0.log"), &text);
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), &text);
    reader.stop();
    desk.with(|held| {
        let chunks: Vec<usize> = held
            .events
            .iter()
            .filter_map(|e| if let Event::Bytes { bytes, .. } = e { Some(bytes.len()) } else { None })
            .collect();
        assert_eq!(chunks[0], 700_001, "up to 1 MiB a line is one piece: {chunks:?}");
    });
}

#[test]
fn what_was_compressed_is_left_out_if_it_was_read_and_counted_if_not() {
    let (node, desk) = (Node::new(), Desk::new());
    let (live, old) = (node.container().join("0.log"), node.container().join("0.log.20260101-000000"));
    append(&live, "one\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "one\n");
    fs::rename(&live, &old).expect("renamed");
    append(&live, "two\n");
    desk.until("the old volume is closed", |held| held.closed().iter().any(|(_, reason)| reason == "rotated"));
    reader.stop();
    append(&node.container().join("0.log.20260101-000000.tmp"), "half a gz");
    fs::rename(&old, node.container().join("0.log.20260101-000000.gz")).expect("packed");
    append(&node.container().join("0.log.20251231-000000.gz"), "never read\n");
    let desk = desk.reconnect();
    let reader = Reader::start(&desk, &node.options());
    append(&live, "three\n");
    desk.until_refused("gz_unread", 1);
    desk.until("the live file", |held| held.streams.values().any(|s| s == b"two\nthree\n"));
    reader.stop();
    desk.with(|held| assert!(held.opened().all(|o| !o.path.ends_with(b".gz") && !o.path.ends_with(b".tmp"))));
}

#[test]
fn names_of_any_bytes_cross_as_bytes() {
    let (node, desk) = (Node::new(), Desk::new());
    let name: &[u8] = b"a_b\nc\"}_\xff\xfe..\\x41";
    let folder = node.path("pods").join(std::ffi::OsStr::from_bytes(name)).join("c\nd");
    fs::create_dir_all(&folder).expect("a folder");
    append(&folder.join("0.log"), "x\n");
    append(&folder.join("0.log\n"), "not a log\n");
    let reader = Reader::start(&desk, &node.options());
    let expected = [name, b"/c\nd/0.log"].concat();
    desk.until("the file", |held| held.opened().any(|o| o.path == expected) && held.streams.len() == 1);
    reader.stop();
}

#[test]
fn a_start_after_a_stop_announces_nothing_that_is_over() {
    let (node, desk) = (Node::new(), Desk::new());
    append(&node.container().join("0.log.20260101-000000"), "old\n");
    append(&node.container().join("0.log"), "live\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until("both", |held| held.streams.values().filter(|s| !s.is_empty()).count() == 2);
    reader.stop();
    let again = desk.reconnect();
    let events = again.with(|held| held.events.len());
    let reader = Reader::start(&again, &node.options());
    append(&node.container().join("0.log"), "more\n");
    again.until("the new line", |held| held.streams.values().any(|s| s == b"live\nmore\n"));
    reader.stop();
    again.with(|held| assert_eq!(held.events[events..].iter().filter(|e| matches!(e, Event::Opened(_))).count(), 1));
}
