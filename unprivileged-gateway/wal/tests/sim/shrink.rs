//! A failing story made short: leave out a stretch, keep it out if the story still fails, try smaller stretches.

use super::Op;

/// The shortest story this greedy search finds that still fails, and how.
pub fn shrink(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> Option<String>) -> (Vec<Op>, String) {
    let mut why = fails(&ops).unwrap_or_default();
    let mut size = ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut shorter = ops.clone();
            shorter.drain(at..(at + size).min(ops.len()));
            match fails(&shorter) {
                Some(still) => (ops, why) = (shorter, still),
                None => at += size,
            }
        }
        size /= 2;
    }
    (ops, why)
}
