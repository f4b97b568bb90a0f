//! Rows against gimli's own answer, names, segments, and files that mean harm.

use super::*;
use ebpf_abi::{Kind, RBP_AT_RBP, RBP_LOST, Row};
use gimli::{CfaRule, EhFrame, EndianSlice, Reader, RegisterRule, UnwindContext, X86_64};
use std::path::PathBuf;

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn layout_of(bytes: &[u8]) -> Layout {
    match answer(bytes, &Question::Layout) {
        Answer::Layout(layout) => layout,
        other => panic!("no layout: {other:?}"),
    }
}

/// The C library this test itself runs with.
fn libc_path() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so")).expect("libc").to_owned()
}

fn skip(name: &str, missing: &str, fix: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {missing}: {fix}");
}

fn rule_at(rows: &[Row], pc: u64) -> Option<Row> {
    rows.get(rows.partition_point(|r| u64::from(r.pc) <= pc).checked_sub(1)?).copied()
}

/// Compares every row boundary, every function's first and last byte, and the middle of each row with gimli.
fn compare_with_gimli(bytes: &[u8]) -> (usize, usize) {
    let rows = layout_of(bytes).rows;
    let elf = parse(bytes).expect("ELF");
    let (section, bases) = eh_frame(&elf).expect("readable").expect("has .eh_frame");
    let frames = EhFrame::new(section, gimli::LittleEndian);
    let functions = rows::functions(&frames, &bases).expect("functions");
    let mut context = UnwindContext::new();
    let (mut compared, mut unsupported) = (0, 0);
    for (i, fde) in functions.iter().enumerate() {
        let next = functions.get(i + 1).map_or(u64::MAX, |n| n.initial_address());
        let end = (fde.initial_address() + fde.len()).min(next);
        let signal = fde.is_signal_trampoline();
        let mut table = fde.rows(&frames, &bases, &mut context).expect("rows");
        while let Some(theirs) = table.next_row().expect("a row") {
            let last = theirs.end_address().min(end);
            for pc in theirs.start_address()..last {
                let ours = rule_at(&rows, pc).unwrap_or_else(|| panic!("no row for {pc:#x}"));
                compared += 1;
                unsupported += usize::from(ours.kind == Kind::Unsupported as u8);
                same(ours, theirs, &frames, signal, pc);
            }
        }
    }
    (compared, unsupported)
}

/// Says independently of `rows::row` what a row must mean.
fn same(
    ours: Row,
    theirs: &gimli::UnwindTableRow<usize>,
    frames: &EhFrame<EndianSlice<'_, gimli::LittleEndian>>,
    signal: bool,
    pc: u64,
) {
    let cfa = theirs.cfa();
    if let Some(step) = ours.kind.checked_sub(ebpf_abi::RSP_FAR) {
        let offset = 8 * (i64::from(step) * ebpf_abi::FAR_STEP + i64::from(ours.cfa));
        return assert_eq!(*cfa, CfaRule::RegisterAndOffset { register: X86_64::RSP, offset }, "{pc:#x}");
    }
    let kind = Kind::ALL[usize::from(ours.kind)];
    let offset = i64::from(ours.cfa) * 8;
    match kind {
        Kind::Signal => assert!(signal, "{pc:#x}"),
        Kind::End => assert_eq!(theirs.register(X86_64::RA), Some(RegisterRule::Undefined), "{pc:#x}"),
        Kind::Rsp => assert_eq!(*cfa, CfaRule::RegisterAndOffset { register: X86_64::RSP, offset }, "{pc:#x}"),
        Kind::Rbp => assert_eq!(*cfa, CfaRule::RegisterAndOffset { register: X86_64::RBP, offset }, "{pc:#x}"),
        Kind::Plt | Kind::RbpDeref | Kind::RspDeref => {
            let CfaRule::Expression(e) = cfa else { panic!("{pc:#x}: {cfa:?}") };
            let code = e.get(frames).expect("bytes").0.slice();
            let first = if kind == Kind::RbpDeref { 0x76 } else { 0x77 };
            assert_eq!(code[0], first, "{pc:#x}");
            if kind != Kind::Plt {
                let mut told = EndianSlice::new(&code[1..], gimli::LittleEndian);
                assert_eq!(told.read_sleb128().expect("a number"), offset, "{pc:#x}");
            }
        }
        Kind::Unsupported => {
            let plain = matches!(cfa, CfaRule::RegisterAndOffset { register, offset }
                if (*register == X86_64::RSP || *register == X86_64::RBP) && offset % 8 == 0 && offset.unsigned_abs() < 4 << 20);
            let ra = theirs.register(X86_64::RA) == Some(RegisterRule::Offset(-8));
            assert!(!(plain && ra), "{pc:#x}: {cfa:?} is within the table");
        }
        Kind::Gap => panic!("{pc:#x} has a rule and shows as a gap"),
    }
    if !matches!(kind, Kind::Signal | Kind::End | Kind::Unsupported) {
        match (ours.rbp, theirs.register(X86_64::RBP)) {
            (0, None | Some(RegisterRule::SameValue)) => {}
            (RBP_AT_RBP, Some(RegisterRule::Expression(_))) | (RBP_LOST, Some(_)) => {}
            (n, Some(RegisterRule::Offset(o))) => assert_eq!(i64::from(n) * 8, -o, "{pc:#x}"),
            other => panic!("{pc:#x}: rbp {other:?}"),
        }
    }
}

