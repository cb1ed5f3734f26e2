//! A FUSE filesystem that keeps everything in memory: the floor under what any filesystem on `fuser` can take.
//!
//! Usage: `memfs MOUNTPOINT`, as root. Runs until it is unmounted; what was in it is gone then.
//!
//! Flags, lifetimes of names and attributes, and the number of threads are cairn's (`fs/src/fuse/`), so that the
//! difference between the two is what cairn does beyond answering the kernel. Made to be measured, not to be used: one
//! lock around everything, no default ACLs, no limits.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow, WriteFlags,
};

const TTL: Duration = Duration::from_secs(3600);
const MAX_WRITE: u32 = 1 << 20;
const MAX_BACKGROUND: u16 = 64;
const BLOCK_SIZE: u32 = 128 << 10;
/// The unit in which content is kept; what was never written is not.
const BLOCK: usize = 128 << 10;
const THREADS: usize = 6;
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PARALLEL_DIROPS,
];

// Linux's values, which the FUSE protocol passes through.
const O_TRUNC: i32 = 0o1000;
const SEEK_DATA: i32 = 3;
const S_IFMT: u32 = 0o170_000;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [mountpoint] = arguments.as_slice() else {
        eprintln!("Usage: memfs MOUNTPOINT");
        return ExitCode::from(2);
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("memfs".into()),
        MountOption::DefaultPermissions,
        MountOption::Suid,
        MountOption::Dev,
    ];
    config.acl = SessionACL::Owner;
    config.n_threads = Some(THREADS);
    match fuser::mount(MemFs(Mutex::new(Tree::new())), mountpoint, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("memfs: {}: {e}", Path::new(mountpoint).display());
            ExitCode::FAILURE
        }
    }
}

/// A directory's names, each under a number that stays while others come and go.
#[derive(Default)]
struct Names {
    by_name: HashMap<Vec<u8>, u64>,
    /// Number to name and inode.
    listed: BTreeMap<u64, (Vec<u8>, u64)>,
    /// The number given out last; `.` and `..` are 1 and 2.
    last: u64,
}

enum Content {
    File(BTreeMap<u64, Box<[u8]>>),
    Directory(Names),
    Symlink(Vec<u8>),
    Special,
}

struct Node {
    attr: FileAttr,
    parent: u64,
    open: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Content,
}

impl Node {
    fn names(&mut self) -> Result<&mut Names, Errno> {
        match &mut self.content {
            Content::Directory(names) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn changed(&mut self) {
        self.attr.mtime = SystemTime::now();
        self.attr.ctime = self.attr.mtime;
    }

    fn resize(&mut self, size: u64) {
        let Content::File(blocks) = &mut self.content else { return };
        if size < self.attr.size {
            let (first, within) = (size / BLOCK as u64, (size % BLOCK as u64) as usize);
            drop(blocks.split_off(&(first + u64::from(within > 0))));
            if let Some(block) = blocks.get_mut(&first) {
                block[within..].fill(0);
            }
        }
        self.attr.size = size;
        self.attr.blocks = (blocks.len() * BLOCK / 512) as u64;
        self.changed();
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) -> Result<(), Errno> {
        let Content::File(blocks) = &mut self.content else { return Err(Errno::EINVAL) };
        while !data.is_empty() {
            let within = (offset % BLOCK as u64) as usize;
            let (now, later) = data.split_at(data.len().min(BLOCK - within));
            let block =
                blocks.entry(offset / BLOCK as u64).or_insert_with(|| vec![0; BLOCK].into_boxed_slice());
            block[within..within + now.len()].copy_from_slice(now);
            offset += now.len() as u64;
            data = later;
        }
        self.attr.size = self.attr.size.max(offset);
        self.attr.blocks = (blocks.len() * BLOCK / 512) as u64;
        self.changed();
        Ok(())
    }

    fn read(&self, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let Content::File(blocks) = &self.content else { return Err(Errno::EISDIR) };
        let end = self.attr.size.min(offset.saturating_add(size.into()));
        let mut data = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let within = (at % BLOCK as u64) as usize;
            let len = ((end - at) as usize).min(BLOCK - within);
            match blocks.get(&(at / BLOCK as u64)) {
                Some(block) => data.extend_from_slice(&block[within..within + len]),
                None => data.resize(data.len() + len, 0),
            }
            at += len as u64;
        }
        Ok(data)
    }
}

struct Tree {
    nodes: HashMap<u64, Node>,
    last: u64,
}

impl Tree {
    fn new() -> Tree {
        let mut tree = Tree { nodes: HashMap::new(), last: 0 };
        tree.insert(1, FileType::Directory, 0o755, (0, 0), Content::Directory(Names::default()));
        tree
    }

