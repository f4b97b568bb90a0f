//! How long the counter stays shut after a customer: not at all, a moment, or longer each time.
//!
//! Like a lift door that stays shut a little longer each time somebody holds it open. Pure: time is an argument. The
//! weakness: whoever may connect and misbehaves delays the good client behind it, at most by the longest delay; only the
//! socket's mode and the peer rule decide who may connect.

use super::client::Ended;
use std::time::Duration;

/// Times and sizes of the door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// First pause after a bad client; doubles each time.
    pub delay_first: Duration,
    /// Longest pause.
    pub delay_max: Duration,
    /// A whole frame must be taken within this.
    pub send: Duration,
    /// The first records must be there within this.
    pub first: Duration,
    /// Between two Status messages.
    pub status: Duration,
    /// Most records of one client within a second.
    pub records_per_second: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            send: Duration::from_secs(5),
            first: Duration::from_secs(5),
            status: Duration::from_secs(1),
            records_per_second: 10_000,
        }
    }
}

#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    /// Bad clients in a row.
    bad: u32,
    /// Since the start: shut until then.
    until: Duration,
}

impl Pace {
    pub(super) fn new(limits: Limits) -> Pace {
        Pace { limits, bad: 0, until: Duration::ZERO }
    }

    /// How long to stay shut from `now` on.
    pub(super) fn pause(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }

    pub(super) fn ended(&mut self, how: &Ended, now: Duration) {
        match how {
            Ended::Bad(_) => {
                let delay = self.limits.delay_first.saturating_mul(1 << self.bad.min(20)).min(self.limits.delay_max);
                self.bad = self.bad.saturating_add(1);
                self.until = now + delay;
            }
            Ended::Gone(_) | Ended::Stopping => self.bad = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_cap_and_a_good_client_ends_it() {
        let mut pace = Pace::new(Limits::default());
        let mut now = Duration::from_secs(10);
        assert_eq!(pace.pause(now), Duration::ZERO);
        let mut seen = vec![];
        for _ in 0..12 {
            pace.ended(&Ended::Bad("x".into()), now);
            seen.push(pace.pause(now).as_millis());
            now += pace.pause(now);
            assert_eq!(pace.pause(now), Duration::ZERO);
        }
        assert_eq!(seen, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]);
        pace.ended(&Ended::Gone("x".into()), now);
        assert_eq!(pace.pause(now), Duration::ZERO);
        pace.ended(&Ended::Bad("x".into()), now);
        assert_eq!(pace.pause(now).as_millis(), 100);
    }

    #[test]
    fn ten_thousand_bad_clients_cost_days_not_memory() {
        let mut pace = Pace::new(Limits::default());
        let mut now = Duration::ZERO;
        for _ in 0..10_000 {
            pace.ended(&Ended::Bad("x".into()), now);
            now += pace.pause(now);
        }
        assert!(now > Duration::from_secs(3 * 24 * 3600), "{now:?}");
    }
}
