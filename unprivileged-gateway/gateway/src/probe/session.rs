//! One connection, from Hello to its end.

use super::board::Board;
use super::files::{Files, Known};
use super::inbox::{Arrived, Fault, Inbox};
use super::lane::{Gap, Lane, Parcel};
use super::lengths::Lengths;
use super::stacks::{self, From};
use crate::budget::Permit;
use crate::seam::Signal;
use crate::store::{Store, now_ns};
use crate::telemetry::{ProbeGap, Telemetry};
use bytes::Bytes;
use ipc::{Durable, Hello, Index, LogBytes, Message, Opened, Root, Stacks, VERSION};
use model::pprof::Limits;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use wal::Stream;

/// A probe says Hello at once.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// How long sixteen bytes may take.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// A frame that the log refused is offered again this often.
const LAY_AGAIN: Duration = Duration::from_millis(500);
/// Names of sources that are remembered as "said already".
const SAID_MAX: usize = 64;

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Stopped,
    /// Nobody's fault: the probe or its socket is gone.
    Gone(String),
    /// What came is not the protocol.
    Broken(String),
    /// The log took back what had been laid; the probe sends it again on the next connection.
    Refused(String),
}

impl std::convert::From<Fault> for End {
    fn from(fault: Fault) -> End {
        match fault {
            Fault::Gone(text) => End::Gone(text),
            Fault::Broken(text) => End::Broken(text),
        }
    }
}

/// What a turn waits for.
enum Event {
    Stop,
    Durable(Index, u64),
    Arrived(Box<Arrived>),
    Again,
}

/// What outlives a connection.
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    pub(super) board: Board,
    /// The node's name, a label of profiles.
    pub(super) node: String,
    /// File sources of the configuration, `pods` among them; what else comes is taken and said once.
    pub(super) sources: BTreeSet<String>,
    /// Length of a window as configured, if it is.
    pub(super) window: Option<Duration>,
    pub(super) limits: Limits,
    pub(super) said: BTreeSet<String>,
}

/// A connection whose Hello was good.
pub(super) struct Session<'a, S> {
    desk: &'a mut Desk,
    inbox: Inbox<ReadHalf<S>>,
    out: WriteHalf<S>,
    start: [u8; 16],
    host: String,
    files: Files,
    logs: Lane,
    profiles: Lane,
    lengths: Lengths,
    stop: watch::Receiver<bool>,
    /// Lanes that a refusal holds up, and why.
    held_up: [Option<String>; 2],
}

/// Runs one connection. True: Hello was good.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    desk: &mut Desk,
    inbox: impl FnOnce(ReadHalf<S>) -> Inbox<ReadHalf<S>>,
    socket: S,
    mut stop: watch::Receiver<bool>,
) -> (End, bool) {
    let (from, out) = tokio::io::split(socket);
    let mut inbox = inbox(from);
    let first = tokio::select! {
        biased;
        _ = stop.wait_for(|s| *s) => return (End::Stopped, false),
        first = tokio::time::timeout(HELLO_PATIENCE, inbox.next()) => first,
    };
    let hello = match first {
        Ok(Ok(arrived)) => hello(arrived),
        Ok(Err(fault)) => return (fault.into(), false),
        Err(_) => Err(format!("the probe has not said Hello within {} s", HELLO_PATIENCE.as_secs())),
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(text) => return (End::Broken(text), false),
    };
    desk.board.hello(&hello);
    let session = Session {
        desk,
        inbox,
        out,
        start: hello.start,
        host: hello.host,
        files: Files::default(),
        logs: Lane::new(Signal::Logs),
        profiles: Lane::new(Signal::Profiles),
        lengths: Lengths::default(),
        stop,
        held_up: [None, None],
    };
    (session.serve().await, true)
}

fn hello(arrived: Arrived) -> Result<Hello, String> {
    match arrived.frame.message {
        Message::Hello(hello) if hello.version == VERSION => Ok(hello),
        Message::Hello(hello) => Err(format!(
            "the probe speaks door version {}, this gateway {VERSION}: update both together",
            hello.version
        )),
        other => Err(format!("the first message is of kind {}, not Hello", other.kind())),
    }
}

