//! Life inside: the nursery's loop, and what one parser does.
//!
//! Like a night nursery with one rule: whoever is born here holds one document and one pen. Everything that could be of use to
//! somebody hostile is given up before the first question is read; each parser then gives up what the nursery still needs
//! (new processes). Nothing here returns: both end the process.

use super::{PARSER_SECONDS, filter, sys};
use crate::parser::{self, ADDRESSES_MAX, Answer, Pread, Question};
use caps::CapSet;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};
use object::read::ReadCache;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::exit;

/// Parsers that may exist at one time; more than the probe asks at once, so that a few that hang do no harm.
pub(crate) const PARSERS_MAX: usize = 16;
/// Address space of a parser, bytes.
const PARSER_MEMORY_BYTES: u64 = 512 << 20;
/// Processor time of a parser, seconds.
const PARSER_CPU_SECONDS: u64 = 2;
/// Files other than standard error and the control socket that the nursery holds.
const STDERR: RawFd = 2;

/// The nursery's life. Ends with the probe.
pub(super) fn live(control: OwnedFd, parent: Pid) -> ! {
    if let Err(e) = give_up_everything(&control, parent) {
        let _ = writeln!(std::io::stderr(), "nursery: {e}; no parser is started");
        exit(1);
    }
    let mut alive = 0usize;
    let mut buffer = vec![0; 1 + ADDRESSES_MAX * 8];
    while let Some((len, fds)) = sys::receive(control.as_fd(), &mut buffer) {
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            alive = alive.saturating_sub(1);
        }
        let Ok([file, pipe]) = <[OwnedFd; 2]>::try_from(fds) else { continue };
        let Some(question) = buffer.get(..len).and_then(question) else { continue };
        if alive >= PARSERS_MAX {
            continue;
        }
        match sys::fork() {
            Ok(Some(_)) => alive += 1,
            Ok(None) => {
                drop(control);
                parse(File::from(file), File::from(pipe), &question)
            }
            // The pipe closes without an answer, which the probe counts.
            Err(_) => {}
        }
    }
    exit(0)
}

fn question(bytes: &[u8]) -> Option<Question> {
    match bytes.split_first()? {
        (0, []) => Some(Question::Layout),
        (1, rest) => Some(Question::Names(rest.as_chunks::<8>().0.iter().map(|a| u64::from_le_bytes(*a)).collect())),
        _ => None,
    }
}

fn give_up_everything(control: &OwnedFd, parent: Pid) -> Result<(), String> {
    fn step<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> String {
        move |e| format!("{what}: {e}")
    }
    // Same user as the probe, so that the kernel may deliver this when the probe dies; and a second line: the socket ends.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("asking to end with the probe"))?;
    if getppid() != parent {
        return Err("the probe is gone already".into());
    }
    let _ = prctl::set_name(c"nursery");
    // A Ctrl-C goes to the whole group; the nursery ends when the probe does, not before.
    let mut ignored = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| ignored.add(s));
    ignored.thread_block().map_err(step("leaving signals to the probe"))?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(step("giving up capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(step("setting no_new_privs"))?;
    prctl::set_dumpable(false).map_err(step("closing the process to debuggers"))?;
    close_all_but(control.as_raw_fd()).map_err(step("closing what was inherited"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(step("limiting core files"))?;
    filter::lock_nursery().map_err(step("locking in"))
}

fn close_all_but(keep: RawFd) -> std::io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd != keep && *fd != STDERR)
        .collect();
    for fd in open {
        // One of them is the listing itself, closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// One parser's life: limits first, then the filter, then the file.
fn parse(file: File, mut pipe: File, question: &Question) -> ! {
    let limited = prctl::set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| prctl::set_name(c"parser"))
        .and_then(|()| setrlimit(Resource::RLIMIT_AS, PARSER_MEMORY_BYTES, PARSER_MEMORY_BYTES))
        .and_then(|()| setrlimit(Resource::RLIMIT_CPU, PARSER_CPU_SECONDS, PARSER_CPU_SECONDS));
    // The alarm's default action ends the process, also in the middle of a read.
    nix::unistd::alarm::set(PARSER_SECONDS);
    if limited.is_err() || filter::lock_parser().is_err() {
        exit(1);
    }
    let answer = match Pread::new(file) {
        Ok(file) => {
            let cache = ReadCache::new(file);
            parser::answer(&cache, question)
        }
        Err(e) => Answer::Nothing(e.to_string()),
    };
    let done = pipe.write_all(&answer.encode());
    exit(i32::from(done.is_err()))
}
