//! Mounting and unmounting by ourselves: mount(2) as root, fusermount3 otherwise.
//!
//! Invariant: unmounting never waits for the cluster; what is pending then fails with EIO, because the
//! tasks that would answer are dropped with their reply handles.

use crate::adapter::Adapter;
use crate::files::Files;
use crate::options::MountOptions;
use crate::releases::Releases;
use crate::shared::{Mount, Shared};
use crate::sleep::Pulse;
use fuser::{Config, Session, SessionACL};
use nix::mount::{MntFlags, MsFlags, umount2};
use quorate_client::Client;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::runtime::Handle;

/// The filesystem's type, as mount(8) shows it.
pub const TYPE: &str = "fuse.quorate";
/// Threads that take requests from the kernel; more of them make a single caller slower.
const EVENT_LOOPS: usize = 2;
/// Symbolic links on the way to a mount point.
const LINKS_MAX: usize = 40;
/// Files that are written back at once at the end.
const WRITE_BACKS_MAX: usize = 16;
/// The kernel's device.
const DEVICE: &str = "/dev/fuse";

/// Why a filesystem cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no FUSE here.
    #[error(
        "{DEVICE} cannot be opened: {0}; load the kernel module `fuse`, and in a container pass the device in"
    )]
    NoDevice(io::Error),
    /// The mount point is missing or no directory.
    #[error("{path}: {source}; the mount point must be a directory that exists")]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It would hide files.
    #[error("{0} is not empty: choose an empty directory")]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error("{0} is a mount point already: unmount it first with `quorate umount`")]
    Mounted(PathBuf),
    /// Nothing of ours is mounted there.
    #[error("nothing of quorate is mounted at {0}")]
    NotMounted(PathBuf),
    /// The system refuses.
    #[error("cannot {what} {path}: {source}")]
    Refused {
        /// `mount` or `unmount`.
        what: &'static str,
        /// The mount point.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// fusermount3 refuses, in its words.
    #[error("fusermount3: {0}")]
    Helper(String),
    /// The kernel and fuser do not understand each other.
    #[error("the kernel refuses the session: {0}")]
    Session(io::Error),
}

/// A filesystem that is mounted.
pub struct Mounted {
    path: PathBuf,
    session: Option<JoinHandle<io::Result<()>>>,
    shared: Mount,
}

/// Mounts the filesystem of `client` at `path`; its tasks run on `runtime`.
///
/// # Errors
/// [`MountError`].
pub fn mount(
    client: Client,
    runtime: Handle,
    path: &Path,
    options: MountOptions,
) -> Result<Mounted, MountError> {
    let path = checked_mount_point(path)?;
    let device = if nix::unistd::geteuid().is_root() {
        mount_as_root(&path, &options)?
    } else {
        mount_by_helper(&path, &options)?
    };
    let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.n_threads = Some(EVENT_LOOPS);
    config.clone_fd = true;
    config.acl = acl;
    let shared = Arc::new(Shared {
        client,
        runtime,
        options,
        files: Files::default(),
        releases: Releases::default(),
        dirty_bytes: AtomicUsize::default(),
        write_backs: AtomicU64::default(),
        failures: AtomicU64::default(),
        totals: Mutex::default(),
        root: Mutex::default(),
        remembered: crate::remembered::Remembered::default(),
        pulse: Pulse::default(),
    });
    crate::reading::keep_granted(&shared);
    crate::operations::learn(&shared);
    crate::sleep::keep_awake(&shared);
    crate::writing::keep_releasing(&shared);
    crate::writing::keep_writing_back(&shared);
    let session = Session::from_fd(Adapter(Arc::clone(&shared)), device, acl, config)
        .and_then(|session| std::thread::Builder::new().name("fuse".to_owned()).spawn(move || session.run()))
        .map_err(|error| {
            let _ = unmount(&path, true);
            MountError::Session(error)
        })?;
    Ok(Mounted { path, session: Some(session), shared })
}