impl<S: AsyncRead + AsyncWrite> Session<'_, S> {
    async fn serve(mut self) -> End {
        let begun = self.begin().await;
        match begun {
            Ok(()) => loop {
                if let Err(end) = self.turn().await {
                    return end;
                }
            },
            Err(end) => end,
        }
    }

    /// What is held already: of logs the files' marks say it, byte by byte.
    async fn begin(&mut self) -> Result<(), End> {
        let mark = self.desk.store.mark_synced(Signal::Profiles, &Stream::Stack(self.start));
        let held = mark.and_then(|m| m.contiguous_end()).map_or(0, |end| end.saturating_sub(1));
        self.say_durable(Index::Logs, 0).await?;
        self.say_durable(Index::Profiles, held).await
    }

    /// Lays what waits, then waits for whichever comes first: a frame, a sync, the end.
    async fn turn(&mut self) -> Result<(), End> {
        self.lay()?;
        let desk = &*self.desk;
        let room = !self.logs.is_full() && !self.profiles.is_full();
        let waiting = self.logs.is_waiting() || self.profiles.is_waiting();
        let event = tokio::select! {
            _ = self.stop.wait_for(|s| *s) => Event::Stop,
            seq = self.logs.acknowledged(&desk.store, &desk.telemetry) => Event::Durable(Index::Logs, seq?),
            seq = self.profiles.acknowledged(&desk.store, &desk.telemetry) => Event::Durable(Index::Profiles, seq?),
            arrived = self.inbox.next(), if room => Event::Arrived(Box::new(arrived?)),
            () = tokio::time::sleep(LAY_AGAIN), if waiting => Event::Again,
        };
        match event {
            Event::Stop => Err(End::Stopped),
            Event::Durable(index, seq) => self.say_durable(index, seq).await,
            Event::Arrived(arrived) => self.take(*arrived),
            Event::Again => Ok(()),
        }
    }

    fn lay(&mut self) -> Result<(), End> {
        let Session { desk, logs, profiles, held_up, .. } = self;
        let telemetry = &desk.telemetry;
        let lanes = [(logs, ProbeGap::LogBytes), (profiles, ProbeGap::Stacks)];
        for ((lane, gap), held_up) in lanes.into_iter().zip(held_up) {
            let mut say = |missing: Gap| {
                tracing::warn!(missing.what, "the probe cannot supply this, and the log says so");
                telemetry.probe().gap(gap, missing.amount);
            };
            let why = lane.lay(&desk.store, telemetry, &mut say)?.map(|refusal| refusal.message);
            if let (Some(why), None) = (&why, &held_up) {
                tracing::warn!(why, "the log takes nothing from the probe at the moment; the probe keeps it");
            }
            *held_up = why;
        }
        Ok(())
    }

    async fn say_durable(&mut self, index: Index, seq: u64) -> Result<(), End> {
        let record = Durable::new(index, seq).to_bytes();
        match tokio::time::timeout(WRITE_PATIENCE, self.out.write_all(&record)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(End::Gone(format!("writing to the probe failed: {e}"))),
            Err(_) => Err(End::Broken("the probe does not read what it is told".into())),
        }
    }

    fn take(&mut self, arrived: Arrived) -> Result<(), End> {
        let Arrived { frame, permit } = arrived;
        match frame.message {
            Message::Hello(_) => Err("a second Hello".to_owned()),
            Message::Opened(opened) => self.opened(&opened),
            Message::LogBytes(head) => self.log_bytes(frame.seq, head, frame.bulk, permit),
            Message::Closed(closed) => self.closed(closed, permit),
            Message::Stacks(head) => self.stacks(frame.seq, &head, &frame.bulk, permit),
            Message::Status(status) => {
                self.desk.board.status(&status);
                Ok(())
            }
        }
        .map_err(End::Broken)
    }

    fn opened(&mut self, opened: &Opened) -> Result<(), String> {
        let file = self.files.open(opened)?;
        if !self.desk.sources.contains(&file.root) {
            let cure = match &opened.root {
                Root::Pods => "`logs.pods`".to_owned(),
                Root::Files { name } => format!("`logs.files.{name}`"),
            };
            self.desk.say_once(
                &file.root,
                &format!("the probe reads {} and {cure} is not configured: taken with default labels", file.root),
            );
        }
        Ok(())
    }

    fn known(&self) -> Known {
        Known { host: self.host.clone(), received_at: now_ns() }
    }

    fn log_bytes(&mut self, seq: u64, head: LogBytes, bulk: Vec<u8>, permit: Permit) -> Result<(), String> {
        self.logs.number(seq)?;
        let file = self.files.get(head.file)?;
        head.offset.checked_add(bulk.len() as u64).ok_or("bytes beyond the end of any file")?;
        if self.is_served(Signal::Logs) {
            let (bytes, known) = (Bytes::from(bulk), self.known());
            self.logs.push(Parcel::Bytes { seq, file, offset: head.offset, bytes, known }, permit);
        }
        Ok(())
    }

    fn closed(&mut self, closed: ipc::Closed, permit: Permit) -> Result<(), String> {
        let file = self.files.close(closed.file)?;
        if self.is_served(Signal::Logs) {
            let known = self.known();
            self.logs.push(Parcel::Close { file, closed, known }, permit);
        }
        Ok(())
    }

    fn stacks(&mut self, seq: u64, head: &Stacks, bulk: &[u8], permit: Permit) -> Result<(), String> {
        self.profiles.number(seq)?;
        self.compare(head);
        if !self.is_served(Signal::Profiles) {
            return Ok(());
        }
        let from = From { start: self.start, seq, node: &self.desk.node, received_at: now_ns() };
        // A window that cannot be read will not be readable tomorrow: it must not stand in the way of the next for ever.
        let (pieces, unreadable) = match stacks::window(head, bulk, &from, self.desk.limits) {
            Ok(window) => (window.pieces.into(), false),
            Err(why) => {
                tracing::error!(seq, why, "a window of stacks cannot be read and is left out");
                (Default::default(), true)
            }
        };
        self.profiles.push(Parcel::Window { seq, start: self.start, pieces, unreadable }, permit);
        Ok(())
    }

    /// `profiles.cpu.window` cannot command the probe; a difference is said once.
    fn compare(&mut self, head: &Stacks) {
        let Some(expected) = self.desk.window else { return };
        if let Some(length) = self.lengths.odd(head.from_ns, head.to_ns, expected) {
            let (length, expected) = (length.as_secs(), expected.as_secs());
            let text = format!(
                "the probe's windows last {length} s and profiles.cpu.window is {expected}s: start the probe with --window {expected}s, or \
                 write what it does"
            );
            self.desk.say_once("profiles.cpu.window", &text);
        }
    }

    /// What nothing here takes is not acknowledged: the probe keeps it, and says what it drops for want of room.
    fn is_served(&mut self, signal: Signal) -> bool {
        let served = self.desk.store.log(signal).is_some();
        if !served {
            let text = format!(
                "the probe sends {signal} and nothing here takes them: configure a destination or the local view"
            );
            self.desk.say_once(signal.name(), &text);
        }
        served
    }
}

impl Desk {
    fn say_once(&mut self, about: &str, text: &str) {
        if self.said.len() < SAID_MAX && self.said.insert(about.to_owned()) {
            tracing::warn!("{text}");
        }
    }
}
