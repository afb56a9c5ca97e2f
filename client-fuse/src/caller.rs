//! How long the process that made a request waits for its answer.
//!
//! Invariant: a request ends by the mount's deadline, however many steps it takes, and soon after its caller is
//! being killed, on a `hard` mount as well: fuser answers the kernel's INTERRUPT with ENOSYS, so that a process
//! in a call cannot go before the call is answered.

use std::time::{Duration, Instant};

/// How often it is looked whether a caller is still there. Most requests are answered long before the first
/// look.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long the last close of a process that has ended holds it. What it left dirty is written back all the
/// same.
const ENDED_PATIENCE: Duration = Duration::from_secs(2);
/// How much longer than its steps a request may take: whichever of them comes to the deadline says why.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);
/// SIGKILL in the sets of pending signals of /proc. The kernel adds it for every signal that ends a process
/// without a dump, Ctrl-C included.
const SIGKILL_BIT: u64 = 1 << 8;

/// Who made a request.
#[derive(Copy, Clone, Debug)]
pub struct Caller {
    /// The thread; 0 when it cannot be seen from here, as in another namespace.
    thread: u32,
    /// Whether the request is one that a process makes when it has ended already.
    closes: bool,
}

impl Caller {
    /// The caller of a request.
    pub fn of(request: &fuser::Request) -> Self {
        Self { thread: request.pid(), closes: false }
    }

    /// The caller of a request that may come from the end of a process.
    pub fn of_close(request: &fuser::Request) -> Self {
        Self { thread: request.pid(), closes: true }
    }

    /// Returns when nobody waits any more, or has waited for long enough: `deadline` after now, if there is one.
    pub async fn gives_up(self, deadline: Option<Duration>) {
        let began = Instant::now();
        let deadline = deadline.map(|deadline| deadline.saturating_add(DEADLINE_MARGIN));
        loop {
            let left = deadline.map_or(LOOK_INTERVAL, |deadline| deadline.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
            if self.is_gone(began.elapsed()) {
                return;
            }
        }
    }

    fn is_gone(self, waited: Duration) -> bool {
        if self.thread == 0 {
            return false;
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.thread)) else {
            return false;
        };
        is_killed(&status) || self.closes && waited >= ENDED_PATIENCE && has_ended(&status)
    }
}

/// Whether a thread is to die as soon as its call returns.
fn is_killed(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigPnd:")).unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).is_ok_and(|pending| pending & SIGKILL_BIT != 0)
}

/// Whether a process has given its memory back, which comes before its files are closed.
fn has_ended(status: &str) -> bool {
    !status.lines().any(|line| line.starts_with("VmSize:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_killed_and_the_ended_are_told_from_those_who_wait() {
        let status = |pending: &str, memory: &str| format!("Name:\tx\n{memory}SigPnd:\t{pending}\n");
        let memory = "VmSize:\t 5 kB\n";
        assert!(!is_killed(&status("0000000000000002", memory)), "a signal that may have a handler");
        assert!(is_killed(&status("0000000000000100", memory)));
        assert!(is_killed(&status("0000000000000102", memory)));
        assert!(!is_killed("") && !is_killed("SigPnd:\tx\n"));
        assert!(has_ended(&status("0000000000000000", "")) && !has_ended(&status("0", memory)));
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(!is_killed(&own) && !has_ended(&own));
    }

    #[tokio::test]
    async fn a_caller_that_cannot_be_seen_waits_until_the_deadline() {
        let unseen = Caller { thread: 0, closes: true };
        let waits = |deadline| tokio::time::timeout(DEADLINE_MARGIN * 2, unseen.gives_up(deadline));
        let began = Instant::now();
        assert!(waits(Some(Duration::from_millis(1))).await.is_ok());
        assert!(began.elapsed() > DEADLINE_MARGIN);
        assert!(waits(None).await.is_err());
    }
}
