"""What programs expect of a filesystem, one function for each call or habit. Run in a directory of the filesystem
to test; prints each case that fails and exits with their number. As root, because some cases need it."""

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import time
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
CASES = []


def case(function):
    CASES.append(function)
    return function


def fails(wanted, call, *arguments, **named):
    """The call must fail with this errno."""
    try:
        got = call(*arguments, **named)
    except OSError as error:
        names = (errno.errorcode.get(error.errno), errno.errorcode.get(wanted))
        assert error.errno == wanted, f"{names[0]} instead of {names[1]}"
        return
    raise AssertionError(f"{got!r} instead of {errno.errorcode[wanted]}")


def put(path, data=b""):
    with open(path, "wb") as file:
        file.write(data)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def link_open(handle, new):
    if LIBC.linkat(-100, b"/proc/self/fd/%d" % handle, -100, new.encode(), 0x400) != 0:
        raise OSError(ctypes.get_errno(), "linkat")


NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


@case
def open_flags():
    put("file", b"x")
    os.mkdir("dir")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    os.symlink("round", "round")
    fails(errno.EEXIST, os.open, "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(errno.EEXIST, os.open, "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, "file", os.O_RDONLY | os.O_DIRECTORY)
    fails(errno.ELOOP, os.open, "link", os.O_RDONLY | os.O_NOFOLLOW)
    fails(errno.ELOOP, os.open, "round", os.O_RDONLY)
    fails(errno.EISDIR, os.open, "dir", os.O_WRONLY)
    fails(errno.ENOENT, os.open, "missing", os.O_RDONLY)
    fails(errno.ENOENT, os.open, "dangling", os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, "file/below", os.O_RDONLY)
    fails(errno.ENOTDIR, os.stat, "file/")
    fails(errno.ENAMETOOLONG, os.open, "n" * 256, os.O_CREAT | os.O_WRONLY)
    os.close(os.open("dangling", os.O_CREAT | os.O_WRONLY))
    assert os.path.exists("nowhere")
    handle = os.open("file", os.O_PATH)
    assert os.fstat(handle).st_size == 1
    fails(errno.EBADF, os.read, handle, 1)
    os.close(handle)
    os.close(os.open("file", os.O_RDONLY | os.O_TRUNC))
    assert os.stat("file").st_size == 0


@case
def reading_and_writing_by_mode():
    put("file", b"0123456789")
    read, write = os.open("file", os.O_RDONLY), os.open("file", os.O_WRONLY)
    fails(errno.EBADF, os.write, read, b"x")
    fails(errno.EBADF, os.read, write, 1)
    fails(errno.EINVAL, os.ftruncate, read, 1)
    assert os.pread(read, 100, 5) == b"56789" and os.pread(read, 1, 10) == b"" and os.pread(read, 1, 99) == b""
    assert os.write(write, b"") == 0 and os.stat("file").st_size == 10
    assert os.pwrite(write, b"AB", 3) == 2 and os.pread(read, 10, 0) == b"012AB56789"
    assert os.pwritev(write, [b"x", b"yz"], 0) == 3 and os.pread(read, 4, 0) == b"xyzA"
    fails(errno.EINVAL, os.pwrite, write, b"x", -1)
    fails(errno.EINVAL, os.lseek, read, -1, os.SEEK_SET)
    assert os.lseek(read, -2, os.SEEK_END) == 8 and os.read(read, 9) == b"89"
    os.close(read)
    os.close(write)
    fails(errno.EISDIR, os.read, os.open(".", os.O_RDONLY), 1)


@case
def appends():
    one = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    other = os.open("log", os.O_RDWR | os.O_APPEND)
    for handle, text in [(one, b"1"), (other, b"22"), (one, b"333"), (other, b"4")]:
        assert os.write(handle, text) == len(text)
    assert os.pread(other, 100, 0) == b"1223334"
    # On Linux a pwrite to such a file appends as well.
    assert os.pwrite(one, b"5", 0) == 1
    os.ftruncate(one, 2)
    os.write(other, b"6")
    assert os.lseek(other, 0, os.SEEK_CUR) == 3
    os.close(one)
    os.close(other)
    assert get("log") == b"126"


@case
def large_files_and_odd_offsets():
    data = os.urandom(9_000_001)
    put("large", data)
    assert get("large") == data
    with open("large", "r+b", buffering=0) as file:
        for offset, length in [(0, 1), (4095, 2), (1 << 20, 5), ((1 << 20) - 1, 70_000), (9_000_000, 3)]:
            piece = os.urandom(length)
            file.seek(offset)
            file.write(piece)
            data = data[:offset] + piece + data[offset + length:]
        file.seek(0)
        assert file.read(20_000_000) == data
    assert get("large") == data


