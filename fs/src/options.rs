//! What follows `-o`: one table of what is known, everything else refused by name. Help, the manual and README's table
//! are made from it, or compared with it.

use std::net::SocketAddr;

use cairn_volume::engine::MetaEngine;
use cairn_volume::{Compression, Dedup, HealMode, OpenOptions, ParityGeometry, parse_parity};

use crate::failure::Failure;
use crate::graphics::{self, Wanted};
use crate::logging::Format;
use crate::report::heal_mode;
use crate::size;

/// The options of a mount, defaults where nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// No writes, by the kernel and by the volume.
    pub(crate) read_only: bool,
    /// Honour set-user-id and set-group-id bits. Only root may ask for it.
    pub(crate) suid: bool,
    /// Honour device nodes. Only root may ask for it.
    pub(crate) dev: bool,
    /// Run no programs from it.
    pub(crate) noexec: bool,
    /// Never update access times (cairn does not, on reads, anyway).
    pub(crate) noatime: bool,
    /// Other users than the one who mounts may use it.
    pub(crate) allow_other: bool,
    /// Change the flags of a mount that is there.
    pub(crate) remount: bool,
    /// Have every open and close told, as kernels do that cannot do without: for tests of that.
    pub(crate) count_opens: bool,
    /// Have each daemon die, after half a second, of what it did and did not answer: for tests of that.
    pub(crate) die_unanswered: bool,
    /// Bytes of decoded frames kept; `None`: the volume's default.
    pub(crate) cache_size: Option<u64>,
    /// Bytes of the chunk index; `None`: the volume's default.
    pub(crate) index_mem: Option<u64>,
    /// How new data is compressed; `None`: as the volume was made.
    pub(crate) compression: Option<Compression>,
    /// Whether new data is looked for among what is stored; `None`: it is.
    pub(crate) dedup: Option<Dedup>,
    pub(crate) tensors: Option<bool>,
    /// Whether they may be stored as differences from others; `None`: they may.
    pub(crate) tensor_delta: Option<bool>,
    /// Whether tensors are coded on a graphics processor; `None`: where that is faster.
    pub(crate) gpu: Option<Wanted>,
    /// The library that caches the namespace; `None`: redb.
    pub(crate) meta_engine: Option<MetaEngine>,
    /// Whether garbage is collected by itself; `None`: it is.
    pub(crate) collect: Option<bool>,
    /// What is done about damage; `None`: it is mended.
    pub(crate) heal: Option<HealMode>,
    /// The parity that new packs get; `None`: as the volume was made.
    pub(crate) parity: Option<ParityGeometry>,
    /// How the daemon's log is written; `None`: as text.
    pub(crate) log_format: Option<Format>,
    /// Whether the daemon has a supervisor; `None`: it has.
    pub(crate) supervise: Option<bool>,
    /// Where figures are served to Prometheus; `None`: nowhere.
    pub(crate) metrics: Option<SocketAddr>,
    /// Those that were known, as they were given.
    pub(crate) given: Vec<String>,
}

/// An option of a mount.
pub(crate) struct Known {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it does, for people.
    pub(crate) help: &'static str,
    take: Take,
}

type Set = fn(&mut MountOptions);

