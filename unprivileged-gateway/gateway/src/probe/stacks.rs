//! A window of stacks as the probe sends it, turned into profiles as the log keeps them.
//!
//! A translator between two forms that both say every name once ([`ipc::stacks`] and [`model::pprof`]), and a seal (gzip) on the result.
//! Algorithm: table in, one pprof out, more if one would be too large for Pyroscope. Every piece gets a number of its own, so that a
//! window that comes again is recognised piece by piece: the last one laid carries the window's number, the others the same number
//! in a stream of their own.
//!
//! Weakness: labels are what the probe knows; a container without a pod's name is called by its id until metadata is joined.

use super::files::PEER;
use crate::seam::{Offered, Signal, Source};
use bytes::Bytes;
use ipc::Stacks;
use ipc::stacks::{self, Table};
use model::envelope::{Kind, Sidecar};
use model::pprof::{self, Limits, Location, Mapping, Shape, Stack, Tables};
use std::io::Write;
use wal::Origin;

/// Hexadecimal digits of a container's id that are shown.
const CONTAINER_DIGITS: usize = 12;

/// A window, ready for the log: pieces in the order in which they are to be laid.
pub(super) struct Window {
    pub(super) pieces: Vec<Offered>,
}

/// What a window is offered with.
pub(super) struct From<'a> {
    pub(super) start: [u8; 16],
    pub(super) seq: u64,
    /// The node's name, a label.
    pub(super) node: &'a str,
    /// Unix nanoseconds.
    pub(super) received_at: u64,
}

/// Errors: a text; the table is not one, and will not become one by being sent again.
pub(super) fn window(head: &Stacks, bulk: &[u8], from: &From<'_>, limits: Limits) -> Result<Window, String> {
    let table = Table::decode(bulk).map_err(|e| e.to_string())?;
    if !table.names_processes_below(head.processes.len()) {
        return Err("a stack names a process that is not listed".into());
    }
    let period_ns = pprof::period_ns(head.hz).ok_or("a window of 0 samples a second")?;
    let shape = Shape {
        time_ns: head.from_ns,
        duration_ns: head.to_ns.saturating_sub(head.from_ns),
        period_ns,
        processes: head.processes.iter().map(|p| (p.tgid, p.comm.as_str())).collect(),
    };
    let pieces = build(&shape, head, &table, limits)?;
    let labels = labels(head, from.node);
    let last = pieces.len().saturating_sub(1);
    let offered = |(at, gzip): (usize, Vec<u8>)| Offered {
        signal: Signal::Profiles,
        kind: Kind::Pprof,
        items: 1,
        sidecar: Sidecar { received_at: from.received_at, peer: PEER.into(), enrichment: labels.clone(), file: None },
        body: vec![Bytes::from(gzip)],
        source: Source::Probe,
        origin: Some(Origin::Stack { start: stream_of(from.start, last - at), seq: from.seq }),
    };
    Ok(Window { pieces: pieces.into_iter().enumerate().map(offered).collect() })
}

/// The stream in which a window's piece is numbered: the probe's start for the piece that is laid last (0).
pub(super) fn stream_of(start: [u8; 16], piece: usize) -> [u8; 16] {
    (u128::from_le_bytes(start) ^ piece as u128).to_le_bytes()
}

fn build(shape: &Shape<'_>, head: &Stacks, table: &Table, limits: Limits) -> Result<Vec<Vec<u8>>, String> {
    let strings: Vec<&str> = table.strings.iter().map(String::as_str).collect();
    let mappings: Vec<Mapping> = table
        .mappings
        .iter()
        .map(|m| Mapping { start: m.start, limit: m.limit, offset: m.offset, file: m.file, build_id: m.build_id })
        .collect();
    let locations: Vec<Location> = table
        .locations
        .iter()
        .map(|l| Location {
            address: l.address,
            mapping: l.mapping,
            function: l.function,
            file: l.file,
            line: l.line,
            kind: kind(l.kind),
        })
        .collect();
    let stacks = table.stacks.iter().map(|s| Stack {
        pid: head.processes.get(s.process as usize).map_or(0, |p| p.tgid),
        count: s.count.into(),
        end: s.end as u32,
        locations: &s.locations,
    });
    let tables = Tables { strings: &strings, mappings: &mappings, locations: &locations };
    let pieces = pprof::build(shape, tables, stacks, limits).map_err(|e| e.to_string())?;
    pieces.iter().map(|piece| gzip(&piece.pprof).map_err(|e| format!("gzip: {e}"))).collect()
}

fn kind(kind: stacks::Kind) -> pprof::Kind {
    match kind {
        stacks::Kind::User => pprof::Kind::User,
        stacks::Kind::Kernel => pprof::Kind::Kernel,
        stacks::Kind::Python => pprof::Kind::Python,
        stacks::Kind::Truncated => pprof::Kind::Truncated,
    }
}

/// The same bytes for the same profile: no time and no name in the header.
fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 3), flate2::Compression::default());
    out.write_all(bytes)?;
    out.finish()
}

/// Series labels of a window (interface, "Labels"). Every backend's service is the container, or the program on a bare node.
fn labels(head: &Stacks, node: &str) -> Vec<(String, String)> {
    let container = head.container.get(..CONTAINER_DIGITS).unwrap_or(&head.container);
    let service = match (head.comm.as_str(), container) {
        ("", "") => "ebpf/unspecified".to_owned(),
        (comm, "") => format!("ebpf/{comm}"),
        (_, container) => format!("ebpf/container/{container}"),
    };
    let mut labels = vec![("__name__", "process_cpu".to_owned()), ("service_name", service), ("node", node.to_owned())];
    labels.extend((!container.is_empty()).then(|| ("container_id", container.to_owned())));
    labels.extend((!head.pod_uid.is_empty()).then(|| ("pod_uid", head.pod_uid.clone())));
    labels.into_iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.to_owned(), v)).collect()
}
