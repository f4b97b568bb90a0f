//! What was seen of the programs, and what must be true of it.

use crate::Test;
use crate::programs::{self, Running, Waiting};
use caps::{CapSet, Capability};
use ipc::stacks::{End, Kind, Table};
use ipc::{Stacks, Status};
use nix::poll::PollTimeout;
use probe::nursery::Nursery;
use probe::outbox::Outbox;
use probe::profiler::{Options, Profiler};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Samples of each program that are enough to judge one percent.
const ENOUGH: u64 = 300;
/// What is waited at most, seconds; eight programs share the processors, and others may share them too.
const AT_MOST: Duration = Duration::from_secs(150);
/// The rate is measured over at least this long.
const MEASURED: Duration = Duration::from_secs(20);
const WINDOW: Duration = Duration::from_secs(1);
const HZ: u32 = 97;

/// One program after its first second.
#[derive(Default)]
pub(crate) struct Seen {
    samples: u64,
    complete: u64,
    frames: u64,
    unnamed: u64,
    user_frames: u64,
    ends: BTreeMap<&'static str, u64>,
    stacks: BTreeMap<Vec<String>, u64>,
}

pub(crate) struct Observed {
    programs: BTreeMap<String, Seen>,
    started: Vec<&'static str>,
    status: Status,
    /// Samples a second and CPU.
    rate: f64,
    /// Of the profiler without tables: samples by end.
    plain: BTreeMap<&'static str, u64>,
    kernel_named: (u64, u64),
    /// Programs of which a complete stack was seen, in whatever second.
    complete_ever: BTreeSet<String>,
}

type Missing = (String, String);

/// Loads, gives up, starts programs, and looks until there is enough of each.
pub(crate) fn observe(nursery: &Arc<Nursery>, wanted: bool) -> Result<Observed, Missing> {
    if !wanted {
        return Err(("not asked for".into(), "run without a filter".into()));
    }
    let off = |off: probe::profiler::Off| (off.reason, off.fix);
    let options = Options { hz: HZ, tables: true, window: WINDOW };
    let profiler = Profiler::load(&options, nursery.clone()).map_err(off)?;
    if let Some(f) = profiler.features().into_iter().find(|f| !f.on) {
        return Err((f.reason, "kernel 5.17 or later".into()));
    }
    let plain = Profiler::load(&Options { tables: false, ..options }, nursery.clone()).map_err(off)?;
    only_ptrace().map_err(|e| (e, "run as root".into()))?;
    let (outbox, plain_outbox) = (Outbox::new().expect("outbox"), Outbox::new().expect("outbox"));
    let mut threads = spawn(profiler, &outbox);
    let folder = tempfile::tempdir().expect("a folder");
    let mut waiting = programs::all(folder.path());
    let mut running = Vec::new();
    let mut observed = Observed {
        programs: BTreeMap::new(),
        started: Vec::new(),
        status: Status::default(),
        rate: 0.0,
        plain: BTreeMap::new(),
        kernel_named: (0, 0),
        complete_ever: BTreeSet::new(),
    };
    watch(&mut observed, &outbox, &mut waiting, &mut running);
    // Only now: it would ask for every file a second time while the programs wait for their tables.
    threads.extend(spawn(plain, &plain_outbox));
    without_tables(&mut observed, &plain_outbox);
    drop(running);
    outbox.stop();
    plain_outbox.stop();
    threads.into_iter().for_each(|t| t.join().expect("a thread that ended well"));
    observed.status = outbox.snapshot();
    report(&observed);
    Ok(observed)
}

fn only_ptrace() -> Result<(), String> {
    let keep = [Capability::CAP_SYS_PTRACE].into_iter().collect();
    caps::clear(None, CapSet::Ambient).map_err(|e| e.to_string())?;
    caps::set(None, CapSet::Effective, &keep).map_err(|e| e.to_string())?;
    caps::set(None, CapSet::Permitted, &keep).map_err(|e| e.to_string())?;
    match caps::raise(None, CapSet::Effective, Capability::CAP_BPF) {
        Err(_) => Ok(()),
        Ok(()) => Err("CAP_BPF could be raised again".into()),
    }
}

fn spawn(profiler: Profiler, outbox: &Outbox) -> Vec<std::thread::JoinHandle<()>> {
    let one = |(_, job): probe::profiler::Job| {
        let outbox = outbox.clone();
        std::thread::spawn(move || job(&outbox))
    };
    profiler.jobs().into_iter().map(one).collect()
}

