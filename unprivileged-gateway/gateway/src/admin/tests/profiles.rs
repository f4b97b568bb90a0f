//! Who ran where, and how the probe is, in the shapes the page expects.

use super::*;
use model::envelope::Sidecar;
use model::pprof::{Kind, Limits, Location, Shape, Stack, Tables, build, period_ns};
use serde_json::json;
use std::io::Write as _;

fn show(view: &View, at_ms: u64) {
    let shape = Shape {
        time_ns: at_ms * 1_000_000,
        duration_ns: 15_000_000_000,
        period_ns: period_ns(97).unwrap(),
        processes: vec![(1, "init")],
    };
    let locations =
        [1, 2].map(|function| Location { address: 1, mapping: 0, function, file: 0, line: 0, kind: Kind::User });
    let tables = Tables { strings: &["", "main", "work"], mappings: &[], locations: &locations };
    let stacks = [Stack { pid: 1, count: 5, end: 0, locations: &[1, 0] }];
    let piece = build(&shape, tables, stacks, Limits::default()).unwrap().remove(0);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&piece.pprof).unwrap();
    let enrichment = vec![("service_name".to_owned(), "ebpf/init".to_owned())];
    let sidecar = Sidecar { received_at: unix_ms() * 1_000_000, enrichment, ..Sidecar::default() };
    view.profiles(1, &sidecar, &gzip.finish().unwrap()).unwrap();
}

#[tokio::test]
async fn processes_and_flame_graphs_come_in_the_shape_the_page_expects() {
    let office = office().await;
    let at_ms = unix_ms() - 20_000;
    show(&office.view, at_ms);
    let covers = json!({ "from_ms": at_ms, "to_ms": at_ms + 15_000, "evicted": 0 });
    let answer = office.get("/api/v1/processes").await.json();
    let expected = json!({
        "covers": covers, "total_samples": 5, "period_ns": 10_309_278, "cut": 0,
        "groups": [{
            "service": "ebpf/init", "comm": "init", "container": "", "namespace": "", "pod": "", "samples": 5,
            "cpu_ms": 51.54639, "processes": [{ "pid": 1, "comm": "init", "samples": 5 }], "cut": 0,
        }],
        "timeline": { "t0_ms": at_ms, "step_ms": 15_000, "cores": [0.003] },
    });
    assert_eq!(answer, expected);
    let graph = office.get("/api/v1/profile?service=ebpf/init&pid=1").await.json();
    let expected = json!({
        "covers": covers, "samples": 5, "period_ns": 10_309_278, "ends": { "complete": 5 }, "cut": 0,
        "names": ["", "main", "work"], "files": [""],
        "nodes": [[0, 0, 0, 0, 0, 5], [0, 1, 0, 0, 0, 5], [1, 2, 0, 0, 5, 5]],
    });
    assert_eq!(graph, expected);
    assert_eq!(office.get("/api/v1/profile?pid=2").await.json()["samples"], 0);
    for bad in ["profile?pid=x", "processes?from_ms=-1"] {
        assert_eq!(office.get(&format!("/api/v1/{bad}")).await.status, 400, "{bad}");
    }
    let probe = office.get("/api/v1/probe").await.json();
    assert_eq!((&probe["configured"], &probe["hello"]), (&json!(false), &json!(null)));
}
