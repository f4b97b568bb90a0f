//! How complete are stacks on this machine? Samples everything for a while and prints a table by program.
//!
//! `cargo run -p privileged-probe --example completeness -- --seconds 120 [--hz 97] [--no-tables] [--keep-caps]`; as root.
//! Like the real probe it loads first, gives up every capability but SYS_PTRACE, and only then looks at anybody. Windows of a
//! second are decoded as the gateway would; the first is shown apart, because a process's first samples precede its table.

use clap::Parser;
use ipc::stacks::{End, Kind, Table};
use nix::poll::PollTimeout;
use probe::nursery::Nursery;
use probe::outbox::Outbox;
use probe::profiler::{Options, Profiler};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Args {
    /// How long to sample.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Samples a second and CPU.
    #[arg(long, default_value_t = 97)]
    hz: u32,
    /// Follow frame pointers only.
    #[arg(long)]
    no_tables: bool,
    /// Keep all capabilities.
    #[arg(long)]
    keep_caps: bool,
    /// Show the commonest stack of programs with this name, and where the others break off.
    #[arg(long)]
    show: Option<String>,
}

#[derive(Default)]
struct Row {
    samples: u64,
    complete: u64,
    frames: u64,
    named: u64,
    ends: BTreeMap<&'static str, u64>,
    stacks: BTreeMap<Vec<String>, u64>,
    /// Where incomplete stacks break off: reason and outermost function.
    cut: BTreeMap<(&'static str, String), u64>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let nursery = match Nursery::start() {
        Ok(nursery) => Arc::new(nursery),
        Err(e) => return fail(&format!("nursery: {e}")),
    };
    let options = Options { hz: args.hz, tables: !args.no_tables, window: Duration::from_secs(1) };
    let profiler = match Profiler::load(&options, nursery) {
        Ok(profiler) => profiler,
        Err(off) => return fail(&format!("{} is off: {off}", off.feature)),
    };
    for f in profiler.features() {
        println!("{}: {}", f.name, if f.on { "on" } else { &f.reason });
    }
    if !args.keep_caps
        && let Err(e) = only_ptrace()
    {
        return fail(&e);
    }
    let Ok(outbox) = Outbox::new() else { return fail("no outbox") };
    let threads: Vec<_> = profiler
        .jobs()
        .into_iter()
        .map(|(_, job)| {
            let outbox = outbox.clone();
            std::thread::spawn(move || job(&outbox))
        })
        .collect();
    let begun = Instant::now();
    let mut rows: BTreeMap<(String, bool), Row> = BTreeMap::new();
    let mut first: Option<u64> = None;
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        let _ = nix::poll::poll(&mut [], PollTimeout::from(200u16));
        for (stacks, bulk) in outbox.take_stacks() {
            let Ok(table) = Table::decode(&bulk) else { return fail("a table that does not decode") };
            let first = *first.get_or_insert(stacks.to_ns) == stacks.to_ns;
            add(&mut rows, &stacks, &table, first);
        }
    }
    outbox.stop();
    threads.into_iter().for_each(|t| drop(t.join()));
    print(&rows, args.show.as_deref());
    let status = outbox.snapshot();
    let seconds = begun.elapsed().as_secs_f64();
    for c in &status.cpus {
        println!("cpu {}: {} samples, {:.1} a second", c.cpu, c.samples, c.samples as f64 / seconds);
    }
    let list = |counts: &[ipc::Count]| {
        counts.iter().filter(|c| c.value > 0).map(|c| format!("{} {}", c.name, c.value)).collect::<Vec<_>>().join(", ")
    };
    println!("lost: {}", if list(&status.lost).is_empty() { "0".into() } else { list(&status.lost) });
    println!("ends: {}", list(&status.ends));
    println!("not looked at: {}", list(&status.files_refused));
    println!(
        "rows {} of {}, processes {}, parsers {} run, {} failed, {} killed",
        status.rows_used,
        status.rows_max,
        status.processes,
        status.nursery.parsers_run,
        status.nursery.failed,
        status.nursery.killed
    );
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    eprintln!("completeness: {why}");
    ExitCode::FAILURE
}

fn only_ptrace() -> Result<(), String> {
    use caps::{CapSet, Capability};
    let keep = [Capability::CAP_SYS_PTRACE].into_iter().collect();
    caps::clear(None, CapSet::Ambient).map_err(|e| e.to_string())?;
    caps::set(None, CapSet::Effective, &keep).map_err(|e| e.to_string())?;
    caps::set(None, CapSet::Permitted, &keep).map_err(|e| e.to_string())
}

fn add(rows: &mut BTreeMap<(String, bool), Row>, stacks: &ipc::Stacks, table: &Table, first: bool) {
    let text = |n: u32| table.strings.get(n as usize).map_or("", String::as_str);
    for stack in &table.stacks {
        if stack.end == End::KernelOnly {
            continue;
        }
        let comm = stacks.processes.get(stack.process as usize).map_or("", |p| p.comm.as_str());
        let row = rows.entry((comm.to_owned(), first)).or_default();
        let n = u64::from(stack.count);
        row.samples += n;
        row.complete += if stack.end == End::Complete { n } else { 0 };
        *row.ends.entry(stack.end.name()).or_default() += n;
        let places: Vec<_> = stack.locations.iter().filter_map(|l| table.locations.get(*l as usize)).collect();
        for place in places.iter().filter(|p| p.kind == Kind::User) {
            row.frames += n;
            row.named +=
                if text(place.function).contains("+0x") || text(place.function).starts_with('[') { 0 } else { n };
        }
        if stack.end != End::Complete {
            let outermost = places.iter().rev().find(|p| p.kind == Kind::User).map_or("", |p| text(p.function));
            *row.cut.entry((stack.end.name(), outermost.to_owned())).or_default() += n;
        }
        *row.stacks.entry(places.iter().map(|p| text(p.function).to_owned()).collect()).or_default() += n;
    }
}

fn print(rows: &BTreeMap<(String, bool), Row>, show: Option<&str>) {
    println!(
        "{:16} {:>6} {:>8} {:>10} {:>8} {:>8}  ends",
        "program", "window", "samples", "complete %", "frames", "named %"
    );
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|(_, r)| std::cmp::Reverse(r.samples));
    for ((comm, first), row) in sorted.into_iter().take(40) {
        let per = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        println!(
            "{comm:16} {:>6} {:>8} {:>10.2} {:>8.1} {:>8.1}  {:?}",
            if *first { "first" } else { "later" },
            row.samples,
            100.0 * per(row.complete, row.samples),
            per(row.frames, row.samples),
            100.0 * per(row.named, row.frames),
            row.ends
        );
        if show.is_some_and(|s| s == comm)
            && let Some((stack, n)) = row.stacks.iter().max_by_key(|(_, n)| **n)
        {
            println!("    x{n}: {}", stack.join(" < "));
            let mut cut: Vec<_> = row.cut.iter().collect();
            cut.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
            cut.iter().take(8).for_each(|((end, at), n)| println!("    x{n} broke off ({end}) in {at}"));
        }
    }
}
