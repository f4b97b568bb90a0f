//! A disk that forgets: everything written since the last sync may be gone, whole or in sectors, in any order, names too.
//!
//! It lives in memory. What was written is readable at once (the page cache); what was synced survives [`power_cut`].
//! Of the rest a power cut keeps any 512-byte sector in any version it has had, any file length, and any of the pending
//! changes to names. A failed sync leaves ghosts: bytes that read back well, that a second sync claims to have written,
//! and that the next power cut takes. A fault strikes at a counted operation, so that a seed is a whole bug report. The
//! weakness: it forgets sectors, it never writes them to the wrong place.
//!
//! [`power_cut`]: ForgetfulDisk::power_cut

use crate::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What survives a power cut or not, as one.
pub const SECTOR_BYTES: usize = 512;

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies: this operation and all later ones fail, until [`ForgetfulDisk::revive`] or a power cut. A write
    /// may have got partly through.
    Crash,
    /// The operation fails. A write gets partly through; a sync makes some of the bytes durable and ghosts of the rest.
    Fail,
}

#[derive(Clone, Default)]
struct Node {
    /// What reads back.
    now: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// Sectors written since the last sync, with every version they have had.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    lengths: BTreeSet<usize>,
    ghost: bool,
    /// Allocated bytes; they count against the capacity and need no memory here.
    reserved: u64,
}

#[derive(Clone)]
enum NameOp {
    Link(String, u64),
    Unlink(String),
    Rename(String, String, u64),
}

#[derive(Clone, Default)]
struct Platter {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<NameOp>,
    next_node: u64,
    ops: u64,
    faults: Vec<(u64, Fault)>,
    random: u64,
    dead: bool,
    capacity: Option<u64>,
    read_only: bool,
    bad_reads: BTreeSet<(u64, usize)>,
}

/// See the module.
#[derive(Clone, Default)]
pub struct ForgetfulDisk(Arc<Mutex<Platter>>);

