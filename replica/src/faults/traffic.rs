//! As much as the network takes, of what costs its receivers work (hazard A4).
//!
//! Invariant: every frame decodes; most look like what a correct replica sends until a signature is checked,
//! and some are valid and ask for much.

use super::junk;
use super::liar::Liar;
use bytes::Bytes;
use quorate_crypto::{Bitmap, Bounded, Certificate, CertificateKind, Hash, Signature, derive_hash};
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::limits::{
    BLOCK_BYTES_MAX, ENVELOPE_BYTES_MAX, OPERATIONS_PER_ENVELOPE_MAX, VOTES_PER_MESSAGE_MAX,
};
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Groups, Operation, OperationBody, PeerMessage, PrePrepare,
    Proposal, ReplicaIndex, Vote, VoteKind,
};
use quorate_transport::frame::encode_frame;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Frames that wait for a peer on one lane before more are made: enough that a lane never runs dry.
const WAITING_MAX: usize = 16;
/// Pause when all lanes are full.
const FULL_PAUSE: Duration = Duration::from_micros(500);
/// How often the frames are made anew for the heights and views of the moment.
const RENEWAL: Duration = Duration::from_millis(200);
/// Of the votes, so many stand for the heights next to come.
const HEIGHTS: u64 = 8;
/// One of so many frames is junk that cannot be decoded; each costs both sides a connection.
const JUNK_SHARE: u64 = 50_000;

/// Lanes as the transport numbers them.
const URGENT: u8 = 0;
const PROPOSALS: u8 = 1;
const BULK: u8 = 2;

/// Floods for ever.
pub(super) fn flood(liar: &Liar) {
    loop {
        let frames = [corpus(liar, urgent), corpus(liar, proposals), corpus(liar, bulk)];
        let renewed = Instant::now();
        while renewed.elapsed() < RENEWAL {
            let mut sent = 0_usize;
            for to in liar.others() {
                for (lane, frames) in [URGENT, PROPOSALS, BULK].into_iter().zip(&frames) {
                    sent += fill(liar, to, lane, frames);
                }
            }
            if sent == 0 {
                std::thread::sleep(FULL_PAUSE);
            }
        }
    }
}

/// Fills one lane up.
fn fill(liar: &Liar, to: ReplicaIndex, lane: u8, frames: &[Bytes]) -> usize {
    let room = WAITING_MAX.saturating_sub(liar.network.waiting(to, lane));
    for _ in 0..room {
        let turn = liar.next_turn();
        if turn % JUNK_SHARE == JUNK_SHARE - 1 {
            liar.network.slip_bytes(to, lane, junk::piece(turn));
        }
        let number = usize::try_from(turn).unwrap_or_default().checked_rem(frames.len()).unwrap_or_default();
        if let Some(frame) = frames.get(number) {
            liar.network.slip_bytes(to, lane, frame.clone());
        }
    }
    room
}

fn corpus(liar: &Liar, make: fn(&Liar) -> Vec<PeerMessage>) -> Vec<Bytes> {
    make(liar).iter().filter_map(|message| encode_frame(message).ok()).collect()
}

/// Bytes that look like anybody's.
fn noise(seed: u64) -> Hash {
    derive_hash("quorate fault noise", &[&seed.to_le_bytes()])
}

fn forged(seed: u64) -> Signature {
    let mut bytes = [0; 64];
    let halves = [noise(seed), noise(!seed)];
    bytes.iter_mut().zip(halves.iter().flat_map(|half| half.0)).for_each(|(byte, noise)| *byte = noise);
    Signature(bytes)
}

