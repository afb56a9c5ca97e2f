//! A mount that was stopped or slept for longer than its session lives.
//!
//! Invariant: after a sleep the session is asked for before the first operation, so that the operation does not
//! fail with a session that has expired meanwhile, of which nobody could say whether it was still executed.

use crate::shared::{Mount, Shared};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often a mount that is awake notes the time.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A gap between two beats that counts as a sleep. Monotonic clocks and timers stand still in a sleep, hence
/// the system's time; that it is set means one needless question.
const SLEEP_MIN: Duration = Duration::from_secs(5);

/// When the mount was awake.
pub struct Pulse {
    last: Mutex<SystemTime>,
    /// One asks, the others wait for it.
    asking: tokio::sync::Mutex<()>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { last: Mutex::new(SystemTime::now()), asking: tokio::sync::Mutex::default() }
    }
}

impl Pulse {
    fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
    }

    fn has_slept(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed().map_or(true, |gap| gap > SLEEP_MIN)
    }
}

impl Shared {
    /// Makes sure, after a sleep, that there is a session.
    pub async fn wake(&self) {
        if !self.pulse.has_slept() {
            return;
        }
        let _one = self.pulse.asking.lock().await;
        if self.pulse.has_slept() {
            tracing::info!("the mount has slept; its session is renewed");
            if let Err(error) = self.client.renew().await {
                tracing::info!(%error, "the session did not outlive the sleep");
            }
            self.pulse.beat();
        }
    }
}

/// Notes that the mount is awake, as long as it lives.
pub fn keep_awake(mount: &Mount) {
    let weak = Arc::downgrade(mount);
    mount.runtime.spawn(async move {
        loop {
            tokio::time::sleep(BEAT_INTERVAL).await;
            let Some(mount) = weak.upgrade() else { return };
            mount.wake().await;
            mount.pulse.beat();
        }
    });
}
