//! The adapter between the kernel and a volume: the only file that names `fuser`.
//!
//! Each request is turned into one call of the volume and its result into one reply. There is no state here but the
//! volume: the kernel's node ids are its inode numbers, look-ups are not counted, and an open file is a count in the
//! volume. What may wait runs in [`Lanes`].
//!
//! Only this daemon changes the volume, so the kernel may keep what it was told: names, attributes and the absence of
//! names for an hour, pages and listings until they are changed through it.

use std::ffi::OsStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_volume::{
    Attr, Caller, DirItem, Error, FileKind, RenameMode, SeekTo, SetAttr, TimeChange, Timestamp, Volume,
    XattrMode,
};
use fuser::{
    AccessFlags, BackgroundSession, BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle,
    FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    MountOption, Notifier, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL,
    TimeOrNow, WriteFlags,
};
use tracing::{debug, error};

use crate::lanes::{self, Lanes};
use crate::options::MountOptions;

/// How long the kernel may keep names, attributes and the absence of names.
const TTL: Duration = Duration::from_secs(3600);
/// Bytes in one `write` of the kernel's.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that nobody waits for (readahead, asynchronous I/O) in flight.
const MAX_BACKGROUND: u16 = 64;
/// `st_blksize`: what stdio buffers and `cp` copies at a time. One request costs far more than copying 128 KiB.
const BLOCK_SIZE: u32 = 128 << 10;
/// The most names looked up for one reply of readdirplus before they are put into it.
const LISTING_BATCH: usize = 64;

/// What is asked of the kernel. What it does not offer is done without.
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // The umask and default ACLs are applied by the volume, which sees both.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PARALLEL_DIROPS,
];

// Linux's values, which the FUSE protocol passes through.
const O_TRUNC: i32 = 0o1000;
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const SET_ID_BITS: u16 = 0o6000;

/// A mounted volume whose requests are being answered.
pub(crate) struct Mounted {
    /// Never dropped: fuser 0.18 would then unmount whatever is at the mountpoint by that time (its `is_mounted` takes
    /// "gone" for "there"), after a lazy unmount some other filesystem. The daemon unmounts by itself, and what is left
    /// here, a descriptor of a connection that has ended, goes with the process.
    _session: ManuallyDrop<BackgroundSession>,
    /// Disconnected when the adapter is dropped.
    alive: Receiver<()>,
}

impl Mounted {
    /// Returns when the kernel will send nothing more and every request has been answered.
    pub(crate) fn wait(self) {
        // Nothing is ever sent.
        let _ = self.alive.recv();
    }
}

/// Mounts `volume` at `mountpoint` and starts answering. `source` is what mountinfo shows: the volume's directory.
///
/// When this returns, the kernel and the adapter have agreed on everything; the mount answers.
pub(crate) fn mount(
    volume: Arc<Volume>,
    mountpoint: &Path,
    source: &str,
    options: &MountOptions,
) -> io::Result<Mounted> {
    let readers = lanes::readers();
    let notifier = Arc::new(OnceLock::new());
    let (answering, alive) = channel();
    let adapter = Adapter {
        no_open: AtomicBool::new(false),
        read_only: volume.is_read_only(),
        notifier: notifier.clone(),
        volume,
        lanes: Lanes::new(readers)?,
        _answering: answering,
    };
    let session = Session::new(adapter, mountpoint, &config(readers, source, options))?;
    // Empty until now, so this sets it.
    let _ = notifier.set(session.notifier());
    session.spawn().map(|session| Mounted { _session: ManuallyDrop::new(session), alive })
}

/// `fuser` makes a mount nosuid and nodev unless told otherwise.
fn config(readers: usize, source: &str, options: &MountOptions) -> Config {
    let chosen = [
        (options.read_only, MountOption::RO),
        (options.suid, MountOption::Suid),
        (options.dev, MountOption::Dev),
        (options.noexec, MountOption::NoExec),
        (options.noatime, MountOption::NoAtime),
    ];
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.to_string()),
        // Not `Subtype`, which `fuser` does not hand to the kernel when it mounts by itself.
        MountOption::CUSTOM("subtype=cairn".to_string()),
        MountOption::DefaultPermissions,
    ];
    config.mount_options.extend(chosen.into_iter().filter(|(on, _)| *on).map(|(_, option)| option));
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(readers);
    config
}

