//! Several futures polled together, yielding in order of completion.
//!
//! Invariant: holds at most as many futures as were pushed and not yielded; callers push at most a few for
//! each replica, so polling all of them on a wake-up is cheaper than a task for each.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A small set of boxed futures with a tag each.
pub(crate) struct Race<'a, K, T> {
    running: Vec<(K, Running<'a, T>)>,
}

impl<'a, K: Copy + Unpin, T> Race<'a, K, T> {
    pub(crate) const fn new() -> Self {
        Self { running: Vec::new() }
    }

    pub(crate) fn push(&mut self, tag: K, future: impl Future<Output = T> + Send + 'a) {
        self.running.push((tag, Box::pin(future)));
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// The next future to complete; `None` when none is left. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<(K, T)> {
        if self.running.is_empty() {
            return None;
        }
        poll_fn(|context| {
            for (position, (tag, future)) in self.running.iter_mut().enumerate() {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    let tag = *tag;
                    drop(self.running.remove(position));
                    return Poll::Ready(Some((tag, output)));
                }
            }
            Poll::Pending
        })
        .await
    }
}
