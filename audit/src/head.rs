//! A head: a header with what vouches for it, a commit certificate or, for height 0, the genesis; and heads that
//! cannot both be of one history.
//!
//! Invariants: a header is believed only under a certificate of exactly its height and hash, with a quorum of valid
//! signatures of members, or when it is the one that the genesis makes. Two heads that conflict are both certified:
//! more than f replicas are faulty, or a correct one has lost what it signed. The format of a file is in
//! `docs/SPEC/audit.md`, section 8.

use std::collections::BTreeMap;
use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Certificate, CertificateError, CertificateKind, Hash, Verifier};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Genesis, Header, Height, ReplicaIndex};

use crate::evidence::genesis_header;

/// Why nothing vouches for a header. The fault of whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHead {
    /// The genesis that is trusted is none.
    #[error("the genesis is refused: {0}")]
    Genesis(String),
    /// There is no certificate, and the header is not the genesis.
    #[error("the header of height {0} has no certificate")]
    Uncertified(u64),
    /// The certificate is of another header, or only says that it was prepared.
    #[error("the certificate is not a commit certificate of this header")]
    OtherHeader,
    /// The certificate does not hold.
    #[error("the certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
}

/// Checks that a header of the genesis' cluster is committed, and returns its hash.
///
/// # Errors
/// [`NoHead`], the first thing that does not hold.
pub fn check_head(
    header: &Header,
    certificate: Option<&Certificate>,
    genesis: &Genesis,
    verifier: &dyn Verifier,
) -> Result<Hash, NoHead> {
    let hash = header.hash();
    let Some(certificate) = certificate else {
        let first = genesis_header(genesis).map_err(|error| NoHead::Genesis(error.to_string()))?;
        return if *header == first { Ok(hash) } else { Err(NoHead::Uncertified(header.height)) };
    };
    let named = (certificate.kind, certificate.height, certificate.header_hash);
    if named != (CertificateKind::Commit, header.height, hash) {
        return Err(NoHead::OtherHeader);
    }
    certificate.verify(&genesis.cluster(), &genesis.members, verifier)?;
    Ok(hash)
}

/// A header with what vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// The header.
    pub header: Header,
    /// Its commit certificate; `None` for the genesis header.
    pub certificate: Option<Certificate>,
}

impl Head {
    /// The head that a committed height makes.
    #[must_use]
    pub fn of(committed: &CommittedBatch) -> Self {
        Self { header: committed.batch.header.clone(), certificate: Some(committed.certificate.clone()) }
    }

    /// As [`check_head`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, genesis: &Genesis, verifier: &dyn Verifier) -> Result<Hash, NoHead> {
        check_head(&self.header, self.certificate.as_ref(), genesis, verifier)
    }

    /// Whose COMMITs vouch for it; nobody's for the genesis.
    #[must_use]
    pub fn signers(&self) -> Vec<ReplicaIndex> {
        let certificate = self.certificate.iter();
        certificate.flat_map(|certificate| certificate.votes().map(|(index, _)| index)).collect()
    }
}

impl fmt::Display for Head {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "height {}, header {}", self.header.height, self.header.hash())?;
        match &self.certificate {
            None => write!(formatter, ", the genesis"),
            Some(certificate) => {
                let signers: Vec<String> = self.signers().iter().map(ToString::to_string).collect();
                write!(
                    formatter,
                    ", certified in view {} by replicas {}",
                    certificate.view,
                    signers.join(", ")
                )
            }
        }
    }
}

/// Two certified heads of which one history cannot hold both: they differ at one height, or the higher one, of the
/// height above, does not follow the lower one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two certified headers that are not of one history: {lower}; and {higher}")]
pub struct Fork {
    /// The lower one, or the one that was known first.
    pub lower: Box<Head>,
    /// The other one.
    pub higher: Box<Head>,
}

impl Fork {
    /// Who signed both: more than f replicas when they are of one height.
    #[must_use]
    pub fn signed_both(&self) -> Vec<ReplicaIndex> {
        let other = self.higher.signers();
        self.lower.signers().into_iter().filter(|signer| other.contains(signer)).collect()
    }
}

/// Why a head does not fit what is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Nothing vouches for it: the fault of whoever shows it.
    #[error(transparent)]
    NoHead(#[from] NoHead),
    /// It is certified, and so is what it contradicts.
    #[error(transparent)]
    Fork(#[from] Fork),
}

/// Certified heads, by height: none of them conflicts with another one, as far as their hashes show.
pub struct Heads<'a> {
    genesis: &'a Genesis,
    verifier: &'a dyn Verifier,
    known: BTreeMap<Height, Head>,
}

impl<'a> Heads<'a> {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(genesis: &'a Genesis, verifier: &'a dyn Verifier) -> Self {
        Self { genesis, verifier, known: BTreeMap::new() }
    }

    /// Takes a head once it is checked: against what vouches for it, against the head that is known of its height,
    /// and against those of the heights next to it.
    ///
    /// # Errors
    /// [`HeadFault`]; what was known stays.
    pub fn add(&mut self, head: &Head) -> Result<(), HeadFault> {
        let height = head.header.height;
        let hash = head.check(self.genesis, self.verifier)?;
        let fork = |lower: &Head, higher: &Head| {
            let [lower, higher] = [lower, higher].map(|head| Box::new(head.clone()));
            HeadFault::Fork(Fork { lower, higher })
        };
        if let Some(known) = self.known.get(&height) {
            return if known.header.hash() == hash { Ok(()) } else { Err(fork(known, head)) };
        }
        let below = height.checked_sub(1).and_then(|below| self.known.get(&below));
        if let Some(below) = below.filter(|below| below.header.hash() != head.header.previous) {
            return Err(fork(below, head));
        }
        let above = height.checked_add(1).and_then(|above| self.known.get(&above));
        if let Some(above) = above.filter(|above| above.header.previous != hash) {
            return Err(fork(head, above));
        }
        self.known.insert(height, head.clone());
        Ok(())
    }

    /// The lowest one.
    #[must_use]
    pub fn lowest(&self) -> Option<&Head> {
        self.known.first_key_value().map(|(_, head)| head)
    }

    /// The highest one.
    #[must_use]
    pub fn highest(&self) -> Option<&Head> {
        self.known.last_key_value().map(|(_, head)| head)
    }

    /// The lowest height above `from` of which no head is known, and below which all from `from` on are; `None` when
    /// all up to the highest are known: then they lie on one chain.
    #[must_use]
    pub fn gap_above(&self, from: Height) -> Option<Height> {
        let top = self.highest()?.header.height;
        let mut height = from;
        while height < top {
            height = height.checked_add(1)?;
            if !self.known.contains_key(&height) {
                return Some(height);
            }
        }
        None
    }
}
