//! A finished window becomes tables: one for each container, or for each command name outside of containers.
//!
//! Like developing a film: addresses turn into functions, the same place is drawn once, and each roll gets its label. First all
//! addresses that have no name yet are collected by file and asked about at once; then stacks are written, leaf first, with kernel
//! before user frames, and a stack that broke off gets a root that says so. A table that grows too large for the door is
//! closed and another begun. The weakness: asking costs up to [`NAMING_AT_MOST`] on hostile files; later ones get no names.

use super::files::Card;
use super::shared::{Program, Shared};
use super::window::{Raw, Seen, Who, Window};
use crate::nursery::{Loss, Nursery};
use crate::parser::{ADDRESSES_MAX, Answer, Question};
use ipc::stacks::{End, Kind, Location, Mapping, Stack, Strings, Table};
use ipc::{Process, Stacks};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time one window's names may take.
const NAMING_AT_MOST: Duration = Duration::from_secs(8);
/// Files asked about in one go.
const FILES_AT_ONCE: usize = 16;
/// Stacks in one table; Pyroscope takes 16,000 samples a profile.
const STACKS_MAX: usize = 16_000;
/// Bytes of one table, a little below what the door carries.
const TABLE_BYTES_MAX: usize = ipc::STACKS_BULK_BYTES_MAX - (512 << 10);

/// When a window was open, in unix nanoseconds, and at what rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) hz: u32,
}

/// Name of a kernel address, if the kernel side has made it.
pub(super) type KernelName<'a> = dyn FnMut(u64) -> Option<Arc<str>> + 'a;

/// Tables of a window, ready for the door.
pub(super) fn fold(
    window: &Window,
    span: Span,
    shared: &Shared,
    nursery: &Nursery,
    kernel: &mut KernelName<'_>,
) -> Vec<(Stacks, Vec<u8>)> {
    let raws: Vec<Raw> = window.stacks().collect();
    let programs: HashMap<Who, Arc<Program>> =
        window.seen.keys().filter_map(|who| Some((*who, shared.program(*who)?))).collect();
    learn_names(&raws, &programs, nursery);
    let mut groups: BTreeMap<(String, String), Builder> = BTreeMap::new();
    let mut done = Vec::new();
    for raw in &raws {
        let Some(seen) = window.seen.get(&raw.who) else { continue };
        let program = programs.get(&raw.who).map(Arc::as_ref);
        let home = program.map(|p| p.home.clone()).or_else(|| shared.home(seen.cgroup)).unwrap_or_default();
        let comm = if home.container.is_empty() { seen.comm.clone() } else { String::new() };
        let key = (home.container.clone(), comm);
        let first = || Stacks {
            from_ns: span.from_ns,
            to_ns: span.to_ns,
            hz: span.hz,
            comm: seen.comm.clone(),
            container: home.container.clone(),
            pod_uid: home.pod_uid.clone(),
            cgroup: home.path.clone(),
            ..Stacks::default()
        };
        let builder = groups.entry(key).or_insert_with(|| Builder::new(first()));
        builder.add(raw, seen, program, kernel);
        if builder.full() {
            let fresh = Builder::new(first());
            done.push(std::mem::replace(builder, fresh).finish());
        }
    }
    done.extend(groups.into_values().map(Builder::finish));
    done.retain(|(stacks, _)| stacks.samples > 0);
    done
}

/// An address as it is looked up: for callers the call, which lies before the return address.
fn place(at: usize, address: u64) -> u64 {
    if at == 0 { address } else { address.wrapping_sub(1) }
}

