//! The part of a URL behind the question mark, as people and pages really write it.
//!
//! A patient clerk: half a percent sign stays one, bytes that are no text are replaced, of two equal keys the first counts. Only a
//! number that is none is sent back, with its name. Weakness: more than [`PAIRS_MAX`] pairs are not read.

use super::answer::ApiError;
use std::str::FromStr;

/// Pairs that are read; the header limit bounds their bytes.
const PAIRS_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Query {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).take(PAIRS_MAX);
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// Empty if it is not there.
    pub(super) fn text(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    /// A comma-separated list.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.text(key).split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// Absent or empty is `None`. Errors: a value that is no such number.
    pub(super) fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let shown: String = text.chars().take(40).collect();
                ApiError::bad(format!(
                    "{key} is \"{shown}\", which is not a number it can be; leave it out or correct it"
                ))
            }),
        }
    }

    /// All pairs whose key starts with `prefix`, without it.
    pub(super) fn prefixed(&self, prefix: &str) -> Vec<(String, String)> {
        let of = |(key, value): &(String, String)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone()));
        self.0.iter().filter_map(of).collect()
    }
}

/// Percent-decoding; a plus is a space.
pub(super) fn decode(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match (byte, bytes.get(at + 1), bytes.get(at + 2)) {
            (b'%', Some(&high), Some(&low)) => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_half_escapes_stay() {
        let query = Query::parse(Some("q=a%20b+c%C3%A9&x=%&y=%4&z=%zz&bad=%ff&empty&=v&q=second"));
        let text = |key| query.text(key).to_owned();
        assert_eq!(
            ["q", "x", "y", "z", "bad", "empty", "none"].map(text),
            ["a b cé", "%", "%4", "%zz", "\u{fffd}", "", ""]
        );
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        let query = Query::parse(Some("limit=ten&from_ms=5"));
        assert!(query.number::<u64>("limit").is_err_and(|error| error.message.contains("limit is \"ten\"")));
        assert_eq!((query.number::<u64>("from_ms"), query.number::<u64>("to_ms")), (Ok(Some(5)), Ok(None)));
    }

    #[test]
    fn no_byte_sequence_of_a_query_panics() {
        const LETTERS: &[u8] = b"%&=+a0f,.\xc3\xa9 ";
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| LETTERS[random.usize(..LETTERS.len())]).collect();
            let query = Query::parse(Some(&String::from_utf8_lossy(&bytes)));
            let _ = (query.list("a"), query.number::<u64>("a"), query.prefixed("a"));
        }
    }
}