@case
def truncation():
    put("file", b"0123456789")
    os.truncate("file", 4)
    assert get("file") == b"0123"
    os.truncate("file", 8)
    assert get("file") == b"0123\0\0\0\0"
    handle = os.open("file", os.O_RDWR)
    os.pwrite(handle, b"89", 8)
    os.ftruncate(handle, 9)
    os.ftruncate(handle, 12)
    assert os.pread(handle, 20, 0) == b"0123\0\0\0\0" + b"8\0\0\0"
    os.close(handle)
    fails(errno.EISDIR, os.truncate, ".", 0)
    fails(errno.ENOENT, os.truncate, "missing", 0)
    fails(errno.EINVAL, os.truncate, "file", -1)


@case
def holes():
    handle = os.open("sparse", os.O_CREAT | os.O_RDWR)
    fails(errno.ENXIO, os.lseek, handle, 0, os.SEEK_DATA)
    os.pwrite(handle, b"x" * 8192, 3 << 20)
    os.pwrite(handle, b"y" * 100, 0)
    os.ftruncate(handle, 10 << 20)
    # Whatever the grain, data is found where there is some and the end is a hole.
    assert os.lseek(handle, 0, os.SEEK_DATA) == 0
    hole = os.lseek(handle, 0, os.SEEK_HOLE)
    assert 100 <= hole <= 2 << 20, hole
    data = os.lseek(handle, hole, os.SEEK_DATA)
    assert hole < data <= 3 << 20, data
    end = os.lseek(handle, 3 << 20, os.SEEK_HOLE)
    assert (3 << 20) + 8192 <= end <= 4 << 20, end
    fails(errno.ENXIO, os.lseek, handle, end, os.SEEK_DATA)
    fails(errno.ENXIO, os.lseek, handle, 10 << 20, os.SEEK_HOLE)
    os.close(handle)
    assert os.stat("sparse").st_blocks * 512 < 1 << 20
    subprocess.run(["cp", "--sparse=auto", "sparse", "copy"], check=True)
    subprocess.run(["tar", "--sparse", "-cf", "archive", "sparse"], check=True)
    assert os.stat("archive").st_size < 1 << 20 and os.stat("copy").st_blocks * 512 < 1 << 20
    assert get("copy") == get("sparse")


