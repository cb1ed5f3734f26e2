//! What a daemon tells of itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_volume::{ReadOnly, Volume};
use serde::{Deserialize, Serialize};

/// A mount, as its daemon knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Info {
    /// The daemon's process.
    pub(crate) pid: u32,
    /// The build of cairn that it is.
    pub(crate) version: String,
    /// The volume's directory.
    pub(crate) dir: PathBuf,
    /// Where it is mounted.
    pub(crate) mountpoint: PathBuf,
    /// The volume's identity.
    pub(crate) uuid: String,
    /// Its name, may be empty.
    pub(crate) label: String,
    /// Mount options, as they were given.
    pub(crate) options: Vec<String>,
    /// Since when, in seconds since 1970.
    pub(crate) since: u64,
    /// Whether it takes no writes.
    pub(crate) read_only: bool,
    /// Why it does not.
    pub(crate) read_only_because: Option<String>,
    /// What is done about damage: `on`, `ro` or `off`.
    #[serde(default)]
    pub(crate) heal: String,
    /// What serves look-ups.
    pub(crate) engine: String,
    /// Where figures are served to Prometheus.
    pub(crate) metrics: Option<SocketAddr>,
    /// The process that keeps the mount should the daemon die; `null` where there is none.
    pub(crate) supervisor: Option<u32>,
    /// How many daemons died on this mount.
    #[serde(default)]
    pub(crate) restarts: u64,
    /// How many made way for another build.
    #[serde(default)]
    pub(crate) upgrades: u64,
}

impl Info {
    /// The same, with what may have changed since the mount.
    pub(crate) fn now(mut self, volume: &Volume) -> Info {
        self.read_only_because = volume.read_only().map(|why| match why {
            ReadOnly::Asked => "the mount option ro".to_string(),
            ReadOnly::Stopped(why) => format!("stopped after an error: {why}"),
        });
        self.read_only = self.read_only_because.is_some();
        self.heal = crate::report::heal_name(volume.heal_mode()).to_string();
        self
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
