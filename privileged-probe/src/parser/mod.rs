//! What a parser process does with one executable: unwind rows, or names for addresses.
//!
//! Like a translator behind glass: a document is held up, the translation is written down, and whoever reads it checks that it
//! has the right form; the translator never learns who asked. This runs in a process of its own without a single right
//! ([`crate::nursery`]) and may die on a hostile file; [`wire`] is all that comes back, and it is checked by the reader.
//! Algorithm: ELF by `object`, `.eh_frame` by `gimli` ([`rows`]), names from `.symtab` and `.dynsym`, else the start of the
//! function from `.eh_frame` ([`names`]). Files are read with `pread` and never mapped: whoever owns a file may cut it short at any
//! moment. The weakness: no DWARF line tables, no separate debug files yet.

pub(crate) mod names;
pub(crate) mod rows;
pub mod wire;

use gimli::BaseAddresses;
use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection, ReadRef};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
pub use wire::{Answer, Function, Layout, Segment};

/// Largest executable that is looked at, bytes. Only the parts needed are read.
pub const FILE_BYTES_MAX: u64 = 16 << 30;
/// Largest section that is read, bytes.
const SECTION_BYTES_MAX: u64 = 256 << 20;
/// Most rows of one file, three eighths of the table: the largest file met, a compiler's LLVM, has 1.23 million.
pub const ROWS_PER_FILE_MAX: usize = 3 << 19;
/// Most executable segments of one file.
pub const SEGMENTS_MAX: usize = 64;
/// Most addresses in one question.
pub const ADDRESSES_MAX: usize = 4096;
/// Longest name that comes back, bytes.
pub const NAME_BYTES_MAX: usize = 4096;

/// What is asked about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Segments, build id and unwind rows.
    Layout,
    /// The functions around these ELF virtual addresses; sorted, at most [`ADDRESSES_MAX`].
    Names(Vec<u64>),
}

/// Answers from bytes. Whatever they are, this returns or the process ends; it never reads outside them.
pub fn answer<'d, R: ReadRef<'d>>(data: R, question: &Question) -> Answer {
    let got = parse(data).and_then(|elf| match question {
        Question::Layout => layout(&elf).map(Answer::Layout),
        Question::Names(addresses) => names::functions(&elf, addresses).map(Answer::Names),
    });
    got.unwrap_or_else(Answer::Nothing)
}

type Elf<'d, R> = ElfFile64<'d, LittleEndian, R>;

fn parse<'d, R: ReadRef<'d>>(data: R) -> Result<Elf<'d, R>, String> {
    let elf = Elf::parse(data).map_err(|e| format!("no 64-bit little-endian ELF file: {e}"))?;
    if elf.elf_header().e_machine.get(LittleEndian) != elf::EM_X86_64 {
        return Err("made for another processor than x86-64".into());
    }
    Ok(elf)
}

fn layout<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>) -> Result<Layout, String> {
    let mut segments = Vec::new();
    for header in elf.elf_program_headers() {
        // Neighbouring segments may share a page, so only the one that is executed will do (lld lays them out that way).
        if header.p_type(LittleEndian) == elf::PT_LOAD && header.p_flags(LittleEndian).0 & elf::PF_X.0 != 0 {
            segments.push(Segment {
                offset: header.p_offset(LittleEndian),
                size: header.p_filesz(LittleEndian),
                address: header.p_vaddr(LittleEndian),
            });
        }
    }
    if segments.len() > SEGMENTS_MAX {
        return Err(format!("{} executable segments; at most {SEGMENTS_MAX} are looked at", segments.len()));
    }
    if segments.iter().any(|s| s.address.checked_add(s.size).is_none_or(|end| end > u64::from(u32::MAX))) {
        return Err("code beyond the first 4 GiB of addresses".into());
    }
    let build_id = elf.build_id().ok().flatten().unwrap_or_default();
    let build_id = build_id.get(..build_id.len().min(wire::BUILD_ID_BYTES_MAX)).unwrap_or_default().to_vec();
    let rows = match eh_frame(elf)? {
        Some((bytes, bases)) => rows::rows(bytes, &bases),
        None => Some(Vec::new()),
    };
    Ok(Layout { segments, build_id, too_many_rows: rows.is_none(), rows: rows.unwrap_or_default() })
}

/// The unwind section and where it and its neighbours lie; `None` if there is none.
fn eh_frame<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>) -> Result<Option<(&'d [u8], BaseAddresses)>, String> {
    let Some(section) = elf.section_by_name(".eh_frame") else { return Ok(None) };
    if section.size() > SECTION_BYTES_MAX {
        return Err(format!(".eh_frame of {} bytes; at most {SECTION_BYTES_MAX} are read", section.size()));
    }
    let bytes = section.data().map_err(|e| format!(".eh_frame cannot be read: {e}"))?;
    let mut bases = BaseAddresses::default().set_eh_frame(section.address());
    if let Some(text) = elf.section_by_name(".text") {
        bases = bases.set_text(text.address());
    }
    if let Some(got) = elf.section_by_name(".got") {
        bases = bases.set_got(got.address());
    }
    Ok(Some((bytes, bases)))
}

/// A file read by `pread`, so that the descriptor's own position, which others may share, does not matter.
#[derive(Debug)]
pub(crate) struct Pread {
    file: File,
    at: u64,
    len: u64,
}

impl Pread {
    /// Fails on what is no regular file or is too large.
    pub(crate) fn new(file: File) -> io::Result<Pread> {
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("no regular file of a bearable size"));
        }
        Ok(Pread { file, at: 0, len: meta.len() })
    }
}

impl Read for Pread {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Pread {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests;
