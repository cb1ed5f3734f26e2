//! A reply for each of the kernel's requests.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use cairn_volume::{Error, Request as Errand, SeekTo, SetAttr, Volume};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use serde_json::json;
use tracing::debug;

use super::attributes::Told;
use super::connection::{Gate, NO_INODE};
use super::convert::{
    TTL, allocate, call, caller, file_attr, file_type, generation, may_not_keep_privileges, no_such_name,
    rename_mode, reply_attr, reply_empty, reply_entry, reply_xattr, time_change, xattr_mode,
};
use super::forgets::Forgets;
use super::kernel::KernelCache;
use super::listing::{LISTING_BATCH, list};
use super::virtual_files::{self, VirtualFile, VirtualFiles};
use crate::lanes::Lanes;

/// Bytes in one `write` of the kernel's.
pub(super) const MAX_WRITE: u32 = 1 << 20;
/// Requests that nobody waits for (readahead, asynchronous I/O) in flight.
const MAX_BACKGROUND: u16 = 64;

/// With both the kernel takes `ENOSYS` for an answer to opens once and for all: they succeed, and are not told any more.
const OPENS_UNTOLD: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT.union(InitFlags::FUSE_NO_OPENDIR_SUPPORT);

/// What is asked of the kernel. What it does not offer is done without.
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // The umask and default ACLs are applied by the volume, which sees both.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Handles of files outlive the kernel's cache: it looks up "." in what they name.
    InitFlags::FUSE_EXPORT_SUPPORT,
    // What a process read and did not answer, the next is asked again.
    InitFlags::FUSE_HAS_RESEND,
];

/// `FUSE_UNIQUE_RESEND` of the protocol: this bit in a request's number says that it was sent before.
const RESENT: u64 = 1 << 63;

// Linux's values, which the FUSE protocol passes through.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const S_IFREG: u32 = 0o100_000;
const SET_ID_BITS: u16 = 0o6000;

/// Answers requests from a volume.
pub(super) struct Adapter {
    volume: Arc<Volume>,
    /// Opens are counted even where the kernel can do without telling of them.
    count_opens: bool,
    /// The kernel does without telling of open and close.
    no_open: bool,
    cache: Arc<KernelCache>,
    lanes: Lanes,
    forgets: Arc<Forgets>,
    files: Arc<VirtualFiles>,
    gate: Arc<Gate>,
    /// Dropped after the lanes, so when they have done what they had to do.
    _answering: Sender<()>,
}

impl Adapter {
    /// `cache` is connected before the first request but INIT; `answering` is dropped when all requests are answered.
    pub(super) fn new(
        volume: Arc<Volume>,
        files: VirtualFiles,
        cache: Arc<KernelCache>,
        lanes: Lanes,
        count_opens: bool,
        answering: Sender<()>,
    ) -> io::Result<Adapter> {
        let forgets = Arc::new(Forgets::new(volume.clone(), cache.clone())?);
        Ok(Adapter {
            volume,
            count_opens,
            no_open: false,
            cache,
            lanes,
            forgets,
            files: Arc::new(files),
            gate: Arc::default(),
            _answering: answering,
        })
    }

    pub(super) fn forgets(&self) -> Arc<Forgets> {
        self.forgets.clone()
    }

    /// Where readers wait before they read what the kernel has to say.
    pub(super) fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// A request that changes something, as the volume counts them.
    fn errand(&self, request: &Request) -> Errand {
        let number = request.unique().0;
        self.volume.request(number & !RESENT, number & RESENT != 0)
    }

    /// Runs `f`, which changes names or attributes and answers, where it may wait.
    fn change(&self, request: &Request, f: impl FnOnce(&Volume) + Send + 'static) {
        let (volume, errand) = (self.volume.clone(), self.errand(request));
        self.lanes.names.run(move || volume.on_behalf_of(errand, || f(&volume)));
    }

    /// Runs `f`, which reads or syncs, where it may wait.
    fn transfer(&self, f: impl FnOnce(&Volume) + Send + 'static) {
        let volume = self.volume.clone();
        self.lanes.data.run(move || f(&volume));
    }

    /// Runs `f`, which changes content and answers, where it may wait.
    fn change_data(&self, errand: Errand, f: impl FnOnce(&Volume) + Send + 'static) {
        let volume = self.volume.clone();
        self.lanes.data.run(move || volume.on_behalf_of(errand, || f(&volume)));
    }