    fn insert(
        &mut self,
        parent: u64,
        kind: FileType,
        perm: u32,
        owner: (u32, u32),
        content: Content,
    ) -> FileAttr {
        self.last += 1;
        let now = SystemTime::now();
        let size = match &content {
            Content::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let attr = FileAttr {
            ino: INodeNo(self.last),
            size,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm: (perm & 0o7777) as u16,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: owner.0,
            gid: owner.1,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        };
        self.nodes.insert(self.last, Node { attr, parent, open: 0, xattrs: BTreeMap::new(), content });
        attr
    }

    fn node(&mut self, ino: INodeNo) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino.0).ok_or(Errno::ESTALE)
    }

    fn find(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        let names = self.node(parent)?.names()?;
        let number = names.by_name.get(name.as_bytes()).ok_or(Errno::ENOENT)?;
        Ok(names.listed[number].1)
    }

    fn enter(&mut self, parent: INodeNo, name: &OsStr, ino: u64) -> Result<(), Errno> {
        let directory = self.node(parent)?;
        directory.changed();
        let names = directory.names()?;
        names.last = names.last.max(2) + 1;
        names.by_name.insert(name.as_bytes().to_vec(), names.last);
        names.listed.insert(names.last, (name.as_bytes().to_vec(), ino));
        Ok(())
    }

    fn take(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        let directory = self.node(parent)?;
        directory.changed();
        let names = directory.names()?;
        let number = names.by_name.remove(name.as_bytes()).ok_or(Errno::ENOENT)?;
        names.listed.remove(&number).map(|(_, ino)| ino).ok_or(Errno::ENOENT)
    }

    /// A new inode under a name; a directory counts as a link to its parent.
    fn make(
        &mut self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: FileType,
        perm: u32,
        content: Content,
    ) -> Result<FileAttr, Errno> {
        if self.find(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let above = self.node(parent)?.attr;
        let inherits = above.perm & 0o2000 != 0;
        let gid = if inherits { above.gid } else { request.gid() };
        let is_dir = kind == FileType::Directory;
        let perm = perm | if inherits && is_dir { 0o2000 } else { 0 };
        let attr = self.insert(parent.0, kind, perm, (request.uid(), gid), content);
        self.enter(parent, name, attr.ino.0)?;
        if is_dir {
            self.node(parent)?.attr.nlink += 1;
        }
        Ok(attr)
    }

    /// Takes a name away, and with the last name and the last user the inode.
    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let ino = INodeNo(self.find(parent, name)?);
        let node = self.node(ino)?;
        let is_dir = node.attr.kind == FileType::Directory;
        if is_dir && !node.names()?.listed.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        node.attr.nlink -= if is_dir { 2 } else { 1 };
        node.attr.ctime = SystemTime::now();
        self.take(parent, name)?;
        if is_dir {
            self.node(parent)?.attr.nlink -= 1;
        }
        self.reap(ino);
        Ok(())
    }

    fn reap(&mut self, ino: INodeNo) {
        if self.nodes.get(&ino.0).is_some_and(|node| node.attr.nlink == 0 && node.open == 0) {
            self.nodes.remove(&ino.0);
        }
    }

