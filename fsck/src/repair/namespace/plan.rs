//! What has to change in a namespace: keys with the values that they should have, or none.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::key::{Key, is_name};
use cairn_format::{DirEntry, FileKind, Ino, Inode, OrderedEntry, Piece, Timestamp, View, encode_pieces};
use cairn_volume::ChainReadError;

use super::survey::{Survey, live};
use super::{Ground, lost_found};
use crate::namespace::{Names, given_up};

/// Keys, each with its new value.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What there is to change, and whom it befell.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) changes: Changes,
    rebuilt: Vec<u64>,
    pub(super) moved: Vec<u64>,
    /// Directories that were taken out of a circle: what lists them is not believed.
    detached: HashSet<u64>,
    /// The highest cookie of the directories that names may be added to.
    cookies: HashMap<u64, u64>,
    /// The names in them that such names could meet.
    pub(super) taken: HashSet<(u64, Vec<u8>)>,
    pub(super) lost_found: Option<Ino>,
}

/// Places in an order are LSNs where they come from; one from here on is none, and nothing would fit behind it.
const COOKIE_LIMIT: u64 = 1 << 62;

/// A name: its directory, itself, and what it says.
type Named = (Ino, Vec<u8>, DirEntry);

impl Plan {
    pub(super) fn new(
        names: &Names<'_>,
        survey: &mut Survey,
        ground: &Ground<'_>,
    ) -> Result<Plan, ChainReadError> {
        let mut plan = Plan::default();
        let doubled = plan.look_at_all(names, survey)?;
        if survey.may_lose {
            plan.leave_one_name(&doubled, names, survey)?;
            plan.break_circles(names, survey)?;
        }
        plan.put_in_order(names, survey)?;
        if survey.may_lose {
            lost_found::move_in(&mut plan, survey, ground);
        }
        plan.make_inodes(survey);
        for (ino, range, len) in std::mem::take(&mut survey.missing.lost) {
            let piece = Piece { len, kind: given_up(len) };
            plan.put(Key::Extent(ino, range, View::LIVE), encode_pieces(&[piece]));
        }
        Ok(plan)
    }

    pub(super) fn rebuilt(&self) -> Vec<u64> {
        self.rebuilt.clone()
    }

    pub(super) fn moved(&self) -> Vec<u64> {
        self.moved.clone()
    }

    /// Settles what can be told of each key by itself; gives the directories with more than one name.
    fn look_at_all(
        &mut self,
        names: &Names<'_>,
        survey: &mut Survey,
    ) -> Result<BTreeSet<u64>, ChainReadError> {
        let mut doubled = BTreeSet::new();
        let mut walk = names.walk()?;
        while let Some(entry) = walk.next()? {
            let Some(value) = entry.now() else { continue };
            let goes = match live(&entry.key) {
                None => survey.may_lose,
                Some(Key::Name(dir, name, _)) => match DirEntry::decode(value) {
                    Ok(found) => {
                        self.name((dir, name, found), survey, &mut doubled);
                        continue;
                    }
                    Err(_) => survey.may_lose,
                },
                Some(Key::Extent(ino, ..)) => survey.may_lose && survey.kind(ino) != Some(FileKind::Regular),
                Some(Key::Inode(ino, _)) => {
                    survey.may_lose && (survey.kind(ino).is_none() || Inode::decode(value).is_err())
                }
                Some(Key::Target(ino, _)) => {
                    let kept = survey.kind(ino) == Some(FileKind::Symlink) && !value.is_empty();
                    survey.may_lose && !kept
                }
                Some(Key::Xattr(ino, ..)) => survey.may_lose && survey.kind(ino).is_none(),
                Some(Key::Orphan(ino, _)) => survey.kind(ino).is_none() || survey.names(ino) > 0,
                Some(_) => false,
            };
            if goes {
                self.changes.insert(entry.key, None);
            }
        }
        Ok(doubled)
    }

    fn name(&mut self, named: Named, survey: &mut Survey, doubled: &mut BTreeSet<u64>) {
        let (dir, name, mut entry) = named;
        let kind = survey.kind(entry.ino).filter(|_| entry.ino != Ino::ROOT);
        let fits = kind.is_some() && survey.is_directory(dir) && is_name(&name) && entry.view == View::LIVE;
        if !fits && survey.may_lose {
            return self.drop_name(dir, &name, &entry);
        }
        survey.node(entry.ino).names += 1;
        self.note_place(dir, &name, &entry, survey);
        let Some(kind) = kind else { return };
        if kind != entry.kind {
            entry.kind = kind;
            self.put_name(dir, &name, &entry);
        }
        if kind == FileKind::Directory {
            let child = survey.dirs.entry(entry.ino.0).or_default();
            if child.parent == 0 {
                child.parent = dir.0;
            } else {
                doubled.insert(entry.ino.0);
            }
        }
    }

