//! Files that mean harm, through parsers that are really forked, limited and locked in.

use crate::Test;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use probe::nursery::{Loss, Nursery, PARSER_SECONDS};
use probe::parser::{Answer, Question};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Mutations that go through a real process; ten thousand go through the same code in the unit tests.
const MUTATIONS: usize = 300;

pub(crate) fn tests<'a>(nursery: &'a Nursery, doomed: Nursery) -> Vec<Test<'a>> {
    vec![
        ("a_system_library_comes_back_with_rows_and_names", Box::new(|| honest(nursery))),
        ("mutated_executables_never_end_the_nursery", Box::new(|| mutated(nursery))),
        ("a_file_without_end_and_a_file_that_is_cut_are_answered_in_time", Box::new(|| absurd(nursery))),
        ("a_file_that_would_take_for_ever_is_given_up_after_its_seconds", Box::new(|| endless(nursery))),
        ("a_parser_and_its_nursery_hold_no_right_and_no_file_of_ours", Box::new(|| bare(nursery))),
        ("what_is_no_regular_file_is_not_read", Box::new(|| irregular(nursery))),
        ("a_dead_nursery_is_noticed_and_answers_nothing", Box::new(move || death(doomed))),
    ]
}

fn layout(nursery: &Nursery, file: &File) -> Result<Answer, Loss> {
    nursery.ask(&[(file, Question::Layout)]).remove(0)
}

fn temp(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

fn victim() -> Vec<u8> {
    std::fs::read("/usr/bin/true").or_else(|_| std::fs::read("/bin/true")).expect("true")
}

fn honest(nursery: &Nursery) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let libc = maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so")).expect("libc");
    let file = File::open(libc).expect("libc");
    let Ok(Answer::Layout(layout)) = layout(nursery, &file) else { panic!("no layout of libc") };
    assert!(layout.rows.len() > 10_000, "{} rows", layout.rows.len());
    let middle = u64::from(layout.rows[layout.rows.len() / 2].pc);
    let Ok(Answer::Names(names)) = nursery.ask(&[(&file, Question::Names(vec![middle]))]).remove(0) else {
        panic!("no names")
    };
    assert!(names.iter().all(|f| f.start <= middle && middle < f.end));
}

fn mutated(nursery: &Nursery) {
    let original = victim();
    let mut state = 0x0123_4567_89ab_cdefu64;
    let mut chance = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let files: Vec<File> = (0..MUTATIONS)
        .map(|_| {
            let mut bytes = original.clone();
            for _ in 0..=chance(12) {
                let place = if chance(2) == 0 { chance(512) } else { chance(bytes.len()) };
                bytes[place] = chance(256) as u8;
            }
            if chance(10) == 0 {
                bytes.truncate(chance(bytes.len()));
            }
            temp(&bytes)
        })
        .collect();
    let before = nursery.counts();
    let jobs: Vec<(&File, Question)> = files.iter().map(|f| (f, Question::Layout)).collect();
    let answers = nursery.ask(&jobs);
    let after = nursery.counts();
    assert!(after.alive, "the nursery must outlive every file");
    assert_eq!(after.parsers_run - before.parsers_run, MUTATIONS as u64);
    let lost = answers.iter().filter(|a| a.is_err()).count() as u64;
    assert_eq!((after.failed - before.failed) + (after.killed - before.killed), lost, "each loss is counted");
    assert!(lost > 0 && lost < MUTATIONS as u64, "{lost} of {MUTATIONS} lost: the mutations test nothing");
    assert!(layout(nursery, &temp(&original)).is_ok(), "the next honest file is answered");
}

fn absurd(nursery: &Nursery) {
    let original = victim();
    let endless = temp(&original);
    endless.set_len(1 << 40).expect("a sparse terabyte");
    let cut = temp(&original[..original.len() / 3]);
    let empty = temp(b"");
    let begun = Instant::now();
    let answers = nursery.ask(&[
        (&endless, Question::Layout),
        (&cut, Question::Layout),
        (&empty, Question::Names(vec![1, 2, 3])),
    ]);
    assert!(begun.elapsed() < Duration::from_secs(u64::from(PARSER_SECONDS) + 3));
    assert!(matches!(&answers[0], Err(Loss::Nothing(why)) if why.contains("bearable")), "{:?}", answers[0]);
    assert!(answers[1].is_err(), "half an ELF file has no section table");
    assert!(matches!(&answers[2], Err(Loss::Nothing(_))));
}

