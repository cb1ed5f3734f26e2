//! A program that changes a directory of its own at random and remembers what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use cairn_tests::dice::{Dice, data};
use rustix::fs::{CWD, RenameFlags, copy_file_range, renameat_with};

/// How many names a directory may have.
const NAMES: u64 = 40;
/// Files are kept below about twice this length, unless something else is said.
const LENGTH: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// A file, by number: hard links share one.
    File(u32),
    Dir,
    Link(String),
}

impl Node {
    fn number(&self) -> Option<u32> {
        match self {
            Node::File(number) => Some(*number),
            _ => None,
        }
    }
}

/// What a directory holds.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// Where writes begin, and how long they are, at most.
    length: u64,
    names: BTreeMap<String, Node>,
    files: BTreeMap<u32, Vec<u8>>,
    next: u32,
}

/// One system call, or for a long write some.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create(String),
    Mkdir(String),
    Symlink(String, String),
    Link(String, String),
    Rename(String, String),
    Exchange(String, String),
    Unlink(String),
    Rmdir(String),
    Truncate(String, u64),
    Write(String, u64, Vec<u8>),
    Read(String),
    /// The whole of a file over the start of another, by reference.
    Copy(String, String),
}

impl Content {
    /// Nothing yet; files will be kept below about twice `length`.
    pub(crate) fn new(length: u64) -> Content {
        Content { length, names: BTreeMap::new(), files: BTreeMap::new(), next: 0 }
    }

    fn file(&self, name: &str) -> Option<u32> {
        self.names.get(name)?.number()
    }

