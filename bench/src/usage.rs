//! Processor time that processes and threads have used, as the kernel counts it.
//!
//! Invariant: what is gone has used nothing from then on; nobody is asked but `/proc`.

use std::path::Path;
use std::time::Duration;

/// One of the units that `/proc/PID/stat` counts in: `USER_HZ`, which is 100 on every platform that runs here.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process with all its threads, so far.
pub(crate) fn of_process(pid: i32) -> Duration {
    of(&Path::new("/proc").join(pid.to_string()).join("stat"))
}

/// Processor time of the calling thread, so far.
pub(crate) fn of_this_thread() -> Duration {
    of(Path::new("/proc/thread-self/stat"))
}

fn of(stat: &Path) -> Duration {
    std::fs::read_to_string(stat).ok().as_deref().and_then(parse).unwrap_or_default()
}

/// "PID (NAME) STATE ..." with the times in user and kernel mode as fields 14 and 15; a name may hold spaces.
fn parse(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, kernel): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK.saturating_mul(user.saturating_add(kernel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_spent_is_seen() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse(stat), Some(Duration::from_millis(420)));
        assert_eq!((parse(""), of_process(-1)), (None, Duration::ZERO));
        let before = of_this_thread();
        let began = std::time::Instant::now();
        let mut number = 1_u64;
        while began.elapsed() < Duration::from_millis(400) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(of_this_thread() >= before + TICK);
        assert!(of_process(i32::try_from(std::process::id()).unwrap()) >= before + TICK);
    }
}
