//! What the other three replicas and the clients say: signed as it must be, and otherwise as the input wants.
//!
//! Invariant: nothing here signs with the key of the replica under test.

use quorate_crypto::{Certificate, CertificateKind, Hash, KeyedHashSigner, Signature, Signer};
use quorate_protocol::peer::{Announcement, Batch, CommittedBatch};
use quorate_protocol::view_change::*;
use quorate_protocol::{
    BatchTime, Envelope, EnvelopeBody, Height, Operation, OperationBody, PeerMessage, PrePrepare, Proposal,
    ReplicaIndex, View, Vote, VoteKind,
};

use super::{BLOCKS_MAX, Driver, Known, SECOND, START};
use crate::samples::{cluster, members, sign};
use crate::source::Source;

/// First byte of an instruction that is a lie of this number (see [`Driver::lie`]).
const LIE: u8 = 13;

impl Driver {
    /// A message, and from whom it comes.
    pub fn lie(&mut self, source: &mut Source<'_>) -> (ReplicaIndex, PeerMessage) {
        let from = self.other(source);
        let message = match source.below(20) {
            0..=2 => self.pre_prepare(source),
            3..=5 => return self.vote(source),
            6 => PeerMessage::Certificate(self.some_certificate(source)),
            7 => PeerMessage::Suspect(Suspect {
                epoch: 0,
                view: self.some_view(source),
                reason: source.choose(&[
                    Suspicion::Timeout,
                    Suspicion::Restarted,
                    Suspicion::Monitor,
                    Suspicion::Fault,
                    Suspicion::Revoked,
                ]),
            }),
            8 => self.resign(source),
            9 | 10 => PeerMessage::ViewChange(self.view_change(source, from)),
            11 | 12 => self.new_view(source),
            13 => PeerMessage::Announce(Announcement {
                epoch: 0,
                view: self.some_view(source),
                entered: source.flag(),
                committed: self.some_height(source),
            }),
            14 => PeerMessage::FetchCommitted { from: self.some_height(source) },
            15 | 16 => self.committed(source),
            17 => self.batches(source),
            18 => match source.below(3) {
                0 => PeerMessage::FetchNewView { view: self.some_view(source) },
                1 => PeerMessage::Forward(self.envelope(source)),
                _ => {
                    let header = self.some_block(source).state.header.hash();
                    PeerMessage::FetchBatches { header, above: self.some_height(source) }
                }
            },
            _ => PeerMessage::Certificate(self.certificate_of_three(source)),
        };
        (from, message)
    }

    pub fn other(&self, source: &mut Source<'_>) -> ReplicaIndex {
        (self.me + 1 + ReplicaIndex::try_from(source.below(3)).expect("below three")) % 4
    }

    fn others(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        let me = self.me;
        (0..4).filter(move |index| *index != me)
    }

    fn some_view(&self, source: &mut Source<'_>) -> View {
        let now = self.replica.view();
        source.choose(&[
            now,
            now,
            now,
            now.saturating_add(1),
            now.saturating_add(1),
            now.saturating_add(2),
            now.saturating_add(5),
            0,
            1,
            2,
            u64::MAX,
            now.saturating_sub(1),
        ])
    }

    fn some_height(&self, source: &mut Source<'_>) -> Height {
        let now = self.height;
        source.choose(&[
            now,
            now.saturating_add(1),
            now.saturating_add(2),
            now.saturating_add(3),
            now.saturating_add(5),
            now.saturating_add(80),
            now.saturating_add(1000),
            0,
            1,
            u64::MAX,
        ])
    }

    /// The newest blocks are meant most often.
    fn some_block(&self, source: &mut Source<'_>) -> &Known {
        let back = source.below(256) % self.blocks.len();
        &self.blocks[self.blocks.len() - 1 - back]
    }

    pub fn envelope(&self, source: &mut Source<'_>) -> Envelope {
        let client = u8::try_from(source.below(3)).expect("below three");
        let signer = KeyedHashSigner::new(&members(4).secrets[usize::from(client)]);
        let operation = Operation { credential: 0, requires: 0, at: None, body: OperationBody::Null };
        let valid_until = source.choose(&[u64::MAX, u64::MAX - 1, START + SECOND]);
        let expected = self.states[&self.committed].sessions.get(&Hash([client; 32])).copied().unwrap_or(0);
        EnvelopeBody {
            cluster: cluster().id,
            session: Hash([client; 32]),
            key: signer.public(),
            first: expected + u64::from(source.byte() % 6),
            valid_until: BatchTime(valid_until),
            credentials: Vec::new().try_into().expect("none"),
            operations: vec![operation; 1 + source.below(3)].try_into().expect("few operations"),
        }
        .sign(&signer)
    }

