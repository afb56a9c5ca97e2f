//! What can happen next: the votes that the rules allow, crashes, and the beginning of the next view.
//!
//! Invariant: a correct replica may do here whatever rules R1 and R2 allow it on some schedule, with
//! whatever leader; what is left out either changes nothing or allows less (docs/MODEL.md says why).

use crate::header::{self, GENESIS, Header, Headers, Renaming};
use crate::rules::{Configuration, Durability, Mutant};
use crate::state::{CORRECT, Replica, State, VIEWS_MAX, rank};

/// One step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A replica signs PREPARE.
    Prepare {
        /// Who.
        replica: usize,
        /// For what.
        header: Header,
        /// The base on which it entered the view, if this is its first PREPARE there.
        base: Option<Header>,
    },
    /// A replica makes a prepare certificate of this view durable, and signs COMMIT for its header and all
    /// heights below.
    Commit {
        /// Who.
        replica: usize,
        /// The certificate's header.
        header: Header,
    },
    /// A replica learns a commit certificate.
    Adopt {
        /// Who.
        replica: usize,
        /// The certificate's view.
        view: u8,
        /// And header.
        header: Header,
    },
    /// A replica crashes and restarts.
    Crash {
        /// Who.
        replica: usize,
    },
    /// A replica sends VIEW-CHANGE for the next view (mutants that take it back).
    Leave {
        /// Who.
        replica: usize,
    },
    /// A commit certificate takes it back into this view (a mutant).
    Return {
        /// Who.
        replica: usize,
        /// The certificate's header.
        header: Header,
    },
    /// All have sent VIEW-CHANGE for the next view, which begins; headers may get other names.
    NextView,
}

/// A configuration, with what is computed once.
#[derive(Clone, Debug)]
pub struct Model {
    configuration: Configuration,
    renamings: Vec<Renaming>,
}

impl Model {
    /// The model of a configuration.
    ///
    /// # Panics
    /// If its bounds are beyond what states can hold.
    #[must_use]
    pub fn new(configuration: Configuration) -> Self {
        assert!((1..=header::HEIGHTS_MAX).contains(&configuration.heights), "heights out of bounds");
        assert!((1..=VIEWS_MAX).contains(&usize::from(configuration.views)), "views out of bounds");
        Self { configuration, renamings: header::renamings(configuration.heights) }
    }

    /// What it is a model of.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Calls `visit` with every step from a state, and where it leads.
    pub fn steps(&self, state: &State, mut visit: impl FnMut(Action, State)) {
        let prepared = state.prepared(&self.configuration);
        let committed = state.committed(&self.configuration);
        let fresh = self.fresh(state);
        for replica in 0..CORRECT {
            if state.replicas[replica].early.is_none() || state.replicas[replica].back {
                self.prepares(state, replica, prepared | committed, fresh, &mut visit);
                self.commits(state, replica, prepared, &mut visit);
            }
            self.adoptions(state, replica, committed, &mut visit);
            self.crash(state, replica, &mut visit);
            self.leaving(state, replica, committed, &mut visit);
        }
        if state.view + 1 < self.configuration.views {
            visit(Action::NextView, self.next_view(state).0);
        }
    }

    /// Headers that may be voted for. Of two children that nothing refers to yet, only the first: the other
    /// is the same with another name.
    fn fresh(&self, state: &State) -> Headers {
        let named = state.named();
        let plain = self.configuration.plain;
        let usable = |header: &Header| plain || header % 2 == 1 || named & header::bit(header - 1) != 0;
        (1..header::count(self.configuration.heights)).filter(usable).fold(0, |set, h| set | header::bit(h))
    }