impl ForgetfulDisk {
    /// An empty disk whose choices follow from `seed`.
    pub fn new(seed: u64) -> ForgetfulDisk {
        let disk = ForgetfulDisk::default();
        disk.lock().random = seed | 1;
        disk
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An independent copy of everything, caches included.
    pub fn fork(&self) -> ForgetfulDisk {
        ForgetfulDisk(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Writing operations so far.
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// A fault strikes at the `after`-th writing operation from now (0: the next one). Several may be armed.
    pub fn arm(&self, after: u64, fault: Fault) {
        let mut p = self.lock();
        let at = p.ops + after;
        p.faults.push((at, fault));
    }

    /// Takes back faults that have not struck.
    pub fn disarm(&self) {
        self.lock().faults.clear();
    }

    /// Whether a crash has struck.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// A new process on the same machine: the page cache is still there.
    pub fn revive(&self) {
        let mut p = self.lock();
        p.dead = false;
        p.faults.clear();
    }

    /// At most this many bytes in all files; `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes in all files, allocated ones included.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// From now on every writing operation fails.
    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    /// Everything that was not synced is up for grabs; then the machine is up again.
    pub fn power_cut(&self) {
        let mut p = self.lock();
        let pending = std::mem::take(&mut p.pending);
        for op in pending {
            if p.coin() {
                op.apply(&mut p.durable_names);
            }
        }
        p.names = p.durable_names.clone();
        let held: BTreeSet<u64> = p.names.values().copied().collect();
        p.nodes.retain(|n, _| held.contains(n));
        let numbers: Vec<u64> = p.nodes.keys().copied().collect();
        for n in numbers {
            let mut node = p.nodes.remove(&n).unwrap_or_default();
            node.cut(&mut p);
            p.nodes.insert(n, node);
        }
        (p.dead, p.read_only) = (false, false);
        p.faults.clear();
    }

    /// Flips one bit of a file, on the platter and in the cache. False: there is no such byte.
    pub fn flip(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut p = self.lock();
        let Some(node) = p.names.get(name).copied().and_then(|n| p.nodes.get_mut(&n)) else { return false };
        for bytes in [&mut node.now, &mut node.durable] {
            if let Some(b) = bytes.get_mut(offset) {
                *b ^= 1 << (bit % 8);
            }
        }
        offset < node.now.len()
    }

    /// Reads of this 4 KiB block fail from now on.
    pub fn spoil(&self, name: &str, block: usize) {
        let mut p = self.lock();
        if let Some(n) = p.names.get(name).copied() {
            p.bad_reads.insert((n, block));
        }
    }

    /// Contents of a file as it reads now.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let p = self.lock();
        p.names.get(name).and_then(|n| p.nodes.get(n)).map(|n| n.now.clone())
    }

    /// Puts a file there, durable at once.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut p = self.lock();
        let n = p.new_node();
        p.nodes.insert(n, Node { now: bytes.into(), durable: bytes.into(), ..Node::default() });
        p.names.insert(name.into(), n);
        p.durable_names.insert(name.into(), n);
    }

    fn node_of(&self, name: &str) -> io::Result<u64> {
        self.lock().names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameOp::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            NameOp::Unlink(name) => {
                names.remove(name);
            }
            NameOp::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Node {
    fn size(&self) -> u64 {
        (self.now.len() as u64).max(self.reserved)
    }

    fn cut(&mut self, p: &mut Platter) {
        let mut lengths: Vec<usize> = self.lengths.iter().copied().collect();
        lengths.push(self.durable.len());
        let length = lengths[p.below(lengths.len())];
        let mut bytes = std::mem::take(&mut self.durable);
        let whole = bytes.len().max(length).next_multiple_of(SECTOR_BYTES);
        bytes.resize(whole, 0);
        for (sector, versions) in &self.dirty {
            let pick = p.below(versions.len() + 1);
            let at = sector * SECTOR_BYTES;
            if let Some(v) = versions.get(pick)
                && at < bytes.len()
            {
                let to = (at + v.len()).min(bytes.len());
                bytes[at..to].copy_from_slice(&v[..to - at]);
            }
        }
        bytes.truncate(length);
        *self = Node { now: bytes.clone(), durable: bytes, reserved: self.reserved, ..Node::default() };
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[at..end].copy_from_slice(bytes);
        self.lengths.insert(self.now.len());
        for sector in at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.now.len());
            self.dirty.entry(sector).or_default().push(self.now[from..to].to_vec());
        }
    }

    fn sync(&mut self, p: &mut Platter, whole: bool) {
        if whole {
            if self.ghost {
                // Clean in the cache, never written: a later sync has nothing to say about them.
                let dirty = std::mem::take(&mut self.dirty);
                self.durable.resize(self.durable.len().max(self.now.len()), 0);
                for sector in dirty.keys() {
                    self.persist(*sector);
                }
            } else {
                self.durable.clone_from(&self.now);
            }
        } else {
            self.ghost = true;
            let sectors: Vec<usize> = self.dirty.keys().copied().collect();
            if p.coin() {
                self.durable.resize(self.durable.len().max(self.now.len()), 0);
                for sector in sectors {
                    if p.coin() {
                        self.persist(sector);
                    }
                }
            }
        }
        self.dirty.clear();
        self.lengths.clear();
    }

    fn persist(&mut self, sector: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(self.now.len());
        self.durable[from..to].copy_from_slice(&self.now[from..to]);
    }
}

impl Platter {
    fn new_node(&mut self) -> u64 {
        self.next_node += 1;
        self.next_node
    }

