//! Always wanting another view: suspicions, claims for views ever further ahead, resignations.
//!
//! Invariant: every claim is signed and well formed, so that it passes the door.

use super::liar::Liar;
use quorate_crypto::Signer as _;
use quorate_protocol::peer::Announcement;
use quorate_protocol::view_change::{
    Rank, Resign, SignedClaim, Suspect, Suspicion, ViewChange, ViewChangeBody,
};
use quorate_protocol::{PeerMessage, View};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it asks again.
const PACE: Duration = Duration::from_millis(10);

/// Asks for views for ever.
pub(super) fn storm(liar: &Liar) {
    let mut ahead: View = 1;
    loop {
        let view = liar.view.load(Ordering::Relaxed);
        for message in wishes(liar, view, ahead) {
            liar.others().for_each(|to| liar.network.slip(to, &message));
        }
        // The next one, some ahead, very far ahead, by turns; what it asked for last must not shut it out.
        ahead = match ahead {
            1 => 2,
            2 => 1 << 10,
            1024 => 1 << 40,
            _ => 1,
        };
        std::thread::sleep(PACE);
    }
}

fn wishes(liar: &Liar, view: View, ahead: View) -> Vec<PeerMessage> {
    let epoch = liar.members.epoch();
    let wanted = view.saturating_add(ahead);
    let committed = liar.committed.load(Ordering::Relaxed);
    let reasons =
        [Suspicion::Timeout, Suspicion::Revoked, Suspicion::Restarted, Suspicion::Monitor, Suspicion::Fault];
    let mut messages: Vec<PeerMessage> =
        reasons.map(|reason| PeerMessage::Suspect(Suspect { epoch, view, reason })).into();
    messages.push(PeerMessage::ViewChange(empty_claim(liar, wanted)));
    messages.push(PeerMessage::Announce(Announcement { epoch, view: wanted, entered: true, committed }));
    messages.push(PeerMessage::FetchNewView { view: wanted });
    if liar.leads(view) {
        let statement = Resign::statement(liar.cluster, epoch, view);
        messages.push(PeerMessage::Resign(Resign { epoch, view, signature: liar.signer.sign(&statement) }));
    }
    messages
}

/// The claim of who holds no certificate, which is all that it needs to want a view.
fn empty_claim(liar: &Liar, view: View) -> ViewChange {
    let body = ViewChangeBody {
        epoch: liar.members.epoch(),
        view,
        rank: Rank::default(),
        header: liar.genesis,
        committed: 0,
        replica: liar.me,
    };
    let signature = liar.signer.sign(&body.statement(liar.cluster));
    ViewChange { claim: SignedClaim { body, signature }, certificate: None }
}
