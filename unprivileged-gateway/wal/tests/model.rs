//! Random operation sequences against the oracle of `sim`: crashes, kills, failed writes and syncs, full disks, renames,
//! discards, reopenings, all mixed. A failing story is shrunk before it is told.
//!
//! `BULKHEAD_STORIES=5000` tells more, `BULKHEAD_SEED=n` one again.

mod sim;

use sim::*;

const MIXED: Weights = Weights {
    append: 30,
    commit: 16,
    deliver: 16,
    configure: 2,
    time: 2,
    crash: 2,
    fail: 4,
    kill: 2,
    power: 2,
    full: 4,
    b_takes: true,
};

fn play(seed: u64, ops: &[Op]) -> Result<(), String> {
    Sim::new(seed, 1500 + (seed % 5) * 2500, 1 << 26).run(ops)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn every_story_keeps_the_rules() {
    let (first, stories) = (number("BULKHEAD_SEED", 1), number("BULKHEAD_STORIES", 400));
    for seed in first..first + stories {
        let mut dice = Dice(seed.wrapping_mul(77));
        let weights = match seed % 4 {
            0 => MIXED,
            1 => Weights { fail: 0, full: 0, crash: 0, power: 1, deliver: 30, ..MIXED },
            2 => Weights { fail: 8, full: 8, ..MIXED },
            _ => Weights { append: 12, configure: 10, fail: 14, full: 8, power: 5, time: 0, ..MIXED },
        };
        let ops = story(&mut dice, 120, &weights);
        if let Err(first) = play(seed, &ops) {
            eprintln!("seed {seed}: {first}");
            let (ops, why) = shrink::shrink(ops, |ops| play(seed, ops).err());
            let _ = Sim::new(seed, 1500 + (seed % 5) * 2500, 1 << 26).tell(&ops);
            panic!("seed {seed}: {why}\nshortest story: {ops:?}");
        }
    }
}

#[test]
fn a_hop_goes_back_to_what_is_missing_and_a_file_is_trimmed_to_what_is_new() {
    use wal::*;
    let disk = forgetful::ForgetfulDisk::new(3);
    let open = |start: u64| {
        let mut dice = Dice(start);
        let space = Space::new(1 << 30, &["logs"]);
        let epoch = Epoch { counter: start, random: start };
        let options = LogOptions::new("logs", NodeId([1; 16]), epoch, space, Box::new(move || dice.next()));
        Log::open(std::sync::Arc::new(disk.clone()), options, 1).map(|(log, _)| log).unwrap()
    };
    let log = open(1);
    let epoch = Epoch { counter: 8, random: 8 };
    let (node, stream) = (NodeId([5; 16]), Stream::Hop(NodeId([5; 16]), epoch));
    let hop = |log: &Log, seq| {
        let origin = Origin::Hop { node, epoch, seq };
        log.append(NewFrame { parts: &[b"x"], items: 1, origin: Some(&origin), ..NewFrame::default() }).unwrap()
    };
    log.begin_stream(&stream, 4);
    assert_eq!(hop(&log, 6), Appended::Rewind { to: 4 });
    let Appended::New { seq } = hop(&log, 4) else { panic!("4 is new") };
    assert_eq!(hop(&log, 4), Appended::Held { seq }, "appended, not yet synced");
    let _ = log.commit(2).unwrap();
    assert_eq!(hop(&log, 4), Appended::Held { seq: 0 });
    log.gap(&stream, 5, 9, "the sender's disk lost them", 3).unwrap();
    assert_eq!(log.mark_synced(&stream).unwrap().ranges, [(4, 5)], "a gap counts when it is synced");
    assert!(matches!(hop(&log, 9), Appended::New { .. }));
    let file = |log: &Log, offset, len| {
        let origin = Origin::LogBytes { file: FILE, offset, len };
        log.append(NewFrame { parts: &[b"x"], items: 1, origin: Some(&origin), ..NewFrame::default() }).unwrap()
    };
    assert!(matches!(file(&log, 0, 10), Appended::New { .. }));
    assert_eq!(file(&log, 5, 10), Appended::Trim { from: 10, to: 15 });
    assert!(matches!(file(&log, 10, 5), Appended::New { .. }));
    let journal = Origin::Journal { journal: [2; 16], seq: 3, cursor: "s=2;i=3".into() };
    log.append(NewFrame { parts: &[b"x"], items: 1, origin: Some(&journal), ..NewFrame::default() }).unwrap();
    for seq in [0, 1, 5] {
        let stack = Origin::Stack { start: [4; 16], seq };
        log.append(NewFrame { parts: &[b"x"], items: 1, origin: Some(&stack), ..NewFrame::default() }).unwrap();
    }
    let _ = log.commit(4).unwrap();
    drop(log);
    disk.power_cut();
    let log = open(2);
    assert_eq!(log.mark_synced(&stream).unwrap().ranges, [(4, 10)]);
    assert_eq!(log.mark_synced(&Stream::File(FILE)).unwrap().contiguous_end(), Some(15));
    assert_eq!(log.mark_synced(&Stream::Journal([2; 16])).unwrap().text, "s=2;i=3");
    let stacks = log.mark_synced(&Stream::Stack([4; 16])).unwrap();
    assert_eq!((stacks.contiguous_end(), stacks.covers(5, 6)), (Some(2), true), "an island is held, and is no end");
    assert_eq!(hop(&log, 9), Appended::Held { seq: 0 });
    log.forget_streams(&|s| !matches!(s, Stream::Hop(..)));
    assert!(log.mark(&stream).is_none());
}
