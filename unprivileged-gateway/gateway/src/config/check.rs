//! Rules that no single value can break: one judgement of the whole.
//!
//! Like the surveyor who comes after the bricklayers: every stone is sound by now, and the question is whether the house stands.
//! Each rule is one function over the typed configuration, names the path to blame and says what to do. Weakness: only what the
//! text alone decides is judged here; ports in use, folders and certificates are asked by `reach` and at the start.

use super::finding::Finding;
use super::source::{Layer, Sources};
use super::tree::Node;
use super::unit::{print_duration, print_size};
use super::{Auth, Config, Otlp, REQUEST_BYTES_DEFAULT, ServerTls, check_collect, check_send};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Smallest `storage.max`: below it a signal's guaranteed eighth no longer holds two segments.
pub(super) const STORAGE_BYTES_MIN: u64 = 16 << 20;
/// Smallest `memory.budget`, in bytes.
pub(super) const BUDGET_BYTES_MIN: u64 = 1 << 20;
/// Smallest `receive.otlp.max_request`, in bytes.
pub(super) const REQUEST_BYTES_MIN: u64 = 1 << 10;
/// Smallest `local_view.max`, in bytes.
pub(super) const VIEW_BYTES_MIN: u64 = 1 << 20;
/// Longest `storage.commit_window`: every sender waits for it.
pub(super) const COMMIT_WINDOW_MAX: Duration = Duration::from_secs(1);
/// Shortest `receive.otlp.max_connection_age`: reconnecting must stay cheaper than sending.
pub(super) const CONNECTION_AGE_MIN: Duration = Duration::from_secs(1);
/// Shortest and longest `local_view.window`.
pub(super) const VIEW_WINDOW_MIN: Duration = Duration::from_secs(1);
pub(super) const VIEW_WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// The configuration, with defaults that depend on other values filled in, and what was said about it.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) findings: Vec<Finding>,
}

/// Judges the whole. Paths that are tainted were spoken of already.
pub(super) fn check(mut config: Config, tree: &Node, tainted: &BTreeSet<String>, sources: &Sources) -> Checked {
    let mut judge = Judge { tree, tainted, sources, findings: Vec::new() };
    fit_request(&mut config, &mut judge);
    storage(&config, &mut judge);
    memory(&config, &mut judge);
    page(&config, &mut judge);
    receive(&config, &mut judge);
    ports(&config, &mut judge);
    view(&config, &mut judge);
    check_collect::collect(&config, &mut judge);
    check_send::send(&config.send, &mut judge);
    circles(&config, &mut judge);
    purpose(&config, &mut judge);
    Checked { config, findings: judge.findings }
}

/// Collects findings and knows where each path was written.
pub(super) struct Judge<'a> {
    tree: &'a Node,
    tainted: &'a BTreeSet<String>,
    sources: &'a Sources,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    pub(super) fn is_tainted(&self, path: &str) -> bool {
        let below = |stem: &String| {
            stem.is_empty()
                || path == stem
                || path.strip_prefix(stem.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        self.tainted.iter().any(below)
    }

    fn push(&mut self, finding: Finding) {
        if !self.is_tainted(&finding.path) {
            let place = self.tree.nearest(&finding.path).map(|(place, _)| place);
            self.findings.push(Finding { place, ..finding });
        }
    }

    pub(super) fn error(&mut self, path: &str, message: String, help: impl Into<String>) {
        self.push(Finding::error(path, None, message).help(help));
    }

    pub(super) fn warning(&mut self, path: &str, message: String, help: impl Into<String>) {
        self.push(Finding::warning(path, None, message).help(help));
    }

    /// True if a person wrote this path, in whatever layer.
    pub(super) fn is_written(&self, path: &str) -> bool {
        let place = self.tree.nearest(path).filter(|(_, exact)| *exact);
        place.is_some_and(|(place, _)| self.sources.layer_of(place) > Layer::Default)
    }

    /// True if the text of this path stands in a file as it is, rather than coming from a variable.
    pub(super) fn is_inline(&self, path: &str) -> bool {
        self.is_written(path) && !self.tree.is_expanded(path)
    }

    /// A secret that stands in the configuration itself.
    pub(super) fn inline_secret(&mut self, path: &str, file_form: &str) {
        if self.is_inline(path) {
            let help = format!("put it into a file and write `{file_form}`");
            self.warning(path, format!("`{path}` stands in the configuration itself"), help);
        }
    }

    pub(super) fn at_least(&mut self, path: &str, value: u64, min: u64) {
        if value < min {
            let message = format!("`{path}` is {}; the least is {}", print_size(value), print_size(min));
            self.error(path, message, format!("write {} or more", print_size(min)));
        }
    }

    pub(super) fn within(&mut self, path: &str, value: Duration, min: Duration, max: Duration) {
        if value < min || value > max {
            let (value, min, max) = (print_duration(value), print_duration(min), print_duration(max));
            let message = format!("`{path}` is {value}; it may be {min} to {max}");
            self.error(path, message, "write a duration between the two");
        }
    }
}

