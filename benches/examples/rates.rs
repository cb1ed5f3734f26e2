//! How long one `stat` and one `open` with its `close` take where everything is in the kernel's memory.
//!
//! Usage: `rates DIR ROUNDS`. Makes 1,000 small files in DIR, which has to be empty, goes through them once, and then
//! ROUNDS times. Prints one JSON document, in microseconds an operation.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const FILES: u32 = 1000;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let parsed = match arguments.as_slice() {
        [dir, rounds] => rounds.to_str().and_then(|r| r.parse().ok()).filter(|r| *r > 0).map(|r| (dir, r)),
        _ => None,
    };
    let Some((dir, rounds)) = parsed else {
        eprintln!("Usage: rates DIR ROUNDS");
        return ExitCode::from(2);
    };
    match measure(Path::new(dir), rounds) {
        Ok((stat, open)) => {
            println!(
                "{{\"message_type\":\"rates\",\"schema_version\":1,\"stat_us\":{stat:.4},\"open_us\":{open:.4}}}"
            );
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("rates: {}: {e}", Path::new(dir).display());
            ExitCode::FAILURE
        }
    }
}

fn measure(dir: &Path, rounds: u32) -> io::Result<(f64, f64)> {
    let paths: Vec<PathBuf> = (0..FILES).map(|i| dir.join(format!("file-{i}"))).collect();
    for path in &paths {
        fs::write(path, b"a few bytes")?;
    }
    let stat = each(&paths, rounds, |path| path.symlink_metadata().map(drop))?;
    let open = each(&paths, rounds, |path| File::open(path).map(drop))?;
    Ok((stat, open))
}

/// Microseconds that `operation` takes on each of the paths, after a round that is not counted.
fn each(paths: &[PathBuf], rounds: u32, operation: impl Fn(&Path) -> io::Result<()>) -> io::Result<f64> {
    let round = || paths.iter().try_for_each(|path| operation(path));
    round()?;
    let began = Instant::now();
    for _ in 0..rounds {
        round()?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / (f64::from(FILES) * f64::from(rounds)))
}