impl Mounted {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel has ended the session, because somebody unmounted it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.session.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Writes back what is dirty, as far as the cluster answers.
    pub async fn write_back(&self) {
        let mut under_way = tokio::task::JoinSet::new();
        for inode in self.shared.files.inodes() {
            if under_way.len() >= WRITE_BACKS_MAX {
                under_way.join_next().await;
            }
            let shared = Arc::clone(&self.shared);
            under_way.spawn_on(async move { shared.settle(inode.ino).await }, &self.shared.runtime);
        }
        // What failed is in the log; nobody is left to hear of it.
        while under_way.join_next().await.is_some() {}
    }

    /// Unmounts, busy or not, without waiting for the cluster.
    ///
    /// # Errors
    /// [`MountError`] when the system refuses.
    pub fn unmount(&self) -> Result<(), MountError> {
        if self.is_over() || !is_mounted(&self.path) {
            return Ok(());
        }
        unmount(&self.path, true)
    }

    /// Waits for the end of the session, after an unmount.
    ///
    /// # Errors
    /// The system's, when the session ended by itself.
    pub fn wait(mut self) -> io::Result<()> {
        match self.session.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the session's thread panicked")),
            None => Ok(()),
        }
    }
}

/// Whether something of quorate is mounted at `path`. Reads the kernel's table and never touches the mount.
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    mounted_type(path).is_some_and(|kind| kind == TYPE)
}

/// Where a mount at `path` is in the kernel's table: without symbolic links and `..`. A mount point itself
/// is never asked, because behind it there may be a cluster that does not answer.
fn place(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // It ends in `..`, or is the root.
            return std::fs::canonicalize(&path).unwrap_or(path);
        };
        let Ok(parent) = std::fs::canonicalize(parent) else { return path };
        let real = parent.join(name);
        if type_at(&real).is_some() {
            return real;
        }
        match std::fs::read_link(&real) {
            Ok(target) => path = parent.join(target),
            Err(_) => return real,
        }
    }
    path
}

/// The type of the topmost filesystem at `path`.
fn mounted_type(path: &Path) -> Option<String> {
    type_at(&place(path))
}

/// The same for a path as the kernel has it.
fn type_at(wanted: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let mut found = None;
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        // proc(5): ID parent device root MOUNT-POINT options optional-fields... - TYPE source options
        let separator = fields.iter().position(|field| *field == b"-");
        if let (Some(place), Some(separator)) = (fields.get(4), separator)
            && Path::new(&unescape(place)) == wanted
        {
            found = fields.get(separator + 1).map(|kind| String::from_utf8_lossy(kind).into_owned());
        }
    }
    found
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if *byte == b'\\' => {
                bytes.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn checked_mount_point(path: &Path) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::MountPoint { path: path.to_owned(), source };
    // Asked of the kernel's table first: a dead mount would hang or fail on everything else.
    let place = place(path);
    if type_at(&place).is_some() {
        return Err(MountError::Mounted(place));
    }
    let real = std::fs::canonicalize(&place).map_err(failed)?;
    let mut entries = std::fs::read_dir(&real).map_err(failed)?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty(real));
    }
    Ok(real)
}

fn mount_as_root(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(MountError::NoDevice)?;
    let failed = |source| MountError::Refused { what: "mount", path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.mode();
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut data =
        format!("fd={},rootmode={:o},user_id={uid},group_id={gid}", device.as_raw_fd(), mode & libc::S_IFMT);
    if options.allow_other {
        data.push_str(",allow_other");
    }
    if options.past.is_some() {
        data.push_str(",default_permissions");
    }
    let mut flags = MsFlags::MS_NOATIME;
    for (wanted, flag) in [
        (options.read_only, MsFlags::MS_RDONLY),
        (options.no_suid, MsFlags::MS_NOSUID),
        (!options.devices, MsFlags::MS_NODEV),
        (options.no_exec, MsFlags::MS_NOEXEC),
    ] {
        flags.set(flag, wanted);
    }
    nix::mount::mount(Some(options.source().as_str()), path, Some(TYPE), flags, Some(data.as_str()))
        .map_err(|error| failed(error.into()))?;
    Ok(device.into())
}

/// Lets fusermount3, which is setuid root, mount; it sends the device over a socket.
fn mount_by_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    // Says more than the helper would. Whether this user may open it is the helper's concern.
    std::fs::metadata(DEVICE).map_err(MountError::NoDevice)?;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).map_err(|error| {
            MountError::Refused { what: "mount", path: path.to_owned(), source: error.into() }
        })?;
    let access = if options.read_only { "ro" } else { "rw" };
    let mut list = format!("fsname={},subtype=quorate,noatime,{access}", options.source());
    for (wanted, option) in [
        (options.allow_other, ",allow_other"),
        (options.no_exec, ",noexec"),
        (options.past.is_some(), ",default_permissions"),
    ] {
        if wanted {
            list.push_str(option);
        }
    }
    // The helper inherits both ends of the pair, which is why they are not close-on-exec; ours is closed
    // with it.
    let output = Command::new("fusermount3")
        .args(["-o", &list, "--"])
        .arg(path)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .output()
        .map_err(|error| MountError::Helper(format!("cannot be run: {error}; install the package fuse3")))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(MountError::Helper(words));
    }
    drop(theirs);
    receive_descriptor(&ours).map_err(|error| MountError::Helper(format!("sent no device: {error}")))
}

