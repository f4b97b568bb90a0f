//! The journey of frames through the door: order, repeats, overlaps, gaps, a log that is full.

use super::*;
use crate::seam::{Intake, Offered, Source};
use model::envelope::Kind as Envelope;

#[test]
fn frames_lie_in_the_log_in_their_order_and_are_acknowledged_once_they_are_synced() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    assert_eq!(line.holds, [0, 0]);
    line.open(3, 1, 0);
    let text: Vec<String> = (1..=50).map(|n| format!("line {n}\nand {n}\n")).collect();
    let mut offset = 0;
    for (n, piece) in text.iter().enumerate() {
        line.bytes(n as u64 + 1, 3, offset, piece);
        offset += piece.len() as u64;
    }
    line.close(3, offset);
    line.stacks(1, 97);
    let mut held = [0; 2];
    while held != [50, 1] {
        let (index, seq) = line.durable();
        held[index as usize] = seq;
    }
    assert_eq!(gateway.text(), text.concat());
    let held = gateway.held(Signal::Logs);
    let file = held[1].0.file.clone().expect("a place in a file");
    assert_eq!((file.root.as_str(), file.path.as_str()), ("pods", "ns_pod_uid/app/0.log"));
    assert_eq!((file.offset, file.end), (text[0].len() as u64, None));
    assert_eq!(held[1].0.enrichment, [("host.name".to_owned(), "machine".to_owned())]);
    let last = held.last().and_then(|(sidecar, _)| sidecar.file.clone()).expect("a place in a file");
    assert_eq!((last.offset, last.end.as_deref()), (offset, Some("deleted")));
    assert_eq!(gateway.telemetry.accepted_items(Signal::Logs), 100);

    let profiles = gateway.held(Signal::Profiles);
    let labels = |name: &str| profiles[0].0.enrichment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(
        (labels("__name__"), labels("service_name"), labels("node")),
        (Some("process_cpu"), Some("ebpf/app"), Some("n1"))
    );
    let mut pprof = Vec::new();
    flate2::read::GzDecoder::new(&profiles[0].1[..]).read_to_end(&mut pprof).expect("gzip");
    let profile = model::pprof::read(&pprof).expect("a profile");
    assert_eq!((profile.period_ns, profile.samples[0].pid, profile.samples[0].count), (10_309_278, 7, 97));
    assert_eq!((profile.samples[0].end, profile.processes[0]), (End::Gap as u32, (7, "app")));
    gateway.end();
}

#[test]
fn a_file_without_bytes_leaves_nothing_behind() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    line.open(1, 1, 0);
    line.close(1, 0);
    line.open(2, 2, 0);
    line.bytes(1, 2, 0, "x\n");
    line.until(Index::Logs, 1);
    assert_eq!(gateway.held(Signal::Logs).len(), 1);
    gateway.end();
}

#[test]
fn what_comes_again_on_a_new_connection_is_stored_once() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    line.open(1, 1, 0);
    line.bytes(1, 1, 0, "one\n");
    line.bytes(2, 1, 4, "two\n");
    line.until(Index::Logs, 2);
    // As if neither number had arrived.
    drop(line);
    let mut line = probe.greet(1);
    line.open(9, 1, 0);
    line.bytes(1, 9, 0, "one\n");
    line.bytes(2, 9, 4, "two\n");
    line.bytes(3, 9, 8, "three\n");
    line.until(Index::Logs, 3);
    assert_eq!(gateway.text(), "one\ntwo\nthree\n");
    gateway.end();
}

#[test]
fn bytes_that_overlap_what_is_held_are_trimmed() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    line.open(1, 1, 0);
    line.bytes(1, 1, 0, "one\ntwo\n");
    line.until(Index::Logs, 1);
    // A probe that has lost its positions begins at 0 again, and cuts elsewhere.
    drop(line);
    let mut line = probe.greet(2);
    line.open(1, 1, 0);
    line.bytes(1, 1, 0, "one\n");
    line.bytes(2, 1, 4, "two\nthree\nfour\n");
    line.until(Index::Logs, 2);
    assert_eq!(gateway.text(), "one\ntwo\nthree\nfour\n");
    let offsets: Vec<u64> =
        gateway.held(Signal::Logs).into_iter().filter_map(|(sidecar, _)| sidecar.file.map(|f| f.offset)).collect();
    assert_eq!(offsets, [0, 8]);
    gateway.end();
}

