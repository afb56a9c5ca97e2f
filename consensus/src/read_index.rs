//! The answer to the linearizable question (rule R4).
//!
//! Invariant: the answer is at or above every height for which this replica sent a COMMIT in its current
//! view, and at or above its last committed height, and carries the certificate of that height.

use quorate_crypto::Certificate;
use quorate_protocol::Height;

use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::Replica;

/// The highest height that may be committed as far as this replica knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// The height.
    pub height: Height,
    /// Its prepare or commit certificate; `None` only at height 0.
    pub certificate: Option<Certificate>,
}

impl Replica {
    /// Answers "the highest height you sent a COMMIT for".
    #[must_use]
    pub fn read_index(&self) -> ReadIndex {
        let last = self.decided.last_key_value().map(|(_, certificate)| certificate);
        let last = last.or(self.committed.certificate.as_ref());
        let above: [Option<&Certificate>; 2] = if broken(Mutant::ReadIndexLow) {
            [None, None]
        } else if self.view.entered {
            [self.view.base_certificate(), self.view.committed_on.as_ref()]
        } else {
            [self.claim.as_ref(), None]
        };
        // The last commit certificate comes first, so that it wins among equals.
        let highest = last
            .into_iter()
            .chain(above.into_iter().flatten())
            .reduce(|best, other| if other.height > best.height { other } else { best });
        ReadIndex {
            height: highest.map_or(0, |certificate| certificate.height),
            certificate: highest.cloned(),
        }
    }
}

impl Replica {
    /// A reader waits for the height of this certificate (rule R4): a pending request with the usual timers.
    pub(crate) fn on_await(&mut self, certificate: Certificate) {
        let height = certificate.height;
        self.learn(certificate);
        if height > self.committed.height && self.awaited.is_none_or(|(known, _)| known < height) {
            reached(Probe::ReaderWaits);
            let since = self.awaited.map_or(self.now, |(_, since)| since);
            self.awaited = Some((height, since));
        }
    }
}
