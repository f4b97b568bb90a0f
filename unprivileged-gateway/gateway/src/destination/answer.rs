//! What a backend said, reduced to what has to be done about it.

use std::time::Duration;

/// The end of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken. `rejected` records were named as refused for good by the backend (OTLP partial success).
    Stored { rejected: u64, text: String },
    /// Some of it was stored, the rest refused for good, and the backend does not say which (Loki's 400).
    PartlyStored { text: String },
    /// Nobody's fault: down, busy, misconfigured. The data waits.
    /// `status` is HTTP's or gRPC's, -1 when nothing came back.
    Retry { status: i32, after: Option<Duration>, text: String },
    /// Only these streams are over their limit; the others can go on.
    RetryStreams { streams: Vec<String>, after: Option<Duration>, text: String },
    /// Larger than the backend takes: send it in halves.
    TooLarge { text: String },
    /// Refused for good. Sending it again as it is will not help.
    Refused { status: i32, reason: &'static str, text: String },
}

impl Answer {
    /// The status for histograms: HTTP's, or gRPC's for gRPC; -1 when nothing came back.
    pub fn status(&self) -> i32 {
        match self {
            Answer::Stored { .. } => 200,
            Answer::PartlyStored { .. } => 400,
            Answer::RetryStreams { .. } => 429,
            Answer::TooLarge { .. } => 413,
            Answer::Retry { status, .. } | Answer::Refused { status, .. } => *status,
        }
    }
}

/// The longest piece of a backend's text that is kept, shown and logged. Unit: bytes.
const TEXT_MAX: usize = 1024;

/// A backend's answer as one line of bounded length: its bytes are foreign.
pub fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(TEXT_MAX)]);
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "(no text)".into() } else { text }
}

/// `Retry-After` in whole seconds. The date form is rare and taken as absent: the usual pause applies.
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An OTLP/HTTP answer (OTLP specification, "OTLP/HTTP response"; `body` is the raw answer).
pub fn judge_otlp_http(status: u16, headers: &http::HeaderMap, body: &[u8]) -> Answer {
    let text = || format!("HTTP {status}: {}", one_line(&status_message(body).unwrap_or_else(|| body.to_vec())));
    match status {
        200..=299 => partial_success(body),
        400 | 422 => Answer::Refused { status: status.into(), reason: "refused", text: text() },
        413 => Answer::TooLarge { text: text() },
        // 401, 403, 404 are a wrong setting, not wrong data: it waits until somebody mends the setting.
        _ => Answer::Retry { status: status.into(), after: retry_after(headers), text: text() },
    }
}

/// A gRPC status (OTLP specification, "Failures").
pub fn judge_otlp_grpc(status: &tonic::Status) -> Answer {
    use tonic::Code;
    let text = format!("gRPC {:?}: {}", status.code(), one_line(status.message().as_bytes()));
    match status.code() {
        Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => {
            Answer::Refused { status: status.code() as i32, reason: "refused", text }
        }
        // The receiver's own message limit has no other sign than its text.
        Code::ResourceExhausted | Code::OutOfRange
            if status.message().contains("larger than max")
                || status.message().contains("message length too large") =>
        {
            Answer::TooLarge { text }
        }
        _ => Answer::Retry { status: status.code() as i32, after: retry_info(status.details()), text },
    }
}

/// ExportXServiceResponse{partial_success = 1 {rejected = 1, error_message = 2}}, the same shape for every signal.
pub fn partial_success(body: &[u8]) -> Answer {
    #[derive(prost::Message)]
    struct Partial {
        #[prost(int64, tag = "1")]
        rejected: i64,
        #[prost(string, tag = "2")]
        message: String,
    }
    #[derive(prost::Message)]
    struct Response {
        #[prost(message, optional, tag = "1")]
        partial: Option<Partial>,
    }
    // An answer of 200 that is not OTLP (a proxy's page, JSON) still says "taken".
    let partial = <Response as prost::Message>::decode(body).ok().and_then(|r| r.partial).unwrap_or_default();
    Answer::Stored { rejected: partial.rejected.max(0) as u64, text: one_line(partial.message.as_bytes()) }
}

/// The message of a google.rpc.Status body.
fn status_message(body: &[u8]) -> Option<Vec<u8>> {
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let status = <RpcStatus as prost::Message>::decode(body).ok()?;
    (!status.message.is_empty()).then(|| status.message.into_bytes())
}

/// google.rpc.RetryInfo inside google.rpc.Status details.
fn retry_info(details: &[u8]) -> Option<Duration> {
    #[derive(prost::Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    #[derive(prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        delay: Option<Delay>,
    }
    #[derive(prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let status = <RpcStatus as prost::Message>::decode(details).ok()?;
    let any = status.details.iter().find(|a| a.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = <RetryInfo as prost::Message>::decode(&any.value[..]).ok()?.delay?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?.min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_waits_and_wrong_data_does_not() {
        let h = http::HeaderMap::new();
        for status in [401, 403, 404, 429, 500, 503, 302] {
            assert!(matches!(judge_otlp_http(status, &h, b""), Answer::Retry { .. }), "{status}");
        }
        assert!(matches!(judge_otlp_http(400, &h, b"no"), Answer::Refused { .. }));
        assert!(matches!(judge_otlp_http(413, &h, b""), Answer::TooLarge { .. }));
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_nonsense_is_ignored() {
        let mut h = http::HeaderMap::new();
        h.insert("retry-after", http::HeaderValue::from_static("7"));
        let Answer::Retry { after, .. } = judge_otlp_http(503, &h, b"") else { panic!("503 is a retry") };
        assert_eq!(after, Some(Duration::from_secs(7)));
        h.insert("retry-after", http::HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&h), None);
    }

    #[test]
    fn partial_success_counts_what_the_backend_rejected() {
        // partial_success{rejected: 3, error_message: "old"}
        let body = [0x0a, 7, 0x08, 3, 0x12, 3, b'o', b'l', b'd'];
        assert_eq!(partial_success(&body), Answer::Stored { rejected: 3, text: "old".into() });
        assert!(matches!(partial_success(b"<html>"), Answer::Stored { rejected: 0, .. }));
    }

    #[test]
    fn a_backends_text_is_bounded_and_holds_no_control_characters() {
        let text = one_line(&[b'x'; 5000]);
        assert_eq!(text.len(), TEXT_MAX);
        assert_eq!(one_line(b" a\nb\x1b[31m "), "a b [31m");
    }
}
