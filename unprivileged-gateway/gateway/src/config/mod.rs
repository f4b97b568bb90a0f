//! The configuration: text in, one immutable value out, or every mistake at once.
//!
//! Like a customs form: it is filled in by several hands (defaults, files, environment, flags; later wins), read once, and either
//! stamped whole or handed back with every wrong field marked. [`Config`] is what the rest of the program sees: plain values that
//! compare equal slice by slice, so that a reload can tell what changed. Weakness: everything is read before anything is used, so
//! a file that appears later (a certificate, a token) is judged by whoever opens it.

mod check;
mod check_collect;
mod check_send;
mod collect;
mod destination;
mod expand;
mod finding;
mod later;
mod load;
mod mask;
mod nearness;
mod print;
pub mod reach;
mod secret;
mod server;
mod shape;
mod source;
mod surroundings;
mod tree;
pub mod unit;
mod walk;

pub use collect::{Cpu, Every, Journal, LogFiles, Logs, PROBE_SOCKET, Pods, Probe, Profiles, Scrape};
pub use destination::{
    ClientTls, Common, Compression, From, Line, Loki, LokiLimits, OnRemove, OtlpLimits, OtlpOut, OutTls, Protocol,
    Pyroscope, PyroscopeLimits, Send, served_signals,
};
pub use finding::{Finding, Findings, Severity};
pub use load::{Given, Loaded, Override, Request, load};
pub(crate) use nearness::nearest;
pub use print::Explained;

pub use secret::{MASK, SECRET_FILE_BYTES_MAX, Secret, SecretError, SecretSource};
pub(crate) use server::base64;
pub use server::{Auth, Basic, ServerTls};
pub use shape::published as schema;
pub use source::{Layer, Place, Source, Sources};
pub use surroundings::{Imagined, Machine, Surroundings};

use crate::seam::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use unit::{AddressOrOffText, AddressText, DurationText, PathText, SizeText};

/// The whole configuration of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Bulkhead gateway configuration")]
pub struct Config {
    /// This node, as shown to people.
    #[serde(default)]
    pub node: Node,
    /// The folder that holds every accepted record until it is delivered.
    #[serde(default)]
    pub storage: Storage,
    /// How much memory records in flight may use.
    #[serde(default)]
    pub memory: Memory,
    /// The page, the API, health and metrics.
    #[serde(default)]
    pub http: Http,
    /// The connection to the probe; absent: no probe is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// What comes in.
    #[serde(default)]
    pub receive: Receive,
    /// Logs that this node reads itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
    /// Metrics that this node reads itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<Scrape>,
    /// Profiles that this node takes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Profiles>,
    /// What goes out.
    #[serde(default)]
    pub send: Send,
    /// The last minutes in memory for the page; absent with a configuration file: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_view: Option<LocalView>,
}

impl Config {
    /// Destinations whose `tls: off` was the consent to send in the clear; the start names them.
    pub fn sent_in_the_clear(&self) -> Vec<String> {
        let off = |to: &&OtlpOut| to.common.tls == Some(OutTls::Off) && !to.endpoint.contains("://");
        let named = self.send.otlp.iter().filter(|(_, to)| off(to));
        named.map(|(name, to)| format!("send.otlp.{name} ({})", to.endpoint)).collect()
    }
}

/// This node, as shown to people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Shown on the page and in labels, never an identity. Default: `K8S_NODE_NAME`, then the host name.
    pub name: String,
}

/// The folder that holds every accepted record until it is delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The folder. Default: `STATE_DIRECTORY`, else `XDG_STATE_HOME/bulkhead`, else `~/.local/state/bulkhead`.
    #[schemars(with = "PathText")]
    pub path: PathBuf,
    /// Most bytes on disk, all signals and quarantine together.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub max: u64,
    /// How long a commit waits for more requests to share one sync.
    #[serde(with = "unit::duration")]
    #[schemars(with = "DurationText")]
    pub commit_window: Duration,
    /// How long delivered records are kept, by signal; room that is needed is taken back first.
    #[serde(with = "unit::durations", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<Signal, DurationText>")]
    pub retain: BTreeMap<Signal, Duration>,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage { path: PathBuf::new(), max: 8 << 30, commit_window: Duration::from_millis(5), retain: BTreeMap::new() }
    }
}

