"""Advisory locks, whole files' and ranges', between two processes: locks.py DIR."""

import fcntl
import os
import struct
import sys

path = sys.argv[1] + "/locked"
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.write(fd, bytes(1000))


def in_child(work):
    """What `work` gives in another process, with a descriptor of its own."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work(os.open(path, os.O_RDWR))
        except OSError as error:
            answer = type(error).__name__
        os.write(into, str(answer).encode())
        os._exit(0)
    os.close(into)
    answer = os.read(out, 100).decode()
    os.close(out)
    assert os.waitpid(child, 0)[1] == 0
    return answer


def tries(lock, *arguments):
    return in_child(lambda other: lock(other, *arguments))


EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB

fcntl.flock(fd, EXCLUSIVE)
assert tries(fcntl.flock, EXCLUSIVE) == "BlockingIOError"
assert tries(fcntl.flock, SHARED) == "BlockingIOError"
fcntl.flock(fd, SHARED)
assert tries(fcntl.flock, SHARED) == "None"
assert tries(fcntl.flock, EXCLUSIVE) == "BlockingIOError"
fcntl.flock(fd, fcntl.LOCK_UN)
assert tries(fcntl.flock, EXCLUSIVE) == "None"

# Ranges: bytes 100 to 199.
fcntl.lockf(fd, EXCLUSIVE, 100, 100)
assert tries(fcntl.lockf, EXCLUSIVE, 100, 0) == "None"
assert tries(fcntl.lockf, EXCLUSIVE, 1, 199) == "BlockingIOError"
assert tries(fcntl.lockf, SHARED, 10, 95) == "BlockingIOError"
assert tries(fcntl.lockf, EXCLUSIVE, 0, 200) == "None"


def holder(other):
    """Who holds the lock, as the kernel tells it."""
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, start, length, pid = struct.unpack("hhqqi", fcntl.fcntl(other, fcntl.F_GETLK, asked)[:28])
    return (kind == fcntl.F_WRLCK, start, length, pid == os.getppid())


assert in_child(holder) == "(True, 100, 100, True)", in_child(holder)
fcntl.lockf(fd, fcntl.LOCK_UN, 100, 100)
assert tries(fcntl.lockf, EXCLUSIVE, 0, 0) == "None"

# A process's range locks go with any of its descriptors; a lock waits for its holder.
fcntl.lockf(fd, EXCLUSIVE)
os.close(os.open(path, os.O_RDONLY))
assert tries(fcntl.lockf, EXCLUSIVE) == "None"

fcntl.flock(fd, fcntl.LOCK_EX)
ready, tell = os.pipe()
child = os.fork()
if child == 0:
    other = os.open(path, os.O_RDWR)
    os.write(tell, b"x")
    fcntl.flock(other, fcntl.LOCK_EX)
    os.write(other, b"child")
    os._exit(0)
os.read(ready, 1)
os.pwrite(fd, b"parent", 0)
fcntl.flock(fd, fcntl.LOCK_UN)
assert os.waitpid(child, 0)[1] == 0
assert os.pread(fd, 6, 0) == b"childt", os.pread(fd, 6, 0)
