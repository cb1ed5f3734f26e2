//! A program that changes a directory of its own at random and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use cairn_tests::dice::{Dice, data};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// How many names a directory may have.
const NAMES: u64 = 40;
/// Files are kept below about this length.
const LENGTH: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// A file, by number: hard links share one.
    File(u32),
    Dir,
    Link(String),
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
struct Content {
    names: BTreeMap<String, Node>,
    files: BTreeMap<u32, Vec<u8>>,
    next: u32,
}

/// One system call, or for a long write some.
#[derive(Clone, Debug)]
enum Step {
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
}

impl Content {
    fn file(&self, name: &str) -> Option<u32> {
        match self.names.get(name) {
            Some(Node::File(number)) => Some(*number),
            _ => None,
        }
    }

    /// A step that this content allows.
    fn choose(&self, dice: &mut Dice) -> Step {
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
                (11, Some(Node::File(_))) => Step::Truncate(name, dice.below(LENGTH)),
                (12..17, Some(Node::File(_))) => {
                    let long = dice.one_in(4);
                    let length = 1 + dice.below(if long { 1 << 20 } else { 20_000 });
                    Step::Write(name, dice.below(LENGTH), data(dice.roll(), length as usize))
                }
                (17, Some(Node::File(_))) => Step::Read(name),
                _ => continue,
            };
        }
    }

    fn apply(&mut self, step: &Step) {
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
                self.names.insert(to.clone(), node);
            }
            Step::Exchange(one, other) => {
                let nodes = [one, other].map(|name| self.names[name].clone());
                self.names.extend([other.clone(), one.clone()].into_iter().zip(nodes));
            }
            Step::Unlink(name) | Step::Rmdir(name) => drop(self.names.remove(name)),
            Step::Truncate(name, size) => self.change(name, |bytes| bytes.resize(*size as usize, 0)),
            Step::Write(name, offset, data) => self.change(name, |bytes| {
                let end = *offset as usize + data.len();
                if !data.is_empty() && bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..][..data.len()].copy_from_slice(data);
            }),
            Step::Read(_) => {}
        }
    }

    fn change(&mut self, name: &str, f: impl FnOnce(&mut Vec<u8>)) {
        let number = self.file(name).expect("chosen for being a file");
        f(self.files.get_mut(&number).expect("every name's file is there"));
    }

    /// Does the step for real. Reads are compared with what is remembered.
    fn perform(&self, dir: &Path, step: &Step) -> io::Result<()> {
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
                let number = self.file(name).expect("chosen for being a file");
                assert!(found == self.files[&number], "{name} reads as something else than was written");
                Ok(())
            }
        }
    }

    /// Where the directory differs from this, if it does.
    fn difference(&self, dir: &Path) -> Option<String> {
        let listed = fs::read_dir(dir).expect("a directory");
        let mut listed: Vec<_> =
            listed.map(|e| e.expect("listed").file_name().into_string().expect("UTF-8")).collect();
        listed.sort();
        let expected: Vec<_> = self.names.keys().cloned().collect();
        if listed != expected {
            let odd = listed
                .iter()
                .filter(|n| !expected.contains(n))
                .chain(expected.iter().filter(|n| !listed.contains(n)));
            return Some(format!("names that only one of both has: {:?}", odd.collect::<Vec<_>>()));
        }
        let mut numbers = BTreeMap::new();
        for (name, node) in &self.names {
            let path = dir.join(name);
            let about = fs::symlink_metadata(&path).expect("listed");
            let same = match node {
                Node::Dir => about.is_dir(),
                Node::Link(target) => fs::read_link(&path).is_ok_and(|found| found == Path::new(target)),
                Node::File(number) => {
                    let links = self.names.values().filter(|other| *other == node).count() as u64;
                    let first = *numbers.entry(*number).or_insert(about.ino());
                    if (about.nlink(), about.ino()) != (links, first) {
                        return Some(format!("{name} has {} links, not {links}", about.nlink()));
                    }
                    let found = fs::read(&path).map_err(|e| e.to_string());
                    match found {
                        Ok(found) if found == self.files[number] => true,
                        Ok(found) => {
                            let expected = &self.files[number];
                            let at = found.iter().zip(expected).position(|(a, b)| a != b);
                            return Some(format!(
                                "{name} has {} bytes, {} were written; the first other byte is at {at:?}",
                                found.len(),
                                expected.len()
                            ));
                        }
                        Err(error) => return Some(format!("{name}: {error}")),
                    }
                }
            };
            if !same {
                return Some(format!("{name} is no {node:?}"));
            }
        }
        None
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
        Worker { dir, dice: Dice::new(seed), acknowledged: Content::default(), pending: None }
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
        let dir = self.dir.clone();
        let Some(without) = self.acknowledged.difference(&dir) else {
            self.pending = None;
            return;
        };
        let Some(step) = self.pending.take() else { panic!("{}: {without}", dir.display()) };
        let told = format!("{step:?}");
        let told = told.get(..100).unwrap_or(&told);
        self.acknowledged.apply(&match step {
            Step::Write(name, offset, data) => {
                let found = fs::read(dir.join(&name)).expect("what was written to is there");
                let there = found.get(offset as usize..).unwrap_or_default();
                let written = there.iter().zip(&data).take_while(|(a, b)| a == b).count();
                Step::Write(name, offset, data[..written].to_vec())
            }
            whole => whole,
        });
        if let Some(with) = self.acknowledged.difference(&dir) {
            panic!("{}: neither with nor without {told}: {with}; {without}", dir.display());
        }
    }
}