/// How much memory records in flight may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Bytes of requests and batches held at once. Default: 64 MiB, or a quarter of the cgroup's limit if that is less.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub budget: u64,
}

/// Default of `memory.budget`, in bytes, before the cgroup has its say.
pub const BUDGET_BYTES_DEFAULT: u64 = 64 << 20;

impl Default for Memory {
    fn default() -> Memory {
        Memory { budget: BUDGET_BYTES_DEFAULT }
    }
}

/// The page, the API, health and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where the page, the API, health and metrics are served.
    #[serde(with = "unit::address")]
    #[schemars(with = "AddressText")]
    pub listen: SocketAddr,
    /// Further names under which browsers may reach it, beyond localhost and the address itself.
    pub hosts: Vec<String>,
    /// Serve HTTPS with this certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Who may see the page and use the API: `none`, `mtls`, or a map with `bearer_file` or `basic`.
    #[serde(skip_serializing_if = "Auth::is_unset")]
    pub auth: Auth,
}

/// Ports people know: the page, OTLP over gRPC, OTLP over HTTP.
pub const HTTP_PORT: u16 = 12345;
pub const OTLP_GRPC_PORT: u16 = 4317;
pub const OTLP_HTTP_PORT: u16 = 4318;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Default for Http {
    fn default() -> Http {
        Http { listen: loopback(HTTP_PORT), hosts: Vec::new(), tls: None, auth: Auth::Unset }
    }
}

/// What comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Receive {
    /// OTLP over gRPC and HTTP; `{}` opens both usual ports on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
}

/// The OTLP doors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Address for OTLP over gRPC, or `off`. With neither `grpc` nor `http` both are open on loopback; with one, only that.
    #[serde(with = "unit::address_or_off")]
    #[schemars(with = "AddressOrOffText")]
    pub grpc: Option<SocketAddr>,
    /// Address for OTLP over HTTP, or `off`.
    #[serde(with = "unit::address_or_off")]
    #[schemars(with = "AddressOrOffText")]
    pub http: Option<SocketAddr>,
    /// Largest request after decompression; at most half of `memory.budget`.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub max_request: u64,
    /// After this time a connection is asked to close, so that senders spread over replicas.
    #[serde(with = "unit::duration")]
    #[schemars(with = "DurationText")]
    pub max_connection_age: Duration,
    /// Serve both doors with this certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Who may send: `none`, `mtls`, or a map with `bearer_file` or `basic`.
    #[serde(skip_serializing_if = "Auth::is_unset")]
    pub auth: Auth,
}

/// Default of `receive.otlp.max_request`, in bytes.
pub const REQUEST_BYTES_DEFAULT: u64 = 16 << 20;

impl Default for Otlp {
    fn default() -> Otlp {
        Otlp {
            grpc: Some(loopback(OTLP_GRPC_PORT)),
            http: Some(loopback(OTLP_HTTP_PORT)),
            max_request: REQUEST_BYTES_DEFAULT,
            max_connection_age: Duration::from_secs(600),
            tls: None,
            auth: Auth::Unset,
        }
    }
}

/// The last minutes in memory, for the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LocalView {
    /// Most bytes it holds, on top of `memory.budget`.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub max: u64,
    /// How far back it reaches.
    #[serde(with = "unit::duration")]
    #[schemars(with = "DurationText")]
    pub window: Duration,
}

impl Default for LocalView {
    fn default() -> LocalView {
        LocalView { max: 64 << 20, window: Duration::from_secs(900) }
    }
}
