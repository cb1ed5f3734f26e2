//! Writing a namespace down anew: what it was with the changes over it, all counts made anew, in a base of its own.

use std::collections::{HashSet, btree_map};
use std::hash::{DefaultHasher, Hasher};
use std::iter::Peekable;

use cairn_format::key::{Key, tag};
use cairn_format::{CheckpointRef, Lsn, PackId, PackKind};
use cairn_store::{
    PackListing, PackReader, Place, StoreError, list_packs, list_twins, pack_path, write_replicas,
};
use cairn_volume::{BaseWriter, ChainReadError, RecordCursor, load_chain};

use super::counts::Recount;
use super::plan::Plan;
use super::survey::{Survey, live};
use super::{Ground, unreadable};
use crate::CheckError;
use crate::footers::Footers;
use crate::namespace::{Counts, PieceCheck, Record, Walk, Wish};
use crate::repair::Site;
use crate::repair::undo::Side;

/// Writes the base, reads it back, and has the superblock name it. Until then nothing has changed; afterwards what it
/// supersedes is moved out of the way.
pub(super) fn write(
    site: &mut Site<'_>,
    ground: &Ground<'_>,
    plan: &Plan,
    survey: &mut Survey,
) -> Result<(), CheckError> {
    site.undo.prepare()?;
    // Not beyond the journal's end: a checkpoint there says that the journal lost its end.
    let lsn = ground.reached;
    let floor = survey.lowest.map_or(lsn.next(), |lowest| lowest.min(lsn.next()));
    let at = write_base(site, ground, plan, survey, (lsn, floor))?;
    if at <= ground.tip {
        let why = "no name for a newer checkpoint is left".to_owned();
        return Err(CheckError::Io { path: "store".into(), error: std::io::Error::other(why) });
    }
    for path in cairn_store::REPLICA_PATHS {
        site.undo.copy(Side::Volume, path)?;
    }
    let mut superblock = ground.superblock.clone();
    superblock.checkpoint = at;
    superblock.generation = superblock.generation.saturating_add(1);
    write_replicas(&*site.volume, &superblock.encode()).map_err(store_error(""))?;
    take_superseded(site, ground, at)
}

fn write_base(
    site: &Site<'_>,
    ground: &Ground<'_>,
    plan: &Plan,
    survey: &mut Survey,
    (lsn, floor): (Lsn, Lsn),
) -> Result<CheckpointRef, CheckError> {
    let mut names = names_for(site, ground)?;
    let identity = (ground.superblock.uuid, ground.superblock.geometry.parity);
    let mut written = Written {
        writer: BaseWriter::new(ground.store, identity, (lsn, floor), &mut names),
        sum: DefaultHasher::new(),
    };
    survey.count_anew();
    let wish = Wish { give_up: ground.may_lose, zero: ground.may_lose && site.options.zero_fill };
    let pieces = PieceCheck {
        packs: &site.packs,
        footers: Footers::new(site.store.clone()),
        journal: ground.journal,
        alone: HashSet::new(),
    };
    let mut recount = Recount { survey, counts: Counts::default(), pieces, wish };
    let states = ground.names();
    let walk = states.walk().map_err(unreadable)?;
    let mut records = Changed::new(walk, plan).map_err(unreadable)?;
    let mut sums = Sums::default();
    while let Some((key, value)) = records.next().map_err(unreadable)? {
        if site.progress.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        sums.before(&key, &recount, &mut written)?;
        let decoded = live(&key);
        if decoded.is_none() && matches!(key.first(), Some(&(tag::META | tag::PACK))) {
            continue;
        }
        if let Some(value) = recount.value(decoded.as_ref(), value) {
            written.put(&key, &value)?;
        }
    }
    sums.before(&[0xff], &recount, &mut written)?;
    let Written { writer, sum } = written;
    let at = writer.finish().map_err(store_error("store/"))?;
    if read_back(ground, at).map_err(unreadable)? != sum.finish() {
        let why = format!("the namespace that was written to pack {} is another when it is read", at.pack);
        return Err(CheckError::Io { path: "store".into(), error: std::io::Error::other(why) });
    }
    Ok(at)
}

/// Names for packs: of an epoch that no pack has, and behind that of the checkpoint there is.
fn names_for(site: &Site<'_>, ground: &Ground<'_>) -> Result<impl FnMut() -> PackId + use<>, CheckError> {
    let listing = list_packs(&*site.store).map_err(store_error("store/"))?;
    let twins = list_twins(&*site.store).map_err(store_error("store/"))?;
    let names =
        |listing: PackListing| listing.packs.into_iter().map(|(pack, _)| pack).chain(listing.unsealed);
    let taken: HashSet<PackId> = names(listing).chain(names(twins)).collect();
    let chain = &ground.journal.chain;
    let epochs = taken.iter().map(PackId::epoch).chain([ground.superblock.epoch, chain.highest_epoch]);
    let epoch = epochs.max().unwrap_or(0).saturating_add(1).min(Lsn::EPOCH_MAX);
    let mut session = [0; 8];
    match ground.tip {
        CheckpointRef::NONE => session.copy_from_slice(&ground.superblock.uuid.0[..8]),
        tip => session.copy_from_slice(&tip.pack.0[..8]),
    }
    let mut number = 0;
    Ok(move || {
        loop {
            number += 1;
            let pack = PackId::new(u64::from_be_bytes(session), epoch, number);
            if !taken.contains(&pack) {
                return pack;
            }
        }
    })
}

