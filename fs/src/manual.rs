//! What the man pages of `cairn` and `mount.cairn` say beyond the definitions of their arguments.

use std::path::Path;

use cairn_manual::{Page, Section, generate};
use clap::{Command, CommandFactory};

use crate::args::{Cli, HelperArgs};
use crate::failure;
use crate::options::OPTIONS;

/// Writes man pages and completions below `share`.
pub(crate) fn write(share: &Path) -> Result<(), String> {
    let mut cairn = Cli::command().disable_help_subcommand(true);
    // Gives each verb its names: `cairn mount`, and `cairn-mount` for its page.
    cairn.build();
    let verbs: Vec<Command> = cairn.get_subcommands().cloned().collect();
    let mut pages = vec![Page { command: cairn.clone(), sections: main_sections() }];
    pages.extend(
        verbs.into_iter().map(|command| Page { sections: verb_sections(command.get_name()), command }),
    );
    pages.push(Page { command: HelperArgs::command(), sections: helper_sections() });
    generate(share, &pages, &[Cli::command()])
}

fn main_sections() -> Vec<Section> {
    vec![
        exit_status(),
        Section::new("FILES")
            .text("A volume is a plain directory:")
            .item("superblock, superblock.backup", "what the volume is; two copies")
            .item("journal/", "what was written last and is not folded yet: never delete it")
            .item("store/packs/", "the files' bytes and the directory tree: never delete them")
            .item("store/superblock*", "what the store is; two copies")
            .item("store/index, engine/", "caches: rebuilt at the next mount if they are missing")
            .item("store/scrub", "when each pack was last scrubbed: a cache")
            .item("lock, control.sock", "who has it mounted, and how commands reach the mount")
            .item("log, log.1", "what the mount's daemon had to say"),
        environment(),
        Section::new("EXAMPLES")
            .text("Make a volume, mount it, copy a tree, see what that takes:")
            .example(
                "mkfs.cairn -L photos /srv/photos\ncairn mount /srv/photos /mnt/photos\n\
                 cp -a ~/photos /mnt/photos\ncairn sync /mnt/photos\ncairn df /mnt/photos",
            )
            .text("See what one file shares with others:")
            .example("cairn why /mnt/photos/photos/one.jpg"),
        see_also("mount.cairn(8), mkfs.cairn(8), fsck.cairn(8), cairn-mount(8)"),
    ]
}

