//! A small world around the log: a disk that forgets, two senders with a memory, destinations with a backend, and an
//! oracle that remembers everything. Rules and names (I1 to I8) follow the executable model of the design:
//!
//! I1 an acknowledged frame is delivered or waiting, for every destination registered then; I2 nothing is stored twice
//! per origin; I3 order; I4 no cursor goes back behind a synced one, duplicates only after a fault and within the bound;
//! I5 the log opens; I6 deletion never takes what somebody needs (seen through I1 at the next start); I7 a seq names one
//! frame; I8 `waiting` is exact.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this module")]

mod oracle;
pub mod shrink;
mod story;

pub use story::*;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wal::forgetful::{Fault, ForgetfulDisk};
use wal::*;

/// splitmix64: one number in, the whole run out.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// What a destination has been given.
#[derive(Clone, Default)]
pub struct Taker {
    pub id: Option<DestinationId>,
    /// Frames from here on are owed to it.
    pub from: u64,
    pub synced: u64,
    pub delivered: BTreeMap<u64, u32>,
    pub last: u64,
    pub read_to: u64,
}

#[derive(Clone, Debug)]
pub struct Written {
    pub seq: u64,
    pub items: u32,
    pub range: Option<(Source, u64, u64)>,
}

#[derive(Default, Clone, Debug)]
pub struct Tally {
    pub cuts: u64,
    pub kills: u64,
    pub faults: u64,
    pub acked: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub duplicates_allowed: u64,
    pub refused: u64,
    pub deleted: u64,
    pub rolls: u64,
    pub torn: u64,
    pub failures: u64,
}

pub type OnStart = Box<dyn FnMut(&Log, u64)>;

pub struct Sim {
    pub disk: ForgetfulDisk,
    pub log: Option<Log>,
    pub now: u64,
    pub starts: u64,
    seed: u64,
    pub segment_bytes: u64,
    pub space_bytes: u64,
    config: usize,
    next_fid: u64,
    pub frames: BTreeMap<u64, Written>,
    pub acked: BTreeSet<u64>,
    waiting_for_sync: Vec<u64>,
    pub visible: BTreeMap<u64, u64>,
    pub takers: Vec<Taker>,
    hop_next: u64,
    file_next: u64,
    /// Up to here the senders have let go.
    hop_released: u64,
    file_released: u64,
    file_fids: BTreeMap<u64, u64>,
    hop_fids: BTreeMap<u64, u64>,
    pub tally: Tally,
    /// Called at every start with the fresh log (the index is attached here).
    pub on_start: Option<OnStart>,
    pub rot: bool,
}

const HOP_NODE: NodeId = NodeId([7; 16]);
const HOP_EPOCH: Epoch = Epoch { counter: 1, random: 9 };
pub const FILE: FileKey = FileKey { id: [3; 16], generation: 1 };
/// Source bytes of one file chunk.
const FILE_STEP: u64 = 10;

pub fn payload(fid: u64, bytes: u64) -> Vec<u8> {
    let mut dice = Dice(fid);
    let mut p = fid.to_le_bytes().to_vec();
    p.extend(bytes.to_le_bytes());
    while (p.len() as u64) < 16 + bytes {
        p.extend(dice.next().to_le_bytes());
    }
    p.truncate(16 + bytes as usize);
    p
}

pub fn fid_of(p: &[u8]) -> Option<u64> {
    let fid = u64::from_le_bytes(p.get(..8)?.try_into().ok()?);
    let bytes = u64::from_le_bytes(p.get(8..16)?.try_into().ok()?);
    (p.len() as u64 == 16 + bytes && payload(fid, bytes) == p).then_some(fid)
}

fn d(name: &str, from: From, was: Option<&str>, on_remove: OnRemove) -> Destination {
    Destination { kind: "sink".into(), name: name.into(), from, was: was.map(str::to_string), on_remove }
}

/// Slot 0 is renamed on the way, slot 1 never takes anything unless told to, slot 2 is discarded in the end.
fn configuration(i: usize) -> Vec<Destination> {
    let a = d("a", From::Now, None, OnRemove::Keep);
    let b = d("b", From::Oldest, None, OnRemove::Keep);
    match i {
        0 => vec![a],
        1 => vec![a, b],
        2 => vec![a, b, d("c", From::Now, None, OnRemove::Discard)],
        _ => vec![d("a2", From::Now, Some("a"), OnRemove::Keep), b],
    }
}

