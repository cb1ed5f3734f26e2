//! What commands tell: `info`, `stats`, `why`; what systemd and logs are told; manual and completions.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, Ran, SMALL, is_mounted, program, run, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LENGTH: usize = 8 << 20;

fn cairn(verb: &str, path: &Path, more: &[&str]) -> Ran {
    run("cairn", [OsStr::new(verb), path.as_os_str()].into_iter().chain(more.iter().map(OsStr::new)))
}

fn document(verb: &str, path: &Path) -> Value {
    let text = cairn(verb, path, &["--json"]).ok();
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    let document: Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!(
        (document["message_type"].as_str(), document["schema_version"].as_u64()),
        (Some(verb), Some(1))
    );
    document
}

#[test]
fn info_tells_of_a_volume_mounted_or_not() {
    let m = Mounted::unmounted(&[&SMALL[..], &["-L", "films"]].concat(), &[]);
    let before = document("info", m.dir());
    assert_eq!((before["label"].as_str(), before["state"].as_str()), (Some("films"), Some("clean")));
    assert_eq!(before["journal_size"].as_u64(), Some(64 << 20));
    assert!(before["mount"].is_null() && before["parity_guarantee"].is_string(), "{before}");
    assert!(cairn("info", m.dir(), &[]).ok().contains("not mounted"));

    m.try_mount(&["noatime,cache_size=64M"]).ok();
    fs::write(m.path("f"), "x").expect("written");
    for path in [m.at().to_path_buf(), m.path("f"), m.dir().to_path_buf()] {
        let info = document("info", &path);
        assert_eq!((&info["uuid"], &info["store_uuid"]), (&before["uuid"], &before["store_uuid"]));
        let mount = &info["mount"];
        assert_eq!(mount["mountpoint"].as_str(), m.at().to_str());
        assert_eq!(mount["options"], serde_json::json!(["noatime", "cache_size=64M"]));
        assert!(info["kernel"]["missing"].is_array(), "{info}");
        assert_eq!((&mount["read_only"], &mount["metrics"]), (&Value::Bool(false), &Value::Null));
    }
    let text = cairn("info", m.at(), &[]).ok();
    for part in ["films", "writes         yes", "noatime,cache_size=64M", "16+2: any 2 bad sectors"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    m.unmount();
    m.try_mount(&["ro"]).ok();
    let mount = &document("info", m.at())["mount"];
    assert_eq!(
        (mount["read_only"].as_bool(), mount["read_only_because"].as_str()),
        (Some(true), Some("the mount option ro"))
    );
    m.finish();
}

#[test]
fn info_of_a_mount_whose_daemon_died_says_so() {
    let m = Mounted::new();
    m.kill();
    assert!(cairn("info", m.at(), &[]).ok().contains("daemon has died"));
    cairn("stats", m.at(), &[]).refused(1, &["died", "mount it again"]);
    m.take_away();
    m.fsck();
}

#[test]
fn no_volume_has_the_same_code_with_every_command() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let empty = m.beside("empty");
    fs::create_dir(&empty).expect("a new name");
    for verb in ["info", "stats", "df", "sync", "why"] {
        cairn(verb, &empty, &[]).refused(10, &[empty.to_str().expect("UTF-8")]);
    }
    cairn("stats", m.dir(), &[]).refused(1, &["not mounted"]);
    cairn("stats", m.dir(), &["--count", "3"]).refused(2, &["--interval"]);
    cairn("stats", m.dir(), &["--interval", "0"]).refused(2, &["0.1"]);
    run("cairn", ["why"]).refused(2, &["PATH"]);
}

