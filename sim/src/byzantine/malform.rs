//! Certificates that do not hold: every way in which one can be almost right (hazards VC3, VC15, AU8, CR6).
//!
//! Invariant: what comes out differs from what went in, and no change needs a key.

use quorate_crypto::{Bitmap, Bounded, Certificate, CertificateKind, Hash, Signature};

use crate::world::World;

impl World {
    /// The certificate with one small fault.
    pub(super) fn malformed_certificate(&mut self, certificate: &Certificate) -> Certificate {
        let n = self.genesis.members.n();
        let random = &mut self.byzantine_random;
        let mut bent = certificate.clone();
        let mut signatures = certificate.signatures.to_vec();
        match random.below(12) {
            0 => bent.height += 1,
            1 => bent.height = bent.height.saturating_sub(1),
            2 => bent.view += 1,
            3 => bent.view = bent.view.wrapping_sub(1),
            4 => bent.epoch += 1,
            5 => bent.header_hash = Hash([5; 32]),
            6 => {
                bent.kind = match bent.kind {
                    CertificateKind::Prepare => CertificateKind::Commit,
                    CertificateKind::Commit => CertificateKind::Prepare,
                }
            }
            // One vote fewer than a quorum, bitmap and all.
            7 => {
                signatures.pop();
                bent.signers = bitmap(n, certificate.signers.iter().take(signatures.len()));
            }
            8 => signatures.reverse(),
            9 => {
                let first = signatures[0];
                signatures.iter_mut().for_each(|signature| *signature = first);
            }
            10 => {
                let place = random.below(signatures.len() as u64) as usize;
                signatures[place] = Signature::ZERO;
            }
            // A signer whom the epoch does not have, by a spare bit or a longer map.
            _ => {
                let mut bytes = bent.signers.as_bytes().to_vec();
                if random.one_in(2) {
                    bytes.push(1);
                } else if let Some(last) = bytes.last_mut() {
                    *last |= 1 << 7;
                }
                bent.signers = Bitmap::from_bytes(&bytes).unwrap_or_else(|_| bitmap(n, [0]));
                signatures.push(Signature::ZERO);
            }
        }
        bent.signatures = Bounded::try_collect(signatures).unwrap_or_default();
        bent
    }
}

fn bitmap(n: usize, signers: impl IntoIterator<Item = u8>) -> Bitmap {
    let mut bitmap = Bitmap::empty(n);
    for signer in signers {
        let _ = bitmap.insert(signer);
    }
    bitmap
}
