//! The pprof writer against the official message (perftools.profiles.Profile) decoded by prost, against its own reader, and against
//! `go tool pprof` where Go is installed.

use model::pprof::{
    Frame, Kind, Limits, Location, Mapping, Piece, Sample, Shape, Stack, Tables, build, period_ns, read,
};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;
use std::process::Command;

/// github.com/google/pprof, proto/profile.proto, the fields that exist there under the same numbers.
mod official {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(crate) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub(crate) function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub(crate) string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub(crate) time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub(crate) duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub(crate) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(crate) period: i64,
        #[prost(int64, repeated, tag = "13")]
        pub(crate) comment: Vec<i64>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(crate) r#type: i64,
        #[prost(int64, tag = "2")]
        pub(crate) unit: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub(crate) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(crate) value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) label: Vec<Label>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Label {
        #[prost(int64, tag = "1")]
        pub(crate) key: i64,
        #[prost(int64, tag = "2")]
        pub(crate) str: i64,
        #[prost(int64, tag = "3")]
        pub(crate) num: i64,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Mapping {
        #[prost(uint64, tag = "1")]
        pub(crate) id: u64,
        #[prost(uint64, tag = "2")]
        pub(crate) memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub(crate) memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub(crate) file_offset: u64,
        #[prost(int64, tag = "5")]
        pub(crate) filename: i64,
        #[prost(int64, tag = "6")]
        pub(crate) build_id: i64,
        #[prost(bool, tag = "7")]
        pub(crate) has_functions: bool,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Location {
        #[prost(uint64, tag = "1")]
        pub(crate) id: u64,
        #[prost(uint64, tag = "2")]
        pub(crate) mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub(crate) address: u64,
        #[prost(message, repeated, tag = "4")]
        pub(crate) line: Vec<Line>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Line {
        #[prost(uint64, tag = "1")]
        pub(crate) function_id: u64,
        #[prost(int64, tag = "2")]
        pub(crate) line: i64,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Function {
        #[prost(uint64, tag = "1")]
        pub(crate) id: u64,
        #[prost(int64, tag = "2")]
        pub(crate) name: i64,
        #[prost(int64, tag = "3")]
        pub(crate) system_name: i64,
        #[prost(int64, tag = "4")]
        pub(crate) filename: i64,
    }
}

const STRINGS: [&str; 9] =
    ["", "/usr/bin/app", "abcd1234", "main", "work", "do_syscall_64", "handler", "/srv/app.py", "[truncated: gap]"];

fn location(address: u64, mapping: u32, function: u32, kind: Kind) -> Location {
    Location { address, mapping, function, file: 0, line: 0, kind }
}

fn mappings() -> [Mapping; 1] {
    [Mapping { start: 0x40_0000, limit: 0x50_0000, offset: 0x1000, file: 1, build_id: 2 }]
}

/// main, work, a kernel frame, a Python frame, one without a name, a truncation.
fn locations() -> [Location; 6] {
    [
        location(0x40_1000, 1, 3, Kind::User),
        location(0x40_2000, 1, 4, Kind::User),
        location(0xffff_ffff_8100_0000, 0, 5, Kind::Kernel),
        Location { file: 7, line: 12, ..location(0, 0, 6, Kind::Python) },
        location(0x7f00_0000_1234, 0, 0, Kind::User),
        location(0, 0, 8, Kind::Truncated),
    ]
}

fn shape() -> Shape<'static> {
    Shape {
        time_ns: 1_700_000_000_000_000_000,
        duration_ns: 15_000_000_000,
        period_ns: period_ns(97).unwrap(),
        processes: vec![(42, "app"), (43, "app worker")],
    }
}

/// What every reader of the official message checks, and the stacks by name.
fn checked(piece: &Piece) -> (official::Profile, BTreeMap<(i64, Vec<String>), i64>) {
    let p = official::Profile::decode(&piece.pprof[..]).unwrap();
    let text = |i: i64| p.string_table[usize::try_from(i).unwrap()].clone();
    assert_eq!(p.string_table[0], "");
    assert_eq!(p.sample_type.len(), 1);
    for t in [Some(p.sample_type[0]), p.period_type] {
        let t = t.unwrap();
        assert_eq!((text(t.r#type), text(t.unit)), ("cpu".into(), "nanoseconds".into()));
    }
    assert_eq!(p.mapping.iter().map(|m| m.id).collect::<Vec<_>>(), (1..=p.mapping.len() as u64).collect::<Vec<_>>());
    let functions: BTreeMap<u64, String> = p.function.iter().map(|f| (f.id, text(f.name))).collect();
    assert_eq!(functions.len(), p.function.len(), "function ids are distinct");
    assert!(!functions.contains_key(&0));
    let locations: BTreeMap<u64, &official::Location> = p.location.iter().map(|l| (l.id, l)).collect();
    assert_eq!(locations.len(), p.location.len(), "location ids are distinct");
    let mut stacks = BTreeMap::new();
    for sample in &p.sample {
        assert_eq!(sample.value.len(), 1);
        assert!(sample.label.iter().all(|l| l.str == 0), "a text label would become a series");
        let label = sample.label[0];
        assert_eq!(text(label.key), "pid");
        let names = sample.location_id.iter().map(|id| {
            let l = locations[id];
            assert!(l.mapping_id <= p.mapping.len() as u64 && l.line.len() == 1);
            functions[&l.line[0].function_id].clone()
        });
        *stacks.entry((label.num, names.collect())).or_default() += sample.value[0] / p.period;
    }
    (p, stacks)
}

#[test]
fn one_window_is_one_pprof_that_says_what_pyroscope_expects() {
    let (mappings, locations) = (mappings(), locations());
    let tables = Tables { strings: &STRINGS, mappings: &mappings, locations: &locations };
    let stacks = [
        Stack { pid: 42, count: 3, end: 0, locations: &[2, 1, 0] },
        Stack { pid: 43, count: 1, end: 2, locations: &[3, 4, 5] },
        Stack { pid: 42, count: 2, end: 9, locations: &[2] },
    ];
    let pieces = build(&shape(), tables, stacks, Limits::default()).unwrap();
    assert_eq!((pieces.len(), pieces[0].samples), (1, 6));
    let (p, by_name) = checked(&pieces[0]);
    assert_eq!((p.period, p.time_nanos, p.duration_nanos), (10_309_278, 1_700_000_000_000_000_000, 15_000_000_000));
    assert_eq!(p.sample[0].value, [3 * 10_309_278]);
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(by_name[&(42, names(&["do_syscall_64", "work", "main"]))], 3);
    assert_eq!(by_name[&(43, names(&["handler", "[unknown]", "[truncated: gap]"]))], 1);
    let text = |i: i64| p.string_table[i as usize].as_str();
    let app = p.mapping.iter().find(|m| text(m.filename) == "/usr/bin/app").unwrap();
    assert_eq!((app.memory_start, app.memory_limit, app.file_offset), (0x40_0000, 0x50_0000, 0x1000));
    assert_eq!((text(app.build_id), app.has_functions), ("abcd1234", true));
    assert!(p.mapping.iter().any(|m| text(m.filename) == "[kernel]"));
    assert_eq!(p.comment.iter().map(|c| text(*c)).collect::<Vec<_>>(), ["process 42 app", "process 43 app worker"]);

    let ours = read(&pieces[0].pprof).unwrap();
    assert_eq!(ours.processes, [(42, "app"), (43, "app worker")]);
    let frames: Vec<Frame<'_>> = ours.samples[1].frames.iter().map(|f| ours.frames[*f as usize]).collect();
    assert_eq!(frames[0], Frame { name: "handler", file: "/srv/app.py", kind: Kind::Python });
    assert_eq!(frames[2].kind, Kind::Truncated);
    assert_eq!(ours.samples.iter().map(|s| s.end).collect::<Vec<_>>(), [0, 2, 9]);
}

#[test]
fn what_exceeds_a_limit_begins_another_profile_and_no_sample_is_lost_or_doubled() {
    let (mappings, locations) = (mappings(), locations());
    let tables = Tables { strings: &STRINGS, mappings: &mappings, locations: &locations };
    let stacks = || (0..1000u32).map(|pid| Stack { pid, count: 1, end: 0, locations: &[2, 1, 0] });
    let by_count = build(&shape(), tables, stacks(), Limits { samples: 300, ..Limits::default() }).unwrap();
    assert_eq!(by_count.iter().map(|p| p.samples).collect::<Vec<_>>(), [300, 300, 300, 100]);
    let by_size = build(&shape(), tables, stacks(), Limits { bytes: 8 << 10, ..Limits::default() }).unwrap();
    assert!(by_size.len() > 2 && by_size.iter().all(|p| p.pprof.len() <= 8 << 10), "{}", by_size.len());
    for pieces in [by_count, by_size] {
        let pids: Vec<i64> = pieces.iter().flat_map(|p| checked(p).1.into_keys().map(|(pid, _)| pid)).collect();
        assert_eq!(pids, (0..1000).collect::<Vec<i64>>());
    }
}

#[test]
fn nothing_makes_no_profile_and_an_index_that_points_nowhere_is_refused() {
    let (mappings, locations) = (mappings(), locations());
    let tables = Tables { strings: &STRINGS, mappings: &mappings, locations: &locations };
    assert_eq!(build(&shape(), tables, [], Limits::default()).unwrap(), []);
    let stack = Stack { pid: 1, count: 1, end: 0, locations: &[6] };
    assert!(build(&shape(), tables, [stack], Limits::default()).is_err());
    let bad = [location(1, 2, 0, Kind::User), location(1, 0, 99, Kind::User)];
    for i in [0, 1] {
        let tables = Tables { locations: &bad, ..tables };
        assert!(
            build(&shape(), tables, [Stack { pid: 1, count: 1, end: 0, locations: &[i] }], Limits::default()).is_err()
        );
    }
    assert!(build(&Shape { period_ns: 0, ..shape() }, tables, [], Limits::default()).is_err());
    assert_eq!((period_ns(0), period_ns(19)), (None, Some(52_631_578)));
}

type Drawn = (Vec<Location>, Vec<(u32, u64, u32, Vec<u32>)>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let kind = prop::sample::select(vec![Kind::User, Kind::Kernel, Kind::Python, Kind::Truncated]);
    let location =
        (any::<u64>(), 0..=1u32, 0..STRINGS.len() as u32, 0..STRINGS.len() as u32, any::<u32>(), kind).prop_map(
            |(address, mapping, function, file, line, kind)| Location { address, mapping, function, file, line, kind },
        );
    prop::collection::vec(location, 1..30).prop_flat_map(|locations| {
        let n = locations.len() as u32;
        let stack = (any::<u32>(), 1..1000u64, 0..3u32, prop::collection::vec(0..n, 0..40));
        (Just(locations), prop::collection::vec(stack, 1..60))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn prost_and_our_reader_find_the_stacks_that_were_given(
        (locations, stacks) in drawn(), samples in 1..80usize, bytes in 300..20_000usize,
    ) {
        let mappings = mappings();
        let tables = Tables { strings: &STRINGS, mappings: &mappings, locations: &locations };
        let given = stacks.iter().map(|(pid, count, end, at)| Stack { pid: *pid, count: *count, end: *end, locations: at });
        let pieces = build(&shape(), tables, given, Limits { samples, bytes }).unwrap();
        prop_assert_eq!(pieces.iter().map(|p| p.samples).sum::<u64>(), stacks.iter().map(|s| s.1).sum::<u64>());
        let name = |l: &Location| match (l.function, l.kind) {
            (0, Kind::Truncated) => "[truncated: unknown]",
            (0, _) => "[unknown]",
            (f, _) => STRINGS[f as usize],
        };
        let mut expected = stacks.iter();
        for piece in &pieces {
            let (p, _) = checked(piece);
            prop_assert!(p.sample.len() <= samples && (p.sample.len() == 1 || piece.pprof.len() <= bytes));
            let ours = read(&piece.pprof).unwrap();
            prop_assert_eq!(ours.samples.len(), p.sample.len());
            for Sample { pid, count, end, frames } in &ours.samples {
                let (want_pid, want_count, want_end, at) = expected.next().unwrap();
                prop_assert_eq!((pid, count, end, frames.len()), (want_pid, want_count, want_end, at.len()));
                for (frame, at) in frames.iter().zip(at) {
                    prop_assert_eq!(ours.frames[*frame as usize].name, name(&locations[*at as usize]));
                }
            }
        }
        prop_assert!(expected.next().is_none());
    }

    #[test]
    fn reading_anything_never_panics((locations, stacks) in drawn(), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
        let mappings = mappings();
        let tables = Tables { strings: &STRINGS, mappings: &mappings, locations: &locations };
        let given = stacks.iter().map(|(pid, count, end, at)| Stack { pid: *pid, count: *count, end: *end, locations: at });
        let mut bytes = build(&shape(), tables, given, Limits::default()).unwrap().remove(0).pprof;
        for (at, value) in &hits {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Ok(profile) = read(&bytes) {
            let frames = profile.frames.len();
            prop_assert!(profile.samples.iter().flat_map(|s| &s.frames).all(|f| (*f as usize) < frames));
        }
    }
}

#[test]
fn go_tool_pprof_reads_it() {
    let Ok(go) = Command::new("go").arg("version").output() else {
        println!("skipped: go_tool_pprof_reads_it: no `go` in PATH: Debian's golang-go provides it");
        return;
    };
    assert!(go.status.success());
    let (mappings, locations) = (mappings(), locations());
    let tables = Tables { strings: &STRINGS, mappings: &mappings, locations: &locations };
    let stacks = [
        Stack { pid: 42, count: 97, end: 0, locations: &[2, 1, 0] },
        Stack { pid: 43, count: 1, end: 2, locations: &[3, 4, 5] },
    ];
    let pieces = build(&shape(), tables, stacks, Limits::default()).unwrap();
    let file = std::env::temp_dir().join(format!("bulkhead-pprof-{}.pb", std::process::id()));
    std::fs::write(&file, &pieces[0].pprof).unwrap();
    let ask = |args: &[&str]| {
        let out = Command::new("go").args(["tool", "pprof"]).args(args).arg(&file).output().unwrap();
        let (text, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{text}{said}");
        text.into_owned()
    };
    let (raw, top) = (ask(&["-raw"]), ask(&["-top"]));
    std::fs::remove_file(&file).unwrap();
    for part in ["PeriodType: cpu nanoseconds", "Period: 10309278", "[kernel]", "pid:[42]", "abcd1234", "work"] {
        assert!(raw.contains(part), "{part} is missing in:\n{raw}");
    }
    assert!(top.contains("do_syscall_64") && top.contains("Duration: 15s"), "{top}");
}