/// What an option sets.
enum Take {
    /// It has no value.
    Flag(Set),
    /// It has one, which is called so.
    Value(&'static str, fn(&mut MountOptions, &str) -> Result<(), String>),
}

/// Every option that people are told of.
pub(crate) const OPTIONS: &[Known] = &[
    Known { name: "ro", help: "no writes", take: Take::Flag(|o| o.read_only = true) },
    Known {
        name: "suid",
        help: "honour set-user-id bits; for root, off unless asked for",
        take: Take::Flag(|o| o.suid = true),
    },
    Known {
        name: "dev",
        help: "honour device nodes; for root, off unless asked for",
        take: Take::Flag(|o| o.dev = true),
    },
    Known { name: "noexec", help: "run no programs from it", take: Take::Flag(|o| o.noexec = true) },
    Known {
        name: "noatime",
        help: "accepted; access times are not updated by reads anyway",
        take: Take::Flag(|o| o.noatime = true),
    },
    Known {
        name: "allow_other",
        help: "other users may use it; permissions are always checked by the kernel",
        take: Take::Flag(|o| o.allow_other = true),
    },
    Known {
        name: "remount",
        help: "change a mount that is in use: ro, exec, atime, suid, dev and their opposites, and heal",
        take: Take::Flag(|o| o.remount = true),
    },
    Known {
        name: "cache_size",
        help: "memory for decoded data",
        take: Take::Value("SIZE", |o, value| {
            o.cache_size = Some(size::parse(value)?);
            Ok(())
        }),
    },
    Known {
        name: "index_mem",
        help: "memory for finding duplicates",
        take: Take::Value("SIZE", |o, value| {
            o.index_mem = Some(size::parse(value)?);
            Ok(())
        }),
    },
    Known {
        name: "compress",
        help: "how new data is compressed: off, zstd or zstd:LEVEL (1 to 19); as mkfs chose unless given",
        take: Take::Value("HOW", |o, value| {
            o.compression = Some(compression(value)?);
            Ok(())
        }),
    },
    Known {
        name: "dedup",
        help: "whether new data is looked for among what is stored: on, off, or verify, which compares it first",
        take: Take::Value("HOW", |o, value| {
            o.dedup = Some(dedup(value)?);
            Ok(())
        }),
    },
    Known {
        name: "tensor",
        help: "whether tensors in new files (safetensors, GGUF, npy, npz, PyTorch, ONNX) are looked for, and stored by what their numbers are: on or off",
        take: Take::Value("HOW", |o, value| {
            o.tensors = Some(on_or_off("tensor", value)?);
            Ok(())
        }),
    },
    Known {
        name: "tensor-delta",
        help: "whether a tensor that is near to one stored already, of the same name or of like numbers, is stored as the differences from that: on or off",
        take: Take::Value("HOW", |o, value| {
            o.tensor_delta = Some(on_or_off("tensor-delta", value)?);
            Ok(())
        }),
    },
    Known {
        name: "gpu",
        help: "whether tensors are coded on a graphics processor: auto, where there is one and it is faster, on, or off; for cairn built with it",
        take: Take::Value("HOW", |o, value| {
            o.gpu = Some(graphics::parse(value)?);
            Ok(())
        }),
    },
    Known {
        name: "meta_engine",
        help: "what caches the namespace: redb, or sled where cairn was built with it",
        take: Take::Value("ENGINE", |o, value| {
            o.meta_engine = Some(engine(value)?);
            Ok(())
        }),
    },
    Known {
        name: "gc",
        help: "whether packs that are partly dead are rewritten when nothing else is to be done: on or off",
        take: Take::Value("HOW", |o, value| {
            o.collect = Some(on_or_off("gc", value)?);
            Ok(())
        }),
    },
    Known {
        name: "heal",
        help: "what is done about damage that parity can mend: on, ro, which reads right and writes nothing back, or off; may be changed by a remount",
        take: Take::Value("HOW", |o, value| {
            o.heal = Some(heal_mode(value)?);
            Ok(())
        }),
    },
    Known {
        name: "parity",
        help: "what new packs get: K+M, M parity units for K of data, or none; as mkfs chose unless given",
        take: Take::Value("K+M", |o, value| {
            o.parity = Some(parse_parity(value)?);
            Ok(())
        }),
    },
    Known {
        name: "log_format",
        help: "text, or json: one document a line",
        take: Take::Value("FORMAT", |o, value| {
            o.log_format = Some(Format::parse(value)?);
            Ok(())
        }),
    },
    Known {
        name: "supervise",
        help: "whether the mount outlives its daemon: on, or off",
        take: Take::Value("HOW", |o, value| {
            o.supervise = Some(match value {
                "on" => true,
                "off" => false,
                _ => return Err("say supervise=on or supervise=off".to_string()),
            });
            Ok(())
        }),
    },
    Known {
        name: "metrics",
        help: "figures for Prometheus at this loopback address, under /metrics; port 0 takes a free one",
        take: Take::Value("ADDRESS:PORT", |o, value| {
            o.metrics = Some(loopback(value)?);
            Ok(())
        }),
    },
];

/// What people are not told of: it takes back what the table, or the default, says, or is for tests.
const UNTOLD: &[(&str, Set)] = &[
    ("rw", |o| o.read_only = false),
    ("nosuid", |o| o.suid = false),
    ("nodev", |o| o.dev = false),
    ("exec", |o| o.noexec = false),
    ("atime", |o| o.noatime = false),
    ("relatime", |o| o.noatime = false),
    ("strictatime", |o| o.noatime = false),
    ("x-cairn.count-opens", |o| o.count_opens = true),
    ("x-cairn.die-unanswered", |o| o.die_unanswered = true),
];

/// What is for others (mount(8), systemd), or always on: the kernel checks permissions on every cairn mount.
const NOT_OURS: &[&str] = &[
    "defaults",
    "default_permissions",
    "async",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
];
/// The same, with or without a value.
const NOT_OURS_WITH_VALUE: &[&str] =
    &["user", "nouser", "users", "owner", "group", "uhelper", "helper", "comment"];

/// What mount(8) repeats when it remounts: the kernel has it.
const REPEATED: &[&str] = &["user_id", "group_id", "rootmode", "fd", "max_read", "blksize"];

impl Known {
    /// As it is typed: `ro`, `cache_size=SIZE`.
    pub(crate) fn syntax(&self) -> String {
        match self.take {
            Take::Flag(_) => self.name.to_string(),
            Take::Value(value, _) => format!("{}={value}", self.name),
        }
    }
}

/// All of them, for the help of `-o`.
pub(crate) fn help() -> String {
    let all: Vec<_> = OPTIONS.iter().map(Known::syntax).collect();
    format!("Mount options, separated by commas: {}", all.join(", "))
}

/// The level of `compress=zstd`.
const ZSTD_LEVEL: i8 = 3;

impl MountOptions {
    /// Reads comma-separated lists, in order: of two that contradict each other the later one holds.
    ///
    /// `sloppy` (`-s`) skips what is not known instead of refusing it. `root` is whether the caller may ask for `suid`
    /// and `dev`, which are off unless asked for.
    pub(crate) fn parse(lists: &[String], sloppy: bool, root: bool) -> Result<MountOptions, Failure> {
        let words = || lists.iter().flat_map(|list| list.split(',')).filter(|o| !o.is_empty());
        // First of all: it decides what else may be said.
        let mut options =
            MountOptions { remount: words().any(|o| o == "remount"), ..MountOptions::default() };
        for option in words() {
            if options.apply(option)? {
                options.given.push(option.to_string());
            } else if !sloppy {
                return Err(Failure::usage(format!(
                    "unknown mount option '{option}': leave it out, or pass -s to have unknown options ignored"
                )));
            }
        }
        if !root && (options.suid || options.dev) {
            let name = if options.suid { "suid" } else { "dev" };
            return Err(Failure::usage(format!(
                "mount option '{name}' is for root only: leave it out, or mount as root"
            )));
        }
        if options.parity.is_some() && options.read_only && !options.remount {
            return Err(Failure::usage(
                "mount option 'parity' says what new packs get, and with 'ro' there are none: leave one of both out",
            ));
        }
        Ok(options)
    }

