//! Loki's push messages as prost sees them, and pushes taken apart.

use model::loki::Push;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stream {
    #[prost(string, tag = "1")]
    pub(crate) labels: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub(crate) timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub(crate) line: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// Decodes a push and checks what it says of itself.
pub(crate) fn open(push: &Push) -> PushRequest {
    let raw = snap::raw::Decoder::new().decompress_vec(&push.body).expect("one snappy block");
    assert_eq!(raw.len(), push.raw_bytes);
    let request = PushRequest::decode(&raw[..]).expect("a PushRequest");
    let labels: Vec<&String> = request.streams.iter().map(|s| &s.labels).collect();
    assert_eq!(labels, push.streams.iter().collect::<Vec<_>>());
    let entries: usize = request.streams.iter().map(|s| s.entries.len()).sum();
    assert_eq!(entries, push.entries as usize);
    assert!(request.streams.iter().all(|s| !s.entries.is_empty() && s.labels.len() > 2), "no stream is empty");
    request
}