    /// Changes a file's content by `f`, and if that took away set-user-id or set-group-id bits (`clear_privileges`) has
    /// the kernel forget the mode it remembers, which it does not by itself.
    fn change_content<T>(
        volume: &Volume,
        cache: &KernelCache,
        ino: u64,
        clear_privileges: bool,
        errand: Errand,
        f: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        // If it was done before, they are gone already.
        let had_privileges = clear_privileges
            && (errand.is_concluded()
                || call("getattr", ino, || volume.getattr(ino))?.perm & SET_ID_BITS != 0);
        let done = f()?;
        if had_privileges {
            cache.forget_attributes(ino);
        }
        Ok(done)
    }

    fn read_virtual(&self, file: VirtualFile, offset: u64, size: u32, reply: ReplyData) {
        let (files, forgets) = (self.files.clone(), self.forgets.clone());
        self.transfer(move |_| match call("read", file.ino(), || Ok(files.read(file, offset, size))) {
            Ok(data) => {
                reply.data(&data);
                forgets.drop_pages(file.ino(), virtual_files::STAYS);
            }
            Err(e) => reply.error(e),
        });
    }

    fn write_to(
        volume: &Volume,
        cache: &KernelCache,
        ino: u64,
        offset: u64,
        data: &[u8],
        clear_privileges: bool,
        errand: Errand,
    ) -> Result<u32, Errno> {
        Self::change_content(volume, cache, ino, clear_privileges, errand, || {
            call("write", ino, || volume.write(ino, offset, data, clear_privileges))
        })?;
        // At most MAX_WRITE.
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }
}

/// Asks the kernel for what is wanted of it; gives that.
pub(super) fn agree(config: &mut KernelConfig) -> InitFlags {
    for flag in WANTED {
        if config.add_capabilities(*flag).is_err() {
            debug!(?flag, "the kernel does not offer this");
        }
    }
    // Both are within fuser's limits; were they not, its own values would do.
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_background(MAX_BACKGROUND);
    WANTED.iter().fold(InitFlags::empty(), |all, flag| all | *flag)
}

