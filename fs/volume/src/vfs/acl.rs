//! POSIX access control lists: the kernel checks them, the filesystem keeps them in step with modes.
//!
//! The bytes are those of the `system.posix_acl_*` attributes (version 2, little-endian); the rules those
//! of POSIX.1e draft 17, as `acl(5)` tells them.

use cairn_format::key::Key;
use cairn_format::{Ino, View};

/// The list that decides.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that what is made in a directory inherits.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const KNOWN: [u16; 6] = [USER_OBJ, 0x02, GROUP_OBJ, 0x08, MASK, OTHER];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

/// The key of an inode's access list.
pub(super) fn access_key(ino: Ino, view: View) -> Key {
    Key::Xattr(ino, ACCESS.to_vec(), view)
}

/// The key of a directory's default list.
pub(super) fn default_key(ino: Ino, view: View) -> Key {
    Key::Xattr(ino, DEFAULT.to_vec(), view)
}

impl Acl {
    /// From an attribute's value; `None` where that is no list.
    pub(super) fn decode(value: &[u8]) -> Option<Acl> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || !entries.len().is_multiple_of(8) || entries.is_empty() {
            return None;
        }
        let entry = |e: &[u8]| {
            let tag = u16::from_le_bytes([e[0], e[1]]);
            let perm = u16::from_le_bytes([e[2], e[3]]);
            let id = u32::from_le_bytes([e[4], e[5], e[6], e[7]]);
            (KNOWN.contains(&tag) && perm <= 7).then_some(Entry { tag, perm, id })
        };
        let acl = Acl(entries.chunks_exact(8).map(entry).collect::<Option<_>>()?);
        let has = |tag| acl.0.iter().filter(|e| e.tag == tag).count() == 1;
        (has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER)).then_some(acl)
    }

    /// The attribute's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.perm.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// The tag of the entry that a mode's group bits stand for.
    fn group_class(&self) -> u16 {
        if self.0.iter().any(|e| e.tag == MASK) { MASK } else { GROUP_OBJ }
    }

    /// Whether permission bits say as much.
    pub(super) fn is_mode(&self) -> bool {
        self.0.iter().all(|e| [USER_OBJ, GROUP_OBJ, OTHER].contains(&e.tag))
    }

    /// The permission bits (0777) that go with this list.
    pub(super) fn mode(&self) -> u32 {
        let class = self.group_class();
        let perm = |tag| self.0.iter().find(|e| e.tag == tag).map_or(0, |e| u32::from(e.perm));
        perm(USER_OBJ) << 6 | perm(class) << 3 | perm(OTHER)
    }

    fn shift(&self, tag: u16) -> Option<u32> {
        match tag {
            USER_OBJ => Some(6),
            OTHER => Some(0),
            tag if tag == self.group_class() => Some(3),
            _ => None,
        }
    }

    /// The list after a chmod.
    pub(super) fn with_mode(mut self, mode: u32) -> Acl {
        for i in 0..self.0.len() {
            if let Some(shift) = self.shift(self.0[i].tag) {
                self.0[i].perm = (mode >> shift & 7) as u16;
            }
        }
        self
    }

    /// The access list of what is made with `mode` under this default list, and the mode it gets.
    pub(super) fn inherited(mut self, mode: u32) -> (Acl, u32) {
        for i in 0..self.0.len() {
            if let Some(shift) = self.shift(self.0[i].tag) {
                self.0[i].perm &= (mode >> shift & 7) as u16;
            }
        }
        let mode = mode & !0o777 | self.mode();
        (self, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|(tag, perm, id)| Entry { tag: *tag, perm: *perm, id: *id }).collect())
    }

    #[test]
    fn lists_and_modes_go_together() {
        let list = acl(&[(1, 7, !0), (2, 7, 1000), (4, 5, !0), (0x10, 5, !0), (0x20, 1, !0)]);
        assert_eq!(Acl::decode(&list.encode()), Some(list.clone()));
        assert_eq!(list.mode(), 0o751, "the mask stands for the group");
        assert!(!list.is_mode());
        assert_eq!(list.clone().with_mode(0o640).mode(), 0o640);
        assert_eq!(list.clone().with_mode(0o640).0[2].perm, 5, "the owning group's own entry stays");
        let (inherited, mode) = list.inherited(0o100_666);
        assert_eq!(mode, 0o100_640);
        assert_eq!(inherited.mode(), 0o640);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(Acl::decode(b""), None);
        assert_eq!(Acl::decode(&[2, 0, 0, 0]), None);
        assert_eq!(Acl::decode(&acl(&[(1, 7, 0), (4, 5, 0)]).encode()), None, "no entry for others");
        assert_eq!(Acl::decode(&acl(&[(1, 9, 0), (4, 5, 0), (0x20, 1, 0)]).encode()), None);
    }
}
