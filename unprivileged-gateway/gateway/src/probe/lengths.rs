//! How long the probe's windows are, held against what the configuration expects.
//!
//! Like a clerk who checks the delivery note and cannot change the order: nothing but receipts goes to the probe, so a difference is
//! said, not corrected. The last window before a probe ends is short by nature; a window is judged only when the next begins where it
//! ended. The weakness: two windows must have come before anything is said.

use std::time::Duration;

/// Windows may be off by this much: closing one takes its time on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// The newest window seen on a connection. Unit: unix nanoseconds.
#[derive(Default)]
pub(super) struct Lengths {
    last: Option<(u64, u64)>,
}

impl Lengths {
    /// A window came, once for each group of processes. Gives the length of the whole one before it if that is not `expected`.
    pub(super) fn odd(&mut self, from_ns: u64, to_ns: u64, expected: Duration) -> Option<Duration> {
        let last = self.last.replace((from_ns, to_ns)).filter(|last| *last != (from_ns, to_ns))?;
        let length = Duration::from_nanos(last.1.saturating_sub(last.0));
        let whole = Duration::from_nanos(from_ns.abs_diff(last.1)) < SLACK;
        (whole && length.abs_diff(expected) > SLACK).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const EXPECTED: Duration = Duration::from_secs(15);

    #[test]
    fn a_window_is_judged_once_the_next_begins_where_it_ended() {
        let mut lengths = Lengths::default();
        let seen = [(0, 30), (0, 30), (30, 60), (30, 60), (60, 90)];
        let said = seen.map(|(from, to)| lengths.odd(from * S, to * S, EXPECTED).map(|l| l.as_secs()));
        assert_eq!(said, [None, None, Some(30), None, Some(30)]);
    }

    #[test]
    fn what_is_as_expected_or_cut_short_by_an_end_is_not_said() {
        let mut lengths = Lengths::default();
        // 15 s and a little more; then a probe that ended after 3 s and came again 40 s later.
        for (from, to) in [(0, 15), (15, 31), (31, 34), (74, 89), (89, 104)] {
            assert_eq!(lengths.odd(from * S, to * S, EXPECTED), None, "{from} to {to}");
        }
    }
}
