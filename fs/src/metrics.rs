//! Figures for Prometheus: `-o metrics=ADDRESS` serves them over HTTP at `/metrics`, on a loopback address only.
//!
//! One answer a connection, few connections, short requests, little patience: whatever comes in, the mount does not
//! notice. (docs/adr/0008-metrics.md says why this is not a web framework.)

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_volume::{Statistics, Usage, Volume};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tracing::{debug, info, warn};

use crate::failure::Failure;

/// The longest request.
const MAX_REQUEST: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// Connections at a time; one more is closed at once.
const MAX_CONNECTIONS: usize = 4;
/// How long a request may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for a port that the daemon before this one is about to give up.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
/// What a client that is refused may still send before it is cut off.
const MAX_IGNORED: usize = 256 << 10;
/// The status for a request that did not come.
const TIMEOUT: u16 = 408;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves `volume`'s figures at `address` until the process ends. Returns the address with the port that was taken.
pub(crate) fn serve(address: SocketAddr, volume: Arc<Volume>) -> Result<SocketAddr, Failure> {
    let failed = |e: io::Error| {
        Failure::new(format!("metrics={address} cannot be served: {e}; name another port, or 0 for any"))
    };
    let listener = bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let label = Some(volume.label()).filter(|label| !label.is_empty());
    let name = label.unwrap_or_else(|| volume.uuid().to_string());
    let render = move || render(&name, &volume.statistics(), &volume.usage(), volume.is_read_only());
    let accept = move || accept(&listener, &Arc::new(render));
    thread::Builder::new().name("metrics".into()).spawn(accept).map_err(failed)?;
    info!("figures for Prometheus: http://{bound}/metrics");
    Ok(bound)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let since = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && since.elapsed() < PORT_PATIENCE => {
                thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Answers until the process ends.
fn accept<R: Fn() -> String + Send + Sync + 'static>(listener: &TcpListener, render: &Arc<R>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let place = Place::take(&open);
        let served = match (stream, place) {
            (Ok(stream), Some(place)) => {
                let render = render.clone();
                let answer = move || {
                    let _place = place;
                    if let Err(e) = answer(&stream, &*render) {
                        debug!("metrics: {e}");
                    }
                };
                thread::Builder::new().name("metrics-client".into()).spawn(answer).map(drop)
            }
            (Ok(_), None) => Ok(()),
            (Err(e), _) => Err(e),
        };
        if let Err(e) = served {
            warn!("metrics: {e}");
            // Out of descriptors or threads, most likely: do not spin.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// One of the few connections there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Place> {
        let place = Place(open.clone());
        (open.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Figures,
    /// As [`Request::Figures`], without them.
    Head,
    Refused(u16, &'static str),
}

fn answer(mut stream: &TcpStream, render: &dyn Fn() -> String) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_request(stream)?;
    let may_go_on = !matches!(request, Some(Request::Refused(TIMEOUT, _)));
    let (status, kind, body) = match request {
        Some(Request::Figures) => ("200 OK".to_string(), OPEN_METRICS, render()),
        Some(Request::Head) => ("200 OK".to_string(), OPEN_METRICS, String::new()),
        Some(Request::Refused(code, why)) => (format!("{code} {why}"), PLAIN, format!("{why}\n")),
        None => return Ok(()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    if may_go_on { ignore_the_rest(stream) } else { Ok(()) }
}

/// Whoever is still sending when a connection is closed never sees the answer.
fn ignore_the_rest(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    let mut ignored = 0;
    while ignored < MAX_IGNORED && Instant::now() < until {
        match stream.read(&mut buffer)? {
            0 => break,
            length => ignored += length,
        }
    }
    Ok(())
}

/// Reads until a request is whole, or cannot become one. `None` if nothing came.
fn read_request(mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; MAX_REQUEST];
    let mut length = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(Request::Refused(TIMEOUT, "Request Timeout")));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer[length..]) {
            Ok(0) if length == 0 => return Ok(None),
            Ok(0) => return Ok(Some(Request::Refused(400, "Bad Request"))),
            Ok(more) => length += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        }
        if let Some(request) = parse(&buffer[..length]) {
            return Ok(Some(request));
        }
        if length == MAX_REQUEST {
            return Ok(Some(Request::Refused(431, "Request Header Fields Too Large")));
        }
    }
}

/// `None` while the request is not whole.
fn parse(bytes: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Some(Request::Refused(431, "Request Header Fields Too Large"));
        }
        Err(_) => return Some(Request::Refused(400, "Bad Request")),
    }
    let path = request.path.unwrap_or_default();
    Some(match (request.method.unwrap_or_default(), path.split('?').next()) {
        ("GET", Some("/metrics")) => Request::Figures,
        ("HEAD", Some("/metrics")) => Request::Head,
        ("GET" | "HEAD", _) => Request::Refused(404, "Not Found: the figures are at /metrics"),
        _ => Request::Refused(405, "Method Not Allowed"),
    })
}

