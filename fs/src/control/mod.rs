//! How commands reach the daemon of a mounted volume: `control.sock` in its directory.
//!
//! One JSON document a line. A request is `{"v":1,"cmd":"usage"}`; its reply `{"v":1,"ok":true,…}` or
//! `{"v":1,"ok":false,"error":"a sentence"}`. A connection may ask several times; when the volume is
//! closed, it gets `{"v":1,"event":"closed","error":null}`, and then its end. Only the volume's owner may connect
//! (0600), and whoever holds the volume's lock owns the socket's name: one that nobody answers is replaced.

mod client;
mod info;
mod repair;
mod server;

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use client::Client;
pub(crate) use info::{Info, now};
pub(crate) use repair::RepairRequest;
pub(crate) use server::{Connections, Server};

/// The protocol's version, in every line.
const VERSION: u32 = 1;
/// The longest line either side reads.
const MAX_LINE: u64 = 64 << 10;
const NAME: &str = "control.sock";
/// What a socket's address can hold, with its closing NUL.
const MAX_ADDRESS: usize = 108;

/// A question. `cmd` is a string, so that an unknown one gets an answer that names it.
#[derive(Serialize, Deserialize)]
struct Request {
    v: u32,
    cmd: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gc: Option<GcRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scrub: Option<ScrubRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repair: Option<RepairRequest>,
    /// What `upgrade` is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<PathBuf>,
    /// What is to be done about damage from now on, for `heal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heal: Option<String>,
}

impl Request {
    fn of(cmd: &str) -> Request {
        Request {
            v: VERSION,
            cmd: cmd.to_string(),
            gc: None,
            scrub: None,
            repair: None,
            program: None,
            heal: None,
        }
    }
}

/// How garbage is to be collected. While that goes on the daemon sends `{"v":1,"event":"gc","progress":{…}}`; a
/// connection that is closed ends the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GcRequest {
    /// Packs of which less is used are rewritten, in percent.
    pub(crate) threshold: Option<u8>,
    /// The run ends after so many seconds.
    pub(crate) max_seconds: Option<f64>,
}

/// How a volume is to be scrubbed. While that goes on the daemon sends `{"v":1,"event":"scrub","progress":{…}}`, and before
/// its answer a line with `damage` or `file` for each that is damaged still; a connection that is closed ends the run. Where
/// `each_pack` is asked for, lines with `shown` (what a file is called, byte for byte), `map`, `cells` and `told` as
/// [`cairn_page::Map`] has them come, too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ScrubRequest {
    /// Chunks are held against their ids, too.
    pub(crate) deep: bool,
    /// Only what is stored of this path, from the volume's root.
    pub(crate) path: Option<PathBuf>,
    /// Only packs that damage was met in.
    pub(crate) errors_only: bool,
    /// Megabytes a second.
    pub(crate) rate: Option<u64>,
    /// The run ends after so many seconds.
    pub(crate) max_seconds: Option<f64>,
    /// Nothing is written.
    pub(crate) look_only: bool,
    /// What is known of every pack is told.
    pub(crate) each_pack: bool,
}

/// Calls `f` with a path that leads to the socket in `dir` and is short enough for a socket's address.
fn with_address<T>(dir: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(NAME);
    if path.as_os_str().len() < MAX_ADDRESS {
        return f(&path);
    }
    let opened = File::open(dir)?;
    let through: PathBuf = format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd()).into();
    f(&through)
}

/// The next line without its end; `None` at the end of the stream.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = from.by_ref().take(MAX_LINE).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(whole) => Ok(Some(whole.to_string())),
        None if length == 0 => Ok(None),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a line was cut off, or is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_up_to_a_bound() {
        let mut from: &[u8] = b"one\ntwo\n";
        assert_eq!(read_line(&mut from).expect("whole").as_deref(), Some("one"));
        assert_eq!(read_line(&mut from).expect("whole").as_deref(), Some("two"));
        assert_eq!(read_line(&mut from).expect("the end"), None);
        assert!(read_line(&mut &b"cut"[..]).is_err());
        let long = vec![b'x'; 100 << 10];
        assert!(read_line(&mut &long[..]).is_err());
    }

    #[test]
    fn a_long_directory_still_has_an_address() {
        let deep = std::env::temp_dir().join(format!("cairn-{}", std::process::id())).join("d".repeat(120));
        std::fs::create_dir_all(&deep).expect("a directory");
        with_address(&deep, |path| {
            assert!(path.as_os_str().len() < MAX_ADDRESS);
            std::fs::write(path, "here")
        })
        .expect("reaches it");
        assert_eq!(std::fs::read(deep.join(NAME)).expect("written"), b"here");
        std::fs::remove_dir_all(deep.parent().expect("has one")).expect("removed");
    }
}