    /// Notes what has to be known to add names to the root, and to `lost+found`.
    fn note_place(&mut self, dir: Ino, name: &[u8], entry: &DirEntry, survey: &Survey) {
        if dir == Ino::ROOT && name == lost_found::NAME && survey.is_directory(entry.ino) {
            self.lost_found = Some(entry.ino);
        }
        let of_root = dir == Ino::ROOT && name.starts_with(lost_found::NAME);
        let of_lost_found = Some(dir) == self.lost_found && name.starts_with(b"#");
        if of_root || of_lost_found {
            self.taken.insert((dir.0, name.to_vec()));
        }
        if dir == Ino::ROOT || Some(dir) == self.lost_found {
            self.note_cookie(dir, entry.cookie);
        }
    }

    fn note_cookie(&mut self, dir: Ino, cookie: u64) {
        if cookie >= COOKIE_LIMIT {
            return;
        }
        let highest = self.cookies.entry(dir.0).or_default();
        *highest = (*highest).max(cookie);
    }

    /// A place in a directory's order behind all others, and not before `least`.
    pub(super) fn next_cookie(&mut self, dir: Ino, least: u64) -> u64 {
        let highest = self.cookies.entry(dir.0).or_default();
        *highest = highest.saturating_add(1).max(least);
        *highest
    }

    pub(super) fn put_name(&mut self, dir: Ino, name: &[u8], entry: &DirEntry) {
        let ordered =
            OrderedEntry { ino: entry.ino, view: entry.view, kind: entry.kind, name: name.to_vec() };
        self.put(Key::Name(dir, name.to_vec(), View::LIVE), entry.encode());
        self.put(Key::Order(dir, entry.cookie, View::LIVE), ordered.encode());
    }

    fn drop_name(&mut self, dir: Ino, name: &[u8], entry: &DirEntry) {
        self.changes.insert(Key::Name(dir, name.to_vec(), View::LIVE).encode(), None);
        self.changes.insert(Key::Order(dir, entry.cookie, View::LIVE).encode(), None);
    }

