//! Loki out: OTLP logs bytes from the log become push requests, shard by shard.
//!
//! Order: entries of one stream are always in one push of a batch, and the next batch starts when this one is settled, so a stream
//! never overtakes itself. What the backend says about one stream never holds back the others: see [`crate::destination::run`].

use crate::config;
use crate::destination::answer::{Answer, one_line, retry_after};
use crate::destination::http::{HttpClient, SetupError};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::chunk::FileLabels;
use model::loki::{Encoder, Options, answer};
use std::sync::Arc;

/// One Loki.
pub struct LokiOut {
    client: HttpClient,
    pub encoder: Encoder,
}

impl LokiOut {
    pub fn new(name: &str, config: &config::Loki, files: Arc<FileLabels>) -> Result<LokiOut, SetupError> {
        let destination = format!("loki/{name}");
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        if let Some(tenant) = &config.tenant {
            let value = HeaderValue::from_str(tenant).map_err(|_| SetupError::Other {
                destination: destination.clone(),
                why: format!("tenant {tenant:?} cannot be sent in a header: use visible ASCII"),
            })?;
            headers.insert(HeaderName::from_static("x-scope-orgid"), value);
        }
        let client = HttpClient::new(&destination, &config.url, headers, &config.common)?;
        Ok(LokiOut { client, encoder: Encoder::new(options(config, files)) })
    }

    pub async fn send(&self, body: Bytes) -> Answer {
        let reply = match self.client.post(body).await {
            Ok(reply) => reply,
            Err(text) => return Answer::Retry { status: -1, after: None, text },
        };
        let text = format!("HTTP {}: {}", reply.status, one_line(&reply.body));
        let (status, after) = (i32::from(reply.status), retry_after(&reply.headers));
        match answer::judge(reply.status, &String::from_utf8_lossy(&reply.body)) {
            answer::Verdict::Stored => Answer::Stored { rejected: 0, text },
            answer::Verdict::PartlyStored { .. } => Answer::PartlyStored { text },
            answer::Verdict::Retry { streams, .. } if streams.is_empty() => Answer::Retry { status, after, text },
            answer::Verdict::Retry { streams, .. } => Answer::RetryStreams { streams, after, text },
            answer::Verdict::Split { .. } => Answer::TooLarge { text },
            answer::Verdict::Refused { .. } => Answer::Refused { status, reason: "refused", text },
        }
    }
}

/// The encoder's options: together with the WAL records they decide every byte that is sent.
pub fn options(config: &config::Loki, files: Arc<FileLabels>) -> Options {
    Options {
        files,
        external_labels: config.external_labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        line: match config.line {
            config::Line::Body => model::loki::Line::Body,
            config::Line::AlloyJson => model::loki::Line::AlloyJson,
        },
        limits: model::loki::Limits {
            line_bytes: config.limits.line as usize,
            label_names: config.limits.label_names as usize,
            label_name_bytes: config.limits.label_name as usize,
            label_value_bytes: config.limits.label_value as usize,
            metadata_bytes: config.limits.metadata as usize,
            metadata_entries: config.limits.metadata_entries as usize,
        },
    }
}
