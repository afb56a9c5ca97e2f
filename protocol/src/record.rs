//! Records of a replica's durable log: what voting depends on, and the certified history.
//!
//! Invariant: replayed from the first record, they restore everything that forbids a second, different
//! signature (rule R2) and every committed height in order.

use crate::peer::Batch;
use crate::view_change::{NewView, ViewChange};
use crate::{Epoch, Height, View, Vote};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::Certificate;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A view was entered.
    Entered {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
    },
    /// A proposal that lies at or below a certificate that follows.
    Proposed {
        /// Height.
        height: Height,
        /// The batch.
        batch: Batch,
    },
    /// A COMMIT of this replica that is about to leave; a PREPARE in logs of earlier builds.
    Voted(Vote),
    /// A prepare certificate, before a COMMIT that rests on it, or as a claim.
    Prepared(Certificate),
    /// A commit certificate of a height whose batch is in the log.
    Committed(Certificate),
    /// A VIEW-CHANGE that is about to leave.
    ViewChange(ViewChange),
    /// A NEW-VIEW that was accepted, or is about to leave.
    NewView(NewView),
}
