//! Bit rot under real mounts: what programs are given, what the mount and fsck say. `tests/core/rot.rs` makes many more such
//! faults without a kernel.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cairn_format::SECTOR;
use cairn_store::disk::{Disk, FileDisk};
use cairn_store::pack_path;
use cairn_tests::dice::{Dice, data, noise};
use cairn_tests::mounted::{Mounted, Ran, daemon_of, is_free, is_mounted, run};
use cairn_tests::pristine::{Extent, Pristine};
use cairn_tests::rot::{Edit, Fault, Guarantee, Layout, Loss, Region, Verdict, mend_packs};
use cairn_volume::OpenOptions;
use rustix::io::Errno;
use tempfile::TempDir;

/// Bytes of a page: where one of them is lost the kernel gives none.
const PAGE: u64 = 4096;
const MKFS: [&str; 8] =
    ["--journal-size", "2M", "--segment-size", "256K", "--frame-size", "64K", "--chunk-size", "1K/4K/16K"];
const FAULTS_TO_A_VOLUME: u64 = 25;

/// A volume that nobody has mounted, as it was before it rots.
struct Original {
    mounted: Mounted,
    copy: TempDir,
    older: TempDir,
    layout: Layout,
    /// Each file's bytes and places.
    files: BTreeMap<String, (Vec<u8>, Vec<Extent>)>,
}

fn faults() -> u64 {
    std::env::var("CAIRN_FAULTS").ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(20_000) / 100
}

/// Copies what lies in one directory into another, which is emptied first; sockets and the lock are none of it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(to)?.collect::<io::Result<Vec<_>>>()? {
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    for entry in fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()? {
        let (path, kind) = (to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            fs::create_dir(&path)?;
            copy(&entry.path(), &path)?;
        } else if kind.is_file() && entry.file_name() != "lock" {
            fs::copy(entry.path(), path)?;
        }
    }
    Ok(())
}

pub(crate) fn disks(dir: &Path) -> (FileDisk, Arc<dyn Disk>) {
    let open = |dir: &Path| FileDisk::open(dir).expect("a directory");
    (open(dir), Arc::new(open(&dir.join("store"))))
}

fn write_files(m: &Mounted, dice: &mut Dice, from: u64, to: u64) {
    for n in from..to {
        let dir = m.path(format!("dir {}", n % 5));
        fs::create_dir_all(&dir).expect("made");
        let len = dice.below(60_000) as usize;
        let file = File::create(dir.join(format!("file {n}"))).expect("a new name");
        file.write_all_at(&data(dice.roll(), len), dice.below(3) * 5_000).expect("written");
        if dice.one_in(8) {
            file.sync_all().expect("synced");
        }
    }
}

impl Original {
    /// One that was unmounted, or whose daemon was killed.
    fn make(seed: u64) -> Original {
        let mut dice = Dice::new(seed);
        let mounted = Mounted::unmounted(&MKFS, &[]);
        mounted.mount();
        write_files(&mounted, &mut dice, 0, 40);
        mounted.sync();
        mounted.remount();
        write_files(&mounted, &mut dice, 40, 60);
        mounted.sync();
        let older = TempDir::new().expect("a directory");
        copy(mounted.dir(), older.path()).expect("copied");
        write_files(&mounted, &mut dice, 60, 80);
        match seed % 2 {
            0 => mounted.unmount(),
            _ => {
                // So that one bad sector does not hit all that say what was synced.
                let witness = File::create(mounted.path("witness")).expect("a new name");
                for n in 0..4 {
                    witness.write_all_at(&noise(n, 10_000), n * 10_000).expect("written");
                    witness.sync_all().expect("synced");
                }
                mounted.kill();
                drop(witness);
                mounted.take_away();
            }
        }
        let copied = TempDir::new().expect("a directory");
        copy(mounted.dir(), copied.path()).expect("copied");
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        let volume = cairn_volume::open(copied.path(), options).expect("whole");
        let pristine = Pristine::of(&volume).expect("whole");
        drop(volume);
        let (disk, store) = disks(copied.path());
        let layout = Layout::of(&disk, store, pristine.extents());
        let files = pristine.files().map(|(path, bytes, extents)| (path.to_owned(), (bytes, extents)));
        Original { files: files.collect(), mounted, copy: copied, older, layout }
    }

    /// More holes that are too long for parity than chance makes: of these few faults a fifth has to be beyond it.
    fn draw(&self, dice: &mut Dice) -> Fault {
        if !dice.one_in(6) {
            return self.layout.draw(dice, &disks(self.older.path()).0, false);
        }
        let used: Vec<_> = self.layout.packs().into_iter().filter(|pack| self.layout.is_used(pack)).collect();
        let pack = used[dice.below(used.len() as u64) as usize];
        let sectors = self.layout.len_of(pack) / SECTOR;
        self.layout.hole(pack, dice.below(sectors / 4), sectors / 2)
    }