fn learn_names(raws: &[Raw], programs: &HashMap<Who, Arc<Program>>, nursery: &Nursery) {
    let mut wanted: BTreeMap<super::open::Key, (Arc<Card>, BTreeSet<u64>)> = BTreeMap::new();
    for raw in raws {
        let Some(program) = programs.get(&raw.who) else { continue };
        for (at, address) in raw.user.iter().enumerate() {
            let address = place(at, *address);
            let Some((card, bias)) = program.part(address).and_then(|(_, p)| p.code.as_ref()) else { continue };
            let address = address.wrapping_sub(*bias);
            if card.function(address).is_none() && card.may_be_asked() {
                let (_, addresses) = wanted.entry(card.key).or_insert_with(|| (card.clone(), BTreeSet::new()));
                if addresses.len() < ADDRESSES_MAX {
                    addresses.insert(address);
                }
            }
        }
    }
    let jobs: Vec<(Arc<Card>, Arc<File>, Question)> = wanted
        .into_values()
        .filter_map(|(card, a)| card.file().map(|f| (card, f, Question::Names(a.into_iter().collect()))))
        .collect();
    let begun = Instant::now();
    for some in jobs.chunks(FILES_AT_ONCE) {
        if begun.elapsed() > NAMING_AT_MOST {
            tracing::warn!("naming functions takes too long; the rest of this window keeps addresses");
            return;
        }
        let questions: Vec<(&File, Question)> = some.iter().map(|(_, f, q)| (&**f, q.clone())).collect();
        for ((card, _, _), answer) in some.iter().zip(nursery.ask(&questions)) {
            match answer {
                Ok(Answer::Names(functions)) => card.learn(functions),
                Err(Loss::Gone) => return,
                Ok(_) | Err(Loss::Died | Loss::Nothing(_)) => card.give_up(),
            }
        }
    }
}

/// One table in the making.
struct Builder {
    stacks: Stacks,
    strings: Strings,
    table: Table,
    processes: HashMap<u32, u32>,
    mappings: HashMap<(Who, usize), u32>,
    locations: HashMap<Location, u32>,
    bytes: usize,
}

impl Builder {
    fn new(stacks: Stacks) -> Self {
        Builder {
            stacks,
            strings: Strings::default(),
            table: Table::default(),
            processes: HashMap::new(),
            mappings: HashMap::new(),
            locations: HashMap::new(),
            bytes: 0,
        }
    }

    fn full(&self) -> bool {
        self.table.stacks.len() >= STACKS_MAX || self.bytes >= TABLE_BYTES_MAX
    }

    fn add(&mut self, raw: &Raw, seen: &Seen, program: Option<&Program>, kernel: &mut KernelName<'_>) {
        let process = self.process(raw.who.0, &seen.comm);
        let mut locations = Vec::with_capacity(raw.kernel.len() + raw.user.len() + 1);
        for address in &raw.kernel {
            let name = kernel(*address);
            // Only the name leaves: addresses of the kernel are nobody's business.
            let location = self.named(0, 0, name.as_deref().unwrap_or("[kernel]"), Kind::Kernel);
            locations.push(self.location(location));
        }
        for (at, address) in raw.user.iter().enumerate() {
            let location = self.user(raw.who, place(at, *address), program);
            locations.push(self.location(location));
        }
        if !matches!(raw.end, End::Complete | End::KernelOnly) {
            let location = self.named(0, 0, &format!("[truncated: {}]", raw.end.name()), Kind::Truncated);
            locations.push(self.location(location));
        }
        self.bytes += 11 + 4 * locations.len();
        self.stacks.samples += u64::from(raw.count);
        self.table.stacks.push(Stack { process, count: raw.count, end: raw.end, locations });
    }

    fn process(&mut self, tgid: u32, comm: &str) -> u32 {
        let next = self.stacks.processes.len() as u32;
        *self.processes.entry(tgid).or_insert_with(|| {
            self.stacks.processes.push(Process { tgid, comm: comm.to_owned() });
            next
        })
    }