fn without_tables(observed: &mut Observed, outbox: &Outbox) {
    let begun = Instant::now();
    while begun.elapsed() < AT_MOST && observed.plain.values().sum::<u64>() < ENOUGH {
        let _ = nix::poll::poll(&mut [], PollTimeout::from(20u16));
        for (_, bulk) in outbox.take_stacks() {
            for stack in Table::decode(&bulk).expect("a table").stacks {
                *observed.plain.entry(stack.end.name()).or_default() += u64::from(stack.count);
            }
        }
    }
}

fn watch(observed: &mut Observed, outbox: &Outbox, waiting: &mut Vec<Waiting>, running: &mut Vec<Running>) {
    let begun = Instant::now();
    let mut first_seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut mark: Option<(Instant, u64)> = None;
    let total = |outbox: &Outbox| outbox.snapshot().cpus.iter().map(|c| c.samples).sum::<u64>();
    let mut last = total(outbox);
    while begun.elapsed() < AT_MOST {
        let _ = nix::poll::poll(&mut [], PollTimeout::from(20u16));
        // The numbers change once a second; both ends of the measurement are taken at a change.
        let now = total(outbox);
        if now != last {
            last = now;
            let (since, then) = *mark.get_or_insert((Instant::now(), now));
            let seconds = since.elapsed().as_secs_f64();
            if since.elapsed() >= MEASURED {
                observed.rate = (now - then) as f64 / seconds / outbox.snapshot().cpus.len() as f64;
            }
        }
        for (stacks, bulk) in outbox.take_stacks() {
            let table = Table::decode(&bulk).expect("a table the gateway can read");
            add(observed, &mut first_seen, running, &stacks, &table);
        }
        // One after the other: each has its first second to itself.
        let settled = |r: &Running| observed.complete_ever.contains(r.comm);
        if running.last().is_none_or(settled) && !waiting.is_empty() {
            running.extend(waiting.remove(0).start());
            observed.started = running.iter().map(|r| r.comm).collect();
        }
        let enough = |c: &str| c == "bhshort" || observed.programs.get(c).is_some_and(|s| s.samples >= ENOUGH);
        if waiting.is_empty() && observed.rate > 0.0 && observed.started.iter().all(|c| enough(c)) {
            return;
        }
    }
}

fn add(
    observed: &mut Observed,
    first_seen: &mut BTreeMap<String, u64>,
    running: &[Running],
    stacks: &Stacks,
    table: &Table,
) {
    let text = |n: u32| table.strings[n as usize].clone();
    for stack in &table.stacks {
        let process = &stacks.processes[stack.process as usize];
        // Other people run node and python too.
        if !running.iter().any(|r| r.pid() == process.tgid && r.comm == process.comm) {
            continue;
        }
        let comm = &process.comm;
        if stack.end == End::Complete {
            observed.complete_ever.insert(comm.clone());
        }
        let first = *first_seen.entry(comm.clone()).or_insert(stacks.from_ns);
        if stack.end == End::KernelOnly || stacks.from_ns < first + 1_000_000_000 {
            continue;
        }
        let seen = observed.programs.entry(comm.clone()).or_default();
        let n = u64::from(stack.count);
        let places: Vec<_> = stack.locations.iter().map(|l| table.locations[*l as usize]).collect();
        seen.samples += n;
        seen.complete += if stack.end == End::Complete { n } else { 0 };
        *seen.ends.entry(stack.end.name()).or_default() += n;
        for place in &places {
            let name = text(place.function);
            match place.kind {
                Kind::User => {
                    seen.user_frames += n;
                    seen.unnamed += if name.starts_with('[') { n } else { 0 };
                }
                Kind::Kernel => {
                    observed.kernel_named.1 += n;
                    observed.kernel_named.0 += if name.starts_with('[') { 0 } else { n };
                }
                Kind::Python | Kind::Truncated => {}
            }
        }
        seen.frames += n * places.iter().filter(|p| p.kind == Kind::User).count() as u64;
        let names = places.iter().filter(|p| p.kind == Kind::User).map(|p| text(p.function)).collect();
        *seen.stacks.entry(names).or_default() += n;
    }
}

