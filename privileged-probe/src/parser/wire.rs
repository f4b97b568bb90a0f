//! What a parser writes and the probe reads back: lengths before contents, everything checked.
//!
//! Like a customs form filled in by a stranger: each field has a limit, and a form that breaks one is thrown away whole. Little-
//! endian: magic "BKP1", kind, then by kind. The probe decides by its own limits how much it reads, checks that rows rise and
//! have a kind, that functions rise and cover something, and never trusts a claimed identity: there is none in here. The
//! weakness: a parser that was taken over can lie about its own file; lies give wrong names and wrong stacks of that file.

use super::{ADDRESSES_MAX, NAME_BYTES_MAX, ROWS_PER_FILE_MAX, SEGMENTS_MAX};
use ebpf_abi::Row;
use thiserror::Error;

const MAGIC: [u8; 4] = *b"BKP1";
/// Longest build id that is kept, bytes; GNU's have 20.
pub(crate) const BUILD_ID_BYTES_MAX: usize = 64;
/// Longest reason in an answer without content, bytes.
const REASON_BYTES_MAX: usize = 512;
/// Largest answer, bytes: a full table of rows, or all names.
pub const ANSWER_BYTES_MAX: usize = ROWS_PER_FILE_MAX * Row::BYTES + 64 * 1024;

/// An executable part of a file, as its program header says. Bytes and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes in the file.
    pub size: u64,
    /// Its ELF virtual address.
    pub address: u64,
}

/// How a file is laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Executable segments.
    pub segments: Vec<Segment>,
    /// Build id, raw.
    pub build_id: Vec<u8>,
    /// Unwind rows, rising.
    pub rows: Vec<Row>,
    /// There are more than [`ROWS_PER_FILE_MAX`] of them, and `rows` is empty.
    pub too_many_rows: bool,
}

/// One function; the name is empty where only `.eh_frame` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// First ELF virtual address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Readable name.
    pub name: String,
}

/// What a parser found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`super::Question::Layout`].
    Layout(Layout),
    /// To [`super::Question::Names`].
    Names(Vec<Function>),
    /// The file gives no answer; why.
    Nothing(String),
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It ends too early: the parser died or was ended.
    #[error("a parser's answer ends within its {0}")]
    Short(&'static str),
    /// It breaks a rule.
    #[error("a parser's answer is not valid: {0}")]
    Rule(&'static str),
}

impl Answer {
    /// The bytes that go over the pipe.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        let count = |out: &mut Vec<u8>, n: usize| out.extend_from_slice(&(n as u32).to_le_bytes());
        match self {
            Answer::Nothing(why) => {
                out.push(0);
                let why = &why[..why.floor_char_boundary(REASON_BYTES_MAX)];
                count(&mut out, why.len());
                out.extend_from_slice(why.as_bytes());
            }
            Answer::Layout(layout) => {
                out.push(1);
                count(&mut out, layout.segments.len());
                for s in &layout.segments {
                    for word in [s.offset, s.size, s.address] {
                        out.extend_from_slice(&word.to_le_bytes());
                    }
                }
                count(&mut out, layout.build_id.len());
                out.extend_from_slice(&layout.build_id);
                out.push(u8::from(layout.too_many_rows));
                count(&mut out, layout.rows.len());
                for row in &layout.rows {
                    out.extend_from_slice(&row.to_bytes());
                }
            }
            Answer::Names(functions) => {
                out.push(2);
                count(&mut out, functions.len());
                for f in functions {
                    out.extend_from_slice(&f.start.to_le_bytes());
                    out.extend_from_slice(&f.end.to_le_bytes());
                    count(&mut out, f.name.len());
                    out.extend_from_slice(f.name.as_bytes());
                }
            }
        }
        out
    }

    /// Reads and checks an answer.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Malformed> {
        let mut r = Reader { rest: bytes };
        if r.take::<4>("magic")? != MAGIC {
            return Err(Malformed::Rule("it does not begin with BKP1"));
        }
        let [kind] = r.take::<1>("kind")?;
        let answer = match kind {
            0 => Answer::Nothing(r.text("reason", REASON_BYTES_MAX)?),
            1 => Answer::Layout(layout(&mut r)?),
            2 => Answer::Names(functions(&mut r)?),
            _ => return Err(Malformed::Rule("unknown kind")),
        };
        if !r.rest.is_empty() {
            return Err(Malformed::Rule("bytes behind the end"));
        }
        Ok(answer)
    }
}

