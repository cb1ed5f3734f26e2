//! The journal: whether its chain of records is whole, and what is in the records that still count.

use cairn_format::{CheckpointRef, JournalRef, Mutation, SEGMENT_HEADER_LEN, SegmentHeader};
use cairn_store::disk::{Access, Disk};
use cairn_volume::journal::{
    Appended, Chain, ChainError, JOURNAL_DIR, JournalShape, SegmentDamage, scan_read_only,
};

use crate::CheckError;
use crate::progress::Progress;
use crate::report::{Finding, Findings};

/// The kind of findings that are bytes of a segment which are not what was written, by its parity.
pub(crate) const SECTOR_KIND: &str = "journal-sector";
const RESTORABLE: &str =
    "parity restores it: a mount reads it right and writes it back, and so do fsck.cairn -p and cairn scrub";

/// A journal that was read.
pub(crate) struct JournalState {
    pub(crate) chain: Chain,
    pub(crate) shape: JournalShape,
    /// What is wrong with segments that have parity.
    pub(crate) damage: Vec<SegmentDamage>,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Reads the journal; nothing is opened for writing.
pub(crate) fn check_journal(
    disk: &dyn Disk,
    shape: JournalShape,
    findings: &mut Findings,
    progress: &dyn Progress,
) -> Result<JournalState, CheckError> {
    progress.step("journal");
    let (chain, error) = scan_read_only(disk, &shape);
    let bytes = chain.used(&shape);
    progress.expect(bytes);
    match error {
        None => {}
        Some(ChainError::Io { path, reason }) => {
            return Err(CheckError::Io { path, error: std::io::Error::other(reason) });
        }
        Some(error) => damaged(&chain, &error, findings),
    }
    for (path, reason) in &chain.bad_headers {
        // Where that is not enough, the chain has an error.
        let what = format!("its header cannot be read, its records say as much: {reason}");
        findings.push(Finding::info("journal-header", what).file(path));
    }
    if let (None, Some(tail)) = (chain.bad_headers.first(), &chain.tail) {
        let what = format!("it ends behind record {}, what follows was never certain: {tail}", chain.last);
        findings.push(Finding::info("journal-tail", what).file(JOURNAL_DIR));
    }
    if chain.files == 0 {
        findings.push(Finding::damage("journal-missing", "there are no segments").file(JOURNAL_DIR));
    }
    check_headers(disk, shape, findings)?;
    let damage = chain.examine(&mut || !progress.is_cancelled()).ok_or(CheckError::Cancelled)?;
    tell_damage(&chain, &damage, findings);
    let mut state = JournalState { chain, shape, damage, records: 0, bytes };
    let mut records = 0;
    if let Err(error) = state.chain.records(&shape, |_| records += 1) {
        findings.push(Finding::damage("journal-record", error.to_string()).file(JOURNAL_DIR));
    }
    state.records = records;
    progress.advance(bytes);
    Ok(state)
}

/// What parity tells of segments, and what is to be told of parity.
fn tell_damage(chain: &Chain, damage: &[SegmentDamage], findings: &mut Findings) {
    for SegmentDamage { path, restorable, lost, short, parity } in damage {
        for range in restorable {
            let what = format!("{} bytes are not what was written", range.end - range.start);
            let finding = Finding::damage(SECTOR_KIND, what).file(path).at(range.start);
            findings.push(finding.advice(RESTORABLE));
        }
        if *short && restorable.is_empty() {
            let finding = Finding::damage(SECTOR_KIND, "it is too short").file(path);
            findings.push(finding.advice(RESTORABLE));
        }
        for range in lost {
            // A record, or a payload that is needed, is told of by itself.
            let bytes = range.end - range.start;
            let what = format!("{bytes} bytes are not what was written, and parity does not reach them");
            findings.push(Finding::info(SECTOR_KIND, what).file(path).at(range.start));
        }
        if let Some(parity) = parity {
            let what = "it protects a segment, and is damaged itself: cairn scrub makes it again";
            findings.push(Finding::info("journal-parity", what).file(parity));
        }
    }
    for path in &chain.strays {
        let what = "it protects no segment that is used now; the next mount removes it";
        findings.push(Finding::info("journal-parity", what).file(path));
    }
}

fn damaged(chain: &Chain, error: &ChainError, findings: &mut Findings) {
    let lost = if chain.synced > chain.last {
        format!("; records {} to {} are lost, and what came behind them", chain.last.next(), chain.synced)
    } else {
        format!("; what followed record {} is lost", chain.last)
    };
    let finding = Finding::damage("journal", format!("{error}{lost}")).file(JOURNAL_DIR);
    findings.push(finding.advice("mount read-only (-o ro) to copy what is left"));
}

/// That both copies of each header are whole. The chain needs one.
fn check_headers(disk: &dyn Disk, shape: JournalShape, findings: &mut Findings) -> Result<(), CheckError> {
    for listed in disk.list(JOURNAL_DIR).map_err(CheckError::io(JOURNAL_DIR))? {
        let path = format!("{JOURNAL_DIR}/{}", listed.name);
        if listed.name.ends_with(".par") {
            continue;
        }
        if !listed.name.ends_with(".seg") {
            findings.push(Finding::info("strange-file", "cairn makes no such file here").file(path));
            continue;
        }
        let file = disk.open(&path, Access::Read).map_err(CheckError::io(&path))?;
        let copies = [0, SEGMENT_HEADER_LEN as u64].map(|at| {
            let mut copy = vec![0; SEGMENT_HEADER_LEN];
            file.read_at(&mut copy, at).map_err(|error| error.to_string())?;
            SegmentHeader::decode(&copy, &shape.volume).map_err(|error| error.to_string())
        });
        let copies = copies.into_iter();
        let numbers: Vec<_> = copies.clone().flatten().map(|header| header.number).collect();
        if numbers.windows(2).any(|pair| pair[0] != pair[1]) {
            let what = "its header's two copies are those of different segments: the one that its records agree with counts";
            findings.push(Finding::info("journal-header-copy", what).file(&path));
        }
        let bad: Vec<_> = copies.enumerate().filter_map(|(i, copy)| Some((i, copy.err()?))).collect();
        if let [(i, error)] = &bad[..] {
            // A power cut while a header was written leaves this too; the segment gets a new one when it
            // is used again.
            let what = format!("one of its header's two copies cannot be used, the other can: {error}");
            let at = (i * SEGMENT_HEADER_LEN) as u64;
            findings.push(Finding::info("journal-header-copy", what).file(path).at(at));
        }
    }
    Ok(())
}

impl JournalState {
    /// Calls `each` with the mutations behind a checkpoint, in order.
    pub(crate) fn replay(&self, tip: CheckpointRef, mut each: impl FnMut(&Mutation, &Appended)) {
        // Damage on the way was found before.
        let _ = self.chain.records(&self.shape, |record| {
            if record.at.lsn > tip.lsn {
                record.mutations.iter().for_each(|mutation| each(mutation, &record.at));
            }
        });
    }

    /// What is wrong with journalled bytes that an extent names, if anything is.
    pub(crate) fn check_payload(&self, at: &JournalRef, len: u32) -> Option<String> {
        let mut bytes = vec![0; len as usize];
        self.chain.read(&self.shape, at, &mut bytes).err().map(|e| e.to_string())
    }
}
