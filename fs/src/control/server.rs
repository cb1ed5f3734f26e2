//! The daemon's side of `control.sock`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cairn_volume::{GcProgress, ScrubOptions, ScrubProgress, Volume};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{GcRequest, Info, NAME, RepairRequest, Request, ScrubRequest, VERSION, read_line, with_address};
use crate::report::{
    GcProgressReport, GcRunReport, ScrubProgressReport, ScrubRunReport, StatsTold, UsageReport, heal_mode,
};

/// Connections served at a time; one more is closed at once.
const MAX_CONNECTIONS: usize = 32;
/// How long an answer may take to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Cells of a map, or packs, that a line tells.
const MAPPED: usize = 64;
/// How often whoever has garbage collected is told how far that is.
pub(super) const NEWS_EVERY: Duration = Duration::from_millis(200);
/// How much nicer collecting is than what answers requests.
const GC_NICENESS: i32 = 10;

/// The open connections: each is told when the volume is closed, so that `cairn umount` knows how that went.
#[derive(Default)]
pub(crate) struct Connections(Mutex<HashMap<u64, UnixStream>>);

impl Connections {
    /// Tells everyone that the volume is closed, or why it could not be.
    pub(crate) fn announce(&self, closed: Result<(), String>) {
        let line = format!("{}\n", json!({ "v": VERSION, "event": "closed", "error": closed.err() }));
        for mut stream in self.lock().values() {
            // Whoever does not listen any more need not be told.
            let _ = stream.write_all(line.as_bytes());
        }
    }

    /// Takes `stream` in, unless there are too many.
    fn enter(&self, number: u64, stream: &UnixStream) -> io::Result<()> {
        let mut open = self.lock();
        if open.len() >= MAX_CONNECTIONS {
            return Err(io::Error::other("too many connections"));
        }
        // Nobody who stops reading holds up the daemon.
        stream.set_write_timeout(Some(PATIENCE))?;
        open.insert(number, stream.try_clone()?);
        Ok(())
    }

