//! Having lost data back, through `control.sock`. The daemon says what is lost; the command looks for it, in files that the
//! daemon need not see, and sends what it found: a length of four bytes, least significant first, and as many bytes, one
//! chunk behind another; a length of 0 ends them.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use cairn_volume::{
    ChunkId, ChunkSizes, RefillOptions, RefillProgress, Volume, Wanted, WantedChunk, WantedFile,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::VERSION;
use super::server::NEWS_EVERY;
use crate::report::{RepairProgressReport, RepairRunReport};

/// Chunks named in one line, and the longest path: a line has 64 KiB at most.
const CHUNKS: usize = 200;
const PATH: usize = 4096;
const PATHS: usize = 4;

/// How lost data is to be had back. Lines of progress are as for `scrub`; before what is asked for comes
/// `{"v":1,"event":"repair","wanted":{…}}` for each file, and then one with `look`, upon which the command sends chunks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RepairRequest {
    /// Chunks are held against their ids, too.
    pub(crate) deep: bool,
    /// Only packs that damage was met in.
    pub(crate) errors_only: bool,
    /// Nothing is changed.
    pub(crate) dry_run: bool,
}

impl RepairRequest {
    /// What the volume is asked.
    pub(crate) fn options(&self) -> RefillOptions {
        RefillOptions {
            deep: self.deep,
            errors_only: self.errors_only,
            dry_run: self.dry_run,
            ..RefillOptions::default()
        }
    }
}

/// A file, or a part of one, as a line has it. Paths need not be UTF-8: they are in hexadecimal digits.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WantedLine {
    paths: Vec<String>,
    /// Id, length, and where in the file.
    chunks: Vec<(String, u32, Option<u64>)>,
}

/// What a line says once all files are named.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LookLine {
    key: String,
    sizes: [u32; 3],
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

impl WantedLine {
    fn all(file: &WantedFile) -> Vec<WantedLine> {
        let paths: Vec<_> =
            file.paths.iter().filter(|path| path.len() <= PATH).take(PATHS).map(|path| hex(path)).collect();
        let chunks = file.chunks.chunks(CHUNKS).map(|chunks| WantedLine {
            paths: paths.clone(),
            chunks: chunks.iter().map(|chunk| (hex(&chunk.id.0), chunk.len, chunk.at)).collect(),
        });
        chunks.collect()
    }

    pub(super) fn read(&self) -> Option<WantedFile> {
        let chunk = |(id, len, at): &(String, u32, Option<u64>)| {
            Some(WantedChunk { id: ChunkId(unhex(id)?.try_into().ok()?), len: *len, at: *at })
        };
        Some(WantedFile {
            paths: self.paths.iter().map(|path| unhex(path)).collect::<Option<_>>()?,
            chunks: self.chunks.iter().map(chunk).collect::<Option<_>>()?,
        })
    }
}

impl LookLine {
    fn of(wanted: &Wanted) -> LookLine {
        let ChunkSizes { min, avg, max } = wanted.sizes;
        LookLine { key: hex(&wanted.key), sizes: [min, avg, max] }
    }

    pub(super) fn read(&self, files: Vec<WantedFile>) -> Option<Wanted> {
        let [min, avg, max] = self.sizes;
        let key = unhex(&self.key)?.try_into().ok()?;
        Some(Wanted { key, sizes: ChunkSizes { min, avg, max }, files })
    }
}

