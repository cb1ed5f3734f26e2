//! `cairn info`.

use std::path::Path;

use cairn_volume::{
    AcrossDir, Compression, ParityGeometry, VolumeState, VolumeSuperblock, guarantee, guarantee_across,
    parity_name,
};
use serde::{Deserialize, Serialize};

use crate::args::InfoArgs;
use crate::control::{Client, Info};
use crate::failure::Failure;
use crate::hidden;
use crate::output::{date, duration, print, print_json, rows};
use crate::places::{self, Place};
use crate::report::compression_name;
use crate::size::exact;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// What `--json` prints. Sizes are bytes.
#[derive(Serialize)]
struct Document {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    #[serde(flatten)]
    volume: VolumeInfo,
    /// `null` where nobody has it mounted.
    mount: Option<Info>,
    /// What the kernel and the mount agreed on, as the hidden file `.config` has it; `null` where that cannot be read.
    kernel: Option<Kernel>,
}

/// The kernel's side of a mount.
#[derive(Serialize, Deserialize)]
struct Kernel {
    /// The FUSE protocol's version.
    protocol: String,
    /// What cairn asks for and the kernel does not have.
    missing: Vec<String>,
}

/// A directory that has second copies.
#[derive(Serialize)]
struct AcrossInfo {
    path: String,
    /// Why it is not as it should be; `null` where it is.
    missing: Option<String>,
}

/// What a volume's superblock says.
#[derive(Serialize)]
struct VolumeInfo {
    uuid: String,
    store_uuid: String,
    label: String,
    /// Seconds since 1970.
    created: i64,
    /// `clean`: everything is folded; `mounted`: in use, or not unmounted in order; `mounting`.
    state: &'static str,
    /// The number of its last mount for writing.
    epoch: u32,
    chunk_min: u32,
    chunk_avg: u32,
    chunk_max: u32,
    frame_size: u32,
    /// `off` or `zstd:LEVEL`.
    compression: String,
    parity_data: u8,
    parity_extra: u8,
    /// What that is good for, in words; `null` where the store cannot be read.
    parity_guarantee: Option<String>,
    /// Directories on other disks that have a second copy of every pack.
    parity_across: Vec<AcrossInfo>,
    /// Stored bytes at which packs are sealed; `null` where the store cannot be read.
    pack_size: Option<u64>,
    journal_size: u64,
    segment_size: u32,
}

impl VolumeInfo {
    fn new(superblock: &VolumeSuperblock, pack_size: Option<u64>, across: Vec<AcrossDir>) -> VolumeInfo {
        let geometry = superblock.geometry;
        VolumeInfo {
            uuid: superblock.uuid.to_string(),
            store_uuid: superblock.store.to_string(),
            label: superblock.label.clone(),
            created: superblock.created,
            state: match superblock.state {
                VolumeState::Clean => "clean",
                VolumeState::Mounted => "mounted",
                VolumeState::Mounting => "mounting",
            },
            epoch: superblock.epoch,
            chunk_min: geometry.chunks.min,
            chunk_avg: geometry.chunks.avg,
            chunk_max: geometry.chunks.max,
            frame_size: geometry.frame,
            compression: compression_name(geometry.compression),
            parity_data: geometry.parity.data,
            parity_extra: geometry.parity.parity,
            parity_guarantee: pack_size.map(|size| guarantee(geometry.parity, size)),
            parity_across: across
                .into_iter()
                .map(|AcrossDir { path, missing }| AcrossInfo { path, missing })
                .collect(),
            pack_size,
            journal_size: u64::from(geometry.segment) * u64::from(geometry.segments),
            segment_size: geometry.segment,
        }
    }
}