pub type Check = Result<(), String>;

impl Sim {
    pub fn new(seed: u64, segment_bytes: u64, space_bytes: u64) -> Sim {
        Sim {
            disk: ForgetfulDisk::new(seed),
            log: None,
            now: 1_000_000_000,
            starts: 0,
            seed,
            segment_bytes,
            space_bytes,
            config: 0,
            next_fid: 0,
            frames: BTreeMap::new(),
            acked: BTreeSet::new(),
            waiting_for_sync: Vec::new(),
            visible: BTreeMap::new(),
            takers: vec![Taker::default(); 3],
            hop_next: 0,
            file_next: 0,
            hop_released: 0,
            file_released: 0,
            file_fids: BTreeMap::new(),
            hop_fids: BTreeMap::new(),
            tally: Tally::default(),
            on_start: None,
            rot: false,
        }
    }

    pub fn run(&mut self, ops: &[Op]) -> Check {
        self.start()?;
        for op in ops {
            self.step(op)?;
        }
        // The end of every story: the lights go out once more, and everything owed is still there.
        self.power();
        self.start()?;
        self.check()
    }

    /// Tells a story aloud, with the segment table behind every step: for the one who has to understand a failure.
    pub fn tell(&mut self, ops: &[Op]) -> Check {
        self.start()?;
        for op in ops {
            let done = self.step(op);
            println!("{op:?}\n   {}", self.log().describe());
            done?;
        }
        Ok(())
    }

    pub fn step(&mut self, op: &Op) -> Check {
        self.now += 1_000_000;
        match op {
            Op::Append { source, bytes } => self.append(*source, *bytes)?,
            Op::Commit => self.commit()?,
            Op::Deliver { slot, frames, told } => self.deliver(*slot, *frames, *told)?,
            Op::Configure => {
                self.config = (self.config + 1).min(3);
                self.register()?;
            }
            Op::Time { seconds } => self.now += seconds * 1_000_000_000,
            Op::Arm { after, fault } => self.disk.arm(*after, *fault),
            Op::Kill => self.die(false)?,
            Op::Power => self.die(true)?,
            Op::PowerTwice { after } => {
                self.power();
                self.disk.arm(*after, Fault::Crash);
                self.start()?;
            }
            Op::Reopen => self.reopen()?,
            Op::Full { left } => {
                let used = self.disk.used();
                self.disk.set_capacity(left.map(|l| used + l));
            }
            Op::ReadOnly { on } => self.disk.set_read_only(*on),
        }
        if self.disk.is_dead() {
            self.die((self.now / 1_000_000).is_multiple_of(2))?;
        }
        Ok(())
    }

    fn log(&self) -> Log {
        self.log.clone().expect("a step begins with a running log")
    }

    // ---- life and death --------------------------------------------------------------------------------------------

    fn power(&mut self) {
        self.drop_log();
        self.disk.set_capacity(None);
        self.disk.power_cut();
        self.tally.cuts += 1;
    }

    fn drop_log(&mut self) {
        if let Some(log) = self.log.take() {
            let stats = log.stats();
            self.tally.deleted += stats.deleted;
            self.tally.rolls += stats.rolls;
            self.tally.failures += stats.failures;
        }
        // What was delivered beyond the synced cursor may be delivered again.
        for t in &mut self.takers {
            self.tally.duplicates_allowed +=
                t.delivered.keys().filter(|f| self.frames[f].seq >= t.synced).count() as u64;
        }
        self.waiting_for_sync.clear();
    }

    fn die(&mut self, power: bool) -> Check {
        if power {
            self.power();
        } else {
            self.drop_log();
            self.disk.revive();
            self.tally.kills += 1;
        }
        self.start()
    }

