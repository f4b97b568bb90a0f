//! The HTTP side of every destination: one client a destination, with its TLS, credentials and limits.
//!
//! Redirects are not followed (a backend must not send our data elsewhere) and answers are read with a cap, because a backend's
//! bytes are foreign too.

use crate::config::{ClientTls, Common, OutTls};
use crate::destination::answer::one_line;
use crate::destination::tls::{ClientTlsError, client_config, trusts_nobody};
use bytes::Bytes;
use std::time::Duration;

/// How much of an answer is read. Unit: bytes.
const ANSWER_MAX: usize = 64 << 10;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A destination that cannot be set up at all. The message names it and what to mend.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{destination}: {source}")]
    Tls { destination: String, source: ClientTlsError },
    #[error("{destination}: {why}")]
    Other { destination: String, why: String },
}

/// The certificates to use; plain text needs none, and a scheme without `tls` trusts the system.
pub fn client_tls(common: &Common) -> ClientTls {
    match &common.tls {
        Some(OutTls::On(tls)) => tls.clone(),
        Some(OutTls::Off) | None => ClientTls::default(),
    }
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

/// A client for one destination's URL.
pub struct HttpClient {
    client: reqwest::Client,
    url: String,
    headers: http::HeaderMap,
    common: Common,
}

impl HttpClient {
    pub fn new(
        destination: &str,
        url: &str,
        headers: http::HeaderMap,
        common: &Common,
    ) -> Result<HttpClient, SetupError> {
        let client = builder(url, &client_tls(common))
            .map_err(|source| SetupError::Tls { destination: destination.into(), source })?
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(common.timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(8)
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| SetupError::Other { destination: destination.into(), why: format!("no HTTP client: {e}") })?;
        Ok(HttpClient { client, url: url.into(), headers, common: common.clone() })
    }

    /// One POST. `Err` holds the text of what went wrong below HTTP (refused, timeout, TLS): always a reason to try again.
    pub async fn post(&self, body: Bytes) -> Result<Reply, String> {
        let mut request = self.client.post(&self.url).headers(self.headers.clone()).body(body);
        for (name, value) in &self.common.headers {
            request = request.header(name, value.read().map_err(|e| e.to_string())?.expose());
        }
        if let Some(value) = self.common.authorization().map_err(|e| e.to_string())? {
            request = request.header(http::header::AUTHORIZATION, value.expose());
        }
        let mut response = request.send().await.map_err(|e| chain(&e))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
            let room = ANSWER_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() >= ANSWER_MAX {
                break; // the connection is not used again, which is the price of a backend that talks too much
            }
        }
        Ok(Reply { status, headers, body })
    }
}

/// A client builder with our TLS. Plain text must work where there are no root certificates at all.
pub fn builder(url: &str, tls: &ClientTls) -> Result<reqwest::ClientBuilder, ClientTlsError> {
    let config = if url.starts_with("https://") { client_config(tls, &[b"http/1.1"])? } else { trusts_nobody()? };
    Ok(reqwest::Client::builder().use_preconfigured_tls(config))
}

/// An error and its causes on one line: reqwest's own text stops at "error sending request".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let next = c.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = c.source();
    }
    one_line(text.as_bytes())
}