/// The one table from the volume's errors to the kernel's.
fn errno(error: Error) -> Errno {
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

/// Calls the volume. A panic in it becomes `EIO` and a line in the log, not a mount that hangs.
fn call<T>(operation: &'static str, ino: u64, f: impl FnOnce() -> Result<T, Error>) -> Result<T, Errno> {
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

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn file_type(kind: FileKind) -> FileType {
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
fn file_attr(attr: &Attr) -> FileAttr {
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

fn generation(attr: &Attr) -> Generation {
    Generation(u64::from(attr.generation))
}

/// Attributes of nothing: number 0 tells the kernel that there is no such name, and that it may remember so.
fn no_such_name() -> FileAttr {
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
fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|s| s.checked_add(Duration::from_nanos(u64::from(time.nanos)))).unwrap_or(UNIX_EPOCH)
}

/// A time the kernel sent, undoing what `fuser` 0.18 does to it.
///
/// For seconds before 1970 it subtracts the nanoseconds that it should add (`system_time_from_time`, "TODO:
/// 1_000_000_000 - nsec"): the distance from 1970 has the kernel's seconds and nanoseconds as they came, only without the
/// sign. The version is pinned, and a test on a mount holds this.
fn timestamp_from_fuser(time: SystemTime) -> Timestamp {
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

fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::To(timestamp_from_fuser(time)),
    }
}

fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    match flags {
        f if f.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Errno::EINVAL),
    }
}

fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Set),
        XATTR_CREATE => Ok(XattrMode::Create),
        XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<Attr, Errno>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &file_attr(&attr), generation(&attr)),
        Err(e) => reply.error(e),
    }
}

fn reply_attr(reply: ReplyAttr, result: Result<Attr, Errno>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &file_attr(&attr)),
        Err(e) => reply.error(e),
    }
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

/// `size` 0 asks for the length only.
fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Errno>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match result {
        Ok(bytes) if size == 0 => reply.size(length(&bytes)),
        Ok(bytes) if length(&bytes) > size => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(e) => reply.error(e),
    }
}

/// Answers requests from a volume.
struct Adapter {
    volume: Arc<Volume>,
    /// The volume takes no writes, so what is open need not be counted.
    read_only: bool,
    /// Read-only, and the kernel does without telling of open and close.
    no_open: AtomicBool,
    /// Set before the first request but INIT.
    notifier: Arc<OnceLock<Notifier>>,
    lanes: Lanes,
    /// Dropped after the lanes, so when they have done what they had to do.
    _answering: Sender<()>,
}

impl Adapter {
    /// Runs `f`, which changes names or attributes, where it may wait.
    fn change(&self, f: impl FnOnce(&Volume) + Send + 'static) {
        let volume = self.volume.clone();
        self.lanes.names.run(move || f(&volume));
    }

    /// Runs `f`, which reads or syncs, where it may wait.
    fn transfer(&self, f: impl FnOnce(&Volume) + Send + 'static) {
        let volume = self.volume.clone();
        self.lanes.data.run(move || f(&volume));
    }

    /// Writes, and if that took away set-user-id or set-group-id bits has the kernel forget the mode it remembers, which
    /// it does not by itself.
    fn write_to(
        volume: &Volume,
        notifier: &OnceLock<Notifier>,
        ino: u64,
        offset: u64,
        data: &[u8],
        clear_privileges: bool,
    ) -> Result<u32, Errno> {
        let had_privileges =
            clear_privileges && call("write", ino, || volume.getattr(ino))?.perm & SET_ID_BITS != 0;
        call("write", ino, || volume.write(ino, offset, data, clear_privileges))?;
        if let (true, Some(notifier)) = (had_privileges, notifier.get()) {
            // A negative offset: attributes only, no pages, so this waits for nobody. It fails if the kernel has
            // forgotten the inode, which is as good.
            let _ = notifier.inval_inode(INodeNo(ino), -1, 0);
        }
        // At most MAX_WRITE.
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }

    /// The names after `after`, at most [`LISTING_BATCH`], each with what `stat` tells of it.
    ///
    /// Attributes are fetched after the listing, not from inside it, where the volume may hold locks.
    fn list(&self, ino: u64, after: u64) -> Result<Vec<Listed>, Errno> {
        let mut names = Vec::with_capacity(LISTING_BATCH);
        call("readdirplus", ino, || {
            self.volume.readdir(ino, after, &mut |item: &DirItem<'_>| {
                names.push(Listed::new(item));
                names.len() < LISTING_BATCH
            })
        })?;
        for listed in &mut names {
            listed.attr = call("readdirplus", listed.ino, || self.volume.getattr(listed.ino));
        }
        Ok(names)
    }
}

/// A name in a directory and what it leads to.
struct Listed {
    name: Vec<u8>,
    ino: u64,
    kind: FileKind,
    cookie: u64,
    attr: Result<Attr, Errno>,
}

