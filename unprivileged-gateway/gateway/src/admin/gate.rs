//! Who may ask, from where, under which name.
//!
//! Three questions at the door, in this order. *Whom did you want to visit?* (Host: a page of a stranger that points its own name at
//! 127.0.0.1 names the stranger.) *Who sends you?* (Origin: what changes something comes from our own page or from no browser.)
//! *May you come in?* (token, bearer, basic, client certificate; health and metrics are open.) Rules: DESIGN 8, ADR 0010. Weakness:
//! one key for all; whoever has it may see everything and do everything here.

use crate::config::{Auth, Secret, SecretError};
use arc_swap::ArcSwapOption;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::query::Query;

/// Paths that need no key.
const OPEN: [&str; 4] = ["/-/ready", "/-/healthy", "/-/live", "/metrics"];
/// Open on loopback only (Alloy's peer lists).
const OPEN_ON_LOOPBACK: &str = "/api/v0/web/";
/// How long a credential that was read from its file is used before it is read again.
const REREAD: Duration = Duration::from_secs(1);

/// What the socket knows about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// Our end.
    pub(super) local: SocketAddr,
    pub(super) tls: bool,
    /// A client certificate was shown and verified.
    pub(super) certified: bool,
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Pass,
    /// The token came in the URL of a page: keep it as a cookie, and go on to the URL without it.
    Welcome {
        cookie: String,
        to: String,
    },
    Refuse {
        status: StatusCode,
        message: String,
        challenge: Option<&'static str>,
    },
}

impl Verdict {
    fn refuse(status: StatusCode, message: impl Into<String>) -> Verdict {
        Verdict::Refuse { status, message: message.into(), challenge: None }
    }
}

pub(super) struct Gate {
    auth: Auth,
    /// Asked for when `auth` is unset.
    token: Secret,
    /// `http.hosts`, lower-case.
    hosts: Vec<String>,
    known: ArcSwapOption<(Instant, Secret)>,
}

impl Gate {
    pub(super) fn new(auth: Auth, token: Secret, hosts: &[String]) -> Gate {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Gate { auth, token, hosts, known: ArcSwapOption::empty() }
    }

    pub(super) fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap, connection: Connection) -> Verdict {
        if let Some(refused) = self.wrong_name(uri, headers, connection) {
            return refused;
        }
        if !matches!(*method, Method::GET | Method::HEAD)
            && let Some(refused) = foreign(headers)
        {
            return refused;
        }
        let path = uri.path();
        let loopback = connection.local.ip().to_canonical().is_loopback();
        if OPEN.contains(&path) || (loopback && path.starts_with(OPEN_ON_LOOPBACK)) {
            return Verdict::Pass;
        }
        match &self.auth {
            Auth::Open => Verdict::Pass,
            Auth::Mtls if connection.certified => Verdict::Pass,
            Auth::Mtls => Verdict::refuse(StatusCode::UNAUTHORIZED, "a client certificate is needed (http.auth: mtls)"),
            Auth::Basic(_) => self.basic(headers),
            Auth::Unset | Auth::Bearer(_) => self.keyed(method, uri, headers, connection),
        }
    }

    /// Host, and the authority of an absolute URL, must be a name of ours.
    fn wrong_name(&self, uri: &Uri, headers: &HeaderMap, connection: Connection) -> Option<Verdict> {
        let mut named = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?"));
        let host = named.next().unwrap_or_default();
        if host.is_empty() || named.next().is_some() {
            return Some(Verdict::refuse(StatusCode::BAD_REQUEST, "a request must name one Host"));
        }
        let authority = uri.authority().map(|authority| authority.as_str());
        let stranger = [Some(host), authority].into_iter().flatten().find(|name| !self.is_ours(name, connection))?;
        let shown: String = stranger.chars().filter(|c| !c.is_control()).take(100).collect();
        let message = format!(
            "the name \"{shown}\" is not one of this gateway's: use localhost or its address, or add the name to http.hosts"
        );
        Some(Verdict::refuse(StatusCode::FORBIDDEN, message))
    }

    fn is_ours(&self, authority: &str, connection: Connection) -> bool {
        let name = host_of(authority).to_ascii_lowercase();
        if name == "localhost" || self.hosts.iter().any(|host| *host == name || *host == authority.to_ascii_lowercase())
        {
            return true;
        }
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let local = connection.local.ip().to_canonical();
        // A name can be pointed anywhere, an address cannot: the one this connection came in on is safe, and so is loopback.
        bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == local || (local.is_loopback() && ip.is_loopback()))
    }

    fn basic(&self, headers: &HeaderMap) -> Verdict {
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).and_then(|v| after(v, "Basic "));
        match self.expected() {
            Ok(expected) if shown.is_some_and(|shown| same(shown, expected.expose().as_bytes())) => Verdict::Pass,
            Ok(_) => Verdict::Refuse {
                status: StatusCode::UNAUTHORIZED,
                message: "user and password are needed (http.auth: basic)".to_owned(),
                challenge: Some("Basic realm=\"bulkhead\", charset=\"UTF-8\""),
            },
            Err(error) => unready(&error),
        }
    }

    /// The token of the printed URL, or the bearer secret: in a header, a cookie, or the URL.
    fn keyed(&self, method: &Method, uri: &Uri, headers: &HeaderMap, connection: Connection) -> Verdict {
        let expected = match self.expected() {
            Ok(expected) => expected,
            Err(error) => return unready(&error),
        };
        let right = |shown: &[u8]| same(shown, expected.expose().as_bytes());
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| after(value.as_bytes(), "Bearer "));
        if bearer.is_some_and(right) {
            return Verdict::Pass;
        }
        let in_url = right(Query::parse(uri.query()).text("token").as_bytes());
        let page = !uri.path().starts_with("/api/");
        let cookie =
            cookie(headers, &cookie_name(connection)).and_then(|value| unhex(&value)).is_some_and(|v| right(&v));
        match (in_url, page && matches!(*method, Method::GET | Method::HEAD), cookie) {
            (true, true, _) => Verdict::Welcome { cookie: set_cookie(&expected, connection), to: without_token(uri) },
            (true, false, _) | (false, _, true) => Verdict::Pass,
            (false, _, false) => Verdict::Refuse {
                status: StatusCode::UNAUTHORIZED,
                message: self.what_is_needed().to_owned(),
                challenge: Some("Bearer"),
            },
        }
    }

    fn what_is_needed(&self) -> &'static str {
        match self.auth {
            Auth::Unset => {
                "a token is needed: open the URL that the gateway printed at its start, or send the content of the file \
                 \"token\" in storage.path as Authorization: Bearer"
            }
            _ => "a credential is needed: send it as Authorization: Bearer (http.auth: bearer_file)",
        }
    }

    /// The secret to compare with; a file is read at most once in [`REREAD`].
    fn expected(&self) -> Result<Secret, SecretError> {
        if self.auth.is_unset() {
            return Ok(self.token.clone());
        }
        if let Some(known) = self.known.load_full().filter(|known| known.0.elapsed() < REREAD) {
            return Ok(known.1.clone());
        }
        let secret = match &self.auth {
            Auth::Bearer(source) => source.read()?,
            Auth::Basic(basic) => {
                let header = basic.header()?;
                Secret::new(header.expose().strip_prefix("Basic ").unwrap_or_default())
            }
            Auth::Unset | Auth::Open | Auth::Mtls => self.token.clone(),
        };
        self.known.store(Some(Arc::new((Instant::now(), secret.clone()))));
        Ok(secret)
    }
}

