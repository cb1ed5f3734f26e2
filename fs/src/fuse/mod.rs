//! The adapter between the kernel and a volume: the only module that names `fuser`.
//!
//! Each request is turned into one call of the volume and its result into one reply ([`adapter`]). There is no state here
//! but the volume: the kernel's node ids are its inode numbers, and look-ups are not counted. What may wait runs in
//! [`crate::lanes`].
//!
//! Opens are not told, where the kernel can do without (since 5.1): a file that has lost its last name stays until the
//! kernel has forgotten it ([`forgets`]). Elsewhere each open file is a count in the volume.
//!
//! Only this daemon changes the volume, so the kernel may keep what it was told: names, attributes and the absence of
//! names for an hour, pages and listings until they are changed through it. What folding changes, the room that a file
//! takes, it is told to ask for again.

mod adapter;
mod attributes;
mod connection;
mod convert;
mod forgets;
mod kernel;
mod listing;
mod virtual_files;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cairn_volume::Volume;
use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use crate::lanes::{self, Lanes};
use crate::options::MountOptions;
use adapter::Adapter;
use kernel::KernelCache;
use virtual_files::VirtualFiles;

pub(crate) use connection::{Connection, Offer, Seat};

/// How long requests that are being worked on may take before the process makes way all the same.
const LAST_CALLS: Duration = Duration::from_secs(20);

/// A mounted volume whose requests are being answered.
pub(crate) struct Mounted {
    /// Never dropped: fuser 0.18 would then unmount whatever is at the mountpoint by that time (its `is_mounted` takes
    /// "gone" for "there"), after a lazy unmount some other filesystem. The daemon unmounts by itself, and what is left
    /// here, a descriptor of a connection that has ended, goes with the process.
    _session: ManuallyDrop<BackgroundSession>,
    /// Disconnected when the adapter is dropped.
    alive: Receiver<()>,
}

impl Mounted {
    /// Returns when the kernel will send nothing more and every request has been answered.
    pub(crate) fn wait(self) {
        // Nothing is ever sent.
        let _ = self.alive.recv();
    }
}

/// Mounts at `mountpoint`. `source` is what mountinfo shows: the volume's directory.
///
/// When this returns, the kernel and the adapter have agreed on everything; but nobody answers yet.
pub(crate) fn mount(mountpoint: &Path, source: &str, options: &MountOptions) -> io::Result<Connection> {
    Connection::new(mountpoint, &config(lanes::readers(), source, options))
}

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the mount.
    Anew,
    /// In the place of a process that may have left requests unanswered.
    TakingOver,
}

/// Starts answering what `connection` asks.
pub(crate) fn answer(
    volume: Arc<Volume>,
    connection: &Connection,
    seat: Seat,
    (mountpoint, source): (&Path, &str),
    options: &MountOptions,
    begin: Begin,
) -> io::Result<Mounted> {
    let readers = lanes::readers();
    let cache = Arc::new(KernelCache::default());
    let (answering, alive) = channel();
    let files = VirtualFiles::new(volume.clone(), source, &mountpoint.to_string_lossy(), options);
    let adapter = Adapter::new(
        volume.clone(),
        files,
        cache.clone(),
        Lanes::new(readers)?,
        options.count_opens,
        answering,
    )?;
    if begin == Begin::TakingOver {
        // Opens that were told were told to another process.
        volume.expect_forgets();
    }
    let forgets = adapter.forgets();
    let gate = adapter.gate();
    let before = || {
        cache.connect(connection.device.as_fd())?;
        if begin == Begin::TakingOver {
            // What was forgotten meanwhile, or read and not dealt with, nobody tells again.
            volume.all_nameless().into_iter().for_each(|ino| forgets.add(ino));
            virtual_files::all().for_each(|ino| forgets.drop_pages(ino, Duration::ZERO));
            // Readers find these first then, and need not be woken for them.
            cache.resend()?;
        }
        Ok(())
    };
    let config = (config(readers, source, options), readers);
    let session = connection.begin(adapter, seat, config, &gate, before)?;
    Ok(Mounted { _session: ManuallyDrop::new(session), alive })
}

/// Answers nothing more: what the kernel asks from here on, or was not told yet, the next process answers. Returns when the
/// volume is left alone.
pub(crate) fn make_way() -> io::Result<()> {
    connection::leave_seat()?;
    convert::end_calls(LAST_CALLS)
}

/// `fuser` makes a mount nosuid and nodev unless told otherwise.
fn config(readers: usize, source: &str, options: &MountOptions) -> Config {
    let chosen = [
        (options.read_only, MountOption::RO),
        (options.suid, MountOption::Suid),
        (options.dev, MountOption::Dev),
        (options.noexec, MountOption::NoExec),
        (options.noatime, MountOption::NoAtime),
    ];
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.to_string()),
        // Not `Subtype`, which `fuser` does not hand to the kernel when it mounts by itself.
        MountOption::CUSTOM("subtype=cairn".to_string()),
        MountOption::DefaultPermissions,
    ];
    config.mount_options.extend(chosen.into_iter().filter(|(on, _)| *on).map(|(_, option)| option));
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(readers);
    config
}
