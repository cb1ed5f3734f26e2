//! The daemon's side of `control.sock`.

use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cairn_volume::Volume;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{NAME, Request, VERSION, read_line, with_address};
use crate::report::UsageReport;

/// Connections served at a time; one more is closed at once.
const MAX_CONNECTIONS: usize = 32;
/// How long the daemon's end waits for its last answers to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What `info` tells.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Info {
    /// The daemon's process.
    pub(crate) pid: u32,
    /// This build of cairn.
    pub(crate) version: &'static str,
    /// The volume's directory.
    pub(crate) dir: PathBuf,
    /// Where it is mounted.
    pub(crate) mountpoint: PathBuf,
    /// The volume's identity.
    pub(crate) uuid: String,
    /// Its name, may be empty.
    pub(crate) label: String,
    /// Whether it takes no writes.
    pub(crate) read_only: bool,
}

/// The end of a mount, for those who wait for it.
#[derive(Default)]
pub(crate) struct End {
    state: Mutex<EndState>,
    changed: Condvar,
}

#[derive(Default)]
struct EndState {
    /// How closing the volume went, once it did.
    result: Option<Result<(), String>>,
    waiting: usize,
}

impl End {
    /// Tells everyone who waits, and returns when they have passed it on.
    pub(crate) fn announce(&self, result: Result<(), String>) {
        let mut state = self.lock();
        state.result = Some(result);
        self.changed.notify_all();
        let told = self.changed.wait_timeout_while(state, LAST_WORDS, |s| s.waiting > 0);
        drop(told);
    }

    /// Waits for the end and has `tell` pass on how it was.
    fn wait(&self, tell: impl FnOnce(Result<(), String>)) {
        let mut state = self.lock();
        state.waiting += 1;
        while state.result.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let result = state.result.clone().unwrap_or(Ok(()));
        drop(state);
        tell(result);
        self.lock().waiting -= 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, EndState> {
        // Counters and a result: whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What connections share.
struct Shared {
    volume: Arc<Volume>,
    info: Info,
    end: Arc<End>,
    stop: Box<dyn Fn() + Send + Sync>,
    connections: AtomicUsize,
}

/// A listening `control.sock`.
pub(crate) struct Server {
    path: PathBuf,
    inode: u64,
}

impl Server {
    /// Listens in the volume's directory, in place of a socket that a daemon left behind. The caller holds the volume's
    /// lock, so no other daemon can be using it. `stop` asks the daemon to end.
    pub(crate) fn start(
        volume: Arc<Volume>,
        info: Info,
        end: Arc<End>,
        stop: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Server> {
        let path = info.dir.join(NAME);
        let listener = listen(&info.dir, &path)?;
        let inode = fs::symlink_metadata(&path)?.ino();
        let shared = Arc::new(Shared { volume, info, end, stop, connections: AtomicUsize::new(0) });
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
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(e) => {
                warn!("control.sock: {e}");
                // Out of descriptors, most likely: do not spin.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let serving = shared.clone();
        let spawned = thread::Builder::new().name("control-client".into()).spawn(move || {
            if let Err(e) = serve(&stream, &serving) {
                debug!("control.sock: {e}");
            }
            serving.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(e) = spawned {
            warn!("control.sock: {e}");
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers one connection's questions until it is closed.
fn serve(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    while let Some(line) = read_line(&mut from)? {
        match parse(&line) {
            Ok(command) if command == "wait" => shared.end.wait(|result| {
                let answer = result.map(|()| json!({}));
                // Whoever asked may have gone.
                let _ = write_answer(stream, answer);
            }),
            Ok(command) => write_answer(stream, answer(&command, shared))?,
            Err(why) => write_answer(stream, Err(why))?,
        }
    }
    Ok(())
}

fn parse(line: &str) -> Result<String, String> {
    let request: Request = serde_json::from_str(line).map_err(|e| format!("not a request: {e}"))?;
    match request.v {
        VERSION => Ok(request.cmd),
        other => Err(format!("this daemon speaks version {VERSION} of the protocol, not {other}")),
    }
}

/// Does what `command` asks; the fields of the answer, or why not.
fn answer(command: &str, shared: &Shared) -> Result<Value, String> {
    match command {
        "sync" => shared.volume.sync().map(|()| json!({})).map_err(|e| {
            format!("{}: not everything could be folded: {e}; see {}/log", shared.info.dir.display(), shared.info.dir.display())
        }),
        "usage" => Ok(json!({ "usage": UsageReport::from(shared.volume.usage()) })),
        "info" => Ok(json!({ "info": shared.info })),
        "stop" => {
            (shared.stop)();
            Ok(json!({}))
        }
        other => Err(format!("this daemon knows no command '{other}'")),
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
        assert_eq!(parse(r#"{"v":1,"cmd":"sync"}"#), Ok("sync".to_string()));
        assert_eq!(parse(r#"{"v":1,"cmd":"usage","more":true}"#), Ok("usage".to_string()));
        assert!(parse(r#"{"v":2,"cmd":"sync"}"#).expect_err("newer").contains("version 1"));
        assert!(parse("sync").is_err());
    }

    #[test]
    fn who_waits_for_the_end_is_told_before_it_is_over() {
        let end = Arc::new(End::default());
        let told = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let (end, told) = (end.clone(), told.clone());
                thread::spawn(move || {
                    end.wait(|result| {
                        assert_eq!(result, Err("disk".to_string()));
                        told.fetch_add(1, Ordering::Relaxed);
                    });
                })
            })
            .collect();
        while end.lock().waiting < 3 {
            thread::yield_now();
        }
        end.announce(Err("disk".into()));
        assert_eq!(told.load(Ordering::Relaxed), 3);
        waiters.into_iter().for_each(|w| w.join().expect("no panic"));
    }
}