fn layout(r: &mut Reader<'_>) -> Result<Layout, Malformed> {
    let count = r.count("segments", SEGMENTS_MAX)?;
    let mut segments = Vec::with_capacity(count);
    for _ in 0..count {
        segments.push(Segment { offset: r.u64("segments")?, size: r.u64("segments")?, address: r.u64("segments")? });
    }
    let count = r.count("build id", BUILD_ID_BYTES_MAX)?;
    let build_id = r.bytes("build id", count)?.to_vec();
    let [too_many] = r.take::<1>("rows")?;
    let count = r.count("rows", ROWS_PER_FILE_MAX)?;
    let raw = r.bytes("rows", count * Row::BYTES)?;
    let rows: Vec<Row> = raw.as_chunks::<{ Row::BYTES }>().0.iter().map(|b| Row::from_bytes(*b)).collect();
    if rows.iter().any(|row| !row.kind_is_known()) {
        return Err(Malformed::Rule("a row of unknown kind"));
    }
    if !rows.is_sorted_by(|a, b| a.pc < b.pc) {
        return Err(Malformed::Rule("rows that do not rise"));
    }
    Ok(Layout { segments, build_id, rows, too_many_rows: too_many != 0 })
}

fn functions(r: &mut Reader<'_>) -> Result<Vec<Function>, Malformed> {
    let count = r.count("functions", ADDRESSES_MAX)?;
    let mut out: Vec<Function> = Vec::new();
    for _ in 0..count {
        let (start, end) = (r.u64("functions")?, r.u64("functions")?);
        let name = r.text("name", NAME_BYTES_MAX)?;
        if end <= start || out.last().is_some_and(|last| last.start > start) {
            return Err(Malformed::Rule("functions that do not rise"));
        }
        out.push(Function { start, end, name });
    }
    Ok(out)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], Malformed> {
        let (now, later) = self.rest.split_at_checked(count).ok_or(Malformed::Short(what))?;
        self.rest = later;
        Ok(now)
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (now, later) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short(what))?;
        self.rest = later;
        Ok(*now)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.take::<8>(what).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Malformed> {
        let count = u32::from_le_bytes(self.take::<4>(what)?) as usize;
        if count > max { Err(Malformed::Rule("more than its limit")) } else { Ok(count) }
    }

    fn text(&mut self, what: &'static str, max: usize) -> Result<String, Malformed> {
        let count = self.count(what, max)?;
        let bytes = self.bytes(what, count)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Rule("text that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf_abi::Kind;
    use proptest::prelude::*;

    fn sample() -> Vec<Answer> {
        let row = |pc| Row { pc, cfa: 1, kind: Kind::Rsp as u8, rbp: 0 };
        let layout = Layout {
            segments: vec![Segment { offset: 0x1000, size: 5, address: 0x2000 }],
            build_id: vec![1; 20],
            rows: vec![row(1), row(7)],
            too_many_rows: true,
        };
        let f = |start, name: &str| Function { start, end: start + 1, name: name.into() };
        vec![
            Answer::Nothing("no ELF".into()),
            Answer::Layout(layout),
            Answer::Names(vec![f(1, "a"), f(1, ""), f(9, "ü")]),
        ]
    }

    #[test]
    fn answers_survive_the_pipe_and_cut_ones_are_refused() {
        for answer in sample() {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes).as_ref(), Ok(&answer));
            for cut in 0..bytes.len() {
                assert!(Answer::decode(&bytes[..cut]).is_err(), "{cut} of {} bytes", bytes.len());
            }
            assert!(Answer::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn rows_out_of_order_and_of_unknown_kind_are_refused() {
        let row = |pc, kind| Row { pc, cfa: 0, kind, rbp: 0 };
        for rows in [
            vec![row(2, 1), row(1, 1)],
            vec![row(2, 1), row(2, 1)],
            vec![row(1, 9)],
            vec![row(1, 15)],
            vec![row(1, 32)],
        ] {
            let answer = Answer::Layout(Layout { rows, ..Layout::default() });
            assert!(matches!(Answer::decode(&answer.encode()), Err(Malformed::Rule(_))));
        }
        let f = |start, end| Function { start, end, name: String::new() };
        for functions in [vec![f(5, 6), f(4, 9)], vec![f(5, 5)]] {
            assert!(Answer::decode(&Answer::Names(functions).encode()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..4) {
            let _ = Answer::decode(&bytes);
            let mut framed = b"BKP1".to_vec();
            framed.push(kind);
            framed.append(&mut bytes);
            let _ = Answer::decode(&framed);
        }
    }
}
