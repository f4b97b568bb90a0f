//! The reading room: which files are open, whose turn it is, what is on its way and what is safe.
//!
//! A librarian with a limited counter. Readers (the door) take so many pages at once ([`IN_FLIGHT_MAX`]); pods are served in
//! turn, one chunk each, so that one that shouts gets no more than one that whispers. A container's successive files are one
//! book in volumes: the next is opened for reading when the one before was read to its end and has stopped growing.
//!
//! The weakness: the turn is found by looking at every open file, a few microseconds a chunk at 4,096 files.

use super::beneath::Attempt;
use super::find::{Census, Found, Place};
use super::names::{absolute, group, is_live, pod, volume};
use super::positions::{Position, Positions};
use super::tracked::{Look, PIECE_BYTES, Stream, Tracked};
use super::{Door, Now};
use ipc::{Closed, Opened, Root};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Files held open.
pub(super) const FILES_MAX: usize = 4096;
/// Bytes handed over and not yet safe: what the outbox takes without making us wait.
const IN_FLIGHT_MAX: u64 = 4 << 20;
/// Chunks handed over before anything else is looked at.
const CHUNKS_A_ROUND: usize = 64;
/// A volume that another one continues is final when it has not grown for this long. Unit: milliseconds.
const ROTATED_QUIET_MS: u64 = 1_000;
/// A file without a name is final when it has not grown for this long: its writer may not know yet. Unit: milliseconds.
const DELETED_QUIET_MS: u64 = 2_000;
const MOVED_QUIET_MS: u64 = 10_000;

/// Device and inode.
type Key = (u64, u64);

/// A file that was read to its end: not opened again unless it changes.
struct Done {
    size: u64,
    changed: i128,
    walk: u64,
}

/// A stream with bytes on their way.
struct Flight {
    id: [u8; 16],
    generation: u32,
    given: u64,
    safe: u64,
    closed: bool,
    /// It was read to its end.
    ended: bool,
}

/// Counts by reason.
pub(super) type Counts = BTreeMap<&'static str, u64>;

pub(super) struct Book {
    pub(super) places: Vec<Place>,
    pub(super) positions: Positions,
    files_max: usize,
    tracked: HashMap<Key, Tracked>,
    /// Files of a group in the order in which they are read.
    groups: HashMap<Vec<u8>, Vec<Key>>,
    done: HashMap<Key, Done>,
    flights: HashMap<u32, Flight>,
    in_flight: u64,
    next_number: u32,
    walks: u64,
    found: u64,
    /// When a pod had its last turn, by count.
    turns: HashMap<Vec<u8>, u64>,
    turn: u64,
    refusals: HashSet<(usize, Vec<u8>, &'static str)>,
    pub(super) refused: Counts,
    pub(super) dropped: Counts,
    /// Bytes read.
    pub(super) read: u64,
}

impl Book {
    pub(super) fn new(places: Vec<Place>, positions: Positions, files_max: usize) -> Book {
        Book {
            places,
            positions,
            files_max: files_max.clamp(1, FILES_MAX),
            tracked: HashMap::new(),
            groups: HashMap::new(),
            done: HashMap::new(),
            flights: HashMap::new(),
            in_flight: 0,
            next_number: 1,
            walks: 0,
            found: 0,
            turns: HashMap::new(),
            turn: 0,
            refusals: HashSet::new(),
            refused: Counts::new(),
            dropped: Counts::new(),
            read: 0,
        }
    }