#[test]
fn stats_count_what_is_done() {
    let m = Mounted::new();
    let before = document("stats", m.at());
    fs::write(m.path("f"), noise(1, LENGTH)).expect("written");
    fs::write(m.path("g"), noise(1, LENGTH)).expect("written");
    m.sync();
    let after = document("stats", m.at());
    let grown = |field: &str| {
        let of = |stats: &Value| stats[field].as_u64().unwrap_or_else(|| panic!("{field} in {stats}"));
        of(&after) - of(&before)
    };
    assert_eq!(grown("written_bytes"), 2 * LENGTH as u64);
    assert_eq!(grown("new_bytes") + grown("deduped_bytes"), 2 * LENGTH as u64);
    assert!(grown("deduped_bytes") as usize > LENGTH / 2 && grown("packs_written") > 0, "{after}");
    assert_eq!((after["backlog"].as_u64(), after["io_errors"].as_u64()), (Some(0), Some(0)));
    assert!(after["per_second"].is_null());
    assert!(cairn("stats", m.path("f").as_path(), &[]).ok().contains("folded, known"));
    m.finish();
}

#[test]
fn stats_go_on_until_the_count_or_sigint() {
    let m = Mounted::new();
    let lines = cairn("stats", m.at(), &["--interval", "0.1", "--count", "3"]).ok();
    assert_eq!(lines.lines().count(), 4, "a heading and three lines: {lines}");
    let json = cairn("stats", m.at(), &["--interval", "0.1", "--count", "2", "--json"]).ok();
    for line in json.lines() {
        let line: Value = serde_json::from_str(line).expect("a document a line");
        assert!(line["per_second"]["written_bytes"].is_number() && line["message_type"] == "stats", "{line}");
    }
    assert_eq!(json.lines().count(), 2);

    let out = m.beside("out");
    // Where this test runs in the background, it and its children ignore SIGINT unless told otherwise.
    let mut command = Command::new("env");
    command
        .arg("--default-signal=INT")
        .arg(program("cairn"))
        .arg("stats")
        .arg(m.at())
        .args(["--interval", "0.1"])
        .stdin(Stdio::null());
    let mut running =
        Running(command.stdout(File::create(&out).expect("a new name")).spawn().expect("starts"));
    wait_until("it has printed", || fs::metadata(&out).is_ok_and(|found| found.len() > 0));
    running.signal(Signal::SIGINT);
    // What a shell calls 130.
    assert_eq!(running.0.wait().expect("a child").signal(), Some(Signal::SIGINT as i32));
    m.finish();
}

#[test]
fn why_lists_the_tensors_in_a_file() {
    let m = Mounted::new();
    fs::write(m.path("model"), super::mapping::tensor_file("model.embed", 1 << 18)).expect("written");
    let early = document("why", &m.path("model"));
    assert_eq!(early["tensors"][0]["codecs"][0].as_str(), Some("journal"), "{early}");
    m.sync();
    let why = document("why", &m.path("model"));
    assert_eq!(why["tensor_count"].as_u64(), Some(1));
    let tensor = &why["tensors"][0];
    assert_eq!((tensor["name"].as_str(), tensor["dtype"].as_str()), (Some("model.embed"), Some("F32")));
    assert_eq!((tensor["shape"][0].as_u64(), tensor["bytes"].as_u64()), (Some(1 << 18), Some(1 << 20)));
    assert_eq!(tensor["codecs"][0].as_str(), Some("planes"), "{tensor}");
    assert!(tensor["ratio"].as_f64().expect("a number") > 1.1, "{tensor}");
    let text = cairn("why", &m.path("model"), &[]).ok();
    assert!(text.contains("  1 tensor\n    model.embed  F32 [262144]  1.00 MiB stored as "), "{text}");
    m.finish();
}

#[test]
fn why_tells_what_a_file_shares_with_others() {
    let m = Mounted::new();
    for (name, seed) in [("one", 1), ("two", 1), ("alone", 2)] {
        fs::write(m.path(name), noise(seed, LENGTH)).expect("written");
    }
    m.sync();
    let one = document("why", &m.path("one"));
    assert_eq!((one["kind"].as_str(), one["size"].as_u64()), (Some("file"), Some(LENGTH as u64)));
    assert_eq!((one["sharers"].as_u64(), one["complete"].as_bool()), (Some(1), Some(true)));
    assert!(one["shared"].as_u64().expect("a number") > LENGTH as u64 / 2, "{one}");
    assert_eq!(one["journalled"].as_u64(), Some(0));
    let text = cairn("why", &m.path("one"), &[]).ok();
    assert!(text.contains("with 1 other file") && text.contains("pack"), "{text}");
    assert!(cairn("why", &m.path("alone"), &[]).ok().contains("with no other file"));

    let missing = m.path("missing");
    cairn("why", &m.path("one"), &[missing.to_str().expect("UTF-8")])
        .refused(3, &["missing", "does not exist"]);
    cairn("why", &missing, &[]).refused(1, &["does not exist"]);
    cairn("why", Path::new("/proc/self/status"), &[]).refused(10, &["not on a cairn volume"]);
    // A directory says how files in it will be stored.
    assert_eq!(document("why", m.at())["kind"].as_str(), Some("directory"));
    m.finish();
}

