//! Who takes a signal, and under which name its account is kept: the configuration, seen from the log.

use crate::config::{self, Common, Config, Protocol};
use crate::destination::otlp::url_of;
use crate::destination::pyroscope::push_url;
use crate::seam::Signal;
use crate::telemetry::{DestinationInfo, Wire};
use wal::{Destination, DestinationId, From, OnRemove};

/// Kind and name of the local view, which is registered like any destination and yields its place when room is needed.
pub const VIEW: (&str, &str) = ("view", "local");

/// Every destination that the configuration gives a signal, the local view included.
pub fn destinations_of(config: &Config, signal: Signal) -> Vec<Destination> {
    let mut out: Vec<Destination> =
        each(config, signal).map(|(kind, name, common)| destination(kind, name, common)).collect();
    if config.local_view.is_some() {
        // It re-reads its window after a start whatever its cursor says, and leaves nothing behind when it is switched off.
        out.push(Destination {
            kind: VIEW.0.into(),
            name: VIEW.1.into(),
            from: From::Now,
            was: None,
            on_remove: OnRemove::Discard,
        });
    }
    out
}

/// Those of them with `intake: false`.
pub(super) fn draining(config: &Config, signal: Signal) -> Vec<DestinationId> {
    each(config, signal).filter(|(_, _, c)| !c.intake).map(|(kind, name, _)| DestinationId::new(kind, name)).collect()
}

fn each(config: &Config, signal: Signal) -> impl Iterator<Item = (&'static str, &String, &Common)> {
    let loki = config.send.loki.iter().filter(move |_| signal == Signal::Logs).map(|(n, d)| ("loki", n, &d.common));
    let otlp = config.send.otlp.iter().filter(move |(_, d)| d.signals.contains(&signal));
    let profiles = config.send.pyroscope.iter().filter(move |_| signal == Signal::Profiles);
    loki.chain(otlp.map(|(n, d)| ("otlp", n, &d.common))).chain(profiles.map(|(n, d)| ("pyroscope", n, &d.common)))
}

fn destination(kind: &str, name: &str, common: &Common) -> Destination {
    Destination {
        kind: kind.into(),
        name: name.into(),
        from: match common.from {
            config::From::Now => From::Now,
            config::From::Oldest => From::Oldest,
        },
        was: common.was.clone(),
        on_remove: match common.on_remove {
            config::OnRemove::Keep => OnRemove::Keep,
            config::OnRemove::Discard => OnRemove::Discard,
        },
    }
}

/// The account's labels. A destination that the configuration does not know any more is an orphan: it keeps its name.
pub(super) fn info_of(config: &Config, id: &DestinationId, signal: Signal) -> DestinationInfo {
    let (kind, name) = id.as_str().split_once('/').unwrap_or((id.as_str(), ""));
    let orphan = DestinationInfo::orphan(kind, name, vec![signal]);
    if let (true, Some(loki)) = (kind == "loki", config.send.loki.get(name)) {
        return DestinationInfo {
            wire: Wire::LokiPush,
            url: masked(&loki.url),
            host: host(&loki.url),
            tenant: loki.tenant.clone().unwrap_or_default(),
            ..orphan
        };
    }
    if let (true, Some(pyroscope)) = (kind == "pyroscope", config.send.pyroscope.get(name)) {
        return DestinationInfo {
            wire: Wire::PyroscopePush,
            url: masked(&push_url(pyroscope)),
            host: host(&pyroscope.url),
            tenant: pyroscope.tenant.clone().unwrap_or_default(),
            ..orphan
        };
    }
    match (kind, config.send.otlp.get(name)) {
        ("otlp", Some(otlp)) if otlp.signals.contains(&signal) => DestinationInfo {
            wire: match otlp.protocol {
                Protocol::Grpc => Wire::OtlpGrpc,
                Protocol::Http => Wire::OtlpHttp,
            },
            signals: otlp.signals.clone(),
            url: masked(&url_of(otlp)),
            host: host(&url_of(otlp)),
            ..orphan
        },
        (kind, _) if kind == VIEW.0 => DestinationInfo { signals: Signal::ALL.to_vec(), ..orphan },
        _ => orphan,
    }
}

/// A URL without the credentials somebody may have put into it.
fn masked(url: &str) -> String {
    match (url.split_once("://"), url.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://(secret)@{}", &url[at + 1..]),
        _ => url.to_owned(),
    }
}

/// `host:port` of a URL.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_a_url_are_not_shown() {
        assert_eq!(masked("http://user:hunter2@loki:3100/push"), "http://(secret)@loki:3100/push");
        assert_eq!(masked("http://loki:3100/push"), "http://loki:3100/push");
        assert_eq!(host("http://user:hunter2@loki:3100/push"), "loki:3100");
    }
}
