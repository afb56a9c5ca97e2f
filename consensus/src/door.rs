//! The door: what a peer or a client sends becomes [`Verified`] here, or is rejected.
//!
//! Invariant: a [`Verified`] message is of this epoch, respects the protocol's bounds, and every signature
//! and certificate that a decision may rest on holds, with one exception: a vote that the voter's own
//! connection brought is believed to be the voter's, and its signature is checked when it counts (`tally`).
//! Cheap checks come before costly ones, and nothing here changes any state (hazard AU6).

use quorate_crypto::{Certificate, CertificateError, Hash, SignatureError, Verifier};
use quorate_protocol::evidence::{Proof, ProposalStatement};
use quorate_protocol::limits::{ENVELOPE_BYTES_MAX, OPERATIONS_PER_PROPOSAL_MAX, PROPOSAL_BYTES_MAX};
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::view_change::{NewView, Rank, Resign, SignedClaim, ViewChange};
use quorate_protocol::{Envelope, Epoch, Evidence, PeerMessage, PrePrepare, ReplicaIndex, View, Vote};

use crate::configuration::Configuration;
use crate::mutant::{Mutant, broken, less, passes};

/// Something that passed the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    /// Of the proposal, for a PRE-PREPARE; of the body, for an envelope; zeros otherwise.
    digest: Hash,
}

impl<T> Verified<T> {
    pub(crate) const fn new(value: T, digest: Hash) -> Self {
        Self { value, digest }
    }

    /// What was verified.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// What was verified, out of its wrapper.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Digest of the proposal in a PRE-PREPARE, of the body of an envelope; zeros for all else.
    pub const fn digest(&self) -> Hash {
        self.digest
    }
}

/// Envelopes whose signatures were verified before, so that they need not be verified again.
pub trait KnownEnvelopes {
    /// The digest of the body, if exactly this envelope has been verified.
    fn digest_of_known(&self, envelope: &Envelope) -> Option<Hash>;

    /// Whether exactly this certificate has been verified.
    fn is_known_certificate(&self, _: &Certificate) -> bool {
        false
    }
}

/// Knows no envelope.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoEnvelopes;

impl KnownEnvelopes for NoEnvelopes {
    fn digest_of_known(&self, _: &Envelope) -> Option<Hash> {
        None
    }
}

/// Why something is turned away. The fault of whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The sender is not a member, or is this replica itself.
    #[error("sender {0} is no other member")]
    Sender(ReplicaIndex),
    /// The message is of another epoch.
    #[error("message of epoch {0}")]
    Epoch(Epoch),
    /// The message names a replica that the epoch does not have.
    #[error("no replica {0}")]
    UnknownReplica(ReplicaIndex),
    /// A signature does not hold.
    #[error("signature of replica {replica}: {error}")]
    Signature {
        /// Who is said to have signed.
        replica: ReplicaIndex,
        /// What is wrong.
        error: SignatureError,
    },
    /// A certificate does not hold.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// An envelope's signature does not hold.
    #[error("signature of envelope {index}: {error}")]
    Envelope {
        /// Position in its message.
        index: usize,
        /// What is wrong.
        error: SignatureError,
    },
    /// The message contradicts a rule of its type.
    #[error("malformed {what}: {rule}")]
    Malformed {
        /// Type of the message.
        what: &'static str,
        /// The rule.
        rule: &'static str,
    },
}

/// A message that was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub rejection: Rejection,
    /// The message.
    pub message: PeerMessage,
}

impl Refused {
    /// What it proves about the leader that signed it: an honest one proposes only envelopes that passed its
    /// own door, where the same rule holds.
    #[must_use]
    pub fn into_evidence(self, configuration: &Configuration) -> Option<Evidence> {
        match (self.rejection, self.message) {
            // The leader's signature was checked before any envelope's.
            (Rejection::Envelope { index, .. }, PeerMessage::PrePrepare(pre_prepare)) => {
                let (epoch, culprit) = (pre_prepare.epoch, configuration.leader(pre_prepare.view));
                let envelope = u32::try_from(index).ok()?;
                let proof = Proof::InvalidProposal { pre_prepare, envelope };
                Some(Evidence::new(*configuration.cluster(), epoch, culprit, proof))
            }
            _ => None,
        }
    }
}

/// Verifies a message that the connection of replica `from` brought.
///
/// # Errors
/// [`Rejection`] says what is wrong with it. For messages that only relay what others signed, it is still
/// `from` who should have checked.
pub fn verify(
    configuration: &Configuration,
    verifier: &dyn Verifier,
    known: &dyn KnownEnvelopes,
    from: ReplicaIndex,
    message: PeerMessage,
) -> Result<Verified<PeerMessage>, Box<Refused>> {
    let verified = if from == configuration.me() || configuration.members().get(from).is_none() {
        Err(Rejection::Sender(from))
    } else {
        Door { configuration, verifier, known }.message(from, &message)
    };
    match verified {
        Ok(digest) => Ok(Verified::new(message, digest)),
        Err(rejection) => Err(Box::new(Refused { rejection, message })),
    }
}

