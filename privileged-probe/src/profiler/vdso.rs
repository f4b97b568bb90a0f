//! The vdso: code that the kernel maps into every process, and that no file holds.
//!
//! Like a leaflet that lies in every mailbox: ours reads the same as everybody's, so ours is copied, once, into a file without a
//! name that a parser can read. The weakness: a 32-bit process has another one; its frames have no table.
//!
//! Why unsafe: `/proc/self/mem` is closed to a process that may not be debugged, so the bytes are read where they are.

#![allow(unsafe_code)]

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};

/// Path under which `/proc/PID/maps` shows it.
pub(super) const PATH: &[u8] = b"[vdso]";
/// Largest vdso, bytes; today's have two pages.
const BYTES_MAX: u64 = 1 << 20;

/// A copy of our vdso as a file.
pub(super) fn copy() -> io::Result<File> {
    let maps = File::open("/proc/self/maps")?;
    let mapped = super::maps::executable(io::BufReader::new(maps))?;
    let ours = mapped.iter().find(|m| m.path == PATH).ok_or_else(|| io::Error::other("no vdso is mapped"))?;
    let len = ours.end - ours.start;
    if len > BYTES_MAX {
        return Err(io::Error::other("a vdso of absurd size"));
    }
    // SAFETY: the kernel has just said that these bytes are mapped; the vdso is readable, never changes and is never unmapped
    // by us. Its two ends come from one line of the kernel.
    let bytes = unsafe { std::slice::from_raw_parts(ours.start as *const u8, len as usize) };
    let mut file = File::from(memfd_create(c"vdso", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use crate::parser::{Answer, Question, answer};

    #[test]
    fn the_vdso_is_an_elf_file_with_rows() {
        let mut bytes = Vec::new();
        let mut file = super::copy().expect("a vdso");
        std::io::Seek::rewind(&mut file).expect("rewound");
        std::io::Read::read_to_end(&mut file, &mut bytes).expect("read");
        let Answer::Layout(layout) = answer(&bytes[..], &Question::Layout) else { panic!("no layout") };
        assert!(!layout.rows.is_empty());
        assert_eq!(layout.segments.len(), 1);
    }
}
