//! The configurations that are checked, and what each must come to.
//!
//! Invariant: every mutant of the rules is in the list at least once. The longest searches come first, so that
//! two at a time end together.

use crate::rules::Configuration;
use crate::rules::Durability::{OneSync, TwoSyncs};
use crate::rules::Mutant;

/// The rules as they are, with one sync, one view and one height: what the others start from.
const BASE: Configuration = Configuration {
    name: "",
    about: "",
    durability: OneSync,
    mutant: None,
    views: 1,
    heights: 1,
    crashes: 0,
    adoption: false,
    plain: false,
};

/// Configurations that must hold.
#[rustfmt::skip]
pub const GOOD: [Configuration; 11] = [
    Configuration { name: "one-learn-2x3", about: "one sync; replicas learn commit certificates", views: 3, heights: 2, crashes: 1, adoption: true, ..BASE },
    Configuration { name: "one-2x4", about: "one sync", views: 4, heights: 2, crashes: 2, ..BASE },
    Configuration { name: "two-learn-2x3", about: "two syncs; replicas learn commit certificates", durability: TwoSyncs, views: 3, heights: 2, crashes: 1, adoption: true, ..BASE },
    Configuration { name: "one-3x2", about: "one sync, three heights", views: 2, heights: 3, crashes: 2, ..BASE },
    Configuration { name: "two-2x5", about: "two syncs, many views", durability: TwoSyncs, views: 5, heights: 2, ..BASE },
    Configuration { name: "one-2x3", about: "one sync, many crashes", views: 3, heights: 2, crashes: 3, ..BASE },
    Configuration { name: "one-plain-2x2", about: "one sync, without reductions", views: 2, heights: 2, crashes: 1, plain: true, ..BASE },
    Configuration { name: "one-plain-1x4", about: "one sync, without reductions", views: 4, heights: 1, crashes: 2, adoption: true, plain: true, ..BASE },
    Configuration { name: "one-learn-1x4", about: "one sync; replicas learn commit certificates", views: 4, heights: 1, crashes: 3, adoption: true, ..BASE },
    Configuration { name: "two-learn-1x4", about: "two syncs; replicas learn commit certificates", durability: TwoSyncs, views: 4, heights: 1, crashes: 3, adoption: true, ..BASE },
    Configuration { name: "one-1x6", about: "one sync, very many views", views: 6, heights: 1, crashes: 3, ..BASE },
];

/// Mutants, each of which must fork.
#[rustfmt::skip]
pub const MUTANTS: [Configuration; 11] = [
    Configuration { name: "upward-again", about: "M1, Fork A: not the base first", mutant: Some(Mutant::UpwardAgain), views: 3, heights: 2, ..BASE },
    Configuration { name: "prepares-again", about: "M2: PREPARE again after a restart", mutant: Some(Mutant::PreparesAgain), views: 2, crashes: 1, ..BASE },
    Configuration { name: "pulled-back", about: "M3, Fork B: back after VIEW-CHANGE", mutant: Some(Mutant::PulledBack), views: 2, heights: 2, ..BASE },
    Configuration { name: "views-combined", about: "Fork C: COMMITs of two views added up", mutant: Some(Mutant::ViewsCombined), views: 4, ..BASE },
    Configuration { name: "smaller-quorum", about: "Q - 1 of everything", mutant: Some(Mutant::SmallerQuorum), views: 2, ..BASE },
    Configuration { name: "claim-dropped", about: "VIEW-CHANGE without its claim", mutant: Some(Mutant::ClaimDropped), views: 2, ..BASE },
    Configuration { name: "commit-before-sync", about: "COMMIT before its certificate is synced", mutant: Some(Mutant::CommitBeforeSync), views: 2, crashes: 1, ..BASE },
    Configuration { name: "view-change-before-sync", about: "VIEW-CHANGE before it is synced", mutant: Some(Mutant::ViewChangeBeforeSync), views: 2, crashes: 1, ..BASE },
    Configuration { name: "two-prepare-before-sync", about: "the same as M2 with two syncs", durability: TwoSyncs, mutant: Some(Mutant::PreparesAgain), views: 2, crashes: 1, ..BASE },
    Configuration { name: "two-commit-before-sync", about: "COMMIT before its certificate is synced", durability: TwoSyncs, mutant: Some(Mutant::CommitBeforeSync), views: 2, crashes: 1, ..BASE },
    Configuration { name: "two-view-change-before-sync", about: "VIEW-CHANGE before it is synced", durability: TwoSyncs, mutant: Some(Mutant::ViewChangeBeforeSync), views: 2, crashes: 1, ..BASE },
];

/// The configuration of this name.
#[must_use]
pub fn find(name: &str) -> Option<Configuration> {
    GOOD.iter().chain(&MUTANTS).find(|configuration| configuration.name == name).copied()
}