    /// PREPARE: the base first, then ascending on a parent that was PREPAREd here or certified in this view.
    fn prepares(
        &self,
        state: &State,
        index: usize,
        certified: Headers,
        fresh: Headers,
        visit: &mut impl FnMut(Action, State),
    ) {
        let replica = &state.replicas[index];
        if replica.mute {
            return;
        }
        let mut sign = |header: Header, base: Option<Header>, goal: Header| {
            let mut next = *state;
            let changed = &mut next.replicas[index];
            changed.prepares |= header::bit(header);
            changed.top = header;
            changed.goal = if goal == header { GENESIS } else { goal };
            if self.configuration.durability == Durability::TwoSyncs {
                changed.synced_claim = changed.claim;
                changed.synced_tip = changed.tip;
            }
            visit(Action::Prepare { replica: index, header, base }, next);
        };
        let allowed =
            |header: Header| header::bit(header) & fresh != 0 && header::compatible(header, replica.tip);
        let rests = |header: Header| {
            let below = header::parent(header);
            header::bit(below) & certified != 0 || (below == replica.tip && below != GENESIS)
        };
        if replica.top != GENESIS {
            let above = |header: &Header| header::height(*header) > header::height(replica.top);
            let on_goal = |header: Header| {
                header::parent(header) == replica.top && header::precedes(header, replica.goal)
            };
            for header in (1..header::count(self.configuration.heights)).filter(above) {
                let follows = if replica.goal == GENESIS {
                    header::parent(header) == replica.top || rests(header)
                } else {
                    on_goal(header)
                };
                if follows && allowed(header) {
                    sign(header, None, replica.goal);
                }
            }
            return;
        }
        for base in header::members(state.bases) {
            if !header::compatible(base, replica.tip) {
                continue;
            }
            if base != GENESIS {
                if self.configuration.is(Mutant::UpwardAgain) {
                    for header in header::members(header::path(base)) {
                        sign(header, Some(base), base);
                    }
                } else {
                    sign(base, Some(base), GENESIS);
                }
            }
            // Nothing above a base that is neither PREPAREd nor known to be committed.
            if base == GENESIS || header::precedes(base, replica.tip) {
                let above = |header: &Header| header::height(*header) > header::height(base);
                for header in (1..header::count(self.configuration.heights)).filter(above) {
                    if (header::parent(header) == base || rests(header)) && allowed(header) {
                        sign(header, Some(base), GENESIS);
                    }
                }
            }
        }
    }

    /// COMMIT on a prepare certificate of this view, for all heights up to it.
    fn commits(&self, state: &State, index: usize, prepared: Headers, visit: &mut impl FnMut(Action, State)) {
        let replica = &state.replicas[index];
        for header in header::members(prepared) {
            if !header::compatible(header, replica.tip) {
                continue;
            }
            let mut next = *state;
            let changed = &mut next.replicas[index];
            for below in header::members(header::path(header)) {
                // One COMMIT for each height of a view.
                if replica.commits & header::at(header::height(below)) == 0 {
                    changed.commits |= header::bit(below);
                }
            }
            changed.claim = changed.claim.max(rank(state.view, header));
            if !self.configuration.is(Mutant::CommitBeforeSync) {
                changed.synced_claim = changed.claim;
                changed.synced_tip = changed.tip;
            }
            if next != *state {
                visit(Action::Commit { replica: index, header }, next);
            }
        }
    }

    /// Learning a commit certificate of this view or an earlier one. Nothing is synced for it.
    fn adoptions(
        &self,
        state: &State,
        index: usize,
        committed: Headers,
        visit: &mut impl FnMut(Action, State),
    ) {
        if !self.configuration.adoption {
            return;
        }
        for view in 0..=state.view {
            let known = if view == state.view { committed } else { state.decided[usize::from(view)] };
            for header in header::members(known) {
                let mut next = *state;
                let changed = &mut next.replicas[index];
                changed.claim = changed.claim.max(rank(view, header));
                if header::precedes(changed.tip, header) {
                    changed.tip = header;
                }
                if next != *state {
                    visit(Action::Adopt { replica: index, view, header }, next);
                }
            }
        }
    }

