//! The answers in words and tables, for a person at a terminal.
//!
//! A printed form: columns as wide as their widest entry, numbers to the right, sizes and ages in units a person thinks in. What
//! others wrote (a backend's words, labels) is shown without control characters, so that it cannot repaint the terminal. Weakness:
//! wide characters count as one column.

use crate::store::now_ns;
use serde_json::Value;
use std::io::{self, Write};

/// Rows are at most this wide in their last column.
const WORDS_MAX: usize = 80;

/// How a column is aligned.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}
use Side::{Left, Right};

fn table(heads: &[(&str, Side)], rows: &[Vec<String>], out: &mut dyn Write) -> io::Result<()> {
    let wide = |i: usize, head: &str| {
        rows.iter().map(|row| row[i].chars().count()).chain([head.len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = heads.iter().enumerate().map(|(i, (head, _))| wide(i, head)).collect();
    let mut print = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, (_, side)), width) in cells.zip(heads).zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            line += &match side {
                Left => format!("{cell}{pad}  "),
                Right => format!("{pad}{cell}  "),
            };
        }
        writeln!(out, "{}", line.trim_end())
    };
    print(&mut heads.iter().map(|(head, _)| *head))?;
    rows.iter().try_for_each(|row| print(&mut row.iter().map(String::as_str)))
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or(0)
}

/// `1.5 MiB`.
fn size(v: &Value) -> String {
    let bytes = number(v);
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = None;
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, Some(next));
    }
    unit.map_or_else(|| format!("{bytes} B"), |unit| format!("{value:.1} {unit}"))
}

