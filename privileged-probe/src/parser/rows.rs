//! `.eh_frame` to rows: the table that the BPF walker searches.
//!
//! Like boiling a cookbook down to a wall chart: the section holds little programs, one a function, that say for each address how to
//! find the caller's frame. Nearly all of them come to the same few shapes (rsp plus a number, rbp plus a number), so each
//! becomes 8 bytes. Functions are taken in the order of their addresses and cut at the next one's beginning, so rows always
//! rise; a hole between functions becomes a gap row, unless it is mere padding, where no return address can lie.
//! The weakness: rules beyond the chart become `Unsupported`; in practice 4 rows of libc.
//! Source: DWARF 5 section 6.4; LSB, "Exception Frames"; psABI x86-64 section 3.7.

use super::ROWS_PER_FILE_MAX;
use ebpf_abi::{FAR_STEP, FAR_STEPS, Kind, RBP_AT_RBP, RBP_LOST, RSP_FAR, Row};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, EhFrame, EhFrameOffset, EndianSlice,
    FrameDescriptionEntry, LittleEndian, RegisterRule, UnwindContext, UnwindSection, UnwindTableRow, X86_64,
};
use std::collections::HashMap;

pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Fde<'a> = FrameDescriptionEntry<Slice<'a>>;

/// Most functions of one file.
const FUNCTIONS_MAX: usize = 1 << 20;
/// A hole between functions up to this size is padding, bytes.
pub(crate) const PADDING_BYTES_MAX: u64 = 15;
/// Largest saved-register offset a row can say: `Row::rbp` counts 8 bytes and 254 and 255 mean something else.
const RBP_SLOTS_MAX: i64 = 253;

/// All functions, in the order of their addresses; those at address 0 were thrown away by the linker. `None`: more than
/// [`FUNCTIONS_MAX`].
pub(crate) fn functions<'a>(section: &EhFrame<Slice<'a>>, bases: &BaseAddresses) -> Option<Vec<Fde<'a>>> {
    let mut found = Vec::new();
    let mut cies: HashMap<EhFrameOffset, CommonInformationEntry<Slice<'a>>> = HashMap::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(|section, bases, offset| match cies.get(&offset) {
            Some(cie) => Ok(cie.clone()),
            None => {
                let cie = section.cie_from_offset(bases, offset)?;
                cies.insert(offset, cie.clone());
                Ok(cie)
            }
        });
        let Ok(fde) = fde else { continue };
        let end = fde.initial_address().checked_add(fde.len());
        if fde.initial_address() == 0 || fde.len() == 0 || end.is_none_or(|e| e > u64::from(u32::MAX)) {
            continue;
        }
        if found.len() == FUNCTIONS_MAX {
            return None;
        }
        found.push(fde);
    }
    found.sort_by_key(|f| (f.initial_address(), f.len()));
    Some(found)
}

/// The rows of a section; `pc` strictly rises.
///
/// `None`: more than [`ROWS_PER_FILE_MAX`] rows. Broken entries are left out: their functions become gaps.
pub(crate) fn rows(bytes: &[u8], bases: &BaseAddresses) -> Option<Vec<Row>> {
    let section = EhFrame::new(bytes, LittleEndian);
    let functions = functions(&section, bases)?;
    let mut context = UnwindContext::new();
    let mut out: Vec<Row> = Vec::new();
    for (i, fde) in functions.iter().enumerate() {
        let next = functions.get(i + 1).map_or(u64::MAX, |n| n.initial_address());
        let end = (fde.initial_address() + fde.len()).min(next);
        one_function(fde, &section, bases, &mut context, end, &mut out);
        if end < next && next - end > PADDING_BYTES_MAX {
            push(&mut out, gap(end));
        }
        if out.len() > ROWS_PER_FILE_MAX {
            return None;
        }
    }
    Some(out)
}

fn gap(pc: u64) -> Row {
    // Addresses beyond u32 were left out when functions were listed.
    Row { pc: pc as u32, cfa: 0, kind: Kind::Gap as u8, rbp: 0 }
}

/// Appends a row; one that says the same as the last is left out, one at the same address replaces it.
fn push(out: &mut Vec<Row>, row: Row) {
    if let Some(last) = out.last()
        && last.pc == row.pc
    {
        out.pop();
    }
    match out.last() {
        Some(last) if last.pc > row.pc => {}
        Some(last) if (last.cfa, last.kind, last.rbp) == (row.cfa, row.kind, row.rbp) => {}
        _ => out.push(row),
    }
}

