//! The reader of the door against bytes of every kind: whole frames in pieces, cut ones, altered ones, and nonsense.

use ipc::stacks::{End, Kind, Location, Mapping, Stack, Strings, Table};
use ipc::*;
use proptest::prelude::*;

fn samples() -> Vec<(u64, Message, Vec<u8>)> {
    let hello = Hello {
        version: VERSION,
        start: [7; 16],
        boot: "b".into(),
        host: "h".into(),
        kernel: "6.18".into(),
        cpus: 2,
        hz: 97,
        features: vec![Feature { name: "cpu".into(), on: false, reason: "no BTF".into() }],
    };
    let opened = Opened {
        file: 3,
        root: Root::Files { name: "syslog".into() },
        path: b"/var/log/\xff\n".to_vec(),
        id: [200; 16],
        generation: 1,
        device: u64::MAX,
        inode: 5,
        length: 10,
        position: 4,
        rotated: true,
    };
    let status = Status {
        dropped_proof: vec![("BPF_MAP_CREATE".into(), true)],
        cpus: vec![CpuCount { cpu: 0, samples: 97 }],
        ..Status::default()
    };
    vec![
        (0, Message::Hello(hello), vec![]),
        (0, Message::Opened(opened.clone()), vec![]),
        (0, Message::Opened(Opened { root: Root::Pods, ..opened }), vec![]),
        (1, Message::LogBytes(LogBytes { file: 3, offset: 4 }), b"one\ntwo\n".to_vec()),
        (0, Message::Closed(Closed { file: 3, end: 12, reason: "deleted".into() }), vec![]),
        (1, Message::Stacks(Stacks { samples: 2, ..Stacks::default() }), table().encode()),
        (0, Message::Status(Box::new(status)), vec![]),
    ]
}

fn table() -> Table {
    let mut strings = Strings::default();
    let (file, function, cut) = (strings.number("/bin/x"), strings.number("main"), strings.number("[truncated: gap]"));
    let location = |address, mapping, function, kind| Location { address, mapping, function, file: 0, line: 0, kind };
    Table {
        strings: strings.into_list(),
        mappings: vec![Mapping { start: 1, limit: 2, offset: 0, file, build_id: 0 }],
        locations: vec![location(1, 1, function, Kind::User), location(0, 0, cut, Kind::Truncated)],
        stacks: vec![Stack { process: 0, count: 2, end: End::Gap, locations: vec![0, 1] }],
    }
}

fn wire() -> Vec<u8> {
    let mut out = Vec::new();
    for (seq, message, bulk) in samples() {
        write_frame(&mut out, seq, &message, &bulk).expect("samples fit");
    }
    out
}

/// Feeds `bytes` in pieces of `piece`; frames until the end or the first error.
fn read(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<Malformed>, Decoder) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for mut part in bytes.chunks(piece.max(1)) {
        loop {
            match decoder.feed(&mut part) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(e) => return (frames, Some(e), decoder),
            }
        }
    }
    (frames, None, decoder)
}

#[test]
fn every_message_comes_out_as_it_went_in_whatever_the_pieces() {
    let wire = wire();
    for piece in [1, 7, 24, 1000, wire.len()] {
        let (frames, error, decoder) = read(&wire, piece);
        assert_eq!(error, None);
        assert!(decoder.at_boundary());
        let got: Vec<_> = frames.into_iter().map(|f| (f.seq, f.message, f.bulk)).collect();
        assert_eq!(got, samples());
    }
}