/// Votes of its own for every header, votes of others whose signatures do not hold, certificates without
/// truth, and questions whose answers are large.
fn urgent(liar: &Liar) -> Vec<PeerMessage> {
    let committed = liar.committed.load(Ordering::Relaxed);
    let view = liar.view.load(Ordering::Relaxed);
    let votes = |of: ReplicaIndex, seed: u64| {
        let vote = |number: u64| Vote {
            kind: if number.is_multiple_of(2) { VoteKind::Prepare } else { VoteKind::Commit },
            epoch: liar.members.epoch(),
            view,
            height: committed + 1 + number % HEIGHTS,
            header: noise(seed ^ number),
            replica: of,
            signature: forged(seed ^ number),
        };
        let votes = (0..VOTES_PER_MESSAGE_MAX as u64).map(vote);
        PeerMessage::Votes(Bounded::try_collect(votes).unwrap_or_default())
    };
    let mut messages: Vec<PeerMessage> =
        liar.members.indices().map(|of| votes(of, liar.next_turn())).collect();
    messages.extend((0..4).map(|_| votes(liar.me, liar.next_turn())));
    messages.push(PeerMessage::Certificate(certificate(liar, committed + 1, view)));
    messages.push(PeerMessage::FetchCommitted { from: 1 });
    messages.push(PeerMessage::FetchBatches { header: noise(liar.next_turn()), above: 0 });
    messages.push(PeerMessage::FetchNewView { view });
    messages.push(PeerMessage::FetchBlock { id: noise(liar.next_turn()) });
    messages
}

/// Proposals of the leader's and envelopes of clients, large, with signatures that do not hold.
fn proposals(liar: &Liar) -> Vec<PeerMessage> {
    let committed = liar.committed.load(Ordering::Relaxed);
    let view = liar.view.load(Ordering::Relaxed);
    let small = (0..8).map(|_| PeerMessage::Forward(envelope(liar, OPERATIONS_PER_ENVELOPE_MAX, 16)));
    let large = PeerMessage::Forward(envelope(liar, OPERATIONS_PER_ENVELOPE_MAX, ENVELOPE_BYTES_MAX / 640));
    let proposal = PeerMessage::PrePrepare(PrePrepare {
        epoch: liar.members.epoch(),
        view,
        height: committed + 1,
        proposal: Proposal {
            parent: noise(liar.next_turn()),
            time: BatchTime(1),
            envelopes: Bounded::try_collect((0..3).map(|_| envelope(liar, 512, 1024))).unwrap_or_default(),
        },
        signature: forged(liar.next_turn()),
    });
    small.chain([large, proposal]).collect()
}

/// Blocks that nobody asked for.
fn bulk(liar: &Liar) -> Vec<PeerMessage> {
    let content = vec![noise(liar.next_turn()).0[0]; BLOCK_BYTES_MAX];
    let descriptor = BlockDescriptor::copies(&content);
    vec![PeerMessage::Block { descriptor, content: content.try_into().unwrap_or_default() }]
}

/// An envelope of these operations, each some bytes long, whose signature does not hold.
fn envelope(liar: &Liar, operations: usize, bytes: usize) -> Envelope {
    let target = vec![b'x'; bytes.clamp(1, quorate_protocol::limits::SYMLINK_BYTES_MAX)];
    let operation = |number: usize| Operation {
        credential: 0,
        requires: 0,
        at: None,
        body: symlink(number as u64, &target),
    };
    let body = EnvelopeBody {
        cluster: liar.cluster,
        session: noise(liar.next_turn()),
        key: quorate_crypto::Signer::public(&liar.signer),
        first: 1,
        valid_until: BatchTime(u64::MAX >> 1),
        credentials: Bounded::try_collect([Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal }])
            .unwrap_or_default(),
        operations: Bounded::try_collect((0..operations).map(operation)).unwrap_or_default(),
    };
    Envelope { body, signature: forged(liar.next_turn()) }
}

fn symlink(number: u64, target: &[u8]) -> OperationBody {
    let Ok(name) = quorate_protocol::file::Name::new(format!("flood-{number}").as_bytes()) else {
        return OperationBody::Null;
    };
    OperationBody::Symlink {
        parent: 1,
        name,
        target: target.to_vec().try_into().unwrap_or_default(),
        ino: None,
        entropy: [0; 16],
    }
}

/// A certificate of a quorum whose signatures do not hold.
fn certificate(liar: &Liar, height: u64, view: u64) -> Certificate {
    let mut signers = Bitmap::empty(liar.members.n());
    let quorum = liar.members.indices().take(liar.members.quorum());
    let signatures: Vec<Signature> = quorum
        .map(|index| {
            let _new = signers.insert(index);
            forged(liar.next_turn())
        })
        .collect();
    Certificate {
        kind: CertificateKind::Commit,
        epoch: liar.members.epoch(),
        view,
        height,
        header_hash: noise(liar.next_turn()),
        signers,
        signatures: signatures.try_into().unwrap_or_default(),
    }
}
