//! Files that are executed: their place in the row table, and the names of their functions.
//!
//! Like a card index of a library: a card is written once for each book, whoever reads it, and shows shelf and chapters. Cards of
//! books nobody has out are kept while there is room, because compilers come back every second. A card holds the open
//! descriptor only while a process runs the file, so that a container's file system can go when the container does. The
//! weakness: names are kept as ranges that were asked for; a file with very many functions is asked again and again until
//! its busy ones are known.

use super::open::Key;
use super::rows::Range;
use crate::parser::{Function, Segment};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most functions remembered for one file.
const FUNCTIONS_MAX: usize = 32_768;

/// What is known about names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Start to end and name, ELF virtual addresses.
    functions: BTreeMap<u64, (u64, Arc<str>)>,
    /// Its parser died: it is not asked again.
    pub(super) given_up: bool,
}

/// One executable or library.
#[derive(Debug)]
pub(super) struct Card {
    /// Which file.
    pub(super) key: Key,
    /// Path as the first process saw it.
    pub(super) path: String,
    /// Hexadecimal, or empty.
    pub(super) build_id: String,
    /// Executable segments.
    pub(super) segments: Vec<Segment>,
    /// Rows in the table.
    pub(super) rows: Range,
    names: Mutex<Names>,
    file: Mutex<Option<Arc<File>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Card {
    pub(super) fn new(
        key: Key,
        path: String,
        build_id: &[u8],
        segments: Vec<Segment>,
        rows: Range,
        file: File,
    ) -> Card {
        Card {
            key,
            path,
            build_id: build_id.iter().map(|b| format!("{b:02x}")).collect(),
            segments,
            rows,
            names: Mutex::default(),
            file: Mutex::new(Some(Arc::new(file))),
        }
    }

    /// Last element of the path.
    pub(super) fn base(&self) -> &str {
        self.path.rsplit('/').next().filter(|b| !b.is_empty()).unwrap_or(&self.path)
    }

    /// Run-time address minus ELF address of a mapping that begins at `start` and shows the file from `offset` on.
    ///
    /// `None`: no executable segment of the file is shown there.
    pub(super) fn bias(&self, start: u64, end: u64, offset: u64) -> Option<u64> {
        // A mapping begins at a page, a segment need not: it covers the segment that overlaps what is shown.
        let shown_end = offset.saturating_add(end - start);
        let segment =
            self.segments.iter().find(|s| s.offset < shown_end && offset < s.offset.saturating_add(s.size))?;
        Some(start.wrapping_sub(segment.address.wrapping_add(offset).wrapping_sub(segment.offset)))
    }

    /// The open file, while somebody runs it.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        lock(&self.file).clone()
    }

    /// Somebody runs it again.
    pub(super) fn reopen(&self, file: File) {
        lock(&self.file).get_or_insert_with(|| Arc::new(file));
    }

    /// Nobody runs it.
    pub(super) fn close(&self) {
        *lock(&self.file) = None;
    }

    /// Name and start of the function around an ELF address, if it was asked for already.
    pub(super) fn function(&self, address: u64) -> Option<(u64, Arc<str>)> {
        let names = lock(&self.names);
        // Functions may lie within each other (cold parts): the one that begins last wins, a few before it are looked at.
        names
            .functions
            .range(..=address)
            .rev()
            .take(4)
            .find(|(_, (end, _))| address < *end)
            .map(|(s, (_, n))| (*s, n.clone()))
    }

    /// Whether asking for names makes sense.
    pub(super) fn may_be_asked(&self) -> bool {
        !lock(&self.names).given_up
    }

    /// Its parser died over this file.
    pub(super) fn give_up(&self) {
        lock(&self.names).given_up = true;
    }

    /// Remembers an answer; a function without a name is called after its file and start.
    pub(super) fn learn(&self, functions: Vec<Function>) {
        let mut names = lock(&self.names);
        if names.functions.len() + functions.len() > FUNCTIONS_MAX {
            names.functions.clear();
        }
        for f in functions {
            let name = match f.name.is_empty() {
                true => format!("{}+{:#x}", self.base(), f.start),
                false => f.name,
            };
            names.functions.insert(f.start, (f.end, name.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(segments: Vec<Segment>) -> Card {
        let file = File::open("/dev/null").expect("null");
        Card::new(Key::VDSO, "/usr/lib/libx.so".into(), &[0xab, 1], segments, (0, 0), file)
    }

    #[test]
    fn the_bias_comes_from_the_executed_segment_although_its_page_is_shared() {
        // lld: the code segment begins in the middle of a page that also ends the segment before it.
        let card = card(vec![Segment { offset: 0x1a40, size: 0x5000, address: 0x3a40 }]);
        assert_eq!(card.bias(0x7f00_0000_2000, 0x7f00_0000_8000, 0x1000), Some(0x7f00_0000_2000 - 0x3000));
        assert_eq!(card.bias(0x7f00_0000_2000, 0x7f00_0000_3000, 0x9000), None);
        assert_eq!(card.build_id, "ab01");
    }

    #[test]
    fn a_function_without_a_name_is_called_after_its_file_and_start() {
        let card = card(vec![]);
        let f = |start, end, name: &str| Function { start, end, name: name.into() };
        card.learn(vec![f(0x10, 0x20, "ten"), f(0x20, 0x30, ""), f(0x12, 0x14, "cold")]);
        let name = |a| card.function(a).map(|(_, n)| n.to_string());
        assert_eq!(name(0x1f).as_deref(), Some("ten"));
        assert_eq!(name(0x13).as_deref(), Some("cold"));
        assert_eq!(name(0x15).as_deref(), Some("ten"));
        assert_eq!(name(0x20).as_deref(), Some("libx.so+0x20"));
        assert_eq!(name(0x30), None);
        assert_eq!(name(0xf), None);
    }
}
