//! Where the daemon's log goes: `DIR/log`, or standard error in the foreground. `CAIRN_LOG` filters it (`debug`,
//! `cairn_volume=trace`…; `info` when not set), the mount option `log_format` chooses text or JSON.
//!
//! A disk that fails could make one place in the code say the same a million times, and fill with that what is left of the
//! disk: each place may say so much in a minute ([`Throttle`]).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use tracing::callsite::Identifier;
use tracing_log::AsLog;
use tracing_log::log::{Level, Log as LogCrate, Metadata, Record};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log longer than this is put aside when the daemon starts.
const ROTATE_AT: u64 = 16 << 20;
/// The most that is kept while the log's place is not known yet.
const MAX_PENDING: usize = 1 << 20;
/// How many lines one place in the code may write in [`WINDOW`].
const LINES: u64 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// What the throttle itself says, which it lets pass.
const THROTTLE: &str = "cairn::log";

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

impl Format {
    /// As the mount option `log_format=` writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
        }
    }

    /// Reads `text` or `json`.
    pub(crate) fn parse(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(format!("'{other}' is neither text nor json")),
        }
    }
}

/// The daemon's log. What is logged before the volume is open (and so before it is certain that the directory is one, and
/// ours) is kept, then written to its file.
#[derive(Clone)]
pub(crate) struct Log {
    sink: Arc<Mutex<Sink>>,
    throttle: Arc<Mutex<Throttle>>,
}

enum Sink {
    Pending(Vec<u8>),
    File(File),
    StandardError,
}

impl Log {
    /// To standard error, for good.
    pub(crate) fn to_standard_error(format: Format) -> Log {
        Log::start(Sink::StandardError, format)
    }

    /// Kept until [`Log::attach`].
    pub(crate) fn pending(format: Format) -> Log {
        Log::start(Sink::Pending(Vec::new()), format)
    }

    fn new(sink: Sink) -> Log {
        Log { sink: Arc::new(Mutex::new(sink)), throttle: Arc::default() }
    }

    fn start(sink: Sink, format: Format) -> Log {
        let log = Log::new(sink);
        let filter = EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        // fuser logs each request at `debug`: what nobody reads is not even looked at.
        let level = filter.max_level_hint().unwrap_or(tracing::level_filters::LevelFilter::TRACE);
        tracing_log::log::set_max_level(level.as_log());
        // These fail only if a log was started before, which then goes on.
        let _ = tracing_log::log::set_logger(&FuserLog);
        let lines =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).with_ansi(false);
        let _ = match format {
            Format::Text => tracing::subscriber::set_global_default(lines.finish()),
            Format::Json => tracing::subscriber::set_global_default(lines.json().finish()),
        };
        log
    }

    /// From here on to `dir/log`, beginning with what was kept. Returns the file, for standard error to go there too.
    pub(crate) fn attach(&self, dir: &Path) -> io::Result<File> {
        let mut file = open(dir)?;
        let copy = file.try_clone()?;
        let mut sink = self.lock();
        if let Sink::Pending(kept) = &*sink {
            file.write_all(kept)?;
        }
        *sink = Sink::File(file);
        Ok(copy)
    }

    fn lock(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line of this place is to be written; says so where lines are left out.
    fn admits(&self, place: &tracing::Metadata<'_>) -> bool {
        // Whoever asks for more than `info` wants all of it.
        if *place.level() > tracing::Level::INFO || place.target() == THROTTLE {
            return true;
        }
        let verdict = {
            let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
            throttle.decide(place.callsite(), Instant::now())
        };
        let (file, line) = (place.file().unwrap_or("?"), place.line().unwrap_or_default());
        match verdict {
            Verdict::Write => true,
            Verdict::LeaveOut => false,
            Verdict::WriteAfter(left_out) => {
                tracing::warn!(target: THROTTLE, "{left_out} lines of {file}:{line} were left out");
                true
            }
            Verdict::LastBeforeSilence => {
                let seconds = WINDOW.as_secs();
                tracing::warn!(
                    target: THROTTLE,
                    "{file}:{line} says too much: after the next line it is left out for up to {seconds} s"
                );
                true
            }
        }
    }
}

/// From here on a panic's last words are a line of the log like others.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!("a bug: {panic}")));
}

/// Counts lines by the place in the code that writes them.
#[derive(Default)]
struct Throttle(HashMap<Identifier, Window>);

struct Window {
    since: Instant,
    lines: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Write,
    /// After so many that were left out.
    WriteAfter(u64),
    LastBeforeSilence,
    LeaveOut,
}

