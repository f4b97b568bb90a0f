//! The Pyroscope door: pushed profiles opened, counted and remembered by id.
//!
//! Like the post office's list of registered letters: each profile has an id that its sender keeps when it sends it again, so the
//! list tells "arrived once", "arrived twice" and "how many stacks were in it" apart. Weakness: only the first value of a sample is
//! read, and at most [`IDS_MAX`] ids are remembered; later ones are counted as `unlisted`.

use super::decode::decompress;
use crate::wire::{Fields, Malformed, Value, messages};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Profiles remembered by id.
const IDS_MAX: usize = 1 << 20;

/// One profile, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub labels: BTreeMap<String, String>,
    /// Unix nanoseconds, and how long it lasted.
    pub time_ns: u64,
    pub duration_ns: u64,
    pub period: u64,
    /// Sum of the first value over all samples, divided by the period: stacks seen.
    pub stacks: u64,
    /// Times it arrived.
    pub times: u64,
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiles {
    pub by_id: BTreeMap<String, Profile>,
    pub unlisted: u64,
}

impl Profiles {
    /// Profiles that arrived more than once, counted per repeat.
    pub fn repeats(&self) -> u64 {
        self.by_id.values().map(|p| p.times - 1).sum()
    }

    /// Stacks over all profiles, repeats not counted.
    pub fn stacks(&self) -> u64 {
        self.by_id.values().map(|p| p.stacks).sum()
    }

    pub fn add(&mut self, pushed: Vec<(String, Profile)>) {
        for (id, profile) in pushed {
            if let Some(known) = self.by_id.get_mut(&id) {
                known.times += 1;
            } else if self.by_id.len() < IDS_MAX {
                self.by_id.insert(id, Profile { times: 1, ..profile });
            } else {
                self.unlisted += 1;
            }
        }
    }
}

/// `push.v1.PushRequest`: every profile with its id. Errors: not that message, no id, no gzip, no pprof with a period.
pub fn decode(body: &[u8]) -> Result<Vec<(String, Profile)>, Malformed> {
    let mut out = Vec::new();
    for series in messages(body, 1) {
        let series = series?;
        let mut labels = BTreeMap::new();
        for label in messages(series, 1) {
            let label = label?;
            labels.insert(text(label, 1)?, text(label, 2)?);
        }
        if !labels.contains_key("service_name") || labels.get("__name__").is_none_or(String::is_empty) {
            return Err(Malformed);
        }
        for sample in messages(series, 2) {
            let sample = sample?;
            let id = text(sample, 2)?;
            let raw = messages(sample, 1).next().ok_or(Malformed)??;
            out.push((id, Profile { labels: labels.clone(), ..pprof(&decompress("gzip", raw)?)? }));
        }
    }
    if out.is_empty() { Err(Malformed) } else { Ok(out) }
}

fn text(message: &[u8], field: u32) -> Result<String, Malformed> {
    let bytes = messages(message, field).next().ok_or(Malformed)??;
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

fn pprof(bytes: &[u8]) -> Result<Profile, Malformed> {
    let mut profile = Profile::default();
    let mut value = 0u64;
    for field in Fields(bytes) {
        match field? {
            (2, Value::Bytes(sample)) => value += first_value(sample)?,
            (9, Value::Int(v)) => profile.time_ns = v,
            (10, Value::Int(v)) => profile.duration_ns = v,
            (12, Value::Int(v)) => profile.period = v,
            _ => {}
        }
    }
    profile.stacks = value.checked_div(profile.period).ok_or(Malformed)?;
    Ok(profile)
}

/// The first of a sample's values, packed or not.
fn first_value(sample: &[u8]) -> Result<u64, Malformed> {
    for field in Fields(sample) {
        match field? {
            (2, Value::Int(v)) => return Ok(v),
            (2, Value::Bytes(packed)) => return varint(packed),
            _ => {}
        }
    }
    Err(Malformed)
}

fn varint(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_int};
    use std::io::Write;

    fn push(id: &str, values: &[u64]) -> Vec<u8> {
        let mut pprof = Vec::new();
        for value in values {
            let mut sample = Vec::new();
            put_int(&mut sample, 2, *value);
            put_bytes(&mut pprof, 2, &sample);
        }
        put_int(&mut pprof, 12, 10);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&pprof).expect("a vector grows");
        let (mut sample, mut series, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut sample, 1, &gzip.finish().expect("a vector grows"));
        put_bytes(&mut sample, 2, id.as_bytes());
        for (name, value) in [("__name__", "process_cpu"), ("service_name", "ebpf/x")] {
            let mut label = Vec::new();
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut series, 1, &label);
        }
        put_bytes(&mut series, 2, &sample);
        put_bytes(&mut request, 1, &series);
        request
    }

    #[test]
    fn stacks_are_values_over_the_period_and_a_repeat_counts_as_one() {
        let mut list = Profiles::default();
        for body in [push("a", &[30, 10]), push("b", &[10]), push("a", &[30, 10])] {
            list.add(decode(&body).expect("a push"));
        }
        assert_eq!((list.by_id.len(), list.repeats(), list.stacks()), (2, 1, 5));
    }

    #[test]
    fn a_push_without_a_service_or_a_period_is_malformed() {
        let whole = push("a", &[10]);
        assert!(decode(&whole).is_ok());
        let mut renamed = whole.clone();
        let at = renamed.windows(12).position(|w| w == b"service_name").expect("the label");
        renamed[at] = b'S';
        assert!(decode(&renamed).is_err());
        for end in 0..whole.len() {
            let _ = decode(&whole[..end]); // cut anywhere: an answer, never a panic
        }
    }
}
