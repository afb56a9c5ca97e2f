//! Whose turn it is when both peers and clients want something.
//!
//! Invariant: peers go first, because all clients wait for what they decide; but a peer that never ends keeps
//! no client waiting for more than [`PEERS_IN_A_ROW_MAX`] of its messages.

/// Messages of peers that are taken before one of a client is.
const PEERS_IN_A_ROW_MAX: u32 = 4;

/// Counts turns.
#[derive(Debug, Default)]
pub struct Fairness {
    peers_in_a_row: u32,
}

impl Fairness {
    /// Takes the next event out of one of two queues, if there is any.
    pub fn next<E>(
        &mut self,
        mut peer: impl FnMut() -> Option<E>,
        client: impl FnOnce() -> Option<E>,
    ) -> Option<E> {
        if self.peers_in_a_row < PEERS_IN_A_ROW_MAX
            && let Some(event) = peer()
        {
            self.peers_in_a_row += 1;
            return Some(event);
        }
        // Also when no client wants anything: the peers have waited for it.
        let turn_is_over = self.peers_in_a_row >= PEERS_IN_A_ROW_MAX;
        self.peers_in_a_row = 0;
        match client() {
            None if turn_is_over => peer().inspect(|_| self.peers_in_a_row = 1),
            event => event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// What comes out of queues of so many events, in order.
    fn order(peers: usize, clients: usize) -> String {
        let queues = RefCell::new((peers, clients));
        let mut fairness = Fairness::default();
        let mut order = String::new();
        let take = |count: &mut usize, name: char| {
            *count = count.checked_sub(1)?;
            Some(name)
        };
        while let Some(name) =
            fairness.next(|| take(&mut queues.borrow_mut().0, 'p'), || take(&mut queues.borrow_mut().1, 'c'))
        {
            order.push(name);
        }
        order
    }

    #[test]
    fn clients_have_their_turn_while_peers_never_end() {
        assert_eq!(order(10, 2), "ppppcppppcpp");
        assert_eq!(order(9, 0), "ppppppppp");
        assert_eq!(order(0, 3), "ccc");
        assert_eq!(order(1, 3), "pccc");
    }
}
