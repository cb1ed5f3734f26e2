//! A command's side of `control.sock`.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use cairn_page::Map;
use cairn_volume::{HealMode, Wanted};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::statvfs::statvfs;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::repair::{LookLine, WantedLine, send_chunk};
use super::{GcRequest, RepairRequest, Request, ScrubRequest, read_line, with_address};
use crate::failure::Failure;
use crate::mountinfo;
use crate::report::{
    GcProgressReport, GcRunReport, RepairProgressReport, RepairRunReport, ScrubFileReport,
    ScrubProgressReport, ScrubRunReport,
};

/// A connection to the daemon that holds a volume.
pub(crate) struct Client {
    dir: String,
    from: BufReader<UnixStream>,
}

/// Takes a chunk that was found, or none, which is empty; says whether to go on.
type Takes<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// How often a daemon that died under a question is looked for again.
const TRIES: usize = 8;

impl Client {
    /// Connects to whoever holds the volume in `dir`; `None` if nobody does. Where a daemon has died and another is about
    /// to follow, waits for that.
    pub(crate) fn connect(dir: &Path) -> Result<Option<Client>, Failure> {
        for _ in 0..TRIES {
            match Client::connect_now(dir)? {
                None if is_answered(dir) => thread::sleep(Duration::from_millis(10)),
                found => return Ok(found),
            }
        }
        Ok(None)
    }