/// One figure: its name, what it says, what it is.
type Figure = (&'static str, &'static str, Kind);

enum Kind {
    /// Only ever grows; `_total` is put behind its name.
    Counter(u64),
    Gauge(u64),
    Seconds(Duration),
}

/// All figures as OpenMetrics text.
fn render(volume: &str, statistics: &Statistics, usage: &Usage, read_only: bool) -> String {
    let labels = [("volume".into(), volume.to_string().into())];
    let mut registry = Registry::with_labels(labels.into_iter());
    for (name, help, kind) in figures(statistics).into_iter().chain(usage_figures(usage)) {
        match kind {
            Kind::Counter(value) => registry.register(name, help, ConstCounter::new(value)),
            // Figures that 63 bits do not hold are none that a disk does.
            Kind::Gauge(value) => {
                registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
            }
            Kind::Seconds(value) => registry.register(name, help, ConstGauge::new(value.as_secs_f64())),
        }
    }
    let stopped = "1 if it takes no writes: mounted so, or stopped after an error";
    registry.register("cairn_read_only", stopped, ConstGauge::new(i64::from(read_only)));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a string does not fail.
        Err(_) => String::new(),
    }
}

fn figures(statistics: &Statistics) -> Vec<Figure> {
    use Kind::{Counter, Gauge, Seconds};
    // Taken apart without `..`: a new count does not compile until it has a name here.
    let Statistics {
        reads,
        read_bytes,
        writes,
        written_bytes,
        copied_bytes,
        fsyncs,
        records,
        io_errors,
        new_bytes,
        deduped_bytes,
        stored_bytes,
        packs_written,
        checkpoints,
        fold_errors,
        engine_rebuilds,
        gc_runs,
        compacted_bytes,
        packs_dropped,
        dropped_bytes,
        backlog,
        backlog_age,
        overlay,
        overlay_limit,
        journal_used,
        journal_limit,
        cache_hits,
        cache_misses,
        chunk_bytes_read,
        chunk_bytes_decoded,
        index_chunks,
        index_mem,
        packs,
        heals_answered,
        heals_rewritten,
        heals_relocated,
        heals_lost,
        packs_waiting,
        twins,
        twin_bytes,
        twins_waiting,
    } = *statistics;
    vec![
        ("cairn_reads", "Reads", Counter(reads)),
        ("cairn_read_bytes", "Bytes that reads gave", Counter(read_bytes)),
        ("cairn_writes", "Writes", Counter(writes)),
        ("cairn_written_bytes", "Bytes that writes brought", Counter(written_bytes)),
        (
            "cairn_copied_bytes",
            "Bytes that came by copy_file_range, without being written",
            Counter(copied_bytes),
        ),
        ("cairn_fsyncs", "fsyncs of files and directories", Counter(fsyncs)),
        ("cairn_records", "Records appended to the journal", Counter(records)),
        ("cairn_io_errors", "Operations that ended in an I/O error", Counter(io_errors)),
        ("cairn_new_bytes", "Folded bytes that were not in the store yet", Counter(new_bytes)),
        ("cairn_deduped_bytes", "Folded bytes that were in the store already", Counter(deduped_bytes)),
        ("cairn_packed_bytes", "Bytes of the data packs that folds wrote, compressed", Counter(stored_bytes)),
        ("cairn_packs_written", "Data packs that folds wrote", Counter(packs_written)),
        ("cairn_checkpoints", "Checkpoints written", Counter(checkpoints)),
        ("cairn_fold_errors", "Folds and checkpoints that failed and are tried again", Counter(fold_errors)),
        ("cairn_engine_rebuilds", "Times the engine failed and was rebuilt", Counter(engine_rebuilds)),
        ("cairn_gc_runs", "Times that garbage was collected", Counter(gc_runs)),
        (
            "cairn_compacted_bytes",
            "Bytes of the data packs that were written for it",
            Counter(compacted_bytes),
        ),
        ("cairn_packs_dropped", "Data packs that were dropped", Counter(packs_dropped)),
        ("cairn_dropped_bytes", "Bytes of the data packs that were dropped", Counter(dropped_bytes)),
        (
            "cairn_cache_hits",
            "Look-ups in the cache of decoded frames that found theirs",
            Counter(cache_hits),
        ),
        ("cairn_cache_misses", "Look-ups that had to read and decode a frame", Counter(cache_misses)),
        (
            "cairn_chunk_read_bytes",
            "Bytes that were read of packs for who wanted bytes of chunks",
            Counter(chunk_bytes_read),
        ),
        ("cairn_chunk_decoded_bytes", "Bytes that were decoded of these", Counter(chunk_bytes_decoded)),
        ("cairn_backlog_bytes", "Bytes that wait to be folded", Gauge(backlog)),
        ("cairn_backlog_age_seconds", "How long the oldest of them have waited", Seconds(backlog_age)),
        ("cairn_overlay_bytes", "Memory that the overlay takes", Gauge(overlay)),
        ("cairn_overlay_limit_bytes", "The most memory that it may take", Gauge(overlay_limit)),
        ("cairn_journal_used_bytes", "Bytes of the journal in use", Gauge(journal_used)),
        ("cairn_journal_limit_bytes", "The most bytes that the journal may take", Gauge(journal_limit)),
        ("cairn_index_chunks", "Chunks that the index knows", Gauge(index_chunks)),
        ("cairn_index_bytes", "Memory that it takes", Gauge(index_mem)),
        ("cairn_packs", "Packs in the store", Gauge(packs)),
        (
            "cairn_heals_answered",
            "Reads of the store that were answered from parity",
            Counter(heals_answered),
        ),
        ("cairn_heals_rewritten", "Runs of damaged bytes that were written back", Counter(heals_rewritten)),
        (
            "cairn_heals_relocated",
            "Packs that were written to another place, since the disk did not take what belongs there",
            Counter(heals_relocated),
        ),
        ("cairn_heals_lost", "Reads of the store that parity could not answer", Counter(heals_lost)),
        ("cairn_packs_waiting_to_be_mended", "Packs that wait to be mended", Gauge(packs_waiting)),
        ("cairn_twins", "Second copies of packs", Gauge(twins)),
        ("cairn_twin_bytes", "What they take", Gauge(twin_bytes)),
        ("cairn_twins_waiting", "Packs that are to have a second copy and lack it", Gauge(twins_waiting)),
    ]
}

