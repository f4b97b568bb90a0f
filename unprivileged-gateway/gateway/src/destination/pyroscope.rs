//! Pyroscope out: profiles from the log, sealed as they are, in a push request (`push.v1.PusherService/Push`, Connect unary).
//!
//! Image: parcels that were wrapped long ago get an address label each and go into one sack. The gzip pprof of a record is copied once,
//! from the log into the request, and never opened; its id is computed from the record's place in the log, so that a sack that is sent
//! again holds the same parcels under the same numbers. What Pyroscope would refuse for its size or labels is known beforehand and goes
//! to quarantine alone.
//!
//! Weakness: Pyroscope stores a profile that comes twice twice; it does not look at the id. At least once is what is promised.

use crate::config;
use crate::destination::answer::{Answer, one_line, retry_after};
use crate::destination::http::{HttpClient, SetupError};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::wire::{len_key, put_bytes, put_varint, varint_len};
use std::collections::BTreeMap;
use wal::{Frame, NodeId};

/// What is added to the configured address.
const PATH: &str = "/push.v1.PusherService/Push";
/// An id as text: 32 hexadecimal digits in five groups. Unit: bytes.
const ID_BYTES: usize = 36;
/// A gzip member ends with the length of its contents, four bytes; header and checksum take the rest. Unit: bytes.
const GZIP_BYTES_MIN: usize = 18;
/// Names that begin with two underscores are private to the collector, but for these.
const PRIVATE_KEPT: [&str; 2] = ["__name__", "__delta__"];

/// One Pyroscope.
pub struct PyroscopeOut {
    client: HttpClient,
    packer: Packer,
}

/// The pure half: records to requests.
pub(super) struct Packer {
    node: NodeId,
    external: BTreeMap<String, String>,
    limits: config::PyroscopeLimits,
}

/// Why a profile is not sent at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offence {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl PyroscopeOut {
    pub fn new(name: &str, config: &config::Pyroscope, node: NodeId) -> Result<PyroscopeOut, SetupError> {
        let destination = format!("pyroscope/{name}");
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/proto"));
        headers.insert(HeaderName::from_static("connect-protocol-version"), HeaderValue::from_static("1"));
        if let Some(tenant) = &config.tenant {
            let value = HeaderValue::from_str(tenant).map_err(|_| SetupError::Other {
                destination: destination.clone(),
                why: format!("tenant {tenant:?} cannot be sent in a header: use visible ASCII"),
            })?;
            headers.insert(HeaderName::from_static("x-scope-orgid"), value);
        }
        let client = HttpClient::new(&destination, &push_url(config), headers, &config.common)?;
        let packer = Packer { node, external: config.external_labels.clone(), limits: config.limits.clone() };
        Ok(PyroscopeOut { client, packer })
    }

    pub(super) fn packer(&self) -> &Packer {
        &self.packer
    }

    pub async fn send(&self, body: Bytes) -> Answer {
        match self.client.post(body).await {
            Ok(reply) => judge(reply.status, &reply.headers, &reply.body),
            Err(text) => Answer::Retry { status: -1, after: None, text },
        }
    }
}

/// Where profiles are pushed to.
pub fn push_url(config: &config::Pyroscope) -> String {
    format!("{}{PATH}", config.url.trim_end_matches('/'))
}

impl Packer {
    /// Bytes of a request before another one is begun.
    pub(super) fn request_bytes(&self) -> usize {
        usize::try_from(self.limits.request).unwrap_or(usize::MAX)
    }

    /// Labels as they go out: sorted, the configured ones win (as Alloy's do here), private ones left out.
    pub(super) fn labels<'a>(&'a self, enrichment: &'a [(String, String)]) -> BTreeMap<&'a str, &'a str> {
        let known = enrichment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        known
            .chain(self.external.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .filter(|(name, value)| !value.is_empty() && (!name.starts_with("__") || PRIVATE_KEPT.contains(name)))
            .collect()
    }

    /// Holds a profile against the limits of the backend.
    pub(super) fn judge(&self, labels: &BTreeMap<&str, &str>, raw: &[u8]) -> Result<(), Offence> {
        let limits = &self.limits;
        let offence = |reason, detail| Err(Offence { reason, detail });
        if labels.len() > limits.label_names as usize {
            let detail = format!("{} labels; limits.label_names is {}", labels.len(), limits.label_names);
            return offence("max_label_names", detail);
        }
        if let Some((name, _)) = labels.iter().find(|(name, _)| name.len() as u64 > limits.label_name) {
            let detail = format!("a label name of {} bytes; limits.label_name is {}", name.len(), limits.label_name);
            return offence("label_name_too_long", detail);
        }
        if let Some((name, value)) = labels.iter().find(|(_, value)| value.len() as u64 > limits.label_value) {
            let detail =
                format!("label {name} has {} bytes; limits.label_value is {}", value.len(), limits.label_value);
            return offence("label_value_too_long", detail);
        }
        match length_inside(raw) {
            None => offence("malformed", "the profile is not gzip".into()),
            Some(length) if length > limits.profile => offence(
                "profile_too_large",
                format!("a profile of {length} bytes; limits.profile is {}", limits.profile),
            ),
            Some(_) => Ok(()),
        }
    }