    /// A new block on one that is known.
    fn build(&mut self, source: &mut Source<'_>) -> Known {
        let parent = self.some_block(source).state.clone();
        let least = parent.header.time.plus(u64::from(parent.header.operation_count).max(1));
        let time = match source.below(6) {
            0 => least,
            1 => BatchTime(u64::MAX >> 1),
            2 => parent.header.time,
            _ => least.max(BatchTime(START + self.now)),
        };
        let envelopes: Vec<Envelope> = (0..source.below(3)).map(|_| self.envelope(source)).collect();
        let envelopes = envelopes.try_into().expect("few envelopes");
        let proposal = Proposal { parent: parent.header.proposal, time, envelopes };
        let digest = proposal.digest(&cluster().id, 0, parent.header.height + 1);
        let state = parent.execute(digest, &proposal, source.below(16) == 1);
        let known = Known { proposal, state };
        if self.blocks.len() < BLOCKS_MAX {
            self.blocks.push(known.clone());
            self.states.entry(digest).or_insert_with(|| known.state.clone());
        }
        known
    }

    fn pre_prepare(&mut self, source: &mut Source<'_>) -> PeerMessage {
        let view = self.some_view(source);
        let known = if source.below(4) == 0 { self.some_block(source).clone() } else { self.build(source) };
        let leader = self.configuration.leader(view);
        let header = &known.state.header;
        let statement = PrePrepare::statement(cluster().id, 0, view, header.height, header.proposal);
        // A PRE-PREPARE of its own the replica knows; nobody else can sign it.
        let signature = if leader == self.me { Signature::ZERO } else { sign(4, leader, &statement) };
        PeerMessage::PrePrepare(PrePrepare {
            epoch: 0,
            view,
            height: header.height,
            proposal: known.proposal,
            signature,
        })
    }

    fn signed_vote(
        &self,
        replica: ReplicaIndex,
        kind: VoteKind,
        view: View,
        height: Height,
        header: Hash,
    ) -> Vote {
        let mut vote = Vote { kind, epoch: 0, view, height, header, replica, signature: Signature::ZERO };
        vote.signature = sign(4, replica, &vote.statement(cluster().id));
        vote
    }

    /// Votes of one or all of the others for one block, by the connection of one of them.
    fn vote(&mut self, source: &mut Source<'_>) -> (ReplicaIndex, PeerMessage) {
        let from = self.other(source);
        let view = self.some_view(source);
        let header = &self.some_block(source).state.header;
        let (height, mut hash) = (header.height.max(1), header.hash());
        let settings = source.byte();
        let kind = if settings & 1 == 0 { VoteKind::Prepare } else { VoteKind::Commit };
        if settings & 0x30 == 0x30 {
            hash.0[0] ^= settings;
        }
        let voters: Vec<ReplicaIndex> = if settings & 2 == 0 { self.others().collect() } else { vec![from] };
        let mut votes: Vec<Vote> =
            voters.into_iter().map(|voter| self.signed_vote(voter, kind, view, height, hash)).collect();
        if settings & 0xc == 0xc
            && let Some(vote) = votes.iter_mut().find(|vote| vote.replica == from)
        {
            vote.signature.0[0] ^= 1;
        }
        (from, PeerMessage::Votes(votes.try_into().expect("few votes")))
    }

    fn certificate(&self, kind: CertificateKind, view: View, block: &Known) -> Certificate {
        let header = &block.state.header;
        let signers: Vec<u8> = self.others().collect();
        crate::samples::certificate(4, kind, (0, view, header.height), header.hash(), &signers)
    }

    pub fn some_certificate(&self, source: &mut Source<'_>) -> Certificate {
        let kind = source.choose(&[CertificateKind::Prepare, CertificateKind::Commit]);
        let view = self.some_view(source);
        self.certificate(kind, view, self.some_block(source))
    }

    /// Not of a quorum, or with one signature that does not hold.
    fn certificate_of_three(&self, source: &mut Source<'_>) -> Certificate {
        let mut certificate = self.some_certificate(source);
        if source.flag() {
            certificate.signatures.as_mut_slice()[source.below(3)].0[0] ^= 1;
        }
        certificate
    }

    fn resign(&self, source: &mut Source<'_>) -> PeerMessage {
        let view = self.some_view(source);
        let leader = self.configuration.leader(view);
        let statement = Resign::statement(cluster().id, 0, view);
        let signature = if leader == self.me { Signature::ZERO } else { sign(4, leader, &statement) };
        PeerMessage::Resign(Resign { epoch: 0, view, signature })
    }