/// Tells what a volume is, and who has it mounted. The superblock is read without the volume's lock: it is replaced whole.
pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let superblock = cairn_volume::superblock(&place.dir).map_err(|e| hint(e.into(), &place))?;
    let mount = mount(&place.dir)?;
    let kernel = mount.as_ref();
    // It may hold a file of that name, or be served by an older version.
    let kernel = kernel.and_then(|m| hidden::read(&m.mountpoint, hidden::CONFIG, Some("kernel")).ok());
    let document = Document {
        message_type: "info",
        schema_version: SCHEMA,
        dir: place.dir.display().to_string(),
        volume: VolumeInfo::new(
            &superblock,
            cairn_volume::pack_size(&place.dir).ok(),
            cairn_volume::across(&place.dir).unwrap_or_default(),
        ),
        mount,
        kernel,
    };
    match args.json {
        true => print_json(&document),
        false => print(&text(&document, superblock.geometry.compression, place.mountpoint.as_deref())),
    }
}

/// Who may not read the volume's directory may read a document in the mount.
fn hint(failure: Failure, place: &Place) -> Failure {
    match &place.mountpoint {
        Some(at) if !nix::unistd::geteuid().is_root() => {
            let document = at.join(hidden::CONFIG);
            Failure {
                message: format!("{failure}; {} tells others what is in force", document.display()),
                ..failure
            }
        }
        _ => failure,
    }
}

fn mount(dir: &Path) -> Result<Option<Info>, Failure> {
    Client::connect(dir)?.map(|mut daemon| daemon.ask("info", "info")).transpose()
}

fn text(document: &Document, compression: Compression, seen_at: Option<&Path>) -> String {
    let volume = &document.volume;
    let mut text = format!("{}\n{}", document.dir, rows(volume_rows(volume, compression)));
    text += &match (&document.mount, seen_at) {
        (Some(mount), _) => {
            let rows = rows(mount_rows(mount, document.kernel.as_ref()));
            format!("\nmounted at {}\n{rows}", mount.mountpoint.display())
        }
        (None, Some(at)) => format!(
            "\nmounted at {0}, but its daemon has died: `umount {0}`, and mount it again\n",
            at.display()
        ),
        (None, None) => {
            let how = match volume.state {
                "clean" => "everything is folded",
                _ => "what is left in its journal is taken up by the next mount",
            };
            format!("\nnot mounted: {how}\n")
        }
    };
    text
}

fn volume_rows(volume: &VolumeInfo, compression: Compression) -> Vec<(&'static str, String)> {
    let size = |bytes: u32| exact(u64::from(bytes));
    let across = volume.parity_across.iter();
    let across: Vec<AcrossDir> =
        across.map(|dir| AcrossDir { path: dir.path.clone(), missing: dir.missing.clone() }).collect();
    let mut rows = vec![
        ("label", if volume.label.is_empty() { "none".into() } else { volume.label.clone() }),
        ("UUID", volume.uuid.clone()),
        ("store's UUID", volume.store_uuid.clone()),
        ("made", date(volume.created)),
        ("chunks", [volume.chunk_min, volume.chunk_avg, volume.chunk_max].map(size).join(" / ")),
        (
            "compression",
            match compression {
                Compression::None => "off".to_string(),
                Compression::Zstd(level) => {
                    format!("zstd, level {level}, in frames of {}", size(volume.frame_size))
                }
            },
        ),
        (
            "parity",
            volume
                .parity_guarantee
                .clone()
                .unwrap_or_else(|| parity_name(ParityGeometry::new(volume.parity_data, volume.parity_extra))),
        ),
        ("journal", format!("{} in segments of {}", exact(volume.journal_size), size(volume.segment_size))),
    ];
    rows.extend(guarantee_across(&across).map(|text| ("across", text)));
    rows
}

