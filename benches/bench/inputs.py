"""What is copied and streamed, made before anything is measured."""

import os
import random
import shutil
import zlib

from filesystems import Trouble
from workloads import Inputs

MIB = 1 << 20
# Bytes of real files that a compressible stream is made of.
POOL = 64 * MIB
# Each of these is compressible by itself. btrfs looks at as much before it decides.
BLOCK = 8 << 10


def make(directory, tree, stream_bytes, long_bytes, probe_bytes, counts):
    """`tree` is there; everything else is made below `directory`."""
    paths = {"tree": tree}
    paths["edited"] = _edited(tree, os.path.join(directory, "edited"))
    pool = _pool(tree)
    for name, length in (("long", long_bytes), ("new", stream_bytes), ("probe", probe_bytes)):
        paths[name] = os.path.join(directory, name)
        # Each of another seed, so that none holds what another does.
        _compressible(paths[name], pool, length, name)
    paths["random"] = os.path.join(directory, "random")
    _random(paths["random"], stream_bytes)
    sizes = {"long": long_bytes, "new": stream_bytes, "random": stream_bytes, "probe": probe_bytes}
    sizes.update(tree=file_bytes(tree), edited=file_bytes(paths["edited"]), synced=min(64 * MIB, probe_bytes))
    counts = dict(counts, files=sum(1 for _ in files(tree)))
    os.sync()
    return Inputs(paths, sizes, counts)


def files(tree):
    """The regular files below a directory, by name."""
    for directory, directories, names in os.walk(tree):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def file_bytes(tree):
    return sum(os.path.getsize(path) for path in files(tree))


def _edited(tree, copy):
    """A copy of the tree with every twentieth file changed: in its middle, at its end, or as a whole by a line in front."""
    shutil.copytree(tree, copy, symlinks=True)
    for number, path in enumerate(files(copy)):
        if number % 20 == 0:
            _edit(path, number // 20)
    return copy


def _edit(path, number):
    line = b"line %d, which was not there before\n" % number
    with open(path, "r+b") as file:
        before = file.read()
        if number % 3 == 0:
            file.write(line)
        elif number % 3 == 1:
            file.seek(len(before) // 2)
            file.write(line)
        else:
            file.seek(0)
            file.write(line + before)


def _pool(tree):
    """Bytes of real files, from all over the tree, the largest of them only in part, as far as they are compressible.

    Block by block, and small ones: btrfs gives up on a whole file at the first place where zstd gains nothing.
    """
    pool, block = bytearray(), b""
    found = list(files(tree))
    random.Random("pool").shuffle(found)
    for path in found:
        with open(path, "rb") as file:
            block += file.read(MIB)
        whole = len(block) - len(block) % BLOCK
        for at in range(0, whole, BLOCK):
            if len(zlib.compress(block[at : at + BLOCK], 1)) < BLOCK * 0.6:
                pool += block[at : at + BLOCK]
        block = block[whole:]
        if len(pool) >= POOL:
            break
    if not pool:
        raise Trouble(f"{tree} holds nothing that is compressible, so that no stream can be made of it")
    return bytes(pool[:POOL])


def _compressible(path, pool, length, seed):
    """Real bytes again and again, each time under another permutation of the 256 values: as compressible, and new."""
    values = list(range(256))
    shuffler = random.Random(seed)
    with open(path, "wb") as file:
        left = length
        while left > 0:
            shuffler.shuffle(values)
            table = bytes(values)
            for at in range(0, min(left, len(pool)), MIB):
                file.write(pool[at : at + MIB].translate(table)[: min(MIB, left - at)])
            left -= min(left, len(pool))


def _random(path, length):
    with open(path, "wb") as file:
        for at in range(0, length, MIB):
            file.write(os.urandom(min(MIB, length - at)))
