//! The host's basics under node-exporter's names: processor, memory, disks, network, pressure, file systems.
//!
//! A caretaker with a clipboard: on each round he reads the meters in the cellar (`/proc`), writes down what is on them, and where
//! a door is locked he notes which and why, and goes on to the next. A collector is one function that reads its files whole and then
//! writes its rows, so a file that cannot be read takes only its own rows away. Names, labels and exclusions are those of Debian's
//! node-exporter 1.5, and a test compares both on the same machine. Weakness: the basics only; what hangs on a device (temperatures,
//! RAID, link speed) is node-exporter's business.

mod devices;
mod files;
mod kernel;
mod mounts;
mod network;

#[cfg(test)]
mod tests;

pub use files::{Reason, Root};

use crate::scrape::Target;
use crate::seam::Source;
use crate::telemetry::Telemetry;
use files::Unread;
use model::series::{Type, Writer};
use mounts::Mounts;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Rows of one scrape on their way into its request.
pub(crate) struct Page<'a> {
    writer: &'a mut Writer,
    at_ms: i64,
}

impl Page<'_> {
    fn family(&mut self, name: &str, kind: Type, help: &str) {
        self.writer.family(name, kind, help);
    }

    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.writer.sample(name, labels, value, self.at_ms);
    }

    /// A family of one series without labels.
    fn one(&mut self, name: &str, kind: Type, help: &str, value: f64) {
        self.family(name, kind, help);
        self.row(name, &[], value);
    }
}

type Collector = fn(&Root, &mut Page<'_>) -> Result<(), Unread>;

/// Node-exporter's names of what is read, in its order; `filesystem` is read on a thread of its own.
const COLLECTORS: [(&str, Collector); 14] = [
    ("cpu", kernel::cpu),
    ("diskstats", devices::disks),
    ("entropy", kernel::entropy),
    ("filefd", kernel::file_descriptors),
    ("loadavg", kernel::load),
    ("meminfo", kernel::memory),
    ("netdev", devices::network),
    ("netstat", network::protocols),
    ("pressure", kernel::pressure),
    ("sockstat", network::sockets),
    ("stat", kernel::stat),
    ("time", kernel::time),
    ("uname", kernel::uname),
    ("vmstat", kernel::vmstat),
];

/// The host as a target of the scraper.
pub struct Host {
    root: Root,
    mounts: Mounts,
    telemetry: Telemetry,
    /// What could not be read in the last round: said once, not each round.
    said: Mutex<BTreeMap<&'static str, Reason>>,
}

impl Host {
    pub fn new(root: Root, telemetry: Telemetry) -> Host {
        Host { root, mounts: Mounts::default(), telemetry, said: Mutex::default() }
    }

    fn collect(&self, name: &'static str, page: &mut Page<'_>, outcomes: &mut Vec<(&'static str, bool, f64)>) {
        let begun = Instant::now();
        let read = match COLLECTORS.iter().find(|(known, _)| *known == name) {
            Some((_, collector)) => collector(&self.root, page),
            None => self.mounts.collect(&self.root, page),
        };
        outcomes.push((name, read.is_ok(), begun.elapsed().as_secs_f64()));
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(()) => {
                said.remove(name);
            }
            Err(unread) => {
                self.telemetry.host_unread(name, unread.reason.name());
                if said.insert(name, unread.reason) != Some(unread.reason) {
                    tracing::warn!(collector = name, "{unread}; the host's metrics go without it");
                }
            }
        }
    }
}

impl Target for Host {
    fn job(&self) -> &'static str {
        "host"
    }

    fn source(&self) -> Source {
        Source::Host
    }

    fn read(&self, writer: &mut Writer, at_ms: i64) -> Result<(), String> {
        let mut page = Page { writer, at_ms };
        let mut outcomes = Vec::new();
        for name in COLLECTORS.iter().map(|(name, _)| *name).chain(["filesystem"]) {
            self.collect(name, &mut page, &mut outcomes);
        }
        let (duration, success) = ("node_scrape_collector_duration_seconds", "node_scrape_collector_success");
        page.family(duration, Type::Gauge, "Duration of a collector.");
        page.family(success, Type::Gauge, "Whether a collector succeeded.");
        for (name, ok, seconds) in &outcomes {
            page.row(duration, &[("collector", name)], *seconds);
            page.row(success, &[("collector", name)], f64::from(u8::from(*ok)));
        }
        match outcomes.iter().any(|(_, ok, _)| *ok) {
            true => Ok(()),
            false => Err("nothing below /proc could be read".to_owned()),
        }
    }
}
