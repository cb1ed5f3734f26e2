//! A command's side of `control.sock`.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Request, VERSION, read_line, with_address};
use crate::failure::Failure;

/// A connection to the daemon that holds a volume.
pub(crate) struct Client {
    dir: String,
    from: BufReader<UnixStream>,
}

impl Client {
    /// Connects to whoever holds the volume in `dir`; `None` if nobody does.
    pub(crate) fn connect(dir: &Path) -> Result<Option<Client>, Failure> {
        match with_address(dir, |path| UnixStream::connect(path)) {
            Ok(stream) => Ok(Some(Client { dir: dir.display().to_string(), from: BufReader::new(stream) })),
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::PermissionDenied => Err(Failure::new(format!(
                    "{}/control.sock: permission denied: only the user who mounted the volume, or root, may ask its daemon",
                    dir.display()
                ))),
                _ => Err(Failure::new(format!("{}/control.sock: {e}", dir.display()))),
            },
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, command: &str) -> Result<Value, Failure> {
        self.send(command)?;
        self.receive()?.ok_or_else(|| {
            Failure::new(format!("the daemon of {} ended before it answered: see {}/log", self.dir, self.dir))
        })
    }

    /// Asks, and waits for `field` of the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, command: &str, field: &str) -> Result<T, Failure> {
        let mut answer = self.call(command)?;
        serde_json::from_value(answer[field].take()).map_err(|e| {
            Failure::new(format!(
                "the daemon of {} answered '{command}' with something else ({e}): is it another version of cairn?",
                self.dir
            ))
        })
    }

    /// Asks without waiting.
    pub(crate) fn send(&mut self, command: &str) -> Result<(), Failure> {
        let request = Request { v: VERSION, cmd: command.to_string() };
        // A struct of a number and a string always serializes.
        let mut line = serde_json::to_string(&request).unwrap_or_default();
        line.push('\n');
        self.from.get_mut().write_all(line.as_bytes()).map_err(|e| self.failure(&e))
    }

    /// The next answer; `None` if the daemon ended instead.
    pub(crate) fn receive(&mut self) -> Result<Option<Value>, Failure> {
        let line = match read_line(&mut self.from) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            // A daemon that was killed with a question unread.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(self.failure(&e)),
        };
        let answer: Value = serde_json::from_str(&line).map_err(|e| self.failure(&e.into()))?;
        match answer["ok"].as_bool() {
            Some(true) => Ok(Some(answer)),
            _ => Err(Failure::new(answer["error"].as_str().unwrap_or("the daemon refused without saying why"))),
        }
    }

    /// Returns when the daemon has ended.
    pub(crate) fn wait_for_end(&mut self) {
        while let Ok(Some(_)) = read_line(&mut self.from) {}
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::new(format!("{}/control.sock: {error}", self.dir))
    }
}
