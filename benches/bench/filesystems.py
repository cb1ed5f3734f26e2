"""The filesystems that are measured. Each is made anew on the same image, on a loop device, mounted at the same place."""

import ctypes
import os
import select
import shutil
import subprocess
import time

from machine import memory


class Trouble(Exception):
    """Something that ends the measurement, as a sentence."""


def run(*command, **options):
    """A command that has to work; what it printed is shown only if it did not."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if done.returncode != 0:
        raise Trouble(f"{' '.join(command)} failed with {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def drop_caches():
    """Everything clean leaves the kernel's memory: pages, names, inodes."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
        control.write("3")


def syncfs(path):
    """The filesystem's own way to make all of it durable. Never reaches a FUSE daemon."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise Trouble(f"syncfs of {path} failed: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def is_mounted(path):
    return os.path.ismount(path)


def wait_for_end(pid):
    """Of a process that is not a child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([fd], [], [], 60)[0]:
            raise Trouble(f"process {pid} has not ended a minute after its unmount")
    finally:
        os.close(fd)


class Image:
    """A file of a fixed length, every block of it written once, so that nobody pays for its allocation later."""

    def __init__(self, path, size):
        self.path = path
        self.device = None
        self.direct = True
        with open(path, "wb") as image:
            os.posix_fallocate(image.fileno(), 0, size)
            zeros = bytes(8 << 20)
            for _ in range(0, size, len(zeros)):
                image.write(zeros)
            image.truncate(size)
            image.flush()
            os.fsync(image.fileno())

    def attach(self):
        """A loop device that passes the page cache by, where the disk below allows it: one layer of caching, not two."""
        try:
            self.device = run("losetup", "-f", "--show", "--direct-io=on", self.path).strip()
        except Trouble:
            self.direct = False
            self.device = run("losetup", "-f", "--show", self.path).strip()

    def detach(self):
        if self.device is not None:
            run("losetup", "-d", self.device)
            self.device = None


class Filesystem:
    """`make` it, use it at `at`, `end` it. `daemon` is the process that serves it, or None."""

    name = title = ""
    daemon = None

    def __init__(self, place):
        self.place = place
        self.at = place.mountpoint

    def make(self):
        self.place.image.attach()
        self.format(self.place.image.device)
        self.mount()
        syncfs(self.at)
        self.empty = self._taken(self.at)

    def format(self, device):
        raise NotImplementedError

    def mount(self):
        raise NotImplementedError

    def unmount(self):
        run("umount", self.at)

    def settle(self):
        """Waits until nothing is left to do in the background."""
        syncfs(self.at)

    def used(self):
        """Bytes taken on the image since it was empty, and how many of them are a journal of fixed size."""
        return self._taken(self.at) - self.empty, 0

    @staticmethod
    def _taken(path):
        stat = os.statvfs(path)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def make_cold(self):
        """Unmounted, forgotten, mounted, forgotten: how long the mounting took."""
        self.unmount()
        drop_caches()
        began = time.monotonic()
        self.mount()
        took = time.monotonic() - began
        # The mount may have read what the next step asks for.
        drop_caches()
        return took

    def end(self):
        """Works from wherever it stands."""
        if is_mounted(self.at):
            self.unmount()
        self.place.image.detach()


def format_ext4(device):
    # What mkfs leaves to the background by default would run beside what is measured.
    options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    run("mkfs.ext4", "-q", "-F", "-E", options, device)


class Ext4(Filesystem):
    name, title = "ext4", "ext4"

    def format(self, device):
        format_ext4(device)

    def mount(self):
        run("mount", "-t", "ext4", self.place.image.device, self.at)


class Btrfs(Filesystem):
    name, title = "btrfs", "btrfs zstd:1"

    def format(self, device):
        run("mkfs.btrfs", "-q", "-f", "-K", device)

    def mount(self):
        run("mount", "-t", "btrfs", "-o", "compress=zstd:1", self.place.image.device, self.at)


class Cairn(Filesystem):
    """The volume's directory lies on an ext4 of its own on the image, so that nothing below it differs."""

    name, title = "cairn", "cairn"

    def format(self, device):
        format_ext4(device)
        run("mount", "-t", "ext4", device, self.place.below)
        syncfs(self.place.below)
        # Before the volume is there: what an empty volume takes counts.
        self.below_empty = self._taken(self.place.below)
        journal = ["--journal-size", self.place.journal] if self.place.journal else []
        run(self.place.bin / "mkfs-cairn", "-q", *journal, self._volume())
        run("umount", self.place.below)

    def _volume(self):
        return self.place.below / "volume"

    def mount(self):
        run("mount", "-t", "ext4", self.place.image.device, self.place.below)
        run(self.place.bin / "cairn", "mount", "-o", "suid,dev", self._volume(), self.at)
        self.daemon = self._find_daemon()

    def _find_daemon(self):
        wanted = os.fsencode(self._volume())
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as line:
                    words = line.read().split(b"\0")
            except OSError:
                continue
            if words[1:2] == [b"mount"] and wanted in words and words[0].endswith(b"cairn"):
                return int(pid)
        raise Trouble(f"{self._volume()} is mounted and no process serves it")

    def unmount(self):
        if is_mounted(self.at):
            run(self.place.bin / "cairn", "umount", self.at)
        if self.daemon is not None:
            # The volume is free by now, but until the process is gone the filesystem below is not.
            wait_for_end(self.daemon)
            self.daemon = None
        run("umount", self.place.below)

    def settle(self):
        run(self.place.bin / "cairn", "sync", self.at)
        syncfs(self.place.below)

    def used(self):
        syncfs(self.place.below)
        journal = 0
        for entry in os.scandir(self._volume() / "journal"):
            journal += entry.stat().st_blocks * 512
        return self._taken(self.place.below) - self.below_empty, journal

    def end(self):
        if is_mounted(self.place.below):
            self.unmount()
        self.place.image.detach()


class Memfs(Filesystem):
    """benches/examples/memfs.rs: what FUSE costs by itself. Has no disk; what is cold comes from its own memory."""

    name, title = "memfs", "FUSE in memory"

    def make(self):
        self.mount()

    def mount(self):
        self.process = subprocess.Popen(
            [self.place.bin / "examples" / "memfs", self.at], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.daemon = self.process.pid
        for _ in range(200):
            if is_mounted(self.at):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise Trouble("benches/examples/memfs did not mount: what it said is above")

    def settle(self):
        pass

    def used(self):
        return None, 0

    def make_cold(self):
        drop_caches()
        return None

    def end(self):
        if is_mounted(self.at):
            run("umount", self.at)
        if self.daemon is not None:
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.daemon = None


ALL = {kind.name: kind for kind in (Ext4, Btrfs, Memfs, Cairn)}


def missing(name, tree_bytes):
    """Why a filesystem cannot be measured here, or None."""
    if name == "btrfs":
        if shutil.which("mkfs.btrfs") is None:
            return "mkfs.btrfs is missing"
        with open("/proc/filesystems", encoding="ascii") as lines:
            if not any(line.split()[-1] == "btrfs" for line in lines):
                return "this kernel has no btrfs"
    if name == "memfs":
        if memory("MemAvailable") < 2 * tree_bytes:
            return "there is too little memory for a tree in it"
    return None