    /// A crash of a replica that has voted in this view. One that has not finds the view as if it had slept.
    fn crash(&self, state: &State, index: usize, visit: &mut impl FnMut(Action, State)) {
        let replica = &state.replicas[index];
        if state.crashes == 0 {
            return;
        }
        let mut next = *state;
        let changed = &mut next.replicas[index];
        changed.claim = replica.synced_claim;
        changed.tip = replica.synced_tip;
        let forgets = self.configuration.is(Mutant::PreparesAgain);
        let unsynced = self.configuration.durability == Durability::OneSync || forgets;
        if unsynced && replica.prepares | replica.commits != 0 {
            changed.top = GENESIS;
            changed.goal = GENESIS;
            changed.mute = !forgets;
        }
        if self.configuration.is(Mutant::ViewChangeBeforeSync) && changed.early.is_some() {
            changed.back = true;
        }
        if next != *state {
            next.crashes -= 1;
            visit(Action::Crash { replica: index }, next);
        }
    }

    /// Mutants: VIEW-CHANGE for the next view is out, and the replica comes back.
    fn leaving(
        &self,
        state: &State,
        index: usize,
        committed: Headers,
        visit: &mut impl FnMut(Action, State),
    ) {
        let replica = &state.replicas[index];
        let pulled = self.configuration.is(Mutant::PulledBack);
        let mutant = pulled || self.configuration.is(Mutant::ViewChangeBeforeSync);
        if !mutant || state.view + 1 >= self.configuration.views {
            return;
        }
        match replica.early {
            None => {
                let mut next = *state;
                next.replicas[index].early = Some(replica.claim);
                visit(Action::Leave { replica: index }, next);
            }
            Some(_) if pulled && !replica.back => {
                for header in header::members(committed) {
                    let mut next = *state;
                    let changed = &mut next.replicas[index];
                    changed.back = true;
                    changed.claim = changed.claim.max(rank(state.view, header));
                    changed.synced_claim = changed.claim;
                    visit(Action::Return { replica: index, header }, next);
                }
            }
            Some(_) => {}
        }
    }

    /// Everybody has sent VIEW-CHANGE with its claim; whatever certificate is at least as high as Q - f of
    /// those claims can be the base of the next view. Also returns how headers were renamed.
    #[must_use]
    pub fn next_view(&self, state: &State) -> (State, Renaming) {
        let configuration = &self.configuration;
        let (view, slot) = (state.view, usize::from(state.view));
        let committed = state.committed(configuration);
        let mut next = *state;
        next.view += 1;
        next.done |= committed;
        next.certified[slot] = state.prepared(configuration) | committed;
        if configuration.adoption {
            next.decided[slot] = committed;
        }
        let mut signed = state.replicas.map(|replica| replica.early.unwrap_or(replica.claim));
        if configuration.is(Mutant::ClaimDropped) {
            signed = [0; CORRECT];
        }
        signed.sort_unstable();
        // The Byzantine replica claims nothing, and NEW-VIEW holds the lowest claims that there are.
        let least = signed[configuration.needed() - 1];
        next.bases = if least == 0 { header::bit(GENESIS) } else { 0 };
        for earlier in 0..=view {
            let set = &mut next.certified[usize::from(earlier)];
            let enough = header::members(*set)
                .filter(|header| rank(earlier, *header) >= least)
                .fold(0, |kept, header| kept | header::bit(header));
            next.bases |= enough;
            if !configuration.plain {
                // Claims never shrink, so what is too low now stays too low.
                *set = enough;
            }
        }
        for replica in &mut next.replicas {
            let earlier =
                if configuration.is(Mutant::ViewsCombined) { replica.earlier | replica.commits } else { 0 };
            // A claim below `least` can no more decide than one that is equal to it.
            let claim = if configuration.plain { replica.claim } else { replica.claim.max(least) };
            let tip = replica.tip;
            *replica =
                Replica { claim, synced_claim: claim, tip, synced_tip: tip, earlier, ..Replica::default() };
        }
        if configuration.plain {
            return (next, self.renamings[0]);
        }
        self.renamings
            .iter()
            .map(|renaming| (next.renamed(renaming), *renaming))
            .min_by_key(|(renamed, _)| renamed.sorted())
            .unwrap_or((next, self.renamings[0]))
    }
}