impl Throttle {
    fn decide(&mut self, place: Identifier, now: Instant) -> Verdict {
        let window = self.0.entry(place).or_insert(Window { since: now, lines: 0 });
        let mut left_out = 0;
        if now.saturating_duration_since(window.since) >= WINDOW {
            left_out = window.lines.saturating_sub(LINES);
            *window = Window { since: now, lines: 0 };
        }
        window.lines += 1;
        match window.lines {
            _ if left_out > 0 => Verdict::WriteAfter(left_out),
            LINES => Verdict::LastBeforeSilence,
            lines if lines > LINES => Verdict::LeaveOut,
            _ => Verdict::Write,
        }
    }
}

/// Passes on what fuser says by way of the crate `log`, under the target `fuser`.
struct FuserLog;

impl LogCrate for FuserLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let said = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "fuser", "{said}"),
            Level::Warn => tracing::warn!(target: "fuser", "{said}"),
            // What it finds worth telling everyone is that it mounts.
            Level::Info | Level::Debug => tracing::debug!(target: "fuser", "{said}"),
            Level::Trace => tracing::trace!(target: "fuser", "{said}"),
        }
    }

    fn flush(&self) {}
}

/// Opens `dir/log` to append, after putting a long one aside as `log.1`.
fn open(dir: &Path) -> io::Result<File> {
    let path = dir.join("log");
    if fs::metadata(&path).is_ok_and(|m| m.len() > ROTATE_AT) {
        fs::rename(&path, dir.join("log.1"))?;
    }
    // Not to where a link in its place leads, nor into a pipe.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().create(true).append(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    }
}

/// Where one line goes.
pub(crate) struct Line(Option<Log>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(log) = &self.0 else { return Ok(line.len()) };
        match &mut *log.lock() {
            Sink::Pending(kept) if kept.len() + line.len() > MAX_PENDING => {}
            Sink::Pending(kept) => kept.extend_from_slice(line),
            Sink::File(file) => file.write_all(line)?,
            Sink::StandardError => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Some(self.clone()))
    }

    fn make_writer_for(&self, place: &tracing::Metadata<'_>) -> Line {
        Line(self.admits(place).then(|| self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_file_is_in_it_and_a_long_one_is_put_aside() {
        let dir = std::env::temp_dir().join(format!("cairn-log-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let old = File::create(dir.join("log")).expect("made");
        old.set_len(ROTATE_AT + 1).expect("sparse");
        let log = Log::new(Sink::Pending(Vec::new()));
        log.make_writer().write_all(b"early\n").expect("kept");
        log.attach(&dir).expect("opened");
        log.make_writer().write_all(b"late\n").expect("written");
        assert_eq!(fs::read(dir.join("log")).expect("there"), b"early\nlate\n");
        assert_eq!(fs::metadata(dir.join("log.1")).expect("aside").len(), ROTATE_AT + 1);
        fs::remove_dir_all(dir).expect("removed");
    }

    /// What one place that shouts, and one that does not, leave in a log of that format.
    fn shouted(format: Format) -> String {
        let log = Log::new(Sink::Pending(Vec::new()));
        let lines = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
        let shout = || {
            for n in 0..1000 {
                tracing::error!(n, "the disk \"below\"\nfails");
            }
            tracing::warn!("something else");
        };
        match format {
            Format::Text => tracing::subscriber::with_default(lines.finish(), shout),
            Format::Json => tracing::subscriber::with_default(lines.json().finish(), shout),
        }
        let Sink::Pending(kept) = &*log.lock() else { panic!("not attached") };
        String::from_utf8(kept.clone()).expect("text")
    }

    #[test]
    fn one_place_that_shouts_drowns_nobody() {
        let text = shouted(Format::Text);
        let lines: Vec<_> = text.lines().collect();
        assert!(text.matches("the disk").count() as u64 == LINES, "{} lines", lines.len());
        assert!(lines[lines.len() - 1].contains("something else"), "{lines:?}");
    }

    #[test]
    fn each_line_of_json_is_a_document() {
        let text = shouted(Format::Json);
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(line["fields"]["message"].is_string() && line["level"].is_string(), "{line}");
        }
        // Its own word on what is left out is not here: a subscriber of one thread, as tests have, does not let an event
        // make another.
        assert_eq!(text.lines().count() as u64, LINES + 1);
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let place = tracing::callsite!(name: "place", kind: tracing::metadata::Kind::EVENT, fields: message);
        let place = tracing::Callsite::metadata(place).callsite();
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let verdicts: Vec<_> = (0..LINES + 40).map(|_| throttle.decide(place.clone(), start)).collect();
        let count = |wanted| verdicts.iter().filter(|v| **v == wanted).count() as u64;
        assert_eq!(count(Verdict::Write) + count(Verdict::LastBeforeSilence), LINES);
        assert_eq!(count(Verdict::LeaveOut), 40);
        assert_eq!(throttle.decide(place.clone(), start + WINDOW), Verdict::WriteAfter(40));
        assert_eq!(throttle.decide(place, start + WINDOW), Verdict::Write);
    }
}
