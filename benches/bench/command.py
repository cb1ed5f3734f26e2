"""What scripts/bench hands its options to, once everything is built and the tree is there; see scripts/bench --help."""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys

import figures
import filesystems
import inputs
import machine
import measure
import page
import tables
import workloads
from filesystems import Trouble

MIB, GIB = 1 << 20, 1 << 30
SCHEMA = 1

# How large things are. The long stream is eight times the journal; in full, that is mkfs.cairn's default.
FULL = {
    "journal": "512 MiB",
    "journal_size": None,
    "stream": GIB,
    "long": 4 * GIB,
    "probe": 512 * MIB,
    "counts": {"syncs": 2000, "cold-reads": 3000, "warm-reads": 200_000, "rounds": 200},
}
QUICK = {
    "journal": "64 MiB",
    "journal_size": "64M",
    "stream": 128 * MIB,
    "long": 512 * MIB,
    "probe": 64 * MIB,
    "counts": {"syncs": 300, "cold-reads": 300, "warm-reads": 20_000, "rounds": 20},
}


class Place:
    """Where filesystems are made: `workdir`/image, mounted at `workdir`/mnt; what is below cairn at `workdir`/below."""

    def __init__(self, workdir, bin_directory, journal):
        self.workdir = pathlib.Path(workdir)
        self.bin = pathlib.Path(bin_directory)
        self.journal = journal
        self.mountpoint = str(self.workdir / "mnt")
        self.below = self.workdir / "below"
        self.image = None


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--workdir")
    parser.add_argument("--bin")
    parser.add_argument("--tree")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--from", dest="recorded")
    parser.add_argument("--json")
    parser.add_argument("--html")
    parser.add_argument("--markdown")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        chosen = workloads.by_key(options.only.split(",") if options.only else [w.key for w in workloads.ALL])
        if options.recorded:
            with open(options.recorded, encoding="utf-8") as file:
                report = recorded(json.load(file), options.recorded)
        elif options.workdir is None:
            return 0
        else:
            report = measured(options, chosen)
        write(report, options)
    except (Trouble, OSError, ValueError) as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(tables.text(report))
    return 1 if report["failures"] else 0


def recorded(report, path):
    if not isinstance(report, dict) or report.get("message_type") != "bench":
        raise Trouble(f"{path} is not what scripts/bench --json writes")
    if report["schema_version"] != SCHEMA:
        raise Trouble(f"{path} is of schema {report['schema_version']}, and this reads {SCHEMA}: use the commit that wrote it")
    report["targets"] = figures.targets(report)
    return report


def measured(options, chosen):
    sizes = QUICK if options.quick else FULL
    place = Place(options.workdir, options.bin, sizes["journal_size"])
    facts = machine.facts()
    os.mkdir(place.mountpoint)
    os.mkdir(place.below)
    print("preparing the inputs and the image", flush=True)
    given = inputs.make(options.workdir, options.tree, sizes["stream"], sizes["long"], sizes["probe"], sizes["counts"])
    names, notes = available(given)
    place.image = filesystems.Image(str(place.workdir / "image"), image_bytes(given))
    results, failures = measure.measure(chosen, names, place, given, options.repeat, lambda line: print(line, flush=True))
    report = {
        "message_type": "bench",
        "schema_version": SCHEMA,
        "machine": facts,
        "cairn": {"version": version(place.bin), "commit": machine.commit(os.getcwd())},
        "options": {
            "repetitions": options.repeat,
            "quick": options.quick,
            "only": [workload.key for workload in chosen],
            "journal": sizes["journal"],
            "image_bytes": image_bytes(given),
            "direct_io": place.image.direct,
        },
        "inputs": {"sizes": given.sizes, "counts": given.counts},
        "notes": notes,
        "failures": failures,
        "workloads": results,
    }
    report["targets"] = figures.targets(report)
    report["notes"] += figures.doubts(report)
    return report


def available(given):
    """The filesystems that can be measured here, and a sentence about each that cannot, and about the machine."""
    names, notes = [], []
    for name in filesystems.ALL:
        why = filesystems.missing(name, given.sizes["tree"])
        if why is None:
            names.append(name)
        else:
            notes.append(f"{filesystems.ALL[name].title} was left out: {why}.")
    largest = max(given.sizes["tree"], given.sizes["long"])
    if machine.memory("MemAvailable") < 2 * largest + GIB:
        notes.append("There is little memory: sources of copies may not have stayed in it, and warm reads may not be warm.")
    if os.getloadavg()[0] > 0.5:
        notes.append("The machine was not idle when this began: compare within the run only.")
    return names, notes


def image_bytes(given):
    """Room for what the largest workload leaves on ext4, where nothing is compressed."""
    # Blocks, and ext4's own tables: a twentieth more; half a gigabyte for a journal and for what is not yet folded.
    tree = given.sizes["tree"] + given.counts["files"] * 4096
    most = max(3 * tree, 3 * given.sizes["new"], given.sizes["long"])
    rounded = most + most // 12 + 640 * MIB
    return rounded - rounded % (8 * MIB)


def version(bin_directory):
    said = subprocess.run([bin_directory / "cairn", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1]


def write(report, options):
    for path, content in (
        (options.json, lambda: json.dumps(report, indent=1, ensure_ascii=False) + "\n"),
        (options.html, lambda: page.page(report)),
        (options.markdown, lambda: tables.markdown(report)),
    ):
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.write(content())
            print(f"written: {path}")
