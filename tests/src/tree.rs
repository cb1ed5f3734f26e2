//! A whole tree written down, from the model or from a volume, and what is different between two.

use std::collections::{BTreeMap, HashMap};

use cairn_volume::{Attr, Error, FileKind, Timestamp, Volume};

use crate::content::Content;
use crate::model::{Body, Id, Model, ROOT};

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in stat(2)")]
pub struct Entry {
    pub kind: FileKind,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    pub mtime: Option<Timestamp>,
    pub atime: Option<Timestamp>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub target: Vec<u8>,
    pub content: Content,
    /// The first path, in the order of bytes, of the same inode.
    pub first_name: Vec<u8>,
    /// `st_ino`, or the model's number.
    pub ino: u64,
}

/// Names and what they lead to; the root is "".
pub type Tree = BTreeMap<Vec<u8>, Entry>;

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    [dir, b"/", name].concat()
}

/// The model's tree.
pub fn of_model(model: &Model) -> Tree {
    let mut tree = Tree::new();
    let mut ahead: Vec<(Vec<u8>, Id)> = vec![(Vec::new(), ROOT)];
    while let Some((path, id)) = ahead.pop() {
        let Ok(node) = model.node(id) else { continue };
        let (mut target, mut content, mut size) = (Vec::new(), Content::default(), 0);
        match &node.body {
            Body::File(bytes) => (content, size) = (bytes.clone(), bytes.size),
            Body::Link(to) => (target, size) = (to.clone(), to.len() as u64),
            Body::Dir(names, _) => {
                ahead.extend(names.iter().map(|(name, id)| (joined(&path, name), *id)));
            }
            Body::Special(_) => {}
        }
        let entry = Entry {
            kind: node.kind(),
            perm: node.perm,
            uid: node.uid,
            gid: node.gid,
            nlink: node.nlink,
            size,
            mtime: node.mtime,
            atime: node.atime,
            xattrs: node.xattrs.clone(),
            target,
            content,
            first_name: Vec::new(),
            ino: id,
        };
        tree.insert(path, entry);
    }
    with_first_names(tree)
}

fn with_first_names(mut tree: Tree) -> Tree {
    let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
    for (path, entry) in &mut tree {
        entry.first_name = first.entry(entry.ino).or_insert_with(|| path.clone()).clone();
    }
    tree
}

/// A name as a directory lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in readdir(3)")]
pub struct Listed {
    pub name: Vec<u8>,
    pub ino: u64,
    pub kind: FileKind,
    pub cookie: u64,
}

/// A directory's names, `.` and `..` first.
pub fn list(volume: &Volume, dir: u64) -> Result<Vec<Listed>, Error> {
    let mut items = Vec::new();
    volume.readdir(dir, 0, &mut |item| {
        items.push(Listed { name: item.name.to_vec(), ino: item.ino, kind: item.kind, cookie: item.cookie });
        true
    })?;
    Ok(items)
}

/// A volume's tree; an error names what cannot be read, or does not fit.
pub fn of_volume(volume: &Volume) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let mut ahead: Vec<(Vec<u8>, u64, u64)> = vec![(Vec::new(), 1, 1)];
    while let Some((path, ino, parent)) = ahead.pop() {
        let at = |what: &str, error: Error| format!("{}: {what}: {error}", String::from_utf8_lossy(&path));
        let attr = volume.getattr(ino).map_err(|e| at("getattr", e))?;
        if attr.kind == FileKind::Directory {
            let items = list(volume, ino).map_err(|e| at("readdir", e))?;
            let own: Vec<_> = items.iter().take(2).map(|i| (i.name.as_slice(), i.ino)).collect();
            if own != [(&b"."[..], ino), (&b".."[..], parent)] {
                return Err(format!("{}: it begins with {own:?}", String::from_utf8_lossy(&path)));
            }
            for Listed { name, ino: child, kind, .. } in items.into_iter().skip(2) {
                let looked_up = volume.lookup(ino, &name).map_err(|e| at("lookup", e))?;
                if looked_up.as_ref().map(|a| (a.ino, a.kind)) != Some((child, kind)) {
                    return Err(format!(
                        "{}: {name:?} is listed as {child}, looked up as {looked_up:?}",
                        String::from_utf8_lossy(&path)
                    ));
                }
                ahead.push((joined(&path, &name), child, ino));
            }
        }
        let entry = entry(volume, &attr).map_err(|(what, error)| at(what, error))?;
        if tree.insert(path.clone(), entry).is_some() {
            return Err(format!("{} is listed twice", String::from_utf8_lossy(&path)));
        }
    }
    Ok(with_first_names(tree))
}

fn entry(volume: &Volume, attr: &Attr) -> Result<Entry, (&'static str, Error)> {
    let names = volume.listxattr(attr.ino).map_err(|e| ("listxattr", e))?;
    let mut xattrs = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        xattrs.insert(name.to_vec(), volume.getxattr(attr.ino, name).map_err(|e| ("getxattr", e))?);
    }
    let mut content = Content::default();
    let mut target = Vec::new();
    match attr.kind {
        FileKind::Regular => content = read_all(volume, attr.ino, attr.size).map_err(|e| ("read", e))?,
        FileKind::Symlink => target = volume.readlink(attr.ino).map_err(|e| ("readlink", e))?,
        _ => {}
    }
    Ok(Entry {
        kind: attr.kind,
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: attr.size,
        mtime: Some(attr.mtime),
        atime: Some(attr.atime),
        xattrs,
        target,
        content,
        first_name: Vec::new(),
        ino: attr.ino,
    })
}

/// All bytes of a file, read in pieces that meet neither pages nor chunks.
pub fn read_all(volume: &Volume, ino: u64, size: u64) -> Result<Content, Error> {
    const STEP: u32 = 100_003;
    let mut content = Content::default();
    let mut at = 0;
    while at < size {
        let bytes = volume.read(ino, at, STEP)?;
        if bytes.is_empty() {
            break;
        }
        content.write(at, &bytes);
        at += bytes.len() as u64;
    }
    Ok(content)
}

/// The first difference between what should be and what is; times that the model does not know are not
/// compared.
pub fn difference(expected: &Tree, found: &Tree) -> Option<String> {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for path in expected.keys().chain(found.keys()) {
        let (e, f) = match (expected.get(path), found.get(path)) {
            (Some(e), Some(f)) => (e, f),
            (Some(_), None) => return Some(format!("{:?} is missing", shown(path))),
            _ => return Some(format!("{:?} should not be there", shown(path))),
        };
        let times = |e: Option<Timestamp>, f: Option<Timestamp>| e.is_none() || e == f;
        let same = [
            ("kind", e.kind == f.kind),
            ("perm", e.perm == f.perm),
            ("uid", e.uid == f.uid),
            ("gid", e.gid == f.gid),
            ("nlink", e.nlink == f.nlink),
            ("size", e.size == f.size),
            ("mtime", times(e.mtime, f.mtime)),
            ("atime", times(e.atime, f.atime)),
            ("xattrs", e.xattrs == f.xattrs),
            ("target", e.target == f.target),
            ("names", e.first_name == f.first_name),
            ("content", e.content == f.content),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            if *what == "content" {
                let at = e.content.difference(&f.content);
                return Some(format!("{:?} differs from byte {at:?} on", shown(path)));
            }
            let strip = |e: &Entry| Entry { content: Content::default(), ..e.clone() };
            return Some(format!(
                "{:?}: its {what}: should be {:?}, is {:?}",
                shown(path),
                strip(e),
                strip(f)
            ));
        }
    }
    None
}
