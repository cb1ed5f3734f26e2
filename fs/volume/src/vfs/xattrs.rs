//! Extended attributes.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use cairn_format::key::{self, Key, tag};
use cairn_format::{FileKind, Ino};

use super::acl::{self, Acl};
use super::policy::{self, Policy};
use super::{Change, Error, XattrMode, now, split};
use crate::core::Core;
use crate::journal::Need;
use crate::request;

/// The longest value, as on other Linux filesystems.
const VALUE_MAX: usize = 64 << 10;
const CAPABILITY: &[u8] = b"security.capability";

fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > key::NAME_MAX {
        return Err(Error::NameTooLong);
    }
    if name.is_empty() || name.contains(&0) {
        return Err(Error::Invalid);
    }
    if name == policy::COMPRESS {
        return Ok(());
    }
    let spaces: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    if spaces.iter().any(|space| name.starts_with(space)) { Ok(()) } else { Err(Error::NotSupported) }
}

impl Core {
    pub(crate) fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Error> {
        if request::answered().is_some() {
            return Ok(());
        }
        let ino = split(ino)?;
        check_name(name)?;
        if value.len() > VALUE_MAX.min(self.journal()?.record_max() as usize / 2) {
            return Err(Error::AttributeTooBig);
        }
        self.reserve(Need::Grow, value.len() as u64 + 1024)?;
        let _lock = self.locks.write(&[ino]);
        let mut inode = self.inode(ino)?;
        let key = Key::Xattr(ino, name.to_vec(), self.view);
        match (mode, self.get(&key)?.is_some()) {
            (XattrMode::Create, true) => return Err(Error::Exists),
            (XattrMode::Replace, false) => return Err(Error::NoAttribute),
            _ => {}
        }
        let mut change = Change::new(self);
        inode.ctime = now();
        match name {
            acl::ACCESS => {
                let list = Acl::decode(value).ok_or(Error::Invalid)?;
                inode.mode = inode.mode & !0o777 | list.mode();
                // A list that says no more than the mode is not kept beside it.
                if list.is_mode() { change.delete(&key) } else { change.put(&key, value.to_vec()) }
            }
            acl::DEFAULT if inode.kind() != FileKind::Directory => return Err(Error::NotPermitted),
            acl::DEFAULT => {
                Acl::decode(value).ok_or(Error::Invalid)?;
                change.put(&key, value.to_vec());
            }
            policy::COMPRESS => {
                if !matches!(inode.kind(), FileKind::Regular | FileKind::Directory) {
                    return Err(Error::NotPermitted);
                }
                Policy::decode(value).ok_or(Error::Invalid)?;
                change.put(&key, value.to_vec());
            }
            CAPABILITY => {
                self.capabilities.store(true, Ordering::Release);
                change.put(&key, value.to_vec());
            }
            _ if name.starts_with(b"system.") => return Err(Error::NotSupported),
            _ => change.put(&key, value.to_vec()),
        }
        change.put_inode(ino, &inode);
        self.conclude(&change.mutations, &[], 0)?;
        Ok(())
    }

    pub(crate) fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, Error> {
        let ino = split(ino)?;
        if name.is_empty() || name.len() > key::NAME_MAX || name.contains(&0) {
            return Err(Error::NoAttribute);
        }
        let _lock = self.locks.read(ino);
        self.get(&Key::Xattr(ino, name.to_vec(), self.view))?.ok_or(Error::NoAttribute)
    }

    pub(crate) fn listxattr(&self, ino: u64) -> Result<Vec<u8>, Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        let (from, to) = key::all_of(tag::XATTR, ino);
        let mut names = Vec::new();
        self.for_each(&from, &to, |key, _| {
            if let Some(Key::Xattr(_, name, view)) = Key::decode(key)
                && view == self.view
                // Not copied along by `cp -a` and `rsync -X` to where nobody knows it.
                && name != policy::COMPRESS
            {
                names.extend_from_slice(&name);
                names.push(0);
            }
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    pub(crate) fn removexattr(&self, ino: u64, name: &[u8]) -> Result<(), Error> {
        if request::answered().is_some() {
            return Ok(());
        }
        let ino = split(ino)?;
        check_name(name)?;
        self.reserve(Need::Shrink, 1024)?;
        let _lock = self.locks.write(&[ino]);
        let mut inode = self.inode(ino)?;
        let key = Key::Xattr(ino, name.to_vec(), self.view);
        if self.get(&key)?.is_none() {
            return Err(Error::NoAttribute);
        }
        let mut change = Change::new(self);
        change.delete(&key);
        inode.ctime = now();
        change.put_inode(ino, &inode);
        self.conclude(&change.mutations, &[], 0)?;
        Ok(())
    }

    /// A file whose content or owner changes loses its capabilities.
    pub(super) fn remove_capability(&self, ino: Ino, change: &mut Change) -> Result<(), Error> {
        // Most files never had any, and need not be looked up to know.
        if ino.0 >= self.first_new && !self.capabilities.load(Ordering::Acquire) {
            return Ok(());
        }
        let key = Key::Xattr(ino, CAPABILITY.to_vec(), self.view);
        if self.get(&key)?.is_some() {
            change.delete(&key);
        }
        Ok(())
    }
}