    fn claim(&self, replica: ReplicaIndex, view: View, certificate: Option<&Certificate>) -> SignedClaim {
        let genesis = self.configuration.genesis_hash();
        let (rank, header) = certificate.map_or((Rank::default(), genesis), |known| {
            (Rank { view: known.view, height: known.height }, known.header_hash)
        });
        let body = ViewChangeBody { epoch: 0, view, rank, header, committed: 0, replica };
        let signature = sign(4, replica, &body.statement(cluster().id));
        SignedClaim { body, signature }
    }

    fn claimed(&self, source: &mut Source<'_>, below: View) -> Option<Certificate> {
        let kind = source.choose(&[CertificateKind::Prepare, CertificateKind::Commit]);
        let view = self.some_view(source).min(below.saturating_sub(1));
        let block = self.some_block(source);
        (source.below(4) != 0 && block.state.header.height > 0).then(|| self.certificate(kind, view, block))
    }

    fn view_change(&self, source: &mut Source<'_>, from: ReplicaIndex) -> ViewChange {
        let view = self.some_view(source).max(1);
        let certificate = self.claimed(source, view);
        ViewChange { claim: self.claim(from, view, certificate.as_ref()), certificate }
    }

    /// A NEW-VIEW whose base is the best of its claims.
    fn new_view(&self, source: &mut Source<'_>) -> PeerMessage {
        let view = self.some_view(source).max(1);
        let leader = self.configuration.leader(view);
        let certificates: Vec<_> = self.others().map(|_| self.claimed(source, view)).collect();
        let claims = self.others().zip(&certificates);
        let claims: Vec<_> = claims.map(|(index, known)| self.claim(index, view, known.as_ref())).collect();
        let claims = claims.try_into().expect("three claims");
        let rank = |known: &Certificate| (known.view, known.height);
        let base = certificates.into_iter().flatten().max_by_key(rank);
        let statement = NewView::statement(cluster().id, 0, view, &claims, &base);
        let signature = if leader == self.me { Signature::ZERO } else { sign(4, leader, &statement) };
        PeerMessage::NewView(NewView { epoch: 0, view, claims, base, signature })
    }

    /// The chain that ends in a block, from above a height on, lowest first.
    fn chain(&self, end: &Known, above: Height) -> Vec<Known> {
        let mut chain = vec![end.clone()];
        while let Some(first) =
            chain.first().filter(|first| first.state.header.height > above.saturating_add(1))
        {
            let parent = first.proposal.parent;
            let Some(parent) = self.blocks.iter().find(|known| known.state.header.proposal == parent) else {
                break;
            };
            chain.insert(0, parent.clone());
        }
        chain.retain(|known| known.state.header.height > 0);
        chain
    }

    fn committed(&self, source: &mut Source<'_>) -> PeerMessage {
        let view = self.some_view(source);
        let above = if source.flag() { self.height } else { self.some_height(source) };
        let chain = self.chain(self.some_block(source), above);
        let entries = chain.into_iter().map(|known| CommittedBatch {
            certificate: self.certificate(CertificateKind::Commit, view, &known),
            batch: Batch { header: known.state.header, proposal: known.proposal },
        });
        let entries: Vec<_> = entries.collect();
        PeerMessage::Committed(entries.try_into().expect("few blocks"))
    }

    fn batches(&self, source: &mut Source<'_>) -> PeerMessage {
        let above = if source.flag() { self.height } else { self.some_height(source) };
        let chain = self.chain(self.some_block(source), above);
        let batches = chain.into_iter().rev();
        let batches = batches.map(|known| Batch { header: known.state.header, proposal: known.proposal });
        let batches: Vec<_> = batches.collect();
        PeerMessage::Batches(batches.try_into().expect("few blocks"))
    }
}

/// A block of view 0 or of the view at hand: proposed, executed, prepared, committed.
pub fn a_commit(me: u8) -> Vec<u8> {
    let lie = |kind: u8, rest: &[u8]| [&[LIE, 0, kind], rest].concat();
    let mut program = Vec::new();
    if me == 0 {
        program.extend([7, 0, 0, 0, 0]);
    } else {
        // In this view, built on the newest block, at the wall clock's time, of one envelope.
        program.extend(lie(0, &[0, 1, 0, 3, 1, 0, 0, 0, 0, 0]));
    }
    program.extend([4, 0]);
    program.extend(lie(3, &[0, 0, 0, 0]));
    program.push(10);
    program.extend(lie(3, &[0, 0, 0, 1]));
    program.push(10);
    program
}

/// The next view, with the newest block as its base.
pub fn a_view_change() -> Vec<u8> {
    let suspect = |from: u8| [LIE, from, 7, 0, 0];
    let claim = [0, 0, 0, 1];
    let mut program = [suspect(0), suspect(1)].concat();
    program.push(10);
    program.extend([LIE, 0, 11, 3]);
    program.extend([claim, claim, claim].concat());
    program.push(10);
    program.extend([4, 0, 10]);
    program
}