    fn restore(&self) {
        copy(self.copy.path(), self.mounted.dir()).expect("copied");
    }

    fn check(&self, fault: &Fault, verdict: &Verdict, dice: &mut Dice) -> Result<(), String> {
        self.restore();
        let (disk, _) = disks(self.mounted.dir());
        // What is read only when it is asked for can rot under a mount, too.
        let late = !verdict.refused
            && !verdict.needs_engine
            && !verdict.may_need_engine
            && fault.edits.iter().all(|e| matches!(e, Edit::Write(path, ..) if path.ends_with(".pack")))
            && dice.one_in(3)
            && self.mount_with_all(fault)?;
        fault.inflict(&disk).map_err(|e| format!("no such fault: {e}"))?;
        if !late {
            check_fsck(self.mounted.dir(), verdict, true)?;
            let engine_is_lost = dice.one_in(2);
            if engine_is_lost {
                fs::remove_dir_all(self.mounted.dir().join("engine")).map_err(|e| format!("engine: {e}"))?;
            }
            let ran = self.mounted.try_mount(&[]);
            if ran.code != 0 {
                return refused(&ran, verdict);
            }
            if verdict.refused || verdict.needs_engine && engine_is_lost {
                self.unmount(verdict)?;
                return Err("it can be mounted".into());
            }
        }
        if dice.one_in(3) {
            // What is folded can be read as before. What is lost cannot be folded, nor what is cut with it.
            let ran = run("cairn", ["sync".as_ref(), self.mounted.dir().as_os_str()]);
            if ran.code != 0 && verdict.guarantee == Guarantee::Within {
                return Err(format!("sync ends with {}: {}", ran.code, ran.err));
            }
        }
        let read = match verdict.guarantee {
            Guarantee::Unwitnessed => Ok(()),
            _ => read_all(self.mounted.at(), &self.files, verdict).map(drop),
        };
        self.unmount(verdict)?;
        if late {
            check_fsck(self.mounted.dir(), verdict, false)?;
        }
        read?;
        match verdict.guarantee {
            Guarantee::Within if !verdict.packs.is_empty() && verdict.unneeded.is_empty() => {
                self.check_mended(&disk, verdict)
            }
            _ => Ok(()),
        }
    }

    /// Mounts it, unless that removes a pack which the fault is about: the killed daemon had begun or sealed it, and nothing
    /// names it yet. Then it stays unmounted, and is as it was.
    fn mount_with_all(&self, fault: &Fault) -> Result<bool, String> {
        self.mounted.mount();
        if fault.edits.iter().all(|edit| self.mounted.dir().join(edit.path()).exists()) {
            return Ok(true);
        }
        let ran = self.mounted.try_unmount();
        if ran.code != 0 {
            return Err(format!("whole, and umount ends with {}: {}", ran.code, ran.err));
        }
        self.restore();
        Ok(false)
    }

    /// Leaves nothing mounted that the next fault would meet.
    fn give_up(&self) {
        if daemon_of(self.mounted.dir()).is_some() {
            self.mounted.kill();
        }
        if is_mounted(self.mounted.at()) {
            self.mounted.take_away();
        }
    }

    /// That packs are what they were once they were looked through, and that fsck finds nothing then.
    fn check_mended(&self, disk: &FileDisk, verdict: &Verdict) -> Result<(), String> {
        let (_, store) = disks(self.mounted.dir());
        mend_packs(&*store)?;
        for pack in verdict.packs.keys() {
            let path = format!("store/{}", pack_path(pack));
            // What nobody needed any more the mount has removed.
            if self.mounted.dir().join(&path).exists() {
                self.layout.check_whole(&path, disk)?;
            }
        }
        let ran = run("fsck-cairn", ["-n", "--json", self.mounted.dir().to_str().expect("UTF-8")]);
        match ran.code {
            0 => Ok(()),
            code => Err(format!("mended, and fsck ends with {code}: {}{}", ran.out, ran.err)),
        }
    }

    /// Journalled bytes that are lost, or whose neighbours in a chunk are, cannot be folded, which is said.
    fn unmount(&self, verdict: &Verdict) -> Result<(), String> {
        let ran = self.mounted.try_unmount();
        let said = ran.code == 1 && ran.err.contains("not everything could be folded");
        match ran.code == 0 || said && verdict.guarantee != Guarantee::Within {
            true if is_free(self.mounted.dir()) => Ok(()),
            _ => Err(format!("umount ends with {}: {}", ran.code, ran.err)),
        }
    }
}

