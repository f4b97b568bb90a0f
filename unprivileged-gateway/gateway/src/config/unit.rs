//! Sizes, durations and addresses as people write them, and back.
//!
//! Like the labels on a measuring jug: a number without a unit is refused, because 16 of what is the question that breaks an
//! installation. A value is a whole number and a unit, or several of them in a row for durations (`1h30m`), summed with overflow
//! checked. Weakness: no fractions (`1.5GiB` is `1536MiB`), so that what is printed back is exactly what was meant.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Unit names in the order in which they are printed; the first that divides a value wins.
const SIZES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Duration units in nanoseconds, largest first.
const DURATIONS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Why a text is not a quantity; each variant becomes one sentence in a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAQuantity {
    /// A bare number: the unit is missing.
    NoUnit,
    /// Not of the form number-unit at all, or an unknown unit.
    Malformed,
    /// More than 64 bits hold.
    TooLarge,
}

/// Reads `8GiB`, `500MB`, `0B`. Unit of the result: bytes. Binary and decimal units are both exact and never mixed up.
pub fn parse_size(text: &str) -> Result<u64, NotAQuantity> {
    let (number, unit) = split_number(text)?;
    if unit.is_empty() {
        return Err(NotAQuantity::NoUnit);
    }
    let factor = SIZES.iter().find(|(name, _)| *name == unit).ok_or(NotAQuantity::Malformed)?.1;
    number.checked_mul(factor).ok_or(NotAQuantity::TooLarge)
}

/// Reads `5ms`, `15m`, `1h30m`, `0s`. Units: `d h m s ms us ns`, each at most once and from large to small.
pub fn parse_duration(text: &str) -> Result<Duration, NotAQuantity> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut smallest_allowed = 0;
    loop {
        let (number, tail) = split_number(rest)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(letters);
        if unit.is_empty() {
            return Err(if next.is_empty() { NotAQuantity::NoUnit } else { NotAQuantity::Malformed });
        }
        let place = DURATIONS.iter().position(|(name, _)| *name == unit).ok_or(NotAQuantity::Malformed)?;
        if place < smallest_allowed {
            return Err(NotAQuantity::Malformed);
        }
        smallest_allowed = place + 1;
        total = number
            .checked_mul(DURATIONS[place].1)
            .and_then(|part| total.checked_add(part))
            .ok_or(NotAQuantity::TooLarge)?;
        if next.is_empty() {
            return Ok(Duration::from_nanos(total));
        }
        rest = next;
    }
}

/// Reads `127.0.0.1:4317`, `[::1]:4317` or `localhost:4317` (which means 127.0.0.1: a listener binds one address).
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().ok()
}

fn split_number(text: &str) -> Result<(u64, &str), NotAQuantity> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits == 0 {
        return Err(NotAQuantity::Malformed);
    }
    let number = text[..digits].parse().map_err(|_| NotAQuantity::TooLarge)?;
    Ok((number, &text[digits..]))
}

/// What `8Gi`, `8 gb` or `8G` was probably meant to be.
pub fn near_size(text: &str) -> Option<String> {
    let (number, unit) = split_number(text).ok()?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "ki" | "kib" => "KiB",
        "m" | "mi" | "mib" => "MiB",
        "g" | "gi" | "gib" => "GiB",
        "t" | "ti" | "tib" => "TiB",
        "kb" => "kB",
        "mb" => "MB",
        "gb" => "GB",
        "b" | "byte" | "bytes" => "B",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// What `5 s`, `5sec` or `5min` was probably meant to be.
pub fn near_duration(text: &str) -> Option<String> {
    let (number, unit) = split_number(text).ok()?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "us" | "\u{b5}s" | "\u{3bc}s" => "us",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// What `:4317`, `4317` or `tcp://127.0.0.1:4317` was probably meant to be. A missing host is loopback: the safe guess.
pub fn near_address(text: &str) -> Option<String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let guess = match bare.strip_prefix(':').unwrap_or(bare) {
        port if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
        other => other.to_owned(),
    };
    (guess != text).then_some(guess).filter(|guess| parse_address(guess).is_some())
}

/// The shortest exact form: 67108864 is `64MiB`, 5000 is `5kB`, 0 is `0B`.
pub fn print_size(bytes: u64) -> String {
    let (unit, factor) = match bytes {
        0 => ("B", 1),
        _ => *SIZES.iter().find(|(_, factor)| bytes.is_multiple_of(*factor)).unwrap_or(&("B", 1)),
    };
    format!("{}{unit}", bytes / factor)
}

/// `90s` is `1m30s`; zero is `0s`.
pub fn print_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATIONS {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// What a value must look like beyond being text; kept in the schema as `format`, judged by `shape`.
macro_rules! text_format {
    ($(#[$doc:meta])* $name:ident, $format:literal) => {
        $(#[$doc])*
        pub struct $name;
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}
text_format!(
    /// Schema of a byte count.
    SizeText, "size"
);
text_format!(
    /// Schema of a time span.
    DurationText, "duration"
);
text_format!(
    /// Schema of an address to listen on.
    AddressText, "address"
);
text_format!(
    /// Schema of an address to listen on, or `off`.
    AddressOrOffText, "address-or-off"
);
text_format!(
    /// Schema of a file or folder name.
    PathText, "path"
);
text_format!(
    /// Schema of a file or folder name, or the empty text for none.
    PathOrEmptyText, "path-or-empty"
);
text_format!(
    /// Schema of a secret: never shown, neither here nor anywhere else.
    SecretText, "secret"
);

/// `#[serde(with = "unit::size")]` on a `u64` of bytes.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    pub fn serialize<S: Serializer>(bytes: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::print_size(*bytes))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        super::parse_size(&String::deserialize(d)?).map_err(|_| D::Error::custom("not a size with a unit"))
    }
}

/// `#[serde(with = "unit::duration")]` on a `Duration`.
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;
    pub fn serialize<S: Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::print_duration(*duration))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(d)?).map_err(|_| D::Error::custom("not a duration with a unit"))
    }
}