/// A small file whose unwind section stands for hours of work: each of very many functions runs one very long preamble.
fn endless(nursery: &Nursery) {
    const FUNCTIONS: u32 = 60_000;
    const PREAMBLE: usize = 200_000;
    let mut frames = Vec::new();
    let mut cie = vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];
    // remember, restore, remember, restore: each is work, none is a row.
    (0..PREAMBLE).for_each(|_| cie.extend_from_slice(&[0x0a, 0x0b]));
    while cie.len() % 4 != 0 {
        cie.push(0);
    }
    frames.extend_from_slice(&(cie.len() as u32).to_le_bytes());
    frames.extend_from_slice(&cie);
    for n in 0..FUNCTIONS {
        let back = frames.len() as u32 + 4;
        frames.extend_from_slice(&20u32.to_le_bytes());
        frames.extend_from_slice(&back.to_le_bytes());
        frames.extend_from_slice(&(u64::from(n) * 16 + 0x1000).to_le_bytes());
        frames.extend_from_slice(&16u64.to_le_bytes());
    }
    frames.extend_from_slice(&[0; 4]);
    let file = temp(&elf_with(&frames));
    let before = nursery.counts().killed;
    let begun = Instant::now();
    assert_eq!(layout(nursery, &file), Err(Loss::Died));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(500), "{took:?}: it was refused, not ended");
    assert!(took < Duration::from_secs(u64::from(PARSER_SECONDS) + 3), "{took:?}");
    assert_eq!(parsers_at_work(), 0, "it was ended, not left alone");
    assert_eq!(nursery.counts().killed, before + 1);
    assert!(nursery.alive());
}

/// The least ELF file with an `.eh_frame`: header, section names, section, three section headers.
fn elf_with(frames: &[u8]) -> Vec<u8> {
    let names = b"\0.eh_frame\0.shstrtab\0";
    let frames_at = 64 + names.len().next_multiple_of(8);
    let table_at = (frames_at + frames.len()).next_multiple_of(8);
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend_from_slice(&[3, 0, 62, 0, 1, 0, 0, 0]);
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&(table_at as u64).to_le_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    out.extend_from_slice(names);
    out.resize(frames_at, 0);
    out.extend_from_slice(frames);
    out.resize(table_at + 64, 0);
    for (name, kind, at, len) in [(1u32, 1u32, frames_at, frames.len()), (11, 3, 64, names.len())] {
        out.extend_from_slice(&name.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        for word in [0u64, 0, at as u64, len as u64, 0, 1, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    out
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let ppid = |text: &str| text.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok();
    std::fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| stat(*pid).and_then(|t| ppid(&t)) == Some(parent))
        .collect()
}

fn nurseries() -> Vec<u32> {
    let named = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "nursery");
    children(std::process::id()).into_iter().filter(named).collect()
}

/// Parsers that are not dead.
fn parsers_at_work() -> usize {
    let works = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(parser)") && !stat.contains("(parser) Z")
    };
    nurseries().into_iter().flat_map(children).filter(works).count()
}

fn bare(nursery: &Nursery) {
    assert!(nursery.alive());
    let found = nurseries();
    assert!(!found.is_empty());
    for pid in found {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("?").trim().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map(|d| d.count());
        // Where we may not look, the kernel has closed it to us as well.
        assert!(fds.is_err() || fds.is_ok_and(|n| n == 2), "stderr and the socket");
    }
}

fn irregular(nursery: &Nursery) {
    let folder = tempfile::tempdir().expect("a folder");
    for file in [File::open("/dev/zero").expect("zero"), File::open(folder.path()).expect("folder")] {
        assert!(matches!(layout(nursery, &file), Err(Loss::Nothing(_))));
    }
    let writable = temp(&victim());
    assert!(layout(nursery, &writable).is_ok());
    let mut first = [0; 4];
    writable.read_exact_at(&mut first, 0).expect("read");
    assert_eq!(&first, b"\x7fELF", "a parser has no call to write to a file with");
}

fn death(doomed: Nursery) {
    assert!(doomed.alive());
    // The second that was started is the younger one.
    let pid = nurseries().into_iter().max().expect("a nursery");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("killed");
    let mut fds = [PollFd::new(doomed.gone_fd(), PollFlags::empty())];
    let woken = poll(&mut fds, PollTimeout::from(10_000u16)).expect("poll");
    assert_eq!(woken, 1, "the descriptor hangs up when the nursery is gone");
    assert!(!doomed.alive());
    let file = temp(&victim());
    assert_eq!(layout(&doomed, &file), Err(Loss::Gone));
    assert!(!doomed.counts().alive);
}
