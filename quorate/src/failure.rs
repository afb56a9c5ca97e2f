//! How a command fails: one line and an exit status; and the names that mount(8) calls us by.
//!
//! Invariant: 1 is the caller's or the world's fault, 2 is "cannot tell" or "no quorum", 125 is `dev`'s own
//! failure as opposed to that of the command that it runs.

use std::ffi::OsString;
use std::fmt::Display;

/// Prints a line; whoever reads may have had enough of it.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Says something on standard error that ends nothing.
pub fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "quorate: {text}");
}

/// Exit status of an ordinary failure.
pub const FAILED: u8 = 1;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub code: u8,
    /// Cause, effect and what to do, in one line.
    pub text: String,
}

impl Failure {
    /// An ordinary failure.
    pub fn new(text: impl Display) -> Self {
        Self { code: FAILED, text: text.to_string() }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// What a command returns.
pub type CommandResult = Result<std::process::ExitCode, Failure>;

/// mount(8) calls `mount.quorate SOURCE PATH -o OPTIONS` and `mount.fuse.quorate`: turns that into
/// `quorate mount PATH --cluster SOURCE -o OPTIONS`, the key being the option `key=FILE`.
pub fn helper_names(arguments: Vec<OsString>) -> Vec<OsString> {
    let called = arguments.first().and_then(|name| {
        std::path::Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned())
    });
    if !matches!(called.as_deref(), Some("mount.quorate" | "mount.fuse.quorate")) {
        return arguments;
    }
    let mut rest = arguments.into_iter().skip(1);
    let mut result: Vec<OsString> = vec!["quorate".into(), "mount".into()];
    if let Some(source) = rest.next() {
        let text = source.to_string_lossy();
        let source = text.strip_prefix("quorate#").unwrap_or(&text).to_owned();
        result.extend(["--cluster".into(), source.into()]);
    }
    result.extend(rest.next());
    while let Some(argument) = rest.next() {
        if argument != "-o" {
            // -n, -s, -v of mount(8) mean nothing to us.
            continue;
        }
        let options = rest.next().unwrap_or_default().to_string_lossy().into_owned();
        let (keys, others): (Vec<&str>, Vec<&str>) =
            options.split(',').partition(|option| option.starts_with("key="));
        if let Some(key) = keys.last().and_then(|option| option.strip_prefix("key=")) {
            result.extend(["--key".into(), key.into()]);
        }
        if !others.is_empty() {
            result.extend(["-o".into(), others.join(",").into()]);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(Into::into).collect()
    }

    #[test]
    fn mount_helpers_become_the_mount_command() {
        assert_eq!(
            helper_names(words("/sbin/mount.quorate /etc/c.toml /mnt -o rw,key=/k,soft")),
            words("quorate mount --cluster /etc/c.toml /mnt --key /k -o rw,soft")
        );
        assert_eq!(helper_names(words("quorate status")), words("quorate status"));
    }
}
