"""Saves a file again and again as editors do, while another process reads it: save.py write DIR TIMES, or check DIR LAST."""

import os
import sys


def content(version):
    return f"version {version}\n".encode() * (1 + version * 37 % 3000)


def version_of(data):
    version = int(data.split(b"\n", 1)[0].split()[1])
    assert data == content(version), f"version {version} is not whole"
    return version


def save(directory, version, certain):
    with open(f"{directory}/.new", "wb") as new:
        new.write(content(version))
        if certain:
            new.flush()
            os.fsync(new.fileno())
    os.rename(f"{directory}/.new", f"{directory}/text")
    if certain:
        fd = os.open(directory, os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
    print(f"version {version}", flush=True)


def read(directory):
    with open(f"{directory}/text", "rb") as text:
        return version_of(text.read())


def write(directory, times):
    save(directory, 0, True)
    reader = os.fork()
    if reader == 0:
        last = 0
        # Every read finds a whole version, and none older than the last.
        while last < times:
            try:
                found = read(directory)
            except OSError:
                # The mount is gone; the writer says so.
                os._exit(0)
            except BaseException as problem:
                print(problem, file=sys.stderr, flush=True)
                os._exit(1)
            if found < last:
                print(f"version {found} after {last}", file=sys.stderr, flush=True)
                os._exit(1)
            last = found
        os._exit(0)
    for version in range(1, times + 1):
        save(directory, version, version % 2 == 0)
    assert os.waitpid(reader, 0)[1] == 0, "the reader failed"


directory, number = sys.argv[2], int(sys.argv[3])
if sys.argv[1] == "write":
    write(directory, number)
else:
    found = read(directory)
    assert number <= found <= number + 1, f"version {found} is there, {number} was saved"
