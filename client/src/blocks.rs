//! Blocks up and down: receipts of a quorum for what is stored, identifiers checked on what is fetched.
//!
//! Invariants: evidence holds receipts of Q distinct replicas, each checked, over the one root that was
//! computed here; a block that is handed out matches its identifier (rule S5).

use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::{Bounded, Hash};
use quorate_merkle::ReceiptsTree;
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence, BlockGrant, BlockReceipt, receipt_leaf};
use quorate_protocol::client::{ClientReply, ClientRequest, Refusal};
use quorate_protocol::limits::{BLOCK_BYTES_MAX, BLOCKS_PER_RECEIPT_MAX};
use quorate_protocol::{Credential, Height, Ino, ReplicaIndex, SessionId};
use tokio::sync::mpsc;

use crate::core::{Core, Deadline};
use crate::error::ClientError;
use crate::options::{HEDGE_DELAY, PUT_BLOCKS_BYTES_MAX, REQUEST_TIMEOUT};
use crate::race::Race;
use crate::replicas::Unreachable;
use crate::session::SessionHandle;

/// How long one upload may take.
const PUT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a replica may refuse a session before that is believed.
const PUT_REFUSALS_MAX: u32 = 4;
/// Pause before a replica that could not take blocks is asked again.
const PUT_AGAIN: Duration = Duration::from_millis(200);
/// Pause after all replicas were asked for a block in vain; grows with every pass.
const GET_AGAIN: Duration = Duration::from_millis(20);
/// Longest such pause.
const GET_AGAIN_MAX: Duration = Duration::from_millis(500);
/// Passes over all replicas after which a block that all deny is given up.
const GET_PASSES_MAX: u32 = 4;

/// A receipt, or a refusal if there was one.
type Outcome = Result<BlockReceipt, Option<(Refusal, String)>>;

/// What is promised for a set of blocks, and the paths of each.
struct Wanted {
    session: SessionId,
    descriptors: Vec<BlockDescriptor>,
    root: Hash,
    paths: Vec<Bounded<Hash, { quorate_protocol::limits::PATH_HASHES_MAX }>>,
}

/// Stores blocks on a quorum, under the session that lives now or the one that replaces it.
pub(crate) async fn put_blocks(
    core: &Arc<Core>,
    handle: &SessionHandle,
    blocks: Vec<Vec<u8>>,
) -> Result<(BlockEvidence, Vec<BlockDescriptor>), ClientError> {
    check_bounds(&blocks)?;
    let deadline = core.deadline();
    let session = handle.live(deadline).await?;
    let wanted = Arc::new(promise(session, &blocks)?);
    let blocks = blocks.into_iter().filter_map(|block| block.try_into().ok());
    let blocks = Bounded::try_collect(blocks).map_err(|_| ClientError::Invalid("too many blocks"))?;
    let request = Arc::new(ClientRequest::PutBlocks { session, blocks });
    let mut stored = store(core, &wanted, &request, deadline).await;
    if matches!(stored, Err(ClientError::Refused { refusal: Refusal::Denied, .. })) {
        // So do replicas of which the session is gone, of which we may not know yet: the cluster decides.
        let renewed = deadline.run(handle.renew()).await;
        renewed.unwrap_or_else(|| Err(core.unanswered()))?;
        stored = store(core, &wanted, &request, deadline).await;
    }
    Ok((evidence(&wanted, stored?), wanted.descriptors.clone()))
}

/// Uploads to all replicas, and returns when Q have given their receipts.
async fn store(
    core: &Arc<Core>,
    wanted: &Arc<Wanted>,
    request: &Arc<ClientRequest>,
    deadline: Deadline,
) -> Result<Vec<BlockReceipt>, ClientError> {
    let (sender, receiver) = mpsc::channel(core.members.n());
    let bytes = wanted.descriptors.iter().fold(0_u32, |sum, one| sum.saturating_add(one.length));
    for (replica, room) in core.members.indices().zip(&core.uploads) {
        let room = Arc::clone(room);
        // Tasks of their own: when Q have answered, the others still get the blocks.
        let (core, wanted, request) = (Arc::clone(core), Arc::clone(wanted), Arc::clone(request));
        let sender = sender.clone();
        tokio::spawn(async move {
            let _room = tokio::select! {
                room = room.acquire_many_owned(bytes) => room,
                // Q have answered, or it is too late: what a replica is too slow for, it fetches from others.
                () = sender.closed() => return,
            };
            let outcome = upload(&core, replica, &wanted, request, (deadline, &sender)).await;
            // Fails only when enough others have answered.
            let _ = sender.send(outcome).await;
        });
    }
    drop(sender);
    collect(core, receiver, deadline).await
}