fn one_function<'a>(
    fde: &Fde<'a>,
    section: &EhFrame<Slice<'a>>,
    bases: &BaseAddresses,
    context: &mut UnwindContext<usize>,
    end: u64,
    out: &mut Vec<Row>,
) {
    let begin = fde.initial_address();
    let signal = fde.is_signal_trampoline();
    let Ok(mut table) = fde.rows(section, bases, context) else {
        return push(out, gap(begin));
    };
    let mut at = begin;
    while let Ok(Some(unwind)) = table.next_row() {
        let pc = unwind.start_address();
        if pc < at || pc >= end || out.len() > ROWS_PER_FILE_MAX {
            break;
        }
        at = pc;
        push(out, row(pc, unwind, section, signal));
    }
}

/// One rule as a row.
pub(crate) fn row<'a>(pc: u64, unwind: &UnwindTableRow<usize>, section: &EhFrame<Slice<'a>>, signal: bool) -> Row {
    let mut row = Row { pc: pc as u32, cfa: 0, kind: Kind::Unsupported as u8, rbp: 0 };
    if signal {
        row.kind = Kind::Signal as u8;
        return row;
    }
    match unwind.register(X86_64::RA) {
        Some(RegisterRule::Undefined) => {
            row.kind = Kind::End as u8;
            return row;
        }
        // The walker reads the return address below the frame; a rule that puts it elsewhere is not for it.
        Some(RegisterRule::Offset(-8)) => {}
        _ => return row,
    }
    let Some((kind, cfa)) = cfa(unwind.cfa(), section).map(|(k, c)| (k as u8, c)).or_else(|| far(unwind.cfa())) else {
        return row;
    };
    (row.kind, row.cfa) = (kind, cfa);
    row.rbp = rbp(unwind, section);
    row
}

fn cfa<'a>(rule: &CfaRule<usize>, section: &EhFrame<Slice<'a>>) -> Option<(Kind, i16)> {
    let eighths = |offset: i64| (offset % 8 == 0).then(|| i16::try_from(offset / 8).ok()).flatten();
    match rule {
        CfaRule::RegisterAndOffset { register, offset } => match *register {
            X86_64::RSP => Some((Kind::Rsp, eighths(*offset)?)),
            X86_64::RBP => Some((Kind::Rbp, eighths(*offset)?)),
            _ => None,
        },
        CfaRule::Expression(expression) => match *expression.get(section).ok()?.0.slice() {
            // rsp + 8 + ((rip & 15) >= N ? 8 : 0): how GNU ld and lld describe linkage slots; N is 11, in other layouts less.
            [0x77, 8, 0x80, 0, 0x3f, 0x1a, literal @ 0x30..=0x3f, 0x2a, 0x33, 0x24, 0x22] => {
                Some((Kind::Plt, i16::from(literal - 0x30)))
            }
            // *(rbp + N), N one byte of SLEB128: functions that realign their stack.
            [0x76, offset @ 0..=0x7f, 0x06] => Some((Kind::RbpDeref, eighths(sleb7(offset))?)),
            // *(rsp + N) + 8, N one or two bytes: hand-written ciphers and hashes that keep the old rsp in their frame.
            [0x77, offset @ 0..=0x7f, 0x06, 0x23, 8] => Some((Kind::RspDeref, eighths(sleb7(offset))?)),
            [0x77, low @ 0x80..=0xff, high @ 0..=0x7f, 0x06, 0x23, 8] => {
                Some((Kind::RspDeref, eighths((sleb7(high) << 7) | i64::from(low & 0x7f))?))
            }
            _ => None,
        },
    }
}

/// Frames beyond 256 KiB: compilers keep whole tables on the stack.
fn far(rule: &CfaRule<usize>) -> Option<(u8, i16)> {
    let CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } = *rule else { return None };
    let eighths = (offset > 0 && offset % 8 == 0).then_some(offset / 8)?;
    let step = u8::try_from(eighths / FAR_STEP).ok().filter(|s| *s < FAR_STEPS)?;
    Some((RSP_FAR + step, i16::try_from(eighths % FAR_STEP).ok()?))
}

fn sleb7(byte: u8) -> i64 {
    i64::from((byte << 1) as i8 >> 1)
}

fn rbp<'a>(unwind: &UnwindTableRow<usize>, section: &EhFrame<Slice<'a>>) -> u8 {
    match unwind.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => 0,
        Some(RegisterRule::Offset(offset)) if offset < 0 && offset % 8 == 0 && -offset / 8 <= RBP_SLOTS_MAX => {
            (-offset / 8) as u8
        }
        Some(RegisterRule::Expression(expression)) => match expression.get(section).map(|e| e.0.slice()) {
            Ok([0x76, 0]) => RBP_AT_RBP,
            _ => RBP_LOST,
        },
        Some(_) => RBP_LOST,
    }
}
