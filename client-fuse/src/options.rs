//! Mount options, as `-o` gives them.
//!
//! Invariant: an option that is not known is an error that names it, except those that mount(8) and fstab
//! hand through and that mean nothing to a filesystem.

use quorate_protocol::Height;
use std::time::Duration;

/// Seconds that an operation of a `soft` mount waits for the cluster.
pub const TIMEO_SECONDS_DEFAULT: u64 = 30;

/// What may change at any time is believed for no time at all.
const NEVER: Duration = Duration::ZERO;
/// What never changes is believed for longer than a machine runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How a filesystem is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// `ro`.
    pub read_only: bool,
    /// `allow_other`: users other than the one who mounts may use it.
    pub allow_other: bool,
    /// `nosuid`.
    pub no_suid: bool,
    /// `dev`: device nodes work; off unless asked for.
    pub devices: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// `soft,timeo=SECONDS`; `None` for `hard`.
    pub deadline: Option<Duration>,
    /// The one height that is mounted, by no option of the list: nothing in it ever changes, so that the kernel may
    /// keep what it has learnt, and checks permissions by itself.
    pub past: Option<Height>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            no_suid: false,
            devices: false,
            no_exec: false,
            deadline: Some(Duration::from_secs(TIMEO_SECONDS_DEFAULT)),
            past: None,
        }
    }
}

/// An option that cannot be used. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error(
        "unknown mount option `{0}`: known are ro, rw, allow_other, suid, nosuid, dev, nodev, exec, noexec, soft, hard, timeo=SECONDS"
    )]
    Unknown(String),
    /// Its value means nothing.
    #[error("mount option `timeo` takes a number of seconds from 1, not `{0}`")]
    Timeout(String),
}

impl MountOptions {
    /// How long the kernel may believe a name or an attribute.
    #[must_use]
    pub fn belief(&self) -> Duration {
        if self.past.is_some() { FOR_EVER } else { NEVER }
    }

    /// What is mounted, as mount(8) shows it.
    #[must_use]
    pub fn source(&self) -> String {
        self.past.map_or_else(|| "quorate".to_owned(), |height| format!("quorate@{height}"))
    }

    /// Reads a list that is separated by commas.
    ///
    /// # Errors
    /// [`OptionError`] of the first option that cannot be used.
    pub fn parse(list: &str) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let mut hard = false;
        let mut seconds = TIMEO_SECONDS_DEFAULT;
        for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            match option {
                "ro" => options.read_only = true,
                "rw" => options.read_only = false,
                "allow_other" => options.allow_other = true,
                "nosuid" => options.no_suid = true,
                "suid" => options.no_suid = false,
                "dev" => options.devices = true,
                "nodev" => options.devices = false,
                "noexec" => options.no_exec = true,
                "exec" => options.no_exec = false,
                "hard" => hard = true,
                "soft" => hard = false,
                // What mount(8) and fstab mean for themselves.
                "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "_netdev" | "nofail"
                | "noatime" | "relatime" | "async" => {}
                other if other.starts_with("x-") || other.starts_with("comment=") => {}
                other => match other.strip_prefix("timeo=") {
                    Some(text) => {
                        seconds = text
                            .parse()
                            .ok()
                            .filter(|seconds| *seconds > 0)
                            .ok_or_else(|| OptionError::Timeout(text.to_owned()))?;
                    }
                    None => return Err(OptionError::Unknown(other.to_owned())),
                },
            }
        }
        options.deadline = (!hard).then(|| Duration::from_secs(seconds));
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_named() {
        let options = MountOptions::parse("ro,allow_other,timeo=5,_netdev,x-systemd.automount").unwrap();
        assert!(options.read_only && options.allow_other);
        assert_eq!(options.deadline, Some(Duration::from_secs(5)));
        assert_eq!(MountOptions::parse("hard").unwrap().deadline, None);
        assert_eq!(MountOptions::parse("").unwrap(), MountOptions::default());
        assert_eq!(MountOptions::parse("rw,frob"), Err(OptionError::Unknown("frob".to_owned())));
        assert_eq!(MountOptions::parse("timeo=0"), Err(OptionError::Timeout("0".to_owned())));
    }
}