#[test]
fn a_gap_is_declared_counted_and_passed() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    line.open(1, 1, 0);
    line.bytes(1, 1, 0, "one\n");
    line.bytes(2, 1, 104, "after a hole\n");
    line.stacks(4, 1);
    line.stacks(6, 1);
    let mut held = [0; 2];
    while held != [2, 6] {
        let (index, seq) = line.durable();
        held[index as usize] = seq;
    }
    let stats = gateway.telemetry.exposition(crate::telemetry::Format::Classic, &Default::default()).expect("text");
    let text = String::from_utf8(stats).expect("text");
    assert!(text.contains("bulkhead_probe_gaps_total{stream=\"log_bytes\"} 100"), "{text}");
    assert!(text.contains("bulkhead_probe_gaps_total{stream=\"stacks\"} 4"), "{text}");
    let mark = gateway.store.mark_synced(Signal::Profiles, &wal::Stream::Stack([1; 16]));
    assert_eq!(mark.and_then(|m| m.contiguous_end()), Some(7), "nothing is asked for again");
    gateway.end();
}

#[test]
fn a_window_that_cannot_be_read_is_left_out_and_does_not_block_the_next() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    let (head, table) = window(1, 5);
    line.say(1, &Message::Stacks(head), &table.encode()[1..]);
    line.stacks(2, 7);
    line.until(Index::Profiles, 2);
    assert_eq!(gateway.held(Signal::Profiles).len(), 1);
    drop(line);
    assert_eq!(probe.greet(1).holds, [0, 2]);
    gateway.end();
}

/// Requests of a receiver, until the log takes no more.
fn fill(gateway: &Gateway) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    loop {
        let offered = Offered {
            signal: Signal::Logs,
            kind: Envelope::OtlpLogs,
            items: 1,
            sidecar: Sidecar::default(),
            body: vec![vec![0; 1 << 20].into()],
            source: Source::OtlpHttp,
            origin: None,
        };
        if runtime.block_on(gateway.store.accept(offered)).is_err() {
            return;
        }
    }
}

#[test]
fn a_full_log_keeps_the_probe_waiting_in_order_and_the_other_stream_goes_on() {
    let (_house, mut probe, gateway) = street();
    fill(&gateway);
    let mut line = probe.greet(1);
    line.open(1, 1, 0);
    for n in 0..20u64 {
        line.bytes(n + 1, 1, n * 4, &format!("{n:03}\n"));
    }
    line.stacks(1, 1);
    assert_eq!(line.durable(), (Index::Profiles, 1), "stacks do not wait for the logs' room");
    let refused = |g: &Gateway| g.telemetry.refused_by_reason(Signal::Logs)["full"];
    eventually("a refusal is counted", || refused(&gateway) > 0);
    assert_eq!(gateway.telemetry.sources().iter().map(|s| s.refused).max(), Some(1), "once a frame, not once a try");
    // The destination takes everything: there is room again.
    let log = &gateway.store.log(Signal::Logs).expect("served").log;
    let loki = wal::DestinationId::new("loki", "logs");
    let upto = log.stats().synced_seq;
    log.advance(&loki, upto, 1, upto);
    line.until(Index::Logs, 20);
    let text: String = (0..20).map(|n| format!("{n:03}\n")).collect();
    let held: Vec<u8> = gateway
        .held(Signal::Logs)
        .into_iter()
        .filter(|(sidecar, _)| sidecar.file.is_some())
        .flat_map(|(_, raw)| raw)
        .collect();
    assert_eq!(String::from_utf8(held).expect("text"), text);
    gateway.end();
}

#[test]
fn the_board_says_who_is_there_and_what_went_wrong() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(7);
    for n in 1..=3u64 {
        let cpus = vec![ipc::CpuCount { cpu: 0, samples: n * 97 }];
        let status = ipc::Status { at_ns: n * 1_000_000_000, cpus, cpu_ns: n * 5_000_000, ..ipc::Status::default() };
        line.say(0, &Message::Status(Box::new(status)), b"");
    }
    eventually("three notices arrive", || gateway.board.shown().rates.cpus.first().is_some_and(|c| c.per_s == 97.0));
    let shown = gateway.board.shown();
    assert!(shown.connected && shown.configured);
    assert_eq!(shown.hello.as_ref().map(|h| &h["start"]), Some(&serde_json::json!("07".repeat(16))));
    assert_eq!(shown.status.map(|s| s["cpus"][0]["samples"].clone()), Some(serde_json::json!(291)));
    assert!((shown.rates.probe_cpu_percent - 0.5).abs() < 1e-9);
    assert_eq!(gateway.telemetry.probe().samples(), (291, 0));
    line.say(0, &Message::Hello(hello(7)), b"");
    line.hung_up();
    eventually("the connection is gone", || !gateway.board.is_connected());
    let error = gateway.board.shown().last_error.expect("an error");
    assert!(error["text"].as_str().is_some_and(|t| t.contains("second Hello")), "{error}");
    gateway.end();
}