/// Half of a small budget is less than the default request: then the default gives way, and only the default.
fn fit_request(config: &mut Config, judge: &mut Judge<'_>) {
    let half = config.memory.budget / 2;
    let Some(otlp) = &mut config.receive.otlp else { return };
    if !judge.is_written("receive.otlp.max_request") && otlp.max_request > half {
        otlp.max_request = half;
        let message = format!(
            "requests over {} are refused: half of `memory.budget` is less than the usual {}",
            print_size(half),
            print_size(REQUEST_BYTES_DEFAULT)
        );
        judge.warning(
            "memory.budget",
            message,
            "raise the memory limit or `memory.budget`, or set `receive.otlp.max_request`",
        );
    }
}

fn storage(config: &Config, judge: &mut Judge<'_>) {
    judge.at_least("storage.max", config.storage.max, STORAGE_BYTES_MIN);
    judge.within("storage.commit_window", config.storage.commit_window, Duration::ZERO, COMMIT_WINDOW_MAX);
}

fn memory(config: &Config, judge: &mut Judge<'_>) {
    judge.at_least("memory.budget", config.memory.budget, BUDGET_BYTES_MIN);
    let Some(otlp) = &config.receive.otlp else { return };
    let (request, half) = (otlp.max_request, config.memory.budget / 2);
    if request > half && config.memory.budget >= BUDGET_BYTES_MIN && !judge.is_tainted("memory.budget") {
        let message = format!(
            "`receive.otlp.max_request` is {}, more than half of `memory.budget` ({})",
            print_size(request),
            print_size(config.memory.budget)
        );
        let help = format!(
            "write {} or less, or a budget of at least {}",
            print_size(half),
            print_size(request.saturating_mul(2))
        );
        judge.error("receive.otlp.max_request", message, help);
    }
}

fn page(config: &Config, judge: &mut Judge<'_>) {
    door(judge, "http", "http.listen", config.http.listen, &config.http.auth, config.http.tls.as_ref());
    for (at, host) in config.http.hosts.iter().enumerate() {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        if host.is_empty() || !host.chars().all(fine) {
            let path = format!("http.hosts.{at}");
            judge.error(&path, format!("`{path}` is not a host name"), "write the name alone: no scheme, no path");
        }
    }
    credentials(judge, "http.auth", &config.http.auth);
}

fn receive(config: &Config, judge: &mut Judge<'_>) {
    let Some(otlp) = &config.receive.otlp else { return };
    let Otlp { grpc, http, auth, tls, .. } = otlp;
    for (path, address) in [("receive.otlp.grpc", grpc), ("receive.otlp.http", http)] {
        if let Some(address) = address {
            door(judge, "receive.otlp", path, *address, auth, tls.as_ref());
        }
    }
    if grpc.is_none() && http.is_none() {
        let message = "`receive.otlp` has both doors off".to_owned();
        judge.error("receive.otlp", message, "open `grpc` or `http`, or remove `receive.otlp`");
    }
    judge.at_least("receive.otlp.max_request", otlp.max_request, REQUEST_BYTES_MIN);
    let age = "receive.otlp.max_connection_age";
    if otlp.max_connection_age < CONNECTION_AGE_MIN {
        judge.within(age, otlp.max_connection_age, CONNECTION_AGE_MIN, Duration::from_secs(86_400));
    }
    credentials(judge, "receive.otlp.auth", auth);
}

/// Who may reach a listener must have been said, unless only this machine can.
fn door(judge: &mut Judge<'_>, section: &str, path: &str, address: SocketAddr, auth: &Auth, tls: Option<&ServerTls>) {
    let off_loopback = !address.ip().to_canonical().is_loopback();
    match auth {
        Auth::Unset if off_loopback && !judge.is_tainted(&format!("{section}.auth")) => {
            let message = format!("`{path}` is {address}, which others can reach, and `{section}` has no `auth`");
            let help = format!(
                "add `auth: {{ bearer_file: PATH }}` below `{section}`; or `auth: none` if everybody who reaches this port may use it"
            );
            judge.error(path, message, help);
        }
        Auth::Bearer(_) | Auth::Basic(_) if off_loopback && tls.is_none() => {
            let message = format!("credentials for `{path}` cross the network in the clear");
            judge.warning(path, message, format!("add `tls: {{ cert_file: PATH, key_file: PATH }}` below `{section}`"));
        }
        Auth::Mtls if tls.is_none_or(|tls| tls.client_ca_file.is_none()) => {
            let message = format!("`{section}.auth` is mtls, but `{section}.tls` names no `client_ca_file`");
            let help = "add `client_ca_file: PATH`, the authority that signs the clients' certificates";
            judge.error(&format!("{section}.auth"), message, help);
        }
        _ => {}
    }
}

