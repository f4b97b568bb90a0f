//! Who may send.
//!
//! Like a doorman with one password, who looks up today's at most once a second. A credential that cannot be read lets nobody
//! in: the sender keeps its data and comes back. Weakness: a bearer token is as good as whoever holds it; only mTLS ties a sender
//! to a key.

use super::answer::Fault;
use crate::config::{Auth, Secret, SecretError};
use arc_swap::ArcSwapOption;
use http::{HeaderMap, header::AUTHORIZATION};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a credential that was read from its file is used before it is read again.
const REREAD: Duration = Duration::from_secs(1);

pub(super) struct Gate {
    auth: Auth,
    known: ArcSwapOption<Known>,
}

struct Known {
    read_at: Instant,
    header: Secret,
}

impl Gate {
    pub(super) fn new(auth: Auth) -> Gate {
        Gate { auth, known: ArcSwapOption::empty() }
    }

    /// Compares the `Authorization` header; client certificates were already judged by the handshake.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Fault> {
        if matches!(self.auth, Auth::Unset | Auth::Open | Auth::Mtls) {
            return Ok(());
        }
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let shown = shown.ok_or(Fault::Unauthenticated("no credential: an Authorization header is needed"))?;
        let known = self.expected()?;
        match same(&normal(shown), known.header.expose().as_bytes()) {
            true => Ok(()),
            false => Err(Fault::Unauthenticated("the credential in the Authorization header is not the right one")),
        }
    }

    /// What `WWW-Authenticate` says.
    pub(super) fn scheme(&self) -> &'static str {
        if let Auth::Basic(_) = self.auth { "Basic" } else { "Bearer" }
    }

    fn expected(&self) -> Result<Arc<Known>, Fault> {
        if let Some(known) = self.known.load_full().filter(|known| known.read_at.elapsed() < REREAD) {
            return Ok(known);
        }
        let header = read(&self.auth).map_err(|error| {
            tracing::error!(%error, "the credential of an OTLP listener cannot be read: nobody is let in");
            Fault::Unready("this receiver cannot check credentials at the moment".into())
        })?;
        let known = Arc::new(Known { read_at: Instant::now(), header });
        self.known.store(Some(known.clone()));
        Ok(known)
    }
}

fn read(auth: &Auth) -> Result<Secret, SecretError> {
    match auth {
        Auth::Bearer(source) => source.read().map(|token| Secret::new(format!("Bearer {}", token.expose()))),
        Auth::Basic(basic) => basic.header(),
        Auth::Unset | Auth::Open | Auth::Mtls => Ok(Secret::new("")),
    }
}

/// The scheme's name is case-insensitive (RFC 9110, 11.1).
fn normal(shown: &[u8]) -> Vec<u8> {
    for scheme in ["Bearer ", "Basic "] {
        if shown.len() >= scheme.len() && shown[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes()) {
            return [scheme.as_bytes(), shown[scheme.len()..].trim_ascii()].concat();
        }
    }
    shown.to_vec()
}

/// Takes as long for a nearly right credential as for a wrong one; only the length can be learnt.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && black_box(left.iter().zip(right).fold(0, |diff, (a, b)| diff | (a ^ b))) == 0
}
