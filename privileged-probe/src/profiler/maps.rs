//! `/proc/PID/maps`: where a process has code.
//!
//! Like a house plan of which only the workshops are copied: lines with the execute flag. The kernel writes the file, but the paths in it
//! are the process's choice, so each field may be odd: a line that does not read as a mapping is passed over, line and file are
//! limited. The weakness: a snapshot; a process that maps more later is looked at again when a walk ends with `NoMapping`.

use std::io::{self, BufRead, Read};

/// Longest line that is looked at, bytes; a path has at most 4096, and newlines in it take four.
const LINE_BYTES_MAX: u64 = 32 * 1024;
/// Most lines that are looked at.
const LINES_MAX: usize = 100_000;
/// User addresses end here; the kernel's vsyscall page lies beyond.
const USER_END: u64 = 1 << 47;

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// First address.
    pub(super) start: u64,
    /// First address after it.
    pub(super) end: u64,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Inode as the kernel shows it here; 0: no file.
    pub(super) inode: u64,
    /// Device, major and minor.
    pub(super) device: (u32, u32),
    /// Path as the process sees it, `[vdso]`, or empty.
    pub(super) path: Vec<u8>,
    /// The path is gone or names another file now.
    pub(super) deleted: bool,
}

/// Executable mappings, in the order of their addresses.
pub(super) fn executable(mut text: impl BufRead) -> io::Result<Vec<Mapped>> {
    let mut out = Vec::new();
    let mut line = Vec::new();
    for _ in 0..LINES_MAX {
        line.clear();
        if (&mut text).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if let Some(mapped) = parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
            join(&mut out, mapped);
        }
    }
    Ok(out)
}

/// A run of memory without a file (code made at run time) counts as one, however finely it was mapped.
fn join(out: &mut Vec<Mapped>, new: Mapped) {
    match out.last_mut() {
        Some(last) if last.path.is_empty() && new.path.is_empty() && last.end == new.start => last.end = new.end,
        _ => out.push(new),
    }
}

fn parse(line: &[u8]) -> Option<Mapped> {
    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
        let (now, later) = rest.split_at(end);
        rest = later.strip_prefix(b" ").unwrap_or(later);
        std::str::from_utf8(now).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let flags = field()?;
    let offset = u64::from_str_radix(field()?, 16).ok()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    if !flags.contains('x') || start >= end || end > USER_END {
        return None;
    }
    let path = rest.trim_ascii_start();
    let (path, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some(Mapped { start, end, offset, inode, device, path: unescape(path), deleted })
}

/// The kernel writes a newline in a path as `\012`, and nothing else so.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, later)) = rest.split_first() {
        rest = match rest.strip_prefix(b"\\012") {
            Some(behind) => {
                out.push(b'\n');
                behind
            }
            None => {
                out.push(*first);
                later
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_lines_count_and_odd_paths_are_whole() {
        let text = b"55d0-55e0 r--p 00000000 08:01 7   /usr/bin/a\n\
            1000-2000 r-xp 00003000 fd:1a 99                         /opt/my app\\012x (deleted)\n\
            7f00-7f10 r-xp 00000000 00:00 0 \n\
            7f10-7f20 rwxp 00000000 00:00 0 \n\
            8000-9000 r-xp 00000000 00:00 0                          [vdso]\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n\
            rubbish\n\xff\xfe-1 r-xp\n9-8 r-xp 0 0:0 0\n";
        let got = executable(&text[..]).expect("read");
        assert_eq!(got.len(), 3, "{got:?}");
        assert_eq!(
            got[0],
            Mapped {
                start: 0x1000,
                end: 0x2000,
                offset: 0x3000,
                inode: 99,
                device: (0xfd, 0x1a),
                path: b"/opt/my app\nx".to_vec(),
                deleted: true
            }
        );
        assert_eq!((got[1].start, got[1].end, got[1].path.is_empty()), (0x7f00, 0x7f20, true));
        assert_eq!(got[2].path, b"[vdso]");
    }

    #[test]
    fn this_process_has_code_in_its_own_file() {
        let file = std::fs::File::open("/proc/self/maps").expect("maps");
        let got = executable(std::io::BufReader::new(file)).expect("read");
        let exe = std::fs::read_link("/proc/self/exe").expect("exe");
        assert!(got.iter().any(|m| m.path == exe.as_os_str().as_encoded_bytes()));
        assert!(got.is_sorted_by(|a, b| a.end <= b.start));
    }
}