/// Every page of every file is what it was, or, where something of it is lost, an I/O error; how many are that.
pub(crate) fn read_all(
    at: &Path,
    files: &BTreeMap<String, (Vec<u8>, Vec<Extent>)>,
    verdict: &Verdict,
) -> Result<u64, String> {
    let mut refused = 0;
    for (path, (bytes, extents)) in files {
        let wrong = |what: String| format!("{path}: {what}");
        let file = File::open(at.join(path.trim_start_matches('/')));
        let file = file.map_err(|e| wrong(e.to_string()))?;
        for at in (0..bytes.len() as u64).step_by(PAGE as usize) {
            let expected = &bytes[at as usize..(at + PAGE).min(bytes.len() as u64) as usize];
            let lost = extents.iter().any(|(start, len, kind)| {
                *start < at + PAGE && at < start + len && verdict.loses(kind, *len) != Loss::No
            });
            let mut found = vec![0; expected.len()];
            match (file.read_exact_at(&mut found, at), lost) {
                (Ok(()), false) if found == expected => {}
                // Of a page not all may be lost, of an extent neither.
                (Ok(()), true) if found == expected => {}
                (Err(error), true) if Errno::from_io_error(&error) == Some(Errno::IO) => refused += 1,
                (Ok(()), lost) => return Err(wrong(format!("WRONG BYTES at {at}, lost: {lost}"))),
                (Err(error), lost) => return Err(wrong(format!("at {at}, lost: {lost}: {error}"))),
            }
        }
    }
    Ok(refused)
}

fn refused(ran: &Ran, verdict: &Verdict) -> Result<(), String> {
    let may = verdict.guarantee != Guarantee::Within
        && (verdict.refused || verdict.needs_engine || verdict.may_need_engine);
    if !may && verdict.guarantee != Guarantee::Unwitnessed {
        return Err(format!("it is refused: {}", ran.err));
    }
    let named = verdict.named.iter().any(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        ran.err.contains(name.trim_end_matches(".pack"))
    });
    match ran.code == 1 || ran.code == 10 {
        true if named || verdict.guarantee == Guarantee::Unwitnessed => Ok(()),
        _ => Err(format!("refused with {}, without a name of {:?}: {}", ran.code, verdict.named, ran.err)),
    }
}

fn check_fsck(dir: &Path, verdict: &Verdict, is_first: bool) -> Result<(), String> {
    let ran = run("fsck-cairn", ["-n", "--json", dir.to_str().expect("UTF-8")]);
    let no_volume = ran.code == 8 && verdict.named.contains("superblock");
    if no_volume || verdict.guarantee == Guarantee::Unwitnessed && [0, 4].contains(&ran.code) {
        return Ok(());
    }
    let named = verdict.named.iter().any(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        ran.out.contains(name.trim_end_matches(".pack"))
    });
    match (verdict.guarantee, ran.code) {
        (Guarantee::Within, 0) if is_first && !verdict.packs.is_empty() => {
            Err(format!("fsck does not find the damage of {:?}", verdict.packs))
        }
        (Guarantee::Within, 0 | 4) => Ok(()),
        (Guarantee::Beyond, 4) if named => Ok(()),
        (_, code) => Err(format!("fsck ends with {code}, names {named}: {}{}", ran.out, ran.err)),
    }
}

#[test]
fn what_rots_under_a_mount_is_an_error_or_costs_nothing() {
    let mut by = BTreeMap::<Guarantee, u64>::new();
    let mut failures = Vec::new();
    for seed in 0..faults().div_ceil(FAULTS_TO_A_VOLUME) {
        let mut original = Original::make(seed);
        for n in 0..FAULTS_TO_A_VOLUME {
            original.mounted.be_patient();
            let mut dice = Dice::new(seed * FAULTS_TO_A_VOLUME + n);
            let fault = original.draw(&mut dice);
            let harmed: Vec<&Region> = original.layout.harmed(&fault);
            let verdict = original.layout.judge(&fault, &harmed);
            *by.entry(verdict.guarantee).or_default() += 1;
            if let Err(error) = original.check(&fault, &verdict, &mut dice) {
                failures.push(format!(
                    "volume {seed}, fault {n}: {}: {:?}: {error}",
                    fault.what, verdict.guarantee
                ));
                original.give_up();
            }
        }
        // For the harness's own last look: it is whole again.
        original.restore();
    }
    let made: u64 = by.values().sum();
    println!("{made} faults under mounts: {by:?}");
    assert!(failures.is_empty(), "{} faults went wrong:\n{}", failures.len(), failures.join("\n"));
    for guarantee in [Guarantee::Within, Guarantee::Beyond] {
        let count = by.get(&guarantee).copied().unwrap_or(0);
        assert!(count * 5 >= made, "only {count} of {made} faults are {guarantee:?}");
    }
}
