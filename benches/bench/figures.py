"""From single measurements to medians, ratios and targets."""

import dataclasses
import statistics

WHOLE, SPACE, SPACE_ALONE = "whole", "space", "space_alone"


def field(figures, name):
    """A field of one measurement, or what is computed from several; None where it was not measured."""
    if name == WHOLE:
        settle = figures.get("settle_seconds")
        return None if settle is None else figures["seconds"] + settle
    if name == "cpu_whole":
        settle = figures.get("settle_cpu_machine")
        return None if settle is None else figures["cpu_machine"] + settle
    if name == SPACE:
        return figures.get("used_bytes")
    if name == SPACE_ALONE:
        used = figures.get("used_bytes")
        return None if used is None else used - figures["journal_bytes"]
    return figures.get(name)


def step_of(report, workload, step):
    for found in report["workloads"]:
        if found["key"] == workload:
            for candidate in found["steps"]:
                if candidate["key"] == step:
                    return candidate
    return None


def values(step, filesystem, name="value"):
    """One a repetition, in their order."""
    measured = step["measured"].get(filesystem, [])
    found = [field(figures, name) for figures in measured]
    return [] if any(value is None for value in found) else found


def median(numbers):
    return statistics.median(numbers) if numbers else None


def ratio(step, filesystem, peer, name="value"):
    """(ratio of the medians, least and most of the repetitions' own ratios), or None."""
    ours, theirs = values(step, filesystem, name), values(step, peer, name)
    if not ours or not theirs or min(theirs) <= 0:
        return None
    pairs = [a / b for a, b in _pairs(step, filesystem, peer, name)]
    seen = median(ours) / median(theirs)
    return seen, min(pairs, default=seen), max(pairs, default=seen)


def _pairs(step, filesystem, peer, name):
    """The figures of both from each repetition that has both."""
    by_repetition = {figures["repetition"]: figures for figures in step["measured"][peer]}
    for figures in step["measured"][filesystem]:
        if figures["repetition"] in by_repetition:
            yield field(figures, name), field(by_repetition[figures["repetition"]], name)


@dataclasses.dataclass(frozen=True)
class Target:
    """cairn's figure is to be at most `limit` times the peer's. All figures are such that less is better."""

    text: str
    workload: str
    step: str
    peer: str
    limit: float
    name: str = "value"


TARGETS = (
    Target("first copy of a tree", "tree", "copy", "btrfs", 1.2),
    Target("second copy of a tree", "tree", "copy-again", "btrfs", 0.7),
    Target("first copy until settled: folded, compressed, synced", "tree", "copy", "btrfs", 2.0, WHOLE),
    Target("room for two copies, the journal's own aside", "tree", "copy-again", "btrfs", 0.55, SPACE_ALONE),
    Target("room for two copies, with the journal's", "tree", "copy-again", "btrfs", 0.55, SPACE),
    Target("reading a tree, cold", "tree", "cold-read", "btrfs", 1.0),
    Target("reading a tree, warm", "tree", "warm-read", "btrfs", 1.05),
    Target("a big new file: 0.9 of the throughput", "streams", "new", "btrfs", 1 / 0.9),
    Target("a new file of eight journals: 0.9 of the throughput", "long", "write", "btrfs", 1 / 0.9),
    Target("the same until settled", "long", "write", "btrfs", 2.0, WHOLE),
    Target("reading a tree again: 0.6 of the throughput", "tree", "warm-read", "ext4", 1 / 0.6),
    Target("reading a big file again: 0.6 of the throughput", "streams", "warm-new", "ext4", 1 / 0.6),
    Target("stat, warm: 0.8 of the rate", "small", "stat", "ext4", 1 / 0.8),
    Target("4 KiB written and fsynced", "small", "fsync", "ext4", 1.6),
    Target("first copy of a tree", "tree", "copy", "memfs", 1.3),
)


def targets(report):
    """How cairn stands to each target whose two figures are there."""
    found = []
    for target in TARGETS:
        step = step_of(report, target.workload, target.step)
        seen = step and ratio(step, "cairn", target.peer, target.name)
        if seen:
            entry = {"text": target.text, "peer": target.peer, "limit": target.limit, "ratio": seen[0]}
            entry.update(least=seen[1], most=seen[2], met=seen[0] <= target.limit)
            found.append(entry)
    return found


def doubts(report):
    """What makes figures of this run mean less than they seem to, a sentence each."""
    step = step_of(report, "streams", "new")
    used = step and median(values(step, "btrfs", SPACE))
    if used and used > 0.9 * step["bytes"]:
        return ["btrfs gave up on compressing the compressible stream: its times there are those of no compression."]
    return []
