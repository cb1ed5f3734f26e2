"""What is measured, as data: workloads of steps. A workload begins on an empty filesystem; its steps follow each other."""

import dataclasses
import json
import os
import subprocess
import typing

from filesystems import Trouble, run, syncfs

MIB = 1 << 20

# What a step begins with and ends with, beside what it does.
WRITE = "write"  # its source is in memory; ends durable; then settles, and the room taken is told
COLD = "cold"  # mounted anew, caches dropped
WARM = "warm"  # straight after the step before it

SECONDS, MICROSECONDS = "s", "us"


@dataclasses.dataclass(frozen=True)
class Step:
    """`does` gets a `Scene`; it returns None, or a dict whose `value` is the figure where that is not seconds."""

    key: str
    title: str
    kind: str
    does: typing.Callable
    unit: str = SECONDS
    # What is read into memory before the clock starts: a path of the inputs.
    source: str = ""
    # Where what it wrote lies, to be made durable.
    wrote: str = ""
    # How many bytes move: for MB/s, and for a read to be seen to have read it all. A name among the inputs' sizes.
    moves: str = ""
    only: tuple = ()


@dataclasses.dataclass(frozen=True)
class Workload:
    key: str
    title: str
    filesystems: tuple
    steps: tuple
    # What bounds it, in a sentence or two, for the page.
    bound: str


@dataclasses.dataclass
class Scene:
    """Where a step happens: the mounted filesystem, the inputs, how large things are."""

    at: str
    inputs: "Inputs"
    bin: str


@dataclasses.dataclass
class Inputs:
    """Made before anything is measured, beside the image. Paths by name, sizes in bytes by name, counts by name."""

    paths: dict
    sizes: dict
    counts: dict


def make_durable(filesystem, path=None):
    """What was written is on the disk for certain when this returns: everything below `path`, or, where it was removed,
    that it is gone.

    ext4 and btrfs do that best by `syncfs`, all at once: an fsync of each of many new files would cost them a commit or a
    flush of the disk each, and would flatter cairn. A FUSE daemon never sees `syncfs`, so there it is `fsync` of each file
    and each directory.
    """
    if filesystem.daemon is None:
        syncfs(filesystem.at)
        return
    if path is not None:
        for directory, _directories, files in os.walk(path, topdown=False):
            for name in files:
                fsync(os.path.join(directory, name))
            fsync(directory)
        if not os.path.isdir(path):
            fsync(path)
    fsync(filesystem.at)


def fsync(path):
    """Of a file or a directory; a link or a device has nothing of its own to wait for."""
    if os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def warm_up(path):
    """Reads it all, names and attributes too, so that a copy finds its source in memory."""
    read_tree(path) if os.path.isdir(path) else read_file(path)
    run("find", path, "-printf", "", "-size", "+0")


def read_tree(path):
    # Not tar: it does not read what it would write to /dev/null.
    shell('find "$1" -type f -print0 | xargs -0 -r cat --', path)