    fn below(&mut self, n: usize) -> usize {
        // xorshift64*: the disk brings its own dice.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Counts a writing operation. `Err`: it fails; true inside: partly done.
    fn tick(&mut self) -> Result<(), Fault> {
        if self.dead || self.read_only {
            return Err(if self.dead { Fault::Crash } else { Fault::Fail });
        }
        let op = self.ops;
        self.ops += 1;
        let Some(i) = self.faults.iter().position(|(at, _)| *at <= op) else { return Ok(()) };
        let (_, fault) = self.faults.remove(i);
        self.dead = fault == Fault::Crash;
        Err(fault)
    }

    fn step(&mut self) -> io::Result<()> {
        self.tick().map_err(broken)
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|n| self.nodes.get(n)).map(Node::size).sum()
    }
}

fn broken(fault: Fault) -> io::Error {
    io::Error::other(match fault {
        Fault::Crash => "the process is dead",
        Fault::Fail => "input/output error (injected)",
    })
}

struct ForgetfulFile {
    disk: ForgetfulDisk,
    node: u64,
}

impl Disk for ForgetfulDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut p = self.lock();
        p.step()?;
        let node = p.new_node();
        p.nodes.insert(node, Node::default());
        p.names.insert(name.into(), node);
        p.pending.push(NameOp::Link(name.into(), node));
        Ok(Arc::new(ForgetfulFile { disk: self.clone(), node }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(ForgetfulFile { disk: self.clone(), node: self.node_of(name)? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut p = self.lock();
        p.step()?;
        let node = p.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        p.names.insert(to.into(), node);
        p.pending.push(NameOp::Rename(from.into(), to.into(), node));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut p = self.lock();
        p.step()?;
        p.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        p.pending.push(NameOp::Unlink(name.into()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut p = self.lock();
        p.step()?;
        for op in std::mem::take(&mut p.pending) {
            op.apply(&mut p.durable_names);
        }
        Ok(())
    }
}

impl ForgetfulFile {
    fn with<T>(&self, f: impl FnOnce(&mut Node, &mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut p = self.disk.lock();
        // An unlinked file stays readable through its handle, as on any Unix; after a power cut it is gone.
        let mut node = p.nodes.remove(&self.node).ok_or(io::ErrorKind::NotFound)?;
        let result = f(&mut node, &mut p);
        p.nodes.insert(self.node, node);
        result
    }
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|node, p| {
            let from = (offset as usize).min(node.now.len());
            let to = (from + into.len()).min(node.now.len());
            if (from / 4096..to.div_ceil(4096)).any(|b| p.bad_reads.contains(&(self.node, b))) {
                return Err(io::Error::other("input/output error (spoiled block)"));
            }
            into[..to - from].copy_from_slice(&node.now[from..to]);
            Ok(to - from)
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|node, p| {
            let was_dead = p.dead;
            if let Err(fault) = p.tick() {
                if !p.read_only && !was_dead {
                    let part = p.below(bytes.len() + 1);
                    node.write(&bytes[..part], offset as usize);
                }
                return Err(broken(fault));
            }
            let grows = (offset + bytes.len() as u64).saturating_sub(node.now.len() as u64);
            // `node` is taken out of the table while it is written, so its own bytes are added here.
            let used = p.used() + node.now.len() as u64;
            if p.capacity.is_some_and(|c| used + grows > c) {
                let room = (p.capacity.unwrap_or(0).saturating_sub(used) as usize).min(bytes.len());
                node.write(&bytes[..room], offset as usize);
                return Err(io::ErrorKind::StorageFull.into());
            }
            node.write(bytes, offset as usize);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|node, p| match p.tick() {
            Ok(()) => {
                node.sync(p, true);
                Ok(())
            }
            Err(Fault::Fail) if !p.read_only => {
                node.sync(p, false);
                Err(broken(Fault::Fail))
            }
            Err(fault) => Err(broken(fault)),
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|node, _| Ok(node.size()))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|node, p| {
            p.step()?;
            if p.capacity.is_some_and(|c| p.used() + node.size().max(len) > c) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            node.reserved = node.reserved.max(len);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_not() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 1..200 {
            let disk = ForgetfulDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_all_at(&[1; 1000], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir().unwrap();
            file.write_all_at(&[2; 1000], 1000).unwrap();
            disk.power_cut();
            let now = disk.content("a").unwrap();
            assert_eq!(now[..1000], [1; 1000]);
            if now.len() == 2000 && now[1000..] == [2; 1000] {
                kept += 1;
            } else {
                lost += 1;
            }
        }
        assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
    }

    #[test]
    fn a_name_without_a_directory_sync_may_vanish() {
        let gone = (1..100).filter(|seed| {
            let disk = ForgetfulDisk::new(*seed);
            let file = disk.create("a").unwrap();
            file.write_all_at(b"x", 0).unwrap();
            file.sync_data().unwrap();
            disk.power_cut();
            disk.content("a").is_none()
        });
        assert!((1..99).contains(&gone.count()));
    }

    #[test]
    fn a_failed_sync_leaves_ghosts_that_a_second_sync_does_not_save() {
        let lost = (1..100).filter(|seed| {
            let disk = ForgetfulDisk::new(*seed);
            let file = disk.create("a").unwrap();
            disk.sync_dir().unwrap();
            file.write_all_at(b"hello", 0).unwrap();
            disk.arm(0, Fault::Fail);
            assert!(file.sync_data().is_err());
            file.sync_data().unwrap();
            assert_eq!(disk.content("a").unwrap(), b"hello");
            disk.power_cut();
            disk.content("a").unwrap() != b"hello"
        });
        assert!(lost.count() > 20);
    }
}
