//! Block receipts (rule S5): a reference needs a quorum of members of this epoch, for this session, in time.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use quorate_crypto::{Bounded, KeyedHashSigner, Role, Signer};
use quorate_execution::Errno;
use quorate_merkle::{log::inclusion_proof, rfc6962};
use quorate_protocol::blocks::{
    BlockDescriptor, BlockEvidence, BlockGrant, BlockReceipt, BlockReceiptBody, receipt_leaf,
};
use quorate_protocol::operation::{Authority, Piece, WriteAt};
use quorate_protocol::{OperationBody, OperationResult};

/// What replicas sign for two blocks.
struct Stored {
    descriptors: Vec<BlockDescriptor>,
    body: BlockReceiptBody,
    cluster: quorate_crypto::Hash,
}

impl Stored {
    fn new(chain: &Chain, client: &Client) -> Self {
        let descriptors = vec![BlockDescriptor::copies(&[1; 5000]), BlockDescriptor::copies(&[2; 7000])];
        let expires = chain.state().header().time.plus(60 * SECOND);
        let mut stored = Stored {
            body: BlockReceiptBody { session: client.session, expires, count: 2, root: [0; 32].into() },
            descriptors,
            cluster: chain.cluster(),
        };
        stored.body.root = rfc6962::root(&stored.leaves());
        stored
    }

    fn leaves(&self) -> Vec<quorate_crypto::Hash> {
        let leaf = |block: &BlockDescriptor| rfc6962::leaf_hash(&receipt_leaf(&block.id(), block.length));
        self.descriptors.iter().map(leaf).collect()
    }

    fn receipt(&self, replica: u8) -> BlockReceipt {
        let signer = KeyedHashSigner::new(&seed(replica).derive(Role::Blocks));
        let signature = signer.sign(&BlockReceipt::statement(self.cluster, 0, &self.body));
        BlockReceipt { epoch: 0, replica, body: self.body.clone(), signature }
    }

    fn evidence(&self, replicas: &[u8]) -> BlockEvidence {
        let grant = |(index, descriptor): (usize, &BlockDescriptor)| BlockGrant {
            descriptor: descriptor.clone(),
            index: u32::try_from(index).unwrap(),
            path: inclusion_proof(&self.leaves(), index as u64).unwrap().try_into().unwrap(),
        };
        BlockEvidence {
            blocks: Bounded::try_collect(self.descriptors.iter().enumerate().map(grant)).unwrap(),
            receipts: Bounded::try_collect(replicas.iter().map(|replica| self.receipt(*replica))).unwrap(),
        }
    }

    fn write(&self, ino: u64, evidence: BlockEvidence) -> OperationBody {
        let piece =
            |block: &BlockDescriptor| Piece::Block { id: block.id(), offset: 0, length: block.length };
        OperationBody::Write {
            ino,
            at: WriteAt::Append,
            pieces: Bounded::try_collect(self.descriptors.iter().map(piece)).unwrap(),
            evidence,
            authority: Authority::Check,
            token: None,
            entropy: [1; 16],
        }
    }
}

#[test]
fn a_quorum_of_receipts_lets_blocks_in_and_anything_less_does_not() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let other = chain.client(2);
    let stored = Stored::new(&chain, &client);
    let file = client.envelope(vec![create(1, "f", 0o644)]);
    chain.run(file);
    let good = stored.evidence(&[0, 2, 3]);
    let with = |change: &dyn Fn(&mut BlockEvidence)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        evidence
    };
    let foreign = Stored::new(&chain, &other);
    let expired = {
        let mut stored = Stored::new(&chain, &client);
        stored.body.expires = quorate_protocol::BatchTime(chain.state().header().time.0 - 1);
        stored.evidence(&[0, 1, 2])
    };
    let bad = [
        stored.evidence(&[0, 2]),
        stored.evidence(&[0, 2, 2]),
        foreign.evidence(&[0, 1, 2]),
        expired,
        with(&|evidence| evidence.receipts.as_mut_slice()[1].signature.0[5] ^= 1),
        with(&|evidence| evidence.receipts.as_mut_slice()[1].replica = 1),
        with(&|evidence| evidence.receipts.as_mut_slice()[1].replica = 77),
        with(&|evidence| evidence.receipts.as_mut_slice()[1].epoch = 1),
        with(&|evidence| evidence.receipts.as_mut_slice()[1].body.count = 3),
        with(&|evidence| evidence.blocks.as_mut_slice()[1].index = 0),
        with(&|evidence| evidence.blocks.as_mut_slice()[1].index = u32::MAX),
        with(&|evidence| evidence.blocks.as_mut_slice()[1].path = Bounded::new()),
        with(&|evidence| evidence.blocks.as_mut_slice()[1].descriptor.length += 1),
    ];
    for (index, evidence) in bad.into_iter().enumerate() {
        let envelope = client.envelope(vec![stored.write(2, evidence)]);
        assert_eq!(errno(&chain.run(envelope)[0]), Some(Errno::EBADMSG.number()), "bad evidence {index}");
    }
    let envelope = client.envelope(vec![stored.write(2, good)]);
    assert!(matches!(chain.run(envelope)[..], [OperationResult::Done(_)]));
    // Nobody gains content by naming a hash: without evidence the other session's block stays its own.
    let mut other = other;
    let bare = stored.write(2, BlockEvidence::default());
    let envelope = other.envelope(vec![bare]);
    assert!(errno(&chain.run(envelope)[0]).is_some());
}