impl Listed {
    fn new(item: &DirItem<'_>) -> Listed {
        Listed {
            name: item.name.to_vec(),
            ino: item.ino,
            kind: item.kind,
            cookie: item.cookie,
            attr: Err(Errno::EIO),
        }
    }

    /// Puts it into `reply`; `true` if that was full.
    fn add_to(&self, reply: &mut ReplyDirectoryPlus) -> bool {
        let name = OsStr::from_bytes(&self.name);
        match &self.attr {
            Ok(attr) => {
                reply.add(INodeNo(self.ino), self.cookie, name, &TTL, &file_attr(attr), generation(attr))
            }
            // Gone between the listing and the look: not in the directory any more.
            Err(e) if [Errno::ESTALE.code(), Errno::ENOENT.code()].contains(&e.code()) => false,
            // Damaged: the name is listed all the same, with nothing that the kernel may remember. Whoever looks at it
            // gets the error then.
            Err(_) => {
                let attr = FileAttr { ino: INodeNo(self.ino), kind: file_type(self.kind), ..no_such_name() };
                reply.add(INodeNo(self.ino), self.cookie, name, &Duration::ZERO, &attr, Generation(0))
            }
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(*flag).is_err() {
                debug!(?flag, "the kernel does not offer this");
            }
        }
        // Both are within fuser's limits; were they not, its own values would do.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        let zero_message = InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        self.no_open.store(self.read_only && config.capabilities().contains(zero_message), Ordering::Relaxed);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match call("lookup", parent.0, || self.volume.lookup(parent.0, name.as_bytes())) {
            Ok(Some(attr)) => reply_entry(reply, Ok(attr)),
            Ok(None) => reply.entry(&TTL, &no_such_name(), Generation(0)),
            Err(e) => reply.error(e),
        }
    }

    fn forget(&self, _request: &Request, _ino: INodeNo, _lookups: u64) {}

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(reply, call("getattr", ino.0, || self.volume.getattr(ino.0)));
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
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = SetAttr {
            mode: mode.map(|m| m & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(time_change),
            mtime: mtime.map(time_change),
        };
        let caller = caller(request);
        self.change(move |volume| {
            reply_attr(reply, call("setattr", ino.0, || volume.setattr(ino.0, &change, &caller)));
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match call("readlink", ino.0, || self.volume.readlink(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(e),
        }
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
        let (name, caller) = (name.as_bytes().to_vec(), caller(request));
        self.change(move |volume| {
            let made = call("mknod", parent.0, || volume.mknod(parent.0, &name, mode, umask, rdev, &caller));
            reply_entry(reply, made);
        });
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
        let (name, caller) = (name.as_bytes().to_vec(), caller(request));
        self.change(move |volume| {
            reply_entry(
                reply,
                call("mkdir", parent.0, || volume.mkdir(parent.0, &name, mode, umask, &caller)),
            );
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(move |volume| {
            reply_empty(reply, call("unlink", parent.0, || volume.unlink(parent.0, &name)));
        });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(move |volume| {
            reply_empty(reply, call("rmdir", parent.0, || volume.rmdir(parent.0, &name)));
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (name, target) = (name.as_bytes().to_vec(), target.as_os_str().as_bytes().to_vec());
        let caller = caller(request);
        self.change(move |volume| {
            reply_entry(
                reply,
                call("symlink", parent.0, || volume.symlink(parent.0, &name, &target, &caller)),
            );
        });
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match rename_mode(flags) {
            Ok(mode) => mode,
            Err(e) => return reply.error(e),
        };
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.change(move |volume| {
            let renamed =
                call("rename", parent.0, || volume.rename(parent.0, &name, new_parent.0, &new_name, mode));
            reply_empty(reply, renamed);
        });
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.change(move |volume| {
            reply_entry(reply, call("link", ino.0, || volume.link(ino.0, parent.0, &name)));
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open.load(Ordering::Relaxed) {
            // The kernel takes this to mean that every open succeeds, and asks no more.
            return reply.error(Errno::ENOSYS);
        }
        let opened = |reply: ReplyOpen, result| match result {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(e) => reply.error(e),
        };
        if flags.0 & O_TRUNC == 0 {
            return opened(reply, call("open", ino.0, || self.volume.open(ino.0)));
        }
        let caller = caller(request);
        self.change(move |volume| {
            let result = call("open", ino.0, || {
                volume.open(ino.0)?;
                let empty = SetAttr { size: Some(0), ..SetAttr::default() };
                volume.setattr(ino.0, &empty, &caller).map(drop).inspect_err(|_| volume.release(ino.0))
            });
            opened(reply, result);
        });
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.transfer(move |volume| match call("read", ino.0, || volume.read(ino.0, offset, size)) {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(e),
        });
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let clear = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written = |reply: ReplyWrite, result| match result {
            Ok(count) => reply.written(count),
            Err(e) => reply.error(e),
        };
        if let Some(_leave) = self.lanes.data.enter() {
            return written(reply, Self::write_to(&self.volume, &self.notifier, ino.0, offset, data, clear));
        }
        let (volume, notifier, data) = (self.volume.clone(), self.notifier.clone(), data.to_vec());
        self.lanes.data.hand_over(Box::new(move || {
            written(reply, Self::write_to(&volume, &notifier, ino.0, offset, &data, clear));
        }));
    }

    /// Nothing is held back until a file is closed. The kernel takes this for an answer once and for all.
    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.change(move |volume| {
            let released = call("release", ino.0, || {
                volume.release(ino.0);
                Ok(())
            });
            reply_empty(reply, released);
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.transfer(move |volume| {
            reply_empty(reply, call("fsync", ino.0, || volume.fsync(ino.0, data_only)));
        });
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open.load(Ordering::Relaxed) {
            return reply.error(Errno::ENOSYS);
        }
        match call("opendir", ino.0, || self.volume.open(ino.0)) {
            // Without KEEP_CACHE the kernel would forget the listing at each open.
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE),
            Err(e) => reply.error(e),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = call("readdir", ino.0, || {
            self.volume.readdir(ino.0, offset, &mut |item| {
                !reply.add(INodeNo(item.ino), item.cookie, file_type(item.kind), OsStr::from_bytes(item.name))
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut after = offset;
        loop {
            let batch = match self.list(ino.0, after) {
                Ok(batch) => batch,
                // What is in the reply already would be lost with an error: the next request gets it.
                Err(_) if after != offset => break,
                Err(e) => return reply.error(e),
            };
            let full = batch.iter().any(|listed| listed.add_to(&mut reply));
            match batch.last() {
                Some(last) if !full && batch.len() == LISTING_BATCH => after = last.cookie,
                _ => break,
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.release(request, ino, handle, flags, None, false, reply);
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, ino, handle, data_only, reply);
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match call("statfs", ino.0, || self.volume.statfs()) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.free,
                s.available,
                s.files,
                s.files_free,
                s.block_size,
                255,
                s.block_size,
            ),
            Err(e) => reply.error(e),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match xattr_mode(flags) {
            Ok(mode) => mode,
            Err(e) => return reply.error(e),
        };
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.change(move |volume| {
            reply_empty(reply, call("setxattr", ino.0, || volume.setxattr(ino.0, &name, &value, mode)));
        });
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, call("getxattr", ino.0, || self.volume.getxattr(ino.0, name.as_bytes())));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, call("listxattr", ino.0, || self.volume.listxattr(ino.0)));
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(move |volume| {
            reply_empty(reply, call("removexattr", ino.0, || volume.removexattr(ino.0, &name)));
        });
    }

    /// The kernel checks permissions itself (`default_permissions`).
    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, caller) = (name.as_bytes().to_vec(), caller(request));
        self.change(move |volume| {
            match call("create", parent.0, || volume.create(parent.0, &name, mode, umask, &caller)) {
                Ok(attr) => reply.created(
                    &TTL,
                    &file_attr(&attr),
                    generation(&attr),
                    FileHandle(0),
                    FopenFlags::FOPEN_KEEP_CACHE,
                ),
                Err(e) => reply.error(e),
            }
        });
    }

    /// None of cairn's yet; the kernel tells the caller `ENOTTY`.
    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOSYS);
    }

    /// Files are always ready; the kernel says so by itself from then on.
    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    /// Not yet; the kernel tells callers `EOPNOTSUPP` and asks no more.
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
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let to = match whence {
            SEEK_DATA => SeekTo::Data,
            SEEK_HOLE => SeekTo::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.transfer(move |volume| match call("lseek", ino.0, || volume.seek(ino.0, offset, to)) {
            // A file is no longer than i64 can tell.
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(e) => reply.error(e),
        });
    }

    /// Not yet; the kernel copies through the page cache and asks no more.
    fn copy_file_range(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _to_ino: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
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
        assert_eq!(rename_mode(RenameFlags::empty()).ok(), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE).ok(), Some(RenameMode::Exchange));
        assert!(rename_mode(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_NOREPLACE).is_err());
        assert!(rename_mode(RenameFlags::RENAME_WHITEOUT).is_err());
        assert!(xattr_mode(3).is_err());
    }

    #[test]
    fn a_panic_in_the_volume_is_an_io_error() {
        let result: Result<(), Errno> = call("test", 1, || panic!("on purpose"));
        assert_eq!(result.map_err(Errno::code), Err(Errno::EIO.code()));
    }
}
