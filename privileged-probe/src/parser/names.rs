//! Addresses to functions: symbols first, else where `.eh_frame` says a function begins.
//!
//! Like looking up house numbers in a street directory: instead of sorting the whole directory, the few numbers wanted are
//! sorted and the directory is read once; each entry asks "is one of them mine?". Among several entries for one house the one
//! that begins last wins (a cold part inside a function), then global before weak before local, then the plainer name.
//! The weakness: a stripped file has names only for what it exports (15 % of python3.11); the rest shows as `file+0xstart`.

use super::rows::{self, Slice};
use super::{ADDRESSES_MAX, Elf, Function, NAME_BYTES_MAX, SECTION_BYTES_MAX, eh_frame};
use gimli::{EhFrame, LittleEndian as Little};
use object::elf::{STB_GLOBAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::{Sym, SymbolTable};
use object::{LittleEndian, Object, ObjectSection, ReadRef};

/// All names of one answer together, bytes.
pub(crate) const NAMES_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting a mangled C++ name may have.
const DEMANGLE_DEPTH_MAX: u32 = 96;

/// What is known so far about one address.
#[derive(Clone, Debug, Default)]
struct Best {
    start: u64,
    end: u64,
    rank: u8,
    name: Vec<u8>,
}

/// The functions around `addresses`, each once, in the order of their starts. Addresses that nothing covers have none.
pub(crate) fn functions<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>, addresses: &[u64]) -> Result<Vec<Function>, String> {
    let mut wanted = addresses.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.truncate(ADDRESSES_MAX);
    let frames = frame_starts(elf);
    let mut best = vec![None; wanted.len()];
    for name in [".symtab", ".dynsym", ".strtab", ".dynstr"] {
        if elf.section_by_name(name).is_some_and(|s| s.size() > SECTION_BYTES_MAX) {
            return Err(format!("{name} is larger than {SECTION_BYTES_MAX} bytes"));
        }
    }
    look(elf.elf_symbol_table(), &wanted, &frames, &mut best);
    look(elf.elf_dynamic_symbol_table(), &wanted, &frames, &mut best);
    let mut out: Vec<Function> = Vec::new();
    let mut bytes = 0;
    for (address, best) in wanted.iter().zip(best) {
        let function = match best {
            Some(best) => Function { start: best.start, end: best.end, name: readable(&best.name) },
            None => match around(&frames, *address) {
                Some((start, end)) => Function { start, end, name: String::new() },
                None => continue,
            },
        };
        bytes += function.name.len();
        if bytes > NAMES_BYTES_MAX {
            break;
        }
        out.push(function);
    }
    out.sort_by_key(|f| (f.start, f.end));
    out.dedup();
    Ok(out)
}

/// Begin and end of every function that `.eh_frame` knows, sorted.
fn frame_starts<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>) -> Vec<(u64, u64)> {
    let Ok(Some((bytes, bases))) = eh_frame(elf) else { return Vec::new() };
    let section: EhFrame<Slice<'_>> = EhFrame::new(bytes, Little);
    let functions = rows::functions(&section, &bases).unwrap_or_default();
    functions.iter().map(|f| (f.initial_address(), f.initial_address() + f.len())).collect()
}

fn around(frames: &[(u64, u64)], address: u64) -> Option<(u64, u64)> {
    let at = frames.partition_point(|f| f.0 <= address).checked_sub(1)?;
    frames.get(at).copied().filter(|f| address < f.1)
}