/// `#[serde(with = "unit::durations")]` on a map from signal to `Duration`.
pub mod durations {
    use crate::seam::Signal;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{collections::BTreeMap, time::Duration};
    pub fn serialize<S: Serializer>(map: &BTreeMap<Signal, Duration>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(map.iter().map(|(signal, duration)| (signal, super::print_duration(*duration))))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Signal, Duration>, D::Error> {
        let texts = BTreeMap::<Signal, String>::deserialize(d)?;
        let parse =
            |text: &str| super::parse_duration(text).map_err(|_| D::Error::custom("not a duration with a unit"));
        texts.iter().map(|(signal, text)| Ok((*signal, parse(text)?))).collect()
    }
}

/// `#[serde(with = "unit::address")]` on a `SocketAddr`.
pub mod address {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::net::SocketAddr;
    pub fn serialize<S: Serializer>(address: &SocketAddr, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(address)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
        super::parse_address(&String::deserialize(d)?).ok_or_else(|| D::Error::custom("not an address and port"))
    }
}

/// `#[serde(with = "unit::address_or_off")]` on an `Option<SocketAddr>`; `off` is `None`.
pub mod address_or_off {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::net::SocketAddr;
    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, s: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => s.collect_str(address),
            None => s.serialize_str("off"),
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "off" => Ok(None),
            text => super::parse_address(text).map(Some).ok_or_else(|| D::Error::custom("not an address and port")),
        }
    }
}

/// `#[serde(with = "unit::path_or_empty")]` on an `Option<PathBuf>`; the empty text is `None`.
pub mod path_or_empty {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::path::PathBuf;
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&path.as_deref().unwrap_or("".as_ref()).display())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Some(PathBuf::deserialize(d)?).filter(|path| !path.as_os_str().is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_its_unit_is_refused() {
        assert_eq!(parse_size("16"), Err(NotAQuantity::NoUnit));
        assert_eq!(parse_duration("15"), Err(NotAQuantity::NoUnit));
        assert_eq!(parse_duration("1h30"), Err(NotAQuantity::NoUnit));
    }

    #[test]
    fn malformed_and_huge_quantities_are_told_apart() {
        for text in ["", "MiB", "-1MiB", "1.5GiB", "8 GiB", "8gib", "8Gi", "1MiB2KiB"] {
            assert_eq!(parse_size(text), Err(NotAQuantity::Malformed), "{text}");
        }
        for text in ["", "s", "-5s", "1.5h", "5 s", "5min", "5m5m", "5s1h"] {
            assert_eq!(parse_duration(text), Err(NotAQuantity::Malformed), "{text}");
        }
        assert_eq!(parse_size("99999999999TiB"), Err(NotAQuantity::TooLarge));
        assert_eq!(parse_duration("99999999999d"), Err(NotAQuantity::TooLarge));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_value() {
        for bytes in [0, 1, 999, 1000, 1024, 64 << 20, 8 << 30, 5_000_000, u64::MAX] {
            assert_eq!(parse_size(&print_size(bytes)), Ok(bytes));
        }
        for nanos in [0, 1, 1_000, 5_000_000, 90_000_000_000, 86_400_000_000_001, u64::MAX] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }
        assert_eq!(print_size(64 << 20), "64MiB");
        assert_eq!(print_duration(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn an_address_needs_both_halves() {
        assert_eq!(parse_address("localhost:4317"), "127.0.0.1:4317".parse().ok());
        assert!(parse_address("[::1]:4317").is_some());
        for text in ["4317", ":4317", "127.0.0.1", "host:4317", "127.0.0.1:99999"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
