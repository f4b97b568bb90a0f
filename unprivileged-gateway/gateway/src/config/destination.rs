//! Where records go: one struct a kind of backend, one block of settings they share.
//!
//! Like a parcel label: the address differs by carrier, the handling instructions do not. The kind is the key in the file, the
//! name the key below it; together they are the destination's identity in the log. Weakness: a new kind is a new struct here, on
//! purpose: four backends need no registry.

use super::secret::{self, Secret, SecretError, SecretSource, SourceForm};
use super::server::Basic;
use super::unit::{self, DurationText, PathText, SizeText};
use crate::seam::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Every destination of this node, by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Loki's push API, one entry a destination; takes logs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loki: BTreeMap<String, Loki>,
    /// Any OTLP backend (Tempo, a collector), one entry a destination.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub otlp: BTreeMap<String, OtlpOut>,
    /// Pyroscope, one entry a destination; takes profiles.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pyroscope: BTreeMap<String, Pyroscope>,
}

/// One Loki.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Loki {
    /// The whole push URL, `http://` or `https://`.
    #[schemars(extend("format" = "url"))]
    pub url: String,
    /// Sent as `X-Scope-OrgID`; absent: no such header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Labels put on every stream; they win over labels of the record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_labels: BTreeMap<String, String>,
    /// What the line of an OTLP log record is: its body, or the JSON form that Alloy wrote.
    #[serde(default)]
    pub line: Line,
    /// Limits of this Loki; what exceeds them goes to quarantine or is cut before it is sent.
    #[serde(default)]
    pub limits: LokiLimits,
    #[serde(flatten)]
    pub common: Common,
}

/// The line of an OTLP log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Line {
    #[default]
    Body,
    AlloyJson,
}

/// Loki's documented defaults, and our patience with streams it limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LokiLimits {
    /// Longest line; a longer one is cut, with a marker and a counter.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub line: u64,
    /// Most labels of one stream.
    pub label_names: u32,
    /// Longest label name.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub label_name: u64,
    /// Longest label value.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub label_value: u64,
    /// Most structured metadata of one entry, names and values together.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub metadata: u64,
    /// Most structured metadata entries of one log entry.
    pub metadata_entries: u32,
    /// How long a stream that Loki limits by name is tried on its own before it goes to quarantine.
    #[serde(with = "unit::duration")]
    #[schemars(with = "DurationText")]
    pub stream_patience: Duration,
}

impl Default for LokiLimits {
    fn default() -> LokiLimits {
        LokiLimits {
            line: 256 * 1024,
            label_names: 15,
            label_name: 1024,
            label_value: 2048,
            metadata: 64 * 1024,
            metadata_entries: 128,
            stream_patience: Duration::from_secs(600),
        }
    }
}

/// One Pyroscope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pyroscope {
    /// Where it is reached, `http://` or `https://`; `/push.v1.PusherService/Push` is added to it.
    #[schemars(extend("format" = "url"))]
    pub url: String,
    /// Sent as `X-Scope-OrgID`; absent: no such header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Labels put on every profile; they win over labels of the record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_labels: BTreeMap<String, String>,
    /// Limits of this Pyroscope; what exceeds them goes to quarantine before it is sent.
    #[serde(default)]
    pub limits: PyroscopeLimits,
    #[serde(flatten)]
    pub common: Common,
}

/// Pyroscope's documented defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PyroscopeLimits {
    /// Largest request; a single profile that is larger is sent alone.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub request: u64,
    /// Largest profile before compression.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub profile: u64,
    /// Most labels of one profile.
    pub label_names: u32,
    /// Longest label name.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub label_name: u64,
    /// Longest label value.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub label_value: u64,
}

impl Default for PyroscopeLimits {
    fn default() -> PyroscopeLimits {
        PyroscopeLimits { request: 4 << 20, profile: 4 << 20, label_names: 30, label_name: 1024, label_value: 2048 }
    }
}

/// One OTLP backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OtlpOut {
    /// `host:port`, or a URL. With `protocol: http` the path `/v1/logs` or `/v1/traces` is added to it.
    #[schemars(extend("format" = "endpoint"))]
    pub endpoint: String,
    /// OTLP over gRPC, or over HTTP with protobuf bodies.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which signals it takes; absent: all that this version serves.
    #[serde(default = "served_signals")]
    pub signals: Vec<Signal>,
    /// How bodies are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Limits of this backend.
    #[serde(default)]
    pub limits: OtlpLimits,
    #[serde(flatten)]
    pub common: Common,
}