/// The credential cannot be checked, so nobody comes in; the cause is for the log, not for the stranger.
fn unready(error: &SecretError) -> Verdict {
    tracing::error!(%error, "the credential of http.auth cannot be read: nobody is let in");
    Verdict::refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "this gateway cannot check credentials at the moment; its log says why",
    )
}

/// A browser that sends Origin must have loaded the page from the very host it asks now.
fn foreign(headers: &HeaderMap) -> Option<Verdict> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or("?");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if of.is_some_and(|of| of.eq_ignore_ascii_case(host)) {
        return None;
    }
    let message = "a request that changes something must come from this gateway's own page, or carry no Origin";
    Some(Verdict::refuse(StatusCode::FORBIDDEN, message))
}

/// `host:port`, `[v6]:port` or `host`, without the port.
fn host_of(authority: &str) -> &str {
    let end = match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        _ => authority.find(':').unwrap_or(authority.len()),
    };
    &authority[..end]
}

/// What follows the scheme, whose name is case-insensitive (RFC 9110, 11.1).
fn after<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (head, tail) = value.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme.as_bytes()).then(|| tail.trim_ascii())
}

/// Takes as long for a nearly right credential as for a wrong one; only the length can be learnt.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && black_box(left.iter().zip(right).fold(0, |diff, (a, b)| diff | (a ^ b))) == 0
}

/// Cookies do not know ports; two gateways on one machine must not overwrite each other's.
fn cookie_name(connection: Connection) -> String {
    format!("bulkhead_{}", connection.local.port())
}

fn set_cookie(token: &Secret, connection: Connection) -> String {
    let value: String = token.expose().bytes().map(|byte| format!("{byte:02x}")).collect();
    let secure = if connection.tls { "; Secure" } else { "" };
    let name = cookie_name(connection);
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000{secure}")
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Path and query without `token`; always below our own root, so that it can be no other site.
fn without_token(uri: &Uri) -> String {
    let path = format!("/{}", uri.path().trim_start_matches(['/', '\\']));
    let rest =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("token="));
    let rest: Vec<&str> = rest.collect();
    if rest.is_empty() { path } else { format!("{path}?{}", rest.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_port_and_brackets() {
        assert_eq!(
            ["a:1", "a", "[::1]:2", "[::1]", "", ":", "a]b:1"].map(host_of),
            ["a", "a", "[::1]", "[::1]", "", "", "a]b"]
        );
    }

    #[test]
    fn the_way_on_stays_on_this_site_and_drops_only_the_token() {
        let to = |uri: &str| without_token(&uri.parse().unwrap());
        assert_eq!(to("/?token=x"), "/");
        assert_eq!(to("/?a=1&token=x&b=2"), "/?a=1&b=2");
        assert_eq!(to("//evil.example/?token=x"), "/evil.example/");
    }

    #[test]
    fn comparison_is_by_content() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && same(b"", b""));
        assert_eq!(after(b"bEARER  x ", "Bearer "), Some(b"x".as_slice()));
        assert_eq!(unhex("616"), None);
        assert_eq!(unhex("é1"), None);
        assert_eq!(unhex("+161"), None);
    }
}
