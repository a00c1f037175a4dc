//! A set of numbers as disjoint closed ranges: a /8 or a /64 is one entry, not its addresses.

use std::collections::BTreeMap;

/// First to last, both included; neighbours are joined, so each gap in the set is one gap here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u128, u128>);

impl Ranges {
    /// Adds every number from `first` to `last`.
    pub(super) fn insert(&mut self, first: u128, last: u128) {
        let (mut first, mut last) = (first, last);
        // Whatever touches or overlaps is swallowed, from the right end leftwards.
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end < first.saturating_sub(1) {
                break;
            }
            self.0.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Takes one number out; `false` when it was not in the set.
    pub(super) fn take(&mut self, number: u128) -> bool {
        let Some((start, end)) = self.at(number) else { return false };
        self.0.remove(&start);
        if start < number {
            self.0.insert(start, number - 1);
        }
        if number < end {
            self.0.insert(number + 1, end);
        }
        true
    }

    /// The range that holds the number.
    pub(super) fn at(&self, number: u128) -> Option<(u128, u128)> {
        self.0.range(..=number).next_back().map(|(&start, &end)| (start, end)).filter(|&(_, end)| number <= end)
    }

    /// The lowest number that is at least `from`, at most `to`, a multiple of `step`, and starts a run of `step` numbers in
    /// this set and outside of `without`. `step` is 1 or 2. Costs a look-up per range passed, never per number.
    pub(super) fn lowest(&self, from: u128, to: u128, step: u128, without: &Self) -> Option<u128> {
        let mut at = from;
        loop {
            at = at.checked_add(at % step)?;
            let (start, end) = self.at(at).or_else(|| self.0.range(at..).next().map(|(&start, &end)| (start, end)))?;
            at = at.max(start);
            at = at.checked_add(at % step)?;
            let last = at.checked_add(step - 1)?;
            if last > to {
                return None;
            }
            if last > end {
                at = end.checked_add(1)?;
                continue;
            }
            match without.at(last).or_else(|| without.at(at)) {
                Some((_, end)) => at = end.checked_add(1)?,
                None => return Some(at),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_taking_splits() {
        let mut ranges = Ranges::default();
        ranges.insert(0, 3);
        ranges.insert(8, 9);
        ranges.insert(4, 7);
        assert_eq!((ranges.len(), ranges.at(5)), (1, Some((0, 9))));
        assert!(ranges.take(5));
        assert!(!ranges.take(5));
        assert_eq!((ranges.at(4), ranges.at(5), ranges.at(6)), (Some((0, 4)), None, Some((6, 9))));
        ranges.insert(5, 5);
        assert_eq!(ranges.len(), 1);
    }

    #[test]
    fn the_ends_of_the_number_space_are_numbers_too() {
        let mut ranges = Ranges::default();
        ranges.insert(u128::MAX - 1, u128::MAX);
        ranges.insert(0, 1);
        let none = Ranges::default();
        assert_eq!(ranges.lowest(2, u128::MAX, 2, &none), Some(u128::MAX - 1));
        assert!(ranges.take(u128::MAX));
        assert_eq!(ranges.lowest(2, u128::MAX, 2, &none), None);
        assert_eq!(ranges.lowest(2, u128::MAX, 1, &none), Some(u128::MAX - 1));
        ranges.insert(0, u128::MAX);
        assert_eq!((ranges.len(), ranges.lowest(0, u128::MAX, 2, &ranges)), (1, None));
    }

    #[test]
    fn a_pair_is_aligned_whole_and_outside_of_what_is_without() {
        let mut ranges = Ranges::default();
        ranges.insert(1, 20);
        let mut without = Ranges::default();
        without.insert(3, 3);
        without.insert(4, 4);
        without.insert(6, 9);
        assert_eq!(ranges.lowest(0, 20, 2, &without), Some(10));
        assert_eq!(ranges.lowest(0, 20, 1, &without), Some(1));
        assert_eq!(ranges.lowest(0, 10, 2, &without), None);
    }
}
