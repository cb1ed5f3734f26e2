//! Holes, and what `stat` says that a file takes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SMALL, run, wait_until};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

const LENGTH: u64 = 100 << 20;

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).expect("there").blocks()
}

/// 100 MiB with 64 KiB of data at 10 MiB and at 50 MiB.
fn make_sparse(path: &Path) {
    let file = File::create_new(path).expect("new");
    file.set_len(LENGTH).expect("grown");
    file.write_all_at(&noise(1, 64 << 10), 10 << 20).expect("written");
    file.write_all_at(&noise(2, 64 << 10), 50 << 20).expect("written");
}

fn same(one: &Path, other: &Path) {
    run("cmp", [one, other]).ok();
}

/// The runs of data in a file, in MiB, as SEEK_DATA and SEEK_HOLE tell them.
fn data_runs(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).expect("there");
    let mut runs = Vec::new();
    let mut at = 0;
    loop {
        match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => {
                at = seek(&file, SeekFrom::Hole(start)).expect("the end is a hole");
                assert!(at > start);
                runs.push((start, at));
            }
            Err(error) => {
                assert_eq!(error, Errno::NXIO);
                return runs;
            }
        }
    }
}

#[test]
fn holes_are_found_and_take_no_room() {
    let m = Mounted::new();
    let path = m.path("sparse");
    make_sparse(&path);
    for state in ["written", "folded", "mounted again"] {
        match state {
            "folded" => m.sync(),
            "mounted again" => m.remount(),
            _ => {}
        }
        let runs = data_runs(&path);
        assert_eq!(runs, [(10 << 20, (10 << 20) + 65536), (50 << 20, (50 << 20) + 65536)], "{state}");
        assert!((200..4000).contains(&blocks(&path)), "{state}: {} blocks", blocks(&path));
    }
    let file = File::open(&path).expect("there");
    assert_eq!(seek(&file, SeekFrom::Hole(LENGTH)), Err(Errno::NXIO));
    assert_eq!(seek(&file, SeekFrom::Hole(LENGTH - 1)), Ok(LENGTH - 1));
    fs::write(m.path("full"), noise(3, 300_000)).expect("written");
    let full = File::open(m.path("full")).expect("there");
    assert_eq!(seek(&full, SeekFrom::Hole(0)), Ok(300_000), "the end counts as a hole");
    drop((file, full));
    m.finish();
}

#[test]
fn cp_and_tar_keep_sparse_files_sparse() {
    let m = Mounted::new();
    let (outside, inside) = (m.beside("outside"), m.path("inside"));
    make_sparse(&outside);
    run("cp", [OsStr::new("--sparse=always"), outside.as_os_str(), inside.as_os_str()]).ok();
    same(&outside, &inside);
    assert!(blocks(&inside) < 4000);
    m.sync();
    run("cp", [inside.as_os_str(), m.path("again").as_os_str()]).ok();
    assert!(blocks(&m.path("again")) < 4000, "cp finds the holes");
    let script = format!(
        "cd {0} && tar cSf t.tar inside && mkdir out && tar xSf t.tar -C out && cmp inside out/inside",
        m.at().display()
    );
    run("sh", ["-c", &script]).ok();
    assert!(fs::metadata(m.path("t.tar")).expect("there").len() < 1 << 20, "tar finds the holes");
    assert!(blocks(&m.path("out/inside")) < 4000);
    m.remount();
    for name in ["inside", "again", "out/inside"] {
        same(&outside, &m.path(name));
        assert!(blocks(&m.path(name)) < 4000, "{name}");
    }
    m.finish();
}

/// tar and cp take a file of 0 blocks for one hole.
#[test]
fn blocks_are_never_0_where_there_is_data() {
    let m = Mounted::with(&SMALL, &[]);
    fs::create_dir(m.path("d")).expect("a new name");
    for number in 0..300 {
        // Tiny, compressible, repeated elsewhere: what takes next to nothing.
        fs::write(m.path(format!("d/{number}")), vec![b'a' + (number % 20) as u8; 1 + number % 40])
            .expect("written");
    }
    fs::write(m.path("d/zeros"), vec![0; 1 << 20]).expect("written");
    fs::write(m.path("d/noise"), noise(1, 1 << 20)).expect("written");
    run("cp", ["-r".as_ref(), m.path("d").as_os_str(), m.path("twice").as_os_str()]).ok();
    let check = |state: &str| {
        for dir in ["d", "twice"] {
            for entry in fs::read_dir(m.path(dir)).expect("a directory") {
                let path = entry.expect("listed").path();
                assert_ne!(blocks(&path), 0, "{state}: {}", path.display());
            }
            // What shares a frame shares what it takes, by length.
            let noise = blocks(&m.path(dir).join("noise"));
            assert!((1000..4400).contains(&noise), "{state}: {noise}");
        }
    };
    check("written");
    m.sync();
    check("folded");
    m.remount();
    check("mounted again");
    assert!(blocks(&m.path("d/zeros")) < 2048, "folded zeros are compressed");
    for entry in fs::read_dir(m.path("d")).expect("a directory") {
        let file = File::options().append(true).open(entry.expect("listed").path()).expect("there");
        file.write_at(b"!", 0).expect("appended");
    }
    check("appended to");
    fs::write(m.path("empty"), "").expect("written");
    assert_eq!(blocks(&m.path("empty")), 0);
    m.finish();
}

#[test]
fn stat_tells_of_the_room_a_file_takes_once_it_is_folded_though_it_was_asked_before() {
    let m = Mounted::new();
    fs::write(m.path("f"), vec![b'a'; 1 << 20]).expect("written");
    let blocks = || fs::metadata(m.path("f")).expect("there").blocks();
    assert!(blocks() >= 2048, "it lies in the journal as it is: {} blocks", blocks());
    m.sync();
    wait_until("the kernel asks again", || blocks() < 200);
    assert!(blocks() > 0);
    m.finish();
}
