//! Rules for what this node collects itself: sockets, names, intervals, and whether anybody takes the result.
//!
//! Like the foreman who walks along each pipe from tap to bucket: a pipe without a tap, or one that ends above no bucket, is laid
//! for nothing, and is said while there is still time. Weakness: whether water comes is known only when the tap is opened.

use super::check::Judge;
use super::check_send::{is_label, is_name};
use super::walk::join;
use super::{Config, Logs};
use crate::seam::Signal;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Longest path of a Unix socket, in bytes: `sun_path` without its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Shortest and longest interval of `scrape`.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Shortest and longest `profiles.cpu.window`.
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(300);
/// Longest name of a unit, in bytes: systemd's own limit.
const UNIT_BYTES_MAX: usize = 255;

pub(super) fn collect(config: &Config, judge: &mut Judge<'_>) {
    probe(config, judge);
    if let Some(logs) = &config.logs {
        log_rules(logs, judge);
    }
    let scrape = config.scrape.as_ref();
    for (path, every) in [("scrape.self", scrape.and_then(|s| s.own)), ("scrape.host", scrape.and_then(|s| s.host))] {
        if let Some(every) = every {
            judge.within(&join(path, "interval"), every.interval, INTERVAL_MIN, INTERVAL_MAX);
        }
    }
    if let Some(cpu) = config.profiles.as_ref().and_then(|profiles| profiles.cpu) {
        judge.within("profiles.cpu.window", cpu.window, WINDOW_MIN, WINDOW_MAX);
    }
    for (path, signal) in sources(config) {
        taken(config, judge, path, signal);
    }
}

/// Every section that brings something in beside `receive`, and what it brings.
pub(super) fn sources(config: &Config) -> Vec<(&'static str, Signal)> {
    let logs = config.logs.as_ref();
    let scrape = config.scrape.as_ref();
    let all = [
        ("logs.pods", Signal::Logs, logs.is_some_and(|logs| logs.pods.is_some())),
        ("logs.files", Signal::Logs, logs.is_some_and(|logs| !logs.files.is_empty())),
        ("logs.journal", Signal::Logs, logs.is_some_and(|logs| logs.journal.is_some())),
        ("scrape.self", Signal::Metrics, scrape.is_some_and(|scrape| scrape.own.is_some())),
        ("scrape.host", Signal::Metrics, scrape.is_some_and(|scrape| scrape.host.is_some())),
        ("profiles.cpu", Signal::Profiles, config.profiles.as_ref().is_some_and(|profiles| profiles.cpu.is_some())),
    ];
    all.into_iter().filter(|(.., on)| *on).map(|(path, signal, _)| (path, signal)).collect()
}

/// What only the probe can give needs one.
fn probe(config: &Config, judge: &mut Judge<'_>) {
    if let Some(probe) = &config.probe {
        let length = probe.socket.as_os_str().as_bytes().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let message = format!("`probe.socket` has {length} bytes; a Unix socket takes {SOCKET_PATH_BYTES_MAX}");
            judge.error("probe.socket", message, "put the socket into a folder with a shorter name");
        }
        return;
    }
    for path in ["logs.pods", "logs.files", "profiles.cpu"] {
        if sources(config).iter().any(|(source, _)| *source == path) && !judge.is_tainted("probe") {
            let message = format!("`{path}` comes from the probe, and there is no `probe`");
            judge.warning(path, message, "add `probe: {}`, or remove this section");
        }
    }
}

fn log_rules(logs: &Logs, judge: &mut Judge<'_>) {
    if let Some(pods) = &logs.pods {
        let mut seen = BTreeSet::new();
        for (at, label) in pods.labels.iter().enumerate().filter(|(_, label)| !seen.insert(*label)) {
            let message = format!("`logs.pods.labels` names {label} twice");
            judge.error(&format!("logs.pods.labels.{at}"), message, "keep one of them");
        }
        if pods.labels.is_empty() {
            let message = "`logs.pods.labels` is empty: a stream without a label cannot be sent".to_owned();
            judge.error("logs.pods.labels", message, "name at least one, or remove the line for the usual six");
        }
    }
    for (name, files) in &logs.files {
        let path = format!("logs.files.{name}");
        if !is_name(name) {
            let message = format!("`{name}` cannot be the name of a set of files");
            judge.error(
                &path,
                message,
                "use the NAME of the probe's `--files NAME=GLOB`: letters, digits, `-` and `_`",
            );
        }
        for label in files.labels.keys().filter(|label| !is_label(label)) {
            let message = format!("`{label}` cannot be the name of a label");
            let help = "use letters, digits and `_`, not two at the start";
            judge.error(&format!("{path}.labels.{label}"), message, help);
        }
    }
    let units = logs.journal.iter().flat_map(|journal| &journal.units);
    for (at, unit) in units.enumerate() {
        // journalctl takes the name as an argument: what begins with a dash would be an option.
        let fine = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-*?[]".contains(c);
        if unit.is_empty() || unit.len() > UNIT_BYTES_MAX || unit.starts_with('-') || !unit.chars().all(fine) {
            let path = format!("logs.journal.units.{at}");
            judge.error(
                &path,
                format!("`{path}` is not the name of a unit"),
                "write it as systemctl does: ssh.service",
            );
        }
    }
}

/// What is collected and taken by nobody is read for nothing.
fn taken(config: &Config, judge: &mut Judge<'_>, path: &str, signal: Signal) {
    let otlp = config.send.otlp.values().any(|to| to.signals.contains(&signal));
    let takers = match signal {
        Signal::Logs => !config.send.loki.is_empty(),
        Signal::Profiles => !config.send.pyroscope.is_empty(),
        Signal::Traces | Signal::Metrics => false,
    };
    if otlp || takers || config.local_view.is_some() || judge.is_tainted("send") || judge.is_tainted("local_view") {
        return;
    }
    let message = format!("`{path}` gives {signal}, and nothing takes {signal}");
    let help = match signal {
        Signal::Logs => "add a destination below `send.loki`, or `local_view: {}`",
        Signal::Profiles => "add a destination below `send.pyroscope`, or `local_view: {}`",
        Signal::Traces | Signal::Metrics => "add `local_view: {}`, which shows them on the page",
    };
    judge.warning(path, message, help);
}
