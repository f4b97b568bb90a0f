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
