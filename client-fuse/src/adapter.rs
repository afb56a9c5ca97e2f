//! fuser's trait on top of [`Shared`]: every request becomes a task at once.
//!
//! Invariant: no handler waits for anything; what it needs of the request is copied before it returns. What
//! needs no answer of the cluster (a buffered write, the close of a clean file) is answered at once.

use crate::answer::{self, GENERATION, fail};
use crate::caller::Caller;
use crate::opening::{create, open};
use crate::operations::AttributeChanges;
use crate::reading::Seek;
use crate::shared::{Mount, ROOT, Shared};
use crate::writing::Buffered;
use crate::{convert, credentials, writing};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use quorate_protocol::operation::RenameMode;
use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes of one write request.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way.
const BACKGROUND_MAX: u16 = 64;
/// What `statfs` shows: block size, and as many free blocks as nobody counts.
const STATFS_BLOCK: u32 = 4096;
const STATFS_BLOCKS: u64 = 1 << 38;
const STATFS_FILES: u64 = 1 << 48;

/// The filesystem as fuser drives it.
pub struct Adapter(pub Mount);

impl Adapter {
    /// Runs a task for a request, for as long as its caller waits. What is not answered by then is dropped
    /// with its reply, which answers EIO.
    fn task<F>(&self, caller: Caller, work: impl FnOnce(Mount) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = work(Arc::clone(&self.0));
        let given_up = caller.gives_up(self.0.options.deadline);
        self.0.runtime.spawn(async move {
            tokio::select! {
                biased;
                () = work => {}
                () = given_up => {}
            }
        });
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for wanted in [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_HANDLE_KILLPRIV,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_ASYNC_READ,
        ] {
            // What the kernel does not offer, it does not need.
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_time_granularity(Duration::from_nanos(1));
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                answer::entry(reply, mount.options.belief(), mount.lookup(&credential, parent.0, name).await);
            }),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            let found = match ino.0 {
                ROOT => mount.root_attributes(&credential).await,
                ino => mount.attributes(&credential, ino).await,
            };
            answer::attributes(reply, mount.options.belief(), found);
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let credential = credentials::of(request);
        let changes = AttributeChanges {
            mode: mode.map(convert::mode),
            uid,
            gid,
            size,
            atime: convert::set_time(atime),
            mtime: convert::set_time(mtime),
        };
        self.task(Caller::of(request), |mount| async move {
            let file = handle.and_then(|handle| mount.files.file(handle.0));
            let changed = mount.set_attributes(&credential, ino.0, changes, file.as_deref()).await;
            answer::attributes(reply, mount.options.belief(), changed);
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            match mount.read_link(&credential, ino.0).await {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(fail(errno)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                let place = (parent.0, name);
                answer::entry(
                    reply,
                    mount.options.belief(),
                    mount.mknod(&credential, place, (mode, rdev), convert::mode(umask)).await,
                );
            }),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                let (mode, umask) = (convert::mode(mode), convert::mode(umask));
                answer::entry(
                    reply,
                    mount.options.belief(),
                    mount.mkdir(&credential, (parent.0, name), mode, umask).await,
                );
            }),
        }
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                answer::empty(reply, mount.unlink(&credential, parent.0, name).await);
            }),
        }
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                answer::empty(reply, mount.rmdir(&credential, parent.0, name).await);
            }),
        }
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let credential = credentials::of(request);
        let target = target.as_os_str().as_bytes().to_vec();
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                answer::entry(
                    reply,
                    mount.options.belief(),
                    mount.symlink(&credential, (parent.0, name), target).await,
                );
            }),
        }
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let credential = credentials::of(request);
        let mode = if flags.is_empty() {
            Ok(RenameMode::Replace)
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            Ok(RenameMode::NoReplace)
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            Ok(RenameMode::Exchange)
        } else {
            Err(libc::EINVAL)
        };
        let parsed = mode.and_then(|mode| Ok((convert::name(name)?, convert::name(new_name)?, mode)));
        match parsed {
            Err(errno) => reply.error(fail(errno)),
            Ok((name, new_name, mode)) => self.task(Caller::of(request), |mount| async move {
                let (from, to) = ((parent.0, name), (new_parent.0, new_name));
                answer::empty(reply, mount.rename(&credential, from, to, mode).await);
            }),
        }
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                answer::entry(
                    reply,
                    mount.options.belief(),
                    mount.link(&credential, ino.0, parent.0, name).await,
                );
            }),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            let opened = open(&mount, credential, ino.0, flags.0).await;
            answer::opened(reply, &mount.options, opened);
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let credential = credentials::of(request);
        match convert::name(name) {
            Err(errno) => reply.error(fail(errno)),
            Ok(name) => self.task(Caller::of(request), |mount| async move {
                let modes = (convert::mode(mode), convert::mode(umask));
                match create(&mount, credential, (parent.0, name), modes, flags).await {
                    Ok((attributes, handle)) => reply.created(
                        &mount.options.belief(),
                        &convert::attributes(&attributes),
                        GENERATION,
                        FileHandle(handle),
                        FopenFlags::empty(),
                    ),
                    Err(errno) => reply.error(fail(errno)),
                }
            }),
        }
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = self.0.files.file(handle.0) else { return reply.error(fail(libc::EBADF)) };
        self.task(Caller::of(request), |mount| async move {
            let length = usize::try_from(size).unwrap_or(0);
            match mount.read_file(&file, offset, length).await {
                Ok(bytes) => reply.data(bytes.get(..length).unwrap_or(&bytes)),
                Err(errno) => reply.error(fail(errno)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(file) = self.0.files.file(handle.0) else { return reply.error(fail(libc::EBADF)) };
        let Ok(length) = u32::try_from(data.len()) else { return reply.error(fail(libc::EINVAL)) };
        // A page that was changed through a mapping has its place, whatever the flags of the handle.
        if flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            let data = data.to_vec();
            return self.task(Caller::of(request), |mount| async move {
                match mount.append(&file, data).await {
                    Ok(_) => reply.written(length),
                    Err(errno) => reply.error(fail(errno)),
                }
            });
        }
        match self.0.buffer(&file, offset, data) {
            Buffered::Done => reply.written(length),
            full => self.task(Caller::of(request), |mount| async move {
                match mount.relieve(&file, full).await {
                    Ok(()) => reply.written(length),
                    Err(errno) => reply.error(fail(errno)),
                }
            }),
        }
    }

    fn flush(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let Some(file) = self.0.files.file(handle.0) else { return reply.error(fail(libc::EBADF)) };
        if Shared::is_flushed(&file) {
            return reply.ok();
        }
        self.task(Caller::of_close(request), |mount| async move {
            answer::empty(reply, mount.flush(&file).await)
        });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        if let Some(file) = self.0.files.release(handle.0) {
            writing::release(&self.0, file);
        }
    }

    fn fsync(&self, request: &Request, _ino: INodeNo, handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        let Some(file) = self.0.files.file(handle.0) else { return reply.error(fail(libc::EBADF)) };
        self.task(Caller::of(request), |mount| async move { answer::empty(reply, mount.flush(&file).await) });
    }

    fn lseek(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let target = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(fail(libc::EINVAL)),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(fail(libc::ENXIO)) };
        let Some(file) = self.0.files.file(handle.0) else { return reply.error(fail(libc::EBADF)) };
        self.task(Caller::of(request), |mount| async move {
            match mount.seek(&file, offset, target).await {
                Ok(place) => reply.offset(i64::try_from(place).unwrap_or(i64::MAX)),
                Err(errno) => reply.error(fail(errno)),
            }
        });
    }

    /// Space is not reserved, and holes are made by nobody yet: the kernel answers EOPNOTSUPP from now on, and
    /// the C library writes zeros instead.
    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(fail(libc::ENOSYS));
    }

    /// The kernel reads and writes instead.
    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(fail(libc::ENOSYS));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            let opened = mount.open_directory(&credential, ino.0).await;
            answer::opened(reply, &mount.options, opened);
        });
    }

    fn readdir(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(directory) = self.0.files.directory(handle.0) else {
            return reply.error(fail(libc::EBADF));
        };
        self.task(Caller::of(request), |mount| async move {
            let listed = mount
                .list(&directory, offset, |entry| {
                    let kind = convert::file_type(entry.kind);
                    reply.add(INodeNo(entry.ino), entry.cookie, kind, OsStr::from_bytes(&entry.name))
                })
                .await;
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(fail(errno)),
            }
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.files.release_directory(handle.0);
        reply.ok();
    }

    /// Names are in the cluster when their calls return: there is nothing to sync.
    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            match mount.totals(&credential).await {
                Ok(totals) => {
                    let used = totals.bytes.div_ceil(u64::from(STATFS_BLOCK));
                    let free = STATFS_BLOCKS.saturating_sub(used);
                    let files = STATFS_FILES.saturating_sub(totals.inodes);
                    reply.statfs(
                        STATFS_BLOCKS,
                        free,
                        free,
                        STATFS_FILES,
                        files,
                        STATFS_BLOCK,
                        255,
                        STATFS_BLOCK,
                    );
                }
                Err(errno) => reply.error(fail(errno)),
            }
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let credential = credentials::of(request);
        let pair = (name.as_bytes().to_vec(), value.to_vec());
        self.task(Caller::of(request), |mount| async move {
            answer::empty(reply, mount.set_xattr(&credential, ino.0, pair, flags).await);
        });
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.0.has_no_capability(ino.0, name.as_bytes()) {
            return reply.error(fail(libc::ENODATA));
        }
        let credential = credentials::of(request);
        let name = name.as_bytes().to_vec();
        self.task(Caller::of(request), |mount| async move {
            answer::xattr(reply, size, mount.xattr(&credential, ino.0, name).await);
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            answer::xattr(reply, size, mount.xattrs(&credential, ino.0).await);
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let credential = credentials::of(request);
        let name = name.as_bytes().to_vec();
        self.task(Caller::of(request), |mount| async move {
            answer::empty(reply, mount.remove_xattr(&credential, ino.0, name).await);
        });
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let credential = credentials::of(request);
        self.task(Caller::of(request), |mount| async move {
            let mask = u16::try_from(mask.bits() & 7).unwrap_or_default();
            answer::empty(reply, mount.access(&credential, ino.0, mask).await);
        });
    }
}
