//! Who makes a request: user and group from the kernel, supplementary groups from /proc.
//!
//! Invariant: root needs no groups; for everybody else a process that cannot be read has none, which can
//! only take rights away.

use quorate_protocol::limits::GROUPS_MAX;
use quorate_protocol::{Credential, Groups};

/// The credential of the thread that makes a request.
pub fn of(request: &fuser::Request) -> Credential {
    let groups = if request.uid() == 0 { Vec::new() } else { supplementary(request.pid()) };
    let groups = groups.try_into().unwrap_or_default();
    Credential { uid: request.uid(), gid: request.gid(), groups: Groups::Listed(groups) }
}

/// The supplementary groups of a thread, sorted, each once, at most [`GROUPS_MAX`].
fn supplementary(thread: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    parse_groups(&status)
}

fn parse_groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    let mut groups: Vec<u32> = line.split_whitespace().filter_map(|group| group.parse().ok()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(GROUPS_MAX);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_sorted_and_bounded() {
        assert_eq!(parse_groups("Name:\tx\nGroups:\t4 20 4 1 \nVmPeak:\t1\n"), [1, 4, 20]);
        assert_eq!(parse_groups("Name:\tx\n"), Vec::<u32>::new());
        let many: String = (0..200).map(|group| format!("{group} ")).collect();
        assert_eq!(parse_groups(&format!("Groups:\t{many}")).len(), GROUPS_MAX);
    }
}