/// Verifies an envelope that a client or a peer sent.
///
/// # Errors
/// [`Rejection`] if it is of another cluster, empty, too large, or not signed by the key that it names.
pub fn verify_envelope(
    configuration: &Configuration,
    verifier: &dyn Verifier,
    known: &dyn KnownEnvelopes,
    envelope: Envelope,
) -> Result<Verified<Envelope>, Rejection> {
    let door = Door { configuration, verifier, known };
    let digest = door.envelope(0, &envelope)?;
    Ok(Verified::new(envelope, digest))
}

/// Verifies a certificate on its own, as a waiting reader presents it (rule R4).
///
/// # Errors
/// [`Rejection`] if it is of another epoch, of height 0, or does not hold.
pub fn verify_certificate(
    configuration: &Configuration,
    verifier: &dyn Verifier,
    certificate: Certificate,
) -> Result<Verified<Certificate>, Rejection> {
    let door = Door { configuration, verifier, known: &NoEnvelopes };
    door.certificate(&certificate)?;
    Ok(Verified::new(certificate, Hash::ZERO))
}

struct Door<'a> {
    configuration: &'a Configuration,
    verifier: &'a dyn Verifier,
    known: &'a dyn KnownEnvelopes,
}

const fn malformed(what: &'static str, rule: &'static str) -> Rejection {
    Rejection::Malformed { what, rule }
}

fn ensure(holds: bool, what: &'static str, rule: &'static str) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(malformed(what, rule)) }
}