    pub(super) fn files_open(&self) -> usize {
        self.tracked.len()
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Takes note of a walk: new files are opened, names that changed are changed.
    pub(super) fn take(&mut self, census: Census, door: &dyn Door, now: Now) {
        self.walks += 1;
        let mut seen: HashSet<Key> = HashSet::with_capacity(census.files.len());
        let mut refusals: HashSet<(usize, Vec<u8>, &'static str)> = HashSet::new();
        for (place, path, why) in census.refused {
            refusals.insert((place, path, why.name()));
        }
        if census.cut {
            refusals.insert((0, Vec::new(), "too_many"));
        }
        let mut fresh = Vec::new();
        for found in census.files {
            let key = (found.device, found.inode);
            if self.is_packed(&found) {
                if !self.unpacked_was_read(&found) {
                    refusals.insert((found.place, found.path, "gz_unread"));
                }
                continue;
            }
            if !seen.insert(key) {
                continue;
            }
            if let Some(tracked) = self.tracked.get_mut(&key) {
                tracked.gone_since = None;
                rename(tracked, &found, &mut self.positions);
                continue;
            }
            match self.done.get_mut(&key) {
                Some(done) if (done.size, done.changed) == (found.size, found.changed) => done.walk = self.walks,
                _ => fresh.push(found),
            }
        }
        for (key, tracked) in &mut self.tracked {
            if !seen.contains(key) {
                tracked.gone_since.get_or_insert(now.mono);
            }
        }
        let walks = self.walks;
        self.done.retain(|_, done| done.walk == walks);
        // Volumes in their order, so that a group is complete before its first turn.
        fresh.sort_by(|a, b| (a.place, &a.path).cmp(&(b.place, &b.path)));
        for found in fresh {
            self.add(found, door, now, &mut refusals);
        }
        self.count_refusals(refusals);
        self.regroup(now);
    }

    /// A refusal is counted when it is first seen, not at every walk.
    fn count_refusals(&mut self, now: HashSet<(usize, Vec<u8>, &'static str)>) {
        for (_, path, why) in now.difference(&self.refusals) {
            *self.refused.entry(why).or_default() += 1;
            let path = path.escape_ascii();
            tracing::warn!(%path, reason = why, "a log file is not read");
        }
        self.refusals = now;
    }

    fn is_packed(&self, found: &Found) -> bool {
        self.places.get(found.place).is_some_and(Place::is_pods) && found.path.ends_with(b".gz")
    }

    /// Whether what a `.gz` was made of was read to its end, or is being read from the descriptor we hold.
    fn unpacked_was_read(&self, found: &Found) -> bool {
        let path = found.path.strip_suffix(b".gz").unwrap_or(&found.path);
        self.positions.has_ended(path) || self.tracked.values().any(|t| t.place == found.place && t.path == path)
    }

    fn add(&mut self, found: Found, door: &dyn Door, now: Now, refusals: &mut HashSet<(usize, Vec<u8>, &'static str)>) {
        if self.tracked.len() >= self.files_max && !self.evict(door) {
            refusals.insert((0, Vec::new(), "too_many_open"));
            return;
        }
        let Some(place) = self.places.get(found.place) else { return };
        let Some(root) = &place.root else { return };
        let (file, stat) = match root.open_file(&found.path, place.is_pods()) {
            Attempt::Open(file, stat) => (file, stat),
            Attempt::Refused(why) => {
                refusals.insert((found.place, found.path, why.name()));
                return;
            }
            Attempt::Gone => return,
        };
        let key = (stat.st_dev, stat.st_ino);
        if self.tracked.contains_key(&key) {
            return;
        }
        let group = group(found.place, &found.path, place.is_pods());
        match Tracked::new(found.place, found.path, group, file, now.mono) {
            Ok(mut tracked) => {
                self.found += 1;
                (tracked.order, tracked.walk) = (self.found, self.walks);
                self.tracked.insert(key, tracked);
            }
            Err(e) => tracing::warn!(error = %e, "a log file could not be looked at"),
        }
    }

    /// Closes the file that has waited longest without anything to read. False: there is none.
    fn evict(&mut self, door: &dyn Door) -> bool {
        let idle = self.tracked.iter().filter(|(_, t)| t.stream.is_some() && !t.is_ready());
        let Some(key) = idle.min_by_key(|(_, t)| t.read).map(|(key, _)| *key) else { return false };
        *self.dropped.entry("files_evicted").or_default() += 1;
        self.leave(key, "evicted", false, door);
        true
    }

    /// Orders the files of each group and notes which are continued.
    fn regroup(&mut self, now: Now) {
        self.groups.clear();
        for (key, tracked) in &self.tracked {
            self.groups.entry(tracked.group.clone()).or_default().push(*key);
        }
        for keys in self.groups.values_mut() {
            keys.sort_by_cached_key(|key| self.tracked.get(key).map(volume));
            let last = keys.len().saturating_sub(1);
            for (i, key) in keys.iter().enumerate() {
                let Some(tracked) = self.tracked.get_mut(key) else { continue };
                if i < last {
                    tracked.next_since.get_or_insert(now.mono);
                } else {
                    tracked.next_since = None;
                }
            }
        }
        self.turns.retain(|_, turn| self.turn.saturating_sub(*turn) < TURNS_KEPT);
    }

    /// Looks at every open file: what grew, what was rewritten, what has become known.
    pub(super) fn look(&mut self, door: &dyn Door, now: Now) {
        let keys: Vec<Key> = self.tracked.keys().copied().collect();
        let before = keys.len();
        for key in keys {
            let Some(tracked) = self.tracked.get_mut(&key) else { continue };
            if tracked.is_deleted() {
                tracked.gone_since.get_or_insert(now.mono);
            }
            match tracked.look(now.mono) {
                Ok(Look::Same | Look::Grew) => {}
                Ok(Look::Rewritten) => {
                    if let Some(stream) = tracked.stream.clone() {
                        tracked.forget();
                        self.close(&stream, "truncated", false, door);
                    }
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a log file can no longer be looked at");
                    self.leave(key, "unreadable", false, door);
                    continue;
                }
            }
            self.begin(key, door, now);
        }
        if self.tracked.len() < before {
            self.regroup(now);
        }
    }

    /// Announces a file as soon as it is known which one it is.
    fn begin(&mut self, key: Key, door: &dyn Door, now: Now) {
        let last = self.is_final(key, now);
        let Some(tracked) = self.tracked.get_mut(&key).filter(|t| t.stream.is_none()) else { return };
        let Ok(Some(id)) = tracked.identify(last) else { return };
        let known = self.positions.get(&id);
        if let Some(p) = known.filter(|p| p.ended && p.end == tracked.size && tracked.was.is_none()) {
            // Read to its end by an earlier start: nothing to announce.
            let done = Done { size: p.end, changed: tracked.changed, walk: self.walks };
            self.done.insert(key, done);
            self.tracked.remove(&key);
            return;
        }
        let again = tracked.was == Some(id) || known.is_some_and(|p| p.high > tracked.size);
        let (generation, at) = match known {
            None => (0, 0),
            Some(p) if again => (p.generation.saturating_add(1), 0),
            Some(p) => (p.generation, p.given),
        };
        let position = Position {
            generation,
            end: if again { 0 } else { known.map_or(0, |p| p.end) },
            given: at,
            high: if again { 0 } else { known.map_or(0, |p| p.high) },
            ended: false,
            seen: now.wall_s(),
            path: tracked.path.clone(),
        };
        if known != Some(&position) {
            self.positions.put(id, position);
        }
        if again && let Err(e) = self.positions.save() {
            // Bytes of a new generation must not cross before it is written down: after a restart they would pass for the old ones.
            tracing::error!(error = %e, "positions cannot be written; a rewritten file waits");
            self.positions.change(&id, generation, |p| {
                (p.generation, p.high) = (generation.saturating_sub(1), u64::MAX);
            });
            return;
        }
        let Some(tracked) = self.tracked.get_mut(&key) else { return };
        tracked.was = None;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        tracked.stream = Some(Stream { number, id, generation, at });
        let place = &self.places[tracked.place];
        let (root, path) = match &place.name {
            None => (Root::Pods, tracked.path.clone()),
            Some(name) => (Root::Files { name: name.clone() }, absolute(place, &tracked.path)),
        };
        let flight = Flight { id, generation, given: at, safe: at, closed: false, ended: false };
        self.flights.insert(number, flight);
        door.opened(Opened {
            file: number,
            root,
            path,
            id,
            generation,
            device: tracked.spot.device,
            inode: tracked.spot.inode,
            length: tracked.size,
            position: at,
            rotated: !is_live(tracked),
        });
    }

    /// Whether nothing more can come.
    fn is_final(&self, key: Key, now: Now) -> bool {
        let Some(tracked) = self.tracked.get(&key) else { return false };
        let quiet = |since: u64, ms: u64| now.mono.saturating_sub(since.max(tracked.grew)) >= ms;
        let old = now.wall - tracked.changed >= i128::from(ROTATED_QUIET_MS) * 1_000_000;
        let pods = self.places.get(tracked.place).is_some_and(Place::is_pods);
        match (tracked.next_since, tracked.gone_since) {
            (Some(since), _) if pods => quiet(since, ROTATED_QUIET_MS) || old,
            (_, Some(since)) if tracked.is_deleted() => quiet(since, DELETED_QUIET_MS),
            (_, Some(since)) => quiet(since, MOVED_QUIET_MS),
            _ => false,
        }
    }

    /// Closes what is final and read. True: something was, so others may have their turn.
    pub(super) fn finish(&mut self, door: &dyn Door, now: Now) -> bool {
        let waiting = self.tracked.iter().filter(|(_, t)| t.next_since.is_some() || t.gone_since.is_some());
        let keys: Vec<Key> = waiting.filter(|(_, t)| !t.is_ready()).map(|(key, _)| *key).collect();
        let mut any = false;
        for key in keys {
            if !self.is_final(key, now) {
                continue;
            }
            self.begin(key, door, now);
            let Some(tracked) = self.tracked.get_mut(&key) else { continue };
            if tracked.left() > 0 && tracked.stream.is_some() {
                tracked.unstick();
                any = true;
                continue;
            }
            let pods = self.places.get(tracked.place).is_some_and(Place::is_pods);
            let continued = pods && tracked.next_since.is_some();
            let reason = if tracked.is_deleted() && !continued { "deleted" } else { "rotated" };
            self.leave(key, reason, true, door);
            any = true;
        }
        if any {
            self.regroup(now);
        }
        any
    }

    /// Lets a file go.
    fn leave(&mut self, key: Key, reason: &'static str, ended: bool, door: &dyn Door) {
        let Some(tracked) = self.tracked.remove(&key) else { return };
        let size = tracked.stream.as_ref().map_or(tracked.size, |s| s.at);
        self.done.insert(key, Done { size, changed: tracked.changed, walk: self.walks });
        if let Some(stream) = &tracked.stream {
            self.close(stream, reason, ended, door);
        }
    }

    fn close(&mut self, stream: &Stream, reason: &'static str, ended: bool, door: &dyn Door) {
        door.closed(Closed { file: stream.number, end: stream.at, reason: reason.to_owned() });
        if let Some(flight) = self.flights.get_mut(&stream.number) {
            (flight.closed, flight.ended) = (true, ended);
        }
        self.settle(stream.number);
    }

    /// Notes what is safe; forgets a closed stream of which all is.
    fn settle(&mut self, number: u32) {
        let Some(flight) = self.flights.get(&number) else { return };
        let (safe, whole) = (flight.safe, flight.closed && flight.safe >= flight.given);
        let ended = whole && flight.ended;
        self.positions.change(&flight.id, flight.generation, |p| {
            p.end = p.end.max(safe);
            p.ended |= ended;
        });
        if whole {
            self.flights.remove(&number);
        }
    }

    /// Takes receipts.
    pub(super) fn durable(&mut self, door: &dyn Door) {
        for (number, end) in door.take_durable() {
            let Some(flight) = self.flights.get_mut(&number) else { continue };
            let end = end.min(flight.given);
            self.in_flight = self.in_flight.saturating_sub(end.saturating_sub(flight.safe));
            flight.safe = flight.safe.max(end);
            self.settle(number);
        }
    }

    /// Hands over chunks in turn while there is room. True: there is more and there is room.
    pub(super) fn send(&mut self, door: &dyn Door, now: Now) -> bool {
        for _ in 0..CHUNKS_A_ROUND {
            if self.in_flight + PIECE_BYTES as u64 > IN_FLIGHT_MAX {
                return false;
            }
            let Some(key) = self.next() else { return false };
            let last = self.is_final(key, now);
            self.turn += 1;
            let turn = self.turn;
            let Some(tracked) = self.tracked.get_mut(&key) else { return false };
            tracked.read = turn;
            self.turns.insert(pod(tracked), turn);
            let before = tracked.stream.as_ref().map_or(0, |s| s.at);
            let bytes = match tracked.read(last) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(e) => {
                    tracing::warn!(error = %e, "a log file can no longer be read");
                    self.leave(key, "unreadable", false, door);
                    self.regroup(now);
                    continue;
                }
            };
            let Some(stream) = tracked.stream.clone() else { continue };
            let len = bytes.len() as u64;
            if !door.log_bytes(stream.number, before, bytes) {
                return false;
            }
            self.read += len;
            self.in_flight += len;
            if let Some(flight) = self.flights.get_mut(&stream.number) {
                flight.given = stream.at;
            }
            self.positions.change(&stream.id, stream.generation, |p| {
                (p.given, p.high) = (stream.at, p.high.max(stream.at));
            });
        }
        true
    }

    /// Whose turn it is: of the pods that wait, the one that has waited longest, and of its files the same.
    fn next(&self) -> Option<Key> {
        let ready = self.tracked.iter().filter(|(key, t)| t.is_ready() && !self.is_behind(**key, t));
        let turn = |t: &Tracked| (self.turns.get(&pod(t)).copied().unwrap_or(0), t.read, t.order);
        ready.min_by_key(|(_, t)| turn(t)).map(|(key, _)| *key)
    }

    /// Whether an earlier volume comes first.
    fn is_behind(&self, key: Key, tracked: &Tracked) -> bool {
        let Some(keys) = self.groups.get(&tracked.group) else { return false };
        let pods = self.places.get(tracked.place).is_some_and(Place::is_pods);
        let mut earlier = keys.iter().take_while(|k| **k != key).filter_map(|k| self.tracked.get(k));
        // A pod's volume is read when the one before is closed; a plain file may be written to long after it was moved away.
        if pods { !self.is_confirmed(tracked) || earlier.next().is_some() } else { earlier.any(Tracked::is_ready) }
    }

    /// Whether a walk that began after a volume was found has seen its folder: the volumes before it are known then. A walk takes
    /// time, and one that meets a rotation sees the newest volume and not the one before.
    fn is_confirmed(&self, tracked: &Tracked) -> bool {
        self.walks > tracked.walk
    }

    /// Whether something waits for another walk.
    pub(super) fn wants_walk(&self) -> bool {
        self.tracked.values().any(|t| !self.is_confirmed(t) && self.places.get(t.place).is_some_and(Place::is_pods))
    }
}

/// Turns after which a pod that had none is forgotten.
const TURNS_KEPT: u64 = 65_536;

fn rename(tracked: &mut Tracked, found: &Found, positions: &mut Positions) {
    if tracked.path == found.path {
        return;
    }
    tracked.path.clone_from(&found.path);
    if let Some(stream) = &tracked.stream {
        positions.change(&stream.id, stream.generation, |p| p.path.clone_from(&found.path));
    }
}