fn check_bounds(blocks: &[Vec<u8>]) -> Result<(), ClientError> {
    let total = blocks.iter().fold(0_usize, |sum, block| sum.saturating_add(block.len()));
    if blocks.is_empty() || blocks.len() > BLOCKS_PER_RECEIPT_MAX || total > PUT_BLOCKS_BYTES_MAX {
        return Err(ClientError::Invalid("no blocks, or too many for one request"));
    }
    if blocks.iter().any(|block| block.is_empty() || block.len() > BLOCK_BYTES_MAX) {
        return Err(ClientError::Invalid("a block that is empty or too long"));
    }
    Ok(())
}

/// The tree that every receipt must be over.
fn promise(session: SessionId, blocks: &[Vec<u8>]) -> Result<Wanted, ClientError> {
    let descriptors: Vec<_> = blocks.iter().map(|block| BlockDescriptor::copies(block)).collect();
    let leaves = descriptors.iter().map(|descriptor| receipt_leaf(&descriptor.id(), descriptor.length));
    let failed = |_| ClientError::Invalid("too many blocks");
    let tree = ReceiptsTree::from_leaves(leaves).map_err(failed)?;
    let mut paths = Vec::with_capacity(descriptors.len());
    for index in 0..tree.count() {
        let path = tree.prove(index).map_err(failed)?;
        let path = Bounded::try_from(path.hashes.into_inner());
        paths.push(path.map_err(|_| ClientError::Invalid("too many blocks"))?);
    }
    Ok(Wanted { session, descriptors, root: tree.root(), paths })
}

/// Uploads to one replica, again while it is away or busy.
async fn upload(
    core: &Core,
    replica: ReplicaIndex,
    wanted: &Wanted,
    request: Arc<ClientRequest>,
    (deadline, outcomes): (Deadline, &mpsc::Sender<Outcome>),
) -> Outcome {
    let mut refusals = 0_u32;
    loop {
        match core.request_within(replica, Arc::clone(&request), PUT_TIMEOUT).await {
            Ok(ClientReply::Stored { descriptors, receipt }) => {
                if let Err(reason) = check_receipt(core, replica, wanted, &descriptors, &receipt) {
                    core.accuse(replica, &reason);
                    return Err(None);
                }
                // A replica that is behind counts from an old batch time.
                if receipt.body.expires > core.trust.time() {
                    return Ok(receipt);
                }
            }
            Ok(ClientReply::Refused { refusal: Refusal::Busy | Refusal::Behind, .. }) => {}
            // The session may be so new that the replica has yet to hear of it.
            Ok(ClientReply::Refused { refusal: Refusal::Denied, .. }) if refusals < PUT_REFUSALS_MAX => {
                refusals = refusals.saturating_add(1);
            }
            Ok(ClientReply::Refused { refusal, text }) => {
                return Err(Some((refusal, String::from_utf8_lossy(&text).into_owned())));
            }
            Ok(_) => {
                core.accuse(replica, &"another kind of reply than a receipt");
                return Err(None);
            }
            Err(Unreachable::TooLarge(text)) => return Err(Some((Refusal::Invalid, text))),
            Err(_) => {}
        }
        // Once Q have answered nobody waits for this replica: it fetches what it lacks from the others.
        if outcomes.is_closed() || deadline.passed() {
            return Err(None);
        }
        tokio::time::sleep(PUT_AGAIN).await;
    }
}

fn check_receipt(
    core: &Core,
    replica: ReplicaIndex,
    wanted: &Wanted,
    descriptors: &[BlockDescriptor],
    receipt: &BlockReceipt,
) -> Result<(), String> {
    let body = &receipt.body;
    let count = u32::try_from(wanted.descriptors.len()).unwrap_or(u32::MAX);
    let same = (body.session, body.count, body.root) == (wanted.session, count, wanted.root)
        && descriptors == wanted.descriptors
        && (receipt.replica, receipt.epoch) == (replica, core.members.epoch());
    if !same {
        return Err("a receipt for other blocks than those sent".to_owned());
    }
    let member = core.members.get(replica).ok_or("no such member")?;
    let statement = BlockReceipt::statement(core.cluster_id, receipt.epoch, body);
    let verified = core.trust.verifier().verify(&member.blocks, &statement, &receipt.signature);
    verified.map_err(|error| format!("a receipt whose signature does not hold: {error}"))
}

