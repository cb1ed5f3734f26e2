//! What the filesystem's operations take and give.

use cairn_format::{FileKind, Timestamp};

/// Who asks: owner of what an operation makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// What `stat` tells of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// `st_ino`: view in the upper 16 bits, number in the lower 48.
    pub ino: u64,
    /// Tells apart two files that had the same number: none ever do, so it is the epoch it was made in.
    pub generation: u32,
    /// Its type.
    pub kind: FileKind,
    /// Permission bits, with set-user-id, set-group-id and sticky (07777).
    pub perm: u16,
    /// Names that lead to it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as `makedev` packs it.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space it takes, in units of 512 bytes: compressed where folded, plain where still in the journal.
    pub blocks: u64,
    /// Last access: never updated by reads.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
}

/// A new time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// The time of the operation.
    Now,
    /// A time given.
    To(Timestamp),
}

/// The attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (07777); the type cannot change.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<TimeChange>,
    /// Last change of the content.
    pub mtime: Option<TimeChange>,
}

/// What becomes of an existing target of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// The rename fails.
    NoReplace,
    /// The two change places; both must exist.
    Exchange,
    /// The old name leads to a whiteout from then on, a character device 0:0 that says to overlay filesystems that a name
    /// of a lower layer is gone.
    Whiteout {
        /// Whether an existing target is replaced; else the rename fails.
        replace: bool,
        /// Whose the whiteout is.
        owner: Caller,
    },
}

/// Whether an extended attribute may or must exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    Set,
    /// It must not.
    Create,
    /// It must.
    Replace,
}

/// What `allocate` does with a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Sees that there is room for it now; the file grows to its end. Nothing is set aside.
    Reserve,
    /// Sees that there is room for it now.
    ReserveKeepSize,
    /// It reads as zeros; the file grows to its end.
    Zero,
    /// It reads as zeros, as far as the file reaches.
    ZeroKeepSize,
    /// It becomes a hole, as far as the file reaches.
    Punch,
}

/// What `seek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The next byte that is not in a hole.
    Data,
    /// The next byte that is in a hole; the end of the file counts as one.
    Hole,
}

/// One name in a directory, `.` and `..` included.
#[derive(Clone, Copy, Debug)]
pub struct DirItem<'a> {
    /// The name.
    pub name: &'a [u8],
    /// `st_ino` of what it names.
    pub ino: u64,
    /// Its type.
    pub kind: FileKind,
    /// Where a listing goes on after this name: stable for as long as the name is there, across mounts too.
    pub cookie: u64,
}

/// What `statfs` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks of the filesystem below.
    pub blocks: u64,
    /// Free blocks there.
    pub free: u64,
    /// Free blocks that a write may take.
    pub available: u64,
    /// Inodes in use.
    pub files: u64,
    /// Inode numbers left.
    pub files_free: u64,
}

/// Why an operation was refused. One table (in the FUSE adapter) turns these into errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// No such inode any more.
    #[error("the file is gone")]
    Stale,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory was given where none is allowed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has names in it.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A name of more than 255 bytes, or a link target of more than 4095.
    #[error("the name is too long")]
    NameTooLong,
    /// An argument that makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// Not allowed, whoever asks.
    #[error("operation not permitted")]
    NotPermitted,
    /// Longer than a file can be.
    #[error("the file would be too long")]
    TooBig,
    /// More names than an inode can have.
    #[error("too many links")]
    TooManyLinks,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// An extended attribute's value is too long.
    #[error("the attribute's value is too long")]
    AttributeTooBig,
    /// An operation or attribute namespace that is not supported.
    #[error("not supported")]
    NotSupported,
    /// `seek` found no data behind the offset.
    #[error("no data behind this offset")]
    NoData,
    /// The disk below, or what may be used of it, is full.
    #[error("no space left")]
    NoSpace,
    /// The volume takes no writes: mounted read-only, or stopped after an I/O error.
    #[error("the volume takes no writes")]
    ReadOnly,
    /// The disk below failed, or what it holds is damaged; the log says which file, chunk and pack.
    #[error("input/output error")]
    Io,
}
