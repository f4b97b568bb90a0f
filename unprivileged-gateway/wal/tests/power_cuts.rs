//! What was acknowledged is still there after the lights went out, wherever they went out.
//!
//! `BULKHEAD_POWER_CUTS=1000` runs more (200 by default), `BULKHEAD_SEED=n` one campaign again.

mod sim;

use sim::*;
use wal::Index;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

const CALM: Weights = Weights {
    append: 30,
    commit: 14,
    deliver: 10,
    configure: 1,
    time: 1,
    crash: 3,
    fail: 0,
    kill: 1,
    power: 3,
    full: 0,
    b_takes: false,
};

fn campaign(seed: u64) -> (Vec<Op>, Weights) {
    let mut dice = Dice(seed);
    let w = match seed % 4 {
        0 => CALM,
        1 => Weights { fail: 3, full: 2, ..CALM },
        2 => Weights { b_takes: true, deliver: 20, time: 3, ..CALM },
        _ => Weights { b_takes: true, fail: 4, full: 3, deliver: 20, time: 3, configure: 3, ..CALM },
    };
    (story(&mut dice, 60, &w), w)
}

/// An index accompanies every story. At half of the starts it is deleted first; at the others it is what the last life
/// left behind, and may know segments that no longer exist.
fn play(seed: u64, ops: &[Op]) -> Result<Tally, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = dir.path().join("index");
    let mut sim = Sim::new(seed, 2048 + (seed % 3) * 4096, 1 << 30);
    let mut dice = Dice(seed);
    sim.on_start = Some(Box::new(move |log, _| {
        if dice.below(2) == 0 {
            let _ = std::fs::remove_dir_all(&path);
        }
        let index = Index::open(&path);
        index.feed(log);
        index.attach(log);
    }));
    sim.run(ops).map(|()| sim.tally)
}

#[test]
fn acknowledged_frames_stay_acknowledged_after_power_loss() {
    let wanted = number("BULKHEAD_POWER_CUTS", 200);
    let first = number("BULKHEAD_SEED", 1);
    let mut sum = Tally::default();
    let mut seed = first;
    while sum.cuts < wanted {
        let (ops, _) = campaign(seed);
        match play(seed, &ops) {
            Ok(t) => {
                sum.cuts += t.cuts;
                sum.kills += t.kills;
                sum.acked += t.acked;
                sum.duplicates += t.duplicates;
                sum.duplicates_allowed += t.duplicates_allowed;
                sum.refused += t.refused;
                sum.deleted += t.deleted;
                sum.rolls += t.rolls;
                sum.torn += t.torn;
                sum.failures += t.failures;
            }
            Err(first) => {
                eprintln!("seed {seed}: {first}");
                let (ops, why) = shrink::shrink(ops, |ops| play(seed, ops).err());
                panic!("seed {seed}: {why}\nshortest story: {ops:?}");
            }
        }
        seed += 1;
    }
    println!("campaigns {}: {sum:?}", seed - first);
    assert!(sum.acked > wanted && sum.deleted > 0 && sum.rolls > 0 && sum.torn > 0 && sum.failures > 0, "{sum:?}");
}

/// The places where a cut hurts most, each tried at every disk operation: before the first cursor, inside a roll, inside
/// and right behind a failed sync, inside deletions, all beside a destination that never acknowledges.
#[test]
fn a_cut_at_any_disk_operation_loses_nothing() {
    use wal::forgetful::Fault;
    let put = || Op::Append { source: Source::Plain, bytes: 300 };
    let take = || Op::Deliver { slot: 0, frames: 50, told: true };
    let minute = || Op::Time { seconds: 61 };
    let crash = |after| Op::Arm { after, fault: Fault::Crash };
    let mut cuts = 0;
    for k in 0..24 {
        let scenes: [(&str, Vec<Op>); 5] = [
            (
                "before the first cursor",
                vec![Op::PowerTwice { after: k % 7 }, put(), crash(k / 3), Op::Commit, put(), Op::Commit],
            ),
            (
                "inside a roll",
                vec![Op::Configure, put(), Op::Commit, minute(), put(), crash(k / 2), Op::Commit, put(), Op::Commit],
            ),
            (
                "inside a failed sync",
                vec![
                    Op::Configure,
                    put(),
                    Op::Commit,
                    put(),
                    Op::Arm { after: k % 5, fault: Fault::Fail },
                    crash(k / 2),
                    Op::Commit,
                    put(),
                    Op::Commit,
                    put(),
                    Op::Commit,
                ],
            ),
            (
                "inside deletions",
                vec![
                    put(),
                    Op::Commit,
                    minute(),
                    put(),
                    Op::Commit,
                    minute(),
                    put(),
                    Op::Commit,
                    take(),
                    crash(k / 2),
                    Op::Commit,
                    minute(),
                    put(),
                    Op::Commit,
                    Op::Commit,
                ],
            ),
            (
                "beside one that never acknowledges",
                vec![
                    Op::Configure,
                    put(),
                    put(),
                    Op::Commit,
                    take(),
                    minute(),
                    crash(k),
                    Op::Commit,
                    put(),
                    Op::Commit,
                    take(),
                    minute(),
                    put(),
                    Op::Commit,
                    Op::Power,
                    take(),
                    Op::Commit,
                ],
            ),
        ];
        for (what, ops) in &scenes {
            for seed in 0..6 {
                let mut sim = Sim::new(seed * 1000 + k, 1 << 20, 1 << 30);
                if let Err(why) = sim.run(ops) {
                    panic!("{what}, operation {k}, seed {seed}: {why}\n{ops:?}");
                }
                cuts += sim.tally.cuts;
            }
        }
    }
    println!("{cuts} cuts");
}
