//! Rules for destinations: addresses, credentials, headers, names.
//!
//! Like the counter of a post office: whether the parcel can be addressed at all is said here, before anything is packed.
//! Whether anybody lives there is `reach`'s question. Weakness: limits of a backend are believed as they are written.

use super::check::Judge;
use super::mask::{safe_key, secret_like};
use super::walk::join;
use super::{Common, Loki, OtlpOut, OutTls, Protocol, Pyroscope, SecretSource, Send};
use http::{HeaderName, HeaderValue, Uri};
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest name of a destination, in characters: it becomes a label and part of file names.
const NAME_CHARS_MAX: usize = 63;
/// Longest tenant, in bytes; Loki's own limit.
const TENANT_BYTES_MAX: usize = 150;
/// Shortest and longest `timeout`.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Headers that a destination writes itself.
const OWN_HEADERS: [&str; 8] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

pub(super) fn send(send: &Send, judge: &mut Judge<'_>) {
    for (name, loki) in &send.loki {
        let path = format!("send.loki.{name}");
        named(judge, &path, name, &loki.common, send.loki.keys().collect());
        common(judge, &path, &loki.common);
        loki_rules(judge, &path, loki);
    }
    for (name, otlp) in &send.otlp {
        let path = format!("send.otlp.{name}");
        named(judge, &path, name, &otlp.common, send.otlp.keys().collect());
        common(judge, &path, &otlp.common);
        otlp_rules(judge, &path, otlp);
    }
    for (name, pyroscope) in &send.pyroscope {
        let path = format!("send.pyroscope.{name}");
        named(judge, &path, name, &pyroscope.common, send.pyroscope.keys().collect());
        common(judge, &path, &pyroscope.common);
        pyroscope_rules(judge, &path, pyroscope);
    }
    renames(judge, "send.loki", send.loki.iter().map(|(name, loki)| (name, &loki.common)));
    renames(judge, "send.otlp", send.otlp.iter().map(|(name, otlp)| (name, &otlp.common)));
    renames(judge, "send.pyroscope", send.pyroscope.iter().map(|(name, to)| (name, &to.common)));
}

pub(super) fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fine) && name.len() <= NAME_CHARS_MAX
}

fn named(judge: &mut Judge<'_>, path: &str, name: &str, common: &Common, all: BTreeSet<&String>) {
    let help = format!("use letters, digits, `-` and `_`, at most {NAME_CHARS_MAX}, starting with a letter or digit");
    if !is_name(name) {
        judge.error(path, format!("`{name}` cannot be the name of a destination"), help.clone());
    }
    let Some(was) = &common.was else { return };
    let at = join(path, "was");
    if was == name {
        judge.error(
            &at,
            format!("`{at}` is the destination's own name"),
            "write the name it had before, or remove the line",
        );
    } else if all.contains(was) {
        let message = format!("`{at}` names `{was}`, which is still configured");
        judge.error(&at, message, "remove the old destination, or this line");
    } else if !is_name(was) {
        judge.error(&at, format!("`{was}` cannot have been the name of a destination"), help);
    }
}

fn renames<'a>(judge: &mut Judge<'_>, kind: &str, all: impl Iterator<Item = (&'a String, &'a Common)>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (name, common) in all {
        if let Some(was) = common.was.as_deref().filter(|was| !seen.insert(was)) {
            let message = format!("two destinations below `{kind}` say `was: {was}`");
            judge.error(&format!("{kind}.{name}.was"), message, "a place in the log can go to one of them only");
        }
    }
}

fn common(judge: &mut Judge<'_>, path: &str, common: &Common) {
    judge.within(&join(path, "timeout"), common.timeout, TIMEOUT_MIN, TIMEOUT_MAX);
    if common.bearer.is_some() {
        judge.inline_secret(&join(path, "bearer"), "bearer_file");
    }
    if common.basic.is_some() {
        judge.inline_secret(&join(path, "basic.password"), "password_file");
    }
    if let Some(OutTls::On(tls)) = &common.tls
        && tls.cert_file.is_some() != tls.key_file.is_some()
    {
        let message = format!("`{path}.tls` has one of `cert_file` and `key_file`");
        judge.error(&join(path, "tls"), message, "a client certificate needs both; name both or neither");
    }
    let has_credentials = common.bearer.is_some() || common.bearer_file.is_some() || common.basic.is_some();
    for (name, value) in &common.headers {
        header(judge, &join(path, "headers"), name, value, has_credentials);
    }
}

