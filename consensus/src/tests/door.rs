//! The door: one refusal for each rule.

use quorate_crypto::{CertificateKind, KeyedHashVerifier, Signature};
use quorate_protocol::peer::Announcement;
use quorate_protocol::view_change::{Rank, Resign};
use quorate_protocol::{PeerMessage, VoteKind};

use super::harness::Net;
use crate::{NoEnvelopes, Rejection, door};

fn verify(net: &Net, from: u8, message: PeerMessage) -> Result<(), Rejection> {
    let signers: Vec<_> = (0..net.n()).map(|i| net.signer(i)).collect();
    let verifier = KeyedHashVerifier::from_signers(signers.iter());
    door::verify(&net.configuration_of(0), &verifier, &NoEnvelopes, from, message)
        .map(drop)
        .map_err(|refused| refused.rejection)
}

#[test]
fn au3_senders_must_be_other_members() {
    let net = Net::new(4);
    let message = || PeerMessage::FetchNewView { view: 1 };
    assert_eq!(verify(&net, 0, message()), Err(Rejection::Sender(0)));
    assert_eq!(verify(&net, 4, message()), Err(Rejection::Sender(4)));
    assert_eq!(verify(&net, 3, message()), Ok(()));
}

#[test]
fn au4_au5_a_vote_is_its_signers_of_its_type_and_epoch() {
    let net = Net::new(4);
    let header = *net.configuration.cluster();
    let good = net.vote(1, VoteKind::Prepare, 3, 5, header);
    let check = |vote| verify(&net, 2, PeerMessage::Votes(vec![vote].try_into().unwrap()));
    assert_eq!(check(good.clone()), Ok(()));
    let changes: [fn(&mut quorate_protocol::Vote); 6] = [
        |vote| vote.kind = VoteKind::Commit,
        |vote| vote.view += 1,
        |vote| vote.height += 1,
        |vote| vote.header.0[0] ^= 1,
        |vote| vote.replica = 3,
        |vote| vote.signature.0[0] ^= 1,
    ];
    for change in changes {
        let mut vote = good.clone();
        change(&mut vote);
        assert!(matches!(check(vote), Err(Rejection::Signature { .. })));
    }
    let mut vote = good.clone();
    vote.epoch = 1;
    assert_eq!(check(vote), Err(Rejection::Epoch(1)));
    let mut vote = good;
    vote.replica = 9;
    assert_eq!(check(vote), Err(Rejection::UnknownReplica(9)));
}

#[test]
fn proposals_are_their_leaders() {
    let net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    let proposal = net.proposal(&parent, vec![]);
    let good = net.pre_prepare(1, 1, proposal);
    assert_eq!(verify(&net, 3, PeerMessage::PrePrepare(good.clone())), Ok(()), "relayed by anybody");
    let mut other = good.clone();
    other.view = 2;
    assert!(matches!(
        verify(&net, 3, PeerMessage::PrePrepare(other)),
        Err(Rejection::Signature { replica: 2, .. })
    ));
    let mut other = good.clone();
    other.proposal.time.0 += 1;
    assert!(verify(&net, 3, PeerMessage::PrePrepare(other)).is_err());
    let mut other = good;
    other.height = 0;
    assert!(matches!(verify(&net, 3, PeerMessage::PrePrepare(other)), Err(Rejection::Malformed { .. })));
}

#[test]
fn claims_need_their_certificate_and_precede_their_view() {
    let net = Net::new(4);
    let header = *net.configuration.cluster();
    let certificate = net.certificate(VoteKind::Prepare, 2, 5, header, &[0, 1, 2]);
    let check = |message| verify(&net, 1, PeerMessage::ViewChange(message));
    let good = net.view_change(1, 3, Some(certificate.clone()));
    assert_eq!(check(good.clone()), Ok(()));
    assert_eq!(check(net.view_change(1, 3, None)), Ok(()), "genesis needs none");
    assert!(check(net.view_change(1, 2, Some(certificate.clone()))).is_err(), "of its own view");
    let mut bare = good.clone();
    bare.certificate = None;
    assert!(check(bare).is_err());
    let mut raised = good.clone();
    raised.claim.body.rank = Rank { view: 2, height: 6 };
    assert!(check(raised).is_err());
    let mut stolen = good.clone();
    stolen.claim.body.replica = 2;
    assert!(matches!(check(stolen), Err(Rejection::Signature { .. })));
    // AU8: one invalid signature in a certificate is one too many.
    let mut spoilt = good;
    if let Some(certificate) = &mut spoilt.certificate {
        certificate.signatures.as_mut_slice()[2] = Signature::ZERO;
    }
    assert!(matches!(check(spoilt), Err(Rejection::Certificate(_))));
}