    /// Takes one option; `false` if it is not known.
    fn apply(&mut self, option: &str) -> Result<bool, Failure> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let wrong = |why: &str| Failure::usage(format!("mount option '{option}': {why}"));
        match (OPTIONS.iter().find(|known| known.name == name).map(|known| &known.take), value) {
            (Some(Take::Flag(set)), None) => set(self),
            (Some(Take::Flag(_)), Some(_)) => return Err(wrong("it takes no value")),
            (Some(Take::Value(_, set)), value) => {
                set(self, value.unwrap_or("")).map_err(|why| wrong(&why))?
            }
            (None, value) => return Ok(self.apply_untold(name, value) || self.is_not_ours(name, value)),
        }
        Ok(true)
    }

    fn apply_untold(&mut self, name: &str, value: Option<&str>) -> bool {
        let found = UNTOLD.iter().find(|(known, _)| *known == name && value.is_none());
        found.map(|(_, take)| take(self)).is_some()
    }

    fn is_not_ours(&self, name: &str, value: Option<&str>) -> bool {
        (NOT_OURS.contains(&name) && value.is_none())
            || NOT_OURS_WITH_VALUE.contains(&name)
            || (self.remount && REPEATED.contains(&name))
            || name.starts_with("x-")
            || name.starts_with("X-")
    }

