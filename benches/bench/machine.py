"""What the machine is, and what a stretch of time cost it: seconds, processor time, bytes read."""

import datetime
import os
import platform
import resource
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


def facts():
    """What a figure means nothing without."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": memory("MemTotal"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "load_before": os.getloadavg()[0],
    }


def _cpu_model():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "not told"


def memory(field):
    """A field of /proc/meminfo, in bytes."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) << 10
    raise OSError(f"/proc/meminfo has no {field}")


def commit(root):
    """The commit of the checkout at `root`, with + if it was edited; None outside of one."""
    git = ["git", "-c", "safe.directory=*", "-C", root]
    head = subprocess.run(git + ["rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if head.returncode != 0:
        return None
    edited = subprocess.run(git + ["status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
    return head.stdout.strip() + ("+" if edited.strip() else "")


def _machine_cpu():
    """Processor seconds since boot that were spent on anything: all of `cpu` but idle, iowait and stolen time."""
    with open("/proc/stat", encoding="ascii") as lines:
        ticks = [int(field) for field in lines.readline().split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = ticks[:7]
    return (user + nice + system + irq + softirq) / TICKS


def _client_cpu():
    """Processor seconds of this program and of the children it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _daemon_cpu(pid):
    if pid is None:
        return 0.0
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        # The name in parentheses may hold blanks.
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _read_bytes():
    """Bytes that read calls of this program and of the children it has waited for returned."""
    with open("/proc/self/io", encoding="ascii") as lines:
        return int(lines.readline().split()[1])


def forget_peak(pid):
    """Lets a process's peak of resident memory begin anew."""
    if pid is not None:
        with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")


def peak(pid):
    """A process's peak of resident memory (VmHWM), in bytes."""
    if pid is None:
        return None
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return None


class Meter:
    """`with Meter(pid) as meter`: what the block took, once it is over. `pid` is the filesystem's daemon, or None."""

    def __init__(self, pid):
        self.pid = pid

    def _now(self):
        # The clock is read last on the way in and first on the way out.
        return [_machine_cpu(), _client_cpu(), _daemon_cpu(self.pid), _read_bytes()]

    def __enter__(self):
        self.before = self._now()
        self.began = time.monotonic()
        return self

    def __exit__(self, *_error):
        self.seconds = time.monotonic() - self.began
        after = self._now()
        self.cpu_machine, self.cpu_client, self.cpu_daemon, self.read = (
            now - before for now, before in zip(after, self.before)
        )
