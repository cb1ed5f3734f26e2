//! What is done with a volume that may be spoilt: it is checked, shown, gone through, written to, folded and closed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cairn_volume::{
    Allocate, Attr, Caller, EngineChoice, FileKind, OpenError, OpenOn, OpenOptions, RenameMode, SeekTo,
    SetAttr, Volume, XattrMode, open_on,
};
use fsck_cairn::{CheckOptions, Quiet, check};

use super::choices::Choices;
use super::images::Image;
use super::spoil::spoil;
use crate::tree::list;
use crate::world::World;

const CALLER: Caller = Caller { uid: 1000, gid: 1000 };
/// Inodes that are looked at in one volume.
const INODES_MAX: usize = 200;
/// What the disk holds. It lies in memory, and a superblock that asks for segments of a gigabyte has them written where
/// there is room.
const DISK: u64 = 64 << 20;

/// A volume, spoilt as the input says; then everything that reads it.
pub fn volume(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mut image = Image::new(choices.one_in(2));
    spoil(&mut choices, &mut image);
    all(&image.world, &mut choices);
}

/// Everything that reads a volume.
pub fn all(world: &World, choices: &mut Choices<'_>) {
    world.disk.set_capacity(DISK);
    // A copy each: a mount changes what the next would see.
    let _ = check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet);
    if let Ok(shown) = mount(&world.fork(), true) {
        walk(&shown);
        let _ = shown.close();
    }
    let world = world.fork();
    let Ok(volume) = mount(&world, false) else { return };
    let found = walk(&volume);
    change(&volume, &found, choices);
    let _ = volume.sync();
    walk(&volume);
    let _ = volume.close();
    drop(volume);
    let _ = check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet);
    let _ = mount(&world, false).map(|volume| volume.close());
}

fn mount(world: &World, read_only: bool) -> Result<Arc<Volume>, OpenError> {
    open_on(OpenOn {
        disk: Arc::new(world.disk.clone()),
        store: world.store_disk(),
        engine: EngineChoice::Memory,
        background: false,
        session: 77,
        options: OpenOptions { read_only, index_mem: 1 << 20, cache_size: 1 << 20, ..OpenOptions::default() },
        name: "the hostile volume".into(),
    })
}

/// Goes through a volume as far as it leads; gives directories and the names in them.
fn walk(volume: &Volume) -> Vec<(u64, Vec<u8>, Attr)> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([1]);
    let mut ahead = vec![1];
    let _ = (volume.statfs(), volume.usage(), volume.statistics());
    while let Some(dir) = ahead.pop() {
        let _ = (volume.getattr(dir).map(|attr| look(volume, &attr)), volume.lookup(dir, b".."));
        for item in list(volume, dir).unwrap_or_default() {
            assert!(item.name == b"." || item.name == b".." || cairn_format::key::is_name(&item.name));
            if item.name == b"." || item.name == b".." || found.len() > INODES_MAX {
                continue;
            }
            let Ok(Some(attr)) = volume.lookup(dir, &item.name) else { continue };
            if seen.insert(attr.ino) {
                look(volume, &attr);
                ahead.extend((attr.kind == FileKind::Directory).then_some(attr.ino));
            }
            found.push((dir, item.name, attr));
        }
    }
    found
}

/// Looks at an inode in every way there is.
fn look(volume: &Volume, attr: &Attr) {
    let ino = attr.ino;
    let _ = (volume.getattr(ino), volume.readlink(ino), volume.open(ino));
    for at in [0, 1000, 1 << 20, attr.size / 2, attr.size.saturating_sub(5000), attr.size, u64::MAX] {
        let _ = volume.read(ino, at, 65_536);
    }
    for to in [SeekTo::Data, SeekTo::Hole] {
        let _ = (volume.seek(ino, 0, to), volume.seek(ino, attr.size / 2, to));
    }
    for name in volume.listxattr(ino).unwrap_or_default().split(|b| *b == 0) {
        let _ = volume.getxattr(ino, name);
    }
    let _ = (volume.extents(ino), volume.explain(ino, Duration::from_millis(50)));
    volume.release(ino);
}

/// Changes what was found: names, contents, attributes.
fn change(volume: &Volume, found: &[(u64, Vec<u8>, Attr)], choices: &mut Choices<'_>) {
    let any = |choices: &mut Choices<'_>| {
        choices.pick(found).map_or((1, b"none".to_vec(), 1), |f| (f.0, f.1.clone(), f.2.ino))
    };
    for n in 0..12u8 {
        let (dir, name, ino) = any(choices);
        let (to_dir, to_name, other) = any(choices);
        let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][choices.below(3)];
        let (at, len) = (choices.number(), choices.number());
        match choices.below(14) {
            0 => {
                let _ = volume.create(dir, &[b'n', n], 0o644, 0o22, &CALLER).map(|a| volume.release(a.ino));
            }
            1 => {
                let _ = volume.mkdir(ino, &[b'd', n], 0o2755, 0o22, &CALLER);
            }
            2 | 3 => {
                let _ = volume.rename(dir, &name, to_dir, &to_name, mode);
            }
            4 => {
                let _ = volume.rename(dir, &name, other, b"renamed", mode);
            }
            5 => {
                let _ = volume.unlink(dir, &name);
            }
            6 => {
                let _ = volume.rmdir(dir, &name);
            }
            7 => {
                let _ = volume.link(ino, to_dir, &[b'l', n]);
            }
            8 => {
                let _ = volume.write(ino, at % (1 << 40), &[n; 3000], true);
            }
            9 => {
                let size = Some(len);
                let _ =
                    volume.setattr(ino, &SetAttr { size, mode: Some(0o4711), ..SetAttr::default() }, &CALLER);
            }
            10 => {
                let how = [Allocate::Reserve, Allocate::Zero, Allocate::Punch][choices.below(3)];
                let _ = volume.allocate(ino, at, len, how, true);
            }
            11 => {
                let _ = volume.copy_range((ino, at), (other, len), 1 << 20, true);
            }
            12 => {
                let name: &[u8] = [
                    &b"system.posix_acl_access"[..],
                    b"system.posix_acl_default",
                    b"cairn.compress",
                    b"user.x",
                ][choices.below(4)];
                let mut value = choices.bytes(60);
                if choices.one_in(2) {
                    value.splice(0..0, [2, 0, 0, 0]);
                }
                let _ = volume.setxattr(ino, name, &value, XattrMode::Set);
                let _ = volume.removexattr(ino, b"user.colour");
            }
            _ => {
                let _ = volume.maintain();
            }
        }
    }
    let _ = volume.create(1, b"after it all", 0o644, 0, &CALLER).map(|attr| {
        let written = volume.write(attr.ino, 0, &[7; 20_000], false);
        let _ = (written, volume.fsync(attr.ino, false));
        volume.release(attr.ino);
    });
}
