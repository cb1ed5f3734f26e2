//! Figures for Prometheus: what a scrape gets, and what anybody else who finds the port.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SMALL, run, wait_until};
use serde_json::Value;

/// A mount that serves figures at a free port, and where.
fn mounted() -> (Mounted, String) {
    let mkfs = [&SMALL[..], &["-L", "films \"x\""]].concat();
    let m = Mounted::with(&mkfs, &["metrics=127.0.0.1:0"]);
    let info = run("cairn", ["info", "--json", m.at().to_str().expect("UTF-8")]).ok();
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let address = info["mount"]["metrics"].as_str().expect("served").to_owned();
    (m, address)
}

/// Sends bytes and reads the answer to its end.
fn send(address: &str, bytes: &[u8]) -> String {
    try_send(address, bytes).expect("an answer")
}

fn try_send(address: &str, bytes: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(bytes)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The figures by name, each line checked.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let answer = send(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("openmetrics-text"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let (mut figures, mut types, mut helped) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut lines = body.lines();
    assert_eq!(lines.next_back(), Some("# EOF"));
    for line in lines {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.starts_with("cairn_") && help.split(' ').count() > 1, "{line}");
            helped += 1;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert!(kind == "counter" || kind == "gauge", "{line}");
            types.insert(name.to_owned(), kind == "counter");
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let name = name.strip_suffix(r#"{volume="films \"x\""}"#).unwrap_or_else(|| panic!("{line}"));
            let family = name.strip_suffix("_total");
            assert_eq!(types.get(family.unwrap_or(name)), Some(&family.is_some()), "{line}");
            assert!(figures.insert(name.to_owned(), value.parse().expect(line)).is_none(), "{line} again");
        }
    }
    assert!(helped == types.len() && types.len() == figures.len(), "{body}");
    figures
}

#[test]
fn a_scrape_sees_the_counters_move() {
    let (m, address) = mounted();
    let before = scrape(&address);
    fs::write(m.path("f"), noise(1, 4 << 20)).expect("written");
    fs::write(m.path("g"), noise(1, 4 << 20)).expect("written");
    m.sync();
    let after = scrape(&address);
    assert_eq!(after["cairn_written_bytes_total"] - before["cairn_written_bytes_total"], f64::from(8 << 20));
    assert!(after["cairn_deduped_bytes_total"] > 0.0 && after["cairn_packs_written_total"] > 0.0);
    assert_eq!((after["cairn_files"], after["cairn_logical_bytes"]), (3.0, f64::from(8 << 20)));
    assert_eq!((after["cairn_read_only"], after["cairn_io_errors_total"]), (0.0, 0.0));
    assert!(before.iter().all(|(name, value)| !name.ends_with("_total") || after[name] >= *value));
    assert!(fs::read_to_string(m.dir().join("log")).expect("there").contains(&address));
    m.finish();
}

#[test]
fn whoever_sends_garbage_is_refused_and_does_no_harm() {
    let (m, address) = mounted();
    let status = |bytes: &[u8]| send(&address, bytes).lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found: the figures are at /metrics");
    assert_eq!(status(b"DELETE /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(status(b"{\"v\":1,\"cmd\":\"stop\"}\n"), "HTTP/1.1 400 Bad Request");
    let long = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &vec![b'a'; 64 << 10]].concat();
    assert_eq!(status(&long), "HTTP/1.1 431 Request Header Fields Too Large");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert_eq!(status(many.as_bytes()), "HTTP/1.1 431 Request Header Fields Too Large");
    for seed in 0..50 {
        // Whatever it is answered, it is answered.
        let mut stream = TcpStream::connect(&address).expect("it listens");
        let _ = stream.write_all(&noise(seed, 3000));
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let half = TcpStream::connect(&address).and_then(|mut s| s.write_all(b"GET /met").map(|()| s));
    half.expect("it listens").shutdown(Shutdown::Both).expect("open");
    scrape(&address);
    m.finish();
}

#[test]
fn whoever_is_silent_is_sent_away_and_the_rest_are_served() {
    let (m, address) = mounted();
    let mut silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&address).expect("it listens")).collect();
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let mut answer = Vec::new();
        // Closed at once, or told that it took too long: never kept.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    // The silent ones are still there.
    wait_until("there is room again", || {
        try_send(&address, b"HEAD /metrics HTTP/1.1\r\n\r\n")
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    scrape(&address);
    m.finish();
}

#[test]
fn a_port_that_is_taken_is_told_and_leaves_the_volume_in_order() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let option = format!("metrics={}", taken.local_addr().expect("bound"));
    m.try_mount(&[&option]).refused(1, &[&option, "in use"]);
    m.wait_for_end();
    m.try_mount(&["metrics=0.0.0.0:0"]).refused(2, &["127.0.0.1"]);
    drop(taken);
    m.try_mount(&[&option]).ok();
    // The next mount gets the port from a daemon that still folds.
    fs::write(m.path("f"), noise(1, 8 << 20)).expect("written");
    m.unmount_plainly();
    m.try_mount(&[&option]).ok();
    m.finish();
}