    fn rename(
        &mut self,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(Errno::EINVAL);
        }
        let ino = self.find(parent, name)?;
        match self.find(new_parent, new_name) {
            Ok(there) if there == ino => return Ok(()),
            Ok(_) if flags.contains(RenameFlags::RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            Ok(_) => self.remove(new_parent, new_name)?,
            Err(_) => {}
        }
        self.take(parent, name)?;
        self.enter(new_parent, new_name, ino)?;
        let node = self.node(INodeNo(ino))?;
        node.parent = new_parent.0;
        if node.attr.kind == FileType::Directory {
            self.node(parent)?.attr.nlink -= 1;
            self.node(new_parent)?.attr.nlink += 1;
        }
        Ok(())
    }

    /// Names after number `after`, each with its number, inode and attributes.
    fn list(&mut self, ino: INodeNo, after: u64) -> Result<Vec<(u64, Vec<u8>, FileAttr)>, Errno> {
        let node = self.node(ino)?;
        let (attr, parent) = (node.attr, node.parent);
        let names = node.names()?;
        let found: Vec<_> =
            names.listed.range(after.max(2) + 1..).map(|(n, (s, i))| (*n, s.clone(), *i)).collect();
        let above = self.node(INodeNo(parent))?.attr;
        let mut all = Vec::with_capacity(found.len() + 2);
        all.extend((after < 1).then(|| (1, b".".to_vec(), attr)));
        all.extend((after < 2).then(|| (2, b"..".to_vec(), above)));
        for (number, name, ino) in found {
            all.push((number, name, self.node(INodeNo(ino))?.attr));
        }
        Ok(all)
    }
}

fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => time,
    }
}

fn special(mode: u32) -> FileType {
    match mode & S_IFMT {
        0o010_000 => FileType::NamedPipe,
        0o020_000 => FileType::CharDevice,
        0o060_000 => FileType::BlockDevice,
        0o140_000 => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn reply_entry(reply: ReplyEntry, made: Result<FileAttr, Errno>) {
    match made {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(e) => reply.error(e),
    }
}

fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

fn reply_xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(e) => reply.error(e),
    }
}

struct MemFs(Mutex<Tree>);

