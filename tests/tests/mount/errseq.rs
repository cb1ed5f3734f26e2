//! Bytes that were written and are lost before they were folded: which descriptors hear of it, how often.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SMALL, run};
use rustix::io::Errno;

use super::errno;

const LEN: usize = 20_000;

/// Damages bytes of a file in the journal of a volume; whether they are there.
fn damage(m: &Mounted, bytes: &[u8]) -> io::Result<bool> {
    for entry in fs::read_dir(m.dir().join("journal"))? {
        let mut segment = File::options().read(true).write(true).open(entry?.path())?;
        let mut all = Vec::new();
        segment.read_to_end(&mut all)?;
        if let Some(at) = all.windows(64).position(|window| window == &bytes[..64]) {
            segment.seek(SeekFrom::Start(at as u64))?;
            segment.write_all(&[bytes[0] ^ 1])?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has a file hold bytes that the daemon cannot read back, and knows it cannot.
fn lose(m: &Mounted, file: &File, seed: u64) {
    for attempt in 0..10 {
        let bytes = noise(seed * 100 + attempt, LEN);
        file.write_all_at(&bytes, 0).expect("written");
        assert!(damage(m, &bytes).expect("root may"), "what is written is in the journal");
        // Unless it was folded right before it was damaged.
        if run("cairn", ["sync".as_ref(), m.at().as_os_str()]).code != 0 {
            return;
        }
    }
    panic!("it is always folded sooner than it is damaged");
}

fn fails(file: &File) {
    assert_eq!(errno(file.sync_all()), Errno::IO);
}

fn open(m: &Mounted) -> File {
    File::options().read(true).write(true).open(m.path("f")).expect("there")
}

#[test]
fn where_opens_are_told_each_open_file_hears_of_lost_bytes_once() {
    let m = Mounted::with(&SMALL, &["x-cairn.count-opens"]);
    let other = File::create(m.path("other")).expect("made");
    let one = File::create_new(m.path("f")).expect("made");
    let two = open(&m);
    let duplicate = one.try_clone().expect("dup");
    lose(&m, &one, 1);
    let unseen = open(&m);
    fails(&duplicate);
    one.sync_all().expect("the descriptors of one open file are one");
    duplicate.sync_data().expect("once");
    fails(&two);
    two.sync_all().expect("once");
    fails(&unseen);
    open(&m).sync_all().expect("opened when it was known");
    other.sync_all().expect("another file");
    // Written over, and lost again.
    one.write_all_at(&noise(7, LEN), 0).expect("written");
    lose(&m, &one, 2);
    [&one, &two, &unseen].into_iter().for_each(fails);
    [&one, &two, &unseen].into_iter().for_each(|file| file.sync_all().expect("once"));
    one.write_all_at(&noise(8, LEN), 0).expect("written");
    drop((one, two, duplicate, unseen, other));
    assert!(fs::read(m.path("f")).expect("readable") == noise(8, LEN));
    m.finish();
}

#[test]
fn where_opens_are_not_told_every_fsync_fails_until_the_bytes_are_no_more() {
    let m = Mounted::with(&SMALL, &[]);
    let other = File::create(m.path("other")).expect("made");
    let one = File::create_new(m.path("f")).expect("made");
    let two = open(&m);
    let duplicate = one.try_clone().expect("dup");
    for mend in ["written over", "cut off", "replaced"] {
        lose(&m, &one, mend.len() as u64);
        for _ in 0..2 {
            [&one, &two, &duplicate, &open(&m)].into_iter().for_each(fails);
        }
        other.sync_all().expect("another file");
        match mend {
            "written over" => one.write_all_at(&noise(7, LEN), 0).expect("written"),
            "cut off" => one.set_len(0).expect("truncated"),
            _ => {
                fs::write(m.path("aside"), noise(8, LEN)).expect("written");
                fs::rename(m.path("aside"), m.path("f")).expect("renamed");
                open(&m).sync_all().expect("another file under that name");
                fails(&one);
                continue;
            }
        }
        [&one, &two, &duplicate, &open(&m)].into_iter().for_each(|file| file.sync_all().expect(mend));
    }
    drop((one, two, duplicate, other));
    assert!(fs::read(m.path("f")).expect("readable") == noise(8, LEN));
    m.finish();
}
