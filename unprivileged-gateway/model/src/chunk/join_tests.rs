//! Lines against what was written: whatever the cuts, every line once, in order, whole.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const UID: &str = "0d1c2b3a-0000-4000-8000-00000000abcd";
const TIME: &str = "2026-01-01T00:00:00.000000007Z";

fn pod_file(id: u8, name: &str) -> FileRef {
    let path = format!("shop_cart_{UID}/web/{name}");
    FileRef { root: "pods".into(), path, id: [id; 16], ..FileRef::default() }
}

fn plain_file() -> FileRef {
    FileRef { root: "sys".into(), path: "/var/log/syslog".into(), id: [9; 16], ..FileRef::default() }
}

/// Feeds frames and shows what comes out: `stream|text`, with `!` behind what was cut.
struct Feed {
    joiner: Joiner,
    seq: u64,
    out: Vec<String>,
    times: Vec<u64>,
}

impl Feed {
    fn new(line_bytes: usize, room: usize) -> Feed {
        Feed { joiner: Joiner::new(line_bytes, room), seq: 0, out: Vec::new(), times: Vec::new() }
    }

    fn feed(&mut self, received_at: u64, file: &FileRef, raw: &[u8]) -> &mut Feed {
        self.seq += 1;
        let piece = Piece { seq: self.seq, received_at, file, enrichment: &[], raw };
        let mut walk = self.joiner.begin(&piece);
        while let Some(line) = self.joiner.next(&piece, &mut walk) {
            let (out, at) = (show(&line), line.at);
            self.out.push(out);
            self.times.push(at);
        }
        self
    }

    fn pass(&mut self, received_at: u64) -> &mut Feed {
        self.seq += 1;
        self.joiner.pass(self.seq, received_at);
        while let Some(line) = self.joiner.closed() {
            self.out.push(show(&line));
        }
        self
    }
}

fn show(line: &Line) -> String {
    let stream = line.stream.map_or("-", Stream::name);
    format!("{stream}|{}{}", String::from_utf8_lossy(&line.text), if line.cut { "!" } else { "" })
}

#[test]
fn pieces_are_joined_by_output_and_carry_the_time_of_the_last() {
    let mut feed = Feed::new(1000, 100_000);
    let text = format!("{TIME} stdout P a\n{TIME} stderr F x\n2026-01-01T00:00:00.000000008Z stdout F b\nno record\n");
    feed.feed(50, &pod_file(1, "0.log"), text.as_bytes());
    assert_eq!(feed.out, ["stderr|x", "stdout|ab", "-|no record"]);
    let base = cri::time_ns(TIME.as_bytes()).unwrap();
    assert_eq!(feed.times, [base, base + 1, 50 + 3]);
    assert_eq!(feed.joiner.needs(), None);
}

#[test]
fn lines_of_a_plain_file_are_a_nanosecond_apart() {
    let mut feed = Feed::new(1000, 100_000);
    feed.feed(50, &plain_file(), b"a\n\nb\r\n");
    assert_eq!(feed.out, ["-|a", "-|", "-|b"]);
    assert_eq!(feed.times, [50, 51, 52]);
}

#[test]
fn a_line_that_does_not_end_is_closed_when_a_later_frame_is_five_seconds_on() {
    let mut feed = Feed::new(1000, 100_000);
    feed.feed(SECOND, &pod_file(1, "0.log"), format!("{TIME} stdout P a\n").as_bytes());
    let mut on = pod_file(1, "0.log");
    on.offset = format!("{TIME} stdout P a\n").len() as u64;
    feed.pass(6 * SECOND - 1);
    assert_eq!((feed.out.len(), feed.joiner.needs()), (0, Some(1)));
    feed.feed(6 * SECOND, &on, format!("{TIME} stdout F b\n").as_bytes());
    assert_eq!(feed.out, ["stdout|a", "stdout|b"]);
    assert_eq!(feed.joiner.needs(), None);
}

#[test]
fn frames_alone_close_a_line_too_when_the_clock_stands_still() {
    let mut feed = Feed::new(1000, 100_000);
    feed.feed(SECOND, &plain_file(), b"a");
    feed.seq += OPEN_FRAMES - 1;
    feed.pass(0);
    assert_eq!(feed.out, ["-|a"]);
}

#[test]
fn a_rotation_between_two_pieces_does_not_tear_a_line() {
    let mut feed = Feed::new(1000, 100_000);
    let mut old = pod_file(1, "0.log.20260101-000000");
    old.end = Some("rotated".into());
    feed.feed(1, &old, format!("{TIME} stdout P a\n{TIME} stderr P x\n{TIME} stdo").as_bytes());
    feed.feed(2, &pod_file(2, "0.log"), format!("{TIME} stdout F b\n{TIME} stderr F y\n").as_bytes());
    assert_eq!(feed.out, [format!("-|{TIME} stdo"), "stdout|ab".into(), "stderr|xy".into()]);
}