    fn user(&mut self, who: Who, address: u64, program: Option<&Program>) -> Location {
        let Some((number, part)) = program.and_then(|p| p.part(address)) else {
            return self.named(address, 0, "[unknown]", Kind::User);
        };
        let mapping = match self.mappings.get(&(who, number)) {
            Some(mapping) => *mapping,
            None => {
                let file = self.text(&part.path);
                let build_id = part.code.as_ref().map_or(0, |(card, _)| self.text(&card.build_id));
                let (start, limit, offset) = (part.start, part.end, part.offset);
                self.table.mappings.push(Mapping { start, limit, offset, file, build_id });
                self.bytes += 32;
                let mapping = self.table.mappings.len() as u32;
                self.mappings.insert((who, number), mapping);
                mapping
            }
        };
        let name: Arc<str> = match &part.code {
            Some((card, bias)) => {
                let inside = address.wrapping_sub(*bias);
                card.function(inside).map_or_else(|| format!("{}+{inside:#x}", card.base()).into(), |(_, name)| name)
            }
            // Code made at run time: an address in it means nothing later.
            None if part.path.is_empty() => "[jit]".into(),
            None => {
                let base = part.path.rsplit('/').next().unwrap_or_default();
                format!("{base}+{:#x}", address - part.start + part.offset).into()
            }
        };
        self.named(address, mapping, &name, Kind::User)
    }

    fn text(&mut self, text: &str) -> u32 {
        let before = self.strings_len();
        let number = self.strings.number(text);
        if number >= before {
            self.bytes += 4 + text.len();
            self.table.strings.push(String::new());
        }
        number
    }

    /// Strings so far; the table's own list only counts them until the end.
    fn strings_len(&self) -> u32 {
        self.table.strings.len() as u32
    }

    fn named(&mut self, address: u64, mapping: u32, name: &str, kind: Kind) -> Location {
        Location { address, mapping, function: self.text(name), file: 0, line: 0, kind }
    }

    fn location(&mut self, location: Location) -> u32 {
        let next = self.table.locations.len() as u32;
        let number = *self.locations.entry(location).or_insert(next);
        if number == next {
            self.table.locations.push(location);
            self.bytes += 25;
        }
        number
    }

    fn finish(mut self) -> (Stacks, Vec<u8>) {
        self.table.strings = self.strings.into_list();
        (self.stacks, self.table.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Home;
    use super::super::shared::Part;
    use super::*;
    use crate::parser::Function;
    use ebpf_abi::Header;

    const SPAN: Span = Span { from_ns: 1, to_ns: 2, hz: 97 };

    fn header(tgid: u32, kernel: u16, user: u16, end: End) -> Header {
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"work");
        Header {
            tgid,
            tid: tgid,
            space: 9,
            cgroup: 77,
            time_ns: 0,
            cpu: 0,
            kernel_frames: kernel,
            user_frames: user,
            end: end as u16,
            gaps: 0,
            comm,
        }
    }

    fn add(window: &mut Window, header: &Header, frames: &[u64]) {
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.to_ne_bytes()).collect();
        window.add(header, &bytes);
    }

    fn program(container: &str) -> Arc<Program> {
        let file = File::open("/dev/null").expect("null");
        let card = Card::new(super::super::open::Key::VDSO, "/bin/work".into(), &[7], vec![], (0, 0), file);
        let f = |start, end, name: &str| Function { start, end, name: name.into() };
        card.learn(vec![f(0x100, 0x200, "main"), f(0x200, 0x300, "")]);
        card.give_up();
        let part = |start, end, path: &str, code| Part { start, end, offset: 0, path: path.into(), code };
        let parts = vec![
            part(0x1000, 0x2000, "/bin/work", Some((Arc::new(card), 0x1000))),
            part(0x5000, 0x6000, "", None),
            part(0x7000, 0x8000, "/lib/gone.so", None),
        ];
        Arc::new(Program { parts, home: Home { container: container.into(), ..Home::default() } })
    }

    fn run(window: &Window, shared: &Shared) -> Vec<(Stacks, Table)> {
        let mut kernel = |a: u64| (a == 0xf00).then(|| "sys_thing".into());
        fold(window, SPAN, shared, &Nursery::gone(), &mut kernel)
            .into_iter()
            .map(|(s, bulk)| (s, Table::decode(&bulk).expect("our own table")))
            .collect()
    }