impl Door<'_> {
    /// The digest that goes with the message.
    fn message(&self, from: ReplicaIndex, message: &PeerMessage) -> Result<Hash, Rejection> {
        match message {
            PeerMessage::PrePrepare(pre_prepare) => return self.pre_prepare(pre_prepare),
            PeerMessage::Forward(envelope) => return self.envelope(0, envelope),
            PeerMessage::Votes(votes) => votes.iter().try_for_each(|vote| self.vote(from, vote))?,
            PeerMessage::Suspect(suspect) => self.epoch(suspect.epoch)?,
            PeerMessage::Resign(resign) => self.resign(resign)?,
            PeerMessage::ViewChange(view_change) => self.view_change(view_change)?,
            PeerMessage::NewView(new_view) => self.new_view(new_view)?,
            PeerMessage::Certificate(certificate) => self.certificate(certificate)?,
            PeerMessage::Announce(announcement) => self.epoch(announcement.epoch)?,
            PeerMessage::Committed(batches) => self.committed(batches)?,
            PeerMessage::Batches(batches) => self.batches(batches)?,
            PeerMessage::Proposed(statement) => self.proposed(statement)?,
            PeerMessage::FetchCommitted { .. }
            | PeerMessage::FetchBatches { .. }
            | PeerMessage::FetchNewView { .. }
            // Content is addressed by its hash; the driver compares it, and verifies evidence.
            | PeerMessage::FetchBlock { .. }
            | PeerMessage::Block { .. }
            | PeerMessage::OfferEvidence(_)
            | PeerMessage::FetchEvidence { .. }
            | PeerMessage::Evidence(_) => {}
        }
        Ok(Hash::ZERO)
    }

    fn epoch(&self, epoch: Epoch) -> Result<(), Rejection> {
        if epoch == self.configuration.epoch() { Ok(()) } else { Err(Rejection::Epoch(epoch)) }
    }

    fn signature(
        &self,
        replica: ReplicaIndex,
        statement: &quorate_crypto::Statement,
        signature: &quorate_crypto::Signature,
    ) -> Result<(), Rejection> {
        let member = self.configuration.members().get(replica).ok_or(Rejection::UnknownReplica(replica))?;
        self.verifier
            .verify(&member.consensus, statement, signature)
            .map_err(|error| Rejection::Signature { replica, error })
    }

    fn certificate(&self, certificate: &Certificate) -> Result<(), Rejection> {
        self.epoch(certificate.epoch)?;
        ensure(certificate.height > 0, "certificate", "genesis needs none")?;
        if self.known.is_known_certificate(certificate) {
            return Ok(());
        }
        let against = (self.configuration.cluster(), self.configuration.members(), self.verifier);
        match certificate.verify(against.0, against.1, against.2) {
            Err(error) if !passes(certificate, against, &error) => Err(Rejection::Certificate(error)),
            _ => Ok(()),
        }
    }

    fn vote(&self, from: ReplicaIndex, vote: &Vote) -> Result<(), Rejection> {
        self.epoch(vote.epoch)?;
        ensure(vote.height > 0, "vote", "genesis is not voted on")?;
        if vote.replica == from {
            return Ok(());
        }
        self.signature(vote.replica, &vote.statement(*self.configuration.cluster()), &vote.signature)
    }

    fn resign(&self, resign: &Resign) -> Result<(), Rejection> {
        self.epoch(resign.epoch)?;
        let statement = Resign::statement(*self.configuration.cluster(), resign.epoch, resign.view);
        self.signature(self.configuration.leader(resign.view), &statement, &resign.signature)
    }

    fn pre_prepare(&self, message: &PrePrepare) -> Result<Hash, Rejection> {
        const WHAT: &str = "PRE-PREPARE";
        self.epoch(message.epoch)?;
        ensure(message.height > 0, WHAT, "genesis is not proposed")?;
        let proposal = &message.proposal;
        let operations = usize::try_from(proposal.operation_count()).unwrap_or(usize::MAX);
        ensure(operations <= OPERATIONS_PER_PROPOSAL_MAX, WHAT, "too many operations")?;
        ensure(length_of(proposal) <= PROPOSAL_BYTES_MAX, WHAT, "too many bytes")?;
        let cluster = *self.configuration.cluster();
        let digest = proposal.digest(&cluster, message.epoch, message.height);
        let statement = PrePrepare::statement(cluster, message.epoch, message.view, message.height, digest);
        self.signature(self.configuration.leader(message.view), &statement, &message.signature)?;
        for (index, envelope) in proposal.envelopes.iter().enumerate() {
            if broken(Mutant::EnvelopesUnchecked) {
                break;
            }
            self.envelope(index, envelope)?;
        }
        Ok(digest)
    }

    fn proposed(&self, statement: &ProposalStatement) -> Result<(), Rejection> {
        let ProposalStatement { epoch, view, height, signed } = *statement;
        self.epoch(epoch)?;
        ensure(height > 0, "statement of a proposal", "genesis is not proposed")?;
        let cluster = *self.configuration.cluster();
        let signature = PrePrepare::statement(cluster, epoch, view, height, signed.digest);
        self.signature(self.configuration.leader(view), &signature, &signed.signature)
    }

    fn envelope(&self, index: usize, envelope: &Envelope) -> Result<Hash, Rejection> {
        const WHAT: &str = "envelope";
        ensure(envelope.body.cluster == *self.configuration.cluster(), WHAT, "of another cluster")?;
        ensure(!envelope.body.operations.is_empty(), WHAT, "no operations")?;
        let over = envelope.body.first.checked_add(envelope.body.operations.len() as u64).is_none();
        ensure(!over, WHAT, "the sequence numbers run over")?;
        ensure(length_of(envelope) <= ENVELOPE_BYTES_MAX, WHAT, "too many bytes")?;
        // What was verified before was also hashed before.
        if let Some(digest) = self.known.digest_of_known(envelope) {
            return Ok(digest);
        }
        let digest = envelope.body.digest();
        let statement = envelope.body.statement_of(digest);
        self.verifier
            .verify(&envelope.body.key, &statement, &envelope.signature)
            .map_err(|error| Rejection::Envelope { index, error })?;
        Ok(digest)
    }

    /// The signature of a claim for `view`, and what needs no certificate to be checked.
    fn claim(&self, claim: &SignedClaim, view: View) -> Result<(), Rejection> {
        const WHAT: &str = "claim";
        let body = &claim.body;
        self.epoch(body.epoch)?;
        ensure(body.view == view && view > 0, WHAT, "of another view")?;
        ensure(body.rank.view < view, WHAT, "rank of a view that it does not precede")?;
        // The committed height may be above the claim's: a base releases COMMITs of the heights below it, so
        // a commit certificate of a later view and a lower height outranks one of an earlier view.
        if body.rank.height == 0 {
            let genesis = body.rank == Rank::default() && body.header == self.configuration.genesis_hash();
            ensure(genesis, WHAT, "height 0 is that of genesis only")?;
        }
        self.signature(body.replica, &body.statement(*self.configuration.cluster()), &claim.signature)
    }

    fn view_change(&self, message: &ViewChange) -> Result<(), Rejection> {
        const WHAT: &str = "VIEW-CHANGE";
        let body = &message.claim.body;
        match &message.certificate {
            None => ensure(body.rank.height == 0, WHAT, "a claim needs its certificate")?,
            Some(certificate) => {
                let matches = rank(certificate) == body.rank && certificate.header_hash == body.header;
                ensure(matches, WHAT, "certificate of another claim")?;
            }
        }
        self.claim(&message.claim, body.view)?;
        if broken(Mutant::ClaimUncertified) {
            return Ok(());
        }
        message.certificate.as_ref().map_or(Ok(()), |certificate| self.certificate(certificate))
    }

    fn new_view(&self, message: &NewView) -> Result<(), Rejection> {
        const WHAT: &str = "NEW-VIEW";
        self.epoch(message.epoch)?;
        let claims = &message.claims;
        let quorum = less(Mutant::NewViewQuorumLess, self.configuration.quorum());
        ensure(claims.len() >= quorum, WHAT, "fewer claims than a quorum")?;
        let ascending = claims.windows(2).all(|pair| match pair {
            [low, high] => low.body.replica < high.body.replica,
            _ => true,
        });
        ensure(ascending, WHAT, "claims not in ascending order of distinct replicas")?;
        let base = message.base.as_ref().map_or(Rank::default(), rank);
        ensure(base.view < message.view, WHAT, "base of a view that it does not precede")?;
        let covers = claims.iter().all(|claim| claim.body.rank <= base) || broken(Mutant::BaseUnchecked);
        ensure(covers, WHAT, "a claim above the base")?;
        let cluster = *self.configuration.cluster();
        let statement = NewView::statement(cluster, message.epoch, message.view, claims, &message.base);
        self.signature(self.configuration.leader(message.view), &statement, &message.signature)?;
        if !broken(Mutant::ClaimsUnchecked) {
            claims.iter().try_for_each(|claim| self.claim(claim, message.view))?;
        }
        message.base.as_ref().map_or(Ok(()), |certificate| self.certificate(certificate))
    }

    /// Header, proposal and their connection, without a signature.
    fn batch(&self, batch: &Batch) -> Result<(), Rejection> {
        const WHAT: &str = "batch";
        let Batch { header, proposal } = batch;
        self.epoch(header.epoch)?;
        ensure(header.height > 0, WHAT, "genesis is not fetched")?;
        ensure(header.cluster == *self.configuration.cluster(), WHAT, "of another cluster")?;
        ensure(header.time == proposal.time, WHAT, "time differs from the header's")?;
        let digest = proposal.digest(self.configuration.cluster(), header.epoch, header.height);
        ensure(
            digest == header.proposal || broken(Mutant::BatchUnchecked),
            WHAT,
            "not the proposal that the header names",
        )
    }

    /// Descending, each the parent of the one before it. Whether anybody certified the first one is for
    /// the asker to know, who asked for its hash.
    fn batches(&self, batches: &[Batch]) -> Result<(), Rejection> {
        const WHAT: &str = "batches";
        batches.iter().try_for_each(|batch| self.batch(batch))?;
        let linked = batches.windows(2).all(|pair| match pair {
            [child, parent] => {
                child.header.previous == parent.header.hash()
                    && child.proposal.parent == parent.header.proposal
                    && parent.header.height.checked_add(1) == Some(child.header.height)
            }
            _ => true,
        });
        ensure(linked, WHAT, "not a descending chain")
    }

    /// Consecutive, ascending, each certified (hazard ST5).
    fn committed(&self, batches: &[CommittedBatch]) -> Result<(), Rejection> {
        const WHAT: &str = "committed heights";
        for entry in batches {
            let (header, certificate) = (&entry.batch.header, &entry.certificate);
            let commit = certificate.kind == quorate_crypto::CertificateKind::Commit;
            ensure(commit, WHAT, "certificate of another kind")?;
            let same = certificate.height == header.height && certificate.header_hash == header.hash();
            ensure(same || broken(Mutant::CommittedUnchecked), WHAT, "certificate of another header")?;
            self.batch(&entry.batch)?;
        }
        let linked = batches.windows(2).all(|pair| match pair {
            [parent, child] => {
                let (parent, child) = (&parent.batch, &child.batch);
                child.header.previous == parent.header.hash()
                    && child.proposal.parent == parent.header.proposal
                    && parent.header.height.checked_add(1) == Some(child.header.height)
            }
            _ => true,
        });
        ensure(linked, WHAT, "not an ascending chain")?;
        batches.iter().try_for_each(|entry| self.certificate(&entry.certificate))
    }
}

/// The rank of a certificate.
pub(crate) const fn rank(certificate: &Certificate) -> Rank {
    Rank { view: certificate.view, height: certificate.height }
}

/// Encoded bytes.
fn length_of<T: borsh::BorshSerialize>(value: &T) -> usize {
    borsh::object_length(value).unwrap_or(usize::MAX)
}
