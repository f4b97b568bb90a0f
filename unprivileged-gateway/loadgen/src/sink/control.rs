//! The control port: lower a barrier, read the ledger.
//!
//! `POST /fault {json}`, `POST /reset`, `GET /report[?runs=1]`, `GET /profiles`, `GET /missing?lane=&sender=&upto=`, `GET /recent[?limit=]`,
//! `GET /healthy`. Weakness: no authentication, hence loopback only.

use super::Shared;
use super::door::{Answer, plain, typed};
use super::fault::Fault;
use super::record::Lane;
use crate::presence;
use http::{Method, StatusCode, Uri};
use serde::Serialize;
use serde_json::json;

/// Runs of missing numbers listed in full.
const RUNS_LISTED: usize = 1_000;

pub(super) fn answer(method: &Method, uri: &Uri, body: &[u8], shared: &Shared) -> Answer {
    let query = |name: &str| {
        let pairs = uri.query().unwrap_or("").split('&').filter_map(|p| p.split_once('='));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_owned())
    };
    match (method.as_str(), uri.path()) {
        ("POST", "/fault") => match serde_json::from_slice::<Fault>(if body.is_empty() { b"{}" } else { body }) {
            Ok(fault) => {
                shared.faults.set(fault);
                json_answer(&shared.faults.current())
            }
            Err(e) => plain(StatusCode::BAD_REQUEST, &format!("not a fault: {e}\n")),
        },
        ("GET", "/fault") => json_answer(&shared.faults.current()),
        ("POST", "/reset") => {
            shared.record().reset();
            plain(StatusCode::OK, "forgotten\n")
        }
        ("GET", "/report") => json_answer(&shared.record().report(query("runs").as_deref() == Some("1"))),
        ("GET", "/profiles") => json_answer(&shared.record().profiles),
        ("GET", "/missing") => missing(&query, shared),
        ("GET", "/recent") => {
            let limit = query("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
            let record = shared.record();
            let kept: Vec<_> = record.kept().collect();
            json_answer(&kept[kept.len().saturating_sub(limit)..])
        }
        ("GET", "/healthy") => plain(StatusCode::OK, "ok\n"),
        _ => plain(StatusCode::NOT_FOUND, "paths: /fault /reset /report /profiles /missing /recent /healthy\n"),
    }
}

fn missing(query: &dyn Fn(&str) -> Option<String>, shared: &Shared) -> Answer {
    let lane = query("lane").map_or(Some(Lane::Loki), |l| Lane::from_name(&l));
    let number = |name: &str| query(name).and_then(|v| v.parse::<u64>().ok());
    let (Some(lane), Some(sender), Some(upto)) = (lane, number("sender"), number("upto")) else {
        return plain(StatusCode::BAD_REQUEST, "say lane=loki|otlp_logs|otlp_traces, sender=NUMBER, upto=NUMBER\n");
    };
    let record = shared.record();
    let presence = u32::try_from(sender).ok().and_then(|s| record.presence(lane, s));
    let runs = presence.map_or(vec![(0, upto)], |p| p.missing(upto));
    json_answer(&json!({ "missing": presence::count(&runs), "runs": &runs[..runs.len().min(RUNS_LISTED)] }))
}

fn json_answer<T: Serialize + ?Sized>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => typed(StatusCode::OK, "application/json", body),
        Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{e}\n")),
    }
}