/// Runs `cairn` as a user who has nothing to do with the volume.
fn as_nobody(m: &Mounted, verb: &str, path: &Path) -> Ran {
    // Where other users find it, too.
    let copy = m.beside("cairn");
    if !copy.exists() {
        fs::copy(program("cairn"), &copy).expect("room");
    }
    let mut command = Command::new(&copy);
    command.arg(verb).arg(path).uid(65534).gid(65534).current_dir("/");
    let output = command.output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Ran { line: format!("{command:?}"), code: output.status.code().unwrap_or(255), out, err }
}

#[test]
fn whoever_may_read_a_file_may_ask_about_it() {
    let m = Mounted::with(&SMALL, &["allow_other"]);
    fs::set_permissions(m.at(), fs::Permissions::from_mode(0o755)).expect("its owner");
    fs::write(m.path("open"), noise(1, LENGTH)).expect("written");
    fs::write(m.path("closed"), "x").expect("written");
    fs::set_permissions(m.path("closed"), fs::Permissions::from_mode(0o600)).expect("its owner");
    fs::set_permissions(m.dir(), fs::Permissions::from_mode(0o700)).expect("its owner");
    assert!(as_nobody(&m, "why", &m.path("open")).ok().contains("size           8.00 MiB"));
    as_nobody(&m, "why", &m.path("closed")).refused(1, &["permission denied"]);
    // By the mount's own file: the daemon's socket is closed to others.
    let stats = as_nobody(&m, "stats", m.at()).ok();
    assert!(stats.contains("written          8.00 MiB"), "{stats}");
    as_nobody(&m, "info", m.at()).refused(1, &["ermission denied", ".config"]);
    assert!(as_nobody(&m, "df", m.at()).ok().contains("journal, in use"));
    m.finish();
}

/// A program that does not outlive its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a process")), signal).expect("it runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `cairn mount -f` with `more`, its standard error in a file.
fn foreground(m: &Mounted, more: &[&str], notify: Option<&OsStr>) -> (Running, PathBuf) {
    let log = m.beside("stderr");
    let mut command = Command::new(program("cairn"));
    command.args(["mount", "-f"]).args(more).arg(m.dir()).arg(m.at()).stdin(Stdio::null());
    command.stderr(File::create(&log).expect("its directory is there"));
    if let Some(address) = notify {
        command.env("NOTIFY_SOCKET", address);
    }
    (Running(command.spawn().expect("starts")), log)
}

/// What came on `socket` by now and within a moment.
fn receive(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn systemd_is_told_when_a_mount_answers_and_when_it_ends() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let path = m.beside("notify");
    let name = format!("cairn-test-{}", std::process::id());
    let by_path = UnixDatagram::bind(&path).expect("a new name");
    let abstract_name = SocketAddr::from_abstract_name(&name).expect("short");
    let by_name = UnixDatagram::bind_addr(&abstract_name).expect("a new name");
    for (socket, address) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let (mut running, log) = foreground(&m, &[], Some(&address));
        let first =
            receive(&socket).unwrap_or_else(|| panic!("{}", fs::read_to_string(&log).expect("there")));
        assert!(first.starts_with("READY=1\nSTATUS=mounted at "), "{first}");
        // Ready means ready.
        fs::write(m.path("f"), noise(1, LENGTH)).expect("it answers");
        running.signal(Signal::SIGTERM);
        let last = receive(&socket).expect("an end");
        assert!(last.starts_with("STOPPING=1\n"), "{last}");
        assert!(running.0.wait().expect("a child").success());
        assert!(!is_mounted(m.at()));
    }
    // Nobody listens: it mounts all the same.
    let (mut running, _) = foreground(&m, &[], Some(OsStr::new("/nowhere/at/all")));
    wait_until("it is mounted", || is_mounted(m.at()) && fs::read(m.path("f")).is_ok());
    running.signal(Signal::SIGTERM);
    assert!(running.0.wait().expect("a child").success());
    m.fsck();
}