    /// Lays one profile at the end of a request.
    pub(super) fn put(&self, request: &mut Vec<u8>, frame: &Frame, labels: &BTreeMap<&str, &str>, raw: &[u8]) {
        let id = self.id(frame);
        let field = |len: usize| 1 + varint_len(len as u64) + len;
        let label = |(name, value): (&&str, &&str)| field(name.len()) + field(value.len());
        let sample = field(raw.len()) + field(ID_BYTES);
        let series = labels.iter().map(|l| field(label(l))).sum::<usize>() + field(sample);
        request.reserve(field(series));
        open(request, 1, series);
        for (name, value) in labels {
            open(request, 1, label((name, value)));
            put_bytes(request, 1, name.as_bytes());
            put_bytes(request, 2, value.as_bytes());
        }
        open(request, 2, sample);
        put_bytes(request, 1, raw);
        put_bytes(request, 2, id.as_bytes());
    }

    /// The record's id in the form of a UUID of version 8: the hash of (node, signal, epoch, seq).
    pub(super) fn id(&self, frame: &Frame) -> String {
        let mut name = Vec::with_capacity(64);
        name.extend_from_slice(&self.node.0);
        name.extend_from_slice(crate::seam::Signal::Profiles.name().as_bytes());
        for part in [frame.epoch.counter, frame.epoch.random, frame.seq] {
            name.extend_from_slice(&part.to_le_bytes());
        }
        let hash = xxhash_rust::xxh3::xxh3_128(&name);
        let versioned = hash & !(0xf << 76) & !(0b11 << 62) | 8 << 76 | 0b10 << 62;
        let hex = format!("{versioned:032x}");
        let group = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        [group(0, 8), group(8, 12), group(12, 16), group(16, 20), group(20, 32)].join("-")
    }
}

fn open(out: &mut Vec<u8>, field: u8, len: usize) {
    out.push(len_key(field));
    put_varint(out, len as u64);
}

/// What a gzip member says its contents are long. None: it is none.
fn length_inside(gzip: &[u8]) -> Option<u64> {
    if gzip.len() < GZIP_BYTES_MIN || !gzip.starts_with(&[0x1f, 0x8b]) {
        return None;
    }
    gzip.last_chunk().map(|length| u32::from_le_bytes(*length).into())
}

