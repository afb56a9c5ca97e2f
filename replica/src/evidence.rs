//! Evidence against replicas: kept over restarts, told to peers, shown to auditors.
//!
//! Invariants: nothing is kept that the auditor's verifier does not accept; what is held against one replica
//! is bounded in pieces and bytes; a peer is asked for one piece at a time, and what it sends unasked costs
//! nothing. The loop never waits for the disk: a thread of its own writes, and a piece that it cannot write
//! is kept in memory and tried again.

use quorate_audit::{Court, Guilt, NoProof};
use quorate_crypto::{Bounded, Hash};
use quorate_protocol::evidence::{EvidenceOffer, EvidencePage, Place};
use quorate_protocol::limits::{EVIDENCE_OFFERS_MAX, EVIDENCE_PAGE_BYTES_TARGET, EVIDENCE_PER_KIND_MAX};
use quorate_protocol::{Evidence, EvidenceKind, PeerMessage, ReplicaIndex};
use quorate_store::directory::Directory;
use quorate_store::evidence::{EvidenceStore, read_evidence};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of evidence against one replica that are kept; the largest piece fits.
pub const BYTES_PER_CULPRIT_MAX: usize = 16 << 20;
/// How often peers are told what is here.
pub const OFFER_INTERVAL: Duration = Duration::from_secs(5);
/// How long a piece that was asked for may take.
const FETCH_PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing is asked of a peer whose evidence proves nothing.
const DISTRUST: Duration = Duration::from_secs(60);
/// Bytes of evidence that a peer is sent between two offers.
const SERVED_BYTES_MAX: usize = 32 << 20;
/// Digests that are remembered as not wanted; then all are forgotten.
const DECLINED_MAX: usize = 1024;
/// Pieces that may wait for the disk: all that can be held.
const SAVES_MAX: usize = 2048;
/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is new, and held from now on.
    New(Guilt),
    /// This, or another one of the same place, is held; or enough is held against that replica.
    Enough,
    /// It proves nothing.
    Refused(NoProof),
}

/// One peer, as far as evidence goes.
#[derive(Default)]
struct Peer {
    /// Its last offers that were wanted, next one last.
    offers: Vec<EvidenceOffer>,
    /// What it was asked for, and until when it may answer.
    asked: Option<(Hash, Instant)>,
    distrusted_until: Option<Instant>,
    served_bytes: usize,
}

struct Piece {
    evidence: Arc<Evidence>,
    bytes: usize,
}

/// All evidence of this replica.
pub struct EvidenceKeeper {
    held: BTreeMap<Hash, Piece>,
    places: BTreeSet<Place>,
    peers: BTreeMap<ReplicaIndex, Peer>,
    declined: BTreeSet<Hash>,
    offers_due: Option<Instant>,
    saves: Option<SyncSender<Arc<Evidence>>>,
    thread: Option<JoinHandle<()>>,
}