fn header(judge: &mut Judge<'_>, path: &str, name: &str, value: &SecretSource, has_credentials: bool) {
    let at = join(path, name);
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        judge.error(&at, format!("`{}` cannot be the name of a header", safe_key(name)), "use letters, digits and `-`");
    } else if OWN_HEADERS.contains(&lower.as_str()) {
        judge.error(&at, format!("the header `{name}` is written by the destination itself"), "remove it");
    } else if lower == "authorization" && has_credentials {
        let message = format!("`{at}` and the destination's own credentials exclude each other");
        judge.error(&at, message, "keep one of them");
    } else if let SecretSource::Inline(secret) = value {
        if HeaderValue::from_str(secret.expose()).is_err() {
            judge.error(&at, format!("the value of `{at}` cannot stand in a header"), "use visible ASCII characters");
        } else if secret_like(name) || lower == "cookie" {
            judge.inline_secret(&at, &format!("{name}: {{ file: PATH }}"));
        }
    }
}

fn loki_rules(judge: &mut Judge<'_>, path: &str, loki: &Loki) {
    if let Some(uri) = url(judge, &join(path, "url"), &loki.url) {
        tls_agrees(judge, path, "url", uri.scheme_str() == Some("https"), loki.common.tls.as_ref());
        if matches!(uri.path(), "" | "/") {
            let message = format!("`{path}.url` has no path");
            judge.warning(&join(path, "url"), message, "Loki takes pushes at /loki/api/v1/push");
        }
    }
    tenant(judge, path, "Loki", loki.tenant.as_ref(), &loki.common);
    external_labels(judge, path, loki.external_labels.keys());
    let limits = &loki.limits;
    let sizes = [("line", limits.line), ("label_name", limits.label_name), ("label_value", limits.label_value)];
    sizes.iter().for_each(|(key, value)| judge.at_least(&format!("{path}.limits.{key}"), *value, 1));
    if limits.label_names == 0 {
        judge.error(
            &format!("{path}.limits.label_names"),
            "a stream without a label cannot be sent".to_owned(),
            "write 1 or more",
        );
    }
}

fn pyroscope_rules(judge: &mut Judge<'_>, path: &str, to: &Pyroscope) {
    if let Some(uri) = url(judge, &join(path, "url"), &to.url) {
        tls_agrees(judge, path, "url", uri.scheme_str() == Some("https"), to.common.tls.as_ref());
        if uri.path().ends_with("/Push") || uri.path().ends_with("/ingest") {
            let message = format!("`{path}.url` names the push path, which is added to it");
            judge.warning(&join(path, "url"), message, "write the address alone, such as http://HOST:4040");
        }
    }
    tenant(judge, path, "Pyroscope", to.tenant.as_ref(), &to.common);
    external_labels(judge, path, to.external_labels.keys());
    let limits = &to.limits;
    judge.at_least(&format!("{path}.limits.request"), limits.request, 1 << 10);
    judge.at_least(&format!("{path}.limits.profile"), limits.profile, 1 << 10);
    let sizes = [("label_name", limits.label_name), ("label_value", limits.label_value)];
    sizes.iter().for_each(|(key, value)| judge.at_least(&format!("{path}.limits.{key}"), *value, 1));
    if limits.label_names == 0 {
        let message = "a profile without a label cannot be sent".to_owned();
        judge.error(&format!("{path}.limits.label_names"), message, "write 1 or more");
    }
}

/// `tenant` of a backend that keeps tenants apart by header.
fn tenant(judge: &mut Judge<'_>, path: &str, backend: &str, tenant: Option<&String>, common: &Common) {
    let Some(tenant) = tenant else { return };
    let fine = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
    if tenant.len() > TENANT_BYTES_MAX || !tenant.chars().all(fine) || tenant == "." || tenant == ".." {
        let help = format!("{backend} takes letters, digits and !-_.*'(), at most {TENANT_BYTES_MAX}");
        judge.error(&join(path, "tenant"), format!("`{path}.tenant` cannot be a tenant"), help);
    }
    if common.headers.keys().any(|name| name.eq_ignore_ascii_case("X-Scope-OrgID")) {
        let message = format!("`{path}` gives the tenant twice: as `tenant` and as a header");
        judge.error(&join(path, "tenant"), message, "keep one of them");
    }
}

pub(super) fn is_label(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(fine) && !name.starts_with("__")
}