/// What a Connect answer means: by its code where there is one, else by its status (alloy-parity 7.3).
fn judge(status: u16, headers: &HeaderMap, body: &[u8]) -> Answer {
    #[derive(serde::Deserialize)]
    struct Error {
        code: String,
        #[serde(default)]
        message: String,
    }
    if (200..300).contains(&status) {
        return Answer::Stored { rejected: 0, text: String::new() };
    }
    let error: Option<Error> = serde_json::from_slice(body).ok();
    let said =
        error.as_ref().map_or_else(|| one_line(body), |e| format!("{}: {}", e.code, one_line(e.message.as_bytes())));
    let text = format!("HTTP {status}: {said}");
    let retry = |text| Answer::Retry { status: status.into(), after: retry_after(headers), text };
    let refused = |text| Answer::Refused { status: status.into(), reason: "refused", text };
    match (error.as_ref().map(|e| e.code.as_str()), status) {
        // The server's own limit on messages has no other sign than its text.
        (Some("resource_exhausted"), _) if text.contains("larger than configured max") => Answer::TooLarge { text },
        (Some("invalid_argument" | "failed_precondition" | "out_of_range" | "already_exists"), _) => refused(text),
        (None, 413) => Answer::TooLarge { text },
        // A wrong setting, not wrong data: it waits until somebody mends the setting. So does what is down or busy.
        (Some(_), _) | (None, 401 | 403 | 404 | 405 | 408 | 415 | 429 | 300..=399 | 500..) => retry(text),
        (None, 400..=499) => refused(text),
        (None, _) => retry(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u64) -> Frame {
        Frame {
            seq,
            epoch: wal::Epoch { counter: 1, random: 2 },
            items: 1,
            codec: wal::Codec::Raw,
            raw_len: 0,
            hops: 0,
            appended_at: 1,
            origin: None,
            done: Vec::new(),
            items_before: 0,
            hash: 0,
            payload: Bytes::new(),
        }
    }

    fn packer(external: &[(&str, &str)]) -> Packer {
        let external = external.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Packer { node: NodeId([7; 16]), external, limits: config::PyroscopeLimits::default() }
    }

    fn gzip(length: usize) -> Vec<u8> {
        use std::io::Write;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(&vec![7; length]).expect("a vector grows");
        out.finish().expect("a vector grows")
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    mod official {
        #[derive(prost::Message)]
        pub(super) struct PushRequest {
            #[prost(message, repeated, tag = "1")]
            pub(super) series: Vec<RawProfileSeries>,
        }
        #[derive(prost::Message)]
        pub(super) struct RawProfileSeries {
            #[prost(message, repeated, tag = "1")]
            pub(super) labels: Vec<LabelPair>,
            #[prost(message, repeated, tag = "2")]
            pub(super) samples: Vec<RawSample>,
        }
        #[derive(prost::Message)]
        pub(super) struct LabelPair {
            #[prost(string, tag = "1")]
            pub(super) name: String,
            #[prost(string, tag = "2")]
            pub(super) value: String,
        }
        #[derive(prost::Message)]
        pub(super) struct RawSample {
            #[prost(bytes = "vec", tag = "1")]
            pub(super) raw_profile: Vec<u8>,
            #[prost(string, tag = "2")]
            pub(super) id: String,
        }
    }

    #[test]
    fn a_request_is_what_prost_makes_of_the_official_message() {
        use prost::Message;
        let packer = packer(&[("cluster", "c1"), ("node", "outer")]);
        let enrichment = pairs(&[
            ("service_name", "ebpf/app"),
            ("__name__", "process_cpu"),
            ("node", "n1"),
            ("__secret__", "x"),
            ("pod", ""),
        ]);
        let labels = packer.labels(&enrichment);
        let mut request = Vec::new();
        let raw = [gzip(10), vec![9; 300]].concat();
        packer.put(&mut request, &frame(1), &labels, &raw);
        packer.put(&mut request, &frame(2), &labels, &gzip(100));
        let read = official::PushRequest::decode(&request[..]).expect("the official message");
        assert_eq!(read.encode_to_vec(), request);
        let labels: Vec<(&str, &str)> =
            read.series[0].labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
        let expected =
            [("__name__", "process_cpu"), ("cluster", "c1"), ("node", "outer"), ("service_name", "ebpf/app")];
        assert_eq!(labels, expected, "sorted; configured ones win; private and empty ones stay here");
        assert_eq!(read.series[0].samples[0].raw_profile, raw, "untouched");
        assert_eq!(read.series.len(), 2);
    }

    #[test]
    fn an_id_is_the_records_own_and_looks_like_a_uuid() {
        let packer = packer(&[]);
        let id = packer.id(&frame(1));
        assert_eq!(id, packer.id(&frame(1)));
        assert_ne!(id, packer.id(&frame(2)));
        let mut other = frame(1);
        other.epoch.random = 3;
        assert_ne!(id, packer.id(&other));
        assert_eq!((id.len(), id.as_bytes()[14]), (ID_BYTES, b'8'));
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
    }

    #[test]
    fn what_the_backend_would_refuse_is_known_before_it_is_sent() {
        let packer = packer(&[]);
        let fine = gzip(100);
        let why =
            |labels: &[(String, String)], raw: &[u8]| packer.judge(&packer.labels(labels), raw).err().map(|o| o.reason);
        assert_eq!(why(&pairs(&[("a", "b")]), &fine), None);
        let many: Vec<_> = (0..31).map(|n| (format!("l{n}"), "v".to_owned())).collect();
        assert_eq!(why(&many, &fine), Some("max_label_names"));
        assert_eq!(why(&pairs(&[(&"n".repeat(1025), "v")]), &fine), Some("label_name_too_long"));
        assert_eq!(why(&pairs(&[("n", &"v".repeat(2049))]), &fine), Some("label_value_too_long"));
        assert_eq!(why(&[], &gzip((4 << 20) + 1)), Some("profile_too_large"));
        assert_eq!(why(&[], b"no gzip at all, whatever it is"), Some("malformed"));
    }

    #[test]
    fn an_answer_says_whether_the_data_or_the_setting_is_wrong() {
        let headers = HeaderMap::new();
        let of = |status, body: &str| judge(status, &headers, body.as_bytes());
        assert!(matches!(of(200, "{}"), Answer::Stored { rejected: 0, .. }));
        for (status, code) in [
            (504, "deadline_exceeded"),
            (500, "unknown"),
            (429, "resource_exhausted"),
            (500, "internal"),
            (503, "unavailable"),
            (500, "data_loss"),
            (409, "aborted"),
            (401, "unauthenticated"),
            (403, "permission_denied"),
            (404, "not_found"),
            (501, "unimplemented"),
        ] {
            let answer = of(status, &format!("{{\"code\":\"{code}\",\"message\":\"m\"}}"));
            assert!(matches!(&answer, Answer::Retry { text, .. } if text.contains(code)), "{code}: {answer:?}");
        }
        for status in [408, 429, 500, 502, 503, 401, 403, 404, 302] {
            assert!(matches!(of(status, "<html>"), Answer::Retry { .. }), "{status}");
        }
        let refused = of(400, r#"{"code":"invalid_argument","message":"profile is too old"}"#);
        assert!(matches!(&refused, Answer::Refused { text, .. } if text.contains("profile is too old")), "{refused:?}");
        assert!(matches!(of(400, "no"), Answer::Refused { .. }));
        assert!(matches!(of(413, "no"), Answer::TooLarge { .. }));
        let large = r#"{"code":"resource_exhausted","message":"message size 9 is larger than configured max 8"}"#;
        assert!(matches!(of(429, large), Answer::TooLarge { .. }));
    }
}
