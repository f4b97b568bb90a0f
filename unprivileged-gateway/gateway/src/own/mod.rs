//! The gateway's own metrics as series: what `/metrics` says, read by the gateway itself.
//!
//! The mirror in the cellar: the numbers come off the same dials as everybody's, through the same print, so that a chart of them and
//! a scrape from outside cannot disagree. Weakness: printed and read again, some hundred KiB a round, because the print is the only
//! place where all names meet.

mod text;
pub mod traces;

use crate::scrape::Target;
use crate::seam::Source;
use crate::telemetry::{Format, StatusSource, Telemetry};
use model::series::Writer;
use std::sync::Arc;

/// The gateway as a target of the scraper.
pub struct Own {
    telemetry: Telemetry,
    status: Arc<dyn StatusSource>,
}

impl Own {
    pub fn new(telemetry: Telemetry, status: Arc<dyn StatusSource>) -> Own {
        Own { telemetry, status }
    }
}

impl Target for Own {
    fn job(&self) -> &'static str {
        "bulkhead"
    }

    fn source(&self) -> Source {
        Source::Own
    }

    fn read(&self, writer: &mut Writer, at_ms: i64) -> Result<(), String> {
        let body = self.telemetry.exposition(Format::Classic, &self.status.snapshot());
        let body = body.map_err(|e| format!("the metrics could not be printed: {e}"))?;
        text::read(&String::from_utf8_lossy(&body), writer, at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::Signal;
    use crate::telemetry::StatusSnapshot;
    use model::series::{Part, parts};

    struct Nothing;

    impl StatusSource for Nothing {
        fn snapshot(&self) -> StatusSnapshot {
            StatusSnapshot::default()
        }
    }

    #[test]
    fn every_line_of_the_print_is_a_series_with_its_number_type_and_help() {
        let telemetry = Telemetry::new();
        telemetry.accepted(Source::OtlpGrpc, Signal::Logs, 42, 4000);
        telemetry.dropped(Signal::Logs, "a \"rule\" with \\ and \n", 3);
        telemetry.committed("logs", 0.002);
        let printed = telemetry.exposition(Format::Classic, &StatusSnapshot::default()).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let mut writer = Writer::new(&[("job", "bulkhead"), ("instance", "n1")]);
        Own::new(telemetry, Arc::new(Nothing)).read(&mut writer, 7).unwrap();
        assert_eq!(writer.cut(), 0);
        let lines = printed.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(writer.samples() as usize, lines);
        let raw = writer.finish();
        let all: Vec<Part<'_>> = parts(&raw).map(Result::unwrap).collect();
        let value = |name: &str, label: (&str, &str)| {
            all.iter().find_map(|part| match part {
                Part::Series(series) if series.name() == name && series.labels.contains(&label) => {
                    Some(series.samples[0])
                }
                _ => None,
            })
        };
        assert_eq!(value("bulkhead_accepted_records_total", ("source", "otlp/grpc")), Some((7, 42.0)));
        assert_eq!(value("bulkhead_dropped_records_total", ("rule", "a \"rule\" with \\ and \n")), Some((7, 3.0)));
        assert_eq!(value("bulkhead_wal_commit_seconds_bucket", ("le", "+Inf")), Some((7, 1.0)));
        assert_eq!(value("bulkhead_wal_commit_seconds_bucket", ("le", "0.001")), Some((7, 0.0)));
        let meaning = all.iter().find_map(|part| match part {
            Part::Family(family) if family.name == "bulkhead_accepted_records_total" => Some(*family),
            _ => None,
        });
        assert!(meaning.is_some_and(|family| family.kind.name() == "counter" && family.help.contains("on the disk")));
    }
}