/// Whether a name leads to a virtual file, and not to a real one.
fn is_virtual(volume: &Volume, parent: u64, name: &[u8]) -> Result<bool, Error> {
    match VirtualFile::named(parent, name) {
        Some(_) => Ok(volume.lookup(parent, name)?.is_none()),
        None => Ok(false),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = agree(config);
        self.no_open = config.capabilities().contains(OPENS_UNTOLD) && !self.count_opens;
        if self.no_open {
            self.volume.expect_forgets();
        }
        let names = |flags: InitFlags| -> Vec<_> {
            let names = flags.iter_names();
            names.map(|(name, _)| name.trim_start_matches("FUSE_").to_lowercase()).collect()
        };
        let kernel = json!({
            "protocol": config.kernel_abi().to_string(),
            "no_open": self.no_open,
            "features": names(wanted & config.capabilities()),
            "missing": names(wanted - config.capabilities()),
        });
        if let Some(files) = Arc::get_mut(&mut self.files) {
            files.set_kernel(kernel);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match call("lookup", parent.0, || self.volume.lookup(parent.0, name.as_bytes())) {
            // "." is for handles of what the kernel does not have: without a name it is as good as gone.
            Ok(Some(attr)) if attr.nlink == 0 => reply.error(Errno::ENOENT),
            Ok(Some(attr)) => reply_entry(reply, Ok(attr)),
            Ok(None) => match VirtualFile::named(parent.0, name.as_bytes()) {
                Some(file) => reply.entry(&Duration::ZERO, &self.files.attr(file), Generation(0)),
                None => reply.entry(&TTL, &no_such_name(), Generation(0)),
            },
            Err(e) => reply.error(e),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, _lookups: u64) {
        self.forgets.add(ino.0);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match VirtualFile::numbered(ino.0) {
            Some(file) => reply.attr(&Duration::ZERO, &self.files.attr(file)),
            None => reply_attr(reply, call("getattr", ino.0, || self.volume.getattr(ino.0))),
        }
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
        if VirtualFile::numbered(ino.0).is_some() {
            return reply.error(Errno::EPERM);
        }
        let change = SetAttr {
            mode: mode.map(|m| m & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(time_change),
            mtime: mtime.map(time_change),
        };
        let caller = caller(request);
        self.change(request, move |volume| {
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
        self.change(request, move |volume| {
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
        self.change(request, move |volume| {
            reply_entry(
                reply,
                call("mkdir", parent.0, || volume.mkdir(parent.0, &name, mode, umask, &caller)),
            );
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(request, move |volume| {
            let removed = call("unlink", parent.0, || match is_virtual(volume, parent.0, &name)? {
                true => Err(Error::NotPermitted),
                false => volume.unlink(parent.0, &name),
            });
            reply_empty(reply, removed);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(request, move |volume| {
            reply_empty(reply, call("rmdir", parent.0, || volume.rmdir(parent.0, &name)));
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (name, target) = (name.as_bytes().to_vec(), target.as_os_str().as_bytes().to_vec());
        let caller = caller(request);
        self.change(request, move |volume| {
            reply_entry(
                reply,
                call("symlink", parent.0, || volume.symlink(parent.0, &name, &target, &caller)),
            );
        });
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
        let mode = match rename_mode(flags, caller(request)) {
            Ok(mode) => mode,
            Err(e) => return reply.error(e),
        };
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.change(request, move |volume| {
            let renamed = call("rename", parent.0, || {
                if is_virtual(volume, parent.0, &name)? || is_virtual(volume, new_parent.0, &new_name)? {
                    return Err(Error::NotPermitted);
                }
                volume.rename(parent.0, &name, new_parent.0, &new_name, mode)
            });
            reply_empty(reply, renamed);
        });
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if VirtualFile::numbered(ino.0).is_some() {
            return reply.error(Errno::EPERM);
        }
        let name = name.as_bytes().to_vec();
        self.change(request, move |volume| {
            reply_entry(reply, call("link", ino.0, || volume.link(ino.0, parent.0, &name)));
        });
    }

    /// `O_TRUNC` does not come here: the kernel truncates by a `setattr` of its own.
    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            return reply.error(Errno::ENOSYS);
        }
        if VirtualFile::numbered(ino.0).is_some() {
            return reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        }
        match call("open", ino.0, || self.volume.open(ino.0)) {
            Ok(()) => reply.opened(FileHandle(self.volume.handle(ino.0)), FopenFlags::FOPEN_KEEP_CACHE),
            Err(e) => reply.error(e),
        }
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
        if let Some(file) = VirtualFile::numbered(ino.0) {
            return self.read_virtual(file, offset, size, reply);
        }
        self.transfer(move |volume| match call("read", ino.0, || volume.read(ino.0, offset, size)) {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(e),
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if ino.0 == NO_INODE {
            // To whoever sent it, who is gone behind the gate.
            reply.written(0);
            return self.gate.pass();
        }
        if VirtualFile::numbered(ino.0).is_some() {
            return reply.error(Errno::EPERM);
        }
        let clear = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written = |reply: ReplyWrite, result| match result {
            Ok(count) => reply.written(count),
            Err(e) => reply.error(e),
        };
        let errand = self.errand(request);
        if let Some(_leave) = self.lanes.data.enter() {
            let (volume, cache) = (&self.volume, &self.cache);
            return volume.on_behalf_of(errand, || {
                written(reply, Self::write_to(volume, cache, ino.0, offset, data, clear, errand));
            });
        }
        let (volume, cache, data) = (self.volume.clone(), self.cache.clone(), data.to_vec());
        self.lanes.data.hand_over(Box::new(move || {
            volume.on_behalf_of(errand, || {
                written(reply, Self::write_to(&volume, &cache, ino.0, offset, &data, clear, errand));
            });
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
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.change(request, move |volume| {
            let released = call("release", ino.0, || {
                volume.release_handle(handle.0);
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
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let handle = (!self.no_open).then_some(handle.0);
        self.transfer(move |volume| {
            let synced = call("fsync", ino.0, || match handle {
                Some(handle) => volume.fsync_handle(ino.0, handle, data_only),
                // One handle is as good as another.
                None => volume.fsync(ino.0, data_only),
            });
            reply_empty(reply, synced);
        });
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // The kernel must not cache listings, which it does for a daemon that is not told of opens (ENOSYS): whoever is
        // half way through a directory goes on in a listing that another process has completed meanwhile, without asking
        // whether it is older than what the first half was read from (fuse_readdir_cached looks at the beginning only).
        // Names that were removed before the directory was opened would be there again, and new ones would be missed.
        if self.no_open {
            return reply.opened(FileHandle(0), FopenFlags::empty());
        }
        match call("opendir", ino.0, || self.volume.open(ino.0)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
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
            let batch = match list(&self.volume, ino.0, after) {
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
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if VirtualFile::numbered(ino.0).is_some() || Told::named(name.as_bytes()).is_some() {
            return reply.error(Errno::EPERM);
        }
        let mode = match xattr_mode(flags) {
            Ok(mode) => mode,
            Err(e) => return reply.error(e),
        };
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.change(request, move |volume| {
            reply_empty(reply, call("setxattr", ino.0, || volume.setxattr(ino.0, &name, &value, mode)));
        });
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let Some(told) = Told::named(name.as_bytes()) else {
            let value = call("getxattr", ino.0, || self.volume.getxattr(ino.0, name.as_bytes()));
            return reply_xattr(reply, size, value);
        };
        self.transfer(move |volume| match call("getxattr", ino.0, || told.of(volume, ino.0)) {
            // It may have grown by the time it is fetched.
            Ok(value) if size == 0 => reply.size(value.len().next_multiple_of(1024) as u32),
            value => reply_xattr(reply, size, value),
        });
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, call("listxattr", ino.0, || self.volume.listxattr(ino.0)));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if VirtualFile::numbered(ino.0).is_some() || Told::named(name.as_bytes()).is_some() {
            return reply.error(Errno::EPERM);
        }
        let name = name.as_bytes().to_vec();
        self.change(request, move |volume| {
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
        let counted = !self.no_open;
        self.change(request, move |volume| {
            let made = call("create", parent.0, || match counted {
                true => volume.create(parent.0, &name, mode, umask, &caller),
                // Whether its RELEASE is sent where opens are not told depends on the kernel's version.
                false => volume.mknod(parent.0, &name, S_IFREG | mode & 0o7777, umask, 0, &caller),
            });
            match made {
                Ok(attr) => reply.created(
                    &TTL,
                    &file_attr(&attr),
                    generation(&attr),
                    FileHandle(if counted { volume.handle(attr.ino) } else { 0 }),
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

    /// The kernel forgets the attributes and the pages concerned by itself.
    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if VirtualFile::numbered(ino.0).is_some() {
            return reply.error(Errno::EPERM);
        }
        let Some(how) = allocate(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let clear = may_not_keep_privileges(request);
        self.change_data(self.errand(request), move |volume| {
            let done = call("fallocate", ino.0, || volume.allocate(ino.0, offset, length, how, clear));
            reply_empty(reply, done);
        });
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
        if let Some(file) = VirtualFile::numbered(ino.0) {
            let end = self.files.attr(file).size;
            return match to {
                _ if offset >= end => reply.error(Errno::ENXIO),
                SeekTo::Data => reply.offset(offset as i64),
                SeekTo::Hole => reply.offset(end as i64),
            };
        }
        self.transfer(move |volume| match call("lseek", ino.0, || volume.seek(ino.0, offset, to)) {
            // A file is no longer than i64 can tell.
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(e) => reply.error(e),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        to_ino: INodeNo,
        _to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel lets none through yet; what one of them would mean is not known.
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        if VirtualFile::numbered(to_ino.0).is_some() {
            return reply.error(Errno::EPERM);
        }
        if VirtualFile::numbered(ino.0).is_some() {
            // The kernel reads and writes instead.
            return reply.error(Errno::EOPNOTSUPP);
        }
        let clear = may_not_keep_privileges(request);
        let (cache, errand) = (self.cache.clone(), self.errand(request));
        self.change_data(errand, move |volume| {
            let copied = Self::change_content(volume, &cache, to_ino.0, clear, errand, || {
                call("copy_file_range", to_ino.0, || {
                    volume.copy_range((ino.0, offset), (to_ino.0, to_offset), length, clear)
                })
            });
            match copied {
                // The volume copies at most 1 GiB at a time.
                Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
                Err(e) => reply.error(e),
            }
        });
    }
}