fn mount_rows(mount: &Info, kernel: Option<&Kernel>) -> Vec<(&'static str, String)> {
    let now = crate::control::now();
    let mut lines = vec![
        (
            "since",
            format!(
                "{} ({})",
                date(i64::try_from(mount.since).unwrap_or(i64::MAX)),
                duration(now.saturating_sub(mount.since) as f64)
            ),
        ),
        ("process", format!("{}, cairn {}", mount.pid, mount.version)),
        ("options", if mount.options.is_empty() { "none".into() } else { mount.options.join(",") }),
        ("writes", mount.read_only_because.clone().map_or("yes".into(), |why| format!("no: {why}"))),
        ("engine", mount.engine.clone()),
    ];
    if !mount.heal.is_empty() {
        lines.push(("healing", mount.heal.clone()));
    }
    if let Some(kernel) = kernel {
        let missing = match kernel.missing.is_empty() {
            true => "nothing is missing".to_string(),
            false => format!("does without {}", kernel.missing.join(", ")),
        };
        lines.push(("kernel", format!("FUSE {}, {missing}", kernel.protocol)));
    }
    if let Some(supervisor) = mount.supervisor {
        let (restarts, upgrades) = (mount.restarts, mount.upgrades);
        let line =
            format!("process {supervisor}; daemons that died: {restarts}, that were replaced: {upgrades}");
        lines.push(("supervisor", line));
    }
    if let Some(address) = mount.metrics {
        lines.push(("metrics", format!("http://{address}/metrics")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document {
            message_type: "info",
            schema_version: SCHEMA,
            dir: "/srv/v".into(),
            volume: VolumeInfo {
                uuid: "u".into(),
                store_uuid: "s".into(),
                label: "films".into(),
                created: 0,
                state: "mounted",
                epoch: 3,
                chunk_min: 8 << 10,
                chunk_avg: 32 << 10,
                chunk_max: 128 << 10,
                frame_size: 256 << 10,
                compression: "zstd:3".into(),
                parity_data: 16,
                parity_extra: 2,
                parity_guarantee: Some("16+2: any 2 bad sectors".into()),
                parity_across: vec![AcrossInfo { path: "/mnt/b".into(), missing: Some("gone".into()) }],
                pack_size: Some(64 << 20),
                journal_size: 512 << 20,
                segment_size: 16 << 20,
            },
            mount: Some(Info {
                pid: 7,
                version: "1".into(),
                dir: "/srv/v".into(),
                mountpoint: "/mnt".into(),
                uuid: "u".into(),
                label: "films".into(),
                options: vec!["noatime".into()],
                since: 0,
                read_only: true,
                read_only_because: Some("stopped after an error: disk".into()),
                engine: "redb".into(),
                heal: "on".into(),
                metrics: None,
                supervisor: Some(6),
                restarts: 1,
                upgrades: 2,
            }),
            kernel: Some(Kernel { protocol: "7.40".into(), missing: vec!["passthrough".into()] }),
        }
    }

    #[test]
    fn people_read_what_it_is_and_who_has_it() {
        let text = text(&document(), Compression::Zstd(3), None);
        for part in [
            "chunks         8 KiB / 32 KiB / 128 KiB\n",
            "zstd, level 3, in frames of 256 KiB\n",
            "parity         16+2: any 2 bad sectors\n",
            "512 MiB in segments of 16 MiB\n",
            "across         every pack once more in /mnt/b (NOT THERE: gone):",
            "mounted at /mnt\n",
            "process 6; daemons that died: 1, that were replaced: 2\n",
            "kernel         FUSE 7.40, does without passthrough\n",
            "writes         no: stopped after an error: disk\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn nobody_is_said_to_have_what_nobody_has() {
        let document = Document { mount: None, ..document() };
        assert!(text(&document, Compression::None, None).contains("not mounted: what is left"));
        let dead = text(&document, Compression::None, Some(Path::new("/mnt")));
        assert!(dead.contains("its daemon has died"), "{dead}");
    }

    #[test]
    fn the_document_names_its_schema() {
        let json = serde_json::to_value(document()).expect("serializes");
        assert_eq!((json["schema_version"].as_u64(), json["message_type"].as_str()), (Some(1), Some("info")));
        assert_eq!(json["mount"]["pid"].as_u64(), Some(7));
        assert_eq!(json["parity_guarantee"].as_str(), Some("16+2: any 2 bad sectors"));
    }
}
