use super::*;
use crate::view::View;
use model::pprof::{Limits, Location, Shape, Stack, Tables, build, period_ns};
use std::io::Write;
use std::time::Duration;

const T0_S: u64 = 1_700_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const STRINGS: [&str; 7] = ["", "main", "work", "[truncated: gap]", "schedule", "handler", "/srv/app.py"];

fn locations() -> Vec<Location> {
    let location = |function, file, kind| Location { address: 1, mapping: 0, function, file, line: 0, kind };
    vec![
        location(1, 0, pprof::Kind::User),
        location(2, 0, pprof::Kind::User),
        location(3, 0, pprof::Kind::Truncated),
        location(4, 0, pprof::Kind::Kernel),
        location(5, 6, pprof::Kind::Python),
    ]
}

/// Stacks by pid, count, end and locations from the leaf on, as a record of 15 s.
fn record(at_s: u64, stacks: &[(u32, u64, End, &[u32])]) -> Vec<u8> {
    let shape = Shape {
        time_ns: at_s * SECOND_NS,
        duration_ns: 15 * SECOND_NS,
        period_ns: period_ns(97).unwrap(),
        processes: vec![(7, "app"), (8, "helper")],
    };
    let locations = locations();
    let tables = Tables { strings: &STRINGS, mappings: &[], locations: &locations };
    let stacks = stacks.iter().map(|(pid, count, end, locations)| Stack {
        pid: *pid,
        count: *count,
        end: *end as u32,
        locations,
    });
    let piece = build(&shape, tables, stacks, Limits::default()).unwrap().remove(0);
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(&piece.pprof).unwrap();
    out.finish().unwrap()
}

fn sidecar(at_s: u64, service: &str) -> Sidecar {
    Sidecar {
        received_at: (at_s + 15) * SECOND_NS,
        enrichment: vec![("service_name".into(), service.into()), ("container_id".into(), "abc".into())],
        ..Sidecar::default()
    }
}

/// Two services over one minute.
fn minute() -> View {
    let view = View::new(64 << 20, Duration::from_secs(900));
    for n in 0..4u64 {
        let at = T0_S + n * 15;
        let app: [(u32, u64, End, &[u32]); 3] =
            [(7, 97, End::Complete, &[1, 0]), (8, 10, End::Gap, &[3, 1, 2]), (7, 3, End::Complete, &[4, 0])];
        view.profiles(2 * n + 1, &sidecar(at, "ebpf/app"), &record(at, &app)).unwrap();
        let other: [(u32, u64, End, &[u32]); 1] = [(9, 1, End::KernelOnly, &[3])];
        view.profiles(2 * n + 2, &sidecar(at, "ebpf/kworker"), &record(at, &other)).unwrap();
    }
    view
}

#[test]
fn processes_are_grouped_by_service_with_the_time_they_used() {
    let view = minute();
    let all = view.processes(&ProfileQuery::default());
    assert_eq!((all.total_samples, all.period_ns, all.cut), (4 * 111, 10_309_278, 0));
    assert_eq!((all.covers.from_ms, all.covers.to_ms), (T0_S * 1000, (T0_S + 60) * 1000));
    let services: Vec<(&str, u64)> = all.groups.iter().map(|g| (&*g.service, g.samples)).collect();
    assert_eq!(services, [("ebpf/app", 440), ("ebpf/kworker", 4)]);
    let app = &all.groups[0];
    assert_eq!((&*app.comm, &*app.container), ("app", "abc"));
    assert!((app.cpu_ms - 440.0 * 10.309278).abs() < 1e-6);
    let rows: Vec<(u32, &str, u64)> = app.processes.iter().map(|p| (p.pid, &*p.comm, p.samples)).collect();
    assert_eq!(rows, [(7, "app", 400), (8, "helper", 40)]);
    assert_eq!((all.timeline.t0_ms, all.timeline.step_ms, all.timeline.cores.len()), (T0_S * 1000, 15_000, 4));
    assert_eq!(all.timeline.cores, [0.076; 4], "111 samples of 10.3 ms in 15 s");

    let last = ProfileQuery { from_ms: Some((T0_S + 45) * 1000), ..ProfileQuery::default() };
    assert_eq!(view.processes(&last).total_samples, 111);
    let none = ProfileQuery { to_ms: Some(T0_S * 1000), ..ProfileQuery::default() };
    assert_eq!(view.processes(&none).total_samples, 0);
}

