//! Crashing again and again.
//!
//! Invariant: a crash ends all threads at once, in the middle of whatever they do, as SIGKILL would; what
//! starts again has the same process number, and nothing but what its disk holds.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// How long it lives at least, and at most, in milliseconds.
const LIFE_MS: (u64, u64) = (300, 2_500);
/// Every other time it stays away for so long before it starts again.
const AWAY: Duration = Duration::from_millis(700);

/// Waits as long as a crash keeps it away, and arranges for the next one.
///
/// # Errors
/// The system's, when it has no thread or no randomness to give.
pub(super) fn start() -> std::io::Result<()> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| std::io::Error::other("no randomness"))?;
    let random = u64::from_le_bytes(bytes);
    if random.is_multiple_of(2) {
        std::thread::sleep(AWAY);
    }
    let (least, most) = LIFE_MS;
    let life = Duration::from_millis(least + (random >> 8) % (most - least));
    std::thread::Builder::new().name("fault".to_owned()).spawn(move || crash(life)).map(drop)
}

fn crash(life: Duration) {
    std::thread::sleep(life);
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Replaces the process; returns only if that failed.
    let error = again.args(arguments).exec();
    tracing::error!(%error, "cannot start again after a crash");
    std::process::abort();
}