fn report(observed: &Observed) {
    println!("{:10} {:>8} {:>10} {:>8}  ends", "program", "samples", "complete %", "frames");
    for comm in &observed.started {
        let Some(s) = observed.programs.get(*comm) else { continue };
        let per = |a: u64| a as f64 / s.samples.max(1) as f64;
        println!("{comm:10} {:>8} {:>10.2} {:>8.1}  {:?}", s.samples, 100.0 * per(s.complete), per(s.frames), s.ends);
    }
    println!("{:.1} samples a second and CPU; lost: {:?}", observed.rate, observed.status.lost);
}

pub(crate) fn tests(seen: &Observed) -> Vec<Test<'_>> {
    let mut out: Vec<Test<'_>> = vec![
        ("kernel_samples_come_at_the_rate_asked_for", Box::new(|| rate(seen))),
        ("kernel_no_sample_is_lost", Box::new(|| lost(seen))),
        ("kernel_functions_have_names", Box::new(|| kernel_names(seen))),
        ("kernel_without_tables_no_stack_claims_to_be_complete", Box::new(|| plain(seen))),
    ];
    let each: [(&'static str, &'static str); 7] = [
        ("bhdeep", "kernel_twenty_calls_without_frame_pointers_are_complete"),
        ("bhcalls", "kernel_stacks_inside_system_calls_are_complete"),
        ("bhexec", "kernel_stacks_after_exec_are_complete"),
        ("python3", "kernel_stacks_of_python_are_complete"),
        ("bhsha", "kernel_stacks_inside_hand_written_hashes_are_complete"),
        ("node", "kernel_stacks_of_node_are_complete"),
        ("bhown", "kernel_stacks_of_our_own_program_are_complete"),
    ];
    for (comm, name) in each {
        if seen.started.contains(&comm) {
            out.push((name, Box::new(move || complete(seen, comm))));
        }
    }
    if seen.started.contains(&"bhdeep") {
        out.push(("kernel_every_function_of_the_chain_is_named_in_order", Box::new(|| chain(seen, "bhdeep"))));
        out.push(("kernel_a_program_that_ended_keeps_its_names", Box::new(|| chain(seen, "bhshort"))));
    }
    out
}

fn rate(seen: &Observed) {
    let off = (seen.rate - f64::from(HZ)).abs() / f64::from(HZ);
    assert!(off < 0.05, "{:.2} samples a second and CPU; wanted {HZ}", seen.rate);
}

fn lost(seen: &Observed) {
    let lost: Vec<_> = seen.status.lost.iter().filter(|c| c.value > 0).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

fn kernel_names(seen: &Observed) {
    let (named, all) = seen.kernel_named;
    assert!(all > 500, "{all} kernel frames");
    assert!(named * 100 >= all * 99, "{named} of {all} kernel frames have a name");
}

fn plain(seen: &Observed) {
    assert!(seen.plain.get("no_table").is_some_and(|n| *n > ENOUGH / 2), "{:?}", seen.plain);
    assert!(seen.plain.keys().all(|k| ["no_table", "kernel_only"].contains(k)), "{:?}", seen.plain);
}

fn complete(seen: &Observed, comm: &str) {
    let s = seen.programs.get(comm).unwrap_or_else(|| panic!("{comm} was never sampled after its first second"));
    assert!(s.samples >= ENOUGH, "{comm}: {} samples", s.samples);
    assert!(s.complete * 100 >= s.samples * 99, "{comm}: {} of {} complete: {:?}", s.complete, s.samples, s.ends);
}

fn chain(seen: &Observed, comm: &str) {
    let s = seen.programs.get(comm).unwrap_or_else(|| panic!("{comm} was never sampled after its first second"));
    let (stack, n) = s.stacks.iter().max_by_key(|(_, n)| **n).expect("a stack");
    assert!(n * 100 >= s.samples * 80, "{comm}: the commonest stack is {n} of {}", s.samples);
    let want: Vec<String> = std::iter::once("leaf".to_owned())
        .chain((1..=20).rev().map(|i| format!("f{i}")))
        .chain(std::iter::once("main".to_owned()))
        .collect();
    assert_eq!(stack.get(..want.len()), Some(&want[..]), "{stack:?}");
    assert_eq!(stack.len(), 25, "leaf, twenty, main, three start frames: {stack:?}");
    assert_eq!(stack.last().map(String::as_str), Some("_start"));
    assert_eq!(s.unnamed, 0, "{comm}: {} of {} frames have no name", s.unnamed, s.user_frames);
}
