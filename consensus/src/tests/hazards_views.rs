//! Hazards of the view change, one test for each that no story elsewhere covers.

use quorate_protocol::view_change::{Suspect, Suspicion};
use quorate_protocol::{PeerMessage, View};

use super::harness::{Net, SECOND};

/// More than f liars: what they say may stop a replica, but must not end it (found by fuzzing).
#[test]
fn a7_the_last_view_that_there_is_can_be_asked_for_and_is_left_for_no_other() {
    let mut net = Net::new(4);
    for liar in [1, 2, 3] {
        net.crash(liar);
        let lie = net.view_change(liar, View::MAX, None);
        net.deliver(liar, 0, PeerMessage::ViewChange(lie));
    }
    assert_eq!((net.replica(0).view(), net.replica(0).has_entered()), (View::MAX, false));
    for liar in [1, 2, 3] {
        let suspect = Suspect { epoch: 0, view: View::MAX, reason: Suspicion::Fault };
        net.deliver(liar, 0, PeerMessage::Suspect(suspect));
    }
    net.advance(60 * SECOND);
    assert_eq!((net.replica(0).view(), net.replica(0).has_entered()), (View::MAX, false));
}
