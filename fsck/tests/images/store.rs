//! Superblocks, packs and journal with one defect each.

use std::fs;
use std::sync::Arc;

use cairn_format::{
    ChunkEntry, Codec, Footer, PACK_HEADER_LEN, PackId, PackKind, Replaced, SEGMENT_DATA_START, TRAILER_LEN,
};
use cairn_store::disk::{Disk, MemoryDisk};
use cairn_store::{Store, StoreOptions};
use cairn_volume::GcOptions;
use fsck_cairn::{CheckError, CheckOptions, Progress, Quiet, Severity, check, check_dir};

use crate::fixture::{Fixture, flip, noise};

#[test]
fn a_whole_volume_has_no_findings_and_not_a_byte_of_it_is_changed() {
    let volume = Fixture::filled();
    let before = volume.bytes();
    let report = volume.check();
    assert_eq!(report.findings, []);
    assert_eq!(volume.bytes(), before);
    assert_eq!((report.totals.files, report.totals.directories), (4, 4));
    assert_eq!(report.totals.logical, 150_000 + 16_000 + 9 + 5);
    assert!(report.totals.chunks > 100 && report.totals.engine_records > 20);
    assert_eq!(report.label, "small");
}

#[test]
fn a_new_volume_has_no_findings() {
    assert_eq!(Fixture::empty().check().findings, []);
}

#[test]
fn a_volume_that_was_not_unmounted_is_checked_as_the_next_mount_would_find_it() {
    let volume = Fixture::crashed();
    let before = volume.bytes();
    let report = volume.check();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert_eq!(volume.bytes(), before);
    assert!(volume.open().lookup(1, b"big").unwrap().is_some(), "the next mount agrees");
    assert_eq!((report.totals.files, report.totals.directories), (4, 5));
    assert_eq!(report.totals.logical, 150_000 + 16_000 + 9 + 5);
}

#[test]
fn a_file_open_without_a_name_is_only_told_of() {
    let volume = Fixture::filled();
    let open = volume.open();
    let file = open.lookup(1, b"big").unwrap().unwrap();
    open.open(file.ino).unwrap();
    open.unlink(1, b"big").unwrap();
    drop(open);
    let report = volume.check();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(report.findings.iter().any(|f| f.kind == "orphan" && f.inode == Some(file.ino)));
}

/// A pack with one chunk that no file refers to, whose footer says `replaces`.
fn pack_that_replaces(volume: &Fixture, kind: PackKind, replaces: Vec<Replaced>) {
    let superblock = volume.superblock();
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(Arc::new(volume.store_disk()), options).unwrap();
    let plain = b"again and again ".repeat(20);
    let id = cairn_codec::chunk_id(store.chunk_key(), &plain);
    let mut writer =
        store.begin_pack(PackId::new(9, 1, 1), kind, superblock.uuid, superblock.geometry.parity).unwrap();
    writer.append(Codec::Raw, &plain, 320, vec![ChunkEntry { id, len: 320 }]).unwrap();
    writer.replace(replaces);
    writer.seal(None).unwrap();
}

#[test]
fn what_a_pack_says_it_replaces_is_compared_where_that_is_there_still() {
    let fixture = Fixture::filled;
    let old = |volume: &Fixture| volume.footers(PackKind::Data)[0].pack;
    let gone = Replaced { pack: PackId::new(8, 1, 1), frame: 3, slot: 1, chunk: 0 };
    let volume = fixture();
    pack_that_replaces(&volume, PackKind::Data, vec![gone]);
    assert!(
        volume.check().is_clean(),
        "a pack that is gone cannot be compared: {:#?}",
        volume.check().findings
    );
    let volume = fixture();
    let other = Replaced { pack: old(&volume), frame: 0, slot: 0, chunk: 0 };
    pack_that_replaces(&volume, PackKind::Data, vec![other]);
    let finding = volume.only("replaced");
    assert_eq!(finding.pack, Some(PackId::new(9, 1, 1).to_string()));
    assert!(finding.what.contains("which it replaces"), "{}", finding.what);
    for (kind, replaces) in [
        (PackKind::Data, vec![gone, gone]),
        (PackKind::Data, vec![Replaced { pack: PackId::new(9, 1, 1), ..gone }]),
        (PackKind::Metadata, vec![gone]),
    ] {
        let volume = fixture();
        pack_that_replaces(&volume, kind, replaces);
        assert!(
            volume.check().findings.iter().any(|f| f.kind == "replaced"),
            "{:#?}",
            volume.check().findings
        );
    }
}

