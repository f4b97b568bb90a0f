//! One line as a container runtime writes it: `<time> <stream> <tag> <content>`.
//!
//! A parcel label glued to every piece of a torn letter: when it was torn off, which pocket it came from, and whether more
//! follows. Only the label is read here; [`crate::chunk::join`] puts the pieces together.
//!
//! The rules are those of Alloy's `stage.cri`: the time is any word, a tag may be missing, and what does not fit the form is
//! no record but a line like any other. Weakness: a program whose plain line happens to read `x stdout y` is taken for one.

/// The pocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A record: the label and what it is glued to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unix nanoseconds; none if the first word is no time.
    pub at: Option<u64>,
    pub stream: Stream,
    /// More of the same line follows in the next record of this stream.
    pub partial: bool,
    pub content: &'a [u8],
}

/// Reads a line without its line feed. None: it is no record. Never panics, whatever the bytes.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let (time, rest) = word(line)?;
    let (stream, rest) = match rest {
        b"stdout" => (Stream::Stdout, &b""[..]),
        b"stderr" => (Stream::Stderr, &b""[..]),
        _ => {
            let (stream, rest) = word(rest)?;
            let stream = match stream {
                b"stdout" => Stream::Stdout,
                b"stderr" => Stream::Stderr,
                _ => return None,
            };
            (stream, rest)
        }
    };
    let (tag, content) = word(rest).unwrap_or((rest, b""));
    // Tags may be chained with colons; the first one says whether the line goes on.
    let (partial, content) = match tag.split(|&b| b == b':').next() {
        Some(b"P") => (true, content),
        Some(b"F") => (false, content),
        _ => (false, rest),
    };
    Some(Record { at: time_ns(time), stream, partial, content })
}

/// Up to the first blank, and what follows it. None: no blank, or nothing in front of it.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&b| b == b' ').filter(|&at| at > 0)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

const DAY_S: i64 = 86_400;

/// An RFC 3339 time with up to nine digits of a second, as unix nanoseconds. None: anything else, or a time before 1970.
pub fn time_ns(text: &[u8]) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0_i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, byte: u8| text.get(at).is_some_and(|b| b.eq_ignore_ascii_case(&byte));
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // A leap second is written as 60.
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanoseconds = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        let places = fraction.iter().take(digits).chain(std::iter::repeat(&b'0')).take(9);
        nanoseconds = places.fold(0_u64, |sum, b| sum * 10 + u64::from(b - b'0'));
        rest = fraction.get(digits..)?;
    }
    let zone = match rest {
        b"Z" | b"z" => 0,
        &[sign @ (b'+' | b'-'), a, b, b':', c, d] if [a, b, c, d].iter().all(u8::is_ascii_digit) => {
            let two = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let seconds = two(a, b) * 3600 + two(c, d) * 60;
            if sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second - zone;
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Days since 1970-01-01 in the Gregorian calendar (years begin in March, so that a leap day is a year's last).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_read_as_the_runtime_writes_them() {
        let line = b"2016-10-06T00:17:09.669794202Z stdout P log content 1";
        let at = Some(1_475_713_029_669_794_202);
        assert_eq!(parse(line), Some(Record { at, stream: Stream::Stdout, partial: true, content: b"log content 1" }));
        let table: [(&[u8], bool, &[u8]); 7] = [
            (b"2016-10-06T00:17:09.669794202Z stderr F ", false, b""),
            (b"2016-10-06T00:17:09.669794202Z stderr F", false, b""),
            (b"2016-10-06T00:17:09.669794202Z stderr", false, b""),
            (b"2016-10-06T00:17:09.669794202Z stderr P:x  two blanks", true, b" two blanks"),
            (b"2016-10-06T00:17:09.669794202Z stderr F:x y", false, b"y"),
            (b"2016-10-06T00:17:09.669794202Z stderr no tag at all", false, b"no tag at all"),
            (b"2016-10-06T00:17:09.669794202Z stderr F \xff\0 \r", false, b"\xff\0 \r"),
        ];
        for (line, partial, content) in table {
            assert_eq!(parse(line), Some(Record { at, stream: Stream::Stderr, partial, content }), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_record_is_a_line_like_any_other() {
        for line in [&b""[..], b" ", b"x", b"x y z", b"2016-10-06T00:17:09Z stdin F x", b" stdout F x", b"{\"a\": 1}"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
        assert_eq!(parse(b"yesterday stdout F x").map(|r| r.at), Some(None), "the word need not be a time");
    }

    #[test]
    fn times_are_read_to_the_nanosecond_in_any_zone() {
        let table: [(&str, Option<u64>); 14] = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.000000001Z", Some(1)),
            ("2024-02-29T12:00:00.5Z", Some(1_709_208_000_500_000_000)),
            ("2024-02-29T14:30:00.5+02:30", Some(1_709_208_000_500_000_000)),
            ("2024-02-29T04:00:00.500-08:00", Some(1_709_208_000_500_000_000)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400_000_000_000)),
            ("1969-12-31T23:59:59Z", None),
            ("9999-12-31T23:59:59Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-02-29T12:00:00", None),
            ("2024-02-29T12:00:00.Z", None),
            ("2024-02-29T12:00:00.1234567890Z", None),
            ("2024-02-29 12:00:00Z", None),
            ("2024-02-29T12:00:00+2:00", None),
        ];
        for (text, expected) in table {
            assert_eq!(time_ns(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn reading_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (parse(&bytes), time_ns(&bytes));
        }

        #[test]
        fn nearly_a_record_never_panics(line in "[0-9TZ:.+-]{0,40} ?(stdout|stderr|x)? ?[PF:]{0,3} ?.{0,10}") {
            let _ = (parse(line.as_bytes()), time_ns(line.as_bytes()));
        }

        #[test]
        fn what_is_written_is_read(
            seconds in 0_u64..4_000_000_000, nanoseconds in 0_u64..1_000_000_000,
            partial in any::<bool>(), content in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (day, of_day) = (seconds / 86_400, seconds % 86_400);
            // Counted forward day by day, as a calendar on a wall would do it.
            let (mut year, mut month, mut left) = (1970, 1, day);
            let length = |year: u64, month: u64| match month {
                2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            while left >= length(year, month) {
                left -= length(year, month);
                (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            }
            let time = format!(
                "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{nanoseconds:09}Z",
                left + 1, of_day / 3600, of_day / 60 % 60, of_day % 60
            );
            let mut line = format!("{time} stdout {} ", if partial { "P" } else { "F" }).into_bytes();
            line.extend_from_slice(&content);
            let at = Some(seconds * 1_000_000_000 + nanoseconds);
            prop_assert_eq!(parse(&line), Some(Record { at, stream: Stream::Stdout, partial, content: &content }));
        }
    }
}
