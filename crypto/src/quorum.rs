//! Quorum arithmetic: how many members may be faulty, and how many must agree.
//!
//! Invariant, tested for every size of a cluster: two quorums share a correct member
//! (2Q - n >= f + 1), and the correct members alone are a quorum (Q <= n - f).

/// Fewest members a cluster may have: with fewer than four no fault at all could be borne.
pub const MEMBERS_MIN: usize = 4;

/// Most members a cluster may have; all-to-all votes grow with the square of this.
pub const MEMBERS_MAX: usize = 32;

/// f: how many of `n` members may be Byzantine, floor((n - 1) / 3).
pub const fn faults(n: usize) -> usize {
    n.saturating_sub(1) / 3
}

/// Q: how many of `n` members must agree, floor((n + f) / 2) + 1; 2f + 1 when n = 3f + 1.
pub const fn quorum(n: usize) -> usize {
    (n.saturating_add(faults(n)) / 2).saturating_add(1)
}

/// f + 1: any group of this size among `n` members holds a correct one.
pub const fn weak_quorum(n: usize) -> usize {
    faults(n).saturating_add(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]
    use super::*;

    #[test]
    fn quorums_intersect_in_a_correct_member_and_are_available() {
        for n in MEMBERS_MIN..=MEMBERS_MAX {
            let (f, q) = (faults(n), quorum(n));
            assert!(3 * f < n, "n = {n}: more than f faults would be claimed");
            assert!(2 * q - n > f, "n = {n}: two quorums may share faulty members only");
            assert!(q <= n - f, "n = {n}: the correct members are no quorum");
            assert!(q > weak_quorum(n) || n < 4, "n = {n}: a weak quorum must be weaker");
            // Q is the least that intersects, so nothing is waited for in vain.
            assert!(2 * (q - 1) < n + f + 1, "n = {n}: a smaller quorum would do");
        }
    }

    #[test]
    fn vc5_weak_and_full_thresholds_differ_for_small_clusters() {
        // (n, f, f + 1, Q): the sizes at which other systems confused f + 1, 2f and 2f + 1.
        let table = [
            (4, 1, 2, 3),
            (5, 1, 2, 4),
            (6, 1, 2, 4),
            (7, 2, 3, 5),
            (8, 2, 3, 6),
            (9, 2, 3, 6),
            (10, 3, 4, 7),
        ];
        for (n, f, weak, q) in table {
            assert_eq!((faults(n), weak_quorum(n), quorum(n)), (f, weak, q), "n = {n}");
        }
        for f in 1..=10 {
            assert_eq!(quorum(3 * f + 1), 2 * f + 1);
        }
    }

    #[test]
    fn degenerate_sizes_do_not_wrap() {
        assert_eq!((faults(0), quorum(0), weak_quorum(0)), (0, 1, 1));
        assert_eq!((faults(1), quorum(1)), (0, 1));
        assert!(quorum(usize::MAX) > 0);
    }
}
