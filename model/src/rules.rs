//! What is checked: bounds, the durability rule, and the rule that a mutant breaks.
//!
//! Invariant: a configuration without a mutant follows docs/ARCHITECTURE.md and allows at least what a
//! correct replica may do; each mutant breaks one rule and nothing else.

/// When a replica's records are synced.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before PREPARE and before COMMIT. A replica that restarts knows all its votes; the model lets it go
    /// on in its view, though replicas do not.
    TwoSyncs,
    /// Before COMMIT only. A replica that restarts has forgotten its PREPAREs and sends none in its view.
    OneSync,
}

/// A rule broken on purpose.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// M1: the heights up to the base are PREPAREd upward again instead of the base first.
    UpwardAgain,
    /// M2: a replica that restarted PREPAREs in its view again, and does not know what it PREPAREd before.
    /// With two syncs: PREPARE leaves before it is synced.
    PreparesAgain,
    /// M3: a commit certificate takes a replica back to a view for whose successor it sent VIEW-CHANGE.
    PulledBack,
    /// Certificates and NEW-VIEW need one replica less than a quorum.
    SmallerQuorum,
    /// COMMIT leaves before the prepare certificate is synced.
    CommitBeforeSync,
    /// VIEW-CHANGE leaves before it is synced.
    ViewChangeBeforeSync,
    /// VIEW-CHANGE claims nothing.
    ClaimDropped,
    /// COMMITs of different views are added up for one certificate.
    ViewsCombined,
}

/// A model to explore: the rules and how far.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a few words.
    pub about: &'static str,
    /// The durability rule.
    pub durability: Durability,
    /// The broken rule, if any.
    pub mutant: Option<Mutant>,
    /// Views, from 0 on.
    pub views: u8,
    /// Heights, from 1 on, with two possible headers on each parent.
    pub heights: u8,
    /// Crashes with restart, over all correct replicas.
    pub crashes: u8,
    /// Whether correct replicas learn commit certificates, raise their claims by them and lose that again.
    /// Without it nobody but clients ever sees one, which allows everything that matters (docs/MODEL.md).
    pub adoption: bool,
    /// Without the reductions of headers' names, low claims and low certificates: slower, and to the same
    /// verdict.
    pub plain: bool,
}

impl Configuration {
    /// Votes or claims of correct replicas that, with those of the Byzantine one, make a certificate or a
    /// NEW-VIEW: Q - f of n - f.
    #[must_use]
    pub fn needed(&self) -> usize {
        if self.is(Mutant::SmallerQuorum) { 1 } else { 2 }
    }

    /// Whether this rule is broken.
    #[must_use]
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}
