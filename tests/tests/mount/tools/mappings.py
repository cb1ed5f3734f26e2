"""Shared and private mappings against read, write and truncate, within a process and between two: mappings.py DIR."""

import mmap
import os
import signal
import sys

PAGE = 4096
path = sys.argv[1] + "/mapped"
size = 3 * 1024 * 1024 + 777
first = os.urandom(size)

with open(path, "wb") as file:
    file.write(first)
fd = os.open(path, os.O_RDWR)

# What is written through a shared mapping is read by read(2) at once, and by others.
shared = mmap.mmap(fd, size, mmap.MAP_SHARED)
assert shared[:] == first
expected = bytearray(first)
for at in range(0, size, 70_001):
    shared[at] = expected[at] = first[at] ^ 0xFF
assert os.pread(fd, size, 0) == expected
with open(path, "rb") as other:
    assert other.read() == expected
shared.flush()

# What is written by write(2) is in the mapping at once; the same for O_DIRECT once it was answered.
os.pwrite(fd, b"by write", 2 * PAGE - 3)
expected[2 * PAGE - 3 : 2 * PAGE + 5] = b"by write"
assert shared[:] == expected
direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, PAGE)
buffer[:] = b"d" * PAGE
os.pwrite(direct, buffer, 5 * PAGE)
os.close(direct)
expected[5 * PAGE : 6 * PAGE] = b"d" * PAGE
assert os.pread(fd, size, 0) == expected
assert shared[:] == expected

# A private mapping's changes are nobody else's.
private = mmap.mmap(fd, size, mmap.MAP_PRIVATE)
private[0:7] = b"private"
assert os.pread(fd, 7, 0) == expected[:7] and shared[:7] == expected[:7]

# Another process maps the same file; both see both.
child = os.fork()
if child == 0:
    other = os.open(path, os.O_RDWR)
    theirs = mmap.mmap(other, size, mmap.MAP_SHARED)
    theirs[100:105] = b"child"
    theirs.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
expected[100:105] = b"child"
assert shared[100:105] == b"child" and os.pread(fd, 5, 100) == b"child"

# Cut under a mapping: the rest stays, the end of the last page is zeros and never reaches the file, and touching a page
# behind the end is a SIGBUS, in a process of its own.
shared.flush()
cut = 10 * PAGE + 100
os.ftruncate(fd, cut)
assert shared[:cut] == expected[:cut]
assert shared[cut : 11 * PAGE] == bytes(11 * PAGE - cut)
shared[cut : cut + 4] = b"lost"
child = os.fork()
if child == 0:
    shared[20 * PAGE]
    os._exit(0)
status = os.waitpid(child, 0)[1]
assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
shared.flush(0, 11 * PAGE)
os.ftruncate(fd, size)
assert os.pread(fd, size, cut + 4) == bytes(size - cut - 4), "what was cut off came back"
found = os.pread(fd, 4, cut)
# The kernel clears the last page's end when the file grows (POSIX leaves it open); either way nothing else is there.
assert found in (bytes(4), b"lost"), found

# A mapping outlives its descriptor and the file's name.
os.close(fd)
os.unlink(path)
shared[0:4] = b"last"
assert shared[0:4] == b"last"
shared.flush(0, PAGE)
shared.close()

# A file made through a mapping alone, over a hole.
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
made = mmap.mmap(fd, 1 << 20, mmap.MAP_SHARED)
made[500_000:500_004] = b"here"
made.flush()
made.close()
os.close(fd)
with open(path, "rb") as file:
    data = file.read()
assert data == bytes(500_000) + b"here" + bytes((1 << 20) - 500_004)