fn verb_sections(verb: &str) -> Vec<Section> {
    let mut sections = match verb {
        "mount" => vec![
            mount_options(),
            exit_status(),
            environment(),
            Section::new("SYSTEMD").text(
                "In the foreground (-f) the daemon tells systemd when the mount answers, what it waits for, and when it \
                 ends (Type=notify). The template cairn@.service mounts what /etc/cairn/NAME.conf names.",
            ),
            Section::new("WHEN THE DAEMON DIES").text(
                "The daemon is two processes: a worker that answers, and a supervisor that keeps the mount and the volume. A \
                 worker that dies is followed by another, and programs go on where they stopped (Linux 6.9 and later). One \
                 that dies again and again is given up: the mount is taken away, and the log says why. With supervise=off, \
                 on older kernels, or without its supervisor, a mount dies with its daemon.",
            ),
        ],
        "bench" => vec![
            Section::new("WHAT IS MEASURED").text(
                "Runs of made-up weights, as tensors in new files are cut, are coded and decoded in memory: on one thread, on all, and on a \
                 graphics processor, where this cairn was built with the feature gpu and Vulkan knows one; the best of five rounds. What \
                 the graphics processor gives is held against what the processor gives, each byte. Kernels are measured by running them \
                 several times over.",
            ),
            exit_status(),
        ],
        "upgrade" => vec![
            Section::new("WHAT HAPPENS").text(
                "The daemon folds what it has, finishes what it was asked, and makes way; the supervisor starts the other \
                 program, which goes on. Programs wait meanwhile, and see no error. If the other program does not come up, \
                 the one before it goes on, and this command fails. The supervisor stays what it was until the next mount. \
                 Counters begin anew.",
            ),
            exit_status(),
        ],
        "scrub" => vec![
            Section::new("WHAT HAPPENS")
                .text(
                    "Every byte of every pack is read from the disk, past the page cache, and held against its checksum; what \
                     is damaged is written back from parity. What parity does not reach is told, with the files that it is \
                     lost to. Both copies of the superblocks, the journal's closed segments and the engine's values are \
                     looked at, too. With --deep everything is decoded as well, and each chunk held against its id.",
                )
                .text(
                    "The pack comes first that was not looked through for longest. A run that ends early, or is killed, is \
                     gone on with by the next. In a mounted volume one thread reads, and leaves three quarters of the disk's \
                     time to others while they ask for something; in one that is not mounted there is a thread for each core. \
                     Nothing is written with --no-repair, and where the mount takes no writes.",
                ),
            Section::new("OUTPUT").text(
                "Sectors of 4 KiB: how many were checked, were damaged and are right again (corrected), are damaged still \
                 (uncorrected), and how many there are in all. What is damaged still is listed, and the files by path, with \
                 offset and length of what is lost.",
            ),
            Section::new("REPORT").text(
                "With --report one HTML page is written that needs no other file: a map of the packs (healthy, healed, damaged, \
                 with bytes lost, not looked at), the files affected, findings by kind, how much of the parity was needed, when \
                 packs were last looked through, what is saved, and what to do next. It takes the place of FILE only when it is \
                 whole, and only of a regular file; it is written also where something is lost, and where a run that is done \
                 here is interrupted.",
            ),
            Section::new("SYSTEMD").text(
                "The timer cairn-scrub@NAME.timer scrubs once a month what /etc/cairn/NAME.conf names.",
            ),
            exit_status().item("3", "of a scrub: something is damaged still"),
        ],
        "drill" => vec![
            Section::new("WHAT HAPPENS")
                .text(
                    "Some packs, of metadata and of data, of all ages, are copied into a directory of their own. A copy is damaged \
                     the way disks do it: flipped bits, zeroed, overwritten and swapped sectors, writes that were lost or went \
                     elsewhere, a torn or a short file, holes, header, footers and checksums gone, sectors that cannot be read, \
                     a file that is empty or gone. It is read and repaired by the code that a mount does it with, and held against \
                     what it was, byte for byte. Then the damage grows until something is lost.",
                )
                .text(
                    "The volume itself is only read, mounted or not, and no daemon is asked. A pack that is dropped meanwhile is \
                     left out; one that is damaged already is told, and mended in its copy. The copies are what the volume holds: only \
                     their owner may read them, and they are removed at the end, and where the run is interrupted, unless with \
                     --keep.",
                ),
            Section::new("OUTPUT").text(
                "For each damage, how often it was done, how often it was mended, how often something was lost and told, and \
                 how often other bytes were returned, which must be never. Then how much more was survived than is promised: \
                 of holes that began in places drawn, of bad sectors anywhere, and of bad sectors that meet in one column.",
            ),
            exit_status().item("3", "of a drill: what is promised did not come back, or nothing is promised"),
        ],
        "repair" => vec![
            Section::new("WHAT HAPPENS")
                .text(
                    "Every pack is gone through as by cairn scrub, and what parity restores is written back. What it does not \
                     reach, chunks of files in damaged or missing packs, is looked for: in other places of the store, and in \
                     what --from names. Any bytes will do, of any file under any name, whose keyed hash is the chunk's id: \
                     first a file with the same path, or the end of it, at the same offset; then all files, cut as the volume \
                     cuts what is written to it, so that it does not matter where in them it is; and packs, by their names.",
                )
                .text(
                    "What is found is stored anew, and all files that use it name that from then on: it stays when the source \
                     is gone. Damaged packs that nobody needs the lost parts of any more are emptied and go, so that \
                     fsck.cairn finds nothing. What is found nowhere stays an error when it is read. A run that is interrupted \
                     keeps what it found; the next goes on.",
                ),
            Section::new("SOURCES").text(
                "A file, a directory with all that is below it on the same filesystem, the directory of another volume \
                 (read-only, where nobody has it mounted), a mountpoint, a copy of store/packs. Symbolic links are not \
                 followed. What cannot be read is told and left out. Sources are read by this command, not by the daemon of \
                 the mount: with the rights, and in the mount namespace, of whoever runs it.",
            ),
            Section::new("NOT FOUND").text(
                "A chunk that ends where its file did, or at a hole, is found behind other bytes only where those end there, \
                 too; under the same path it is found in any case.",
            ),
            exit_status().item("3", "something is lost still"),
        ],
        _ => vec![exit_status()],
    };
    if let Some(lines) = example(verb) {
        sections.push(Section::new("EXAMPLES").example(lines));
    }
    sections.push(see_also("cairn(8)"));
    sections
}