/// The daemon's side: has lost data back with whoever asked. Whoever is gone has found nothing more.
pub(super) fn serve(
    how: &RepairRequest,
    volume: &Volume,
    from: &mut BufReader<&UnixStream>,
    mut to: &UnixStream,
) -> Result<Value, String> {
    let mut send = |field: &str, value: Value| {
        let news = json!({ "v": VERSION, "event": "repair", field: value });
        to.write_all(format!("{news}\n").as_bytes()).is_ok()
    };
    let mut told: Option<Instant> = None;
    let mut news = |progress: &RefillProgress, send: &mut dyn FnMut(&str, Value) -> bool| {
        if told.is_some_and(|at| at.elapsed() < NEWS_EVERY) {
            return true;
        }
        told = Some(Instant::now());
        send("progress", json!(RepairProgressReport::from(*progress)))
    };
    let options = RefillOptions { gentle: true, ..how.options() };
    let failed = |error: cairn_volume::RefillError| error.to_string();
    let mut refill = volume.refill(&options, &mut |at| news(at, &mut send)).map_err(failed)?;
    let mut here = true;
    // Whoever goes while it looks has what it found kept all the same.
    while let Some(wanted) = refill.next(&mut |at| !here || news(at, &mut send)).map_err(failed)? {
        let lines = wanted.files.iter().flat_map(WantedLine::all);
        here = here && lines.into_iter().all(|line| send("wanted", json!(line)));
        if !here || !send("look", json!(LookLine::of(&wanted))) {
            break;
        }
        let most = volume.geometry().chunks.max;
        while let Some(plain) =
            receive(from, most).map_err(|e| format!("what was sent makes no sense: {e}"))?
        {
            let Some(plain) = plain else {
                here = false;
                break;
            };
            refill.offer(&plain).map_err(failed)?;
        }
    }
    let report = refill.finish(&mut |at| !here || news(at, &mut send)).map_err(failed)?;
    let mut run = RepairRunReport::of(report, how.dry_run);
    for file in std::mem::take(&mut run.files) {
        send("file", json!(file));
    }
    Ok(json!({ "repair": run }))
}

/// The next chunk; `None` where there are no more, `Some(None)` where whoever sent them is gone.
fn receive(from: &mut impl Read, most: u32) -> io::Result<Option<Option<Vec<u8>>>> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(Some(None)),
        _ => Err(error),
    };
    let mut len = [0; 4];
    if let Err(error) = from.read_exact(&mut len) {
        return gone(error);
    }
    let len = u32::from_le_bytes(len);
    if len == 0 {
        return Ok(None);
    }
    if len > most {
        return Err(io::Error::other(format!("a chunk of {len} bytes, where none is longer than {most}")));
    }
    let mut plain = vec![0; len as usize];
    match from.read_exact(&mut plain) {
        Ok(()) => Ok(Some(Some(plain))),
        Err(error) => gone(error),
    }
}

/// Sends a chunk that was found; an empty one ends them.
pub(super) fn send_chunk(mut to: &UnixStream, plain: &[u8]) -> io::Result<()> {
    let len = u32::try_from(plain.len()).map_err(io::Error::other)?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_comes_over_as_it_is_and_each_line_is_short_enough() {
        let chunk = |n: u32| WantedChunk {
            id: ChunkId([n as u8; 32]),
            len: n,
            at: (!n.is_multiple_of(3)).then_some(u64::MAX - u64::from(n)),
        };
        let file = WantedFile {
            paths: vec![vec![0xff; PATH], b"/a b".to_vec(), vec![b'x'; PATH], vec![b'y'; PATH]],
            chunks: (0..1000).map(chunk).collect(),
        };
        let mut back = Vec::new();
        for line in WantedLine::all(&file) {
            let line = json!({ "v": VERSION, "event": "repair", "wanted": line }).to_string();
            assert!((line.len() as u64) < super::super::MAX_LINE, "{}", line.len());
            let mut read: Value = serde_json::from_str(&line).expect("JSON");
            let line: WantedLine = serde_json::from_value(read["wanted"].take()).expect("a line");
            let part = line.read().expect("whole");
            assert_eq!(part.paths, file.paths);
            back.extend(part.chunks);
        }
        assert_eq!(back, file.chunks);
        for wrong in ["0", "0g", "ä", "zz"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn chunks_come_one_behind_another_and_none_is_too_long() {
        let (near, far) = UnixStream::pair().expect("sockets");
        for plain in [&b"one"[..], b"twelve bytes", b""] {
            send_chunk(&near, plain).expect("sent");
        }
        send_chunk(&near, &[7; 100]).expect("sent");
        send_chunk(&near, b"cut").expect("sent");
        drop(near);
        let mut far = BufReader::new(&far);
        assert_eq!(receive(&mut far, 12).expect("whole"), Some(Some(b"one".to_vec())));
        assert_eq!(receive(&mut far, 12).expect("whole"), Some(Some(b"twelve bytes".to_vec())));
        assert_eq!(receive(&mut far, 12).expect("whole"), None);
        assert!(receive(&mut far, 12).is_err());
        let mut rest: &[u8] = &[5, 0, 0, 0, b'c'];
        assert_eq!(receive(&mut rest, 12).expect("gone"), Some(None));
        assert_eq!(receive(&mut rest, 12).expect("gone"), Some(None));
    }
}
