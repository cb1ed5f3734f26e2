//! `cairn upgrade`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::UpgradeArgs;
use crate::control::{Client, Info};
use crate::detach;
use crate::failure::Failure;
use crate::output::{print, print_json};
use crate::places;

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// How long the next daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(180);

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: &'a Path,
    mountpoint: &'a Path,
    program: &'a Path,
    supervisor: Option<u32>,
    from_pid: u32,
    from_version: &'a str,
    to_pid: u32,
    to_version: &'a str,
    /// From the request to the next daemon's first answer to a command, checkpoint and all. Programs waited for less.
    milliseconds: u128,
}

/// Has another program go on with a mount; returns when it answers.
pub(crate) fn run(args: &UpgradeArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let program = program(args.binary.as_deref())?;
    let Some(mut daemon) = Client::connect(&place.dir)? else {
        return Err(places::not_mounted(&place.dir, "the next mount is by whatever program mounts it"));
    };
    let before: Info = daemon.ask("info", "info")?;
    let since = Instant::now();
    daemon.upgrade(&program)?;
    let after = successor(&place.dir, &before)?;
    if after.upgrades <= before.upgrades {
        return Err(Failure::new(format!(
            "{} could not go on with {}, and the program before it does: see {}/log",
            program.display(),
            before.mountpoint.display(),
            place.dir.display()
        )));
    }
    let document = Document {
        message_type: "upgrade",
        schema_version: SCHEMA,
        dir: &place.dir,
        mountpoint: &after.mountpoint,
        program: &program,
        supervisor: after.supervisor,
        from_pid: before.pid,
        from_version: &before.version,
        to_pid: after.pid,
        to_version: &after.version,
        milliseconds: since.elapsed().as_millis(),
    };
    match args.json {
        true => print_json(&document),
        false => print(&format!(
            "{}: process {} (cairn {}) goes on for {} (cairn {})\n",
            document.mountpoint.display(),
            after.pid,
            after.version,
            before.pid,
            before.version
        )),
    }
}

/// The program that is to go on, absolute.
fn program(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let program = given.map_or_else(detach::this_program, Path::to_path_buf);
    fs::canonicalize(&program).map_err(|e| Failure::new(format!("{}: {e}", program.display())))
}

/// What the next daemon tells of itself, once there is one.
fn successor(dir: &Path, before: &Info) -> Result<Info, Failure> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        // Between the two nobody answers.
        let found = Client::connect(dir).ok().flatten().and_then(|mut d| d.ask::<Info>("info", "info").ok());
        match found {
            Some(after) if after.pid != before.pid => return Ok(after),
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(Failure::new(format!(
        "nobody has answered for {} for {} s: see {}/log",
        before.mountpoint.display(),
        PATIENCE.as_secs(),
        dir.display()
    )))
}
