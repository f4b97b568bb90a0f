//! A switchboard of misfortunes: what a backend may do instead of its duty.
//!
//! One fault is active at a time; posting another replaces it, posting `{}` clears it, `for_s` clears it by itself. Ratios are
//! counted, not rolled, so that a run can be repeated. Weakness: no two faults at once.

use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Answers that no backend should give.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Nonsense {
    /// 200 and a login page.
    Html,
    /// 599, a status that no register knows.
    OddStatus,
    /// The connection ends without an answer.
    Close,
    /// 400 with a body that never ends.
    Endless,
}

/// What goes wrong, at which door, how often, how long.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// `loki`, `otlp/grpc` or `otlp/http`; absent: every door.
    pub door: Option<String>,
    /// HTTP status to answer; over gRPC its usual counterpart (429 -> 8, 400 -> 3, 5xx -> 14).
    pub status: Option<u16>,
    /// Share of requests that get the fault, 0 to 1; absent: all.
    pub ratio: Option<f64>,
    /// Every request waits this long first.
    pub delay_ms: u64,
    /// Requests are read and not answered until the fault ends.
    pub stall: bool,
    pub nonsense: Option<Nonsense>,
    /// Only pushes with a stream whose labels contain this get the status; Loki's text then names that stream.
    pub stream: Option<String>,
    /// The answer's body instead of Loki's own words.
    pub text: Option<String>,
    /// Sent as Retry-After, and as RetryInfo over gRPC.
    pub retry_after_s: Option<u64>,
    /// Store the records although the answer is bad. Default: only the streams not named by `stream`.
    pub stores: bool,
    /// Say 2xx and forget this many records in all: a liar, to test the judge.
    pub lose: u64,
    /// The fault ends by itself after this many seconds.
    pub for_s: Option<f64>,
}

/// What one request meets.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Serve,
    Fail(Fault),
}

struct Active {
    fault: Fault,
    until: Option<Instant>,
    seen: u64,
    forgotten: u64,
}

/// The active fault, shared by all doors of a sink.
pub struct Faults {
    active: Mutex<Active>,
    /// Counts changes; stalled requests wait for the next one.
    changes: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        let active = Active { fault: Fault::default(), until: None, seen: 0, forgotten: 0 };
        Faults { active: Mutex::new(active), changes: watch::channel(0).0 }
    }
}

impl Faults {
    pub fn set(&self, fault: Fault) {
        let until = fault.for_s.map(|s| Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 86_400.0)));
        *self.lock() = Active { fault, until, seen: 0, forgotten: 0 };
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn current(&self) -> Fault {
        self.lock().fault.clone()
    }

    /// Delays, stalls, and says what is left to do.
    pub async fn meet(&self, door: &str, streams: &[String]) -> Plan {
        let mut changes = self.changes.subscribe();
        let mut delayed = false;
        loop {
            changes.borrow_and_update();
            let (plan, until) = self.judge(door, streams);
            let Plan::Fail(fault) = &plan else { return plan };
            if fault.delay_ms > 0 && !delayed {
                tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
                delayed = true;
            }
            if !fault.stall {
                let harmless = fault.status.is_none() && fault.nonsense.is_none();
                return if harmless { Plan::Serve } else { plan };
            }
            let end = until.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }

    fn judge(&self, door: &str, streams: &[String]) -> (Plan, Option<Instant>) {
        let mut active = self.lock();
        if active.until.is_some_and(|t| t <= Instant::now()) {
            active.fault = Fault::default();
            active.until = None;
        }
        let fault = &active.fault;
        let concerned = fault.door.as_deref().is_none_or(|d| d == door)
            && fault.stream.as_ref().is_none_or(|s| streams.iter().any(|l| l.contains(s.as_str())));
        if !concerned {
            return (Plan::Serve, None);
        }
        let ratio = fault.ratio.unwrap_or(1.0).clamp(0.0, 1.0);
        let (before, after) = (active.seen as f64 * ratio, (active.seen + 1) as f64 * ratio);
        active.seen += 1;
        match before.floor() < after.floor() {
            true => (Plan::Fail(active.fault.clone()), active.until),
            false => (Plan::Serve, None),
        }
    }

    /// True: this record is to be forgotten although the answer will be good.
    pub fn forgets(&self) -> bool {
        let mut active = self.lock();
        let forgets = active.forgotten < active.fault.lose;
        active.forgotten += u64::from(forgets);
        forgets
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Loki's own words for a status (its validation and limit texts), naming `stream` where the real one does.
pub fn loki_text(status: u16, stream: Option<&str>) -> String {
    let named = stream.unwrap_or("{service_name=\"unknown\"}");
    match status {
        400 => format!("entry for stream '{named}' has timestamp too new: 2099-01-01T00:00:00Z\n"),
        413 => "http: request body too large\n".into(),
        429 if stream.is_some() => format!(
            "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{named}' totaling 1.2MB, \
             consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be \
             increased\n"
        ),
        429 => "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '1000' lines \
                totaling '200000' bytes, reduce log volume or contact your Loki administrator to see if the limit can be \
                increased\n"
            .into(),
        500 => "empty ring\n".into(),
        503 => "at least 1 live replicas required, could only find 0\n".into(),
        _ => format!("status {status}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ratio_is_counted_and_not_rolled() {
        let faults = Faults::default();
        faults.set(Fault { status: Some(503), ratio: Some(0.25), ..Fault::default() });
        let mut failed = 0;
        for _ in 0..100 {
            failed += u64::from(faults.meet("loki", &[]).await != Plan::Serve);
        }
        assert_eq!(failed, 25);
    }

    #[tokio::test]
    async fn a_fault_for_one_door_or_stream_leaves_the_others_alone() {
        let faults = Faults::default();
        faults.set(Fault {
            status: Some(429),
            stream: Some("app=\"a\"".into()),
            door: Some("loki".into()),
            ..Fault::default()
        });
        let (a, b) = (vec!["{app=\"a\"}".to_owned()], vec!["{app=\"b\"}".to_owned()]);
        assert_eq!(faults.meet("loki", &b).await, Plan::Serve);
        assert_eq!(faults.meet("otlp/http", &a).await, Plan::Serve);
        assert_ne!(faults.meet("loki", &a).await, Plan::Serve);
    }

    #[tokio::test]
    async fn a_stall_ends_when_the_fault_is_cleared() {
        let faults = std::sync::Arc::new(Faults::default());
        faults.set(Fault { stall: true, ..Fault::default() });
        let waiting = tokio::spawn({
            let faults = faults.clone();
            async move { faults.meet("loki", &[]).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        faults.set(Fault::default());
        assert_eq!(waiting.await.ok(), Some(Plan::Serve));
    }
}
