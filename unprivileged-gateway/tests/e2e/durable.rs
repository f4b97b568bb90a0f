//! The order of things: bytes written, bytes synced, and only then "yes". Watched from outside, by `strace`.

use crate::alone;
use e2e::gateway::Setup;
use e2e::load::{Load, sink};
use e2e::skip;
use loadgen::{Protocol, Signal};
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Requests sent one after the other; each needs a sync of its own.
const REQUESTS: usize = 12;
const TRACED: &str =
    "trace=fdatasync,fsync,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,read,readv,recvfrom,recvmsg";

fn can_trace() -> Result<(), String> {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    match tried {
        Err(e) => Err(format!("strace does not run: {e}")),
        Ok(o) if !o.status.success() => {
            Err(format!("strace may not trace: {}", String::from_utf8_lossy(&o.stderr).trim()))
        }
        Ok(_) => Ok(()),
    }
}

/// What happened, in the order in which the kernel let it happen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Request,
    Written,
    Synced,
    Answered,
}

/// Reads strace's lines. `-y` names the file of each descriptor, so that syncs of the logs' segments can be told from others.
fn events(trace: &str, log_folder: &str) -> Vec<Event> {
    // A call that was interrupted by another thread's line is finished on a line of its own; what was synced stands on the first.
    let mut unfinished = std::collections::HashMap::new();
    let mut events = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            // An answer counts from its beginning, a sync or write to the log from its end.
            if start.contains("HTTP/1.1 200") && is_send(start) {
                events.push(Event::Answered);
            }
            unfinished.insert(thread.to_owned(), start.to_owned());
            continue;
        }
        let resumed = call.starts_with("<... ");
        let whole = match resumed.then(|| unfinished.remove(thread)).flatten() {
            Some(start) => format!("{start}{call}"),
            None => call.to_owned(),
        };
        let segment = whole.contains(log_folder);
        if is_send(&whole) && whole.contains("HTTP/1.1 200") && !resumed {
            events.push(Event::Answered);
        } else if (whole.starts_with("fdatasync(") || whole.starts_with("fsync(")) && segment && whole.ends_with("= 0")
        {
            events.push(Event::Synced);
        } else if segment && (whole.starts_with("pwrite") || whole.starts_with("write")) {
            events.push(Event::Written);
        } else if (whole.starts_with("recv") || whole.starts_with("read")) && whole.contains("POST /v1/logs") {
            events.push(Event::Request);
        }
    }
    events
}

fn is_send(call: &str) -> bool {
    ["sendto(", "sendmsg(", "write(", "writev("].iter().any(|c| call.starts_with(c))
}

/// Every answer to a request has, since that request, a write to the log and after that a sync of it. Gives how many have and how
/// many have not; an answer without a request before it is some other page's.
fn judge(events: &[Event]) -> (usize, usize) {
    let (mut asked, mut written, mut synced, mut good, mut bad) = (false, false, false, 0, 0);
    for event in events {
        match event {
            Event::Request => (asked, written, synced) = (true, false, false),
            Event::Written => (written, synced) = (true, false),
            Event::Synced => synced = written,
            Event::Answered if asked => {
                asked = false;
                *if synced { &mut good } else { &mut bad } += 1;
            }
            Event::Answered => {}
        }
    }
    (good, bad)
}

fn traced_child(strace: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fdatasync_comes_before_the_2xx() {
    let _stage = alone().await;
    if let Err(why) = can_trace() {
        return skip("the_fdatasync_comes_before_the_2xx", &why);
    }
    let sink = sink().await;
    let mut setup = Setup::default().loki("logs", sink.loki, "");
    setup.extra = "local_view: { max: 16MiB }\n".into();
    let trace = setup.scratch.path().join("strace.txt");
    let mut command: Vec<String> = ["strace", "-f", "-y", "-s", "64", "-e", TRACED, "-o"].map(str::to_owned).into();
    command.push(trace.display().to_string());
    command.extend(setup.command());
    let mut gateway = setup.spawn(&command);
    gateway.wait_ready(Duration::from_secs(60));
    gateway.pid = traced_child(gateway.pid).expect("strace's child");
    let load = Load::new(&setup, Protocol::Http, Signal::Logs).records(REQUESTS as u64);
    let sent = load.with(|o| (o.batch, o.connections) = (1, 1)).send().await;
    assert_eq!(sent.summary.acked, REQUESTS as u64, "{:?}", sent.summary);
    kill(Pid::from_raw(gateway.pid as i32), Kill::SIGTERM).expect("the traced process");
    e2e::wait_for("the traced process ends", Duration::from_secs(20), || (!gateway.alive()).then_some(()));
    check(&trace, &setup.storage.join("logs").display().to_string());
}

fn check(trace: &Path, log_folder: &str) {
    let text = std::fs::read(trace).expect("strace's file");
    let events = events(&String::from_utf8_lossy(&text), log_folder);
    let (good, bad) = judge(&events);
    assert_eq!((good, bad), (REQUESTS, 0), "answers with and without a sync before them, in {events:?}");
}

#[test]
fn the_reader_of_traces_sees_an_answer_that_came_too_early() {
    let line = |s: &str| format!("77 {s}\n");
    let request = line(r#"recvfrom(9<socket:[1]>, "POST /v1/logs HTTP/1.1\r\n"..., 8192, 0, NULL, NULL) = 300"#);
    let write = line(r#"pwrite64(5</w/logs/0.seg>, "x"..., 300, 4096) = 300"#);
    let sync = format!(
        "{}78 read(3</x>, \"\", 1) = 0\n{}",
        line("fdatasync(5</w/logs/0.seg> <unfinished ...>"),
        line("<... fdatasync resumed>) = 0")
    );
    let answer = line(r#"sendto(9<socket:[1]>, "HTTP/1.1 200 OK\r\n"..., 90, MSG_NOSIGNAL, NULL, 0) = 90"#);
    let of = |parts: &[&str]| judge(&events(&parts.concat(), "/w/logs"));
    assert_eq!(of(&[&answer, &request, &write, &sync, &answer]), (1, 0));
    assert_eq!(of(&[&request, &write, &answer, &sync]), (0, 1));
    assert_eq!(of(&[&request, &sync, &write, &answer]), (0, 1));
    assert_eq!(of(&[&request, &write, &sync, &answer, &request, &answer]), (1, 1));
}
