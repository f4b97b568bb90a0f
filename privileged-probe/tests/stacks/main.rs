//! Stacks on a real kernel, and parsers in real processes.
//!
//! A program of its own, like the probe: the nurseries are forked before any thread exists, the profilers are loaded, every
//! capability but SYS_PTRACE is given up, and only then do the programs start whose stacks must be complete: what is proven is what
//! holds after the drop. Without BPF, PERFMON or root the kernel's part is skipped and says so; the parsers' part never is.

mod kernel;
mod parsers;
mod programs;

use probe::nursery::Nursery;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

pub(crate) type Test<'a> = (&'static str, Box<dyn FnOnce() + 'a>);

/// Shown by `make test`; written past the capture of other harnesses for the same reason.
pub(crate) fn skip(name: &str, missing: &str, fix: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {missing}: {fix}");
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == programs::BUSY) {
        programs::busy()
    }
    if args.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let nursery = std::sync::Arc::new(Nursery::start().expect("a nursery"));
    let doomed = Nursery::start().expect("a second nursery");
    let seen = kernel::observe(&nursery, filter.is_empty() || filter.iter().any(|f| "kernel".contains(f.as_str())));
    let mut tests = parsers::tests(&nursery, doomed);
    match &seen {
        Ok(seen) => tests.extend(kernel::tests(seen)),
        Err((missing, fix)) => skip("stacks on this kernel", missing, fix),
    }
    tests.retain(|(name, _)| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str())));
    run(tests)
}

fn run(tests: Vec<Test<'_>>) -> ExitCode {
    println!("\nrunning {} tests", tests.len());
    let (mut passed, mut failed) = (0u32, 0u32);
    for (name, test) in tests {
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        (passed, failed) = (passed + u32::from(ok), failed + u32::from(!ok));
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    ExitCode::from(u8::from(failed > 0))
}