#[test]
fn rows_of_the_c_library_say_what_gimli_says_for_every_address() {
    let bytes = read(&libc_path());
    let (compared, unsupported) = compare_with_gimli(&bytes);
    assert!(compared > 500_000, "{compared} addresses");
    assert!(unsupported * 1000 < compared, "{unsupported} of {compared} unsupported");
}

#[test]
fn rows_of_this_very_program_say_what_gimli_says_for_every_address() {
    let (compared, _) = compare_with_gimli(&read("/proc/self/exe"));
    assert!(compared > 500_000, "{compared} addresses");
}

#[test]
fn rows_of_python_say_what_gimli_says_for_every_address() {
    let Some(path) = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|p| PathBuf::from(p).exists())
    else {
        return skip("rows of python", "no python3", "apt-get install python3");
    };
    let (compared, _) = compare_with_gimli(&read(path));
    assert!(compared > 1000, "{compared} addresses");
}

#[test]
fn rows_of_hand_written_ciphers_say_what_gimli_says_for_every_address() {
    let Some(path) = ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/lib64/libcrypto.so.3"]
        .into_iter()
        .find(|p| PathBuf::from(p).exists())
    else {
        return skip("rows of ciphers", "no libcrypto.so.3", "apt-get install libssl3");
    };
    let bytes = read(path);
    let (compared, _) = compare_with_gimli(&bytes);
    assert!(compared > 100_000, "{compared} addresses");
    let deref = layout_of(&bytes).rows.iter().filter(|r| r.kind == Kind::RspDeref as u8).count();
    assert!(deref > 20, "{deref} rows keep the old rsp in their frame");
}

#[test]
fn frames_of_half_a_megabyte_have_rows_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, out) = (folder.path().join("a.c"), folder.path().join("a"));
    let text = "void use(void *); __attribute__((noinline)) void use(void *p) { __asm__(\"\" :: \"r\"(p) : \"memory\"); }\n\
        int main(void) { char big[536632]; use(big); return big[5]; }";
    std::fs::write(&source, text).expect("written");
    let run =
        std::process::Command::new("gcc").args(["-O1", "-fomit-frame-pointer", "-o"]).arg(&out).arg(&source).status();
    if !run.is_ok_and(|s| s.success()) {
        return skip("rows of large frames", "gcc", "apt-get install gcc");
    }
    let bytes = std::fs::read(&out).expect("built");
    let far = layout_of(&bytes).rows.iter().filter(|r| r.kind >= ebpf_abi::RSP_FAR).count();
    assert!(far > 0, "no row says more than 256 KiB");
    compare_with_gimli(&bytes);
}

#[test]
fn rows_rise_and_end_where_the_outermost_function_says_so() {
    let layout = layout_of(&read("/proc/self/exe"));
    assert!(layout.rows.is_sorted_by(|a, b| a.pc < b.pc));
    assert!(layout.rows.iter().any(|r| r.kind == Kind::End as u8), "_start has no caller");
    assert!(!layout.build_id.is_empty());
    let libc = layout_of(&read(&libc_path()));
    assert!(libc.rows.iter().any(|r| r.kind == Kind::Signal as u8), "__restore_rt is a signal frame");
    assert!(libc.rows.iter().any(|r| r.kind == Kind::Plt as u8), "libc has linkage slots");
}

#[test]
fn symbols_give_names_and_stripped_code_gives_function_starts() {
    let exe = read("/proc/self/exe");
    let own = symbols_give_names_and_stripped_code_gives_function_starts as fn() as usize as u64;
    let bias = own_bias();
    let Answer::Names(found) = answer(&exe[..], &Question::Names(vec![own - bias + 1])) else { panic!("names") };
    assert_eq!(found.len(), 1);
    assert!(found[0].name.ends_with("symbols_give_names_and_stripped_code_gives_function_starts"), "{found:?}");
    assert!(found[0].start <= own - bias && own - bias < found[0].end);
    let libc = read(&libc_path());
    let rows = layout_of(&libc).rows;
    let some: Vec<u64> = rows.iter().step_by(rows.len() / 500).map(|r| u64::from(r.pc)).collect();
    let Answer::Names(found) = answer(&libc[..], &Question::Names(some)) else { panic!("names") };
    assert!(found.iter().any(|f| f.name.is_empty()), "static functions of a stripped library have no name");
    assert!(found.iter().any(|f| !f.name.is_empty()), "exported ones have");
    assert!(found.iter().all(|f| f.start < f.end));
}

