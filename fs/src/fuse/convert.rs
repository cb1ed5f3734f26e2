//! Between the volume's terms and the kernel's: errors, attributes, times, flags, replies.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cairn_volume::{Allocate, Attr, Caller, Error, FileKind, RenameMode, TimeChange, Timestamp, XattrMode};
use fuser::{
    Errno, FileAttr, FileType, Generation, INodeNo, RenameFlags, ReplyAttr, ReplyEmpty, ReplyEntry,
    ReplyXattr, Request, TimeOrNow,
};
use tracing::{debug, error};

/// How long the kernel may keep names, attributes and the absence of names.
pub(super) const TTL: Duration = Duration::from_secs(3600);
/// `st_blksize`: what stdio buffers and `cp` copies at a time. One request costs far more than copying 128 KiB.
const BLOCK_SIZE: u32 = 128 << 10;

// Linux's values, which the FUSE protocol passes through.
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;
const FALLOC_KEEP_SIZE: i32 = 0x01;
const FALLOC_PUNCH_HOLE: i32 = 0x02;
const FALLOC_ZERO_RANGE: i32 = 0x10;
const PUNCH_KEEPING_SIZE: i32 = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
const ZERO_KEEPING_SIZE: i32 = FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE;

/// The one table from the volume's errors to the kernel's.
pub(super) fn errno(error: Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Stale => Errno::ESTALE,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::Invalid => Errno::EINVAL,
        Error::NotPermitted => Errno::EPERM,
        Error::TooBig => Errno::EFBIG,
        Error::TooManyLinks => Errno::EMLINK,
        Error::NoAttribute => Errno::ENODATA,
        Error::AttributeTooBig => Errno::E2BIG,
        Error::NotSupported => Errno::EOPNOTSUPP,
        Error::NoData => Errno::ENXIO,
        Error::NoSpace => Errno::ENOSPC,
        Error::ReadOnly => Errno::EROFS,
        Error::Io => Errno::EIO,
    }
}

/// How many calls of the volume are under way, and whether there are to be no more.
struct Calls {
    under_way: AtomicUsize,
    ended: AtomicBool,
}

static CALLS: Calls = Calls { under_way: AtomicUsize::new(0), ended: AtomicBool::new(false) };

impl Calls {
    /// One more, unless there are to be none: then nobody hears what comes of it.
    fn begin(&self) -> Option<Call<'_>> {
        // In this order, and `end_calls` in the other: one of the two sees the other.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let call = Call(self);
        (!self.ended.load(Ordering::SeqCst)).then_some(call)
    }
}

struct Call<'a>(&'a Calls);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets no more calls through, and returns when none is under way. The kernel must not hear of those that are refused.
pub(super) fn end_calls(patience: Duration) -> io::Result<()> {
    CALLS.ended.store(true, Ordering::SeqCst);
    let since = Instant::now();
    while CALLS.under_way.load(Ordering::SeqCst) > 0 {
        if since.elapsed() > patience {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Calls the volume. A panic in it becomes `EIO` and a line in the log, not a mount that hangs.
pub(super) fn call<T>(
    operation: &'static str,
    ino: u64,
    f: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Errno> {
    let Some(_call) = CALLS.begin() else { return Err(Errno::EIO) };
    // Nothing here outlives the call that a panic could leave half done; the volume answers for its own state.
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|e| {
            debug!(operation, ino, "{e}");
            errno(e)
        }),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            error!(operation, ino, "a bug: the volume panicked ({what}); the caller gets an I/O error");
            Err(Errno::EIO)
        }
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// What the kernel is told of `attr`.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(super) fn generation(attr: &Attr) -> Generation {
    Generation(u64::from(attr.generation))
}

/// Attributes of nothing: number 0 tells the kernel that there is no such name, and that it may remember so.
pub(super) fn no_such_name() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// `secs` may be negative, `nanos` always counts forwards: -1 s and 800,000,000 ns is 0.2 s before 1970.
pub(super) fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|s| s.checked_add(Duration::from_nanos(u64::from(time.nanos)))).unwrap_or(UNIX_EPOCH)
}

/// A time the kernel sent, undoing what `fuser` 0.18 does to it.
///
/// For seconds before 1970 it subtracts the nanoseconds that it should add (`system_time_from_time`, "TODO:
/// 1_000_000_000 - nsec"): the distance from 1970 has the kernel's seconds and nanoseconds as they came, only without the
/// sign. The version is pinned, and a test on a mount holds this.
pub(super) fn timestamp_from_fuser(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            Timestamp { secs: after.as_secs().try_into().unwrap_or(i64::MAX), nanos: after.subsec_nanos() }
        }
        Err(before) => {
            let distance = before.duration();
            Timestamp {
                secs: 0_i64.saturating_sub_unsigned(distance.as_secs()),
                nanos: distance.subsec_nanos(),
            }
        }
    }
}

