//! Member sets: size, keys, distinctness, leaders, and that decoding checks what building checks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)]

mod common;

use common::{member, members, seed};
use quorate_crypto::{
    ADDRESS_BYTES_MAX, Address, KeyError, Member, MemberSet, MemberSetError, PublicKey, Role, decode, encode,
    faults, quorum, weak_quorum,
};

fn list(n: u8) -> Vec<Member> {
    (0..n).map(member).collect()
}

/// The encoding that a set of these members would have, were it allowed.
fn encoding(epoch: u64, members: &[Member]) -> Vec<u8> {
    encode(&(epoch, members.to_vec()))
}

fn set_key(member: &mut Member, role: Role, key: PublicKey) {
    let field = match role {
        Role::Consensus => &mut member.consensus,
        Role::Transport => &mut member.transport,
        Role::Blocks => &mut member.blocks,
        Role::LogNote => &mut member.log_note,
        Role::LogCosignature => &mut member.log_cosignature,
        Role::Principal | Role::Session => panic!("no key of a member"),
    };
    *field = key;
}

#[test]
fn sets_of_four_to_thirty_two_members_stand() {
    for n in 4..=32 {
        let set = members(n);
        let size = usize::from(n);
        assert_eq!((set.n(), set.f(), set.quorum()), (size, faults(size), quorum(size)));
        assert_eq!(set.weak_quorum(), weak_quorum(size));
        assert_eq!(set.indices().collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
        assert_eq!(encode(&set), encoding(7, set.members()));
        assert_eq!(decode(&encode(&set)), Ok(set));
    }
}

#[test]
fn sets_of_other_sizes_are_refused() {
    for n in [0, 1, 3, 33, 40] {
        let size = Err(MemberSetError::Size(usize::from(n)));
        assert_eq!(MemberSet::new(7, list(n)), size);
        assert_eq!(MemberSet::new_unchecked_keys(7, list(n)), size);
        assert!(decode::<MemberSet>(&encoding(7, &list(n))).is_err());
    }
}

#[test]
fn shared_keys_are_refused_in_every_role() {
    for (position, (role, _)) in member(0).keys().into_iter().enumerate() {
        let mut shared = list(4);
        let key = shared[1].keys()[position].1;
        set_key(&mut shared[3], role, key);
        let error = Err(MemberSetError::SharedKey { index: 3, role });
        assert_eq!(MemberSet::new(7, shared.clone()), error);
        assert_eq!(MemberSet::new_unchecked_keys(7, shared.clone()), error);
        assert!(decode::<MemberSet>(&encoding(7, &shared)).is_err());
    }
}

#[test]
fn cr2_weak_keys_are_refused_in_every_role() {
    let mut identity = [0; 32];
    identity[0] = 1;
    for (role, _) in member(0).keys() {
        let mut weak = list(4);
        set_key(&mut weak[2], role, PublicKey(identity));
        let error = KeyError::SmallOrder;
        assert_eq!(MemberSet::new(7, weak.clone()), Err(MemberSetError::Key { index: 2, role, error }));
        assert!(decode::<MemberSet>(&encoding(7, &weak)).is_err());
        assert!(MemberSet::new_unchecked_keys(7, weak).is_ok());
    }
}

#[test]
fn leaders_take_turns() {
    for n in 4..=32 {
        let set = members(n);
        for view in (0..100).chain(u64::MAX - 100..=u64::MAX) {
            assert_eq!(u64::from(set.leader(view)), view % u64::from(n));
            assert!(set.get(set.leader(view)).is_some());
        }
    }
}

#[test]
fn members_are_found_by_index_and_key() {
    let set = members(4);
    for index in set.indices() {
        let member = set.get(index).unwrap();
        assert_eq!(set.index_of_consensus(&member.consensus), Some(index));
        assert_eq!(set.index_of_transport(&member.transport), Some(index));
        assert_eq!(set.index_of_blocks(&member.blocks), Some(index));
        assert_eq!(set.index_of_consensus(&member.transport), None);
    }
    assert_eq!(set.get(4), None);
    assert_eq!(set.index_of_consensus(&seed(9).derive(Role::Consensus).public()), None);
}

#[test]
fn digest_depends_on_everything() {
    let set = members(4);
    let mut digests = vec![set.digest(), MemberSet::new(8, list(4)).unwrap().digest()];
    let mut swapped = list(4);
    swapped.swap(0, 1);
    digests.push(MemberSet::new(7, swapped).unwrap().digest());
    let mut moved = list(4);
    moved[0].address = Address::try_from("elsewhere.example:4400").unwrap();
    digests.push(MemberSet::new(7, moved).unwrap().digest());
    for (role, _) in member(0).keys() {
        let mut rekeyed = list(4);
        set_key(&mut rekeyed[3], role, seed(77).derive(role).public());
        digests.push(MemberSet::new(7, rekeyed).unwrap().digest());
    }
    digests.push(members(5).digest());
    let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
    assert_eq!(set.digest(), members(4).digest());
}

#[test]
fn addresses_are_bounded() {
    assert!(Address::try_from("a".repeat(ADDRESS_BYTES_MAX)).is_ok());
    assert!(Address::try_from("a".repeat(ADDRESS_BYTES_MAX + 1)).is_err());
}