/// What the backend can take in one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpLimits {
    /// Largest request before compression; records that came in one larger request are still sent together.
    #[serde(with = "unit::size")]
    #[schemars(with = "SizeText")]
    pub request: u64,
}

impl Default for OtlpLimits {
    /// gRPC servers take 4 MiB unless told otherwise.
    fn default() -> OtlpLimits {
        OtlpLimits { request: 4 * 1024 * 1024 }
    }
}

/// Signals that this version receives and sends as OTLP.
pub fn served_signals() -> Vec<Signal> {
    vec![Signal::Logs, Signal::Traces]
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Protocol {
    #[default]
    Grpc,
    Http,
}

/// How OTLP bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}

/// What every destination takes, whatever its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Common {
    /// `off`, or the certificates to use; an endpoint without a scheme needs one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<OutTls>,
    /// User and password for `Authorization: Basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// Token for `Authorization: Bearer`; better kept in `bearer_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Secret>,
    /// File with the token for `Authorization: Bearer`; read at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub bearer_file: Option<PathBuf>,
    /// Headers put on every request; a value is a text or `{ file: PATH }`, and is never shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, SourceForm>")]
    pub headers: BTreeMap<String, SecretSource>,
    /// How long one request may take.
    #[serde(default = "default_timeout", with = "unit::duration")]
    #[schemars(with = "DurationText", extend("default" = "10s"))]
    pub timeout: Duration,
    /// Where a destination that was never registered begins: at what arrives from now on, or at the oldest record held.
    #[serde(default)]
    pub from: From,
    /// The name this destination had before; its place in the log goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// False: takes nothing new and sends what waits, before it is removed.
    #[serde(default = "yes")]
    pub intake: bool,
    /// What happens to its waiting records when it disappears from the configuration.
    #[serde(default)]
    pub on_remove: OnRemove,
}

impl Common {
    /// The value of the `Authorization` header, if the configuration gives one; files are read now.
    pub fn authorization(&self) -> Result<Option<Secret>, SecretError> {
        let bearer = |token: Secret| Secret::new(format!("Bearer {}", token.expose()));
        match (&self.bearer_file, &self.bearer, &self.basic) {
            (Some(path), _, _) => secret::read_file(path).map(bearer).map(Some),
            (None, Some(token), _) => Ok(Some(bearer(token.clone()))),
            (None, None, Some(basic)) => basic.header().map(Some),
            (None, None, None) => Ok(None),
        }
    }
}

impl Default for Common {
    fn default() -> Common {
        Common {
            tls: None,
            basic: None,
            bearer: None,
            bearer_file: None,
            headers: BTreeMap::new(),
            timeout: default_timeout(),
            from: From::default(),
            was: None,
            intake: true,
            on_remove: OnRemove::default(),
        }
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn yes() -> bool {
    true
}

/// Where an unregistered destination begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum From {
    #[default]
    Now,
    Oldest,
}

/// What happens to the records of a destination that is no longer configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnRemove {
    #[default]
    Keep,
    Discard,
}

/// TLS towards a backend: said off, or on with these files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TlsForm", into = "TlsForm")]
pub enum OutTls {
    Off,
    On(ClientTls),
}

/// How `tls` is written: the word `off`, or a map of files.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum TlsForm {
    Off(OffWord),
    On(ClientTls),
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum OffWord {
    Off,
}

impl std::convert::From<TlsForm> for OutTls {
    fn from(form: TlsForm) -> OutTls {
        match form {
            TlsForm::Off(OffWord::Off) => OutTls::Off,
            TlsForm::On(tls) => OutTls::On(tls),
        }
    }
}

impl std::convert::From<OutTls> for TlsForm {
    fn from(tls: OutTls) -> TlsForm {
        match tls {
            OutTls::Off => TlsForm::Off(OffWord::Off),
            OutTls::On(tls) => TlsForm::On(tls),
        }
    }
}

impl JsonSchema for OutTls {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OutTls".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TlsForm::json_schema(generator)
    }
}

/// Certificates towards a backend; `{}` trusts the system's authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// PEM file with the authorities to trust; absent: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate, for mutual TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub cert_file: Option<PathBuf>,
    /// PEM file with our private key, for mutual TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub key_file: Option<PathBuf>,
    /// Name to expect in the backend's certificate, where it differs from the host dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}
