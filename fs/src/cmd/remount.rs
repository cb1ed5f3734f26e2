//! `-o remount`: what the kernel does with a mount is changed; the daemon goes on as it is, but for `heal=`.

use std::path::Path;

use cairn_volume::parity_name;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::Value;

use crate::args::MountArgs;
use crate::control::Client;
use crate::failure::Failure;
use crate::hidden;
use crate::mountinfo::{self, Mount};
use crate::options::MountOptions;
use crate::places::cannot_reach;

/// Changes a mount's flags, and what is done about damage; only checks whether it could, with `fake`. What else cairn itself
/// was told when the volume was mounted cannot be changed.
pub(crate) fn run(args: &MountArgs, options: &MountOptions, fake: bool) -> Result<(), Failure> {
    let at = args.mountpoint.canonicalize().map_err(|e| Failure::new(cannot_reach(&args.mountpoint, &e)))?;
    let mounts = mountinfo::read().map_err(|e| Failure::new(format!("/proc/self/mountinfo: {e}")))?;
    let Some(found) = mountinfo::at(&mounts, &at).filter(|m| m.is_cairn()) else {
        return Err(Failure::new(format!(
            "{0} is not a mounted cairn volume: leave out remount",
            at.display()
        )));
    };
    same_volume(&args.dir, found)?;
    let config: Value = hidden::read(&at, hidden::CONFIG, None)?;
    nothing_of_cairns(&at, options, &config)?;
    takes_writes(&at, options, &config)?;
    let flags = flags(&at, options, &args.options)?;
    if fake {
        return Ok(());
    }
    if let Some(mode) = options.heal {
        let daemon = Client::connect(&found.source)?;
        daemon
            .ok_or_else(|| Failure::new(format!("the daemon of {} has died: mount it again", at.display())))?
            .heal(mode)?;
    }
    mount(None::<&str>, &at, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>)
        .map_err(|error| refused(&at, options, error))
}

/// mount(8) hands on the source as the mount table has it.
fn same_volume(dir: &Path, found: &Mount) -> Result<(), Failure> {
    if dir == found.source || dir.canonicalize().is_ok_and(|dir| dir == found.source) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} holds the volume {}, not {}: name that one",
        found.mountpoint.display(),
        found.source.display(),
        dir.display()
    )))
}

/// mount(8) repeats what fstab says, so options may be given as long as they say what is so already.
fn nothing_of_cairns(at: &Path, options: &MountOptions, config: &Value) -> Result<(), Failure> {
    let now = &config["options"];
    let compress = options.compression.map(crate::report::compression_name);
    let changes = [
        ("allow_other", options.allow_other && now["allow_other"] != true),
        ("cache_size", options.cache_size.is_some_and(|bytes| now["cache_size"] != bytes)),
        ("index_mem", options.index_mem.is_some_and(|bytes| now["index_mem"] != bytes)),
        ("compress", compress.is_some_and(|how| now["compress"] != how.as_str())),
        ("parity", options.parity.is_some_and(|parity| now["parity"] != parity_name(parity))),
        ("log_format", options.log_format.is_some_and(|format| now["log_format"] != format.name())),
        ("metrics", options.metrics.is_some_and(|address| now["metrics"] != address.to_string())),
        ("meta_engine", options.meta_engine.is_some_and(|kind| now["meta_engine"] != kind.to_string())),
        ("dedup", options.dedup.is_some_and(|how| now["dedup"] != crate::report::dedup_name(how))),
    ];
    match changes.into_iter().find(|(_, changed)| *changed) {
        Some((name, _)) => Err(Failure::usage(format!(
            "mount option '{name}' cannot be changed by a remount: unmount {0} with `cairn umount {0}` and mount it again",
            at.display()
        ))),
        None => Ok(()),
    }
}

fn takes_writes(at: &Path, options: &MountOptions, config: &Value) -> Result<(), Failure> {
    if options.read_only || config["takes_writes"] == true {
        return Ok(());
    }
    let at = at.display();
    Err(Failure::new(match config["options"]["ro"] == true {
        true => format!(
            "{at} was mounted read-only, and so its volume was opened: to write, unmount it with `cairn umount {at}` and mount it again"
        ),
        false => format!(
            "{at}: its volume takes no more writes since an error; {}/log says why. Unmount it with `cairn umount {at}` and mount it again",
            config["dir"].as_str().unwrap_or_default()
        ),
    }))
}

/// All flags of the mount, old and new: a remount replaces them.
///
/// mount(8) never hands on `suid` and `dev`, only their opposites. Where it repeats what the kernel has (`user_id=`), what
/// is missing was taken away; from fstab, it was not spoken of and stays.
fn flags(at: &Path, options: &MountOptions, lists: &[String]) -> Result<MsFlags, Failure> {
    let now = statvfs(at).map_err(|e| Failure::new(format!("{}: {}", at.display(), e.desc())))?.flags();
    let words = || lists.iter().flat_map(|list| list.split(','));
    let repeats = words().any(|word| word.starts_with("user_id="));
    let is_off = |on: &str, off: &str, now: bool| {
        let named = words().rfind(|word| *word == on || *word == off);
        named.map_or(now && !repeats, |word| word == off)
    };
    let chosen = [
        (options.read_only, MsFlags::MS_RDONLY),
        (options.noexec, MsFlags::MS_NOEXEC),
        (is_off("suid", "nosuid", now.contains(FsFlags::ST_NOSUID)), MsFlags::MS_NOSUID),
        (is_off("dev", "nodev", now.contains(FsFlags::ST_NODEV)), MsFlags::MS_NODEV),
        (options.noatime, MsFlags::MS_NOATIME),
        (!options.noatime, MsFlags::MS_RELATIME),
    ];
    Ok(chosen.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect())
}

fn refused(at: &Path, options: &MountOptions, error: Errno) -> Failure {
    let at = at.display();
    Failure::new(match error {
        Errno::EBUSY if options.read_only => {
            format!(
                "{at} has files that are open for writing: close them, then try again (`fuser -vm {at}` names who)"
            )
        }
        Errno::EPERM => format!("{at}: only root may remount it"),
        error => format!("{at} could not be remounted: {}", error.desc()),
    })
}