def read_file(path):
    run("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def shell(script, *arguments):
    """A pipeline whose output nobody needs. It fails if any part of it fails."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, "bench", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise Trouble(f"{script} failed with {done.returncode} on {arguments}: {done.stderr.strip()}")


# ---- What steps do ----


def copy(source, name):
    def does(scene):
        run("cp", "-a", scene.inputs.paths[source], os.path.join(scene.at, name))

    return does


def stream(source, name):
    def does(scene):
        run("dd", f"if={scene.inputs.paths[source]}", f"of={scene.at}/{name}", "bs=1M", "status=none")

    return does


def read(name):
    def does(scene):
        path = os.path.join(scene.at, name)
        read_tree(path) if os.path.isdir(path) else read_file(path)

    return does


def find(name):
    def does(scene):
        # The size is what makes find ask for each file's attributes.
        run("sh", "-c", 'exec find "$1" -printf "%s %T@ %p\\n" >/dev/null', "bench", os.path.join(scene.at, name))

    return does


def remove(name):
    def does(scene):
        run("rm", "-rf", os.path.join(scene.at, name))

    return does


def fio(name, size, count, *options):
    """4 KiB at a time, one after the other. `size` and `count` are names among the inputs' sizes and counts."""

    def does(scene):
        said = run(
            "fio",
            f"--name={name}",
            f"--filename={scene.at}/{name}",
            f"--size={scene.inputs.sizes[size]}",
            f"--number_ios={scene.inputs.counts[count]}",
            "--bs=4k",
            "--ioengine=psync",
            "--output-format=json",
            *options,
        )
        # A note of fio's may stand before its document.
        job = json.loads(said[said.index("{") :])["jobs"][0]
        side = job["write"] if job["write"]["total_ios"] else job["read"]
        if not side["total_ios"] or job["error"]:
            raise Trouble(f"fio did nothing: {said}")
        waits = [job["sync"]["lat_ns"], side["clat_ns"]]
        p99 = next((w["percentile"]["99.000000"] for w in waits if "percentile" in w), None)
        return {
            "value": side["runtime"] * 1000 / side["total_ios"],
            "ops": side["total_ios"],
            "p99_us": None if p99 is None else p99 / 1000,
        }

    return does


def rates(which):
    def does(scene):
        directory = os.path.join(scene.at, f"rates-{which}")
        os.mkdir(directory)
        said = run(os.path.join(scene.bin, "examples", "rates"), directory, scene.inputs.counts["rounds"])
        return {"value": json.loads(said)[f"{which}_us"]}

    return does


# ---- The workloads ----

DISKS = ("ext4", "btrfs", "cairn")
EVERY = ("ext4", "btrfs", "memfs", "cairn")

ALL = (
    Workload(
        "tree",
        "A tree of real files",
        EVERY,
        (
            Step("copy", "cp -a", WRITE, copy("tree", "first"), source="tree", wrote="first", moves="tree"),
            Step("mount", "mount, cold", COLD, None, only=DISKS),
            Step("cold-find", "find and stat everything, cold", COLD, find("first")),
            Step("warm-find", "again, warm", WARM, find("first")),
            Step("cold-read", "read everything, cold", COLD, read("first"), moves="tree"),
            # The kernel asks a FUSE filesystem once more for the times of a file that was read: here, and not again.
            Step("second-read", "a second time", WARM, read("first"), moves="tree"),
            Step("warm-read", "again, warm", WARM, read("first"), moves="tree"),
            Step(
                "copy-again", "cp -a, a second copy", WRITE, copy("tree", "second"),
                source="tree", wrote="second", moves="tree", only=DISKS,
            ),
            Step(
                "copy-edited", "cp -a, with 5% of the files changed", WRITE, copy("edited", "third"),
                source="edited", wrote="third", moves="edited", only=DISKS,
            ),
            Step("remove", "rm -rf of one copy", WRITE, remove("second"), only=DISKS),
        ),
        "Small files are bound by the number of operations. Through FUSE, cp -a sends some ten requests a file, each a round "
        "trip through the kernel: the bar of the FUSE filesystem in memory is that cost alone. Reads are bound by "
        "decompression while they are cold, and by the kernel's own cache once they are warm; the second time, the kernel asks for each "
        "file's times once more, since reading may have changed them. Removing is one request a file.",
    ),
    Workload(
        "streams",
        "Big files, written from front to back",
        DISKS,
        (
            Step("new", "new, compressible", WRITE, stream("new", "new"), source="new", wrote="new", moves="new"),
            Step(
                "random", "new, incompressible", WRITE, stream("random", "random"),
                source="random", wrote="random", moves="random",
            ),
            Step("duplicate", "the first once more", WRITE, stream("new", "again"), source="new", wrote="again", moves="new"),
            Step("cold-new", "read the compressible one, cold", COLD, read("new"), moves="new"),
            Step("warm-new", "again, warm", WARM, read("new"), moves="new"),
            Step("cold-random", "read the incompressible one, cold", COLD, read("random"), moves="random"),
        ),
        "A burst that fits the journal is bound by FUSE and by the disk; compression comes behind it and is the time until "
        "settled. A duplicate costs cutting and hashing, and next to no room. Cold reads are bound by decompression on "
        "all cores.",
    ),
    Workload(
        "long",
        "A new file eight times as long as the journal",
        DISKS,
        (
            Step("write", "write, compressible", WRITE, stream("long", "long"), source="long", wrote="long", moves="long"),
            Step("cold-read", "read it, cold", COLD, read("long"), moves="long"),
        ),
        "The journal is full after an eighth, so that nothing can be put off any more: this is the sustained rate, bound by "
        "compression on all cores and by writing everything twice.",
    ),
    Workload(
        "small",
        "Single operations",
        DISKS,
        (
            Step(
                "fsync", "write 4 KiB anywhere, fsync", WRITE,
                fio("synced", "synced", "syncs", "--rw=randwrite", "--fsync=1"), MICROSECONDS, wrote="synced",
            ),
            Step("put", "the file for the reads", WRITE, stream("probe", "probe"), source="probe", wrote="probe", moves="probe"),
            Step(
                "cold-4k", "read 4 KiB anywhere, cold", COLD,
                fio("probe", "probe", "cold-reads", "--rw=randread", "--readonly", "--norandommap"), MICROSECONDS,
            ),
            Step("warm-all", "read all of that file", WARM, read("probe"), moves="probe"),
            Step(
                "warm-4k", "read 4 KiB anywhere, warm", WARM,
                fio("probe", "probe", "warm-reads", "--rw=randread", "--readonly", "--norandommap", "--invalidate=0"),
                MICROSECONDS,
            ),
            Step("stat", "stat, warm", WARM, rates("stat"), MICROSECONDS),
            Step("open", "open and close, warm", WARM, rates("open"), MICROSECONDS),
        ),
        "An fsync is bound by the disk's flush and, here, one more round trip through FUSE. A cold read of 4 KiB decodes a "
        "whole frame of up to 256 KiB. Warm reads and stats are answered by the kernel alone; opening a file asks the daemon.",
    ),
)


def by_key(keys):
    """The workloads named, in the order of `ALL`."""
    unknown = set(keys) - {workload.key for workload in ALL}
    if unknown:
        known = ", ".join(workload.key for workload in ALL)
        raise Trouble(f"there is no workload {', '.join(sorted(unknown))}: choose from {known}")
    return [workload for workload in ALL if workload.key in keys]
