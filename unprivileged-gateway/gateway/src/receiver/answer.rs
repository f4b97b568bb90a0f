//! Every way to say no, and what it looks like on each door.
//!
//! Like one complaint form in two languages: a [`Fault`] is written once and spoken as a gRPC status or as an HTTP code with a
//! `google.rpc.Status`. Retryable pressure always carries RetryInfo or Retry-After, because clients drop a RESOURCE_EXHAUSTED
//! without it. Weakness: texts are English sentences for people; programs should read codes and reasons.

use super::counters::reason;
use crate::budget::Short;
use crate::seam::{Refusal, RefusalClass};
use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use std::time::Duration;
use tonic::{Code, Status};

/// What a client is told to wait when whoever refused gave no time.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// Longest wait we ask for: a sender's own queue is small.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A call that was not accepted. The sender still holds its data.
#[derive(Debug)]
pub enum Fault {
    /// The bytes are not what they claim to be.
    Malformed(String),
    /// Over a size limit: sending it again will not help, sending it in smaller pieces will.
    TooLarge(String),
    /// A compression that is not understood.
    Compression(String),
    /// Nobody takes this signal, or there is no such method.
    Unserved(String),
    /// Credential missing or wrong.
    Unauthenticated(&'static str),
    /// The body broke off or came too slowly.
    Slow(String),
    /// No memory in time.
    Memory(Short),
    /// Our own fault, for instance a credential file that cannot be read.
    Unready(String),
    /// The intake's own no, and how many records it was about.
    Refused(Refusal, u32),
}

impl Fault {
    /// The label under which it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Fault::Malformed(_) => reason::MALFORMED,
            Fault::TooLarge(_) | Fault::Memory(Short::Never { .. }) => reason::TOO_LARGE,
            Fault::Compression(_) => reason::UNSUPPORTED,
            Fault::Unserved(_) => reason::UNSERVED,
            Fault::Unauthenticated(_) | Fault::Unready(_) => reason::AUTH,
            Fault::Slow(_) => reason::SLOW,
            Fault::Memory(_) => reason::BUDGET,
            Fault::Refused(refusal, _) => refusal.reason,
        }
    }

    /// Records in the refused request; a request that was not read counts as one.
    pub fn records(&self) -> u32 {
        if let Fault::Refused(_, records) = self { *records } else { 1 }
    }

    fn message(&self) -> String {
        match self {
            Fault::Malformed(text)
            | Fault::TooLarge(text)
            | Fault::Compression(text)
            | Fault::Unserved(text)
            | Fault::Slow(text)
            | Fault::Unready(text) => text.clone(),
            Fault::Unauthenticated(text) => (*text).to_owned(),
            Fault::Memory(short) => short.to_string(),
            Fault::Refused(refusal, _) => refusal.message.clone(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Fault::Malformed(_) => Code::InvalidArgument,
            Fault::TooLarge(_) | Fault::Memory(Short::Never { .. }) => Code::ResourceExhausted,
            Fault::Compression(_) | Fault::Unserved(_) => Code::Unimplemented,
            Fault::Unauthenticated(_) => Code::Unauthenticated,
            Fault::Slow(_) | Fault::Memory(_) | Fault::Unready(_) => Code::Unavailable,
            Fault::Refused(refusal, _) => match refusal.class {
                RefusalClass::Unavailable => Code::Unavailable,
                RefusalClass::Exhausted => Code::ResourceExhausted,
                RefusalClass::Invalid => Code::InvalidArgument,
            },
        }
    }

    /// When to try again; none if trying again is useless.
    pub fn retry_after(&self) -> Option<Duration> {
        let wait = match self {
            Fault::Slow(_) | Fault::Memory(Short::Busy { .. }) | Fault::Unready(_) => RETRY_AFTER_DEFAULT,
            Fault::Refused(refusal, _) if refusal.class != RefusalClass::Invalid => {
                refusal.retry_after.unwrap_or(RETRY_AFTER_DEFAULT)
            }
            _ => return None,
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }

    /// The gRPC form, details included.
    pub fn status(&self) -> Status {
        let (code, message) = (self.code(), self.message());
        match self.retry_after() {
            None => Status::new(code, message),
            Some(wait) => {
                let details = RpcStatus::new(code, message.clone(), Some(wait)).encode_to_vec();
                Status::with_details(code, message, Bytes::from(details))
            }
        }
    }

    /// The HTTP code. A body over the limit is 400, as other receivers say it, and not 429: it must not be sent again.
    pub fn http(&self) -> StatusCode {
        match self {
            Fault::TooLarge(_) | Fault::Compression(_) | Fault::Memory(Short::Never { .. }) => StatusCode::BAD_REQUEST,
            _ => match self.code() {
                Code::InvalidArgument => StatusCode::BAD_REQUEST,
                Code::Unauthenticated => StatusCode::UNAUTHORIZED,
                Code::Unimplemented => StatusCode::NOT_FOUND,
                Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// The `google.rpc.Status` of the HTTP body; its code is the one that belongs to the HTTP code.
    pub fn rpc_status(&self) -> RpcStatus {
        let code = if self.http() == StatusCode::BAD_REQUEST { Code::InvalidArgument } else { self.code() };
        RpcStatus::new(code, self.message(), self.retry_after())
    }
}

/// `google.rpc.Status` (googleapis, `google/rpc/status.proto`).
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo` (googleapis, `google/rpc/error_details.proto`).
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Delay {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The type under which RetryInfo travels in an `Any`.
pub const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl RpcStatus {
    fn new(code: Code, message: String, retry: Option<Duration>) -> RpcStatus {
        let details = retry.map(|wait| {
            let delay = Delay { seconds: wait.as_secs() as i64, nanos: wait.subsec_nanos() as i32 };
            Any { type_url: RETRY_INFO.into(), value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec() }
        });
        RpcStatus { code: code as i32, message, details: details.into_iter().collect() }
    }

    /// The JSON mapping of protobuf: a duration is text in seconds.
    pub fn json(&self) -> String {
        let details: Vec<_> = self
            .details
            .iter()
            .filter_map(|any| RetryInfo::decode(any.value.as_slice()).ok()?.retry_delay)
            .map(|delay| {
                let seconds = delay.seconds as f64 + f64::from(delay.nanos) / 1e9;
                serde_json::json!({"@type": RETRY_INFO, "retryDelay": format!("{seconds}s")})
            })
            .collect();
        let mut status = serde_json::json!({"code": self.code, "message": self.message});
        if !details.is_empty() {
            status["details"] = details.into();
        }
        status.to_string()
    }
}

/// Whole seconds for Retry-After, rounded up: a client must not come back too early.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