pub(super) fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::To(timestamp_from_fuser(time)),
    }
}

/// What `fallocate`'s mode asks for, if a volume can do it.
pub(super) fn allocate(mode: i32) -> Option<Allocate> {
    match mode {
        0 => Some(Allocate::Reserve),
        FALLOC_KEEP_SIZE => Some(Allocate::ReserveKeepSize),
        PUNCH_KEEPING_SIZE => Some(Allocate::Punch),
        FALLOC_ZERO_RANGE => Some(Allocate::Zero),
        ZERO_KEEPING_SIZE => Some(Allocate::ZeroKeepSize),
        _ => None,
    }
}

/// Whether a change of content by this caller takes a file's set-user-id bit and the like away.
pub(super) fn may_not_keep_privileges(request: &Request) -> bool {
    request.uid() != 0
}

pub(super) fn rename_mode(flags: RenameFlags, owner: Caller) -> Result<RenameMode, Errno> {
    let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
    match flags {
        f if f.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        f if f - RenameFlags::RENAME_NOREPLACE == RenameFlags::RENAME_WHITEOUT => {
            Ok(RenameMode::Whiteout { replace, owner })
        }
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Set),
        XATTR_CREATE => Ok(XattrMode::Create),
        XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn reply_entry(reply: ReplyEntry, result: Result<Attr, Errno>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &file_attr(&attr), generation(&attr)),
        Err(e) => reply.error(e),
    }
}

pub(super) fn reply_attr(reply: ReplyAttr, result: Result<Attr, Errno>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &file_attr(&attr)),
        Err(e) => reply.error(e),
    }
}

pub(super) fn reply_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

/// `size` 0 asks for the length only.
pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Errno>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match result {
        Ok(bytes) if size == 0 => reply.size(length(&bytes)),
        Ok(bytes) if length(&bytes) > size => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(e) => reply.error(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_on_both_sides_of_1970() {
        let at = |secs, nanos| system_time(Timestamp { secs, nanos });
        assert_eq!(at(1, 5), UNIX_EPOCH + Duration::new(1, 5));
        assert_eq!(at(-1, 800_000_000), UNIX_EPOCH - Duration::from_millis(200));
        assert_eq!(at(-2, 0), UNIX_EPOCH - Duration::from_secs(2));
        at(i64::MIN, 999_999_999);
        at(i64::MAX, 999_999_999);
    }

    #[test]
    fn fusers_times_before_1970_are_put_right() {
        // The kernel sends -2 s and 800,000,000 ns; fuser makes of it 1970 less 2.8 s.
        let from_fuser = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp_from_fuser(from_fuser), Timestamp { secs: -2, nanos: 800_000_000 });
        let later = UNIX_EPOCH + Duration::new(7, 9);
        assert_eq!(timestamp_from_fuser(later), Timestamp { secs: 7, nanos: 9 });
    }

    #[test]
    fn flags_that_are_not_known_are_refused() {
        let owner = Caller { uid: 1, gid: 2 };
        let mode = |flags| rename_mode(flags, owner).ok();
        assert_eq!(mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(mode(RenameFlags::RENAME_EXCHANGE), Some(RenameMode::Exchange));
        assert_eq!(mode(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_NOREPLACE), None);
        assert_eq!(mode(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT), None);
        let whiteout = |replace| Some(RenameMode::Whiteout { replace, owner });
        assert_eq!(mode(RenameFlags::RENAME_WHITEOUT), whiteout(true));
        assert_eq!(mode(RenameFlags::RENAME_WHITEOUT | RenameFlags::RENAME_NOREPLACE), whiteout(false));
        assert!(xattr_mode(3).is_err());
        assert_eq!(allocate(PUNCH_KEEPING_SIZE), Some(Allocate::Punch));
        // Alone it means nothing; collapsing and inserting are not offered.
        for mode in [FALLOC_PUNCH_HOLE, FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE, 0x08, 0x20, 0x40, -1] {
            assert_eq!(allocate(mode), None, "{mode:#x}");
        }
    }

    #[test]
    fn a_panic_in_the_volume_is_an_io_error() {
        let result: Result<(), Errno> = call("test", 1, || panic!("on purpose"));
        assert_eq!(result.map_err(Errno::code), Err(Errno::EIO.code()));
    }
}
