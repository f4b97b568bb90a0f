//! What Loki's answer to a push means for the records in it.
//!
//! A referee with a short book: stored, partly stored, try again (all or the named streams), too large, or not like this.
//! The book is alloy-parity 2.7 and DESIGN section 5, "Poison". Loki's text is foreign: it is searched for label sets, never
//! trusted to have a shape, and kept to [`TEXT_BYTES_MAX`].
//!
//! The weakness: which streams a 429 is about stands only in prose. If Loki words it differently one day, nothing is named
//! and the whole push is tried again, which is slower but loses nothing.

use std::collections::BTreeSet;

/// Bytes of an answer's text that are looked at and kept.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Streams that are taken from one answer.
pub const STREAMS_MAX: usize = 1_024;

/// What to do with a push that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is Loki's now: 2xx, among them 260, "blocked by policy", which counts as done.
    Stored,
    /// Valid lines were stored and others were not (400): quarantine the push once, never send it again.
    PartlyStored {
        /// Loki's text.
        reason: String,
        /// Streams with lines refused as too far behind, which may be sent once more under another label set.
        late: Vec<String>,
    },
    /// Nothing is wrong with the records (429, 5xx, refused credentials, wrong path): send again, later.
    Retry {
        /// Label text of the streams that were refused, as [`super::Push::streams`] has it; the others went in or may.
        /// Empty: all of the push.
        streams: Vec<String>,
        reason: String,
    },
    /// The body is too large for Loki (413): split it.
    Split { reason: String },
    /// Loki will not take this push however often it is sent (other 4xx): quarantine it.
    Refused { reason: String },
}

/// Judges an answer by its status and text. `body` may be anything, also empty or cut short.
pub fn judge(status: u16, body: &str) -> Verdict {
    let body = body.get(..body.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default().trim();
    let reason = if body.is_empty() { format!("status {status} without a text") } else { body.to_owned() };
    match status {
        200..=299 => Verdict::Stored,
        400 => Verdict::PartlyStored { late: late_streams(body), reason },
        413 => Verdict::Split { reason },
        429 => Verdict::Retry { streams: limited_streams(body), reason },
        // Our credentials, our address or something in between: none of it says anything about the records, and a
        // backlog must not go to quarantine because a password expired.
        ..=199 | 300..=399 | 401 | 403 | 404 | 405 | 407 | 408 | 425 | 500.. => {
            Verdict::Retry { streams: Vec::new(), reason }
        }
        _ => Verdict::Refused { reason },
    }
}

/// Streams over a limit of their own: rate of one stream, or no room for one more stream.
fn limited_streams(body: &str) -> Vec<String> {
    // "Ingestion rate limit exceeded" is the tenant's; what it lists are not streams of ours to hold back.
    let own = ["per stream rate limit exceeded", "maximum active stream limit exceeded"];
    let lower = body.to_ascii_lowercase();
    if own.iter().any(|text| lower.contains(text)) { streams(body) } else { Vec::new() }
}

fn late_streams(body: &str) -> Vec<String> {
    if body.contains("too far behind") || body.contains("out of order") { streams(body) } else { Vec::new() }
}

/// Every label set in a text, in order of first appearance.
///
/// Loki adds `service_name` to streams that have none, and names them with it. Such a stream is listed both ways, so that
/// one of them is the text that was pushed.
fn streams(body: &str) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut rest = body;
    while let Some(start) = rest.find('{')
        && found.len() < STREAMS_MAX
    {
        rest = &rest[start + 1..];
        let Some((labels, tail)) = label_set(rest) else { continue };
        rest = tail;
        let without: Vec<&str> = labels.iter().copied().filter(|l| !l.starts_with("service_name=")).collect();
        for set in [&labels, &without] {
            let text = format!("{{{}}}", set.join(", "));
            if !set.is_empty() && seen.insert(text.clone()) {
                found.push(text);
            }
        }
    }
    found
}

/// Reads `name="value", ...}`: each pair as it stands, and what follows.
fn label_set(text: &str) -> Option<(Vec<&str>, &str)> {
    let (mut labels, mut rest) = (Vec::new(), text);
    loop {
        let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|&n| n > 0)?;
        let value = rest.get(name..)?.strip_prefix("=\"")?;
        let end = closing_quote(value)?;
        let (pair, tail) = rest.split_at(name + "=\"".len() + end + 1);
        labels.push(pair);
        match tail.strip_prefix('}') {
            Some(tail) => return Some((labels, tail)),
            None => rest = tail.strip_prefix(',')?.trim_start_matches(' '),
        }
    }
}

