//! From samples to the points of a chart: cut to the asked time, made into rates, thinned to what a screen can show.
//!
//! A draughtsman who must draw a thousand readings on three hundred columns: of each column he marks the lowest and the highest
//! reading, in the order in which they came, so that no spike is lost. Fewer readings than columns are drawn as they are. A counter
//! that fell was reset: it counts from zero, as in Prometheus. Weakness: a rate over a pause is the average over the pause.

use super::RangeQuery;

/// Points of one series in one answer.
pub const POINTS_MAX: usize = 2000;
/// Fewest points that may be asked for: one column with a lowest and a highest.
const POINTS_MIN: usize = 2;

/// What every series of one answer has in common.
pub(super) struct Window {
    from: i64,
    to: i64,
    most: usize,
    rate: bool,
    /// Of the widest thinning so far.
    thinned: u64,
    /// Usual time between two samples, of the first series that can say.
    usual: u64,
}

impl Window {
    pub(super) fn new(query: &RangeQuery) -> Window {
        let ms = |ms: Option<u64>, other: i64| ms.map_or(other, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
        Window {
            from: ms(query.from_ms, i64::MIN),
            to: ms(query.to_ms, i64::MAX),
            most: query.max_points.clamp(POINTS_MIN, POINTS_MAX),
            rate: query.rate,
            thinned: 0,
            usual: 0,
        }
    }

    pub(super) fn step_ms(&self) -> u64 {
        if self.thinned > 0 { self.thinned } else { self.usual }
    }

    /// The points of one series.
    pub(super) fn points(&mut self, samples: impl Iterator<Item = (i64, f64)>) -> Vec<(i64, Option<f64>)> {
        let mut samples: Vec<(i64, f64)> = samples.filter(|(at, _)| *at <= self.to).collect();
        samples.sort_by_key(|(at, _)| *at);
        if self.rate {
            samples = rates(&samples);
        }
        // The rate at the first point needs the sample before it, so the beginning is cut only now.
        samples.retain(|(at, _)| *at >= self.from);
        if self.usual == 0 {
            self.usual = usual_gap(&samples);
        }
        if samples.len() > self.most {
            samples = self.thin(&samples);
        }
        samples.into_iter().map(|(at, value)| (at, value.is_finite().then_some(value))).collect()
    }

    /// At most `most` points: the lowest and the highest of each column.
    fn thin(&mut self, samples: &[(i64, f64)]) -> Vec<(i64, f64)> {
        let (Some((first, _)), Some((last, _))) = (samples.first(), samples.last()) else { return Vec::new() };
        let columns = (self.most / 2).max(1) as u64;
        let width = (last.abs_diff(*first) / columns + 1).max(1);
        self.thinned = self.thinned.max(width);
        let mut points = Vec::with_capacity(self.most);
        for column in samples.chunk_by(|a, b| a.0.abs_diff(*first) / width == b.0.abs_diff(*first) / width) {
            let by_value = |a: &&(i64, f64), b: &&(i64, f64)| a.1.total_cmp(&b.1);
            let mut ends: Vec<(i64, f64)> =
                column.iter().min_by(by_value).into_iter().chain(column.iter().max_by(by_value)).copied().collect();
            ends.sort_by_key(|(at, _)| *at);
            ends.dedup_by_key(|(at, _)| *at);
            points.extend(ends);
        }
        points
    }
}

/// Increase per second between neighbours, at the time of the later one.
fn rates(samples: &[(i64, f64)]) -> Vec<(i64, f64)> {
    let rate = |pair: &[(i64, f64)]| {
        let [(before_ms, before), (at_ms, value)] = pair else { return None };
        let seconds = at_ms.abs_diff(*before_ms) as f64 / 1000.0;
        let increase = if value < before { *value } else { value - before };
        (seconds > 0.0).then_some((*at_ms, increase / seconds))
    };
    samples.windows(2).filter_map(rate).collect()
}

/// The middle one of the times between neighbours.
fn usual_gap(samples: &[(i64, f64)]) -> u64 {
    let mut gaps: Vec<u64> = samples.windows(2).map(|pair| pair[1].0.abs_diff(pair[0].0)).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().unwrap_or(0)
}
