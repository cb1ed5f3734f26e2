//! The journal: whether its chain of records is whole, and what is in the records that still count.

use cairn_format::{CheckpointRef, JournalRef, Lsn, Mutation, SEGMENT_HEADER_LEN, SegmentHeader};
use cairn_store::disk::{Access, Disk};
use cairn_volume::journal::{Appended, Chain, ChainError, JOURNAL_DIR, JournalShape, scan_read_only};

use crate::CheckError;
use crate::progress::Progress;
use crate::report::{Finding, Findings};

/// A record with a payload, that file bytes may lie in.
#[derive(Clone, Copy)]
struct Live {
    lsn: Lsn,
    segment: u64,
    offset: u32,
    payload_len: u32,
}

/// A journal that was read.
pub(crate) struct JournalState {
    pub(crate) chain: Chain,
    shape: JournalShape,
    /// In ascending order of their LSNs.
    live: Vec<Live>,
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
    let mut state = JournalState { chain, shape, live: Vec::new(), records: 0, bytes };
    let mut live = Vec::new();
    let mut records = 0;
    let read = state.chain.records(&shape, |record| {
        records += 1;
        if record.payload_len > 0 {
            let Appended { lsn, segment, offset } = record.at;
            live.push(Live { lsn, segment, offset, payload_len: record.payload_len });
        }
    });
    if let Err(error) = read {
        findings.push(Finding::damage("journal-record", error.to_string()).file(JOURNAL_DIR));
    }
    (state.live, state.records) = (live, records);
    progress.advance(bytes);
    Ok(state)
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
        if !listed.name.ends_with(".seg") {
            findings.push(Finding::info("strange-file", "cairn makes no such file here").file(path));
            continue;
        }
        let file = disk.open(&path, Access::Read).map_err(CheckError::io(&path))?;
        let mut both = vec![0; 2 * SEGMENT_HEADER_LEN];
        file.read_at(&mut both, 0).map_err(CheckError::io(&path))?;
        let copies = both.chunks(SEGMENT_HEADER_LEN).map(|c| SegmentHeader::decode(c, &shape.volume));
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
        let found = self.live.binary_search_by_key(&at.lsn, |live| live.lsn);
        let Some(live) = found.ok().and_then(|i| self.live.get(i)) else {
            return Some(format!("record {} of the journal, which holds it, is gone", at.lsn));
        };
        if (live.segment, live.offset) != (at.segment, at.record_offset) {
            return Some(format!("record {} of the journal does not lie where it should", at.lsn));
        }
        if u64::from(at.payload_offset) + u64::from(len) > live.payload_len.into() {
            return Some(format!("record {} of the journal has only {} bytes", at.lsn, live.payload_len));
        }
        let mut bytes = vec![0; len as usize];
        self.chain.read(&self.shape, at, &mut bytes).err().map(|e| e.to_string())
    }
}