    fn leave(&self, number: u64) {
        self.lock().remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        // A map is whole between its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What connections share.
struct Shared {
    volume: Arc<Volume>,
    info: Info,
    connections: Arc<Connections>,
    stop: Box<dyn Fn() + Send + Sync>,
    replace: Box<dyn Fn(PathBuf) + Send + Sync>,
}

/// A listening `control.sock`.
pub(crate) struct Server {
    path: PathBuf,
    inode: u64,
}

impl Server {
    /// Listens in the volume's directory, in place of a socket that a daemon left behind. The caller holds the volume's
    /// lock, so no other daemon can be using it. `stop` asks the daemon to end, `replace` to make way for a program.
    pub(crate) fn start(
        volume: Arc<Volume>,
        info: Info,
        connections: Arc<Connections>,
        stop: Box<dyn Fn() + Send + Sync>,
        replace: Box<dyn Fn(PathBuf) + Send + Sync>,
    ) -> io::Result<Server> {
        let path = info.dir.join(NAME);
        let listener = listen(&info.dir, &path)?;
        let inode = fs::symlink_metadata(&path)?.ino();
        let shared = Arc::new(Shared { volume, info, connections, stop, replace });
        thread::Builder::new().name("control".into()).spawn(move || accept(&listener, &shared))?;
        Ok(Server { path, inode })
    }

    /// Removes the socket, unless the next daemon has put its own there.
    pub(crate) fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            // Nobody answers on it any more; one that stays is replaced by the next mount.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = with_address(dir, |address| UnixListener::bind(address))?;
    // The daemon's umask left nothing to others in between.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves connections until the process ends.
fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        if let Err(e) = stream.and_then(|stream| admit(number, stream, shared)) {
            warn!("control.sock: {e}");
            // Out of descriptors or threads, most likely: do not spin.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Serves one connection on a thread of its own.
fn admit(number: u64, stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    shared.connections.enter(number, &stream)?;
    let serving = shared.clone();
    let spawned = thread::Builder::new().name("control-client".into()).spawn(move || {
        if let Err(e) = serve(&stream, &serving) {
            debug!("control.sock: {e}");
        }
        serving.connections.leave(number);
    });
    spawned.map(drop).inspect_err(|_| shared.connections.leave(number))
}

/// Answers one connection's questions until it is closed.
fn serve(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    while let Some(line) = read_line(&mut from)? {
        let request = parse(&line);
        let program = match &request {
            Ok(request) if request.cmd == "upgrade" => request.program.clone(),
            _ => None,
        };
        let repairs = request.as_ref().is_ok_and(|request| request.cmd == "repair");
        let answered = request.and_then(|request| match request.cmd.as_str() {
            "repair" => repair(&request.repair.unwrap_or_default(), shared, &mut from),
            "gc" => collect(&request.gc.unwrap_or_default(), shared, stream),
            "scrub" => scrub(&request.scrub.unwrap_or_default(), shared, stream),
            _ => answer(&request, shared),
        });
        let agreed = answered.is_ok();
        write_answer(stream, answered)?;
        if repairs && !agreed {
            // What comes now may be what was found for it.
            return Ok(());
        }
        if let Some(program) = program.filter(|_| agreed) {
            // Not before it is answered: this process may be gone a moment later.
            (shared.replace)(program);
        }
    }
    Ok(())
}

/// Collects garbage until it is done or nobody wants to hear of it any more. Without news for long a reader that is gone
/// would not be noticed: so there are some all the time.
fn collect(how: &GcRequest, shared: &Shared, mut to: &UnixStream) -> Result<Value, String> {
    if let Err(e) = rustix::process::nice(GC_NICENESS) {
        debug!("collecting has the priority of everything else: {e}");
    }
    let mut told: Option<Instant> = None;
    let mut tell = |progress: &GcProgress| {
        if told.is_some_and(|at| at.elapsed() < NEWS_EVERY) {
            return ControlFlow::Continue(());
        }
        told = Some(Instant::now());
        let news = json!({ "v": VERSION, "event": "gc", "progress": GcProgressReport::from(*progress) });
        match to.write_all(format!("{news}\n").as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let dir = shared.info.dir.display();
    match shared.volume.gc(&how.options(), &mut tell) {
        Ok(report) => Ok(json!({ "gc": GcRunReport::from(report) })),
        Err(e) => Err(format!("{dir}: garbage could not be collected: {e}; nothing is lost, see {dir}/log")),
    }
}

/// Scrubs until that is done or nobody wants to hear of it any more.
fn scrub(how: &ScrubRequest, shared: &Shared, mut to: &UnixStream) -> Result<Value, String> {
    if let Err(e) = rustix::process::nice(GC_NICENESS) {
        debug!("scrubbing has the priority of everything else: {e}");
    }
    let mut send = |field: &str, value: Value| {
        let news = json!({ "v": VERSION, "event": "scrub", field: value });
        to.write_all(format!("{news}\n").as_bytes()).is_ok()
    };
    let mut told: Option<Instant> = None;
    let mut tell = |progress: &ScrubProgress| {
        if told.is_some_and(|at| at.elapsed() < NEWS_EVERY) {
            return true;
        }
        told = Some(Instant::now());
        send("progress", json!(ScrubProgressReport::from(*progress)))
    };
    // One thread, so that the disk's time is left to whoever works with the mount.
    let options = ScrubOptions { threads: 1, gentle: true, ..how.options() };
    let report = shared.volume.scrub(&options, &mut tell);
    let mut run = ScrubRunReport::from(report.map_err(|e| crate::cmd::scrub::failed(&shared.info.dir, &e))?);
    // A line each: together they may be longer than a line may be.
    for damage in std::mem::take(&mut run.damage) {
        send("damage", json!(damage));
    }
    for file in std::mem::take(&mut run.files) {
        send("file", json!(file));
        if how.each_pack {
            send("shown", json!(file.shown));
        }
    }
    if let Some(map) = run.map.take() {
        send("map", json!(map));
        for cells in map.cells.chunks(MAPPED) {
            send("cells", json!(cells));
        }
        for told in map.told.chunks(MAPPED) {
            send("told", json!(told));
        }
    }
    Ok(json!({ "scrub": run }))
}

/// Has lost data back, with what whoever asked finds.
fn repair(how: &RepairRequest, shared: &Shared, from: &mut BufReader<&UnixStream>) -> Result<Value, String> {
    if let Err(e) = rustix::process::nice(GC_NICENESS) {
        debug!("repairing has the priority of everything else: {e}");
    }
    let stream = *from.get_ref();
    super::repair::serve(how, &shared.volume, from, stream)
        .map_err(|e| crate::cmd::repair::failed(&shared.info.dir, &e))
}

fn parse(line: &str) -> Result<Request, String> {
    let request: Request = serde_json::from_str(line).map_err(|e| format!("not a request: {e}"))?;
    match request.v {
        VERSION => Ok(request),
        other => Err(format!("this daemon speaks version {VERSION} of the protocol, not {other}")),
    }
}

/// Does what `command` asks; the fields of the answer, or why not.
fn answer(request: &Request, shared: &Shared) -> Result<Value, String> {
    match request.cmd.as_str() {
        "upgrade" => {
            upgradable(request.program.as_deref().ok_or("upgrade to what?")?, &shared.info)?;
            // The less there is to replay, the shorter programs wait. What cannot be folded now waits in the journal.
            let _ = shared.volume.sync();
            Ok(json!({}))
        }
        "sync" => shared.volume.sync().map(|()| json!({})).map_err(|e| {
            format!(
                "{}: not everything could be folded: {e}; see {}/log",
                shared.info.dir.display(),
                shared.info.dir.display()
            )
        }),
        "usage" => Ok(json!({ "usage": UsageReport::from(shared.volume.usage()) })),
        "stats" => Ok(json!({ "stats": StatsTold::of(&shared.volume) })),
        "heal" => {
            let mode = request.heal.as_deref().unwrap_or_default();
            shared.volume.set_heal_mode(heal_mode(mode)?);
            tracing::info!("heal={mode}, by a remount");
            Ok(json!({}))
        }
        "info" => Ok(json!({ "info": shared.info.clone().now(&shared.volume) })),
        "stop" => {
            (shared.stop)();
            Ok(json!({}))
        }
        other => Err(format!("this daemon knows no command '{other}'")),
    }
}

/// That there is a supervisor to start `program`, and that it is a cairn.
fn upgradable(program: &Path, info: &Info) -> Result<(), String> {
    if info.supervisor.is_none() {
        return Err(format!(
            "{} has no supervisor (supervise=off): unmount it, and mount it with the other build",
            info.mountpoint.display()
        ));
    }
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    match said {
        Err(e) => Err(format!("{}: {e}", program.display())),
        Ok(said) if said.status.success() && said.stdout.starts_with(b"cairn ") => Ok(()),
        Ok(_) => Err(format!("{} is not cairn: name the program that is to go on", program.display())),
    }
}

fn write_answer(mut to: &UnixStream, answer: Result<Value, String>) -> io::Result<()> {
    let mut line = match answer {
        Ok(mut fields) => {
            fields["v"] = VERSION.into();
            fields["ok"] = true.into();
            fields
        }
        Err(why) => json!({ "v": VERSION, "ok": false, "error": why }),
    }
    .to_string();
    line.push('\n');
    to.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_by_version() {
        let parse = |line| parse(line).map(|request| (request.cmd, request.gc));
        assert_eq!(parse(r#"{"v":1,"cmd":"sync"}"#), Ok(("sync".to_string(), None)));
        assert_eq!(parse(r#"{"v":1,"cmd":"usage","more":true}"#), Ok(("usage".to_string(), None)));
        let half = GcRequest { threshold: Some(50), max_seconds: None };
        assert_eq!(parse(r#"{"v":1,"cmd":"gc","gc":{"threshold":50}}"#), Ok(("gc".to_string(), Some(half))));
        assert!(parse(r#"{"v":2,"cmd":"sync"}"#).expect_err("newer").contains("version 1"));
        assert!(parse("sync").is_err());
    }

    #[test]
    fn everyone_connected_is_told_of_the_end() {
        let connections = Connections::default();
        let (near, far) = UnixStream::pair().expect("sockets");
        connections.enter(7, &near).expect("the first");
        connections.announce(Err("disk".into()));
        let line = read_line(&mut BufReader::new(&far)).expect("whole").expect("a line");
        let told: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((told["event"].as_str(), told["error"].as_str()), (Some("closed"), Some("disk")));
        connections.leave(7);
        connections.announce(Ok(()));
        drop(near);
        assert_eq!(read_line(&mut BufReader::new(&far)).expect("the end"), None);
    }

    #[test]
    fn there_is_a_bound_on_connections() {
        let connections = Connections::default();
        let (stream, _far) = UnixStream::pair().expect("sockets");
        for number in 0..MAX_CONNECTIONS as u64 {
            connections.enter(number, &stream).expect("within the bound");
        }
        assert!(connections.enter(99, &stream).is_err());
    }
}