    fn start(&mut self) -> Check {
        for attempt in 0.. {
            if attempt > 8 {
                return Err("I5 the log does not start".into());
            }
            self.starts += 1;
            let mut dice = Dice(self.seed ^ (self.starts << 32));
            let epoch = Epoch { counter: self.starts, random: dice.next() };
            let space = Space::new(self.space_bytes, &["logs"]);
            let options = LogOptions {
                segment_bytes: self.segment_bytes,
                tail_bytes: 8192,
                ..LogOptions::new("logs", NodeId([1; 16]), epoch, space, Box::new(move || dice.next()))
            };
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            let (log, recovery) = Log::open(disk, options, self.now).map_err(|e| format!("I5 {e}"))?;
            self.tally.torn += recovery.torn.len() as u64;
            self.log = Some(log);
            if !self.disk.is_dead() {
                break;
            }
            self.die_again();
        }
        self.after_start()
    }

    fn die_again(&mut self) {
        self.log = None;
        self.disk.power_cut();
        self.tally.cuts += 1;
    }

    fn after_start(&mut self) -> Check {
        let log = self.log();
        for t in &mut self.takers {
            (t.last, t.read_to) = (0, 0);
            let Some(id) = &t.id else { continue };
            let ids = [id.clone(), DestinationId::new("sink", "a2")];
            let cursor = ids.iter().find_map(|id| log.cursor(id));
            let Some(cursor) = cursor else { return Err(format!("I6 {id} is no longer registered")) };
            if cursor.seq < t.synced {
                return Err(format!("I4 cursor of {id} went back from {} to {}", t.synced, cursor.seq));
            }
        }
        // Senders connect again: what the log holds synced, they let go of; the rest they send again.
        let hop = Stream::Hop(HOP_NODE, HOP_EPOCH);
        log.begin_stream(&hop, 0);
        self.hop_next = log.mark_synced(&hop).and_then(|m| m.contiguous_end()).unwrap_or(0);
        let file = log.mark_synced(&Stream::File(FILE));
        self.file_next = file.filter(|m| m.ranges[0].0 == 0).and_then(|m| m.contiguous_end()).unwrap_or(0);
        self.hop_released = self.hop_released.max(self.hop_next);
        self.file_released = self.file_released.max(self.file_next);
        if let Some(f) = &mut self.on_start {
            f(&log, self.starts);
        }
        self.register()?;
        if self.log.is_some() { self.check() } else { Ok(()) }
    }

    fn register(&mut self) -> Check {
        let (log, wanted) = (self.log(), configuration(self.config));
        if self.config >= 3 {
            self.takers[2] = Taker::default();
        }
        let done = log.register(&wanted, self.now);
        self.settle();
        if done.is_err() {
            return Ok(());
        }
        for (slot, want) in wanted.iter().enumerate() {
            let t = &mut self.takers[slot];
            let cursor = log.cursor(&want.id()).ok_or_else(|| format!("{} is not registered", want.id()))?;
            if t.id.is_none() {
                t.from = cursor.seq;
            }
            t.id = Some(want.id());
            t.synced = t.synced.max(cursor.seq);
        }
        Ok(())
    }

    fn reopen(&mut self) -> Check {
        let log = self.log();
        if log.stats().closed.is_none() {
            return Ok(());
        }
        if log.reopen(self.now).is_ok() {
            for t in &mut self.takers {
                (t.last, t.read_to) = (0, 0);
            }
            self.hop_next =
                log.mark_synced(&Stream::Hop(HOP_NODE, HOP_EPOCH)).and_then(|m| m.contiguous_end()).unwrap_or(0);
            let file = log.mark_synced(&Stream::File(FILE));
            self.file_next = file.filter(|m| m.ranges[0].0 == 0).and_then(|m| m.contiguous_end()).unwrap_or(0);
            self.register()?;
        }
        Ok(())
    }

    // ---- intake ----------------------------------------------------------------------------------------------------

