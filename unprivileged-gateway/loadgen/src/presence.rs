//! Who was there: one tick per sequence number, like a class register.
//!
//! A sender's numbers start at 0 and are dense, so a bitmap in pages of 65,536 ticks holds a million records in 128 KiB. Ticking
//! twice is a duplicate. Weakness: memory is bounded by pages, not by senders' honesty; a number beyond the last page, or one that
//! would need a page when none are left, is counted as `untracked`, and a register with such numbers refuses to judge.

/// 65,536 ticks, 8 KiB.
const PAGE_BITS: u64 = 65_536;
const PAGE_WORDS: usize = (PAGE_BITS / 64) as usize;
/// 2^32 records a sender; the table of pages is then 512 KiB.
const PAGES_MAX: u64 = 65_536;

/// Pages that all registers of one sink may still take: 32,768 x 8 KiB = 256 MiB, two thousand million records.
#[derive(Debug)]
pub struct Budget(pub u64);

impl Default for Budget {
    fn default() -> Self {
        Budget(32_768)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Presence {
    pages: Vec<Option<Box<[u64; PAGE_WORDS]>>>,
    pub unique: u64,
    pub duplicates: u64,
    pub untracked: u64,
}

impl Presence {
    /// Ticks one number.
    pub fn insert(&mut self, seq: u64, budget: &mut Budget) {
        let index = seq / PAGE_BITS;
        if index >= PAGES_MAX {
            self.untracked += 1;
            return;
        }
        let index = index as usize;
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        let page = match &mut self.pages[index] {
            Some(page) => page,
            None if budget.0 == 0 => {
                self.untracked += 1;
                return;
            }
            empty => {
                budget.0 -= 1;
                empty.insert(Box::new([0; PAGE_WORDS]))
            }
        };
        let (word, bit) = ((seq % PAGE_BITS / 64) as usize, 1u64 << (seq % 64));
        if page[word] & bit != 0 {
            self.duplicates += 1;
        } else {
            page[word] |= bit;
            self.unique += 1;
        }
    }

    pub fn contains(&self, seq: u64) -> bool {
        let page = usize::try_from(seq / PAGE_BITS).ok().and_then(|i| self.pages.get(i));
        page.is_some_and(|p| p.as_ref().is_some_and(|p| p[(seq % PAGE_BITS / 64) as usize] & 1 << (seq % 64) != 0))
    }

    /// The ticked numbers as half-open runs, ascending.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (p, page) in self.pages.iter().enumerate() {
            let Some(page) = page else { continue };
            for (w, word) in page.iter().enumerate() {
                let base = p as u64 * PAGE_BITS + w as u64 * 64;
                let mut rest = *word;
                while rest != 0 {
                    let start = rest.trailing_zeros();
                    let length = (rest >> start).trailing_ones();
                    let (from, upto) = (base + u64::from(start), base + u64::from(start + length));
                    match runs.last_mut() {
                        Some(last) if last.1 == from => last.1 = upto,
                        _ => runs.push((from, upto)),
                    }
                    if start + length == 64 {
                        break;
                    }
                    rest &= u64::MAX << (start + length);
                }
            }
        }
        runs
    }

    /// How many of `0..upto` are absent, and the runs of them.
    pub fn missing(&self, upto: u64) -> Vec<(u64, u64)> {
        without(&[(0, upto)], &self.runs())
    }
}

/// Numbers in `whole` that are not in `part`. Both hold ascending, disjoint, half-open runs.
pub fn without(whole: &[(u64, u64)], part: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    let mut next = 0;
    for &(mut from, upto) in whole {
        while next < part.len() && part[next].1 <= from {
            next += 1;
        }
        let mut i = next;
        while i < part.len() && part[i].0 < upto {
            if part[i].0 > from {
                out.push((from, part[i].0));
            }
            from = from.max(part[i].1);
            i += 1;
        }
        if from < upto {
            out.push((from, upto));
        }
    }
    out
}

/// Numbers in both.
pub fn common(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    without(a, &without(a, b))
}

/// Sorted and merged, so that runs in any order become ascending and disjoint.
pub fn tidy(mut runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    runs.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
    for (from, upto) in runs.into_iter().filter(|r| r.0 < r.1) {
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(upto),
            _ => out.push((from, upto)),
        }
    }
    out
}

pub fn count(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|r| r.1 - r.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticked_numbers_come_back_as_runs_and_twice_is_a_duplicate() {
        let (mut p, mut budget) = (Presence::default(), Budget::default());
        let numbers: Vec<u64> = (0..130).chain(200..201).chain(65_530..65_545).chain(1_000_000..1_000_064).collect();
        numbers.iter().for_each(|n| p.insert(*n, &mut budget));
        p.insert(64, &mut budget);
        assert_eq!(p.runs(), [(0, 130), (200, 201), (65_530, 65_545), (1_000_000, 1_000_064)]);
        assert_eq!((p.unique, p.duplicates, p.untracked), (numbers.len() as u64, 1, 0));
        assert_eq!(p.missing(203), [(130, 200), (201, 203)]);
        assert!(p.contains(129) && !p.contains(130) && !p.contains(u64::MAX));
    }

    #[test]
    fn memory_ends_at_the_budget_and_says_so() {
        let (mut p, mut budget) = (Presence::default(), Budget(1));
        p.insert(1, &mut budget);
        p.insert(PAGE_BITS, &mut budget);
        p.insert(u64::MAX, &mut budget);
        assert_eq!((p.unique, p.untracked), (1, 2));
    }

    #[test]
    fn set_arithmetic_agrees_with_a_plain_set() {
        let mut state = 7u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        for _ in 0..200 {
            let mut runs = || tidy((0..random(6)).map(|_| random(60)).map(|f| (f, f + 1 + f % 7)).collect::<Vec<_>>());
            let (a, b) = (runs(), runs());
            let has = |r: &[(u64, u64)], n: u64| r.iter().any(|r| r.0 <= n && n < r.1);
            for n in 0..70 {
                assert_eq!(has(&without(&a, &b), n), has(&a, n) && !has(&b, n), "{a:?} - {b:?} at {n}");
                assert_eq!(has(&common(&a, &b), n), has(&a, n) && has(&b, n), "{a:?} & {b:?} at {n}");
            }
        }
    }
}