/// Waits for Q receipts.
async fn collect(
    core: &Core,
    mut outcomes: mpsc::Receiver<Outcome>,
    deadline: Deadline,
) -> Result<Vec<BlockReceipt>, ClientError> {
    let quorum = core.members.quorum();
    let mut receipts = Vec::with_capacity(quorum);
    let mut refusal = None;
    while receipts.len() < quorum {
        match deadline.run(outcomes.recv()).await {
            Some(Some(Ok(receipt))) => receipts.push(receipt),
            Some(Some(Err(refused))) => refusal = refused.or(refusal),
            Some(None) => {
                let lacking = ClientError::NoQuorum { reachable: receipts.len(), needed: quorum };
                let refused = refusal.map(|(refusal, text)| ClientError::Refused { refusal, text });
                return Err(refused.unwrap_or(lacking));
            }
            None => return Err(core.unanswered()),
        }
    }
    Ok(receipts)
}

fn evidence(wanted: &Wanted, receipts: Vec<BlockReceipt>) -> BlockEvidence {
    let grants =
        (0_u32..).zip(wanted.descriptors.iter().zip(&wanted.paths)).map(|(index, (descriptor, path))| {
            BlockGrant { descriptor: descriptor.clone(), index, path: path.clone() }
        });
    // Both are within their bounds: those of a request, and the number of members.
    let blocks = Bounded::try_collect(grants).unwrap_or_default();
    BlockEvidence { blocks, receipts: Bounded::try_from(receipts).unwrap_or_default() }
}

/// A block that a row of a file refers to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct WantedBlock {
    pub(crate) ino: Ino,
    /// The row.
    pub(crate) index: u64,
    pub(crate) id: Hash,
    /// The session whose open grant may stand in for the read permission.
    pub(crate) session: Option<SessionId>,
    /// The height at which the row refers to it; without one, whatever is the replica's last.
    pub(crate) at: Option<Height>,
}

/// Fetches a block from any replica that has it.
pub(crate) async fn get_block(
    core: &Core,
    credential: &Credential,
    wanted: WantedBlock,
) -> Result<Arc<[u8]>, ClientError> {
    let WantedBlock { ino, index, id, session, at } = wanted;
    let credential = credential.clone();
    let request = Arc::new(ClientRequest::GetBlock { ino, index, id, credential, session, at });
    let deadline = core.deadline();
    let mut pause = GET_AGAIN;
    let mut denied = 0_u32;
    loop {
        match deadline.run(pass(core, &request, &id)).await {
            Some(Ok(block)) => return Ok(block),
            Some(Err(None)) => {}
            Some(Err(Some(error))) => {
                denied = denied.saturating_add(1);
                if denied >= GET_PASSES_MAX {
                    return Err(error);
                }
            }
            None => return Err(core.unanswered()),
        }
        if deadline.run(tokio::time::sleep(pause)).await.is_none() {
            return Err(core.unanswered());
        }
        pause = pause.saturating_mul(2).min(GET_AGAIN_MAX);
    }
}

/// Each replica once. An error when all have answered, and none with the block.
async fn pass(
    core: &Core,
    request: &Arc<ClientRequest>,
    id: &Hash,
) -> Result<Arc<[u8]>, Option<ClientError>> {
    let mut race = Race::new();
    let mut order = core.order().into_iter();
    let mut refused = 0_usize;
    let mut last = None;
    loop {
        if let Some(replica) = order.next() {
            race.push(replica, core.request_within(replica, Arc::clone(request), REQUEST_TIMEOUT));
        }
        let (replica, reply) = match tokio::time::timeout(HEDGE_DELAY, race.next()).await {
            Ok(Some(completed)) => completed,
            Ok(None) => return Err(last.filter(|_| refused >= core.members.weak_quorum())),
            Err(_) => continue,
        };
        match reply {
            Ok(ClientReply::Block(content)) if BlockDescriptor::copies(&content).id() == *id => {
                return Ok(content.into_inner().into());
            }
            Ok(ClientReply::Refused { refusal, text }) => {
                if !matches!(refusal, Refusal::Busy | Refusal::Behind) {
                    refused = refused.saturating_add(1);
                }
                let text = String::from_utf8_lossy(&text).into_owned();
                last = Some(ClientError::Refused { refusal, text });
            }
            Ok(_) => core.accuse(replica, &"a block that does not match its identifier"),
            Err(_) => {}
        }
    }
}
