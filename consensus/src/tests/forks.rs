//! The three schedules of rule R1 that fork when one of its clauses is left out.

use std::cell::RefCell;
use std::rc::Rc;

use quorate_crypto::Hash;
use quorate_protocol::{Height, PeerMessage, View, Vote, VoteKind};

use super::harness::{Net, SECOND};

type Seen = Rc<RefCell<Vec<Vote>>>;

fn of_kind(message: &PeerMessage, kind: VoteKind) -> bool {
    matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|vote| vote.kind == kind))
}

/// Records every vote that is sent, and loses what `lose` says.
fn watch(net: &mut Net, lose: impl Fn(u8, u8, &PeerMessage) -> bool + 'static) -> Seen {
    let seen: Seen = Rc::default();
    let sink = Rc::clone(&seen);
    net.lose = Box::new(move |from, to, message| {
        if let PeerMessage::Votes(votes) = message {
            sink.borrow_mut().extend(votes.iter().cloned());
        }
        lose(from, to, message)
    });
    seen
}

/// The header that a client counts as committed at a height: Q COMMITs of one view for one hash.
fn seen_by_client(seen: &Seen, quorum: usize, height: Height) -> Option<(View, Hash)> {
    let seen = seen.borrow();
    let commits: Vec<&Vote> =
        seen.iter().filter(|vote| vote.kind == VoteKind::Commit && vote.height == height).collect();
    commits.iter().map(|vote| (vote.view, vote.header)).find(|(view, header)| {
        let alike = commits.iter().filter(|vote| vote.view == *view && vote.header == *header);
        let mut replicas: Vec<u8> = alike.map(|vote| vote.replica).collect();
        replicas.sort_unstable();
        replicas.dedup();
        replicas.len() >= quorum
    })
}

/// Moves all to the next view by hand-over.
fn hand_over(net: &mut Net) {
    let leader = net.replicas()[0].leader();
    net.hand_over(leader);
}

/// VC20: a lock of one view must not be lost in the next ones.
#[test]
fn fork_a_the_base_is_prepared_before_anything_else() {
    let mut net = Net::new(4);
    hand_over(&mut net);
    // View 1 commits heights 1 and 2, and only a client sees the certificates.
    let commits = watch(&mut net, |_, _, message| of_kind(message, VoteKind::Commit));
    for first in 0..2 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
    let first = seen_by_client(&commits, 3, 1).expect("a client sees height 1 committed");
    let second = seen_by_client(&commits, 3, 2).expect("a client sees height 2 committed");
    assert_eq!((first.0, second.0), (1, 1));
    assert!(net.replicas().iter().all(|replica| replica.committed_height() == 0));

    // View 2 adopts base (1, 2) and is cut off before any COMMIT of it arrives.
    let votes = watch(&mut net, |_, _, message| of_kind(message, VoteKind::Commit));
    net.hand_over(1);
    assert!(net.replicas().iter().all(|replica| replica.view() == 2 && replica.has_entered()));
    let prepared: Vec<Height> = votes
        .borrow()
        .iter()
        .filter(|vote| vote.view == 2 && vote.kind == VoteKind::Prepare)
        .map(|vote| vote.height)
        .collect();
    assert!(!prepared.is_empty() && prepared.iter().all(|height| *height >= 2), "{prepared:?}");

    // View 3 finds (2, 2), never (2, 1), and can only commit what the client saw.
    net.lose = Box::new(|_, _, _| false);
    net.crash(2);
    let envelope = net.envelope(2, 0, 1, 0);
    net.request_all(&envelope);
    net.advance_until(10 * SECOND, |net| net.all_at(3));
    assert_eq!(net.headers[&1].hash(), first.1);
    assert_eq!(net.headers[&2].hash(), second.1);
}