/// Name, kind, own and total of each node, with the name of its parent.
fn nodes(answer: &ProfileAnswer) -> Vec<(&str, &str, u64, u64, u64)> {
    let name = |i: u64| answer.names[answer.nodes[i as usize][1] as usize].as_str();
    let of = |(i, n): (usize, &[u64; 6])| (name(n[0]), name(i as u64), n[3], n[4], n[5]);
    answer.nodes.iter().enumerate().map(of).collect()
}

#[test]
fn stacks_with_the_same_beginning_become_one_branch() {
    let view = minute();
    let app = ProfileQuery { service: "ebpf/app".into(), ..ProfileQuery::default() };
    let answer = view.profile(&app);
    assert_eq!((answer.samples, answer.cut), (440, 0));
    assert_eq!(answer.ends, [("complete", 400), ("gap", 40)].into());
    let expected = [
        ("", "", 0, 0, 440),
        ("", "main", 0, 0, 400),
        ("main", "work", 0, 388, 388),
        ("", "[truncated: gap]", 3, 0, 40),
        ("[truncated: gap]", "work", 0, 0, 40),
        ("work", "schedule", 1, 40, 40),
        ("main", "handler", 2, 12, 12),
    ];
    assert_eq!(nodes(&answer), expected);
    let handler = answer.nodes.last().unwrap();
    assert_eq!(answer.files[handler[2] as usize], "/srv/app.py");
    let helper = view.profile(&ProfileQuery { pid: Some(8), ..ProfileQuery::default() });
    assert_eq!((helper.samples, helper.ends), (40, [("gap", 40)].into()));
    assert_eq!(view.profile(&ProfileQuery { service: "nobody".into(), ..app }).nodes.len(), 1, "a root alone");
}

#[test]
fn a_tree_that_is_too_large_loses_its_thinnest_twigs_and_no_branch() {
    let raw =
        record(T0_S, &[(7, 50, End::Complete, &[1, 0]), (7, 9, End::Complete, &[4, 1, 0]), (7, 2, End::Gap, &[3, 2])]);
    let inflated = inflate(&raw).unwrap();
    let profile = pprof::read(&inflated).unwrap();
    for most in 1..8 {
        let mut tree = Tree::default();
        let steps = tree.steps(&profile);
        profile.samples.iter().for_each(|s| tree.add(&steps, s));
        let drawn = tree.draw(most);
        assert_eq!((drawn.samples, drawn.nodes.len(), drawn.cut), (61, most.min(6), 6usize.saturating_sub(most)));
        for (i, node) in drawn.nodes.iter().enumerate().skip(1) {
            assert!((node[0] as usize) < i, "its parent is there, and earlier");
            assert!(drawn.nodes[node[0] as usize][5] >= node[5]);
        }
    }
}

#[test]
fn old_windows_leave_and_room_is_kept() {
    let view = minute();
    view.expire((T0_S + 25 + 900) * SECOND_NS);
    let rest = view.processes(&ProfileQuery::default());
    assert_eq!(
        (rest.total_samples, rest.covers.from_ms),
        (3 * 111, (T0_S + 15) * 1000),
        "received 15 s after it began"
    );
    let small = View::new(8 << 10, Duration::from_secs(900));
    for n in 0..100u64 {
        let stacks: [(u32, u64, End, &[u32]); 1] = [(7, 5, End::Complete, &[1, 0])];
        small.profiles(n + 1, &sidecar(T0_S + n, "s"), &record(T0_S + n, &stacks)).unwrap();
    }
    let (stats, answer) = (small.stats(), small.processes(&ProfileQuery::default()));
    assert!(stats.bytes <= 8 << 10 && answer.covers.evicted > 0);
    assert_eq!(answer.total_samples + answer.covers.evicted, 500);
    assert_eq!(small.profiles(100, &sidecar(T0_S, "s"), b"again").unwrap(), 0, "shown already");
}

#[test]
fn what_is_no_profile_is_left_out_and_said() {
    let view = View::new(1 << 20, Duration::from_secs(900));
    assert!(view.profiles(1, &Sidecar::default(), b"no gzip").is_err());
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&vec![0; PROFILE_BYTES_MAX + 1]).unwrap();
    let error = view.profiles(2, &Sidecar::default(), &bomb.finish().unwrap()).unwrap_err();
    assert!(error.to_string().contains("16 MiB"), "{error}");
    assert_eq!(view.stats().bytes, 0);
}
