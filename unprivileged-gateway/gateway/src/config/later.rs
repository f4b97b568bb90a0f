//! Sections of the contract that this version does not build yet.
//!
//! Like a door with a notice instead of a wall: the key is known, so it is neither a typo nor silently ignored; whoever wrote it
//! reads that nothing would happen and what to do instead. Weakness: the list must shrink by hand as sections arrive.

/// Path, what it would do, and what to do until then.
const LATER: [(&str, &str, &str); 11] = [
    ("probe", "the connection to the probe", "remove it; without it this node takes no pod logs and no CPU profiles"),
    ("kubernetes", "the Kubernetes API", "remove it; senders give their pod attributes themselves"),
    ("logs", "reading log files and the journal", "remove it and send these logs as OTLP to receive.otlp"),
    ("process", "processing rules", "remove it; filter and redact at the sender"),
    ("scrape", "scraping metrics", "remove it and keep the present scraper for now"),
    ("profiles", "collecting profiles", "remove it and keep the present profiler for now"),
    ("cluster", "clustering", "remove it; each gateway works by itself"),
    ("receive.edge", "receiving from other gateways", "remove it and let the others send OTLP to receive.otlp"),
    ("send.remote_write", "remote write", "remove it; metrics are not received either"),
    ("send.pyroscope", "sending profiles", "remove it; profiles are not received either"),
    ("send.edge", "sending to another gateway over QUIC", "use send.otlp with the other gateway's OTLP address"),
];

/// Signals without receivers and destinations in this version.
pub(super) const UNSERVED_SIGNALS: [&str; 2] = ["metrics", "profiles"];

/// For a path of a later version: the sentence and the help.
pub(super) fn notice(path: &str) -> Option<(String, String)> {
    let version = env!("CARGO_PKG_VERSION");
    let (_, what, help) = LATER.iter().find(|(later, ..)| *later == path)?;
    Some((format!("`{path}` ({what}) is not served by this version ({version})"), (*help).to_owned()))
}

/// For `metrics` or `profiles` where a signal is named.
pub(super) fn signal_notice(signal: &str) -> Option<(String, String)> {
    let version = env!("CARGO_PKG_VERSION");
    UNSERVED_SIGNALS.contains(&signal).then(|| {
        let help = "leave it out; this version serves logs and traces".to_owned();
        (format!("the signal `{signal}` is not served by this version ({version})"), help)
    })
}