    /// The names of files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|(_, node)| node.number().is_some()).map(|(name, _)| name)
    }

    /// A step that this content allows.
    pub(crate) fn choose(&self, dice: &mut Dice) -> Step {
        loop {
            let [name, other] = [0; 2].map(|_| format!("n{:02}", dice.below(NAMES)));
            let (node, free) = (self.names.get(&name), !self.names.contains_key(&other));
            return match (dice.below(20), node) {
                (0..3, None) => Step::Create(name),
                (3, None) => Step::Mkdir(name),
                (4, None) => Step::Symlink(name, "x".repeat(1 + dice.below(200) as usize)),
                (5, Some(Node::File(_))) if free => Step::Link(name, other),
                (6..8, Some(Node::File(_))) if self.names.get(&other) != Some(&Node::Dir) => {
                    Step::Rename(name, other)
                }
                (8, Some(_)) if free => Step::Rename(name, other),
                (9, Some(_)) if !free && name != other => Step::Exchange(name, other),
                (10, Some(Node::Dir)) => Step::Rmdir(name),
                (10, Some(_)) => Step::Unlink(name),
                (11, Some(Node::File(_))) => Step::Truncate(name, dice.below(self.length)),
                (12..17, Some(Node::File(_))) => {
                    let long = dice.one_in(4);
                    let length = 1 + dice.below(if long { self.length } else { 20_000 });
                    Step::Write(name, dice.below(self.length), data(dice.roll(), length as usize))
                }
                (17, Some(Node::File(_))) => Step::Read(name),
                (18, Some(Node::File(_)))
                    if self.file(&other).is_some_and(|n| Some(n) != self.file(&name)) =>
                {
                    Step::Copy(name, other)
                }
                _ => continue,
            };
        }
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(name) => {
                self.files.insert(self.next, Vec::new());
                self.names.insert(name.clone(), Node::File(self.next));
                self.next += 1;
            }
            Step::Mkdir(name) => drop(self.names.insert(name.clone(), Node::Dir)),
            Step::Symlink(name, target) => drop(self.names.insert(name.clone(), Node::Link(target.clone()))),
            Step::Link(from, to) => drop(self.names.insert(to.clone(), self.names[from].clone())),
            // Two names of one file: nothing happens.
            Step::Rename(from, to) if self.names.get(from) == self.names.get(to) => {}
            Step::Rename(from, to) => {
                let node = self.names.remove(from).expect("chosen for being there");
                let replaced = self.names.insert(to.clone(), node);
                self.forget_nameless(replaced);
            }
            Step::Exchange(one, other) => {
                let nodes = [one, other].map(|name| self.names[name].clone());
                self.names.extend([other.clone(), one.clone()].into_iter().zip(nodes));
            }
            Step::Unlink(name) | Step::Rmdir(name) => {
                let removed = self.names.remove(name);
                self.forget_nameless(removed);
            }
            Step::Truncate(name, size) => self.change(name, |bytes| bytes.resize(*size as usize, 0)),
            Step::Write(_, _, data) if data.is_empty() => {}
            Step::Write(name, offset, data) => self.change(name, |bytes| {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..][..data.len()].copy_from_slice(data);
            }),
            Step::Read(_) => {}
            Step::Copy(from, to) => {
                let data = self.bytes(from).to_vec();
                self.apply(&Step::Write(to.clone(), 0, data));
            }
        }
    }

    /// Forgets the bytes of a file that lost its last name: long runs remove more than memory can hold.
    fn forget_nameless(&mut self, node: Option<Node>) {
        let Some(Node::File(number)) = node else { return };
        if self.names.values().all(|other| other.number() != Some(number)) {
            self.files.remove(&number);
        }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let number = self.file(name).expect("chosen for being a file");
        &self.files[&number]
    }

    fn change(&mut self, name: &str, f: impl FnOnce(&mut Vec<u8>)) {
        let number = self.file(name).expect("chosen for being a file");
        f(self.files.get_mut(&number).expect("every name's file is there"));
    }

    /// Does the step for real. Reads are compared with what is remembered.
    pub(crate) fn perform(&self, dir: &Path, step: &Step) -> io::Result<()> {
        let path = |name: &String| dir.join(name);
        match step {
            Step::Create(name) => File::create_new(path(name)).map(drop),
            Step::Mkdir(name) => fs::create_dir(path(name)),
            Step::Symlink(name, target) => symlink(target, path(name)),
            Step::Link(from, to) => fs::hard_link(path(from), path(to)),
            Step::Rename(from, to) => fs::rename(path(from), path(to)),
            Step::Exchange(one, other) => {
                Ok(renameat_with(CWD, path(one), CWD, path(other), RenameFlags::EXCHANGE)?)
            }
            Step::Unlink(name) => fs::remove_file(path(name)),
            Step::Rmdir(name) => fs::remove_dir(path(name)),
            Step::Truncate(name, size) => File::options().write(true).open(path(name))?.set_len(*size),
            Step::Write(name, offset, data) => {
                File::options().write(true).open(path(name))?.write_all_at(data, *offset)
            }
            Step::Read(name) => {
                let found = fs::read(path(name))?;
                assert!(found == self.bytes(name), "{name} reads as something else than was written");
                Ok(())
            }
            Step::Copy(from, to) => {
                let (from, to) = (File::open(path(from))?, File::options().write(true).open(path(to))?);
                let mut at = [0, 0];
                let [in_at, out_at] = &mut at;
                while copy_file_range(&from, Some(in_at), &to, Some(out_at), 1 << 30)? > 0 {}
                Ok(())
            }
        }
    }

    /// Where what was found differs from this, if it does.
    pub(crate) fn difference(&self, found: &Found) -> Option<String> {
        if !found.0.keys().eq(self.names.keys()) {
            let odd = found
                .0
                .keys()
                .filter(|n| !self.names.contains_key(*n))
                .chain(self.names.keys().filter(|n| !found.0.contains_key(*n)));
            return Some(format!("names that only one of both has: {:?}", odd.collect::<Vec<_>>()));
        }
        let mut numbers = BTreeMap::new();
        for ((name, node), there) in self.names.iter().zip(found.0.values()) {
            let same = match (node, there) {
                (Node::Dir, FoundNode::Dir) => true,
                (Node::Link(target), FoundNode::Link(found)) => found == Path::new(target),
                (Node::File(number), FoundNode::File { links, ino, bytes }) => {
                    let expected = self.names.values().filter(|other| *other == node).count() as u64;
                    let first = *numbers.entry(*number).or_insert(*ino);
                    if (*links, *ino) != (expected, first) {
                        return Some(format!("{name} has {links} links, not {expected}"));
                    }
                    let expected = &self.files[number];
                    match bytes {
                        Ok(bytes) if bytes == expected => true,
                        Ok(bytes) => {
                            let at = bytes.iter().zip(expected).position(|(a, b)| a != b);
                            return Some(format!(
                                "{name} has {} bytes, {} were written; the first other byte is at {at:?}",
                                bytes.len(),
                                expected.len()
                            ));
                        }
                        Err(error) => return Some(format!("{name}: {error}")),
                    }
                }
                _ => false,
            };
            if !same {
                return Some(format!("{name} is no {node:?}"));
            }
        }
        None
    }

    /// The part of a step on this that was done, as far as can be told from what was found: a long write is several.
    pub(crate) fn part_done(&self, step: &Step, found: &Found) -> Step {
        let (name, offset, data) = match step {
            Step::Write(name, offset, data) => (name, *offset, data.as_slice()),
            Step::Copy(from, to) => (to, 0, self.bytes(from)),
            whole => return whole.clone(),
        };
        let there = match found.0.get(name) {
            Some(FoundNode::File { bytes: Ok(bytes), .. }) => {
                bytes.get(offset as usize..).unwrap_or_default()
            }
            _ => &[],
        };
        let written = there.iter().zip(data).take_while(|(a, b)| a == b).count();
        Step::Write(name.clone(), offset, data[..written].to_vec())
    }
}

