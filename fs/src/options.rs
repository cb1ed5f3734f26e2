//! What follows `-o`: one table of what is known, everything else refused by name.

use cairn_volume::OpenOptions;
use cairn_volume::engine::MetaEngine;

use crate::failure::Failure;
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
    /// Bytes of decoded frames kept; `None`: the volume's default.
    pub(crate) cache_size: Option<u64>,
    /// Bytes of the chunk index; `None`: the volume's default.
    pub(crate) index_mem: Option<u64>,
    /// The library that caches the namespace.
    pub(crate) meta_engine: MetaEngine,
}

impl MountOptions {
    /// Reads comma-separated lists, in order: of two that contradict each other the later one holds.
    ///
    /// `sloppy` (`-s`) skips what is not known instead of refusing it. `root` is whether the caller may ask for `suid`
    /// and `dev`, which are off unless asked for.
    pub(crate) fn parse(lists: &[String], sloppy: bool, root: bool) -> Result<MountOptions, Failure> {
        let mut options = MountOptions::default();
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|o| !o.is_empty()) {
            if !options.apply(option)? && !sloppy {
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
        Ok(options)
    }

    /// Takes one option; `false` if it is not known.
    fn apply(&mut self, option: &str) -> Result<bool, Failure> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "exec" => self.noexec = false,
            "noexec" => self.noexec = true,
            "noatime" => self.noatime = true,
            "atime" | "relatime" | "strictatime" => self.noatime = false,
            "allow_other" => self.allow_other = true,
            _ => return self.apply_value(option),
        }
        Ok(true)
    }

    /// The options that have a value, and those that are for others (mount(8), systemd) or always on.
    fn apply_value(&mut self, option: &str) -> Result<bool, Failure> {
        match option.split_once('=').unwrap_or((option, "")) {
            ("cache_size", value) => self.cache_size = Some(size_of(option, value)?),
            ("index_mem", value) => self.index_mem = Some(size_of(option, value)?),
            ("meta_engine", value) => self.meta_engine = engine_of(option, value)?,
            // The kernel checks permissions on every cairn mount.
            ("defaults" | "default_permissions" | "async", "") => {}
            (
                "auto" | "noauto" | "nofail" | "_netdev" | "diratime" | "nodiratime" | "lazytime"
                | "nolazytime",
                "",
            ) => {}
            ("user" | "nouser" | "users" | "owner" | "group" | "uhelper" | "helper" | "comment", _) => {}
            (name, _) => return Ok(name.starts_with("x-") || name.starts_with("X-")),
        }
        Ok(true)
    }

    /// What the volume is opened with.
    pub(crate) fn to_open(&self) -> OpenOptions {
        let mut open = OpenOptions {
            read_only: self.read_only,
            meta_engine: self.meta_engine,
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

fn size_of(option: &str, value: &str) -> Result<u64, Failure> {
    size::parse(value).map_err(|why| Failure::usage(format!("mount option '{option}': {why}")))
}

fn engine_of(option: &str, value: &str) -> Result<MetaEngine, Failure> {
    let engine: MetaEngine =
        value.parse().map_err(|why| Failure::usage(format!("mount option '{option}': {why}")))?;
    match engine.is_built() {
        true => Ok(engine),
        false => Err(Failure::usage(format!(
            "mount option '{option}': this cairn was built without {engine}: leave the option out, or build it with \
             cargo build --release --features {engine} -p cairn -p fsck-cairn"
        ))),
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
    fn the_engine_is_one_that_this_build_has() {
        assert_eq!(parse("meta_engine=redb").expect("always there"), parse("").expect("the default"));
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
        assert!(parse("ro=1").is_err());
        let sloppy = MountOptions::parse(&["ro,colour=blue".into()], true, true).expect("skipped");
        assert!(sloppy.read_only);
    }

    #[test]
    fn suid_and_dev_are_for_root() {
        assert!(parse("suid,dev").expect("root").suid);
        let error = MountOptions::parse(&["dev".into()], false, false).expect_err("not root");
        assert!(error.message.contains("'dev'"), "{error}");
        MountOptions::parse(&["dev,nodev".into()], false, false).expect("taken back");
    }
}
