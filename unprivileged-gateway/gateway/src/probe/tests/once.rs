//! Nothing twice, nothing missing, whatever is killed.

use super::*;
use std::collections::BTreeSet;

/// Times (unix seconds) of the windows in a log: the script numbers them.
fn windows(held: &[(Sidecar, Vec<u8>)]) -> Vec<u64> {
    let time = |raw: &Vec<u8>| {
        let mut pprof = Vec::new();
        flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut pprof).expect("gzip");
        model::pprof::read(&pprof).expect("a profile").time_ns / 1_000_000_000
    };
    held.iter().map(|(_, raw)| time(raw)).collect()
}

/// A copy of the storage folder as it is now: what a kill at this moment leaves behind.
fn photograph(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a temporary folder");
    for entry in std::fs::read_dir(from).expect("the folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            // The index is rebuilt; half of all crash tests go without it.
            Ok(kind) if kind.is_dir() && entry.file_name() == "index" => {}
            Ok(kind) if kind.is_dir() => photograph(&from, &to),
            _ => drop(std::fs::copy(from, to)),
        }
    }
}

#[test]
fn windows_of_one_probe_start_are_stored_exactly_once_across_starts_of_the_gateway() {
    let house = House::new();
    let mut probe = Probe::listen(&house);
    let mut sent = 0;
    for round in 0..4 {
        let gateway = house.gateway(&house.storage);
        let mut line = probe.greet(1);
        let holds = line.holds[Index::Profiles as usize];
        assert!(round == 0 || holds >= sent - 3, "what was synced is remembered: {holds} of {sent}");
        for seq in holds + 1..=sent + 5 {
            line.stacks(seq, 1);
        }
        sent += 5;
        // Some rounds end in the middle, with frames on the way.
        if round % 2 == 0 {
            line.until(Index::Profiles, sent);
        } else {
            eventually("something is laid", || line.durable().1 > 0);
        }
        drop(line);
        gateway.end();
    }
    let (store, _) = house.store(&house.storage);
    let stored = windows(&held(&store, Signal::Profiles));
    let distinct: BTreeSet<u64> = stored.iter().copied().collect();
    assert_eq!(stored.len(), distinct.len(), "twice: {stored:?}");
    assert!(stored.windows(2).all(|w| w[0] + 1 == w[1]), "in order, none missing: {stored:?}");
    store.close();
}

#[test]
fn another_probe_start_begins_its_own_numbers() {
    let (_house, mut probe, gateway) = street();
    let mut line = probe.greet(1);
    line.stacks(1, 1);
    line.until(Index::Profiles, 1);
    drop(line);
    probe.judge = Judge::default();
    let mut line = probe.greet(2);
    assert_eq!(line.holds, [0, 0]);
    line.stacks(1, 1);
    line.until(Index::Profiles, 1);
    assert_eq!(gateway.held(Signal::Profiles).len(), 2);
    gateway.end();
}

#[test]
fn a_gateway_that_dies_between_laying_and_acknowledging_loses_nothing_and_stores_nothing_twice() {
    let house = House::new();
    let line_of = |n: u64| format!("line {n:06}\n");
    let bytes = line_of(0).len() as u64;
    for round in 0..6u64 {
        let (before, after) = (house.dir.path().join(format!("a{round}")), house.dir.path().join(format!("b{round}")));
        let mut probe = Probe::listen(&house);
        let gateway = house.gateway(&before);
        let mut line = probe.greet(1);
        line.open(1, 1, 0);
        let mut acked = [0, 0];
        for n in 0..40u64 {
            line.bytes(n + 1, 1, n * bytes, &line_of(n));
            line.stacks(n + 1, 1);
            if n == 20 + round * 3 {
                let (index, seq) = line.durable();
                acked[index as usize] = seq;
                // The probe has this number; the copy is of a later moment, with frames laid and not yet acknowledged.
                photograph(&before, &after);
            }
        }
        drop(line);
        gateway.end();

        let gateway = house.gateway(&after);
        let mut line = probe.greet(1);
        let held = line.holds[Index::Profiles as usize];
        assert!(held >= acked[1], "stacks that were acknowledged are there: {held} of {}", acked[1]);
        // The probe's positions: everything acknowledged, nothing more.
        line.open(8, 1, acked[0] * bytes);
        for n in acked[0]..40 {
            line.bytes(n + 1, 8, n * bytes, &line_of(n));
        }
        for seq in held + 1..=40 {
            line.stacks(seq, 1);
        }
        let mut now = [acked[0], held];
        while now != [40, 40] {
            let (index, seq) = line.durable();
            now[index as usize] = seq;
        }
        assert_eq!(gateway.text(), (0..40).map(line_of).collect::<String>(), "round {round}");
        assert_eq!(windows(&gateway.held(Signal::Profiles)), (1..=40).collect::<Vec<u64>>(), "round {round}");
        drop(line);
        gateway.end();
    }
}

#[test]
fn a_window_too_large_for_one_profile_is_stored_in_pieces_and_each_piece_once() {
    let (head, mut table) = window(3, 1);
    table.stacks = (0..100).map(|n| Stack { count: n + 1, ..table.stacks[0].clone() }).collect();
    let from = super::super::stacks::From { start: [1; 16], seq: 3, node: "n", received_at: 1 };
    let limits = model::pprof::Limits { samples: 30, ..Default::default() };
    let window = super::super::stacks::window(&head, &table.encode(), &from, limits).expect("a window");
    let origins: Vec<_> = window.pieces.iter().filter_map(|p| p.origin.clone()).collect();
    let distinct: BTreeSet<String> = origins.iter().map(|o| format!("{o:?}")).collect();
    assert_eq!((origins.len(), distinct.len()), (4, 4));
    let last = wal::Origin::Stack { start: [1; 16], seq: 3 };
    assert_eq!(origins.last(), Some(&last), "the window's own number comes with the last piece");

    let house = House::new();
    let (store, telemetry) = house.store(&house.storage);
    let again = |store: &Store| {
        let mut lane = super::super::lane::Lane::new(Signal::Profiles);
        let pieces = super::super::stacks::window(&head, &table.encode(), &from, limits).expect("a window").pieces;
        let parcel =
            super::super::lane::Parcel::Window { seq: 3, start: [1; 16], pieces: pieces.into(), unreadable: false };
        lane.push(parcel, Budget::new(1 << 20).permit(crate::budget::Share::Ingest));
        assert!(matches!(lane.lay(store, &telemetry, &mut |_| ()), Ok(None)));
    };
    again(&store);
    again(&store);
    store.close();
    drop(store);
    let (store, _) = house.store(&house.storage);
    assert_eq!(held(&store, Signal::Profiles).len(), 4);
    store.close();
}