    /// What the volume is opened with.
    pub(crate) fn to_open(&self) -> OpenOptions {
        let mut open = OpenOptions {
            read_only: self.read_only,
            compression: self.compression,
            dedup: self.dedup.unwrap_or_default(),
            tensors: self.tensors.unwrap_or(true),
            tensor_delta: self.tensor_delta.unwrap_or(true),
            batches: graphics::batches(self.gpu.unwrap_or_default()),
            meta_engine: self.meta_engine.unwrap_or_default(),
            collect: self.collect.unwrap_or(true),
            heal: self.heal.unwrap_or_default(),
            parity: self.parity,
            ..OpenOptions::default()
        };
        if let Some(bytes) = self.cache_size {
            open.cache_size = bytes;
        }
        if let Some(bytes) = self.index_mem {
            open.index_mem = bytes;
        }
        open
    }
}

/// Figures tell what is done with a volume, and whoever reaches the port may read them: only this machine may.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("'{text}' is no address and port: write one as in 127.0.0.1:9100 or [::1]:9100")
    })?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(format!(
            "{} can be reached from other machines, and anybody might read the figures: use 127.0.0.1 or [::1], and pass them on from there",
            address.ip()
        )),
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    let level = match text.split_once(':') {
        None if text == "off" => return Ok(Compression::None),
        None if text == "zstd" => Some(ZSTD_LEVEL),
        Some(("zstd", level)) => level.parse().ok().filter(|level| (1..=19).contains(level)),
        _ => None,
    };
    let why = "say compress=off, compress=zstd or compress=zstd:LEVEL with a level from 1 to 19";
    level.map(Compression::Zstd).ok_or_else(|| why.to_string())
}

fn dedup(text: &str) -> Result<Dedup, String> {
    match text {
        "on" => Ok(Dedup::On),
        "off" => Ok(Dedup::Off),
        "verify" => Ok(Dedup::Verify),
        _ => Err("say dedup=on, dedup=off or dedup=verify".to_string()),
    }
}

fn on_or_off(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("say {name}=on or {name}=off")),
    }
}