/// A base on its way, and a sum of all that is in it.
struct Written<'a> {
    writer: BaseWriter<'a>,
    sum: DefaultHasher,
}

impl Written<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), CheckError> {
        add(&mut self.sum, key, value);
        self.writer.put(key, value).map_err(store_error("store/"))
    }
}

fn add(sum: &mut DefaultHasher, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        sum.write_usize(part.len());
        sum.write(part);
    }
}

/// The sum of a base's records, as they lie on the disk.
fn read_back(ground: &Ground<'_>, at: CheckpointRef) -> Result<u64, ChainReadError> {
    let chain = load_chain(ground.store, ground.superblock.uuid, at)?;
    let mut sum = DefaultHasher::new();
    for entry in chain.entries {
        let mut cursor = RecordCursor::new(ground.store, entry.parts);
        while let Some((key, value)) = cursor.next()? {
            add(&mut sum, &key, &value.unwrap_or_default());
        }
    }
    Ok(sum.finish())
}

/// The sums, which are written when all that comes before them was.
#[derive(Default)]
struct Sums {
    meta: bool,
    packs: bool,
}

impl Sums {
    /// Writes those that belong before `key`.
    fn before(
        &mut self,
        key: &[u8],
        recount: &Recount<'_>,
        written: &mut Written<'_>,
    ) -> Result<(), CheckError> {
        let tag = key.first().copied().unwrap_or(0);
        if tag > tag::META && !self.meta {
            self.meta = true;
            written.put(&Key::NextInode.encode(), &recount.survey.next_ino().to_le_bytes())?;
            written.put(&Key::Totals.encode(), &recount.counts.totals.encode())?;
        }
        if tag > tag::PACK && !self.packs {
            self.packs = true;
            let mut packs: Vec<_> = recount.counts.refs.iter().collect();
            packs.sort_unstable_by_key(|(pack, _)| **pack);
            for (pack, refs) in packs {
                written.put(&Key::Pack(*pack).encode(), &refs.encode())?;
            }
        }
        Ok(())
    }
}

/// A walk's records with changes over them.
struct Changed<'a> {
    walk: Walk<'a>,
    ahead: Option<Record>,
    changes: Peekable<btree_map::Iter<'a, Vec<u8>, Option<Vec<u8>>>>,
}

impl<'a> Changed<'a> {
    fn new(walk: Walk<'a>, plan: &'a Plan) -> Result<Changed<'a>, ChainReadError> {
        let mut changed = Changed { walk, ahead: None, changes: plan.changes.iter().peekable() };
        changed.ahead = changed.pull()?;
        Ok(changed)
    }

    /// The walk's next record that has a value.
    fn pull(&mut self) -> Result<Option<Record>, ChainReadError> {
        while let Some(entry) = self.walk.next()? {
            if let Some(value) = entry.now() {
                let value = value.to_vec();
                return Ok(Some((entry.key, value)));
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Record>, ChainReadError> {
        loop {
            let change_first = match (&self.ahead, self.changes.peek()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((key, _)), Some((changed, _))) => *changed <= key,
            };
            if !change_first {
                let next = self.pull_if(self.ahead.is_some())?;
                return Ok(std::mem::replace(&mut self.ahead, next));
            }
            // Peeked above.
            let Some((key, value)) = self.changes.next() else { return Ok(None) };
            if self.ahead.as_ref().is_some_and(|(ahead, _)| ahead == key) {
                self.ahead = self.pull()?;
            }
            if let Some(value) = value {
                return Ok(Some((key.clone(), value.clone())));
            }
        }
    }

    fn pull_if(&mut self, more: bool) -> Result<Option<Record>, ChainReadError> {
        if more { self.pull() } else { Ok(None) }
    }
}

/// Moves the volume's other metadata packs away: the next mount would remove them.
fn take_superseded(site: &mut Site<'_>, ground: &Ground<'_>, at: CheckpointRef) -> Result<(), CheckError> {
    let chain = load_chain(ground.store, ground.superblock.uuid, at).map_err(unreadable)?;
    let needed: HashSet<PackId> = chain.packs().into_iter().collect();
    let listing = list_packs(&*site.store).map_err(store_error("store/"))?;
    for (pack, _) in listing.packs.into_iter().filter(|(pack, _)| !needed.contains(pack)) {
        let footer = PackReader::open(&*site.store, pack).and_then(|reader| reader.footer());
        let is_ours =
            footer.is_ok_and(|f| f.kind == PackKind::Metadata && f.volume == ground.superblock.uuid);
        if is_ours {
            // Its second copy first, which has nothing that it has not.
            for place in Place::all().filter(|place| *place != Place::Pack) {
                let _ = site.store.remove(&place.path(&pack));
            }
            site.undo.take(Side::Store, &pack_path(&pack))?;
            site.packs.remove(&pack);
        }
    }
    Ok(())
}

/// An error of the store's, with the path from the volume's directory.
fn store_error(place: &'static str) -> impl Fn(StoreError) -> CheckError {
    move |error| match error {
        StoreError::Io { path, error } => CheckError::Io { path: format!("{place}{path}"), error },
        error => CheckError::Io { path: place.into(), error: std::io::Error::other(error) },
    }
}
