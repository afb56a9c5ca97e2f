//! A state of the model: what the three correct replicas remember, and all that they ever signed and that
//! can still matter.
//!
//! Invariants: votes are signed statements that stay; whoever wants one has it at any time, and the fourth
//! replica has signed whatever anybody needs. A certificate or a NEW-VIEW therefore exists as soon as
//! [`Configuration::needed`] correct replicas have signed their part. Views are explored in order: votes of
//! view v need nothing from later views, so each run has a reordering in which all of v comes before v + 1.

use crate::header::{self, GENESIS, Header, Headers, Renaming};
use crate::rules::{Configuration, Mutant};

/// Correct replicas: n - f of n = 4, f = 1.
pub const CORRECT: usize = 3;
/// Most views within the bounds.
pub const VIEWS_MAX: usize = 6;

/// A rank, by view, then height: 8 * view + height; 0 is genesis.
pub type Rank = u8;

/// The rank of a certificate.
#[must_use]
pub const fn rank(view: u8, header: Header) -> Rank {
    8 * view + header::height(header)
}

/// A correct replica.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// Headers for which it signed PREPARE in this view.
    pub prepares: Headers,
    /// Headers for which it signed COMMIT in this view.
    pub commits: Headers,
    /// The header of its last PREPARE in this view that it knows of; genesis if none.
    pub top: Header,
    /// It restarted in this view and sends no PREPARE in it.
    pub mute: bool,
    /// It left this view already: its VIEW-CHANGE for the next one, with this claim, is out. Used by
    /// mutants only; otherwise leaving and the next view's beginning are one.
    pub early: Option<Rank>,
    /// Whether it is back in this view after that.
    pub back: bool,
    /// Rank of its claim.
    pub claim: Rank,
    /// Rank of its claim after a crash.
    pub synced_claim: Rank,
    /// The highest header that it knows to be committed.
    pub tip: Header,
    /// The same after a crash.
    pub synced_tip: Header,
    /// The base up to which it is PREPAREing upward (the mutant that does so).
    pub goal: Header,
    /// Headers for which it signed COMMIT in earlier views (the mutant that adds them up).
    pub earlier: Headers,
}

/// All replicas, and what of earlier views can still matter.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The view being explored.
    pub view: u8,
    /// Crashes that may still happen.
    pub crashes: u8,
    /// Bases that a valid NEW-VIEW of this view can have, genesis included.
    pub bases: Headers,
    /// Headers with a commit certificate, of any view before this one.
    pub done: Headers,
    /// By earlier view: headers with a certificate that may still become a base.
    pub certified: [Headers; VIEWS_MAX],
    /// By earlier view: headers with a commit certificate that a replica may learn.
    pub decided: [Headers; VIEWS_MAX],
    /// The correct replicas; which is which makes no difference.
    pub replicas: [Replica; CORRECT],
}

impl State {
    /// The beginning.
    #[must_use]
    pub fn initial(configuration: &Configuration) -> Self {
        Self { crashes: configuration.crashes, bases: header::bit(GENESIS), ..Self::default() }
    }

    /// Headers that at least `needed` replicas have in the set that `of` names.
    fn shared(&self, needed: usize, of: impl Fn(&Replica) -> Headers) -> Headers {
        let [a, b, c] = self.replicas.each_ref().map(of);
        if needed == 1 { a | b | c } else { a & b | a & c | b & c }
    }

    /// Headers with a prepare certificate of this view.
    #[must_use]
    pub fn prepared(&self, configuration: &Configuration) -> Headers {
        self.shared(configuration.needed(), |replica| replica.prepares)
    }

    /// Headers with a commit certificate of this view.
    #[must_use]
    pub fn committed(&self, configuration: &Configuration) -> Headers {
        self.shared(configuration.needed(), |replica| replica.commits)
    }

    /// Headers with a commit certificate of any view.
    #[must_use]
    pub fn final_headers(&self, configuration: &Configuration) -> Headers {
        let mut all = self.done | self.committed(configuration);
        if configuration.is(Mutant::ViewsCombined) {
            all |= self.shared(configuration.needed(), |replica| replica.commits | replica.earlier);
        }
        all
    }

    /// The two headers that are committed at one height, if there are any.
    #[must_use]
    pub fn fork(&self, configuration: &Configuration) -> Option<(Header, Header)> {
        let all = self.final_headers(configuration);
        (1..=configuration.heights).find_map(|height| {
            let mut both = header::members(all & header::at(height));
            Some((both.next()?, both.next()?))
        })
    }

    /// Headers that anything in this state refers to, with their ancestors.
    #[must_use]
    pub fn named(&self) -> Headers {
        let mut set = self.bases | self.done;
        set |= self.certified.iter().chain(&self.decided).fold(0, |all, some| all | some);
        for replica in &self.replicas {
            set |= replica.prepares | replica.commits | replica.earlier | header::bit(replica.tip);
        }
        header::closure(set)
    }

    /// With replicas in one order, whichever is which.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.replicas.sort_unstable();
        self
    }

    /// With other names for headers. Only between views, when replicas have no votes of the view.
    #[must_use]
    pub fn renamed(mut self, renaming: &Renaming) -> Self {
        let rename = |set: &mut Headers| *set = header::rename(*set, renaming);
        rename(&mut self.bases);
        rename(&mut self.done);
        self.certified.iter_mut().chain(&mut self.decided).for_each(rename);
        for replica in &mut self.replicas {
            rename(&mut replica.earlier);
            replica.tip = renaming[replica.tip as usize];
            replica.synced_tip = renaming[replica.synced_tip as usize];
        }
        self
    }

    /// A fingerprint of the sorted state.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fold(0x243f_6a88_85a3_08d3);
        hash.add(
            u64::from(self.view)
                | u64::from(self.crashes) << 8
                | u64::from(self.bases) << 16
                | u64::from(self.done) << 32,
        );
        for four in [&self.certified[..3], &self.certified[3..], &self.decided[..3], &self.decided[3..]] {
            hash.add(four.iter().fold(0, |word, set| word << 16 | u64::from(*set)));
        }
        for replica in &self.sorted().replicas {
            let flags = u8::from(replica.mute) | u8::from(replica.back) << 1;
            hash.add(
                u64::from(replica.prepares)
                    | u64::from(replica.commits) << 16
                    | u64::from(replica.earlier) << 32
                    | u64::from(replica.top) << 48
                    | u64::from(flags) << 56,
            );
            let ranks = [replica.claim, replica.synced_claim, replica.early.map_or(u8::MAX, |early| early)];
            let headers = [replica.tip, replica.synced_tip, replica.goal];
            hash.add(ranks.iter().chain(&headers).fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        hash.0
    }
}

/// A hash over words: each is mixed in by a bijection of 64 bits.
struct Fold(u64);

impl Fold {
    fn add(&mut self, word: u64) {
        let mut mixed = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = mixed ^ mixed >> 31;
    }
}