    fn append(&mut self, source: Source, bytes: u64) -> Check {
        let log = self.log();
        let (origin, range) = match source {
            Source::Plain => (None, None),
            Source::Hop => {
                let n = self.hop_next;
                let origin = Origin::Hop { node: HOP_NODE, epoch: HOP_EPOCH, seq: n };
                (Some(origin), Some((source, n, n + 1)))
            }
            Source::File => {
                let n = self.file_next;
                (Some(Origin::LogBytes { file: FILE, offset: n, len: FILE_STEP }), Some((source, n, n + FILE_STEP)))
            }
        };
        // A source's piece keeps its name, however often it is sent.
        let fid = match range {
            Some((Source::Hop, n, _)) => *self.hop_fids.entry(n).or_insert_with(|| n | 1 << 40),
            Some((Source::File, n, _)) => *self.file_fids.entry(n).or_insert_with(|| n | 1 << 41),
            _ => {
                self.next_fid += 1;
                self.next_fid
            }
        };
        let items = (fid % 5 + 1) as u32;
        let body = payload(fid, bytes);
        let parts: [&[u8]; 2] = [&body[..8], &body[8..]];
        let frame =
            NewFrame { parts: &parts, items, origin: origin.as_ref(), appended_at: self.now, ..NewFrame::default() };
        match log.append(frame) {
            Ok(Appended::New { seq }) => {
                if let Some(other) = self.visible.get(&seq) {
                    return Err(format!("I7 seq {seq} was given again: it names frame {other}"));
                }
                self.frames.insert(fid, Written { seq, items, range });
                self.waiting_for_sync.push(fid);
                self.advance_source(source, range);
            }
            Ok(Appended::Held { .. }) => self.advance_source(source, range),
            Ok(Appended::Rewind { to }) => self.hop_next = to,
            Ok(Appended::Trim { from, .. }) => return Err(format!("pieces are whole, yet a trim to {from}")),
            Err(Refused::Full { .. } | Refused::Closed { .. }) => self.tally.refused += 1,
            Err(e) => return Err(e.to_string()),
        }
        Ok(())
    }

    fn advance_source(&mut self, source: Source, range: Option<(Source, u64, u64)>) {
        match (source, range) {
            (Source::Hop, Some((_, _, to))) => self.hop_next = to,
            (Source::File, Some((_, _, to))) => self.file_next = to,
            _ => {}
        }
    }

    fn commit(&mut self) -> Check {
        let log = self.log();
        let done = log.commit(self.now);
        self.settle();
        if done.is_ok() && !self.disk.is_dead() {
            for t in &mut self.takers {
                if let Some(cursor) = t.id.as_ref().and_then(|id| log.cursor(id)) {
                    t.synced = t.synced.max(cursor.seq);
                }
            }
        }
        Ok(())
    }

    /// Asks for every outstanding frame what may be said.
    fn settle(&mut self) {
        let log = self.log();
        let frames = &self.frames;
        let (acked, tally) = (&mut self.acked, &mut self.tally);
        self.waiting_for_sync.retain(|fid| match log.outcome(frames[fid].seq) {
            Outcome::Pending => true,
            Outcome::Synced => {
                tally.acked += u64::from(acked.insert(*fid));
                false
            }
            Outcome::Refused => {
                tally.refused += 1;
                false
            }
        });
    }

    // ---- destinations ----------------------------------------------------------------------------------------------

    fn deliver(&mut self, slot: usize, frames: u64, told: bool) -> Check {
        let log = self.log();
        let Some(id) = self.takers[slot].id.clone() else { return Ok(()) };
        let Some(cursor) = log.cursor(&id) else { return Ok(()) };
        let mut reader = log.reader(cursor.seq);
        let (mut items, mut last) = (0, cursor.seq);
        for _ in 0..frames {
            let batch = reader.read(1).map_err(|e| e.to_string())?;
            self.may_be_missing(&batch.skipped, cursor.seq)?;
            items += batch.skipped.iter().map(|s| s.items).sum::<u64>();
            let Some(f) = batch.frames.first() else { break };
            let fid = fid_of(&f.payload).ok_or_else(|| format!("seq {} holds what nobody wrote", f.seq))?;
            let t = &mut self.takers[slot];
            if f.seq < last {
                return Err(format!("I3 {id} got seq {} after {last}", f.seq));
            }
            let times = t.delivered.entry(fid).or_default();
            *times += 1;
            if *times > 1 {
                self.tally.duplicates += 1;
            }
            items += u64::from(f.items);
            last = f.seq + 1;
        }
        if told {
            log.advance(&id, last, items, last);
        } else {
            // The backend has them and we were not told: they go out again without any fault of the log.
            self.tally.duplicates_allowed += frames;
        }
        Ok(())
    }
}