fn look<'d, R: ReadRef<'d>>(
    table: &SymbolTable<'d, object::elf::FileHeader64<LittleEndian>, R>,
    wanted: &[u64],
    frames: &[(u64, u64)],
    best: &mut [Option<Best>],
) {
    for symbol in table.iter() {
        let kind = symbol.st_type();
        let start = symbol.st_value(LittleEndian);
        if start == 0 || !(kind == STT_FUNC || kind == STT_GNU_IFUNC) || symbol.is_undefined(LittleEndian) {
            continue;
        }
        // Hand-written assembly often has no size: it ends where the function around it ends.
        let end = match symbol.st_size(LittleEndian) {
            0 => around(frames, start).map_or(start + 1, |f| f.1),
            size => start.saturating_add(size),
        };
        let rank = match symbol.st_bind() {
            STB_GLOBAL => 2,
            STB_WEAK => 1,
            _ => 0,
        };
        let first = wanted.partition_point(|a| *a < start);
        let covered = wanted.iter().skip(first).take_while(|a| **a < end).count();
        if covered == 0 {
            continue;
        }
        let Ok(name) = table.symbol_name(LittleEndian, symbol) else { continue };
        if name.is_empty() {
            continue;
        }
        for slot in best.iter_mut().skip(first).take(covered) {
            if slot.as_ref().is_none_or(|old| better(start, rank, name, old)) {
                *slot = Some(Best { start, end, rank, name: name.to_vec() });
            }
        }
    }
}

fn better(start: u64, rank: u8, name: &[u8], old: &Best) -> bool {
    let underscores = |n: &[u8]| n.iter().take_while(|c| **c == b'_').count();
    let new_key = (start, rank, std::cmp::Reverse((underscores(name), name.len(), name)));
    let old_key = (old.start, old.rank, std::cmp::Reverse((underscores(&old.name), old.name.len(), &old.name[..])));
    new_key > old_key
}

/// A name for people: Rust and C++ names demangled, parameters left out, never longer than [`NAME_BYTES_MAX`].
fn readable(raw: &[u8]) -> String {
    let raw = raw.get(..raw.len().min(NAME_BYTES_MAX)).unwrap_or_default();
    let text = String::from_utf8_lossy(raw);
    let long = demangled(&text).unwrap_or_else(|| text.into_owned());
    long[..long.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

fn demangled(name: &str) -> Option<String> {
    use std::fmt::Write;
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // The alternate form leaves the hash out.
        let mut out = Cut(String::new());
        let _ = write!(out, "{rust:#}");
        return Some(out.0);
    }
    if !name.starts_with("_Z") {
        return None;
    }
    let parse = cpp_demangle::ParseOptions::default().recursion_limit(DEMANGLE_DEPTH_MAX);
    let symbol = cpp_demangle::Symbol::new_with_options(name, &parse).ok()?;
    let show = cpp_demangle::DemangleOptions::new().no_params().no_return_type().recursion_limit(DEMANGLE_DEPTH_MAX);
    let mut out = Cut(String::new());
    match symbol.structured_demangle(&mut out, &show) {
        Ok(()) => Some(out.0),
        // Cut on purpose, or too deep: the raw name is at least true.
        Err(_) => None,
    }
}

/// Takes text up to [`NAME_BYTES_MAX`] and then refuses: a short mangled name may stand for gigabytes.
struct Cut(String);

impl std::fmt::Write for Cut {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let room = NAME_BYTES_MAX - self.0.len().min(NAME_BYTES_MAX);
        self.0.push_str(&s[..s.floor_char_boundary(room)]);
        if s.len() > room { Err(std::fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_never_longer_than_their_limit() {
        assert_eq!(readable(b"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"), "core::fmt::Write::write_fmt");
        assert_eq!(
            readable(b"_ZNSt6vectorIiSaIiEE9push_backERKi"),
            "std::vector<int, std::allocator<int> >::push_back"
        );
        assert_eq!(readable(b"main"), "main");
        assert_eq!(readable(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert!(readable(&vec![b'a'; 100_000]).len() <= NAME_BYTES_MAX);
        // Substitutions double the length each time.
        let mut bomb = String::from("_Z1fI");
        for _ in 0..200 {
            bomb.push_str("St4pairIS_S_E");
        }
        bomb.push('E');
        assert!(readable(bomb.as_bytes()).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn the_innermost_then_the_global_then_the_plainer_symbol_wins() {
        let old = Best { start: 10, end: 30, rank: 2, name: b"__libc_write".to_vec() };
        assert!(better(11, 0, b"x", &old));
        assert!(!better(10, 1, b"write", &old));
        assert!(better(10, 2, b"write", &old));
        assert!(!better(10, 2, b"__libc_write", &old));
    }
}
