//! What a page shows beside findings: the packs, what is saved, what protects it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_format::{PackId, PackKind, Uuid, VolumeSuperblock};
use cairn_page::{Margin, Pack, PackState, Savings};
use cairn_store::disk::Disk;
use cairn_store::heal::{Examined as Damage, Mended, examine, sectors};
use cairn_store::{Store, list_packs};
use cairn_volume::{guarantee, scrub_state};

use crate::examine::Examined;
use crate::namespace::GIVEN_UP;
use crate::packs::Packs;
use crate::progress::Progress;
use crate::report::Severity;

/// What a page shows of a volume beside what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Every pack of the store.
    pub packs: Vec<Pack>,
    /// What the volume's files hold and take, where the namespace could be read.
    pub savings: Option<Savings>,
    /// What the parity of new packs is good for.
    pub guarantee: Option<String>,
}

/// What was done about a pack's damage, or would be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Treated {
    corrected: u64,
    uncorrected: u64,
    margin: Option<Margin>,
}

impl Treated {
    /// Notes what was restored of a pack, and what was not.
    pub(crate) fn note(&mut self, damage: &Damage, mended: &Mended) {
        self.corrected += sectors(&mended.restored);
        self.uncorrected = sectors(&mended.lost);
        // The first time there is most of it.
        self.margin = self.margin.or_else(|| margin(damage));
    }

    fn of(damage: &Damage) -> Treated {
        Treated { corrected: 0, uncorrected: damage.damaged_sectors(), margin: margin(damage) }
    }
}

fn margin(damage: &Damage) -> Option<Margin> {
    let margin = damage.margin()?;
    Some(Margin { data: margin.parity.data, parity: margin.parity.parity, used: margin.used })
}

/// Draws a volume that was gone through; `treated` are packs that were written to.
pub(crate) fn draw(
    found: &Examined,
    packs: &Packs,
    treated: &BTreeMap<PackId, Treated>,
    store: &dyn Disk,
    progress: &dyn Progress,
) -> Picture {
    progress.step("margins");
    let now = now();
    let unneeded = unneeded(found, packs);
    let mut drawn: Vec<Pack> = packs
        .iter()
        .map(|(pack, result)| {
            let state = match result.state() {
                // Nothing is lost that anything needs.
                PackState::Lost if unneeded.contains(pack) => PackState::Damaged,
                PackState::Whole if treated.contains_key(pack) => PackState::Healed,
                state => state,
            };
            let known = treated.get(pack).copied();
            let known =
                known.or_else(|| (state > PackState::Unseen).then(|| look(store, *pack, progress))?);
            let Treated { corrected, uncorrected, margin } = known.unwrap_or_default();
            let least = u64::from(state >= PackState::Damaged);
            let uncorrected = uncorrected.max(least);
            Pack {
                id: pack.0,
                len: result.len(),
                state,
                seen: true,
                verified: Some(now),
                corrected,
                uncorrected,
                margin,
            }
        })
        .collect();
    drawn.extend(missing(found, packs));
    Picture { packs: drawn, savings: savings(found), guarantee: promise(found) }
}

/// What is known of a volume that nobody went through.
pub(crate) fn outline(superblock: &VolumeSuperblock, store: &dyn Disk) -> Picture {
    let of_store = Store::superblock_of(store).ok().map(|replicas| replicas.newest);
    let listed = list_packs(store).map(|listing| listing.packs).unwrap_or_default();
    let verified = of_store.as_ref().map(|of_store| verified(store, of_store.uuid)).unwrap_or_default();
    let packs = listed.into_iter().map(|(pack, len)| Pack {
        id: pack.0,
        len,
        state: PackState::Unseen,
        seen: false,
        verified: verified.get(&pack).copied(),
        corrected: 0,
        uncorrected: 0,
        margin: None,
    });
    let guarantee = of_store.map(|found| guarantee(superblock.geometry.parity, found.pack_size.into()));
    Picture { packs: packs.collect(), savings: None, guarantee }
}

fn verified(store: &dyn Disk, uuid: Uuid) -> HashMap<PackId, u64> {
    let packs = scrub_state(store, uuid).packs.into_iter();
    packs.filter_map(|entry| Some((entry.pack, entry.verified_at()?))).collect()
}

/// What is wrong with a pack that nothing was done about.
fn look(store: &dyn Disk, pack: PackId, progress: &dyn Progress) -> Option<Treated> {
    let damage = examine(store, pack, &mut |_| !progress.is_cancelled()).ok()??;
    Some(Treated::of(&damage))
}

/// Metadata packs that no checkpoint needs any more.
fn unneeded(found: &Examined, packs: &Packs) -> HashSet<PackId> {
    let (Some(superblock), Some(checkpoints)) = (&found.superblock, &found.checkpoints) else {
        return HashSet::new();
    };
    let needed = checkpoints.packs();
    let left_over = |kind| kind == Some((superblock.uuid, PackKind::Metadata));
    let packs =
        packs.iter().filter(|(pack, result)| left_over(result.facts.described) && !needed.contains(pack));
    packs.map(|(pack, _)| *pack).collect()
}

/// Packs that something names and that are not there.
fn missing(found: &Examined, packs: &Packs) -> Vec<Pack> {
    let damage = found.findings.list.iter().filter(|f| f.severity == Severity::Damage && f.done.is_none());
    let named: HashSet<PackId> = damage.filter_map(|f| PackId::parse(f.pack.as_deref()?)).collect();
    let gone = named.into_iter().filter(|pack| !packs.contains_key(pack) && *pack != GIVEN_UP);
    gone.map(|pack| Pack {
        id: pack.0,
        len: 0,
        state: PackState::Lost,
        seen: true,
        verified: None,
        corrected: 0,
        uncorrected: 1,
        margin: None,
    })
    .collect()
}

fn savings(found: &Examined) -> Option<Savings> {
    let (store, checkpoints) = (found.store.as_ref()?, found.checkpoints.as_ref());
    checkpoints?;
    let usage = store.usage();
    Some(Savings {
        logical: found.totals.logical,
        unique: usage.unique,
        stored: usage.data,
        metadata: usage.metadata,
        parity: usage.spare,
        journal: 0,
    })
}

fn promise(found: &Examined) -> Option<String> {
    let (superblock, of_store) = (found.superblock.as_ref()?, found.store_superblock.as_ref()?);
    Some(guarantee(superblock.geometry.parity, of_store.pack_size.into()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
