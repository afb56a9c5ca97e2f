//! The headers that can exist within the bounds: a complete binary tree in which each header has two
//! possible children, and sets of them.
//!
//! Invariant: header 0 is genesis; header i at height h has the children 2i + 1 and 2i + 2 at height h + 1.
//! Swapping the two children of any header, with all below them, changes nothing that the protocol can see.

/// A header, by its place in the tree; 0 is genesis.
pub type Header = u8;
/// A set of headers, one bit each.
pub type Headers = u16;

/// Genesis.
pub const GENESIS: Header = 0;
/// Most heights above genesis that a set can hold.
pub const HEIGHTS_MAX: u8 = 3;

/// The height of a header.
#[must_use]
pub const fn height(header: Header) -> u8 {
    (header as u32 + 1).ilog2() as u8
}

/// The parent of a header; genesis is its own.
#[must_use]
pub const fn parent(header: Header) -> Header {
    if header == GENESIS { GENESIS } else { (header - 1) / 2 }
}

/// The first header of a height; those of a height follow each other.
#[must_use]
pub const fn first(height: u8) -> Header {
    (1 << height) - 1
}

/// How many headers trees of this height have, genesis included.
#[must_use]
pub const fn count(heights: u8) -> u8 {
    first(heights + 1)
}

/// The set of one header.
#[must_use]
pub const fn bit(header: Header) -> Headers {
    1 << header
}

/// All headers of a height.
#[must_use]
pub const fn at(height: u8) -> Headers {
    let (low, high) = (first(height), first(height + 1));
    ((1_u32 << high) - (1_u32 << low)) as Headers
}

/// The members of a set, ascending, so by height.
pub fn members(set: Headers) -> impl Iterator<Item = Header> {
    (0..Headers::BITS as Header).filter(move |header| set & bit(*header) != 0)
}

/// Whether `below` is `above` or one of its ancestors.
#[must_use]
pub const fn precedes(below: Header, above: Header) -> bool {
    let mut at = above;
    while height(at) > height(below) {
        at = parent(at);
    }
    at == below
}

/// Whether two headers lie on one chain.
#[must_use]
pub const fn compatible(a: Header, b: Header) -> bool {
    precedes(a, b) || precedes(b, a)
}

/// A header with all its ancestors above genesis.
#[must_use]
pub const fn path(header: Header) -> Headers {
    let (mut set, mut at) = (0, header);
    while at != GENESIS {
        set |= bit(at);
        at = parent(at);
    }
    set
}

/// A set with all ancestors of its members.
#[must_use]
pub fn closure(set: Headers) -> Headers {
    members(set).fold(0, |closed, header| closed | path(header))
}

/// A renaming of headers that keeps parents: entry i is the new name of header i.
pub type Renaming = [Header; 16];

/// The headers of a set by their new names.
#[must_use]
pub fn rename(set: Headers, renaming: &Renaming) -> Headers {
    members(set).fold(0, |renamed, header| renamed | bit(renaming[header as usize]))
}

/// Every renaming that keeps parents, the identity first.
#[must_use]
pub fn renamings(heights: u8) -> Vec<Renaming> {
    let inner = u32::from(first(heights));
    (0..1_u32 << inner)
        .map(|swaps| {
            let mut renaming = [GENESIS; 16];
            for header in 1..count(heights) {
                let above = parent(header);
                let swapped = u8::from(swaps >> above & 1 == 1);
                let side = ((header - 1) % 2) ^ swapped;
                renaming[header as usize] = 2 * renaming[above as usize] + 1 + side;
            }
            renaming
        })
        .collect()
}

/// A name to read: the choices from genesis upward, such as `ab` for a header at height 2.
#[must_use]
pub fn name(header: Header) -> String {
    if header == GENESIS {
        return "genesis".to_owned();
    }
    let (mut letters, mut at) = (Vec::new(), header);
    while at != GENESIS {
        letters.push(if at % 2 == 1 { 'a' } else { 'b' });
        at = parent(at);
    }
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_a_tree() {
        assert_eq!((height(0), height(1), height(2), height(3), height(6), height(7)), (0, 1, 1, 2, 2, 3));
        assert_eq!(at(1), 0b110);
        assert_eq!(at(2), 0b111_1000);
        assert_eq!(path(6), bit(6) | bit(2));
        assert!(precedes(2, 6) && !precedes(1, 6) && compatible(6, 2) && !compatible(5, 6));
        assert_eq!(name(5), "ba");
        for heights in 1..=HEIGHTS_MAX {
            assert_eq!(
                u32::from(count(heights)),
                u32::from((0..=heights).map(at).fold(0, |a, b| a | b).count_ones() as u8)
            );
        }
    }

    #[test]
    fn renamings_keep_parents() {
        for heights in 1..=HEIGHTS_MAX {
            let all = renamings(heights);
            assert_eq!(all.len(), 1 << first(heights));
            for renaming in all {
                for header in 1..count(heights) {
                    let renamed = renaming[header as usize];
                    assert_eq!(parent(renamed), renaming[parent(header) as usize]);
                    assert_eq!(height(renamed), height(header));
                }
            }
        }
    }
}