/// `3 h 12 min`; at most two units.
fn age(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

/// UTC.
fn when(ms: &Value) -> String {
    let at = ms.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or("-".to_owned(), |at| at.to_string())
}

/// Foreign text on one line.
fn words(v: &Value, max: usize) -> String {
    let text = v.as_str().unwrap_or("-");
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect();
    if text.chars().nth(max).is_some() {
        line.push('…');
    }
    line
}

fn each(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn folder(v: &Value, out: &mut dyn Write) -> io::Result<()> {
    let who = match v["pid"].as_u64() {
        Some(pid) => format!("held by process {pid}, which answers"),
        None => "held by nobody, read from disk".to_owned(),
    };
    writeln!(out, "{}: {who}; node {}", words(&v["path"], usize::MAX), words(&v["node"], 32))?;
    each(&v["problems"]).try_for_each(|problem| writeln!(out, "problem: {}", words(problem, usize::MAX)))
}

/// `gateway wal stats`.
pub(super) fn stats(v: &Value, out: &mut dyn Write) -> io::Result<()> {
    folder(v, out)?;
    let bytes: u64 = each(&v["logs"]).map(|log| number(&log["bytes"])).sum();
    writeln!(out, "{} of at most {}\n", size(&bytes.into()), size(&v["max_bytes"]))?;
    let rows: Vec<Vec<String>> = each(&v["logs"])
        .map(|log| {
            let oldest = number(&log["oldest_seq"])..number(&log["next_seq"]);
            let state = match log["closed"].as_str() {
                Some(_) => format!("closed: {}", words(&log["closed"], WORDS_MAX)),
                None => words(&log["state"], WORDS_MAX),
            };
            vec![
                words(&log["name"], 16),
                size(&log["bytes"]),
                number(&log["segments"]).to_string(),
                format!("{}..{}", oldest.start, oldest.end),
                log["fill"].as_f64().map_or("-".to_owned(), |fill| format!("{:.0} %", fill * 100.0)),
                state,
            ]
        })
        .collect();
    let heads =
        [("LOG", Left), ("SIZE", Right), ("SEGMENTS", Right), ("FRAMES", Right), ("FULL", Right), ("STATE", Left)];
    table(&heads, &rows, out)?;
    let rows: Vec<Vec<String>> = each(&v["logs"])
        .flat_map(|log| each(&log["destinations"]).map(move |d| (log, d)))
        .map(|(log, d)| {
            let waiting = &d["waiting"];
            vec![
                words(&d["destination"], WORDS_MAX),
                words(&log["name"], 16),
                number(&waiting["records"]).to_string(),
                size(&waiting["bytes"]),
                waiting["oldest_age_s"].as_f64().map_or("-".to_owned(), age),
                number(&d["next_seq"]).to_string(),
                d["configured"].as_bool().map_or("not known", |yes| if yes { "yes" } else { "no" }).to_owned(),
            ]
        })
        .collect();
    writeln!(out)?;
    let heads = [
        ("DESTINATION", Left),
        ("LOG", Left),
        ("WAITING", Right),
        ("SIZE", Right),
        ("OLDEST", Right),
        ("NEXT", Right),
        ("CONFIGURED", Left),
    ];
    table(&heads, &rows, out)
}

/// `gateway wal verify`.
pub(super) fn verified(v: &Value, out: &mut dyn Write) -> io::Result<()> {
    folder(v, out)?;
    writeln!(out)?;
    let rows: Vec<Vec<String>> = each(&v["logs"])
        .map(|log| {
            vec![
                words(&log["name"], 16),
                number(&log["segments"]).to_string(),
                number(&log["frames"]).to_string(),
                number(&log["records"]).to_string(),
                size(&log["payload_bytes"]),
                number(&log["lost_records"]).to_string(),
                size(&(number(&log["damaged_bytes"]) + number(&log["torn_bytes"])).into()),
                if log["ok"] == true { "whole" } else { "DAMAGED" }.to_owned(),
            ]
        })
        .collect();
    let heads = [
        ("LOG", Left),
        ("SEGMENTS", Right),
        ("FRAMES", Right),
        ("RECORDS", Right),
        ("PAYLOAD", Right),
        ("LOST", Right),
        ("UNREADABLE", Right),
        ("STATE", Left),
    ];
    table(&heads, &rows, out)?;
    for log in each(&v["logs"]).filter(|log| log["ok"] != true) {
        for u in each(&log["stretches"]) {
            let bytes = number(&u["to"]).saturating_sub(number(&u["from"]));
            let fate = if u["was_synced"] == true { "had been acknowledged" } else { "may have been acknowledged" };
            let (file, why) = (words(&u["file"], WORDS_MAX), words(&u["why"], WORDS_MAX));
            writeln!(out, "{file}: bytes {}..{} ({}): {why}; {fate}", u["from"], u["to"], size(&bytes.into()))?;
        }
        let more = number(&log["stretches_found"]).saturating_sub(each(&log["stretches"]).count() as u64);
        if more > 0 {
            writeln!(out, "... and {more} stretches more in the {} log", words(&log["name"], 16))?;
        }
    }
    Ok(())
}

/// `gateway wal forget`.
pub(super) fn forgotten(v: &Value, out: &mut dyn Write) -> io::Result<()> {
    for log in each(&v["logs"]) {
        writeln!(
            out,
            "{} is forgotten in the {} log: {} records ({}) dropped",
            words(&v["destination"], WORDS_MAX),
            words(&log["log"], 16),
            number(&log["records"]),
            size(&log["bytes"])
        )?;
    }
    Ok(())
}

/// `gateway wal quarantine list`.
pub(super) fn quarantine(v: &Value, out: &mut dyn Write) -> io::Result<()> {
    if number(&v["total"]) == 0 {
        return writeln!(out, "quarantine is empty");
    }
    let row = |item: &Value| {
        vec![
            number(&item["id"]).to_string(),
            when(&item["at_ms"]),
            words(&item["destination"], WORDS_MAX),
            words(&item["reason"], WORDS_MAX),
            number(&item["records"]).to_string(),
            size(&item["bytes"]),
            words(&item["text"], WORDS_MAX),
        ]
    };
    let rows: Vec<Vec<String>> = each(&v["items"]).map(row).collect();
    let heads = [
        ("ID", Right),
        ("WHEN", Left),
        ("DESTINATION", Left),
        ("REASON", Left),
        ("RECORDS", Right),
        ("SIZE", Right),
        ("TEXT", Left),
    ];
    table(&heads, &rows, out)?;
    let older = number(&v["total"]).saturating_sub(rows.len() as u64);
    let rest = if older > 0 { format!("; {older} older ones are not shown") } else { String::new() };
    writeln!(out, "\n{} pieces, {} records, {}{rest}", v["total"], v["records"], size(&v["bytes"]))
}

/// `gateway wal quarantine show`.
pub(super) fn piece(v: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "id           {}", v["id"])?;
    writeln!(out, "when         {} ({} ago)", when(&v["at_ms"]), age(since(&v["at_ms"])))?;
    for key in ["destination", "signal", "reason", "text", "labels", "format"] {
        if v[key].as_str().is_some_and(|text| !text.is_empty()) {
            writeln!(out, "{key:<12} {}", words(&v[key], usize::MAX))?;
        }
    }
    writeln!(out, "frame        {}", v["seq"])?;
    writeln!(out, "records      {}", v["records"])?;
    writeln!(out, "size         {}\n", size(&v["bytes"]))?;
    // JSON escapes control characters by itself.
    writeln!(out, "{:#}", v["payload"])
}

fn since(ms: &Value) -> f64 {
    (now_ns() / 1_000_000).saturating_sub(number(ms)) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_said_in_units_of_people() {
        let sizes = [0u64, 1023, 1024, 1_600_000, 8 << 30, u64::MAX].map(|n| size(&n.into()));
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "8.0 GiB", "16777216.0 TiB"]);
        assert_eq!([59.9, 61.0, 7321.0, 90061.0].map(age), ["59 s", "1 min 1 s", "2 h 2 min", "1 d 1 h"]);
        assert_eq!(when(&1_700_000_000_000u64.into()), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn foreign_words_cannot_repaint_the_terminal() {
        assert_eq!(words(&"a\u{1b}[2Jb\nc".into(), 80), "a [2Jb c");
        assert_eq!(words(&"abcdef".into(), 3), "abc…");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "1000".to_owned()]];
        table(&[("X", Left), ("N", Right)], &rows, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "X       N\na       1\nbcd  1000\n");
    }
}
