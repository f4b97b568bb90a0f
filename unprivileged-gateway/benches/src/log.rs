//! An append-only log in 64 MiB files: a group of records, one write, one sync, and the group stays in memory for the reader.
//!
//! Record: length u32, CRC32C of the payload u32, time u64, payload; little-endian. Delivered files are deleted. Weakness: it is
//! started empty every time and cannot recover; that is the gateway's business.

use bytes::{Buf, Bytes};
use crc32c::crc32c_append;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HEADER: usize = 16;
/// A file is not begun anew before it holds this many bytes.
const SEGMENT: u64 = 64 << 20;
/// Groups kept in memory for a reader that keeps up, bytes.
const TAIL: usize = 6 << 20;

#[derive(Default)]
struct State {
    /// Start positions of the files held, oldest first.
    segments: VecDeque<u64>,
    /// Groups in memory with the position of their first byte, oldest first.
    tail: VecDeque<(u64, Bytes)>,
    tail_bytes: usize,
    synced: u64,
}

struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    grown: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, start: u64) -> PathBuf {
        self.folder.join(format!("{start:016x}.seg"))
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: File,
    start: u64,
    end: u64,
    group: Vec<u8>,
}

pub(crate) struct Reader {
    shared: Arc<Shared>,
    file: Option<(u64, File)>,
    pub(crate) position: u64,
}

/// A fresh, empty log.
pub(crate) fn create(folder: &Path) -> io::Result<(Writer, Reader)> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let shared = Arc::new(Shared { folder: folder.to_owned(), state: Mutex::default(), grown: Condvar::new() });
    let file = new_segment(&shared, 0)?;
    let reader = Reader { shared: shared.clone(), file: None, position: 0 };
    Ok((Writer { shared, file, start: 0, end: 0, group: Vec::new() }, reader))
}

fn new_segment(shared: &Shared, start: u64) -> io::Result<File> {
    let file = File::create(shared.path(start))?;
    File::open(&shared.folder)?.sync_all()?; // the name must survive too
    shared.state().segments.push_back(start);
    Ok(file)
}

impl Writer {
    pub(crate) fn append(&mut self, parts: &[Bytes], length: usize) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let crc = parts.iter().fold(0, |crc, part| crc32c_append(crc, part));
        self.group.extend_from_slice(&(length as u32).to_le_bytes());
        self.group.extend_from_slice(&crc.to_le_bytes());
        self.group.extend_from_slice(&now.to_le_bytes());
        parts.iter().for_each(|part| self.group.extend_from_slice(part));
    }

    pub(crate) fn pending(&self) -> usize {
        self.group.len()
    }

    /// One write, one sync. When it returns, answers may be given.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        if self.end - self.start >= SEGMENT {
            self.file = new_segment(&self.shared, self.end)?;
            self.start = self.end;
        }
        self.file.write_all_at(&self.group, self.end - self.start)?;
        self.file.sync_data()?;
        let capacity = self.group.len();
        let group = Bytes::from(std::mem::replace(&mut self.group, Vec::with_capacity(capacity)));
        let mut state = self.shared.state();
        state.tail_bytes += group.len();
        state.tail.push_back((self.end, group));
        while state.tail_bytes > TAIL && state.tail.len() > 1 {
            state.tail_bytes -= state.tail.pop_front().map_or(0, |g| g.1.len());
        }
        self.end += capacity as u64;
        state.synced = self.end;
        drop(state);
        self.shared.grown.notify_one();
        Ok(())
    }
}

impl Reader {
    /// Waits for synced bytes, up to `linger` for `enough` of them. Gives how many there are.
    pub(crate) fn wait(&self, enough: u64, linger: Duration) -> u64 {
        let state = self.shared.state();
        let waited = self.shared.grown.wait_while(state, |s| s.synced == self.position);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        let short = |s: &mut State| s.synced - self.position < enough;
        let waited = self.shared.grown.wait_timeout_while(state, linger, short);
        waited.unwrap_or_else(PoisonError::into_inner).0.synced - self.position
    }

    /// Hands over whole records, about `limit` bytes of them or to the end of what lies together.
    pub(crate) fn read(&mut self, limit: u64, mut each: impl FnMut(&[u8], u64)) -> io::Result<()> {
        let mut chunk = self.chunk(limit)?;
        while chunk.len() >= HEADER {
            let (length, crc, at) = {
                let mut head = &chunk[..HEADER];
                (head.get_u32_le() as usize, head.get_u32_le(), head.get_u64_le())
            };
            let Some(payload) = chunk.get(HEADER..HEADER + length) else { break };
            if crc32c_append(0, payload) != crc {
                return Err(io::Error::other("a record does not match its checksum"));
            }
            each(payload, at);
            chunk.advance(HEADER + length);
            self.position += (HEADER + length) as u64;
        }
        Ok(())
    }

    /// Synced bytes from the position on: from memory, or from the file for a reader that is behind.
    fn chunk(&mut self, limit: u64) -> io::Result<Bytes> {
        let (start, end) = {
            let state = self.shared.state();
            let at = state.tail.partition_point(|g| g.0 <= self.position);
            if let Some((from, group)) = at.checked_sub(1).and_then(|i| state.tail.get(i))
                && self.position < from + group.len() as u64
            {
                return Ok(group.slice((self.position - from) as usize..));
            }
            let next = state.segments.partition_point(|s| *s <= self.position);
            (state.segments[next - 1], state.segments.get(next).copied().unwrap_or(state.synced).min(state.synced))
        };
        if self.file.as_ref().is_none_or(|f| f.0 != start) {
            self.file = Some((start, File::open(self.shared.path(start))?));
        }
        let Some((_, file)) = &self.file else { return Ok(Bytes::new()) };
        let mut length = (end - self.position).min(limit.max(HEADER as u64)) as usize;
        loop {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, self.position - start)?;
            let whole = HEADER + (&bytes[..]).get_u32_le() as usize;
            if whole <= length {
                return Ok(bytes.into());
            }
            length = whole; // the first record alone is longer than the limit
        }
    }

    /// Everything before the position has been taken by the receiver: whole files before it go.
    pub(crate) fn delivered(&mut self) {
        let mut state = self.shared.state();
        while state.segments.get(1).is_some_and(|next| *next <= self.position) {
            if let Some(old) = state.segments.pop_front() {
                let _ = fs::remove_file(self.shared.path(old));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_from_memory_and_from_disk_across_files() {
        let folder = std::env::temp_dir().join(format!("floor-twin-{}", std::process::id()));
        let (mut writer, mut reader) = create(&folder).expect("a folder");
        let payload = |i: u32| Bytes::from(vec![i as u8; 100_000 + i as usize]);
        for i in 0..1_500u32 {
            writer.append(&[payload(i).slice(..7), payload(i).slice(7..)], 100_000 + i as usize);
            if i % 3 == 0 {
                writer.commit().expect("a synced group");
            }
        }
        writer.commit().expect("a synced group");
        let mut seen = 0;
        while seen < 1_500 {
            reader.wait(1, Duration::ZERO);
            let read = reader.read(1 << 20, |p, _| {
                assert!(p == payload(seen), "record {seen} differs");
                seen += 1;
            });
            read.expect("whole records");
            reader.delivered();
        }
        let files = fs::read_dir(&folder).expect("the folder").count();
        assert_eq!(files, 1, "delivered files are gone");
        fs::remove_dir_all(&folder).expect("ours");
    }
}
