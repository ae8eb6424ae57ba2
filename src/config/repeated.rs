//! Finds the elements of a list that are equal to an earlier element. It sorts the elements first, so that very long
//! lists do not take much time.

use std::cmp::Ordering;

/// Returns a pair of indices for each element that is equal to an earlier element: the index of the element, and the
/// index of the first equal element. For the list `[3, 1, 3]`, the result is `[(2, 0)]`.
pub(super) fn repeated<T>(items: &[T], order: impl Fn(&T, &T) -> Ordering) -> Vec<(usize, usize)> {
    let mut sorted: Vec<_> = items.iter().enumerate().collect();
    // The sort is stable, so equal elements stay in the order of the list.
    sorted.sort_by(|(_, a), (_, b)| order(a, b));
    let mut first: Option<(usize, &T)> = None;
    let mut found = Vec::new();
    for (index, item) in sorted {
        match first {
            Some((earlier, equal)) if order(equal, item) == Ordering::Equal => found.push((index, earlier)),
            _ => first = Some((index, item)),
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::repeated;

    #[test]
    fn repeated_elements_name_the_first_one() {
        assert_eq!(repeated(&[3, 1, 3, 2, 1, 3], Ord::cmp), [(2, 0), (4, 1), (5, 0)]);
        assert_eq!(repeated(&[1, 2, 3], Ord::cmp), []);
    }
}
