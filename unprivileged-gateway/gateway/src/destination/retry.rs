//! How long to wait before the next try.
//!
//! Image: people leaving a full lift do not all come back after the same minute. The pause doubles from 1 s to 60 s and is then
//! drawn at random below that (full jitter), so that many gateways do not knock together; a server that names a time is obeyed,
//! up to five minutes. Weakness: after an outage the first full minute may pass unused; data waits on disk meanwhile.

use std::time::Duration;

/// Ceiling of the first pause.
const FIRST: Duration = Duration::from_secs(1);
/// Ceiling of every later pause.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest time a server may make us wait.
const HINT_MAX: Duration = Duration::from_secs(300);
/// Below this a retry is a hammer.
const SHORTEST: Duration = Duration::from_millis(100);

/// Pauses of one thing that is tried again and again. There is no last try.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The pause before the next try. `random` in 0..1; `hint` is the server's Retry-After or RetryInfo.
    pub fn next(&mut self, random: f64, hint: Option<Duration>) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.tries.min(6)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let drawn = ceiling.mul_f64(random.clamp(0.0, 1.0)).max(SHORTEST);
        match hint {
            // A little later than told, so that all who were told the same do not come at once.
            Some(h) => h.min(HINT_MAX) + SHORTEST.mul_f64(random.clamp(0.0, 1.0) * 5.0),
            None => drawn,
        }
    }

    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_stay_there() {
        let mut b = Backoff::default();
        let pauses: Vec<u64> = (0..9).map(|_| b.next(1.0, None).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(b.next(0.0, None), SHORTEST);
    }

    #[test]
    fn a_servers_hint_is_obeyed_but_not_for_ever() {
        let mut b = Backoff::default();
        assert_eq!(b.next(0.0, Some(Duration::from_secs(7))).as_secs(), 7);
        assert_eq!(b.next(0.0, Some(Duration::from_secs(86_400))), HINT_MAX);
    }
}