    fn connect_now(dir: &Path) -> Result<Option<Client>, Failure> {
        match with_address(dir, |path| UnixStream::connect(path)) {
            Ok(stream) => Ok(Some(Client { dir: dir.display().to_string(), from: BufReader::new(stream) })),
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused => {
                    Ok(None)
                }
                io::ErrorKind::PermissionDenied => Err(Failure::new(format!(
                    "{}/control.sock: permission denied: only the user who mounted the volume, or root, may ask its daemon",
                    dir.display()
                ))),
                _ => Err(Failure::new(format!("{}/control.sock: {e}", dir.display()))),
            },
        }
    }

    /// Asks, and waits for the answer; asks the next daemon if this one died.
    pub(crate) fn call(&mut self, command: &str) -> Result<Value, Failure> {
        self.request(&Request::of(command), &mut |_| {})
    }

    /// Has garbage collected; `progress` is told how far that is.
    pub(crate) fn collect(
        &mut self,
        how: &GcRequest,
        progress: &mut dyn FnMut(&GcProgressReport),
    ) -> Result<GcRunReport, Failure> {
        let request = Request { gc: Some(how.clone()), ..Request::of("gc") };
        let mut answer = self.request(&request, &mut |news| {
            if news["event"] == "gc"
                && let Ok(told) = serde_json::from_value(news["progress"].clone())
            {
                progress(&told);
            }
        })?;
        self.taken("gc", answer["gc"].take())
    }

    /// Has something else be done about damage from now on.
    pub(crate) fn heal(&mut self, mode: HealMode) -> Result<(), Failure> {
        let heal = Some(crate::report::heal_name(mode).to_string());
        self.request(&Request { heal, ..Request::of("heal") }, &mut |_| {}).map(drop)
    }

    /// Has the volume scrubbed; `progress` is told how far that is.
    pub(crate) fn scrub(
        &mut self,
        how: &ScrubRequest,
        progress: &mut dyn FnMut(&ScrubProgressReport),
    ) -> Result<ScrubRunReport, Failure> {
        let request = Request { scrub: Some(how.clone()), ..Request::of("scrub") };
        let (mut damage, mut files): (_, Vec<ScrubFileReport>) = (Vec::new(), Vec::new());
        let mut map: Option<Map> = None;
        let mut answer = self.request(&request, &mut |news| {
            if news["event"] != "scrub" {
                return;
            }
            if let Ok(told) = serde_json::from_value(news["progress"].clone()) {
                progress(&told);
            } else if let Ok(told) = serde_json::from_value(news["damage"].clone()) {
                damage.push(told);
            } else if let Ok(told) = serde_json::from_value(news["file"].clone()) {
                files.push(told);
            } else if let (Ok(told), Some(file)) =
                (serde_json::from_value(news["shown"].clone()), files.last_mut())
            {
                file.shown = told;
            } else if let Ok(told) = serde_json::from_value(news["map"].clone()) {
                map = Some(told);
            } else if let (Ok(mut told), Some(map)) =
                (serde_json::from_value(news["cells"].clone()), map.as_mut())
            {
                map.cells.append(&mut told);
            } else if let (Ok(mut told), Some(map)) =
                (serde_json::from_value(news["told"].clone()), map.as_mut())
            {
                map.told.append(&mut told);
            }
        })?;
        let run: ScrubRunReport = self.taken("scrub", answer["scrub"].take())?;
        Ok(ScrubRunReport { damage, files, map, ..run })
    }

    /// Has lost data back: `look` is called with what is looked for, and with what takes a chunk that was found and says
    /// whether to go on. It is not asked of the next daemon if this one dies.
    pub(crate) fn repair(
        &mut self,
        how: &RepairRequest,
        progress: &mut dyn FnMut(&RepairProgressReport),
        look: &mut dyn FnMut(Wanted, Takes<'_>),
    ) -> Result<RepairRunReport, Failure> {
        let request = Request { repair: Some(how.clone()), ..Request::of("repair") };
        let mut line = serde_json::to_string(&request).map_err(|e| self.failure(&e.into()))?;
        line.push('\n');
        self.from.get_mut().write_all(line.as_bytes()).map_err(|e| self.failure(&e))?;
        let (mut wanted, mut files) = (Vec::new(), Vec::new());
        while let Some(mut news) = self.receive()? {
            match news["ok"].as_bool() {
                Some(true) => {
                    let run: RepairRunReport = self.taken("repair", news["repair"].take())?;
                    return Ok(RepairRunReport { files, ..run });
                }
                Some(false) => {
                    return Err(Failure::new(news["error"].as_str().unwrap_or("refused without a reason")));
                }
                None => {}
            }
            if let Ok(told) = serde_json::from_value(news["progress"].take()) {
                progress(&told);
            } else if let Ok(told) = serde_json::from_value(news["file"].take()) {
                files.push(told);
            } else if let Ok(line) = serde_json::from_value::<WantedLine>(news["wanted"].take()) {
                wanted.extend(line.read());
            } else if let Ok(line) = serde_json::from_value::<LookLine>(news["look"].take())
                && let Some(wanted) = line.read(std::mem::take(&mut wanted))
            {
                let to = self.from.get_ref();
                // Whether the daemon takes more; why not, it says.
                let mut taken = true;
                look(wanted, &mut |plain| {
                    taken = taken && (plain.is_empty() || send_chunk(to, plain).is_ok());
                    taken
                });
                let _ = send_chunk(to, &[]);
            }
        }
        Err(Failure::new(format!(
            "the daemon of {} ended before everything was looked for: run it again; see {}/log",
            self.dir, self.dir
        )))
    }

    /// Has the daemon make way for another program, and waits until it is about to.
    pub(crate) fn upgrade(&mut self, program: &Path) -> Result<(), Failure> {
        let request = Request { program: Some(program.to_path_buf()), ..Request::of("upgrade") };
        self.exchange(&request, &mut |_| {})?.map(drop).ok_or_else(|| self.unanswered())
    }

    /// Asks, and waits for the answer, of the next daemon if this one died; `news` gets what comes before it.
    fn request(&mut self, request: &Request, news: &mut dyn FnMut(&Value)) -> Result<Value, Failure> {
        for _ in 0..TRIES {
            if let Some(answer) = self.exchange(request, news)? {
                return Ok(answer);
            }
            match Client::connect(Path::new(&self.dir))? {
                Some(next) => *self = next,
                None => break,
            }
        }
        Err(self.unanswered())
    }

    fn unanswered(&self) -> Failure {
        Failure::new(format!("the daemon of {} ended before it answered: see {}/log", self.dir, self.dir))
    }

    /// An answer; `None` if the daemon ended before there was one.
    fn exchange(
        &mut self,
        request: &Request,
        news: &mut dyn FnMut(&Value),
    ) -> Result<Option<Value>, Failure> {
        let mut line = serde_json::to_string(request).map_err(|e| self.failure(&e.into()))?;
        line.push('\n');
        match self.from.get_mut().write_all(line.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            result => result.map_err(|e| self.failure(&e))?,
        }
        while let Some(answer) = self.receive()? {
            match answer["ok"].as_bool() {
                Some(true) => return Ok(Some(answer)),
                Some(false) => {
                    return Err(Failure::new(answer["error"].as_str().unwrap_or("refused without a reason")));
                }
                None => news(&answer),
            }
        }
        Ok(None)
    }

    /// The process that answers, as this one's namespace counts; none where it is in another.
    pub(crate) fn process(&self) -> Option<u32> {
        // rustix's, 1.1, is not for a process that cannot be seen: its number is 0, which a `Pid` of rustix's cannot be.
        let peer = getsockopt(self.from.get_ref(), PeerCredentials).ok()?;
        u32::try_from(peer.pid()).ok().filter(|pid| *pid != 0)
    }

    /// Returns when the daemon has closed the volume and ended.
    pub(crate) fn wait_for_end(&mut self) -> Result<(), Failure> {
        let mut closed = false;
        while let Some(news) = self.receive()? {
            if let (Some("closed"), Some(why)) = (news["event"].as_str(), news["error"].as_str()) {
                return Err(Failure::new(format!(
                    "not everything could be folded into {}: {why}; what was written is in its journal, and the next mount goes on; see {}/log",
                    self.dir, self.dir
                )));
            }
            closed |= news["event"] == "closed";
        }
        if closed {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the daemon of {} died before everything was folded; what was written is in its journal, and the next mount goes on; see {}/log",
            self.dir, self.dir
        )))
    }

    /// Asks, and waits for `field` of the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, command: &str, field: &str) -> Result<T, Failure> {
        let mut answer = self.call(command)?;
        self.taken(command, answer[field].take())
    }

    fn taken<T: DeserializeOwned>(&self, command: &str, field: Value) -> Result<T, Failure> {
        serde_json::from_value(field).map_err(|e| {
            Failure::new(format!(
                "the daemon of {} answered '{command}' with something else ({e}): is it another version of cairn?",
                self.dir
            ))
        })
    }

    /// The next line; `None` if the daemon ended.
    fn receive(&mut self) -> Result<Option<Value>, Failure> {
        let line = match read_line(&mut self.from) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            // Killed, with a question unread.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(self.failure(&e)),
        };
        serde_json::from_str(&line).map(Some).map_err(|e| self.failure(&e.into()))
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::new(format!("{}/control.sock: {error}", self.dir))
    }
}

/// Whether the volume in `dir` is mounted and its mount answers. Returns when it does: between two daemons the kernel waits.
fn is_answered(dir: &Path) -> bool {
    let mounts = mountinfo::read().unwrap_or_default();
    // Not `stat`: what that tells the kernel remembers.
    mountinfo::of_volume(&mounts, dir).is_some_and(|mount| statvfs(&mount.mountpoint).is_ok())
}