#[test]
fn new_views_hold_a_quorum_of_distinct_claims_below_their_base() {
    for n in [4, 5, 6, 7] {
        let net = Net::new(n);
        let q = u8::try_from(net.configuration.quorum()).unwrap();
        let header = *net.configuration.cluster();
        let signers: Vec<u8> = (0..q).collect();
        let low = net.certificate(VoteKind::Prepare, 1, 9, header, &signers);
        let high = net.certificate(VoteKind::Commit, 2, 3, header, &signers);
        let check = |new_view| verify(&net, 1, PeerMessage::NewView(new_view));
        let claims: Vec<_> = (0..q)
            .map(|i| net.view_change(i, 4, Some(if i == 0 { high.clone() } else { low.clone() })).claim)
            .collect();
        assert_eq!(check(net.new_view(4, claims.clone(), Some(high.clone()))), Ok(()), "n = {n}");
        assert!(check(net.new_view(4, claims.clone(), Some(low.clone()))).is_err(), "a claim is above it");
        assert!(check(net.new_view(4, claims.clone(), None)).is_err());
        assert!(check(net.new_view(4, claims[1..].to_vec(), Some(high.clone()))).is_err(), "Q - 1 claims");
        let mut twice = claims.clone();
        twice[1] = twice[0].clone();
        assert!(check(net.new_view(4, twice, Some(high.clone()))).is_err(), "one claim twice");
        let mut reversed = claims.clone();
        reversed.reverse();
        assert!(check(net.new_view(4, reversed, Some(high.clone()))).is_err());
        assert!(
            check(net.new_view(5, claims.clone(), Some(high.clone()))).is_err(),
            "claims of another view"
        );
        let late = net.certificate(VoteKind::Prepare, 4, 1, header, &signers);
        assert!(check(net.new_view(4, claims.clone(), Some(late))).is_err(), "a base of the view itself");
        let mut forged = net.new_view(4, claims, Some(high));
        forged.view = 8;
        assert!(check(forged).is_err());
    }
}

#[test]
fn resignations_are_their_leaders() {
    let net = Net::new(4);
    let statement = Resign::statement(*net.configuration.cluster(), 0, 6);
    let sign = |i| quorate_crypto::Signer::sign(&net.signer(i), &statement);
    let check = |i| verify(&net, 1, PeerMessage::Resign(Resign { epoch: 0, view: 6, signature: sign(i) }));
    assert_eq!(check(2), Ok(()));
    assert!(matches!(check(1), Err(Rejection::Signature { replica: 2, .. })));
}

#[test]
fn other_epochs_are_refused() {
    let net = Net::new(4);
    let announcement = Announcement { epoch: 1, view: 0, entered: true, committed: 0 };
    assert_eq!(verify(&net, 1, PeerMessage::Announce(announcement)), Err(Rejection::Epoch(1)));
    let mut certificate = net.certificate(VoteKind::Commit, 0, 1, *net.configuration.cluster(), &[0, 1, 2]);
    assert_eq!(verify(&net, 1, PeerMessage::Certificate(certificate.clone())), Ok(()));
    assert_eq!(certificate.kind, CertificateKind::Commit);
    certificate.epoch = 1;
    assert_eq!(verify(&net, 1, PeerMessage::Certificate(certificate)), Err(Rejection::Epoch(1)));
}

#[test]
fn envelopes_are_of_this_cluster_and_not_empty() {
    let net = Net::new(4);
    let verifier = KeyedHashVerifier::new([&super::harness::client_key(1)]);
    let check =
        |envelope| door::verify_envelope(&net.configuration, &verifier, &NoEnvelopes, envelope).map(drop);
    let good = net.envelope(1, 0, 2, 0);
    assert_eq!(check(good.clone()), Ok(()));
    assert!(matches!(check(net.envelope(1, 0, 0, 0)), Err(Rejection::Malformed { .. })));
    let mut other = good.clone();
    other.body.cluster.0[0] ^= 1;
    assert!(matches!(check(other), Err(Rejection::Malformed { .. })));
    let mut other = good;
    other.body.first += 1;
    assert!(matches!(check(other), Err(Rejection::Envelope { .. })));
}
