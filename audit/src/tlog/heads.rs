//! The keys of a cluster's log, and heads under signatures of a quorum of its replicas.
//!
//! Invariants: all replicas sign notes under the log's one origin name and cosignatures under a name of their
//! own; a head holds if Q replicas signed it in both ways, and one line that names a known key and does not hold
//! spoils the note.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::{Hash, Member, MemberSet, NodeSeed, Role, SecretKey, Signature};
use quorate_protocol::ReplicaIndex;
use quorate_protocol::evidence::{Proof, SignedDigest};
use quorate_protocol::log_head::{LogHead, SignedLogHead};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::{KeyKind, NoteError, NoteSignature, SignedNote, VerifierKey, cosigned_message};
use super::policy::{PolicyGroup, TrustPolicy};
use super::{cosigner_name, origin};

/// Two keys of a cluster have one name and one id, so that a signature line could be of either. By chance once in
/// some hundred million clusters; such a log cannot be shown in these formats.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two log keys of this cluster have one key id")]
pub struct KeyCollision;

/// Why a note is no head of the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is no note, or a signature of a known key does not hold.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It is of another log.
    #[error("the checkpoint is of another log")]
    Origin,
    /// Too few replicas signed.
    #[error("{notes} replicas signed it and {cosignatures} cosigned it, {needed} must")]
    TooFew {
        /// Replicas with a note signature.
        notes: usize,
        /// Replicas with a cosignature.
        cosignatures: usize,
        /// Q.
        needed: usize,
    },
}

/// A head that a quorum stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHead {
    /// The head.
    pub head: LogHead,
    /// The replicas with a note signature.
    pub notes: BTreeSet<ReplicaIndex>,
    /// The replicas with a cosignature.
    pub cosignatures: BTreeSet<ReplicaIndex>,
}

/// Signs heads under the two keys of one replica.
#[derive(Clone, Debug)]
pub struct HeadSigner {
    origin: String,
    note: SecretKey,
    cosignature: SecretKey,
}

impl HeadSigner {
    /// The signer of the replica with this seed.
    #[must_use]
    pub fn new(cluster: &Hash, seed: &NodeSeed) -> Self {
        let (note, cosignature) = (seed.derive(Role::LogNote), seed.derive(Role::LogCosignature));
        Self { origin: origin(cluster), note, cosignature }
    }

    /// Signs a head at a time, in seconds since 1970. Whoever calls has made durable what rule R6 asks for.
    ///
    /// # Errors
    /// [`NoteError::Signature`] for a time that no cosignature may name.
    pub fn sign(&self, head: LogHead, time: u64) -> Result<SignedLogHead, NoteError> {
        let text = Checkpoint { origin: self.origin.clone(), head }.to_string();
        let message = cosigned_message(time, &text).ok_or(NoteError::Signature)?;
        let note = self.note.sign_bytes(text.as_bytes());
        let cosignature = self.cosignature.sign_bytes(message.as_bytes());
        Ok(SignedLogHead { head, note, time, cosignature })
    }
}

/// The public keys of a cluster's log.
#[derive(Clone, Debug)]
pub struct LogKeys {
    origin: String,
    quorum: usize,
    /// Of each replica its note key and its cosignature key.
    replicas: Vec<(VerifierKey, VerifierKey)>,
}

impl LogKeys {
    /// The keys of these members.
    ///
    /// # Errors
    /// [`KeyCollision`].
    pub fn new(cluster: &Hash, members: &MemberSet) -> Result<Self, KeyCollision> {
        let origin = origin(cluster);
        let mut seen = BTreeSet::new();
        let mut replicas = Vec::with_capacity(members.n());
        for (index, member) in members.indices().zip(members.members()) {
            let (note, cosignature) = member_keys(cluster, index, member).map_err(|_| KeyCollision)?;
            for key in [&note, &cosignature] {
                if !seen.insert((key.name().to_owned(), key.id())) {
                    return Err(KeyCollision);
                }
            }
            replicas.push((note, cosignature));
        }
        Ok(Self { origin, quorum: members.quorum(), replicas })
    }

    /// The origin line, and the name of all note keys.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Q: how many must sign.
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// Note key and cosignature key of each replica, in order.
    #[must_use]
    pub fn replicas(&self) -> &[(VerifierKey, VerifierKey)] {
        &self.replicas
    }

    /// The policy by which others may check this log: signed by any replica, and cosigned by Q of them.
    #[must_use]
    pub fn policy(&self) -> TrustPolicy {
        let names = (0..self.replicas.len()).map(|index| format!("replica-{index}"));
        let group = "replicas".to_owned();
        TrustPolicy {
            logs: self.replicas.iter().map(|(note, _)| note.clone()).collect(),
            witnesses: names.clone().zip(self.replicas.iter().map(|(_, key)| key.clone())).collect(),
            groups: vec![PolicyGroup { name: group.clone(), needed: self.quorum, members: names.collect() }],
            quorum: Some(group),
        }
    }

    /// The text over which a head is signed.
    #[must_use]
    pub fn text(&self, head: LogHead) -> String {
        Checkpoint { origin: self.origin.clone(), head }.to_string()
    }