/// Where the quote is that ends a Go string.
fn closing_quote(value: &str) -> Option<usize> {
    let mut escaped = false;
    value.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PER_STREAM: &str = "entry with timestamp 2026-03-01 14:42:46.119119015 +0000 UTC ignored, reason: 'Per stream rate \
        limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{app=\"a\\\"}b\", job=\"x\", \
        service_name=\"x\"}' totaling 8238B, consider splitting a stream via additional labels or contact your Loki \
        administrator to see if the limit can be increased',\nuser 'fake', total ignored: 1 out of 2 for stream: \
        {app=\"a\\\"}b\", job=\"x\", service_name=\"x\"}";

    fn plain(status: u16) -> Verdict {
        judge(status, "text")
    }

    #[test]
    fn each_status_means_what_loki_means_by_it() {
        let reason = || "text".to_owned();
        for status in [200, 204, 260] {
            assert_eq!(plain(status), Verdict::Stored);
        }
        assert_eq!(plain(400), Verdict::PartlyStored { reason: reason(), late: vec![] });
        assert_eq!(plain(413), Verdict::Split { reason: reason() });
        for status in [0, 101, 302, 401, 403, 404, 408, 429, 500, 502, 503, 504, 599, u16::MAX] {
            assert_eq!(plain(status), Verdict::Retry { streams: vec![], reason: reason() }, "{status}");
        }
        for status in [402, 406, 411, 415, 422, 431, 499] {
            assert_eq!(plain(status), Verdict::Refused { reason: reason() }, "{status}");
        }
        assert_eq!(judge(503, " \n"), Verdict::Retry { streams: vec![], reason: "status 503 without a text".into() });
    }

    #[test]
    fn a_429_that_names_streams_holds_back_those_alone() {
        let Verdict::Retry { streams, .. } = judge(429, PER_STREAM) else { panic!("a retry") };
        assert_eq!(streams, ["{app=\"a\\\"}b\", job=\"x\", service_name=\"x\"}", "{app=\"a\\\"}b\", job=\"x\"}"]);
        let text = "Maximum active stream limit exceeded when trying to create stream {hot=\"o1\"}, reduce the number of \
            active streams (reduce labels or reduce label values), user: 'fake'";
        for text in [text.to_owned(), text.to_lowercase()] {
            let Verdict::Retry { streams, .. } = judge(429, &text) else { panic!("a retry") };
            assert_eq!(streams, ["{hot=\"o1\"}"]);
        }
    }

    #[test]
    fn a_429_of_the_tenant_names_no_stream() {
        let text = "Ingestion rate limit exceeded for user {a=\"b\"} (limit: 4194304 bytes/sec) while attempting to ingest \
            '4082' lines totaling '7820025' bytes, reduce log volume";
        assert_eq!(judge(429, text), Verdict::Retry { streams: vec![], reason: text.into() });
    }

    #[test]
    fn a_400_names_the_streams_that_came_too_late() {
        let text = "entry with timestamp 2026-03-01 14:42:46 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp \
            is: 2026-03-01T14:42:46Z, oldest acceptable timestamp is: 2026-03-01T15:42:46Z',\nuser 'fake', total ignored: 1 \
            out of 1 for stream: {job=\"a\"}";
        assert_eq!(judge(400, text), Verdict::PartlyStored { reason: text.into(), late: vec!["{job=\"a\"}".into()] });
        let old = "entry for stream '{job=\"a\"}' has timestamp too old: 2023-02-03T01:38:05Z";
        assert_eq!(judge(400, old), Verdict::PartlyStored { reason: old.into(), late: vec![] });
    }

    #[test]
    fn a_text_without_end_is_cut_and_its_streams_are_bounded() {
        let one = "Per stream rate limit exceeded for stream '{n=\"0123\"}'";
        let many: String = (0..20_000).map(|n| one.replace("0123", &n.to_string())).collect();
        let Verdict::Retry { streams, reason } = judge(429, &many) else { panic!("a retry") };
        assert!(streams.len() <= STREAMS_MAX && reason.len() <= TEXT_BYTES_MAX);
        assert!(
            matches!(judge(429, &"é{".repeat(TEXT_BYTES_MAX)), Verdict::Retry { streams, .. } if streams.is_empty())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn nonsense_is_judged_without_panic(
            status in prop_oneof![Just(400u16), Just(429), any::<u16>()],
            text in "([a-z{}=\",\\\\ '\u{e9}]|stream \\{a=\"|Per stream rate limit exceeded|too far behind){0,60}",
        ) {
            judge(status, &text);
        }

        #[test]
        fn a_stream_is_found_under_the_text_that_was_pushed(value in "\\PC{1,20}") {
            let mut labels = super::super::label::Labels::default();
            labels.set("app", value.as_bytes());
            let (pushed, _) = labels.finish(&Default::default());
            let text = format!("Per stream rate limit exceeded (limit: 3MB/sec) for stream '{pushed}' totaling 1B");
            let Verdict::Retry { streams, .. } = judge(429, &text) else { panic!("a retry") };
            prop_assert_eq!(streams, [pushed]);
        }
    }
}