    fn names(table: &Table, stack: &Stack) -> Vec<String> {
        let location = |l: &u32| table.locations[*l as usize].function as usize;
        stack.locations.iter().map(|l| table.strings[location(l)].clone()).collect()
    }

    #[test]
    fn frames_become_functions_leaf_first_and_a_stack_that_broke_off_says_so() {
        let shared = Shared::default();
        shared.put_program((5, 9), 77, program(""));
        let mut window = Window::default();
        // 0x1200 as a return address belongs to the call before it.
        add(&mut window, &header(5, 2, 5, End::Gap), &[0xf00, 0xf01, 0x1150, 0x1200, 0x1201, 0x5001, 0x7011]);
        let got = run(&window, &shared);
        assert_eq!(got.len(), 1);
        let (stacks, table) = &got[0];
        assert_eq!((stacks.comm.as_str(), stacks.samples, stacks.hz), ("work", 1, 97));
        let want = ["sys_thing", "[kernel]", "main", "main", "work+0x200", "[jit]", "gone.so+0x10", "[truncated: gap]"];
        assert_eq!(names(table, &table.stacks[0]), want);
        let kernel = table.locations.iter().filter(|l| l.kind == Kind::Kernel);
        assert!(
            kernel.clone().count() == 2 && kernel.into_iter().all(|l| l.address == 0),
            "kernel addresses stay here"
        );
        let file = &table.strings[table.mappings[0].file as usize];
        assert_eq!((file.as_str(), table.mappings[0].start), ("/bin/work", 0x1000));
    }

    #[test]
    fn complete_stacks_and_kernel_threads_have_no_such_root() {
        let shared = Shared::default();
        let mut window = Window::default();
        add(&mut window, &header(5, 0, 1, End::Complete), &[1]);
        add(&mut window, &header(6, 1, 0, End::KernelOnly), &[0xf00]);
        for (_, table) in run(&window, &shared) {
            assert!(table.locations.iter().all(|l| l.kind != Kind::Truncated));
        }
    }

    #[test]
    fn a_container_is_one_group_and_processes_outside_go_by_their_name() {
        let shared = Shared::default();
        let id = "c".repeat(64);
        shared.put_program((1, 9), 77, program(&id));
        shared.put_program((2, 9), 77, program(&id));
        shared.put_program((3, 9), 78, program(""));
        let mut window = Window::default();
        for tgid in [1, 2, 3] {
            add(&mut window, &header(tgid, 0, 1, End::Complete), &[0x1150]);
        }
        // Gone before it could be looked at: its control group says where it lived.
        let mut gone = header(4, 0, 1, End::NoTable);
        gone.cgroup = 78;
        add(&mut window, &gone, &[0x1150]);
        let mut got = run(&window, &shared);
        got.sort_by_key(|(s, _)| s.container.clone());
        assert_eq!(got.len(), 2);
        assert_eq!((got[0].0.samples, got[0].0.processes.len(), got[0].0.container.as_str()), (2, 2, ""));
        assert_eq!((got[1].0.samples, got[1].0.container.as_str()), (2, id.as_str()));
        assert!(got.iter().all(|(s, t)| t.names_processes_below(s.processes.len())));
    }

    #[test]
    fn a_window_too_large_for_one_frame_becomes_several_and_loses_nothing() {
        let shared = Shared::default();
        let mut window = Window::default();
        for i in 0..40_000u64 {
            let frames: Vec<u64> = (0..40).map(|n| (i << 20) | (n << 8)).collect();
            add(&mut window, &header(5, 0, 40, End::NoMapping), &frames);
        }
        let got = fold(&window, SPAN, &shared, &Nursery::gone(), &mut |_| None);
        assert!(got.len() > 1);
        assert!(got.iter().all(|(_, bulk)| bulk.len() <= ipc::STACKS_BULK_BYTES_MAX));
        assert_eq!(got.iter().map(|(s, _)| s.samples).sum::<u64>() + window.dropped, 40_000);
    }
}