impl EvidenceKeeper {
    /// Reads what is stored, as far as it proves anything, and starts the thread that writes. Damaged files
    /// and a disk that fails cost evidence, and nothing else.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(directory: &Directory, court: &Court<'_>) -> std::io::Result<Self> {
        let store = EvidenceStore::open(directory)
            .inspect_err(|error| tracing::warn!(%error, "evidence is kept in memory only"))
            .ok();
        let (saves, waiting) = sync_channel(SAVES_MAX);
        let thread = std::thread::Builder::new()
            .name("evidence".to_owned())
            .spawn(move || work(store.as_ref(), &waiting))?;
        let mut keeper = Self {
            held: BTreeMap::new(),
            places: BTreeSet::new(),
            peers: BTreeMap::new(),
            declined: BTreeSet::new(),
            offers_due: None,
            saves: None,
            thread: Some(thread),
        };
        match read_evidence(directory.path()) {
            Ok(stored) => stored.for_each(|stored| match stored {
                Ok(evidence) => keeper.restore(evidence, court),
                Err(error) => tracing::warn!(%error, "stored evidence is skipped"),
            }),
            Err(error) => tracing::warn!(%error, "stored evidence cannot be read"),
        }
        keeper.saves = Some(saves);
        Ok(keeper)
    }

    fn restore(&mut self, evidence: Evidence, court: &Court<'_>) {
        let digest = evidence.digest();
        match self.keep(evidence, court) {
            Kept::New(guilt) => {
                tracing::warn!(culprit = guilt.culprit, kind = %guilt.kind, "a replica is proven faulty");
            }
            Kept::Enough => {}
            Kept::Refused(refusal) => {
                tracing::warn!(%digest, %refusal, "stored evidence proves nothing and is skipped");
            }
        }
    }

    /// Takes a piece in, from wherever it comes.
    pub fn keep(&mut self, evidence: Evidence, court: &Court<'_>) -> Kept {
        let (place, digest) = (evidence.place(), evidence.digest());
        let bytes = quorate_crypto::encode(&evidence).len();
        if self.places.contains(&place) || !self.has_room(place.culprit, place.kind, bytes) {
            self.decline(digest);
            return Kept::Enough;
        }
        let guilt = match court.judge(&evidence) {
            Ok(guilt) => guilt,
            Err(refusal) => {
                self.decline(digest);
                return Kept::Refused(refusal);
            }
        };
        let evidence = Arc::new(evidence);
        if let Some(saves) = &self.saves {
            // Never full, because it has room for all that can be held.
            let _ = saves.try_send(Arc::clone(&evidence));
        }
        self.places.insert(place);
        self.held.insert(digest, Piece { evidence, bytes });
        Kept::New(guilt)
    }

    fn decline(&mut self, digest: Hash) {
        if self.declined.len() >= DECLINED_MAX {
            self.declined.clear();
        }
        self.declined.insert(digest);
    }

    fn has_room(&self, culprit: ReplicaIndex, kind: EvidenceKind, bytes: usize) -> bool {
        let against = || self.held.values().filter(|piece| piece.evidence.culprit == culprit);
        let alike = against().filter(|piece| piece.evidence.kind() == kind).count();
        let held: usize = against().map(|piece| piece.bytes).sum();
        alike < EVIDENCE_PER_KIND_MAX && held.saturating_add(bytes) <= BYTES_PER_CULPRIT_MAX
    }

    /// What peers are offered, in as few messages as hold it.
    pub fn offers(&self) -> Vec<PeerMessage> {
        let offer = |(digest, piece): (&Hash, &Piece)| EvidenceOffer {
            digest: *digest,
            culprit: piece.evidence.culprit,
            kind: piece.evidence.kind(),
        };
        let all: Vec<EvidenceOffer> = self.held.iter().map(offer).collect();
        let messages = all.chunks(EVIDENCE_OFFERS_MAX).map(|chunk| Bounded::try_from(chunk.to_vec()));
        messages.filter_map(|offers| offers.ok().map(PeerMessage::OfferEvidence)).collect()
    }

    /// Whether peers are to be told now what is here.
    pub fn offers_are_due(&mut self, now: Instant) -> bool {
        let due = self.offers_due.is_none_or(|due| due <= now);
        if due {
            self.offers_due = Some(now + OFFER_INTERVAL);
            self.peers.values_mut().for_each(|peer| peer.served_bytes = 0);
        }
        due && !self.held.is_empty()
    }

    /// A peer has evidence; what to ask it for.
    pub fn offered(
        &mut self,
        from: ReplicaIndex,
        offers: &[EvidenceOffer],
        now: Instant,
    ) -> Option<PeerMessage> {
        let wanted: Vec<EvidenceOffer> = offers.iter().filter(|offer| self.wants(offer)).copied().collect();
        self.peers.entry(from).or_default().offers = wanted;
        self.ask(from, now)
    }

    fn wants(&self, offer: &EvidenceOffer) -> bool {
        !self.held.contains_key(&offer.digest)
            && !self.declined.contains(&offer.digest)
            && self.has_room(offer.culprit, offer.kind, 0)
    }

    /// The next question to a peer, if none is open.
    fn ask(&mut self, from: ReplicaIndex, now: Instant) -> Option<PeerMessage> {
        let peer = self.peers.get_mut(&from)?;
        let busy = peer.asked.is_some_and(|(_, until)| now < until);
        if busy || peer.distrusted_until.is_some_and(|until| now < until) {
            return None;
        }
        let mut offers = std::mem::take(&mut peer.offers);
        let next = std::iter::from_fn(|| offers.pop()).find(|offer| self.wants(offer));
        let peer = self.peers.get_mut(&from)?;
        peer.offers = offers;
        let digest = next?.digest;
        peer.asked = Some((digest, now + FETCH_PATIENCE));
        Some(PeerMessage::FetchEvidence { digest })
    }

    /// A peer asks for a piece; nothing if it has had enough until the next offer.
    pub fn fetched(&mut self, from: ReplicaIndex, digest: &Hash) -> Option<PeerMessage> {
        let piece = self.held.get(digest)?;
        let peer = self.peers.entry(from).or_default();
        if peer.served_bytes > SERVED_BYTES_MAX {
            return None;
        }
        peer.served_bytes = peer.served_bytes.saturating_add(piece.bytes);
        Some(PeerMessage::Evidence(Box::new(Evidence::clone(&piece.evidence))))
    }

    /// A piece has come from a peer: what became of it, if it was asked for, and the next question.
    pub fn arrived(
        &mut self,
        from: ReplicaIndex,
        evidence: Evidence,
        court: &Court<'_>,
        now: Instant,
    ) -> (Option<Kept>, Option<PeerMessage>) {
        let Some(peer) = self.peers.get_mut(&from) else { return (None, None) };
        let Some((asked, _)) = peer.asked else { return (None, None) };
        if evidence.digest() != asked {
            return (None, None);
        }
        peer.asked = None;
        let kept = self.keep(evidence, court);
        if matches!(kept, Kept::Refused(_))
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.distrusted_until = Some(now + DISTRUST);
        }
        let next = self.ask(from, now);
        (Some(kept), next)
    }

    /// The page after a digest.
    pub fn page(&self, after: Hash) -> EvidencePage {
        let mut page = EvidencePage { pieces: Bounded::new(), more: false };
        let mut bytes = 0_usize;
        for (_, piece) in self.held.range((Bound::Excluded(after), Bound::Unbounded)) {
            let full = bytes >= EVIDENCE_PAGE_BYTES_TARGET;
            if full || page.pieces.push(Evidence::clone(&piece.evidence)).is_err() {
                page.more = true;
                break;
            }
            bytes = bytes.saturating_add(piece.bytes);
        }
        page
    }
}

impl Drop for EvidenceKeeper {
    fn drop(&mut self) {
        self.saves = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(store: Option<&EvidenceStore>, waiting: &Receiver<Arc<Evidence>>) {
    let mut unsaved: Vec<Arc<Evidence>> = Vec::new();
    loop {
        let patience = if unsaved.is_empty() { Duration::MAX } else { RETRY };
        let ended = match waiting.recv_timeout(patience) {
            Ok(evidence) => {
                unsaved.push(evidence);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if let Some(store) = store {
            unsaved.retain(|evidence| match store.save(evidence) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "evidence cannot be stored; it is tried again");
                    true
                }
            });
        } else {
            unsaved.clear();
        }
        if ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