#[test]
fn the_header_looks_as_it_is_drawn() {
    let head = encode_head(0x0102, &Message::LogBytes(LogBytes { file: 1, offset: 2 }), 5).expect("small");
    assert_eq!(&head[..8], b"BKD1\x03\x01\0\0");
    assert_eq!(head[8..12], (head.len() as u32 - 24).to_le_bytes());
    assert_eq!(&head[12..24], &[5, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&head[24..], b"\x82\xa4file\x01\xa6offset\x02");
}

#[test]
fn a_field_from_the_future_is_passed_over() {
    let control = b"\x83\xa4file\x01\xa3new\x93\x01\xc0\xa1x\xa6offset\x02";
    let mut frame = encode_head(9, &Message::LogBytes(LogBytes { file: 0, offset: 0 }), 0).expect("small");
    frame.truncate(24);
    frame[8..12].copy_from_slice(&(control.len() as u32).to_le_bytes());
    frame.extend_from_slice(control);
    let (frames, error, _) = read(&frame, 3);
    assert_eq!(error, None);
    assert_eq!(frames[0].message, Message::LogBytes(LogBytes { file: 1, offset: 2 }));
}

/// A header with one field changed, without anything behind it.
fn header(change: impl FnOnce(&mut Vec<u8>)) -> Option<Malformed> {
    let mut h = encode_head(1, &Message::LogBytes(LogBytes { file: 1, offset: 2 }), 5).expect("small");
    h.truncate(24);
    change(&mut h);
    read(&h, 24).1
}

#[test]
fn a_header_is_refused_before_any_memory_is_taken_for_it() {
    assert_eq!(header(|_| {}), None);
    assert_eq!(header(|h| h[0] = b'X'), Some(Malformed::Magic(*b"XKD1")));
    assert_eq!(header(|h| h[4] = 7), Some(Malformed::Kind(7)));
    assert_eq!(header(|h| h[5] = 2), Some(Malformed::Version(2)));
    assert_eq!(header(|h| h[7] = 1), Some(Malformed::Reserved(256)));
    assert_eq!(header(|h| h[16] = 0), Some(Malformed::Seq { kind: 3, seq: 0 }));
    let long = |what, len, max| Some(Malformed::Length { what, len, max });
    assert_eq!(header(|h| h[10] = 2), long("control", 131_072 + 15, 65_536));
    assert_eq!(header(|h| h[12..16].fill(0xff)), long("bulk", u64::from(u32::MAX), 1_048_576));
    assert_eq!(
        header(|h| (h[4], h[12], h[16]) = (1, 1, 0)),
        long("bulk", 1, 0),
        "Hello, Opened, Closed and Status carry no bulk"
    );
}

#[test]
fn what_the_other_end_would_refuse_is_not_written() {
    let bytes = Message::LogBytes(LogBytes { file: 1, offset: 0 });
    assert_eq!(encode_head(1, &bytes, 1 << 20).map(|_| ()), Ok(()));
    assert_eq!(encode_head(1, &bytes, (1 << 20) + 1), Err(TooLarge { what: "bulk", len: (1 << 20) + 1, max: 1 << 20 }));
    let closed = Message::Closed(Closed { file: 1, end: 0, reason: "x".repeat(70_000) });
    assert!(matches!(encode_head(0, &closed, 0), Err(TooLarge { what: "control", .. })));
    assert!(encode_head(0, &Message::Hello(Hello::default()), 1).is_err());
}

/// A frame of kind 6 (every field of Status has a default) with this control part.
fn status(control: &[u8]) -> Result<Message, Malformed> {
    let mut frame = b"BKD1\x06\x01\0\0".to_vec();
    frame.extend_from_slice(&(control.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(control);
    let (mut frames, error, _) = read(&frame, 4096);
    match error {
        Some(e) => Err(e),
        None => Ok(frames.remove(0).message),
    }
}

#[test]
fn a_control_part_is_one_map_of_small_depth_and_nothing_behind_it() {
    assert!(status(b"\x80").is_ok());
    let why = |c: &[u8]| match status(c) {
        Err(Malformed::Control { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(b""), "it is no MessagePack map");
    assert_eq!(why(b"\x90"), "it is no MessagePack map");
    assert_eq!(why(b"\x80\x80"), "1 bytes behind its end");
    let nested = |levels: usize| {
        let mut c = b"\x81\xa1x".to_vec();
        c.extend(std::iter::repeat_n(0x91, levels));
        c.push(0xc0);
        c
    };
    assert!(status(&nested(CONTROL_DEPTH_MAX - 2)).is_ok());
    assert!(why(&nested(CONTROL_DEPTH_MAX)).contains("depth"), "{}", why(&nested(CONTROL_DEPTH_MAX)));
    assert!(why(&nested(60_000)).contains("depth"));
    // A list that says it has four thousand million entries.
    assert!(status(b"\x81\xa4lost\xdd\xff\xff\xff\xff").is_err());
}

#[test]
fn a_broken_decoder_stays_broken() {
    let mut bytes = wire();
    bytes[0] = 0;
    let (frames, error, mut decoder) = read(&bytes, 24);
    assert!(frames.is_empty());
    let good = wire();
    assert_eq!(decoder.feed(&mut &good[..]).err(), error);
}

#[test]
fn a_table_survives_and_a_cut_one_never_does() {
    let bytes = table().encode();
    assert_eq!(Table::decode(&bytes), Ok(table()));
    assert!(table().names_processes_below(1));
    assert!(!table().names_processes_below(0));
    for cut in 0..bytes.len() {
        assert!(Table::decode(&bytes[..cut]).is_err(), "{cut} bytes of {}", bytes.len());
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(Table::decode(&longer), Err(stacks::Malformed::Trailing(1)));
}

#[test]
fn every_number_of_a_table_points_at_something() {
    let broken = |change: fn(&mut Table)| {
        let mut t = table();
        change(&mut t);
        Table::decode(&t.encode()).expect_err("must be refused").to_string()
    };
    assert_eq!(broken(|t| t.stacks[0].locations[1] = 2), "location of stack 2 of entry 0 does not exist");
    assert_eq!(broken(|t| t.locations[0].mapping = 2), "mapping of location 2 of entry 0 does not exist");
    assert_eq!(broken(|t| t.locations[0].function = 9), "function of location 9 of entry 0 does not exist");
    assert_eq!(broken(|t| t.locations[1].file = 4), "file of location 4 of entry 1 does not exist");
    assert_eq!(broken(|t| t.mappings[0].build_id = 4), "build id of mapping 4 of entry 0 does not exist");
    assert_eq!(broken(|t| t.mappings[0].file = 4), "file of mapping 4 of entry 0 does not exist");
    assert_eq!(broken(|t| t.strings[0] = "x".into()), "string 0 of a stack table is not valid");
    assert!(broken(|t| t.stacks[0].locations = vec![0; 1025]).contains("1025 locations in a stack"));
}

#[test]
fn a_long_name_is_cut_at_a_character() {
    let mut t = table();
    t.strings[2] = "é".repeat(20_000);
    let back = Table::decode(&t.encode()).expect("cut, not refused");
    assert_eq!(back.strings[2], "é".repeat(stacks::STRING_BYTES_MAX / 2));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
        let _ = read(&bytes, piece);
        let _ = Table::decode(&bytes);
        let _ = status(&[b"\x81\xa4lost", &bytes[..]].concat());
    }

    #[test]
    fn altered_frames_are_read_or_refused_and_the_size_of_a_piece_changes_nothing(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        piece in 1usize..200,
    ) {
        let mut bytes = wire();
        for (at, value) in changes {
            let i = at.index(bytes.len());
            bytes[i] = value;
        }
        let (a, b) = (read(&bytes, piece), read(&bytes, bytes.len()));
        prop_assert_eq!(&a.0, &b.0);
        prop_assert_eq!(&a.1, &b.1);
        prop_assert_eq!(a.2.at_boundary(), b.2.at_boundary());
    }

    #[test]
    fn altered_tables_are_refused_or_point_inside(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = table().encode();
        for (at, value) in changes {
            let i = at.index(bytes.len());
            bytes[i] = value;
        }
        if let Ok(t) = Table::decode(&bytes) {
            // The reader's own promise: everything below is plain indexing.
            for s in &t.stacks {
                for l in &s.locations {
                    let l = t.locations[*l as usize];
                    let _ = (&t.strings[l.function as usize], &t.strings[l.file as usize]);
                    if l.mapping > 0 {
                        let m = t.mappings[l.mapping as usize - 1];
                        let _ = (&t.strings[m.file as usize], &t.strings[m.build_id as usize]);
                    }
                }
            }
            prop_assert_eq!(Table::decode(&t.encode()), Ok(t));
        }
    }
}