#[test]
fn a_volume_in_which_garbage_was_collected_has_no_findings() {
    let fixture = Fixture::filled();
    let volume = fixture.open();
    volume.sync().unwrap();
    let big = volume.lookup(1, b"big").unwrap().unwrap();
    volume.write(big.ino, 50_000, &noise(40_000, 9), false).unwrap();
    volume.sync().unwrap();
    let report = volume.gc(&GcOptions::default(), &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(report.packs_compacted > 0, "{report:?}");
    volume.close().unwrap();
    assert_eq!(fixture.check().findings, []);
    assert!(fixture.footers(PackKind::Data).iter().any(|footer| !footer.replaces.is_empty()));
}

#[test]
fn a_flipped_bit_in_a_frame_names_file_offset_chunk_and_pack() {
    let volume = Fixture::filled_without_parity();
    // The incompressible file fills packs of its own: the last frame of the first one is in its middle.
    let (footer, frame, chunk) = frame_of_big(&volume);
    let entry = footer.frames[frame];
    flip(&volume.pack_path(&footer.pack), entry.offset + u64::from(entry.len) - 1);
    let report = volume.check();
    let physical = report.findings.iter().find(|f| f.kind == "frame").unwrap();
    assert_eq!(physical.file_offset, Some(entry.offset));
    assert!(physical.file.as_ref().unwrap().ends_with(&format!("{}.pack", footer.pack)));
    let lost = report.findings.iter().find(|f| f.kind == "lost-bytes").unwrap();
    assert_eq!(lost.paths, ["/big"]);
    assert_eq!(lost.pack, Some(footer.pack.to_string()));
    assert_eq!(lost.chunk, Some(footer.chunks[chunk].id.to_string()));
    assert_eq!(lost.severity, Severity::Damage);
    let content = noise(150_000, 1);
    let found = offset_of(&content, &volume, &footer, chunk);
    assert_eq!(lost.offset, Some(found));
    assert!(
        report.findings.iter().all(|f| matches!(f.kind, "frame" | "lost-bytes")),
        "{:#?}",
        report.findings
    );
}

/// A frame that holds chunks of /big, and the number of its first chunk.
fn frame_of_big(volume: &Fixture) -> (Footer, usize, usize) {
    let content = noise(150_000, 1);
    for footer in volume.footers(PackKind::Data) {
        let mut first = 0;
        for (number, frame) in footer.frames.iter().enumerate() {
            if frame.plain_len > 4096
                && first_bytes(volume, &footer, number).is_some_and(|b| find(&content, &b))
            {
                return (footer, number, first);
            }
            first += frame.chunks as usize;
        }
    }
    panic!("no pack holds it");
}

fn find(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|w| w == part)
}

fn first_bytes(volume: &Fixture, footer: &Footer, frame: usize) -> Option<Vec<u8>> {
    let reader = cairn_store::PackReader::open(&volume.store_disk(), footer.pack).unwrap();
    let decoded = reader.frame(&footer.frames[frame]).ok()?;
    Some(decoded.plain[..32].to_vec())
}

/// Where in `content` the bytes with a chunk's id lie.
fn offset_of(content: &[u8], volume: &Fixture, footer: &Footer, chunk: usize) -> u64 {
    let superblock = cairn_store::Store::superblock_of(&volume.store_disk()).unwrap().newest;
    let entry = footer.chunks[chunk];
    let at = (0..content.len() - entry.len as usize).find(|at| {
        let part = &content[*at..at + entry.len as usize];
        cairn_codec::chunk_id(&superblock.chunk_key, part) == entry.id
    });
    at.unwrap() as u64
}