fn external_labels<'a>(judge: &mut Judge<'_>, path: &str, names: impl Iterator<Item = &'a String>) {
    for name in names.filter(|name| !is_label(name)) {
        let message = format!("`{name}` cannot be the name of a label");
        let help = "use letters, digits and `_`, not two at the start";
        judge.error(&format!("{path}.external_labels.{name}"), message, help);
    }
}

fn otlp_rules(judge: &mut Judge<'_>, path: &str, otlp: &OtlpOut) {
    endpoint(judge, path, otlp);
    judge.at_least(&join(path, "limits.request"), otlp.limits.request, 1 << 10);
    let at = join(path, "signals");
    if otlp.signals.is_empty() {
        judge.error(&at, format!("`{at}` is empty"), "name at least one of logs, traces; or remove the line for both");
    }
    let mut seen = BTreeSet::new();
    for (index, signal) in otlp.signals.iter().enumerate() {
        if !seen.insert(signal) {
            judge.error(&format!("{at}.{index}"), format!("`{at}` names {signal} twice"), "keep one of them");
        }
    }
}

fn endpoint(judge: &mut Judge<'_>, path: &str, otlp: &OtlpOut) {
    let at = join(path, "endpoint");
    let tls = otlp.common.tls.as_ref();
    if otlp.endpoint.contains("://") {
        let Some(uri) = url(judge, &at, &otlp.endpoint) else { return };
        tls_agrees(judge, path, "endpoint", uri.scheme_str() == Some("https"), tls);
        if otlp.protocol == Protocol::Grpc && !matches!(uri.path(), "" | "/") {
            let message = format!("`{at}` has a path, which OTLP over gRPC does not take");
            judge.error(&at, message, "remove the path, or write `protocol: http`");
        }
        return;
    }
    let Some(uri) = url(judge, &at, &format!("http://{}", otlp.endpoint)) else { return };
    if !matches!(uri.path(), "" | "/") {
        let message = format!("`{at}` has a path but no scheme");
        judge.error(&at, message, "write the whole URL, beginning with http:// or https://");
    } else if uri.port_u16().is_none() {
        judge.error(&at, format!("`{at}` has no port"), "write HOST:4317 for gRPC, HOST:4318 for HTTP");
    }
    if tls.is_none() {
        let message = format!("`{at}` has no scheme, and `{path}` does not say whether to use TLS");
        let help = "add `tls: {}` to trust the system's authorities, or `tls: off` to send in the clear";
        judge.error(&at, message, help);
    }
}

/// `http://` is its own consent and `https://` its own demand; a `tls` that says the opposite is a mistake in one of the two.
fn tls_agrees(judge: &mut Judge<'_>, path: &str, key: &str, https: bool, tls: Option<&OutTls>) {
    let message = match (https, tls) {
        (true, Some(OutTls::Off)) => format!("`{path}.{key}` is https, but `{path}.tls` is off"),
        (false, Some(OutTls::On(_))) => format!("`{path}.{key}` is http, but `{path}.tls` names how to use TLS"),
        _ => return,
    };
    judge.error(&join(path, "tls"), message, "change the scheme, or remove `tls`");
}

/// Parses a URL; what is wrong with it is said without repeating it, since it may hold a password.
fn url(judge: &mut Judge<'_>, at: &str, text: &str) -> Option<Uri> {
    let wrong = |what: &str| format!("`{at}` {what}");
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !matches!(scheme, "http" | "https") {
        judge.error(at, wrong("must begin with http:// or https://"), "write the whole URL");
    } else if authority.contains('@') {
        let help =
            "write `basic: { user: NAME, password_file: PATH }` beside it: a URL is shown in logs and on the page";
        judge.error(at, wrong("holds credentials"), help);
    } else if authority.is_empty() || authority.starts_with(':') {
        judge.error(at, wrong("has no host"), "write the whole URL");
    } else if text.contains('#') {
        judge.error(at, wrong("has a `#` part, which is never sent"), "remove it");
    } else {
        let uri = text.parse::<Uri>().ok();
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(_, port)| port);
        let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        match uri.filter(|uri| uri.host().is_some()) {
            Some(uri) if port_is_fine => return Some(uri),
            Some(_) => judge.error(at, wrong("has a port that is none"), "a port is a number from 1 to 65535"),
            None => judge.error(at, wrong("cannot be read as a URL"), "check for blanks and odd characters"),
        }
    }
    None
}