fn usage_figures(usage: &Usage) -> Vec<Figure> {
    use Kind::Gauge;
    // What of the journal is not folded yet is the backlog, above.
    // Second copies are told with what was done.
    let Usage {
        files,
        logical,
        unique,
        stored,
        reclaimable,
        metadata,
        parity,
        journal,
        journal_used: _,
        twins: _,
    } = *usage;
    vec![
        ("cairn_files", "Inodes, directories and all", Gauge(files)),
        ("cairn_logical_bytes", "Content of all files, holes left out", Gauge(logical)),
        ("cairn_unique_bytes", "What is left of it when every chunk is counted once", Gauge(unique)),
        ("cairn_stored_bytes", "What that takes in data packs, compressed", Gauge(stored)),
        ("cairn_reclaimable_bytes", "What of that nothing refers to any more, at least", Gauge(reclaimable)),
        ("cairn_metadata_bytes", "Metadata packs, engine and index", Gauge(metadata)),
        ("cairn_parity_bytes", "What of all packs is there to mend the rest", Gauge(parity)),
        ("cairn_journal_bytes", "The journal's segments on the disk", Gauge(journal)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let status = |text: &str| match parse(text.as_bytes()) {
            Some(Request::Refused(code, _)) => code,
            Some(_) => 200,
            None => 0,
        };
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Request::Figures));
        assert_eq!(parse(b"GET /metrics?a=b HTTP/1.0\r\n\r\n"), Some(Request::Figures));
        assert_eq!(parse(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Some(Request::Head));
        assert_eq!(status("GET /other HTTP/1.1\r\n\r\n"), 404);
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost:"), 0);
        assert_eq!(status("\u{1}\u{2}\u{3}\r\n\r\n"), 400);
        assert_eq!(status("{\"v\":1}\n"), 400);
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(status(&many), 431);
    }

    #[test]
    fn each_figure_has_help_type_and_a_line_of_its_own() {
        let statistics =
            Statistics { reads: 7, backlog_age: Duration::from_millis(1500), ..Statistics::default() };
        let usage = Usage { stored: u64::MAX, ..Usage::default() };
        let text = render("a \"name\"\\", &statistics, &usage, true);
        assert!(text.contains("# TYPE cairn_reads counter\n"), "{text}");
        assert!(text.contains("cairn_reads_total{volume=\"a \\\"name\\\"\\\\\"} 7\n"), "{text}");
        assert!(text.contains("} 1.5\n") && text.ends_with("# EOF\n"), "{text}");
        let count = figures(&statistics).len() + usage_figures(&usage).len() + 1;
        for start in ["# HELP cairn_", "# TYPE cairn_", "cairn_"] {
            assert_eq!(text.lines().filter(|line| line.starts_with(start)).count(), count, "{start}");
        }
        let mut names: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        names.dedup_by_key(|line| line.split(' ').next().map(str::to_owned));
        assert_eq!(names.len(), count, "no name is used twice");
    }
}