@case
def space_that_is_asked_for():
    with open("file", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
    assert get("file") == bytes(100_000)


@case
def maps():
    put("file", b"a" * 10_000)
    with open("file", "r+b") as file:
        with mmap.mmap(file.fileno(), 0) as shared:
            shared[5000:5003] = b"MAP"
            shared.flush()
            assert os.pread(file.fileno(), 3, 5000) == b"MAP"
            os.pwrite(file.fileno(), b"WRITE", 100)
            assert shared[100:105] == b"WRITE"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
            private[0:1] = b"P"
    # Dirty when the file is closed: the map keeps it open.
    file = open("file", "r+b")
    shared = mmap.mmap(file.fileno(), 0)
    file.close()
    shared[9_990:] = b"late bytes"
    shared.close()
    wanted = bytearray(b"a" * 10_000)
    wanted[5000:5003], wanted[100:105], wanted[9_990:] = b"MAP", b"WRITE", b"late bytes"
    assert get("file") == bytes(wanted)


@case
def files_without_a_name():
    file = open("file", "w+b", buffering=0)
    file.write(b"first")
    os.unlink("file")
    assert os.fstat(file.fileno()).st_nlink == 0
    put("file", b"another one")
    file.write(b" second")
    os.fsync(file.fileno())
    file.seek(0)
    assert file.read() == b"first second"
    fails(errno.ENOENT, link_open, file.fileno(), "again")
    file.close()
    assert get("file") == b"another one"
    # Nobody has O_TMPFILE here; programs fall back to a name that they remove.
    fails(errno.EOPNOTSUPP, os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o600)


@case
def renames():
    put("a", b"a")
    put("b", b"b")
    before = os.stat("a")
    os.rename("a", "b")
    after = os.stat("b")
    assert get("b") == b"a" and not os.path.exists("a")
    assert after.st_ino == before.st_ino and after.st_mtime_ns == before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    os.link("b", "same")
    os.rename("b", "same")
    assert os.path.exists("b") and os.path.exists("same"), "two names of one file stay"
    os.rename("b", "b")
    os.makedirs("dir/full")
    os.mkdir("empty")
    fails(errno.EISDIR, os.rename, "b", "dir")
    fails(errno.ENOTDIR, os.rename, "dir", "b")
    fails(errno.ENOTEMPTY, os.rename, "empty", "dir")
    fails(errno.EINVAL, os.rename, "dir", "dir/full/below")
    fails(errno.ENOENT, os.rename, "missing", "b")
    os.rename("dir", "empty")
    assert os.listdir("empty") == ["full"]
    assert os.stat("empty/full/..").st_ino == os.stat("empty").st_ino
    assert os.stat(".").st_nlink == 3 and os.stat("empty").st_nlink == 3
    fails(errno.EEXIST, renameat2, "b", "same", NOREPLACE)
    renameat2("b", "fresh", NOREPLACE)
    renameat2("fresh", "empty", EXCHANGE)
    assert os.path.isdir("fresh") and os.path.isfile("empty")
    fails(errno.ENOENT, renameat2, "fresh", "missing", EXCHANGE)
    fails(errno.EINVAL, renameat2, "fresh", "empty", EXCHANGE | NOREPLACE)
    # A directory that is somebody's working directory moves under him.
    os.chdir("fresh")
    os.rename("../fresh", "../moved")
    assert os.getcwd().endswith("/moved")
    put("here")
    os.chdir("..")
    assert os.path.exists("moved/here")


@case
def links():
    put("file", b"x")
    os.link("file", "other")
    assert os.stat("file").st_nlink == 2 and os.path.samefile("file", "other")
    fails(errno.EEXIST, os.link, "file", "other")
    os.mkdir("dir")
    fails(errno.EPERM, os.link, "dir", "again")
    os.symlink("file", "link")
    os.link("link", "hard", follow_symlinks=False)
    assert os.readlink("hard") == "file" and os.lstat("link").st_nlink == 2
    os.unlink("file")
    assert get("other") == b"x" and os.stat("other").st_nlink == 1
    fails(errno.EINVAL, os.readlink, "other")
    fails(errno.ENOENT, os.symlink, "", "nothing")
    os.symlink("t" * 4095, "long")
    assert os.lstat("long").st_size == 4095 and os.readlink("long") == "t" * 4095
    fails(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "longer")
    assert stat.S_IMODE(os.lstat("link").st_mode) == 0o777


@case
def directories():
    os.mkdir("dir")
    assert os.stat("dir").st_nlink == 2
    fails(errno.EEXIST, os.mkdir, "dir")
    fails(errno.ENOENT, os.mkdir, "missing/below")
    fails(errno.EISDIR, os.unlink, "dir")
    put("dir/file")
    fails(errno.ENOTDIR, os.rmdir, "dir/file")
    fails(errno.ENOTEMPTY, os.rmdir, "dir")
    fails(errno.EINVAL, os.rmdir, "dir/.")
    fails(errno.ENOTEMPTY, os.rmdir, "dir/..")
    os.unlink("dir/file")
    os.rmdir("dir")
    fails(errno.ENOENT, os.listdir, "dir")
    os.makedirs("/".join(["deep"] * 60))
    shutil.rmtree("deep")
    handle = os.open(".", os.O_RDONLY)
    os.mkdir("at", dir_fd=handle)
    os.close(os.open("at/file", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.fsync(handle)
    os.close(handle)
    assert os.listdir("at") == ["file"]


@case
def listings():
    for number in range(700):
        put(f"file-{number}")
    os.mkdir("dir")
    os.symlink("x", "link")
    kinds = {entry.name: (entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in os.scandir(".")}
    assert len(kinds) == 702 and kinds["dir"] == (True, False) and kinds["link"] == (False, True)
    for entry in os.scandir("."):
        assert entry.inode() == os.lstat(entry.name).st_ino
        break
    # As rm -r does it: entries go while they are listed.
    for entry in os.scandir("."):
        if entry.is_dir(follow_symlinks=False):
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
    assert os.listdir(".") == []


@case
def names():
    for name in [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"~", b"*", b"\xc3\xa9", b"e\xcc\x81", b"n" * 255, b"CASE", b"case"]:
        put(name, name)
    assert len(os.listdir(b".")) == 11
    assert all(get(name) == name for name in os.listdir(b"."))


@case
def modes_and_owners():
    mask = os.umask(0o027)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o777))
    os.mkdir("dir", 0o777)
    os.umask(mask)
    mode = lambda path: stat.S_IMODE(os.stat(path).st_mode)
    assert (mode("file"), mode("dir")) == (0o750, 0o750)
    os.chmod("file", 0o6711)
    assert mode("file") == 0o6711
    os.chown("file", 5, -1)
    assert os.stat("file").st_uid == 5 and os.stat("file").st_gid == os.getegid() and mode("file") == 0o711
    os.chown("dir", -1, 77)
    os.chmod("dir", 0o2775)
    put("dir/file")
    os.mkdir("dir/below")
    assert os.stat("dir/file").st_gid == 77 and os.stat("dir/below").st_gid == 77
    assert mode("dir/below") & 0o2000
    os.symlink("file", "link")
    os.lchown("link", 6, 6)
    assert os.lstat("link").st_uid == 6 and os.stat("link").st_uid == 5
    put("plain")
    os.chmod("plain", 0o444)
    assert os.access("plain", os.W_OK) and not os.access("plain", os.X_OK)
    handle = os.open("read-only", os.O_CREAT | os.O_WRONLY, 0o444)
    os.write(handle, b"as git does it")
    os.fchmod(handle, 0o400)
    os.close(handle)
    assert get("read-only") == b"as git does it"


@case
def times():
    put("file", b"x")
    os.utime("file", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    found = os.stat("file")
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)
    times = lambda atime, mtime: struct.pack("qqqq", *atime, *mtime)
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    assert LIBC.utimensat(-100, b"file", times((0, omit), (5, 7)), 0) == 0
    found = os.stat("file")
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 5_000_000_007)
    # Nothing to change is no change.
    assert LIBC.utimensat(-100, b"file", times((0, omit), (0, omit)), 0) == 0
    assert os.stat("file").st_ctime_ns == found.st_ctime_ns
    assert LIBC.utimensat(-100, b"file", times((0, now), (0, omit)), 0) == 0
    assert abs(os.stat("file").st_atime - time.time()) < 60 and os.stat("file").st_mtime_ns == 5_000_000_007
    handle = os.open("file", os.O_RDONLY)
    os.utime(handle, ns=(1, 2))
    os.close(handle)
    assert os.stat("file").st_mtime_ns == 2
    os.symlink("file", "link")
    os.utime("link", ns=(3, 4), follow_symlinks=False)
    assert os.lstat("link").st_mtime_ns == 4 and os.stat("link").st_mtime_ns == 2
    # What changes which time.
    seen = lambda: (os.stat("file").st_mtime_ns, os.stat("file").st_ctime_ns)
    before = seen()
    get("file")
    assert seen() == before, "reading changes neither"
    os.chmod("file", 0o600)
    assert seen()[0] == before[0] and seen()[1] > before[1]
    before = seen()
    with open("file", "ab") as file:
        file.write(b"y")
    assert seen()[0] > before[0] and seen()[1] > before[1]
    before = os.stat(".").st_mtime_ns
    put("new")
    assert os.stat(".").st_mtime_ns > before
    before = os.stat(".").st_mtime_ns
    os.unlink("new")
    assert os.stat(".").st_mtime_ns > before
    # A time that is set stays when the file is closed afterwards, as cp -p and tar rely on.
    handle = os.open("copied", os.O_CREAT | os.O_WRONLY)
    os.write(handle, b"content")
    os.utime(handle, ns=(10, 20))
    os.close(handle)
    assert os.stat("copied").st_mtime_ns == 20


@case
def extended_attributes():
    put("file")
    os.setxattr("file", "user.name", b"value")
    assert os.getxattr("file", "user.name") == b"value" and os.listxattr("file") == ["user.name"]
    fails(errno.EEXIST, os.setxattr, "file", "user.name", b"", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, "file", "user.other", b"", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, "file", "user.other")
    fails(errno.ENODATA, os.removexattr, "file", "user.other")
    os.setxattr("file", "user.empty", b"")
    assert os.getxattr("file", "user.empty") == b""
    os.setxattr("file", "trusted.root", b"x")
    os.symlink("file", "link")
    fails(errno.EPERM, os.setxattr, "link", "user.name", b"", follow_symlinks=False)
    fails(errno.EOPNOTSUPP, os.setxattr, "file", "strange.name", b"")
    subprocess.run(["cp", "-a", "file", "copy"], check=True)
    assert os.getxattr("copy", "user.name") == b"value"


@case
def special_files():
    os.mkfifo("fifo")
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 20) == b"through"
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect("socket")
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert os.stat("null").st_rdev == os.makedev(1, 3) and stat.S_ISSOCK(os.stat("socket").st_mode)