/// What a directory was found to hold.
pub(crate) struct Found(BTreeMap<String, FoundNode>);

enum FoundNode {
    File { links: u64, ino: u64, bytes: Result<Vec<u8>, String> },
    Dir,
    Link(PathBuf),
    Other,
}

impl Found {
    /// Reads a directory, and all files in it.
    pub(crate) fn read(dir: &Path) -> Found {
        let listed = fs::read_dir(dir).expect("a directory");
        let mut names = BTreeMap::new();
        for name in listed.map(|e| e.expect("listed").file_name().into_string().expect("UTF-8")) {
            let path = dir.join(&name);
            let about = fs::symlink_metadata(&path).expect("listed");
            let node = match about.file_type() {
                kind if kind.is_dir() => FoundNode::Dir,
                kind if kind.is_symlink() => FoundNode::Link(fs::read_link(&path).expect("a symbolic link")),
                kind if kind.is_file() => {
                    let bytes = fs::read(&path).map_err(|e| e.to_string());
                    FoundNode::File { links: about.nlink(), ino: about.ino(), bytes }
                }
                _ => FoundNode::Other,
            };
            assert!(names.insert(name.clone(), node).is_none(), "{} is listed twice", path.display());
        }
        Found(names)
    }
}

/// One worker and its directory.
pub(crate) struct Worker {
    dir: PathBuf,
    dice: Dice,
    acknowledged: Content,
    /// What was begun and not answered.
    pending: Option<Step>,
}

impl Worker {
    /// A worker in a new directory.
    pub(crate) fn new(dir: PathBuf, seed: u64) -> Worker {
        fs::create_dir(&dir).expect("a new name");
        Worker { dir, dice: Dice::new(seed), acknowledged: Content::new(LENGTH), pending: None }
    }

    /// Does `most` steps, or until the first error, which it gives with what was tried.
    pub(crate) fn work(&mut self, most: usize) -> Option<(String, io::Error)> {
        for _ in 0..most {
            let step = self.acknowledged.choose(&mut self.dice);
            match self.acknowledged.perform(&self.dir, &step) {
                Ok(()) => self.acknowledged.apply(&step),
                Err(error) => {
                    let mut told = format!("{step:?}");
                    told.truncate(100);
                    self.pending = Some(step);
                    return Some((told, error));
                }
            }
        }
        None
    }

    /// Panics unless everything acknowledged is there and nothing else: only what was in flight may be done, or not,
    /// or for a long write in part.
    pub(crate) fn check(&mut self) {
        let found = Found::read(&self.dir);
        let Some(without) = self.acknowledged.difference(&found) else {
            self.pending = None;
            return;
        };
        let dir = self.dir.display();
        let Some(step) = self.pending.take() else { panic!("{dir}: {without}") };
        let told = format!("{step:?}");
        let told = told.get(..100).unwrap_or(&told);
        self.acknowledged.apply(&self.acknowledged.part_done(&step, &found));
        if let Some(with) = self.acknowledged.difference(&found) {
            panic!("{dir}: neither with nor without {told}: {with}; {without}");
        }
    }
}

#[test]
fn what_a_worker_remembers_does_not_grow_with_what_it_has_removed() {
    let (mut content, mut dice) = (Content::new(100), Dice::new(1));
    for _ in 0..10_000 {
        let step = content.choose(&mut dice);
        content.apply(&step);
        let named = content.names.values().filter_map(Node::number);
        assert!(content.files.keys().copied().eq(BTreeSet::from_iter(named)), "after {step:?}");
    }
}
