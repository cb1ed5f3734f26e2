//! Hostile volumes through the programs that people run: what they hold may be refused, wrong or an I/O error; nothing
//! panics, hangs, or leads out of the volume's directory.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cairn_store::disk::{Access, Disk, MemoryDisk};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::hostile::choices::{Choices, of_seed};
use cairn_tests::hostile::images::Image;
use cairn_tests::hostile::spoil::spoil;
use cairn_tests::mounted::{Mounted, is_mounted, program, run, wait_until};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::drill::contents;

/// Volumes that are spoilt and mounted in a usual run.
const VOLUMES: u64 = 24;
/// Seconds for one command on one of them, on a machine that does other things too.
const SECONDS: &str = "60";
/// Addresses a program may have, in KiB: what asks for gigabytes is refused them, and dies.
const ADDRESSES: u64 = 3 << 20;
/// The most memory, in KiB, that it may have had.
const MEMORY: u64 = 512 << 10;

/// Runs a program under limits; gives its exit code and all it said.
fn limited(name: &str, arguments: &[&Path]) -> (i32, String) {
    let path =
        if name.contains("cairn") { program(name.split(' ').next().expect("a name")) } else { name.into() };
    let line = format!("ulimit -v {ADDRESSES}; exec timeout -k 5 {SECONDS} \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).arg(path).args(name.split(' ').skip(1)).args(arguments);
    let output = command.env("MALLOC_ARENA_MAX", "4").stdin(Stdio::null()).output().expect("a shell");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let code = output.status.code().unwrap_or(255);
    assert!(code != 124 && code != 137, "{name} hangs: {said}");
    assert!(code < 128 && code != 101 && !said.contains("panicked"), "{name} died ({code}): {said}");
    (code, said)
}

/// Puts a disk in memory into a directory.
fn unpack(disk: &MemoryDisk, dir: &Path) {
    for sub in ["journal", "store/packs", "engine"] {
        fs::create_dir_all(dir.join(sub)).expect("a directory");
    }
    for path in disk.files() {
        let to = dir.join(&path);
        fs::create_dir_all(to.parent().expect("a directory")).expect("made");
        let file = disk.open(&path, Access::Read).expect("listed");
        let len = file.len().expect("in memory");
        let mut bytes = vec![0; len.min(64 << 20) as usize];
        let read = file.read_at(&mut bytes, 0).expect("in memory");
        fs::write(&to, &bytes[..read]).expect("room");
        // Those that grew to gigabytes are holes behind that.
        fs::File::options().write(true).open(&to).and_then(|f| f.set_len(len)).expect("a hole");
    }
}

/// The most memory that the daemon of a volume had, in KiB.
fn peak_of_daemon(dir: &Path) -> u64 {
    let Some(pid) = cairn_tests::mounted::daemon_of(dir) else { return 0 };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Mounts what is in `dir` if that can be, goes through it, writes, unmounts, checks.
fn go_through(dir: &Path, at: &Path) -> bool {
    limited("fsck-cairn -n", &[dir]);
    let (code, said) = limited("cairn mount", &[dir, at]);
    let mounted = code == 0;
    assert_eq!(mounted, is_mounted(at), "{said}");
    if mounted {
        limited("find", &[at, Path::new("-ls")]);
        // Holes as long as a file can be are not read to their end.
        let each = "head -c 3000000 \"$1\" >/dev/null; getfattr -d -m - \"$1\"; readlink \"$1\"; true";
        let all =
            ["-xdev", "(", "-type", "f", "-o", "-type", "l", ")", "-exec", "sh", "-c", each, "sh", "{}", ";"];
        limited("find", &[&[at], &all.map(Path::new)[..]].concat());
        let _ = fs::write(at.join("written"), noise(3, 100_000));
        let _ = fs::rename(at.join("sub"), at.join("again/sub"));
        let _ = fs::remove_file(at.join("big"));
        let _ = fs::remove_dir_all(at.join("again"));
        limited("cairn sync", &[at]);
        let peak = peak_of_daemon(dir);
        assert!(peak < MEMORY, "{peak} KiB at the peak");
        limited("cairn umount", &[at]);
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(!log.contains("panicked"), "{log}");
    }
    limited("fsck-cairn -n", &[dir]);
    mounted
}

/// A mount that a test leaves behind is taken away, whatever became of the test.
struct Away<'a>(&'a Path);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if is_mounted(self.0) {
            let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

#[test]
fn spoilt_volumes_are_refused_or_shown_and_nothing_dies_of_them() {
    let count =
        std::env::var("CAIRN_HOSTILE").ok().and_then(|n| n.parse().ok()).map_or(VOLUMES, |n: u64| n / 125);
    let from = std::env::var("CAIRN_HOSTILE_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let temp = TempDir::new().expect("a directory");
    let at = temp.path().join("mnt");
    fs::create_dir(&at).expect("a new name");
    let _away = Away(&at);
    let mut mounted = 0;
    for seed in from..from + count {
        println!("seed {seed}");
        let input = of_seed(seed);
        let mut choices = Choices::new(&input);
        let mut image = Image::new(choices.one_in(2));
        spoil(&mut choices, &mut image);
        let dir = temp.path().join(format!("volume-{seed}"));
        unpack(&image.world.disk, &dir);
        mounted += u64::from(go_through(&dir, &at));
        fs::remove_dir_all(&dir).expect("ours");
    }
    assert!(mounted * 4 >= count, "{mounted} of {count} could be mounted: too few to say anything of mounts");
}

#[test]
fn garbage_in_a_volumes_place_is_refused_and_replaced() {
    let temp = TempDir::new().expect("a directory");
    let at = temp.path().join("mnt");
    fs::create_dir(&at).expect("a new name");
    let mut dice = Dice::new(7);
    for seed in 0..6 {
        let dir = temp.path().join(format!("volume-{seed}"));
        run("mkfs-cairn", ["-q".as_ref(), dir.as_os_str()]).ok();
        let names =
            ["superblock", "superblock.backup", "store/superblock", "store/superblock.backup", "store/index"];
        for name in names.into_iter().chain([
            "journal/0000.seg",
            "engine/namespace.redb",
            "engine/sum",
            "lock",
            "log",
        ]) {
            let mut bytes = noise(seed + dice.roll(), 5000);
            if name.contains("superblock") && seed % 2 == 0 {
                bytes[..8].copy_from_slice(b"CAIRNVOL");
            }
            fs::write(dir.join(name), bytes).expect("ours");
        }
        let (code, _) = limited("cairn mount", &[&dir, &at]);
        assert_ne!(code, 0);
        limited("fsck-cairn -n", &[&dir]);
        let (made, said) = limited("mkfs-cairn -q -f", &[&dir]);
        // Only what looks like a volume is replaced.
        assert_eq!(made == 0, seed % 2 == 0, "{said}");
        if made == 0 {
            run("fsck-cairn", ["-n".as_ref(), dir.as_os_str()]).ok();
        }
    }
}

#[test]
fn an_engine_of_any_bytes_is_rebuilt() {
    let volume = Mounted::new();
    fs::write(volume.path("file"), noise(1, 300_000)).expect("room");
    volume.unmount();
    let path = volume.dir().join("engine/namespace.redb");
    let whole = fs::read(&path).expect("an engine");
    let mut dice = Dice::new(11);
    for round in 0..8 {
        let mut bytes = whole.clone();
        match round {
            0 => bytes.clear(),
            1 => bytes.truncate(5000),
            2 => bytes = noise(5, 100_000),
            _ => {
                for _ in 0..1 << round {
                    // Most of what decides is in front.
                    let end = if dice.one_in(2) { 512 } else { bytes.len() as u64 };
                    let at = dice.below(end) as usize;
                    bytes[at] = dice.roll() as u8;
                }
            }
        }
        fs::write(&path, bytes).expect("ours");
        volume.mount();
        assert_eq!(fs::read(volume.path("file")).expect("whole"), noise(1, 300_000), "round {round}");
        volume.unmount();
    }
    volume.fsck();
}

/// A file that nobody may touch, and what may not be led to.
fn victim(volume: &Mounted) -> std::path::PathBuf {
    let victim = volume.beside("victim");
    fs::write(&victim, b"precious").expect("room");
    victim
}

#[test]
fn a_link_in_the_place_of_a_volumes_file_leads_nowhere() {
    let volume = Mounted::unmounted(&cairn_tests::mounted::SMALL, &[]);
    volume.mount();
    fs::write(volume.path("file"), noise(1, 300_000)).expect("room");
    volume.unmount();
    let victim = victim(&volume);
    for name in [
        "lock",
        "log",
        "engine/sum",
        "engine/namespace.redb",
        "reserve",
        "store/index",
        "control.sock",
        "README",
    ] {
        let path = volume.dir().join(name);
        let _ = fs::remove_file(&path);
        symlink(&victim, &path).expect("a new name");
        let (code, _) = limited("cairn mount", &[volume.dir(), volume.at()]);
        if code == 0 {
            assert_eq!(fs::read(volume.path("file")).expect("whole"), noise(1, 300_000));
            volume.unmount();
        }
        limited("fsck-cairn -n", &[volume.dir()]);
        assert_eq!(fs::read(&victim).expect("there"), b"precious", "by {name}");
        let _ = fs::remove_file(&path);
    }
    volume.mount();
    volume.finish();
}

#[test]
fn a_pack_directory_that_is_a_link_is_not_entered() {
    let volume = Mounted::new();
    fs::write(volume.path("file"), noise(1, 300_000)).expect("room");
    volume.unmount();
    let elsewhere = volume.beside("elsewhere");
    let move_away = |place: &str| {
        let to = elsewhere.join(place);
        fs::create_dir_all(&to).expect("a new name");
        for sub in fs::read_dir(volume.dir().join("store").join(place)).expect("there").flatten() {
            let to = to.join(sub.file_name());
            fs::rename(sub.path(), &to).expect("ours");
            symlink(&to, sub.path()).expect("a free name");
        }
    };
    // Second copies say what the packs would; they are written nowhere else.
    move_away("packs");
    let before = contents(&elsewhere);
    assert!(!before.is_empty());
    let (code, _) = limited("cairn mount", &[volume.dir(), volume.at()]);
    if code == 0 {
        let _ = fs::read(volume.path("file"));
        // It cannot be closed in order: nothing can be written into those directories.
        limited("cairn umount", &[volume.at()]);
        wait_until("it is unmounted", || !is_mounted(volume.at()));
    }
    limited("fsck-cairn -n", &[volume.dir()]);
    limited("fsck-cairn -y", &[volume.dir()]);
    assert!(contents(&elsewhere) == before, "something was written elsewhere");
    move_away("twins");
    let (code, said) = limited("cairn mount", &[volume.dir(), volume.at()]);
    assert_ne!(code, 0, "packs elsewhere are none of the volume's: {said}");
    limited("fsck-cairn -n", &[volume.dir()]);
}

#[test]
fn pipes_and_sockets_in_the_place_of_files_keep_nobody_waiting() {
    let names =
        ["journal/0000.seg", "store/index", "superblock", "store/superblock", "reserve", "lock", "log"];
    for name in names.into_iter().chain(["engine/sum", "engine/namespace.redb"]) {
        let volume = Mounted::unmounted(&cairn_tests::mounted::SMALL, &[]);
        let path = volume.dir().join(name);
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("a free name");
        println!("{name}");
        for options in [&["-o", "ro"][..], &[]] {
            let options: Vec<_> = options.iter().map(Path::new).collect();
            let (code, _) = limited("cairn mount", &[&options[..], &[volume.dir(), volume.at()]].concat());
            if code == 0 {
                volume.unmount();
            }
        }
        limited("fsck-cairn -n", &[volume.dir()]);
        if let Ok(left) = fs::symlink_metadata(&path) {
            assert!(left.file_type().is_fifo() || left.is_file());
        }
    }
}

#[test]
fn the_control_socket_takes_any_bytes() {
    let volume = Mounted::new();
    let socket = volume.dir().join("control.sock");
    let mut dice = Dice::new(3);
    let nested = [b"{\"v\":1,\"cmd\":".to_vec(), vec![b'['; 60_000], b"\n".to_vec()].concat();
    let lines: [&[u8]; 8] = [
        b"\n",
        b"{}\n",
        b"{\"v\":1,\"cmd\":7}\n",
        b"{\"v\":18446744073709551616,\"cmd\":\"usage\"}\n",
        b"{\"v\":1,\"cmd\":\"\\ud800\"}\n",
        b"\xff\xfe\n",
        &nested,
        b"{\"v\":1,\"cmd\":\"us",
    ];
    for round in 0..100 {
        let mut stream = UnixStream::connect(&socket).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let bytes = match lines.get(round) {
            Some(line) => line.to_vec(),
            None => noise(dice.roll(), dice.below(100_000) as usize),
        };
        // It may hang up in the middle.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("round {round}: no answer and no end: {e}"),
        }
    }
    volume.sync();
    assert!(peak_of_daemon(volume.dir()) < MEMORY);
    volume.finish();
}