#[test]
fn one_damaged_copy_of_a_footer_is_a_finding() {
    for kind in [PackKind::Data, PackKind::Metadata] {
        let volume = Fixture::filled();
        let footer = volume.footers(kind).remove(0);
        let path = volume.pack_path(&footer.pack);
        let len = fs::metadata(&path).unwrap().len();
        for at in [len - 1, len - TRAILER_LEN as u64 - 9, 3, PACK_HEADER_LEN as u64 - 1] {
            flip(&path, at);
            let finding = volume.only("footer-copy");
            assert_eq!(finding.pack, Some(footer.pack.to_string()), "{at}");
            flip(&path, at);
        }
        assert!(volume.check().is_clean());
    }
}

#[test]
fn a_truncated_pack_is_read_as_far_as_it_goes() {
    let volume = Fixture::filled();
    let (footer, ..) = frame_of_big(&volume);
    let last = *footer.frames.last().unwrap();
    let path = volume.pack_path(&footer.pack);
    fs::File::options().write(true).open(path).unwrap().set_len(last.offset + 100).unwrap();
    let report = volume.check();
    let lost = report.findings.iter().find(|f| f.kind == "lost-bytes").unwrap();
    assert_eq!(lost.pack, Some(footer.pack.to_string()));
    assert!(report.findings.iter().any(|f| f.kind == "footer"), "{:#?}", report.findings);
}

#[test]
fn a_missing_data_pack_names_the_files_that_need_it() {
    let volume = Fixture::filled();
    for footer in volume.footers(PackKind::Data) {
        fs::remove_file(volume.pack_path(&footer.pack)).unwrap();
    }
    let report = volume.check();
    let mut paths: Vec<_> = report.findings.iter().filter(|f| f.kind == "lost-bytes").collect();
    paths.sort_by_key(|f| (f.paths.clone(), f.offset));
    let linked = paths.iter().find(|f| f.paths == ["/linked", "/sub/deep/file"]).unwrap();
    assert_eq!((linked.offset, linked.length), (Some(0), Some(16_000)));
    let sparse: Vec<_> = paths.iter().filter(|f| f.paths == ["/sub/sparse"]).map(|f| f.offset).collect();
    assert_eq!(sparse, [Some(0), Some(5 << 20)]);
}

#[test]
fn a_missing_metadata_pack_is_damage() {
    let volume = Fixture::filled();
    let pack = volume.superblock().checkpoint.pack;
    fs::remove_file(volume.pack_path(&pack)).unwrap();
    fs::remove_file(volume.path("store").join(cairn_store::Place::Twin.path(&pack))).unwrap();
    let finding = volume.only("checkpoint");
    assert!(finding.what.contains(&pack.to_string()));
}

#[test]
fn one_damaged_superblock_is_a_finding_and_two_are_the_end() {
    for (place, kept) in
        [("superblock", "superblock.backup"), ("store/superblock.backup", "store/superblock")]
    {
        let volume = Fixture::filled();
        flip(&volume.path(place), 200);
        assert_eq!(volume.only("superblock-replica").file, Some(place.to_owned()));
        flip(&volume.path(kept), 200);
        volume.only("superblock");
    }
}

#[test]
fn a_missing_superblock_replica_is_a_finding() {
    let volume = Fixture::filled();
    fs::remove_file(volume.path("superblock")).unwrap();
    volume.only("superblock-replica");
}

#[test]
fn a_damaged_record_that_was_synced_says_what_is_lost() {
    let volume = Fixture::crashed();
    let (path, records) = records_of(&volume);
    // Within the mutations, past the head.
    flip(&path, records[2] + 50);
    let report = volume.check();
    let finding = report.findings.iter().find(|f| f.kind == "journal").unwrap();
    assert_eq!(finding.severity, Severity::Damage);
    assert!(finding.what.contains("are lost"), "{}", finding.what);
}

#[test]
fn a_damaged_payload_names_the_file() {
    let volume = Fixture::crashed();
    let (path, records) = records_of(&volume);
    let bytes = fs::read(&path).unwrap();
    let is_big = |at: &&u64| {
        let end = records.iter().find(|next| next > at).copied().unwrap_or(**at);
        end - **at > 8 << 10
    };
    let first = records.iter().find(is_big).unwrap();
    assert_eq!(bytes[*first as usize..][..4], *b"CREC");
    flip(&path, first + 5000);
    let report = volume.check();
    let finding = report.findings.iter().find(|f| f.kind == "journalled-bytes").unwrap();
    assert_eq!(
        (&finding.paths[..], finding.offset, finding.length),
        (&["/big".to_owned()][..], Some(0), Some(8 << 10))
    );
}