#[test]
fn what_cannot_continue_a_line_closes_it() {
    let partial = format!("{TIME} stdout P a\n");
    let next = format!("{TIME} stdout F b\n");
    let end = partial.len() as u64;
    let cases: [(&str, FileRef, FileRef); 5] = [
        ("another file without a rotation", pod_file(1, "0.log"), pod_file(2, "0.log")),
        ("a gap", pod_file(1, "0.log"), FileRef { offset: end + 5, ..pod_file(1, "0.log") }),
        ("a truncation", pod_file(1, "0.log"), FileRef { generation: 1, ..pod_file(1, "0.log") }),
        ("a deletion", FileRef { end: Some("deleted".into()), ..pod_file(1, "0.log") }, pod_file(2, "0.log")),
        ("another container", pod_file(1, "0.log"), pod_file(2, "1.log")),
    ];
    for (what, first, second) in cases {
        let mut feed = Feed::new(1000, 100_000);
        feed.feed(1, &first, partial.as_bytes()).feed(2, &second, next.as_bytes()).pass(SECOND * 9);
        feed.out.sort();
        assert_eq!(feed.out, ["stdout|a", "stdout|b"], "{what}");
    }
}

#[test]
fn the_end_of_an_earlier_file_told_again_tears_nothing() {
    let mut feed = Feed::new(1000, 100_000);
    let half = format!("{TIME} stdout P a\n");
    let end = half.len() as u64;
    let again = FileRef { end: Some("rotated".into()), offset: 99, ..pod_file(1, "0.log.1") };
    feed.feed(1, &pod_file(2, "0.log"), half.as_bytes()).feed(2, &again, b"");
    feed.feed(3, &FileRef { offset: end, ..pod_file(2, "0.log") }, format!("{TIME} stdout F b\n").as_bytes());
    assert_eq!(feed.out, ["stdout|ab"]);
}

#[test]
fn an_evicted_file_goes_on_where_it_stopped() {
    let mut feed = Feed::new(1000, 100_000);
    let first = FileRef { end: Some("evicted".into()), ..plain_file() };
    feed.feed(1, &first, b"one two").feed(2, &FileRef { offset: 7, ..plain_file() }, b" three\n");
    assert_eq!(feed.out, ["-|one two three"]);
}

#[test]
fn an_endless_line_is_cut_and_costs_no_more_than_its_limit() {
    let mut feed = Feed::new(10, 100_000);
    let mut file = plain_file();
    for _ in 0..50 {
        feed.feed(1, &file, b"1234567");
        file.offset += 7;
        assert!(feed.joiner.bytes <= 10 + OPEN_OVERHEAD_BYTES);
    }
    feed.feed(1, &file, b"end\nnext\n");
    assert_eq!(feed.out, ["-|1234567123!", "-|next"]);
    assert_eq!(feed.joiner.bytes, 0);
}

#[test]
fn room_is_made_by_closing_the_oldest() {
    let mut feed = Feed::new(1000, 8 * OPEN_OVERHEAD_BYTES);
    for id in 0..100_u8 {
        let file = FileRef { id: [id; 16], ..plain_file() };
        feed.feed(u64::from(id), &file, format!("{id}").as_bytes());
        assert!(feed.joiner.bytes <= 8 * OPEN_OVERHEAD_BYTES);
    }
    feed.pass(SECOND * 99);
    assert_eq!(feed.out, (0..100).map(|id| format!("-|{id}")).collect::<Vec<_>>());
    assert!(feed.joiner.open.is_empty() && feed.joiner.bytes == 0);
}

#[test]
fn half_a_record_at_the_end_of_a_file_belongs_to_the_open_line() {
    let mut feed = Feed::new(1000, 100_000);
    let file = FileRef { end: Some("deleted".into()), ..pod_file(1, "0.log") };
    feed.feed(1, &file, format!("{TIME} stdout P a\n{TIME} stdout F b").as_bytes());
    assert_eq!(feed.out, ["stdout|ab"]);
}

#[test]
fn a_copy_goes_its_own_way() {
    let mut feed = Feed::new(1000, 100_000);
    feed.feed(1, &plain_file(), b"a");
    let copy = feed.joiner.clone();
    feed.feed(2, &FileRef { offset: 1, ..plain_file() }, b"b\n");
    let mut other = Feed { joiner: copy, seq: 1, out: Vec::new(), times: Vec::new() };
    other.feed(2, &FileRef { offset: 1, ..plain_file() }, b"c\n");
    assert_eq!((&feed.out[0][..], &other.out[0][..]), ("-|ab", "-|ac"));
}