fn engine(value: &str) -> Result<MetaEngine, String> {
    let engine: MetaEngine = value.parse()?;
    match engine.is_built() {
        true => Ok(engine),
        false => Err(format!(
            "this cairn was built without {engine}: leave the option out, or build it with \
             cargo build --release --features {engine} -p cairn -p fsck-cairn"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<MountOptions, Failure> {
        MountOptions::parse(&[list.to_string()], false, true)
    }

    #[test]
    fn nothing_said_means_nosuid_nodev_and_only_the_owner() {
        let options = parse("").expect("an empty list");
        assert_eq!(options, MountOptions::default());
        assert!(!options.suid && !options.dev && !options.allow_other && !options.read_only);
    }

    #[test]
    fn the_later_of_two_opposites_holds() {
        assert!(!parse("ro,rw").expect("known").read_only);
        assert!(parse("rw,ro").expect("known").read_only);
        let both = MountOptions::parse(&["noexec,ro".into(), "exec".into()], false, true).expect("known");
        assert!(!both.noexec && both.read_only);
    }

    #[test]
    fn sizes_have_units() {
        let options = parse("cache_size=64M,index_mem=1G").expect("known");
        assert_eq!((options.cache_size, options.index_mem), (Some(64 << 20), Some(1 << 30)));
        let error = parse("cache_size=lots").expect_err("not a size");
        assert!(error.code == 2 && error.message.contains("cache_size=lots"), "{error}");
        assert!(parse("cache_size").is_err());
    }

    #[test]
    fn how_new_data_is_stored_can_be_said() {
        let open = |list: &str| parse(list).map(|options| options.to_open());
        assert_eq!(open("").expect("nothing said").compression, None);
        assert_eq!(open("compress=off").expect("known").compression, Some(Compression::None));
        assert_eq!(open("compress=zstd").expect("known").compression, Some(Compression::Zstd(3)));
        let both = open("compress=zstd:19,dedup=verify").expect("known");
        assert_eq!((both.compression, both.dedup), (Some(Compression::Zstd(19)), Dedup::Verify));
        for bad in
            ["compress", "compress=", "compress=lz4", "compress=zstd:", "compress=zstd:0", "compress=zstd:20"]
        {
            let error = parse(bad).expect_err(bad);
            assert!(error.code == 2 && error.message.contains(bad), "{error}");
        }
        assert!(parse("dedup=maybe").is_err() && parse("dedup").is_err());
        assert!(parse("profile=vm").expect_err("not there").message.contains("unknown"));
    }

    #[test]
    fn a_graphics_processor_is_used_where_it_was_built_in_and_not_refused() {
        let batches = |list: &str| parse(list).expect("known").to_open().batches;
        for asked in ["", "gpu=auto"] {
            assert_eq!(batches(asked).is_some(), cfg!(feature = "gpu"), "{asked}");
        }
        assert!(batches("gpu=off").is_none());
        assert!(parse("gpu=maybe").is_err() && parse("gpu").is_err());
        match parse("gpu=on") {
            Ok(on) => assert!(cfg!(feature = "gpu") && on.to_open().batches.is_some()),
            Err(e) => assert!(!cfg!(feature = "gpu") && e.message.contains("--features gpu"), "{e}"),
        }
    }

    #[test]
    fn garbage_is_collected_unless_told_otherwise() {
        assert!(parse("").expect("nothing said").to_open().collect);
        assert!(parse("gc=on").expect("known").to_open().collect);
        assert!(!parse("gc=off").expect("known").to_open().collect);
        assert!(parse("gc=maybe").is_err() && parse("gc").is_err());
    }

    #[test]
    fn damage_is_mended_unless_told_otherwise() {
        let open = |list: &str| parse(list).map(|options| options.to_open());
        assert_eq!(open("").expect("nothing said").heal, HealMode::On);
        for (list, mode) in
            [("heal=on", HealMode::On), ("heal=ro", HealMode::ReadOnly), ("heal=off", HealMode::Off)]
        {
            assert_eq!(open(list).expect(list).heal, mode);
        }
        for bad in ["heal", "heal=", "heal=yes"] {
            assert!(parse(bad).expect_err(bad).message.contains("heal=off"), "{bad}");
        }
    }

    #[test]
    fn parity_is_for_packs_that_are_going_to_be_written() {
        assert_eq!(parse("").expect("nothing said").parity, None);
        assert_eq!(parse("parity=8+3").expect("known").parity, Some(ParityGeometry::new(8, 3)));
        assert!(parse("parity=none").expect("known").parity.is_some_and(|parity| parity.is_none()));
        for bad in ["parity", "parity=16", "parity=0+2", "parity=200+2"] {
            assert!(parse(bad).expect_err(bad).message.contains("16+2"), "{bad}");
        }
        assert!(parse("ro,parity=16+2").expect_err("no new packs").message.contains("'ro'"));
        parse("remount,ro,parity=16+2").expect("what fstab says is repeated");
    }

    #[test]
    fn the_engine_is_one_that_this_build_has() {
        assert_eq!(parse("meta_engine=redb").expect("always there").to_open().meta_engine, MetaEngine::Redb);
        let error = parse("meta_engine=leveldb").expect_err("unknown");
        assert!(error.code == 2 && error.message.contains("redb and sled"), "{error}");
        match parse("meta_engine=sled") {
            Ok(options) => {
                assert!(cfg!(feature = "sled") && options.to_open().meta_engine == MetaEngine::Sled)
            }
            Err(e) => assert!(!cfg!(feature = "sled") && e.message.contains("--features sled"), "{e}"),
        }
    }

    #[test]
    fn what_mount_and_systemd_add_is_accepted() {
        parse("defaults,_netdev,nofail,noauto,user=joe,x-systemd.automount,x-gvfs-show,default_permissions,nodiratime")
            .expect("all known");
    }

    #[test]
    fn an_unknown_option_is_named_unless_sloppy() {
        let error = parse("ro,colour=blue").expect_err("unknown");
        assert!(error.code == 2 && error.message.contains("'colour=blue'"), "{error}");
        assert!(parse("ro=1").is_err() && parse("rw=1").is_err() && parse("defaults=1").is_err());
        let sloppy = MountOptions::parse(&["ro,colour=blue".into()], true, true).expect("skipped");
        assert!(sloppy.read_only);
    }

    #[test]
    fn a_remount_may_repeat_what_the_kernel_has() {
        let options = parse("rw,nosuid,user_id=0,group_id=0,default_permissions,remount,ro").expect("known");
        assert!(options.remount && options.read_only);
        assert!(parse("user_id=0").is_err() && !parse("ro").expect("known").remount);
    }

    #[test]
    fn suid_and_dev_are_for_root() {
        assert!(parse("suid,dev").expect("root").suid);
        let error = MountOptions::parse(&["dev".into()], false, false).expect_err("not root");
        assert!(error.message.contains("'dev'"), "{error}");
        MountOptions::parse(&["dev,nodev".into()], false, false).expect("taken back");
    }

    #[test]
    fn metrics_stay_on_this_machine() {
        for (text, port) in [("127.0.0.1:9100", 9100), ("[::1]:0", 0), ("127.8.9.10:1", 1)] {
            assert_eq!(parse(&format!("metrics={text}")).expect(text).metrics.map(|a| a.port()), Some(port));
        }
        for text in
            ["0.0.0.0:9100", "[::]:9100", "192.168.1.2:80", "localhost:9100", "127.0.0.1", ":9100", ""]
        {
            let error = parse(&format!("metrics={text}")).expect_err(text);
            assert!(error.code == 2 && error.message.contains("127.0.0.1"), "{error}");
        }
    }

    #[test]
    fn a_mount_is_supervised_unless_told_otherwise() {
        assert_eq!(parse("").expect("nothing said").supervise, None);
        assert_eq!(parse("supervise=off,supervise=on").expect("known").supervise, Some(true));
        for bad in ["supervise", "supervise=", "supervise=maybe"] {
            assert!(parse(bad).expect_err(bad).message.contains("supervise=off"), "{bad}");
        }
    }

    #[test]
    fn logs_are_text_or_json() {
        assert_eq!(parse("log_format=json").expect("known").log_format, Some(Format::Json));
        assert_eq!(parse("log_format=json,log_format=text").expect("known").log_format, Some(Format::Text));
        assert!(parse("log_format=xml").expect_err("neither").message.contains("json"));
    }

    #[test]
    fn every_name_is_known_once() {
        let mut names: Vec<_> = OPTIONS.iter().map(|known| known.name).collect();
        names.extend(UNTOLD.iter().map(|(name, _)| name));
        names.extend(NOT_OURS.iter().chain(NOT_OURS_WITH_VALUE));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }

    #[test]
    fn the_readme_has_the_same_table() {
        let readme = include_str!("../../README.md");
        let rows: Vec<_> =
            OPTIONS.iter().map(|known| format!("| `{}` | {} |\n", known.syntax(), known.help)).collect();
        let table = format!("| option | |\n| --- | --- |\n{}\n", rows.concat());
        assert!(readme.contains(&table), "README's table of mount options should be:\n{table}");
    }
}
