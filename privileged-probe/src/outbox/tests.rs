//! The outbox against a model of its reader: whatever breaks, every byte arrives, in order, and once after trimming.

use super::*;
use ipc::{Decoder, Frame, Message, Root};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn opened(file: u32) -> Opened {
    Opened {
        file,
        root: Root::Pods,
        path: format!("ns_pod_uid/c/{file}.log").into_bytes(),
        id: [file as u8; 16],
        generation: 0,
        device: 1,
        inode: u64::from(file),
        length: 0,
        position: 0,
        rotated: false,
    }
}

fn closed(file: u32, end: u64) -> Closed {
    Closed { file, end, reason: "deleted".into() }
}

fn frame(parcel: &Parcel) -> Frame {
    let bytes = [&parcel.head[..], &parcel.bulk[..]].concat();
    let mut rest = &bytes[..];
    Decoder::new().feed(&mut rest).expect("own frames are well formed").expect("and whole")
}

/// All that is there to send, as text.
fn drain(outbox: &Outbox) -> Vec<String> {
    std::iter::from_fn(|| outbox.next())
        .map(|p| {
            let f = frame(&p);
            match f.message {
                Message::Opened(o) => format!("open {} at {}", o.file, o.position),
                Message::Closed(c) => format!("close {} at {}", c.file, c.end),
                Message::LogBytes(b) => format!("{}: {}+{} of {}", f.seq, b.offset, f.bulk.len(), b.file),
                Message::Stacks(s) => format!("{}: {} samples", f.seq, s.samples),
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).expect("poll") > 0
}

#[test]
fn nothing_leaves_before_a_client_said_what_it_holds() {
    let outbox = Outbox::new().expect("eventfd");
    outbox.opened(opened(1));
    outbox.stacks(Stacks { samples: 3, ..Stacks::default() }, vec![]);
    assert!(drain(&outbox).is_empty());
    outbox.connected();
    assert_eq!(drain(&outbox).len(), 2);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_behind_the_files_it_belongs_to() {
    let outbox = Outbox::new().expect("eventfd");
    outbox.connected();
    outbox.opened(opened(1));
    assert!(outbox.log_bytes(1, 0, vec![b'a'; 10]));
    assert!(outbox.log_bytes(1, 10, vec![b'b'; 5]));
    outbox.closed(closed(1, 15));
    assert_eq!(drain(&outbox), ["open 1 at 0", "1: 0+10 of 1", "2: 10+5 of 1", "close 1 at 15"]);
    outbox.durable(Index::Logs, 1);
    outbox.connected();
    assert_eq!(drain(&outbox), ["open 1 at 10", "2: 10+5 of 1", "close 1 at 15"], "the position follows what is safe");
    outbox.durable(Index::Logs, 2);
    outbox.connected();
    assert_eq!(drain(&outbox), ["open 1 at 15", "close 1 at 15"], "an end is kept until bytes behind it are safe");
    outbox.opened(opened(2));
    assert!(outbox.log_bytes(2, 0, vec![b'c']));
    assert_eq!(drain(&outbox), ["open 2 at 0", "3: 0+1 of 2"]);
    outbox.durable(Index::Logs, 3);
    outbox.connected();
    assert_eq!(drain(&outbox), ["open 2 at 1"]);
}

#[test]
fn durable_ends_are_given_once_and_announced_by_a_descriptor() {
    let outbox = Outbox::new().expect("eventfd");
    outbox.connected();
    outbox.opened(opened(1));
    outbox.log_bytes(1, 0, vec![0; 10]);
    outbox.log_bytes(1, 10, vec![0; 10]);
    drain(&outbox);
    assert!(!readable(outbox.durable_fd()));
    outbox.durable(Index::Logs, 0);
    assert!(!readable(outbox.durable_fd()), "zero acknowledges nothing");
    outbox.durable(Index::Logs, 2);
    assert!(readable(outbox.durable_fd()));
    assert_eq!(outbox.take_durable(), [(1, 20)]);
    assert!(!readable(outbox.durable_fd()));
    assert!(outbox.take_durable().is_empty());
    let log = outbox.snapshot().log;
    assert_eq!((log.sent, log.durable, log.waiting), (20, 20, 0));
}

#[test]
fn a_full_log_bay_makes_its_reader_wait_until_a_number_returns() {
    let outbox = Outbox::new().expect("eventfd");
    outbox.connected();
    outbox.opened(opened(1));
    assert!(outbox.log_bytes(1, 0, vec![0; LOG_BYTES_MAX]), "larger than a frame: cut, not refused");
    let (told, heard) = std::sync::mpsc::channel();
    let (other, reader) = (outbox.clone(), told.clone());
    let thread = std::thread::spawn(move || {
        reader.send("began").expect("heard");
        let taken = other.log_bytes(1, LOG_BYTES_MAX as u64, vec![0; 1]);
        reader.send(if taken { "taken" } else { "refused" }).expect("heard");
    });
    assert_eq!(heard.recv(), Ok("began"));
    told.send("acknowledging").expect("heard");
    assert_eq!(drain(&outbox).len(), 1 + LOG_BYTES_MAX / ipc::LOG_BULK_BYTES_MAX);
    assert_eq!(outbox.snapshot().log.waiting, LOG_BYTES_MAX as u64, "the byte that waits is not in");
    outbox.durable(Index::Logs, 1);
    assert_eq!(heard.recv(), Ok("acknowledging"));
    assert_eq!(heard.recv(), Ok("taken"));
    thread.join().expect("no panic");
}

#[test]
fn stopping_ends_the_wait_and_takes_nothing_more() {
    let outbox = Outbox::new().expect("eventfd");
    outbox.log_bytes(1, 0, vec![0; LOG_BYTES_MAX]);
    let other = outbox.clone();
    let thread = std::thread::spawn(move || other.log_bytes(1, LOG_BYTES_MAX as u64, vec![0; 1]));
    assert!(!readable(outbox.stop_fd()));
    outbox.stop();
    assert_eq!(thread.join().ok(), Some(false));
    assert!(outbox.stopping() && readable(outbox.stop_fd()));
    assert!(!outbox.log_bytes(1, 0, vec![]));
}

#[test]
fn a_full_stacks_bay_drops_the_oldest_and_counts_its_samples() {
    let outbox = Outbox::new().expect("eventfd");
    for samples in 1..=9 {
        outbox.stacks(Stacks { samples, ..Stacks::default() }, vec![0; 1024 * 1024]);
    }
    // 8 MiB hold seven windows of 1 MiB and their forms.
    assert!(outbox.stacks_fill() > 0.87 && outbox.stacks_fill() <= 1.0, "{}", outbox.stacks_fill());
    assert_eq!(outbox.snapshot().stacks_dropped, 1 + 2);
    outbox.connected();
    let sent = drain(&outbox);
    assert_eq!((sent.len(), sent[0].as_str()), (7, "3: 3 samples"), "numbers are not given twice");
    outbox.durable(Index::Profiles, 8);
    outbox.connected();
    assert_eq!(drain(&outbox), ["9: 9 samples"]);
    outbox.stacks(Stacks { samples: 50, ..Stacks::default() }, vec![0; ipc::STACKS_BULK_BYTES_MAX + 1]);
    assert_eq!(outbox.snapshot().stacks_dropped, 53, "what no frame can hold is dropped and counted");
}

#[test]
fn files_that_come_and_go_without_a_byte_do_not_fill_the_memory() {
    let outbox = Outbox::new().expect("eventfd");
    for file in 0..20_000 {
        outbox.opened(opened(file));
        outbox.closed(closed(file, 0));
    }
    outbox.opened(opened(20_000));
    outbox.connected();
    let sent = drain(&outbox);
    assert!(sent.len() <= logs::EVENTS_MAX + 1, "{}", sent.len());
    assert_eq!(sent.last().map(String::as_str), Some("open 20000 at 0"));
}

#[test]
fn logs_and_stacks_take_turns() {
    let outbox = Outbox::new().expect("eventfd");
    outbox.connected();
    for i in 0..3 {
        outbox.log_bytes(1, i, vec![0]);
        outbox.stacks(Stacks { samples: 1, ..Stacks::default() }, vec![]);
    }
    let kinds: Vec<_> = std::iter::from_fn(|| outbox.next()).filter_map(|p| p.number.map(|n| n.0)).collect();
    assert_eq!(kinds.iter().filter(|k| **k == Index::Logs).count(), 3);
    assert!(kinds.windows(2).all(|w| w[0] != w[1]), "{kinds:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Bytes { pick: usize, len: usize },
    Close { pick: usize },
    Send { count: usize },
    Ack { back: u64 },
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Open),
        6 => (any::<usize>(), 0usize..50).prop_map(|(pick, len)| Step::Bytes { pick, len }),
        1 => any::<usize>().prop_map(|pick| Step::Close { pick }),
        4 => (1usize..6).prop_map(|count| Step::Send { count }),
        2 => (0u64..4).prop_map(|back| Step::Ack { back }),
        1 => Just(Step::Cut),
    ]
}

/// The other end: knows files only by what it was told on this connection; keeps what it has for ever.
#[derive(Default)]
struct Reader {
    open: BTreeMap<u32, u64>,
    held: BTreeMap<u32, Vec<u8>>,
    ended: BTreeMap<u32, u64>,
    seq: u64,
}

impl Reader {
    fn take(&mut self, parcel: &Parcel) {
        let f = frame(parcel);
        match f.message {
            Message::Opened(o) => {
                let held = self.held.entry(o.file).or_default().len() as u64;
                assert!(o.position <= held, "file {} begins at {} and only {held} bytes were sent", o.file, o.position);
                self.open.insert(o.file, o.position);
            }
            Message::LogBytes(b) => {
                let at = self.open.get_mut(&b.file).expect("announced on this connection");
                assert_eq!(*at, b.offset, "bytes follow each other");
                *at += f.bulk.len() as u64;
                let held = self.held.entry(b.file).or_default();
                let new = held.len().saturating_sub(b.offset as usize).min(f.bulk.len());
                held.extend_from_slice(&f.bulk[new..]);
                assert_eq!(f.seq, self.seq + 1, "numbers follow each other");
                self.seq = f.seq;
            }
            Message::Closed(c) => {
                assert_eq!(self.open.remove(&c.file), Some(c.end), "all bytes came before the end");
                self.ended.insert(c.file, c.end);
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn whatever_breaks_every_byte_arrives_in_order(steps in proptest::collection::vec(step(), 1..120)) {
        let outbox = Outbox::new().expect("eventfd");
        outbox.connected();
        let mut wrote: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut live: Vec<u32> = vec![];
        let mut safe: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut reader, mut acked, mut value) = (Reader::default(), 0u64, 0u8);
        for step in steps {
            match step {
                Step::Open => {
                    let file = wrote.len() as u32;
                    wrote.insert(file, vec![]);
                    live.push(file);
                    outbox.opened(opened(file));
                }
                Step::Bytes { pick, len } if !live.is_empty() => {
                    let file = live[pick % live.len()];
                    let all = wrote.entry(file).or_default();
                    let bytes: Vec<u8> = (0..len).map(|_| { value = value.wrapping_add(1); value }).collect();
                    outbox.log_bytes(file, all.len() as u64, bytes.clone());
                    all.extend(bytes);
                }
                Step::Close { pick } if !live.is_empty() => {
                    let file = live.remove(pick % live.len());
                    outbox.closed(closed(file, wrote[&file].len() as u64));
                }
                Step::Send { count } => for _ in 0..count {
                    let Some(parcel) = outbox.next() else { break };
                    reader.take(&parcel);
                },
                Step::Ack { back } => {
                    acked = acked.max(reader.seq.saturating_sub(back));
                    outbox.durable(Index::Logs, acked);
                }
                Step::Cut => {
                    reader.open.clear();
                    reader.seq = acked;
                    outbox.connected();
                }
                _ => {}
            }
        }
        while let Some(parcel) = outbox.next() {
            reader.take(&parcel);
        }
        outbox.durable(Index::Logs, reader.seq);
        for (file, end) in outbox.take_durable() {
            safe.insert(file, end);
        }
        for (file, bytes) in &wrote {
            prop_assert_eq!(reader.held.get(file).map_or(&[][..], |b| b), &bytes[..]);
            prop_assert_eq!(safe.get(file).copied().unwrap_or(0), bytes.len() as u64);
            if !live.contains(file) {
                prop_assert_eq!(reader.ended.get(file), Some(&(bytes.len() as u64)));
            }
        }
        prop_assert_eq!(outbox.snapshot().log.waiting, 0);
    }
}
