#![forbid(unsafe_code)]
//! The load tool: sends numbered OTLP, catches it again behind the system under test, and compares the two lists.
//!
//! `payload` prints requests, `client` and `run` send them and keep a `ledger`; `sink` is every backend in one process, with
//! faults; `judge` lays the two side by side. It shares no code with the gateway, so neither can hide the other's mistakes.

pub mod judge;
pub mod ledger;
pub mod payload;
pub mod presence;
pub mod run;
pub mod sink;
pub mod wire;

mod client;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

/// An HTTP answer read by [`http_get`], bytes.
const ANSWER_MAX: u64 = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Logs,
    Traces,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

/// `grpc://127.0.0.1:4317` or `http://127.0.0.1:4318`; a literal loopback address, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let (protocol, rest) = match text.split_once("://") {
            Some(("grpc", rest)) => (Protocol::Grpc, rest),
            Some(("http", rest)) => (Protocol::Http, rest),
            _ => return Err(format!("`{text}` is no endpoint: write grpc://127.0.0.1:4317 or http://127.0.0.1:4318")),
        };
        let rest = rest.trim_end_matches('/').replace("localhost", "127.0.0.1");
        let address: SocketAddr = rest.parse().map_err(|_| format!("`{text}`: `{rest}` is not ADDRESS:PORT"))?;
        if !address.ip().is_loopback() {
            return Err(format!("`{text}` is not on loopback: load on other machines' networks is refused"));
        }
        Ok(Endpoint { protocol, address })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.protocol == Protocol::Grpc { "grpc" } else { "http" };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// One blocking GET to a control port: enough HTTP to read an answer with a length. Errors: the socket, or a status that is not 200.
pub fn http_get(at: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        let first = answer.split(|b| *b == b'\r').next().unwrap_or(&[]);
        return Err(io::Error::other(String::from_utf8_lossy(first).into_owned()));
    }
    Ok(answer.split_off(end + 4))
}