impl MemFs {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filesystem for MemFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            // What the kernel does not offer is done without.
            let _ = config.add_capabilities(*flag);
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.tree();
        match tree.find(parent, name).and_then(|ino| tree.node(INodeNo(ino)).map(|node| node.attr)) {
            Err(e) if e.code() == Errno::ENOENT.code() => {
                // Number 0: there is no such name, and the kernel may remember so.
                let none = tree.nodes.get(&1).map(|root| FileAttr { ino: INodeNo(0), ..root.attr });
                reply_entry(reply, none.ok_or(Errno::EIO));
            }
            found => reply_entry(reply, found),
        }
    }

    fn forget(&self, _request: &Request, _ino: INodeNo, _lookups: u64) {}

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree().node(ino) {
            Ok(node) => reply.attr(&TTL, &node.attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
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
        let mut tree = self.tree();
        let node = match tree.node(ino) {
            Ok(node) => node,
            Err(e) => return reply.error(e),
        };
        if let Some(size) = size {
            node.resize(size);
        }
        let attr = &mut node.attr;
        attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
        attr.uid = uid.unwrap_or(attr.uid);
        attr.gid = gid.unwrap_or(attr.gid);
        attr.atime = atime.map_or(attr.atime, moment);
        attr.mtime = mtime.map_or(attr.mtime, moment);
        attr.ctime = SystemTime::now();
        reply.attr(&TTL, attr);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree().node(ino).map(|node| &node.content) {
            Ok(Content::Symlink(target)) => reply.data(target),
            Ok(_) => reply.error(Errno::EINVAL),
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
        let kind = special(mode);
        let content = match kind {
            FileType::RegularFile => Content::File(BTreeMap::new()),
            _ => Content::Special,
        };
        let mut tree = self.tree();
        let made = tree.make(request, parent, name, kind, mode & !umask, content).and_then(|attr| {
            let node = tree.node(attr.ino)?;
            node.attr.rdev = rdev;
            Ok(node.attr)
        });
        reply_entry(reply, made);
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
        let content = Content::Directory(Names::default());
        let made = self.tree().make(request, parent, name, FileType::Directory, mode & !umask, content);
        reply_entry(reply, made);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.tree().remove(parent, name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.tree().remove(parent, name));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let content = Content::Symlink(target.as_os_str().as_bytes().to_vec());
        reply_entry(reply, self.tree().make(request, parent, name, FileType::Symlink, 0o777, content));
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
        reply_empty(reply, self.tree().rename((parent, name), (new_parent, new_name), flags));
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.tree();
        let linked = match tree.find(parent, name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(_) => tree.enter(parent, name, ino.0).and_then(|()| {
                let node = tree.node(ino)?;
                node.attr.nlink += 1;
                node.attr.ctime = SystemTime::now();
                Ok(node.attr)
            }),
        };
        reply_entry(reply, linked);
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut tree = self.tree();
        match tree.node(ino) {
            Ok(node) => {
                node.open += 1;
                if flags.0 & O_TRUNC != 0 {
                    node.resize(0);
                }
                reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
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
        let data = self.tree().node(ino).and_then(|node| node.read(offset, size));
        match data {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.tree().node(ino).and_then(|node| node.write(offset, data));
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(e),
        }
    }

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
        let mut tree = self.tree();
        if let Ok(node) = tree.node(ino) {
            node.open = node.open.saturating_sub(1);
        }
        tree.reap(ino);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.tree().list(ino, offset);
        match listed {
            Ok(listed) => {
                let mut listed = listed.iter();
                let _ = listed.any(|(number, name, attr)| {
                    reply.add(attr.ino, *number, attr.kind, OsStr::from_bytes(name))
                });
                reply.ok();
            }
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
        let listed = self.tree().list(ino, offset);
        match listed {
            Ok(listed) => {
                let _ = listed.iter().any(|(number, name, attr)| {
                    reply.add(attr.ino, *number, OsStr::from_bytes(name), &TTL, attr, Generation(0))
                });
                reply.ok();
            }
            Err(e) => reply.error(e),
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 24, 1 << 23, 1 << 23, 1 << 24, 1 << 23, 4096, 255, 4096);
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mut tree = self.tree();
        let set = tree.node(ino).map(|node| {
            node.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
        });
        reply_empty(reply, set);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut tree = self.tree();
        let value =
            tree.node(ino).and_then(|node| node.xattrs.get(name.as_bytes()).cloned().ok_or(Errno::ENODATA));
        reply_xattr(reply, size, value);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let mut tree = self.tree();
        let names =
            tree.node(ino).map(|node| node.xattrs.keys().flat_map(|n| [n, &b"\0"[..]].concat()).collect());
        reply_xattr(reply, size, names);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut tree = self.tree();
        let removed = tree
            .node(ino)
            .and_then(|node| node.xattrs.remove(name.as_bytes()).map(drop).ok_or(Errno::ENODATA));
        reply_empty(reply, removed);
    }

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
        let mut tree = self.tree();
        let content = Content::File(BTreeMap::new());
        let made = tree.make(request, parent, name, FileType::RegularFile, mode & !umask, content);
        match made {
            Ok(attr) => {
                if let Ok(node) = tree.node(attr.ino) {
                    node.open = 1;
                }
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(e) => reply.error(e),
        }
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
        // Holes are not told: everything up to the end is data.
        match self.tree().node(ino).map(|node| node.attr.size as i64) {
            Ok(size) if offset >= size => reply.error(Errno::ENXIO),
            Ok(_) if whence == SEEK_DATA => reply.offset(offset),
            Ok(size) => reply.offset(size),
            Err(e) => reply.error(e),
        }
    }
}