/// Run-time address minus ELF address of this program.
fn own_bias() -> u64 {
    let exe = std::fs::read_link("/proc/self/exe").expect("exe");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let first = maps.lines().find(|l| l.ends_with(&*exe.to_string_lossy())).expect("mapped");
    u64::from_str_radix(first.split('-').next().expect("start"), 16).expect("hex")
}

/// Xorshift: the same mutations in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A small system binary, so that ten thousand of its mutations take seconds.
fn victim() -> Vec<u8> {
    ["/usr/bin/true", "/bin/true"].iter().find_map(|p| std::fs::read(p).ok()).expect("true")
}

#[test]
fn ten_thousand_mutations_of_a_system_binary_give_an_answer_or_none_and_never_a_panic() {
    let original = victim();
    let elf = parse(&original[..]).expect("ELF");
    // Half of the hits go to headers and unwind section, where they hurt.
    let (at, len) = elf.section_by_name(".eh_frame").and_then(|s| s.file_range()).expect("a range");
    let table = elf.elf_header().e_shoff.get(LittleEndian) as usize;
    let mut chance = Chance(0x5eed_0000_0001);
    let mut answered = 0;
    for round in 0..10_000 {
        let mut bytes = original.clone();
        for _ in 0..=chance.below(8) {
            let place = match chance.below(4) {
                0 => chance.below(1024),
                1 => at as usize + chance.below(len as usize),
                2 => (table + chance.below(2048)).min(bytes.len() - 1),
                _ => chance.below(bytes.len()),
            };
            bytes[place] = match chance.below(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[place] ^ (1 << chance.below(8)),
                _ => chance.next() as u8,
            };
        }
        if round % 10 == 0 {
            bytes.truncate(chance.below(original.len()));
        }
        let question = match round % 2 {
            0 => Question::Layout,
            _ => Question::Names((0..64).map(|_| chance.next() % 0x10000).collect()),
        };
        let answer = answer(&bytes[..], &question);
        answered += usize::from(!matches!(answer, Answer::Nothing(_)));
        let sent = answer.encode();
        assert!(sent.len() <= wire::ANSWER_BYTES_MAX);
        assert!(Answer::decode(&sent).is_ok(), "round {round}: an honest answer is refused");
    }
    assert!(answered > 2000, "the mutations are so coarse ({answered} answered) that nothing is tested");
}

#[test]
fn sections_of_absurd_size_and_place_are_refused_in_words() {
    let original = victim();
    let header = |bytes: &mut Vec<u8>, field: usize, value: u64| {
        let elf = parse(&original[..]).expect("ELF");
        let index = elf.section_by_name(".eh_frame").expect("section").index().0;
        let place = elf.elf_header().e_shoff.get(LittleEndian) as usize + index * 64 + field;
        bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
    };
    for (field, value) in [(32, u64::MAX), (32, 1 << 40), (24, u64::MAX), (24, 1 << 40), (16, u64::MAX)] {
        let mut bytes = original.clone();
        header(&mut bytes, field, value);
        match answer(&bytes[..], &Question::Layout) {
            Answer::Nothing(why) => assert!(!why.is_empty()),
            Answer::Layout(layout) => assert!(layout.rows.is_sorted_by(|a, b| a.pc < b.pc)),
            Answer::Names(_) => panic!("a layout was asked for"),
        }
    }
    for cut in [0, 1, 4, 63, 64, 100, original.len() / 2] {
        assert!(!matches!(answer(&original[..cut], &Question::Layout), Answer::Layout(l) if !l.rows.is_empty()));
    }
}

#[test]
fn only_the_executed_segment_is_reported_for_gnu_ld_and_lld_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("a.c");
    std::fs::write(&source, "int main(void){return 0;}").expect("written");
    for (linker, package) in [("bfd", "binutils"), ("lld", "lld")] {
        let out = folder.path().join(linker);
        let run = std::process::Command::new("gcc")
            .args(["-O2", &format!("-fuse-ld={linker}"), "-o"])
            .arg(&out)
            .arg(&source)
            .output();
        if !run.is_ok_and(|r| r.status.success()) {
            skip(&format!("segments of {linker}"), "gcc or the linker", &format!("apt-get install gcc {package}"));
            continue;
        }
        let bytes = std::fs::read(&out).expect("built");
        let layout = layout_of(&bytes);
        let text = parse(&bytes[..]).expect("ELF").section_by_name(".text").map(|s| s.address()).expect(".text");
        assert_eq!(layout.segments.len(), 1, "{linker}");
        let s = layout.segments[0];
        assert!((s.address..s.address + s.size).contains(&text), "{linker}: {s:?} does not hold .text at {text:#x}");
    }
}