    pub(super) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.changes.insert(key.encode(), Some(value));
    }

    /// The names of some inodes, as they are so far.
    fn names_of(&self, inos: &BTreeSet<u64>, names: &Names<'_>) -> Result<Vec<Named>, ChainReadError> {
        let mut all = Vec::new();
        if inos.is_empty() {
            return Ok(all);
        }
        let mut walk = names.walk()?;
        while let Some(entry) = walk.next()? {
            match live(&entry.key) {
                Some(Key::Name(dir, name, _)) => {
                    let value = self.changes.get(&entry.key).map_or(entry.now(), |new| new.as_deref());
                    if let Some(Ok(found)) = value.map(DirEntry::decode)
                        && inos.contains(&found.ino.0)
                    {
                        all.push((dir, name, found));
                    }
                }
                Some(_) => break,
                None => {}
            }
        }
        Ok(all)
    }

    /// Directories have one name: the one where the directory itself says it lies, or the first.
    fn leave_one_name(
        &mut self,
        doubled: &BTreeSet<u64>,
        names: &Names<'_>,
        survey: &mut Survey,
    ) -> Result<(), ChainReadError> {
        let mut of_each: BTreeMap<u64, Vec<Named>> = BTreeMap::new();
        for named in self.names_of(doubled, names)? {
            of_each.entry(named.2.ino.0).or_default().push(named);
        }
        for (ino, all) in of_each {
            let Some(dir) = survey.dirs.get_mut(&ino) else { continue };
            let kept = all.iter().position(|(parent, ..)| parent.0 == dir.claimed).unwrap_or(0);
            for (number, (parent, name, entry)) in all.iter().enumerate() {
                if number == kept {
                    dir.parent = parent.0;
                } else {
                    self.drop_name(*parent, name, entry);
                }
            }
            survey.node(Ino(ino)).names = 1;
        }
        Ok(())
    }

    /// Of directories that lie within each other, the oldest is taken out.
    fn break_circles(&mut self, names: &Names<'_>, survey: &mut Survey) -> Result<(), ChainReadError> {
        let circles = circles(survey);
        for (dir, name, entry) in self.names_of(&circles, names)? {
            self.drop_name(dir, &name, &entry);
        }
        for ino in circles {
            survey.node(Ino(ino)).names = 0;
            survey.dirs.entry(ino).or_default().parent = 0;
            self.detached.insert(ino);
        }
        Ok(())
    }

    /// The order of directories whose names and whose order are not the same is made anew from their names. What only the
    /// order has is a name that was lost, if its inode lacks one.
    fn put_in_order(&mut self, names: &Names<'_>, survey: &mut Survey) -> Result<(), ChainReadError> {
        let dirs: BTreeSet<u64> = survey.out_of_order().collect();
        if dirs.is_empty() {
            return Ok(());
        }
        let mut found: BTreeMap<u64, Vec<(Vec<u8>, DirEntry)>> = BTreeMap::new();
        let mut walk = names.walk()?;
        let mut listed: Vec<(Ino, u64, OrderedEntry)> = Vec::new();
        while let Some(entry) = walk.next()? {
            match live(&entry.key) {
                Some(Key::Name(dir, name, _)) if dirs.contains(&dir.0) => {
                    let value = self.changes.get(&entry.key).map_or(entry.now(), |new| new.as_deref());
                    if let Some(Ok(leads)) = value.map(DirEntry::decode) {
                        found.entry(dir.0).or_default().push((name, leads));
                    }
                }
                Some(Key::Order(dir, cookie, _)) if dirs.contains(&dir.0) => {
                    if let Some(Ok(leads)) = entry.now().map(OrderedEntry::decode) {
                        listed.push((dir, cookie, leads));
                    }
                    self.changes.insert(entry.key, None);
                }
                _ => {}
            }
        }
        for (dir, cookie, leads) in listed {
            self.restore(dir, cookie, leads, &mut found, survey);
        }
        for (dir, all) in found {
            self.order_of(Ino(dir), all);
        }
        Ok(())
    }

    /// Gives an inode that lacks a name the one by which a directory's order has it.
    fn restore(
        &mut self,
        dir: Ino,
        cookie: u64,
        leads: OrderedEntry,
        found: &mut BTreeMap<u64, Vec<(Vec<u8>, DirEntry)>>,
        survey: &mut Survey,
    ) {
        let ino = leads.ino;
        let there = found.entry(dir.0).or_default();
        let Some(kind) = survey.kind(ino) else { return };
        let may = survey.is_directory(dir)
            && survey.lacks_a_name(ino)
            && ino != Ino::ROOT
            && !self.detached.contains(&ino.0)
            && there.iter().all(|(name, _)| *name != leads.name);
        if !may || (kind == FileKind::Directory && lies_within(dir, ino, survey)) {
            return;
        }
        there.push((leads.name, DirEntry { ino, view: View::LIVE, kind, cookie }));
        survey.node(ino).names += 1;
        if kind == FileKind::Directory {
            survey.dirs.entry(ino.0).or_default().parent = dir.0;
        }
    }

    /// Writes a directory's names, each with a place of its own in the order.
    fn order_of(&mut self, dir: Ino, mut all: Vec<(Vec<u8>, DirEntry)>) {
        all.sort_by(|a, b| (a.1.cookie, &a.0).cmp(&(b.1.cookie, &b.0)));
        let highest = all.iter().map(|(_, entry)| entry.cookie).filter(|cookie| *cookie < COOKIE_LIMIT).max();
        self.note_cookie(dir, highest.unwrap_or(0));
        let mut last = None;
        for (name, mut entry) in all {
            if last == Some(entry.cookie) || entry.cookie >= COOKIE_LIMIT {
                entry.cookie = self.next_cookie(dir, 0);
            } else {
                last = Some(entry.cookie);
            }
            self.put_name(dir, &name, &entry);
        }
    }

    /// Inodes that are made again: what they were but for what is left of them nobody knows, so that only root may use them.
    fn make_inodes(&mut self, survey: &Survey) {
        for ino in survey.rebuilt() {
            let kind = survey.kind(ino).unwrap_or(FileKind::Regular);
            let permissions = match kind {
                _ if ino == Ino::ROOT => 0o755,
                FileKind::Directory => 0o700,
                FileKind::Symlink => 0o777,
                _ => 0o600,
            };
            let time = Timestamp::default();
            // Links, length, parent and stored bytes are counted when it is written.
            let inode = Inode {
                mode: kind.mode() | permissions,
                uid: 0,
                gid: 0,
                nlink: 0,
                rdev: 0,
                generation: 0,
                size: 0,
                parent: Ino(0),
                atime: time,
                mtime: time,
                ctime: time,
                btime: time,
                stored: 0,
            };
            self.put(Key::Inode(ino, View::LIVE), inode.encode());
            self.rebuilt.push(ino.0);
        }
    }
}

/// One directory of each circle, the one with the lowest number. Each has one parent at most, so that a way up either ends,
/// or meets one taken before, or itself.
fn circles(survey: &mut Survey) -> BTreeSet<u64> {
    let mut all: Vec<u64> = survey.dirs.keys().copied().collect();
    all.sort_unstable();
    let mut circles = BTreeSet::new();
    for from in all {
        let mut at = from;
        while at != 0
            && at != Ino::ROOT.0
            && let Some(dir) = survey.dirs.get_mut(&at)
        {
            if dir.visited != 0 {
                if dir.visited == from {
                    circles.insert(lowest_of_circle(at, survey));
                }
                break;
            }
            dir.visited = from;
            at = dir.parent;
        }
    }
    circles
}

fn lowest_of_circle(start: u64, survey: &Survey) -> u64 {
    let parent = |at: u64| survey.dirs.get(&at).map_or(start, |dir| dir.parent);
    let mut lowest = start;
    let mut at = parent(start);
    while at != start {
        lowest = lowest.min(at);
        at = parent(at);
    }
    lowest
}

/// Whether `dir` is `above`, or lies in it at some depth.
fn lies_within(dir: Ino, above: Ino, survey: &Survey) -> bool {
    let mut at = dir.0;
    // Circles were broken, and a way up is not longer than there are directories.
    for _ in 0..=survey.dirs.len() {
        match at {
            _ if at == above.0 => return true,
            0 => return false,
            _ if at == Ino::ROOT.0 => return false,
            _ => at = survey.dirs.get(&at).map_or(0, |dir| dir.parent),
        }
    }
    true
}