fn receive_descriptor(socket: &OwnedFd) -> io::Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut byte = [0_u8; 1];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            return Ok(owned(*descriptor));
        }
    }
    Err(io::Error::other("no descriptor in its message"))
}

/// Takes a descriptor that the kernel has just made for us.
#[allow(unsafe_code)]
fn owned(descriptor: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: recvmsg installed this descriptor for this process a moment ago; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Unmounts a filesystem of quorate; `lazily` also when it is busy.
///
/// # Errors
/// [`MountError`].
pub fn unmount(path: &Path, lazily: bool) -> Result<(), MountError> {
    let path = place(path);
    if !is_mounted(&path) {
        return Err(MountError::NotMounted(path));
    }
    if nix::unistd::geteuid().is_root() {
        let mut flags = MntFlags::UMOUNT_NOFOLLOW;
        flags.set(MntFlags::MNT_DETACH, lazily);
        return umount2(&path, flags).map_err(|error| MountError::Refused {
            what: "unmount",
            path,
            source: error.into(),
        });
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let output =
        command.arg("--").arg(&path).output().map_err(|error| {
            MountError::Helper(format!("cannot be run: {error}; install the package fuse3"))
        })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(MountError::Helper(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_that_cannot_be_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(checked_mount_point(directory.path()).is_ok());
        std::fs::write(directory.path().join("file"), b"x").unwrap();
        assert!(matches!(checked_mount_point(directory.path()), Err(MountError::NotEmpty(_))));
        let file = directory.path().join("file");
        assert!(matches!(checked_mount_point(&file), Err(MountError::MountPoint { .. })));
        let missing = directory.path().join("missing");
        assert!(matches!(checked_mount_point(&missing), Err(MountError::MountPoint { .. })));
        assert!(matches!(checked_mount_point(Path::new("/proc")), Err(MountError::Mounted(_))));
        assert!(matches!(unmount(directory.path(), true), Err(MountError::NotMounted(_))));
    }

    #[test]
    fn mount_points_are_found_through_links_and_dots() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("home")).unwrap();
        std::os::unix::fs::symlink("home", real.join("link")).unwrap();
        assert_eq!(place(&real.join("link/mnt")), real.join("home/mnt"));
        assert_eq!(place(&real.join("link/../other/./")), real.join("other"));
        assert_eq!(place(&real.join("home/..")), real);
        assert_eq!(place(&real.join("link")), real.join("home"));
        std::os::unix::fs::symlink("loop", real.join("loop")).unwrap();
        assert_eq!(place(&real.join("loop")), real.join("loop"));
        assert_eq!(place(&real.join("missing/mnt")), real.join("missing/mnt"));
        std::os::unix::fs::symlink("/", real.join("root")).unwrap();
        std::os::unix::fs::symlink("/proc", real.join("proc")).unwrap();
        for path in ["root/proc", "proc", "root/proc/../proc"] {
            assert_eq!(mounted_type(&real.join(path)).as_deref(), Some("proc"), "{path}");
        }
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(b"/a\\040b\\134c"), OsString::from("/a b\\c"));
        assert_eq!(unescape(b"/plain\\"), OsString::from("/plain\\"));
        assert_eq!(mounted_type(Path::new("/proc")).as_deref(), Some("proc"));
    }
}
