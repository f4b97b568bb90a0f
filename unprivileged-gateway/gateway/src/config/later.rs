//! Sections of the contract that this version does not build yet.
//!
//! Like a door with a notice instead of a wall: the key is known, so it is neither a typo nor silently ignored; whoever wrote it
//! reads that nothing would happen and what to do instead. Weakness: the list must shrink by hand as sections arrive.

/// Path, what it would do, and what to do until then.
const LATER: [(&str, &str, &str); 11] = [
    ("kubernetes", "the Kubernetes API", "remove it; senders give their pod attributes themselves"),
    ("process", "processing rules", "remove it; filter and redact at the sender"),
    ("cluster", "clustering", "remove it; each gateway works by itself"),
    ("receive.edge", "receiving from other gateways", "remove it and let the others send OTLP to receive.otlp"),
    ("scrape.static", "scraping listed targets", "remove it and keep the present scraper for now"),
    ("scrape.files", "scraping targets listed in files", "remove it and keep the present scraper for now"),
    ("scrape.servicemonitors", "scraping by ServiceMonitor", "remove it and keep the present scraper for now"),
    ("scrape.annotated_pods", "scraping annotated pods", "remove it and keep the present scraper for now"),
    ("profiles.pull", "pulling profiles", "remove it and keep the present profiler for now"),
    ("send.remote_write", "remote write", "remove it; `local_view: {}` shows the metrics of this node on the page"),
    ("send.edge", "sending to another gateway over QUIC", "use send.otlp with the other gateway's OTLP address"),
];

/// Signals that this version neither receives nor sends as OTLP.
pub(super) const NOT_OTLP: [&str; 2] = ["metrics", "profiles"];

/// For a path of a later version: the sentence and the help.
pub(super) fn notice(path: &str) -> Option<(String, String)> {
    let version = env!("CARGO_PKG_VERSION");
    let (_, what, help) = LATER.iter().find(|(later, ..)| *later == path)?;
    Some((format!("`{path}` ({what}) is not served by this version ({version})"), (*help).to_owned()))
}

/// For `metrics` or `profiles` where a signal of OTLP is named.
pub(super) fn signal_notice(signal: &str) -> Option<(String, String)> {
    let version = env!("CARGO_PKG_VERSION");
    NOT_OTLP.contains(&signal).then(|| {
        let help = "leave it out; OTLP carries logs and traces in this version".to_owned();
        (format!("the signal `{signal}` is not sent as OTLP by this version ({version})"), help)
    })
}
