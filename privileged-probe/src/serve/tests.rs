//! Hostile clients on a real socket: whatever they send, nothing of ours moves and the next client is served.

use super::*;
use ipc::{DURABLE_BYTES, Decoder, Durable, Frame, Index, LogBytes, Message, Opened, Root};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Nothing in these tests takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    outbox: Outbox,
    path: PathBuf,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _folder: tempfile::TempDir,
}

impl House {
    fn new(limits: Limits, rule: Rule) -> House {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("door.sock");
        let door = Door::open(&path, &rule).expect("a socket");
        let outbox = Outbox::new().expect("an outbox");
        let hello = Hello { version: 1, start: [3; 16], ..Hello::default() };
        let serve = Serve { listener: door.listener, rule, hello, limits };
        let theirs = outbox.clone();
        let thread = Some(std::thread::spawn(move || serve.run(&theirs)));
        House { outbox, path, thread, _folder: folder }
    }

    fn connect(&self) -> Guest {
        let stream = UnixStream::connect(&self.path).expect("the door listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        Guest { stream, decoder: Decoder::new(), bytes: vec![] }
    }

    /// Whether a well-behaved client gets in.
    fn serves(&self) -> bool {
        let mut guest = self.connect();
        matches!(guest.next(), Some(Frame { message: Message::Hello(_), .. }))
            && guest.says(0, 0)
            && matches!(guest.next(), Some(Frame { message: Message::Status(_), .. }))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.outbox.stop();
        let ended = self.thread.take().expect("once").join();
        if !std::thread::panicking() {
            ended.expect("no panic").expect("no error");
        }
    }
}

struct Guest {
    stream: UnixStream,
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl Guest {
    /// The next frame; `None` when the door closed.
    fn next(&mut self) -> Option<Frame> {
        loop {
            let mut rest = &self.bytes[..];
            let frame = self.decoder.feed(&mut rest).expect("the probe speaks well");
            self.bytes = rest.to_vec();
            if frame.is_some() {
                return frame;
            }
            let mut buffer = vec![0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(e) => panic!("neither a frame nor the end: {e}"),
                Ok(n) => self.bytes.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// The next frame that is no Status.
    fn next_but_status(&mut self) -> Option<Frame> {
        loop {
            match self.next() {
                Some(Frame { message: Message::Status(_), .. }) => {}
                other => return other,
            }
        }
    }

    fn says(&mut self, logs: u64, profiles: u64) -> bool {
        self.sends(&Durable::new(Index::Logs, logs).to_bytes())
            && self.sends(&Durable::new(Index::Profiles, profiles).to_bytes())
    }

    fn sends(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads until the door closes.
    fn gets_thrown_out(mut self) -> bool {
        while self.next().is_some() {}
        true
    }
}

/// No pauses, so that a test of ten thousand connections takes seconds; the pauses have their own test in `pace`.
fn quick() -> Limits {
    Limits { delay_first: Duration::ZERO, ..Limits::default() }
}

fn own() -> Rule {
    Rule { uid: Some(nix::unistd::geteuid().as_raw()), group: None }
}

fn opened(file: u32) -> Opened {
    Opened {
        file,
        root: Root::Pods,
        path: b"a".to_vec(),
        id: [1; 16],
        generation: 0,
        device: 1,
        inode: 1,
        length: 0,
        position: 0,
        rotated: false,
    }
}

fn bytes(frame: Option<Frame>) -> (u64, LogBytes, Vec<u8>) {
    match frame {
        Some(Frame { seq, message: Message::LogBytes(b), bulk }) => (seq, b, bulk),
        other => panic!("wanted log bytes, got {other:?}"),
    }
}

#[test]
fn hello_comes_first_then_what_the_client_says_decides_what_follows() {
    let house = House::new(quick(), own());
    house.outbox.opened(opened(1));
    house.outbox.log_bytes(1, 0, b"one\n".to_vec());
    house.outbox.log_bytes(1, 4, b"two\n".to_vec());
    let mut guest = house.connect();
    let Some(Frame { message: Message::Hello(hello), seq: 0, .. }) = guest.next() else { panic!("hello") };
    assert_eq!(hello.start, [3; 16]);
    assert!(guest.says(0, 0));
    let Some(Frame { message: Message::Status(status), .. }) = guest.next() else { panic!("status") };
    assert_eq!(status.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(status.log.waiting, 8);
    assert!(matches!(guest.next_but_status(), Some(Frame { message: Message::Opened(o), .. }) if o.file == 1));
    assert_eq!(bytes(guest.next_but_status()), (1, LogBytes { file: 1, offset: 0 }, b"one\n".to_vec()));
    assert_eq!(bytes(guest.next_but_status()), (2, LogBytes { file: 1, offset: 4 }, b"two\n".to_vec()));
    assert!(guest.sends(&Durable::new(Index::Logs, 1).to_bytes()));
    let mut fds = [PollFd::new(house.outbox.durable_fd(), PollFlags::POLLIN)];
    wait(&mut fds, PATIENCE).expect("poll");
    assert_eq!(house.outbox.take_durable(), [(1, 4)]);
    drop(guest);

    // A second connection of the same probe start: it holds frame 2 already.
    let mut guest = house.connect();
    guest.next().expect("hello");
    assert!(guest.says(2, 0));
    let Some(Frame { message: Message::Opened(o), .. }) = guest.next_but_status() else { panic!("announced again") };
    assert_eq!(o.position, 8);
    assert_eq!(house.outbox.take_durable(), [(1, 8)]);
}

#[test]
fn no_bytes_move_a_position_and_the_next_client_is_served() {
    let house = House::new(quick(), own());
    house.outbox.opened(opened(1));
    house.outbox.log_bytes(1, 0, b"one\n".to_vec());
    let mut state = 99u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for round in 0..500 {
        let mut guest = house.connect();
        guest.next().expect("hello");
        // Half of them begin well. The last record is always one that nobody may send.
        if round % 2 == 0 {
            guest.says(0, 0);
        }
        let noise: Vec<u8> = (0..usize::from(random())).map(|_| random()).collect();
        guest.sends(&noise);
        guest.sends(&[0xff; 2 * DURABLE_BYTES]);
        assert!(guest.gets_thrown_out());
    }
    assert!(house.outbox.take_durable().is_empty(), "nothing became durable");
    assert_eq!(house.outbox.snapshot().log.waiting, 4);
    assert!(house.serves());
}

#[test]
fn a_number_ahead_of_what_was_sent_ends_the_connection_and_moves_nothing() {
    let house = House::new(quick(), own());
    house.outbox.opened(opened(1));
    for first in [true, false] {
        let mut guest = house.connect();
        guest.next().expect("hello");
        if first {
            assert!(guest.says(1, 0));
        } else {
            assert!(guest.says(0, 0));
            guest.sends(&Durable::new(Index::Logs, 1).to_bytes());
        }
        assert!(guest.gets_thrown_out());
    }
    assert!(house.outbox.take_durable().is_empty());
    assert!(house.serves());
}

#[test]
fn a_descriptor_that_is_passed_is_not_kept_and_ends_the_connection() {
    let house = House::new(quick(), own());
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut guest = house.connect();
    guest.next().expect("hello");
    assert!(guest.says(0, 0));
    let zero = Durable::new(Index::Logs, 0).to_bytes();
    let many = [theirs.as_raw_fd(); 50];
    sendmsg::<()>(
        guest.stream.as_raw_fd(),
        &[IoSlice::new(&zero)],
        &[ControlMessage::ScmRights(&many)],
        MsgFlags::empty(),
        None,
    )
    .expect("sent");
    assert!(guest.gets_thrown_out());
    drop(theirs);
    assert_eq!(ours.read(&mut [0]).expect("closed on the other side"), 0, "no copy of the descriptor lives");
    assert!(house.serves());
}

#[test]
fn ten_thousand_connections_leave_the_door_as_it_was() {
    let house = House::new(quick(), own());
    for _ in 0..10_000 {
        drop(UnixStream::connect(&house.path).expect("the door listens"));
    }
    assert!(house.serves());
}

#[test]
fn the_wrong_user_hears_nothing() {
    let stranger = Rule { uid: Some(nix::unistd::geteuid().as_raw() + 1), group: None };
    let house = House::new(quick(), stranger);
    assert!(house.connect().next().is_none());
    assert!(house.connect().next().is_none());
}

#[test]
fn a_client_that_takes_a_byte_now_and_then_is_closed_after_the_send_deadline() {
    let house = House::new(Limits { send: Duration::from_millis(300), ..quick() }, own());
    house.outbox.opened(opened(1));
    house.outbox.log_bytes(1, 0, vec![b'x'; 2 * 1024 * 1024]);
    let mut guest = house.connect();
    guest.next().expect("hello");
    assert!(guest.says(0, 0));
    // A stream that is not read fills the socket's buffer, far below 2 MiB; single bytes do not empty it in time.
    let began = Instant::now();
    let mut byte = [0];
    while matches!(guest.stream.write(&[]), Ok(0)) && began.elapsed() < Duration::from_millis(900) {
        guest.stream.read_exact(&mut byte).expect("still bytes in the buffer");
        guest.decoder.feed(&mut &byte[..]).expect("well formed");
        // The guest's own slowness is what is tested; how long it takes decides nothing.
        std::thread::sleep(Duration::from_millis(30));
    }
    let mut got = 0;
    while let Some(frame) = guest.next() {
        got += frame.bulk.len();
    }
    assert!(got < 2 * 1024 * 1024, "it was closed before all was taken");
    assert_eq!(house.outbox.snapshot().log.waiting, 2 * 1024 * 1024, "what was not acknowledged is kept");
    assert!(house.serves());
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let house = House::new(Limits { first: Duration::from_millis(100), ..quick() }, own());
    let guest = house.connect();
    assert!(guest.gets_thrown_out());
    let mut half = house.connect();
    half.next().expect("hello");
    assert!(half.sends(&Durable::new(Index::Logs, 0).to_bytes()));
    assert!(half.gets_thrown_out(), "one of two records is not enough");
    assert!(house.serves());
}

#[test]
fn a_flood_of_true_numbers_is_a_flood() {
    let house = House::new(Limits { records_per_second: 100, ..quick() }, own());
    let mut guest = house.connect();
    guest.next().expect("hello");
    for _ in 0..200 {
        guest.sends(&Durable::new(Index::Logs, 0).to_bytes());
        guest.sends(&Durable::new(Index::Profiles, 0).to_bytes());
    }
    assert!(guest.gets_thrown_out());
    assert!(house.serves());
}

#[test]
fn a_second_client_waits_until_the_first_has_left() {
    let house = House::new(quick(), own());
    let mut first = house.connect();
    first.next().expect("hello");
    assert!(first.says(0, 0));
    assert!(first.next().is_some());
    let mut second = house.connect();
    second.stream.set_nonblocking(true).expect("set");
    assert!(second.stream.read(&mut [0]).is_err(), "no hello while the first is there");
    second.stream.set_nonblocking(false).expect("set");
    drop(first);
    assert!(second.next().is_some());
}

#[test]
fn a_dead_socket_is_replaced_a_living_one_and_a_file_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/door.sock");
    let door = Door::open(&path, &own()).expect("makes the folder");
    assert!(matches!(Door::open(&path, &own()), Err(ListenError::Taken(_))));
    drop(door);
    Door::open(&path, &own()).expect("the dead one is replaced");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("written");
    assert!(matches!(Door::open(&file, &own()), Err(ListenError::Foreign(_))));
    assert_eq!(std::fs::read(&file).expect("still there"), b"x");
}