    /// The two lines of a replica's signatures, which [`LogKeys::holds`] for.
    fn lines(&self, replica: ReplicaIndex, signed: &SignedLogHead) -> Option<[NoteSignature; 2]> {
        let (note, cosignature) = self.replicas.get(usize::from(replica))?;
        Some([note.note_line(&signed.note), cosignature.cosignature_line(signed.time, &signed.cosignature)])
    }

    /// Whether both signatures of a replica on a head hold.
    #[must_use]
    pub fn holds(&self, replica: ReplicaIndex, signed: &SignedLogHead) -> bool {
        let text = self.text(signed.head);
        let (Some((note, cosignature)), Some([signed, cosigned])) =
            (self.replicas.get(usize::from(replica)), self.lines(replica, signed))
        else {
            return false;
        };
        note.verify(&text, &signed).is_ok() && cosignature.verify(&text, &cosigned).is_ok()
    }

    /// The note of a head under the signatures of these replicas; first the notes of all, then the cosignatures.
    /// Signatures of other heads and of strangers are left out.
    #[must_use]
    pub fn note(&self, head: LogHead, signed: &[(ReplicaIndex, SignedLogHead)]) -> SignedNote {
        let of_head = signed.iter().filter(|(_, signed)| signed.head == head);
        let lines: Vec<_> = of_head.filter_map(|(replica, signed)| self.lines(*replica, signed)).collect();
        let notes = lines.iter().map(|[note, _]| note.clone());
        let cosignatures = lines.iter().map(|[_, cosignature]| cosignature.clone());
        SignedNote { text: self.text(head), signatures: notes.chain(cosignatures).collect() }
    }

    /// The replicas of which both notes hold a signature, for one size and two roots, and what proves it. Signatures
    /// that do not hold, and cosignatures, prove nothing here.
    ///
    /// # Errors
    /// [`HeadError`] when one of the two is no checkpoint of this log.
    pub fn conflicts(
        &self,
        one: &SignedNote,
        other: &SignedNote,
    ) -> Result<Vec<(ReplicaIndex, Proof)>, HeadError> {
        let (one, other) = (self.signed_heads(one)?, self.signed_heads(other)?);
        let pairs = one.iter().filter_map(|(replica, (head, signature))| {
            let proof = conflict((*head, *signature), *other.get(replica)?)?;
            Some((*replica, proof))
        });
        Ok(pairs.collect())
    }

    /// The head of a note with the note signatures of replicas that hold.
    fn signed_heads(
        &self,
        note: &SignedNote,
    ) -> Result<BTreeMap<ReplicaIndex, (LogHead, Signature)>, HeadError> {
        let Checkpoint { origin, head } = Checkpoint::parse(&note.text)?;
        if origin != self.origin {
            return Err(HeadError::Origin);
        }
        let mut signed = BTreeMap::new();
        for (index, (key, _)) in (0..=u8::MAX).zip(&self.replicas) {
            let lines = note.signatures.iter().filter(|line| key.is_named_by(line));
            let holds = lines.filter(|line| key.verify(&note.text, line).is_ok());
            if let Some(bytes) = holds.filter_map(|line| line.bytes.as_slice().try_into().ok()).next() {
                signed.insert(index, (head, Signature(bytes)));
            }
        }
        Ok(signed)
    }

    /// The head of a note that Q replicas signed and cosigned. Lines of keys that are not of this cluster are passed
    /// over, as the format demands.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn check(&self, note: &SignedNote) -> Result<CheckedHead, HeadError> {
        let Checkpoint { origin, head } = Checkpoint::parse(&note.text)?;
        if origin != self.origin {
            return Err(HeadError::Origin);
        }
        let (mut notes, mut cosignatures) = (BTreeSet::new(), BTreeSet::new());
        for line in &note.signatures {
            for (index, keys) in (0..=u8::MAX).zip(&self.replicas) {
                for (key, signers) in [(&keys.0, &mut notes), (&keys.1, &mut cosignatures)] {
                    if key.is_named_by(line) {
                        key.verify(&note.text, line)?;
                        signers.insert(index);
                    }
                }
            }
        }
        let needed = self.quorum;
        if notes.len() < needed || cosignatures.len() < needed {
            let (notes, cosignatures) = (notes.len(), cosignatures.len());
            return Err(HeadError::TooFew { notes, cosignatures, needed });
        }
        Ok(CheckedHead { head, notes, cosignatures })
    }
}

/// What two heads with note signatures of one replica prove, if they are of one size with different roots.
#[must_use]
pub fn conflict(one: (LogHead, Signature), other: (LogHead, Signature)) -> Option<Proof> {
    let side = |(head, signature): (LogHead, Signature)| SignedDigest { digest: head.root, signature };
    let conflicting = one.0.size == other.0.size && one.0.root != other.0.root;
    conflicting.then(|| Proof::conflicting_head(one.0.size, side(one), side(other)))
}

/// The two log keys of a member under their names.
fn member_keys(
    cluster: &Hash,
    index: ReplicaIndex,
    member: &Member,
) -> Result<(VerifierKey, VerifierKey), NoteError> {
    let note = VerifierKey::new(&origin(cluster), KeyKind::Note, member.log_note)?;
    let name = cosigner_name(cluster, index);
    Ok((note, VerifierKey::new(&name, KeyKind::Cosignature, member.log_cosignature)?))
}