#[test]
fn a_log_in_json_is_json_line_by_line() {
    let m = Mounted::with(&SMALL, &["log_format=json"]);
    fs::write(m.path("f"), "x").expect("written");
    m.unmount();
    let (mut running, log) = foreground(&m, &["-o", "log_format=json"], None);
    wait_until("it is mounted", || is_mounted(m.at()) && fs::read(m.path("f")).is_ok());
    running.signal(Signal::SIGTERM);
    assert!(running.0.wait().expect("a child").success());
    for log in [m.dir().join("log"), log] {
        let text = fs::read_to_string(&log).expect("there");
        let lines: Vec<Value> =
            text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
        let says = |what: &str| {
            lines.iter().any(|line| line["fields"]["message"] == what && line["level"] == "INFO")
        };
        assert!(says("mounted") && says("the volume is closed"), "{text}");
    }
    m.fsck();
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn manual_pages_render_and_completions_parse() {
    let made = tempfile::tempdir().expect("a directory");
    let flag = format!("--generate={}", made.path().display());
    for name in ["cairn", "mkfs-cairn", "fsck-cairn"] {
        run(name, [&flag]).ok();
    }
    let pages = files(&made.path().join("man/man8"));
    let names: Vec<_> = pages.iter().filter_map(|p| p.file_name()?.to_str()).collect();
    for page in ["cairn.8", "cairn-mount.8", "cairn-why.8", "mount.cairn.8", "mkfs.cairn.8", "fsck.cairn.8"] {
        assert!(names.contains(&page), "{page} is not among {names:?}");
    }
    for page in &pages {
        let said = run("groff", [OsStr::new("-man"), OsStr::new("-ww"), OsStr::new("-z"), page.as_os_str()]);
        assert!(said.code == 0 && said.err.is_empty(), "{}: {}", page.display(), said.err);
        let text = fs::read_to_string(page).expect("there");
        assert!(text.contains("EXIT STATUS") && text.contains("SYNOPSIS"), "{}", page.display());
        // What is between cairn and itself.
        assert!(!text.contains("generate") && !text.contains("report-on-stdout"), "{}", page.display());
    }
    let mount = fs::read_to_string(made.path().join("man/man8/mount.cairn.8")).expect("there");
    assert!(mount.contains("cache_size=SIZE") && mount.contains("EXAMPLES"), "{mount}");
    for name in ["cairn", "mkfs.cairn", "fsck.cairn"] {
        let bash = made.path().join("bash-completion/completions").join(name);
        run("bash", [OsStr::new("-n"), bash.as_os_str()]).ok();
        for other in [format!("zsh/site-functions/_{name}"), format!("fish/vendor_completions.d/{name}.fish")]
        {
            assert!(fs::metadata(made.path().join(&other)).is_ok_and(|found| found.len() > 0), "{other}");
        }
    }
}

#[test]
fn bash_completes_the_verbs() {
    let made = tempfile::tempdir().expect("a directory");
    run("cairn", [format!("--generate={}", made.path().display())]).ok();
    let script = made.path().join("bash-completion/completions/cairn");
    let ask =
        r#"source "$0"; COMP_WORDS=(cairn s); COMP_CWORD=1; _cairn cairn s cairn; echo "${COMPREPLY[@]}""#;
    let replies = run("bash", [OsStr::new("-c"), OsStr::new(ask), script.as_os_str()]).ok();
    let replies: Vec<_> = replies.split_whitespace().collect();
    assert!(
        replies.contains(&"stats") && replies.contains(&"sync") && !replies.contains(&"df"),
        "{replies:?}"
    );
}