fn example(verb: &str) -> Option<&'static str> {
    match verb {
        "mount" => Some("cairn mount /srv/photos /mnt/photos -o noatime,cache_size=256M"),
        "umount" => Some("cairn umount /mnt/photos"),
        "sync" => Some("cairn sync /mnt/photos"),
        "df" => Some("cairn df --json /mnt/photos"),
        "gc" => Some("cairn gc /mnt/photos --max-duration 10m"),
        "scrub" => Some(
            "cairn scrub /mnt/photos\ncairn scrub /srv/photos --deep --path holidays/2019\n\
             cairn scrub /mnt/photos --rate 50 --max-duration 2h --report scrub.html",
        ),
        "drill" => Some(
            "cairn drill /mnt/photos\ncairn drill /srv/photos --sample 2G --rounds 20 --scratch /var/tmp",
        ),
        "repair" => Some(
            "cairn repair /mnt/photos --from /mnt/backup/photos\n\
             cairn repair /srv/photos --from ~/one.jpg /srv/old-volume /mnt/backup/srv/photos/store/packs",
        ),
        "info" => Some("cairn info /srv/photos"),
        "stats" => Some("cairn stats /mnt/photos --interval 1"),
        "upgrade" => {
            Some("cairn upgrade /mnt/photos\ncairn upgrade /mnt/photos --binary /usr/local/bin/cairn")
        }
        "bench" => Some("cairn bench --codec\ncairn bench --codec --gpu on --json"),
        "why" => Some("cairn why /mnt/photos/one.jpg /mnt/photos/two.jpg"),
        _ => None,
    }
}

fn helper_sections() -> Vec<Section> {
    let status = [(0, "mounted"), (1, "wrong usage"), (32, "not mounted")];
    vec![
        mount_options(),
        Section::new("EXIT STATUS")
            .text("Those of mount(8):")
            .items(status.map(|(code, meaning)| (code.to_string(), meaning.to_string()))),
        Section::new("EXAMPLES").text("By hand, and at boot by a line in /etc/fstab:").example(
            "mount -t cairn /srv/photos /mnt/photos -o noatime\n\
                 /srv/photos  /mnt/photos  cairn  defaults,nofail  0 0",
        ),
        see_also("mount(8), fstab(5), cairn(8)"),
    ]
}

fn exit_status() -> Section {
    let codes = failure::EXIT_CODES.iter().map(|(code, meaning)| (code.to_string(), (*meaning).to_string()));
    Section::new("EXIT STATUS").items(codes)
}

fn mount_options() -> Section {
    Section::new("MOUNT OPTIONS")
        .text("Separated by commas; of two that contradict each other the later one holds. SIZE may have a unit: 64M, 1G.")
        .items(OPTIONS.iter().map(|known| (known.syntax(), known.help.to_string())))
        .text(
            "Those that are for mount(8) and systemd (defaults, nofail, noauto, _netdev, user, x-...) are accepted. Any \
             other is refused by name, except with -s.",
        )
}

fn environment() -> Section {
    Section::new("ENVIRONMENT").item(
        "CAIRN_LOG",
        "what the daemon logs: error, warn, info (the default), debug, or by module as in cairn_volume=trace",
    )
}

fn see_also(pages: &str) -> Section {
    Section::new("SEE ALSO").text(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_an_example() {
        for verb in Cli::command().get_subcommands() {
            assert!(example(verb.get_name()).is_some(), "{}", verb.get_name());
        }
    }
}
