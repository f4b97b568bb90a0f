//! Paths that want to lead somewhere else, or to make the reader wait: each is refused under its own name and read by nobody.

mod common;

use common::{Desk, Node, Reader, append};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const SECRET: &str = "root:secret\n";

/// Whatever happens, the secret never crosses.
fn nothing_leaks(desk: &Desk) {
    desk.with(|held| {
        for stream in held.streams.values() {
            assert!(!stream.windows(6).any(|w| w == b"secret"), "the secret crossed");
        }
    });
}

#[test]
fn whatever_is_no_plain_file_of_its_own_is_refused_by_name() {
    let (node, desk) = (Node::new(), Desk::new());
    let secret = node.path("secret");
    append(&secret, SECRET);
    let folder = node.container();
    symlink(&secret, folder.join("1.log")).expect("a link");
    symlink("../../../secret", folder.join("2.log")).expect("a relative link");
    symlink("/proc/self/fd/0", folder.join("3.log")).expect("a magic link");
    symlink("0.log", folder.join("4.log")).expect("a link beside it");
    symlink("nowhere", folder.join("5.log")).expect("a dangling link");
    mkfifo(&folder.join("6.log"), Mode::S_IRUSR).expect("a fifo");
    let _listener = UnixListener::bind(folder.join("7.log")).expect("a socket");
    fs::create_dir(folder.join("8.log")).expect("a directory");
    fs::hard_link(&secret, folder.join("9.log")).expect("a hard link");
    let elsewhere = node.path("elsewhere");
    fs::create_dir_all(elsewhere.join("c")).expect("a tree");
    append(&elsewhere.join("c/0.log"), SECRET);
    symlink(&elsewhere, node.path("pods/linked-pod")).expect("a linked pod");
    symlink(elsewhere.join("c"), node.path("pods").join(common::POD).join("linked")).expect("a linked container");
    let devices = match mknod(&folder.join("10.log"), SFlag::S_IFCHR, Mode::S_IRUSR, nix::sys::stat::makedev(1, 5)) {
        Ok(()) => 1,
        Err(e) => {
            println!("skipped: a device as a log file: mknod says {e}: root with CAP_MKNOD");
            0
        }
    };
    append(&folder.join("0.log"), "honest\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&node.shown("0.log"), "honest\n");
    for (reason, count) in [("link", 7), ("fifo", 1), ("socket", 1), ("directory", 1), ("hard_link", 1)] {
        desk.until_refused(reason, count);
    }
    if devices > 0 {
        desk.until_refused("device", devices);
    }
    reader.stop();
    nothing_leaks(&desk);
    desk.with(|held| assert_eq!(held.opened().count(), 1));
}

#[test]
fn plain_files_are_opened_beneath_the_fixed_folder_of_their_pattern() {
    let (node, desk) = (Node::new(), Desk::new());
    append(&node.path("secret"), SECRET);
    let plain = node.path("plain");
    symlink(node.path("secret"), plain.join("a.log")).expect("a link");
    mkfifo(&plain.join("b.log"), Mode::S_IRUSR).expect("a fifo");
    fs::create_dir(plain.join("c.log")).expect("a folder");
    append(&plain.join("d.log"), "honest\n");
    let reader = Reader::start(&desk, &node.options());
    desk.until_text(&plain.join("d.log").display().to_string(), "honest\n");
    desk.until_refused("link", 1);
    desk.until_refused("fifo", 1);
    reader.stop();
    nothing_leaks(&desk);
    assert_eq!(desk.refused("directory"), 0, "a folder that fits a pattern means nothing");
}

/// Puts things in the place of a file, as fast as it can, while it is being opened.
fn swap(path: &Path, secret: &Path, stop: &AtomicBool) -> u64 {
    let (good, link, fifo) = (path.with_extension("g"), path.with_extension("l"), path.with_extension("f"));
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        fs::write(&good, "honest\n").expect("a file");
        fs::rename(&good, path).expect("in its place");
        symlink(secret, &link).expect("a link");
        fs::rename(&link, path).expect("in its place");
        mkfifo(&fifo, Mode::S_IRUSR).expect("a fifo");
        fs::rename(&fifo, path).expect("in its place");
        swaps += 3;
    }
    swaps
}

#[test]
fn a_swap_between_look_and_open_is_met_by_the_second_look() {
    let node = Node::new();
    append(&node.path("secret"), SECRET);
    let path = node.container().join("0.log");
    let stop = AtomicBool::new(false);
    let (opened, refused) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap(&path, &node.path("secret"), &stop));
        let counted = probe::pod_log::race(&node.path("pods"), node.shown("0.log").as_bytes(), 200_000);
        stop.store(true, Ordering::Relaxed);
        assert!(swapper.join().expect("it swaps") > 100);
        counted
    });
    assert!(opened > 0 && refused > 0, "both were met: {opened} opened, {refused} refused");
}

#[test]
fn a_swapped_folder_leads_nowhere() {
    let (node, desk) = (Node::new(), Desk::new());
    let elsewhere = node.path("elsewhere");
    fs::create_dir_all(elsewhere.join("web")).expect("a tree");
    append(&elsewhere.join("web/0.log"), SECRET);
    append(&node.container().join("0.log"), "honest\n");
    let reader = Reader::start(&desk, &node.options());
    let pod = node.path("pods").join(common::POD);
    for _ in 0..300 {
        fs::rename(&pod, node.path("aside")).expect("moved away");
        symlink(&elsewhere, &pod).expect("a link in its place");
        fs::remove_file(&pod).expect("removed");
        fs::rename(node.path("aside"), &pod).expect("moved back");
    }
    append(&node.container().join("0.log"), "still here\n");
    desk.until("the honest file", |held| held.streams.values().any(|s| s.ends_with(b"still here\n")));
    reader.stop();
    nothing_leaks(&desk);
}

#[test]
fn a_hundred_thousand_names_cost_a_bounded_number_of_looks() {
    let (node, desk) = (Node::new(), Desk::new());
    append(&node.container().join("0.log"), "honest\n");
    for i in 0..20_000 {
        fs::create_dir(node.path("pods").join(format!("zz-{i}"))).expect("a folder");
    }
    let reader = Reader::start(&desk, &node.options());
    desk.until_refused("too_many", 1);
    reader.stop();
}
