//! OpenTelemetry's names as Prometheus writes them.
//!
//! A sign painter who knows one alphabet: what he cannot paint becomes an underscore, and the unit goes behind the name unless it
//! stands there already. The rules are those of the OpenTelemetry collector's Prometheus exporters with suffixes on, so that
//! dashboards find the names they know. Weakness: two names that differ only in odd characters become one.

/// What decides the suffix beside the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A cumulative sum that only grows: `_total`.
    Counter,
    /// With unit `1`: `_ratio`.
    Gauge,
    Other,
}

/// Unit of OpenTelemetry (UCUM) and its word.
const UNITS: [(&str, &str); 32] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("B", "bytes"),
    ("KB", "kilobytes"),
    ("MB", "megabytes"),
    ("GB", "gigabytes"),
    ("TB", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", ""),
    ("", ""),
];

/// The unit behind a slash.
const PER: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The name of a metric; never empty.
pub fn metric(name: &str, unit: &str, shape: Shape) -> String {
    let mut tokens: Vec<String> = tokens_of(name);
    for token in unit_tokens(unit) {
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    if shape == Shape::Counter {
        tokens.retain(|token| token != "total");
        tokens.push("total".to_owned());
    }
    if shape == Shape::Gauge && unit == "1" {
        tokens.retain(|token| token != "ratio");
        tokens.push("ratio".to_owned());
    }
    let name = tokens.join("_");
    match name.as_bytes().first() {
        None => "_".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("_{name}"),
        Some(_) => name,
    }
}

fn tokens_of(text: &str) -> Vec<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == ':';
    text.split(|c| !fine(c)).filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

fn unit_tokens(unit: &str) -> Vec<String> {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |text: &str, known: &[(&str, &str)]| {
        let text = text.trim();
        // `{request}` is a remark, not a unit.
        if text.contains(['{', '}']) {
            return String::new();
        }
        known.iter().find(|(short, _)| *short == text).map_or_else(|| text.to_owned(), |(_, word)| (*word).to_owned())
    };
    let mut tokens = tokens_of(&word(main, &UNITS));
    let per = tokens_of(&word(per, &PER));
    if !per.is_empty() {
        tokens.push("per".to_owned());
        tokens.extend(per);
    }
    tokens
}

/// The name of a label; empty only for the empty name.
pub fn label(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match plain.as_bytes() {
        [first, ..] if first.is_ascii_digit() => format!("key_{plain}"),
        [b'_', second, ..] if *second != b'_' => format!("key{plain}"),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_dashboards_know() {
        let table = [
            ("http.server.request.duration", "s", Shape::Other, "http_server_request_duration_seconds"),
            ("http.server.requests", "{request}", Shape::Counter, "http_server_requests_total"),
            ("requests", "{request}/s", Shape::Gauge, "requests_per_second"),
            ("process.memory.usage", "By", Shape::Gauge, "process_memory_usage_bytes"),
            ("memory_bytes", "By", Shape::Gauge, "memory_bytes"),
            ("total.things", "1", Shape::Counter, "things_total"),
            ("cpu.utilization", "1", Shape::Gauge, "cpu_utilization_ratio"),
            ("cpu.utilization", "1", Shape::Other, "cpu_utilization"),
            ("disk.speed", "MiBy/s", Shape::Gauge, "disk_speed_mebibytes_per_second"),
            ("2xx", "", Shape::Gauge, "_2xx"),
            ("a--b..c", "furlong", Shape::Gauge, "a_b_c_furlong"),
            ("ä", "", Shape::Gauge, "_"),
            ("", "", Shape::Other, "_"),
        ];
        for (name, unit, shape, expected) in table {
            assert_eq!(metric(name, unit, shape), expected, "{name} in {unit}");
        }
    }

    #[test]
    fn labels_begin_with_a_letter() {
        let table =
            [("http.method", "http_method"), ("2nd", "key_2nd"), ("_x", "key_x"), ("__x", "__x"), ("ä", "_"), ("", "")];
        for (name, expected) in table {
            assert_eq!(label(name), expected, "{name}");
        }
    }
}
