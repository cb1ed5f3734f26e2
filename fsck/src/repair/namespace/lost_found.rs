//! `lost+found`: where inodes without a name get one, `#` and their number.

use cairn_format::{DirEntry, FileKind, Ino, View};

use super::Ground;
use super::plan::Plan;
use super::survey::Survey;

/// The directory's name, in the root.
pub(super) const NAME: &[u8] = b"lost+found";

/// Gives all inodes without a name one.
pub(super) fn move_in(plan: &mut Plan, survey: &mut Survey, ground: &Ground<'_>) {
    let nameless = survey.nameless();
    if nameless.is_empty() {
        return;
    }
    // Places in the order are LSNs elsewhere: these come behind those of all that was done before.
    let least = ground.reached.0;
    let Some(dir) = plan.lost_found.or_else(|| make(plan, survey, least)) else { return };
    for ino in nameless {
        let kind = survey.kind(ino).unwrap_or(FileKind::Regular);
        let name = free(plan, dir, format!("#{}", ino.0).as_bytes());
        add(plan, survey, dir, &name, ino, kind, least);
        plan.moved.push(ino.0);
    }
}

/// Makes the directory; none where there are no inode numbers left.
fn make(plan: &mut Plan, survey: &mut Survey, least: u64) -> Option<Ino> {
    let dir = survey.take_ino()?;
    survey.make(dir, FileKind::Directory);
    let name = free(plan, Ino::ROOT, NAME);
    add(plan, survey, Ino::ROOT, &name, dir, FileKind::Directory, least);
    plan.lost_found = Some(dir);
    Some(dir)
}

/// A name that is not taken: the one given, or with a number behind it.
fn free(plan: &mut Plan, dir: Ino, name: &[u8]) -> Vec<u8> {
    let mut free = name.to_vec();
    let mut number = 2;
    while !plan.taken.insert((dir.0, free.clone())) {
        free = [name, format!(".{number}").as_bytes()].concat();
        number += 1;
    }
    free
}

fn add(plan: &mut Plan, survey: &mut Survey, dir: Ino, name: &[u8], ino: Ino, kind: FileKind, least: u64) {
    let cookie = plan.next_cookie(dir, least);
    plan.put_name(dir, name, &DirEntry { ino, view: View::LIVE, kind, cookie });
    survey.node(ino).names += 1;
    if kind == FileKind::Directory {
        survey.dirs.entry(ino.0).or_default().parent = dir.0;
    }
}