fn credentials(judge: &mut Judge<'_>, path: &str, auth: &Auth) {
    match auth {
        Auth::Bearer(_) => judge.inline_secret(&format!("{path}.bearer"), "bearer_file"),
        Auth::Basic(_) => judge.inline_secret(&format!("{path}.basic.password"), "password_file"),
        Auth::Unset | Auth::Open | Auth::Mtls => {}
    }
}

/// Two listeners cannot share a port, and an unspecified address takes the port of every address.
fn ports(config: &Config, judge: &mut Judge<'_>) {
    let otlp = config.receive.otlp.as_ref();
    let listeners = [
        ("http.listen", Some(config.http.listen)),
        ("receive.otlp.grpc", otlp.and_then(|otlp| otlp.grpc)),
        ("receive.otlp.http", otlp.and_then(|otlp| otlp.http)),
    ];
    let taken: Vec<(&str, SocketAddr)> = listeners.iter().filter_map(|(path, at)| Some((*path, (*at)?))).collect();
    for (at, (path, address)) in taken.iter().enumerate() {
        let clash = |other: &&(&str, SocketAddr)| {
            let (a, b) = (address.ip(), other.1.ip());
            address.port() == other.1.port() && (a == b || a.is_unspecified() || b.is_unspecified())
        };
        if let Some((other, _)) = taken[..at].iter().filter(|_| address.port() != 0).find(clash) {
            let message = format!("`{path}` and `{other}` are both on port {}", address.port());
            judge.error(path, message, "give each listener a port of its own");
        }
    }
}

/// A destination that is one of our own doors sends every record round again, for ever.
fn circles(config: &Config, judge: &mut Judge<'_>) {
    let Some(otlp) = &config.receive.otlp else { return };
    let doors: Vec<SocketAddr> = [otlp.grpc, otlp.http].into_iter().flatten().filter(|door| door.port() != 0).collect();
    for (name, to) in &config.send.otlp {
        let Some((host, port)) = super::reach::host_and_port(&to.endpoint) else { continue };
        let address: Option<IpAddr> =
            if host == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse().ok() };
        let is_us = |door: &&SocketAddr| {
            let same = address.is_some_and(|ip| ip == door.ip() || (door.ip().is_unspecified() && ip.is_loopback()));
            door.port() == port && same
        };
        if let Some(door) = doors.iter().find(is_us) {
            let message = format!("`send.otlp.{name}` sends to {door}, which is this gateway's own door");
            let help =
                "every record would come round again; give the backend's address, or move the door to another port";
            judge.warning(&format!("send.otlp.{name}.endpoint"), message, help);
        }
    }
}

fn view(config: &Config, judge: &mut Judge<'_>) {
    let Some(view) = &config.local_view else { return };
    judge.at_least("local_view.max", view.max, VIEW_BYTES_MIN);
    judge.within("local_view.window", view.window, VIEW_WINDOW_MIN, VIEW_WINDOW_MAX);
}

/// A gateway that takes in nothing, or has nowhere to put it, runs; but nobody can want it.
fn purpose(config: &Config, judge: &mut Judge<'_>) {
    let send = &config.send;
    let sends = !send.loki.is_empty() || !send.otlp.is_empty() || !send.pyroscope.is_empty();
    let collects = !check_collect::sources(config).is_empty();
    let doubtful = ["receive", "logs", "scrape", "profiles"].iter().any(|path| judge.is_tainted(path));
    let keeps = sends || config.local_view.is_some();
    if config.receive.otlp.is_none() && !collects && !doubtful {
        let message = "nothing is received: there is no `receive.otlp`".to_owned();
        judge.warning("receive", message, "add `receive: { otlp: {} }` for OTLP on the usual loopback ports");
    } else if config.receive.otlp.is_some() && !keeps && !judge.is_tainted("send") {
        let message = "nothing is kept: there is neither a destination below `send` nor a `local_view`".to_owned();
        judge.warning(
            "receive",
            message,
            "add a destination, or `local_view: {}`; until then every request is refused",
        );
    }
}