/// A writer: lines of two outputs in pieces, as the runtime writes them.
fn written(lines: &[(bool, Vec<String>)]) -> (Vec<u8>, Vec<String>) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for (stderr, pieces) in lines {
        let stream = if *stderr { "stderr" } else { "stdout" };
        for (i, piece) in pieces.iter().enumerate() {
            let tag = if i + 1 == pieces.len() { "F" } else { "P" };
            bytes.extend_from_slice(format!("{TIME} {stream} {tag} {piece}\n").as_bytes());
        }
        expected.push(format!("{stream}|{}", pieces.concat()));
    }
    (bytes, expected)
}

fn lines() -> impl Strategy<Value = Vec<(bool, Vec<String>)>> {
    prop::collection::vec((any::<bool>(), prop::collection::vec("[a-z ]{0,6}", 1..5)), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_the_cuts_every_line_comes_out_once_and_whole(
        a in lines(), b in lines(), cuts in prop::collection::vec((any::<bool>(), 1usize..90), 0..200),
    ) {
        let files = [pod_file(1, "0.log"), pod_file(2, "1.log")];
        let written = [written(&a), written(&b)];
        let mut feed = Feed::new(1000, 1_000_000);
        let (mut at, mut out) = ([0, 0], [Vec::new(), Vec::new()]);
        let rest = [(false, usize::MAX), (true, usize::MAX)];
        for (which, len) in cuts.into_iter().chain(rest) {
            let which = usize::from(which);
            let bytes = &written[which].0;
            let end = at[which] + len.min(bytes.len() - at[which]);
            let file = FileRef { offset: at[which] as u64, ..files[which].clone() };
            feed.feed(1, &file, &bytes[at[which]..end]);
            at[which] = end;
            out[which].append(&mut feed.out);
        }
        prop_assert_eq!(&out[0], &written[0].1);
        prop_assert_eq!(&out[1], &written[1].1);
        prop_assert!(feed.joiner.open.is_empty() && feed.joiner.bytes == 0);
    }

    #[test]
    fn anything_at_all_is_taken_apart_the_same_way_twice_and_no_byte_is_lost(
        chunks in prop::collection::vec((0u8..3, "[PF\n ]{0,9}|(x stdout P |x stderr F )[a\n]{0,5}", 0u64..3), 0..30),
    ) {
        let run = || {
            let (mut feed, mut now, mut offsets) = (Feed::new(1000, 4 * OPEN_OVERHEAD_BYTES), 0, [0; 3]);
            for (which, text, seconds) in &chunks {
                now += seconds * SECOND;
                let which = usize::from(*which);
                let mut file = if which == 0 { plain_file() } else { pod_file(which as u8, "0.log") };
                file.offset = offsets[which];
                offsets[which] += text.len() as u64;
                feed.feed(now, &file, text.as_bytes());
                assert_eq!(feed.joiner.bytes, feed.joiner.open.values().map(|open| open.bytes()).sum::<usize>());
            }
            feed.pass(now + 99 * SECOND);
            assert!(feed.joiner.open.is_empty());
            feed.out
        };
        let out = run();
        prop_assert_eq!(&out, &run());
        let plain: String = chunks.iter().filter(|c| c.0 == 0).map(|c| c.1.as_str()).collect();
        let a = |text: &str| text.matches('a').count();
        prop_assert!(out.iter().map(|line| a(line)).sum::<usize>() >= a(&plain));
    }

    #[test]
    fn a_stop_in_the_middle_begins_again_where_it_needs_to_and_says_the_same(
        lines in lines(), cuts in prop::collection::vec(1usize..60, 1..60), stop in any::<prop::sample::Index>(),
    ) {
        let (bytes, _) = written(&lines);
        let mut frames = Vec::new();
        let mut at = 0;
        for len in cuts.iter().copied().chain([usize::MAX]) {
            let end = at + len.min(bytes.len() - at);
            frames.push((at as u64, &bytes[at..end]));
            at = end;
        }
        let run = |feed: &mut Feed, from: usize, to: usize| {
            for (i, (offset, raw)) in frames.iter().enumerate().take(to).skip(from) {
                feed.seq = i as u64;
                feed.feed(1, &FileRef { offset: *offset, ..pod_file(1, "0.log") }, raw);
            }
        };
        let stop = stop.index(frames.len() + 1);
        let mut whole = Feed::new(1000, 1_000_000);
        run(&mut whole, 0, stop);
        let (needs, sent) = (whole.joiner.needs().map_or(stop, |seq| seq as usize - 1), whole.out.len());
        run(&mut whole, stop, frames.len());
        let mut again = Feed::new(1000, 1_000_000);
        run(&mut again, needs, stop);
        again.out.clear();
        run(&mut again, stop, frames.len());
        prop_assert_eq!(&again.out[..], &whole.out[sent..]);
    }
}