/// The segment that begins with the first file's records, and where its records lie.
fn records_of(volume: &Fixture) -> (std::path::PathBuf, Vec<u64>) {
    let mut best = (volume.dir(), Vec::new());
    for entry in fs::read_dir(volume.path("journal")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let at = (SEGMENT_DATA_START as usize..bytes.len() - 4)
            .step_by(8)
            .filter(|at| bytes[*at..].starts_with(b"CREC"));
        let records: Vec<u64> = at.map(|at| at as u64).collect();
        let segment =
            |bytes: &[u8], at: u64| u64::from_le_bytes(bytes[at as usize + 16..][..8].try_into().unwrap());
        // mkfs wrote the first segment, the mount the next.
        let number = records.first().map_or(0, |at| segment(&bytes, *at));
        if number == 2 {
            best = (path, records);
        }
    }
    assert!(best.1.len() > 3);
    best
}

#[test]
fn leftovers_of_a_crash_are_told_and_left() {
    let volume = Fixture::filled();
    let pack = volume.footers(PackKind::Data)[0].pack;
    let dir = volume.path("store/packs").join(pack.directory());
    fs::write(dir.join(format!("{pack}.new")), b"half").unwrap();
    fs::write(dir.join("notes.txt"), b"mine").unwrap();
    fs::write(volume.path("journal/0099.seg"), b"").unwrap();
    let before = volume.bytes();
    let report = volume.check();
    assert!(report.is_clean(), "{:#?}", report.findings);
    let kinds: Vec<_> = report.findings.iter().map(|f| f.kind).collect();
    assert!(kinds.contains(&"unsealed-pack") && kinds.contains(&"strange-file"), "{kinds:?}");
    assert_eq!(volume.bytes(), before);
}

#[test]
fn who_cancels_is_heard() {
    struct Cancelled;
    impl Progress for Cancelled {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let volume = Fixture::filled();
    let checked = check_dir(&volume.dir(), &CheckOptions::default(), &Cancelled, &|_| {});
    assert!(matches!(checked, Err(CheckError::Cancelled)));
}

#[test]
fn damage_to_the_journal_of_an_unmounted_volume_costs_nothing() {
    let volume = Fixture::filled();
    let (path, records) = records_of(&volume);
    flip(&path, records[2] + 50);
    let report = volume.check();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(volume.open().lookup(1, b"big").unwrap().is_some(), "the next mount agrees");
}

#[test]
fn a_volume_in_memory_is_checked_too() {
    let (disk, store) = (MemoryDisk::new(), MemoryDisk::new());
    let (disk, store): (Arc<dyn Disk>, Arc<dyn Disk>) = (Arc::new(disk), Arc::new(store));
    let draw = |bytes: &mut [u8]| {
        bytes.fill(7);
        Ok(())
    };
    let options =
        cairn_volume::MakeOptions { segment_size: 64 << 10, journal_size: 1 << 20, ..Default::default() };
    cairn_volume::make_on(disk.clone(), store.clone(), &options, draw).unwrap();
    let open = || {
        cairn_volume::open_on(cairn_volume::OpenOn {
            disk: disk.clone(),
            store: store.clone(),
            engine: cairn_volume::EngineChoice::Memory,
            background: false,
            session: 2,
            options: Default::default(),
            name: "memory".into(),
        })
    };
    let checked = || check(&*disk, store.clone(), None, &CheckOptions::default(), &Quiet).unwrap();
    let volume = open().unwrap();
    let file = volume.create(1, b"file", 0o644, 0, &Default::default()).unwrap();
    volume.write(file.ino, 0, &noise(50_000, 3), false).unwrap();
    assert!(checked().is_clean(), "{:#?}", checked().findings);
    volume.sync().unwrap();
    assert!(checked().is_clean(), "{:#?}", checked().findings);
    volume.close().unwrap();
    assert_eq!(checked().findings, []);
    assert_eq!(checked().totals.logical, 50_000);
}
