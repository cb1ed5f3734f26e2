//! The keys of the namespace, in the order of their bytes.
//!
//! A key is a tag, then big-endian numbers or a name that ends in NUL, then the view, inverted so that
//! the versions of a key sort newest view first: the value that a view sees is found by one seek.

use crate::{EXTENT_RANGE, FILE_MAX, Ino, PackId, View};

/// What a key stands for; the first byte of its encoding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// A name in a directory -> [`crate::DirEntry`].
    Name(Ino, Vec<u8>, View),
    /// A run of [`crate::EXTENT_RANGE`] bytes of a file, by its number -> pieces.
    Extent(Ino, u64, View),
    /// An inode -> [`crate::Inode`].
    Inode(Ino, View),
    /// A symbolic link's target -> its bytes.
    Target(Ino, View),
    /// The first inode number not reserved yet -> 8 bytes.
    NextInode,
    /// What the state adds up to -> [`crate::Totals`].
    Totals,
    /// A name in its directory's order -> [`crate::OrderedEntry`].
    Order(Ino, u64, View),
    /// A pack -> [`crate::PackRefs`].
    Pack(PackId),
    /// An inode without a name, kept because it is open -> nothing.
    Orphan(Ino, View),
    /// An extended attribute -> its bytes.
    Xattr(Ino, Vec<u8>, View),
}

/// The longest name of a file or an attribute.
pub const NAME_MAX: usize = 255;

/// Whether a directory can hold this name.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.contains(&0)
        && !name.contains(&b'/')
        && name != b"."
        && name != b".."
}

/// The tags, each a range of keys of its own.
pub mod tag {
    /// [`super::Key::Name`].
    pub const NAME: u8 = b'D';
    /// [`super::Key::Extent`].
    pub const EXTENT: u8 = b'E';
    /// [`super::Key::Inode`].
    pub const INODE: u8 = b'I';
    /// [`super::Key::Target`].
    pub const TARGET: u8 = b'L';
    /// [`super::Key::NextInode`] and [`super::Key::Totals`].
    pub const META: u8 = b'M';
    /// [`super::Key::Order`].
    pub const ORDER: u8 = b'O';
    /// [`super::Key::Pack`].
    pub const PACK: u8 = b'P';
    /// [`super::Key::Orphan`].
    pub const ORPHAN: u8 = b'U';
    /// [`super::Key::Xattr`].
    pub const XATTR: u8 = b'X';
}

impl Key {
    /// The key's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Key::Name(dir, name, view) => named(tag::NAME, *dir, name, *view),
            Key::Extent(ino, range, view) => numbered(tag::EXTENT, *ino, *range, *view),
            Key::Inode(ino, view) => plain(tag::INODE, *ino, *view),
            Key::Target(ino, view) => plain(tag::TARGET, *ino, *view),
            Key::NextInode => vec![tag::META, 1],
            Key::Totals => vec![tag::META, 2],
            Key::Order(dir, cookie, view) => numbered(tag::ORDER, *dir, *cookie, *view),
            Key::Pack(pack) => [&[tag::PACK], &pack.0[..]].concat(),
            Key::Orphan(ino, view) => plain(tag::ORPHAN, *ino, *view),
            Key::Xattr(ino, name, view) => named(tag::XATTR, *ino, name, *view),
        }
    }

    /// The inverse of [`Key::encode`]; nothing for numbers that no inode, file or directory can have.
    pub fn decode(bytes: &[u8]) -> Option<Key> {
        let (&first, rest) = bytes.split_first()?;
        Some(match first {
            tag::META => match rest {
                [1] => Key::NextInode,
                [2] => Key::Totals,
                _ => return None,
            },
            tag::PACK => Key::Pack(PackId(rest.try_into().ok()?)),
            tag::NAME | tag::XATTR => {
                let (ino, rest) = take_ino(rest)?;
                let (rest, view) = take_view(rest)?;
                let (&0, name) = rest.split_last()? else { return None };
                if name.is_empty() || name.len() > NAME_MAX || name.contains(&0) {
                    return None;
                }
                let name = name.to_vec();
                if first == tag::NAME { Key::Name(ino, name, view) } else { Key::Xattr(ino, name, view) }
            }
            tag::EXTENT | tag::ORDER => {
                let (ino, rest) = take_ino(rest)?;
                let (number, rest) = take_u64(rest)?;
                let ([], view) = take_view(rest)? else { return None };
                match first {
                    tag::EXTENT if number <= FILE_MAX / EXTENT_RANGE => Key::Extent(ino, number, view),
                    // The kernel counts places in a directory with a sign.
                    tag::ORDER if number <= i64::MAX as u64 => Key::Order(ino, number, view),
                    _ => return None,
                }
            }
            tag::INODE | tag::TARGET | tag::ORPHAN => {
                let (ino, rest) = take_ino(rest)?;
                let ([], view) = take_view(rest)? else { return None };
                match first {
                    tag::INODE => Key::Inode(ino, view),
                    tag::TARGET => Key::Target(ino, view),
                    _ => Key::Orphan(ino, view),
                }
            }
            _ => return None,
        })
    }
}

/// The keys with `tag` that belong to `ino`: from the first result up to, not including, the second.
pub fn all_of(tag: u8, ino: Ino) -> (Vec<u8>, Vec<u8>) {
    (start_of(tag, ino), start_of(tag, Ino(ino.0 + 1)))
}

/// All keys with `tag`, as [`all_of`] gives them.
pub fn all_tagged(tag: u8) -> (Vec<u8>, Vec<u8>) {
    (vec![tag], vec![tag + 1])
}

fn start_of(tag: u8, ino: Ino) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(tag);
    key.extend_from_slice(&ino.0.to_be_bytes());
    key
}

fn plain(tag: u8, ino: Ino, view: View) -> Vec<u8> {
    let mut key = start_of(tag, ino);
    key.extend_from_slice(&(!view.0).to_be_bytes());
    key
}

fn numbered(tag: u8, ino: Ino, number: u64, view: View) -> Vec<u8> {
    let mut key = start_of(tag, ino);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&(!view.0).to_be_bytes());
    key
}

fn named(tag: u8, ino: Ino, name: &[u8], view: View) -> Vec<u8> {
    let mut key = start_of(tag, ino);
    key.extend_from_slice(name);
    key.push(0);
    key.extend_from_slice(&(!view.0).to_be_bytes());
    key
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), rest))
}

fn take_ino(bytes: &[u8]) -> Option<(Ino, &[u8])> {
    let (ino, rest) = take_u64(bytes)?;
    (1..=Ino::MAX.0).contains(&ino).then_some((Ino(ino), rest))
}

fn take_view(bytes: &[u8]) -> Option<(&[u8], View)> {
    let (rest, view) = bytes.split_last_chunk::<2>()?;
    Some((rest, View(!u16::from_be_bytes(*view))))
}