#[test]
fn fork_b_a_certificate_pulls_nobody_back() {
    let mut net = Net::new(4);
    (0..4).for_each(|_| hand_over(&mut net));
    assert!(net.replicas().iter().all(|replica| replica.view() == 4));
    // Replicas 2 and 3 want view 5; a commit certificate of view 4 reaches them afterwards.
    let seen = watch(&mut net, |from, to, _| (from < 2) != (to < 2));
    let resign = {
        // The leader of view 4 is replica 0; only 2 and 3 hear of its resignation.
        let statement = quorate_protocol::view_change::Resign::statement(*net.configuration.cluster(), 0, 4);
        let signature = quorate_crypto::Signer::sign(&net.signer(0), &statement);
        PeerMessage::Resign(quorate_protocol::view_change::Resign { epoch: 0, view: 4, signature })
    };
    net.deliver(0, 2, resign.clone());
    net.deliver(0, 3, resign);
    net.settle();
    assert_eq!((net.replica(2).view(), net.replica(3).view()), (5, 5));
    let parent = net.nodes[2].committed.clone().unwrap();
    let envelope = net.envelope(1, 0, 1, 0);
    let proposal = net.proposal(&parent, vec![envelope]);
    let (state, _) = net.imagine(&parent, &proposal);
    let batch = quorate_protocol::peer::Batch { header: state.header.clone(), proposal };
    let certificate = net.certificate(VoteKind::Commit, 4, 1, state.header.hash(), &[0, 1, 2]);
    let committed = quorate_protocol::peer::CommittedBatch { batch, certificate };
    for to in [2, 3] {
        let message = PeerMessage::Committed(vec![committed.clone()].try_into().unwrap());
        net.deliver(0, to, message);
    }
    net.settle();
    // They adopt it, and stay where they are: whatever view 4 proposes next gets no vote of theirs.
    assert_eq!((net.height(2), net.height(3)), (1, 1));
    let envelope = net.envelope(2, 0, 1, 0);
    let next = net.proposal(&state, vec![envelope]);
    let pre_prepare = net.pre_prepare(4, 2, next.clone());
    let (after, _) = net.imagine(&state, &next);
    for to in [2, 3] {
        net.deliver(0, to, PeerMessage::PrePrepare(pre_prepare.clone()));
        for voter in [0, 1] {
            let vote = net.vote(voter, VoteKind::Prepare, 4, 2, after.header.hash());
            net.deliver(voter, to, PeerMessage::Votes(vec![vote].try_into().unwrap()));
        }
    }
    net.advance(SECOND);
    let back = |vote: &Vote| vote.view <= 4 && vote.replica >= 2 && vote.height > 0;
    assert!(!seen.borrow().iter().any(back), "no vote below the view asked for");
    assert!(net.replica(2).view() >= 5 && net.replica(3).view() >= 5);
}

#[test]
fn fork_c_au10_commits_of_different_views_are_not_added_up() {
    let mut net = Net::new(4);
    let parent = net.nodes[3].committed.clone().unwrap();
    let envelope = net.envelope(1, 0, 1, 0);
    let proposal = net.proposal(&parent, vec![envelope]);
    let (state, _) = net.imagine(&parent, &proposal);
    net.lose = Box::new(|_, _, _| true);
    net.deliver(0, 3, PeerMessage::PrePrepare(net.pre_prepare(0, 1, proposal)));
    net.settle();
    let header = state.header.hash();
    // Two COMMITs of view 1 and two of view 3, all for one header: four voters, and no quorum.
    for (voter, view) in [(0, 1), (1, 1), (2, 3), (1, 3), (0, 2)] {
        let vote = net.vote(voter, VoteKind::Commit, view, 1, header);
        net.deliver(voter, 3, PeerMessage::Votes(vec![vote].try_into().unwrap()));
    }
    net.settle();
    assert_eq!(net.height(3), 0);
    assert!(net.replica(3).decided.is_empty());
    // The third COMMIT of one view makes the certificate, of that view.
    let vote = net.vote(0, VoteKind::Commit, 3, 1, header);
    net.deliver(0, 3, PeerMessage::Votes(vec![vote].try_into().unwrap()));
    net.settle();
    assert_eq!(net.height(3), 1);
    assert_eq!(net.replica(3).committed_certificate().unwrap().view, 3);
}
