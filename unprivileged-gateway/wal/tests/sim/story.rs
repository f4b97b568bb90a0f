//! Stories: what may happen, and how often.

use super::Dice;
use wal::forgetful::Fault;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    Plain,
    Hop,
    File,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Append {
        source: Source,
        bytes: u64,
    },
    Commit,
    /// The backend takes up to so many frames; `told` false: the answer is lost.
    Deliver {
        slot: usize,
        frames: u64,
        told: bool,
    },
    /// The next configuration.
    Configure,
    Time {
        seconds: u64,
    },
    /// A fault strikes at the n-th disk operation from now.
    Arm {
        after: u64,
        fault: Fault,
    },
    Kill,
    Power,
    /// A power cut, and another one at the n-th operation of the start that follows.
    PowerTwice {
        after: u64,
    },
    Reopen,
    /// The disk is full from now on, with so many bytes left; or no longer.
    Full {
        left: Option<u64>,
    },
    ReadOnly {
        on: bool,
    },
}

/// How often each kind of thing happens.
#[derive(Clone, Copy)]
pub struct Weights {
    pub append: u64,
    pub commit: u64,
    pub deliver: u64,
    pub configure: u64,
    pub time: u64,
    pub crash: u64,
    pub fail: u64,
    pub kill: u64,
    pub power: u64,
    pub full: u64,
    /// Whether slot 1 ever takes anything.
    pub b_takes: bool,
}

/// A story of `n` steps.
pub fn story(dice: &mut Dice, n: usize, w: &Weights) -> Vec<Op> {
    let kinds = [w.append, w.commit, w.deliver, w.configure, w.time, w.crash, w.fail, w.kill, w.power, w.full];
    let total: u64 = kinds.iter().sum();
    let mut ops = Vec::new();
    while ops.len() < n {
        let mut at = dice.below(total);
        let kind = kinds.iter().position(|k| {
            let here = at < *k;
            at = at.saturating_sub(*k);
            here
        });
        ops.push(match kind {
            Some(0) => {
                let source = [Source::Plain, Source::Plain, Source::Hop, Source::File][dice.below(4) as usize];
                let bytes = if dice.below(8) == 0 { dice.below(9000) } else { dice.below(400) };
                Op::Append { source, bytes }
            }
            Some(1) => Op::Commit,
            Some(2) => {
                let slot = if w.b_takes { dice.below(3) } else { dice.below(2) * 2 } as usize;
                Op::Deliver { slot, frames: dice.below(6), told: dice.below(8) > 0 }
            }
            Some(3) => Op::Configure,
            Some(4) => Op::Time { seconds: dice.below(90) },
            Some(5) => Op::Arm { after: dice.below(8), fault: Fault::Crash },
            Some(6) => Op::Arm { after: dice.below(6), fault: Fault::Fail },
            Some(7) => Op::Kill,
            Some(8) if dice.below(3) == 0 => Op::PowerTwice { after: dice.below(7) },
            Some(8) => Op::Power,
            _ => [Op::Reopen, Op::Full { left: Some(dice.below(4000)) }, Op::Full { left: None }]
                [dice.below(3) as usize]
                .clone(),
        });
    }
    ops
}
