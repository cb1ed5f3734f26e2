//! Where the daemon's log goes: `DIR/log`, or standard error in the foreground. `CAIRN_LOG` filters it (`debug`,
//! `cairn_volume=trace`…; `info` when not set).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_log::AsLog;
use tracing_log::log::{Level, Log as LogCrate, Metadata, Record};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log longer than this is put aside when the daemon starts.
const ROTATE_AT: u64 = 16 << 20;
/// The most that is kept while the log's place is not known yet.
const MAX_PENDING: usize = 1 << 20;

/// The daemon's log. What is logged before the volume is open (and so before it is certain that the directory is one, and
/// ours) is kept, then written to its file.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Sink>>);

enum Sink {
    Pending(Vec<u8>),
    File(File),
    StandardError,
}

impl Log {
    /// To standard error, for good.
    pub(crate) fn to_standard_error() -> Log {
        Log::start(Sink::StandardError)
    }

    /// Kept until [`Log::attach`].
    pub(crate) fn pending() -> Log {
        Log::start(Sink::Pending(Vec::new()))
    }

    fn start(sink: Sink) -> Log {
        let log = Log(Arc::new(Mutex::new(sink)));
        let filter = EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        // fuser logs each request at `debug`: what nobody reads is not even looked at.
        let level = filter.max_level_hint().unwrap_or(tracing::level_filters::LevelFilter::TRACE);
        tracing_log::log::set_max_level(level.as_log());
        // Both fail only if a log was started before, which then goes on.
        let _ = tracing_log::log::set_logger(&FuserLog);
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).with_ansi(false);
        let _ = tracing::subscriber::set_global_default(subscriber.finish());
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.lock() {
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
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
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
        let mut log = Log(Arc::new(Mutex::new(Sink::Pending(Vec::new()))));
        log.write_all(b"early\n").expect("kept");
        log.attach(&dir).expect("opened");
        log.write_all(b"late\n").expect("written");
        assert_eq!(fs::read(dir.join("log")).expect("there"), b"early\nlate\n");
        assert_eq!(fs::metadata(dir.join("log.1")).expect("aside").len(), ROTATE_AT + 1);
        fs::remove_dir_all(dir).expect("removed");
    }
}