@case
def locks():
    put("file", b"x" * 100)
    one, other = os.open("file", os.O_RDWR), os.open("file", os.O_RDWR)
    fcntl.flock(one, fcntl.LOCK_EX)
    fails(errno.EWOULDBLOCK, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(one, fcntl.LOCK_UN)
    fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.lockf(one, fcntl.LOCK_EX, 10, 0)
    if os.fork() == 0:
        handle = os.open("file", os.O_RDWR)
        try:
            fails(errno.EAGAIN, fcntl.lockf, handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.wait()[1] == 0


@case
def programs():
    shutil.copy(shutil.which("true"), "true")
    os.chmod("true", 0o755)
    subprocess.run(["./true"], check=True)
    put("script", b"#!/bin/sh\necho $0 $1\n")
    os.chmod("script", 0o755)
    assert subprocess.run(["./script", "x"], check=True, stdout=subprocess.PIPE).stdout == b"./script x\n"
    os.chmod("script", 0o644)
    fails(errno.EACCES, subprocess.run, ["./script"])
    shutil.copy(shutil.which("sleep"), "sleep")
    os.chmod("sleep", 0o755)
    running = subprocess.Popen(["./sleep", "60"])
    fails(errno.ETXTBSY, os.open, "sleep", os.O_WRONLY)
    os.unlink("sleep")
    running.kill()
    running.wait()


@case
def copies_inside_the_kernel():
    data = os.urandom(3_000_000)
    put("from", data)
    with open("from", "rb") as source, open("to", "wb") as target:
        left = len(data)
        while left > 0:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    assert get("to") == data
    with open("from", "rb") as source, open("sent", "wb") as target:
        offset = 0
        while offset < len(data):
            offset += os.sendfile(target.fileno(), source.fileno(), offset, len(data))
    assert get("sent") == data
    # Past the page cache, in whole pages.
    handle = os.open("direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    page[:6] = b"direct"
    assert os.pwrite(handle, page, 4096) == 4096
    os.close(handle)
    assert get("direct") == bytes(4096) + b"direct" + bytes(4090)


@case
def syncs():
    handle = os.open("file", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(handle, b"synced")
    os.fdatasync(handle)
    os.fsync(handle)
    LIBC.sync_file_range(handle, ctypes.c_long(0), ctypes.c_long(0), 7)
    assert LIBC.syncfs(handle) == 0
    os.close(handle)
    found = os.statvfs(".")
    assert found.f_namemax == 255 and found.f_bfree > 0 and found.f_favail > 0


@case
def an_editor_with_a_backup():
    put("text", b"old\n")
    os.chmod("text", 0o640)
    os.chown("text", 12, 13)
    reader = open("text", "rb")
    os.rename("text", "text~")
    handle = os.open("text", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.write(handle, b"new\n")
    os.fsync(handle)
    os.fchown(handle, 12, 13)
    os.close(handle)
    os.unlink("text~")
    found = os.stat("text")
    assert get("text") == b"new\n" and reader.read() == b"old\n"
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12, 13, 0o640)


@case
def an_editor_that_replaces():
    put("text", b"old\n")
    for number in range(20):
        text = b"version %d\n" % number
        with open(".text.tmp", "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(".text.tmp", "text")
        directory = os.open(".", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        assert get("text") == text
    # And without a sync before the rename: the new name shows the new bytes all the same.
    file = open("unsynced", "wb")
    file.write(b"dirty")
    file.flush()
    os.rename("unsynced", "text")
    assert get("text") == b"dirty"
    file.close()
    subprocess.run(["sed", "-i", "s/dirty/clean/", "text"], check=True)
    assert get("text") == b"clean" and os.listdir(".") == ["text"]


@case
def a_database():
    for journal in ["delete", "wal"]:
        name = f"{journal}.db"
        base = sqlite3.connect(name)
        assert base.execute(f"pragma journal_mode={journal}").fetchone()[0] == journal
        base.execute("create table t (a integer primary key, b blob)")
        for number in range(5):
            with base:
                base.executemany("insert into t (b) values (?)", [(os.urandom(500),) for _ in range(20)])
        base.close()
        base = sqlite3.connect(name)
        assert base.execute("select count(*), sum(length(b)) from t").fetchone() == (100, 50_000)
        assert base.execute("pragma integrity_check").fetchone()[0] == "ok"
        base.close()


def main():
    top, bad = os.getcwd(), 0
    wanted = sys.argv[1:]
    for function in CASES:
        if wanted and function.__name__ not in wanted:
            continue
        os.mkdir(function.__name__)
        os.chdir(function.__name__)
        try:
            function()
        except BaseException:
            bad += 1
            print(f"-- {function.__name__}\n{traceback.format_exc(limit=-2)}")
        os.chdir(top)
    sys.exit(bad)


main()
