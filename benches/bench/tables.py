"""The report as tables, in plain text and in Markdown."""

import dataclasses

import figures

TITLES = {"ext4": "ext4", "btrfs": "btrfs zstd:1", "memfs": "FUSE in memory", "cairn": "cairn"}


@dataclasses.dataclass
class Table:
    title: str
    columns: list
    rows: list


def number(value):
    """Three digits that mean something."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    for least, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.4f}"


def size(value):
    return "–" if value is None else f"{number(value / (1 << 20))} MiB"


def limit(value):
    """At most so much: as it was written down, without digits that say nothing."""
    return f"≤ {value:.3g}"


def rate(bytes_moved, seconds):
    if not bytes_moved or not seconds:
        return ""
    return f"{number(bytes_moved / seconds / 1e6)} MB/s"


def spread(numbers, shown=number):
    """The median, and the least and the most where there is more than one."""
    if not numbers:
        return "–"
    if len(numbers) == 1:
        return shown(numbers[0])
    return f"{shown(figures.median(numbers))} ({shown(min(numbers))}–{shown(max(numbers))})"


def present(workload):
    """The filesystems of a workload that were measured, in the order of `TITLES`."""
    seen = {name for step in workload["steps"] for name in step["measured"]}
    return [name for name in TITLES if name in seen]


def all_tables(report):
    tables = []
    for workload in report["workloads"]:
        names = present(workload)
        tables.append(_times(workload, names))
        tables.append(_writes(workload, names))
        tables.append(_cpu(workload, names))
    tables.append(_space(report))
    tables.append(_memory(report))
    tables.append(_targets(report))
    return [table for table in tables if table.rows]


def _ratio(step, peer, name="value"):
    seen = figures.ratio(step, "cairn", peer, name)
    return number(seen[0]) if seen else "–"


def _times(workload, names):
    rows = []
    for step in workload["steps"]:
        cells = [spread(figures.values(step, name)) for name in names]
        rows.append([f"{step['title']}, {step['unit']}", *cells, _ratio(step, "btrfs"), _ratio(step, "ext4")])
    columns = [TITLES[name] for name in names] + ["cairn/btrfs", "cairn/ext4"]
    return Table(f"{workload['title']}: median (least–most), each write until it is durable", columns, rows)


def _writes(workload, names):
    rows = []
    names = [name for name in names if name != "memfs"]
    for step in workload["steps"]:
        if step["kind"] == "write" and step["unit"] == "s":
            for label, field in (("making it durable, part of it", "durable_seconds"), ("until settled", figures.WHOLE)):
                cells = [spread(figures.values(step, name, field)) for name in names]
                ratios = [_ratio(step, "btrfs", field), _ratio(step, "ext4", field)]
                rows.append([f"{step['title']}: {label}, s", *cells, *ratios])
    columns = [TITLES[name] for name in names] + ["cairn/btrfs", "cairn/ext4"]
    return Table(f"{workload['title']}: making it durable, and until nothing is left to do", columns, rows)


def _cpu(workload, names):
    rows = []
    for step in workload["steps"]:
        cells = []
        for name in names:
            parts = ("cpu_client", "cpu_daemon", "cpu_machine", "cpu_whole")
            medians = [figures.median(figures.values(step, name, part)) for part in parts]
            cells.append("–" if medians[2] is None else " / ".join(number(part) for part in medians))
        if any(cell != "–" for cell in cells):
            rows.append([step["title"], *cells])
    title = f"{workload['title']}: CPU seconds: client / daemon / whole machine / with what comes until settled"
    return Table(title, [TITLES[name] for name in names], rows)


def _space(report):
    rows = []
    for workload in report["workloads"]:
        for step in workload["steps"]:
            cells = [spread(figures.values(step, name, figures.SPACE), size) for name in ("ext4", "btrfs", "cairn")]
            if step["kind"] == "write" and any(cell != "–" for cell in cells):
                alone = spread(figures.values(step, "cairn", figures.SPACE_ALONE), size)
                ratio = _ratio(step, "btrfs", figures.SPACE_ALONE)
                rows.append([f"{workload['key']}: {step['title']}", *cells, alone, ratio])
    columns = ["ext4", "btrfs zstd:1", "cairn", "cairn without its journal", "that/btrfs"]
    return Table("Room taken once the step has settled, everything before it in the workload included", columns, rows)


def _memory(report):
    rows = []
    for workload in report["workloads"]:
        for step in workload["steps"]:
            cells = [spread(figures.values(step, name, "peak_bytes"), size) for name in ("memfs", "cairn")]
            if any(cell != "–" for cell in cells):
                rows.append([f"{workload['key']}: {step['title']}", *cells])
    return Table("The daemon's peak of resident memory", ["FUSE in memory", "cairn"], rows)


def _targets(report):
    rows = []
    for target in report["targets"]:
        seen = number(target["ratio"])
        if target["most"] != target["least"]:
            seen += f" ({number(target['least'])}–{number(target['most'])})"
        verdict = "met" if target["met"] else "missed"
        rows.append([target["text"], TITLES[target["peer"]], limit(target["limit"]), seen, verdict])
    return Table("Targets: cairn's figure to the peer's, less is better", ["against", "target", "measured", ""], rows)


def conditions(report):
    """What has to be said beside any of the figures, a sentence each."""
    machine, options, given = report["machine"], report["options"], report["inputs"]
    cairn = report["cairn"]
    lines = [
        f"cairn {cairn['version']}, commit {cairn['commit'] or 'unknown'}, {machine['date']}; {machine['cores']} cores, "
        f"{machine['cpu']}, {number(machine['memory_bytes'] / (1 << 30))} GiB of memory, Linux {machine['kernel']}.",
        f"{options['repetitions']} repetitions, the filesystems in turn, each fresh on the same image of "
        f"{number(options['image_bytes'] / (1 << 30))} GiB on a loop device"
        + (" that passes the page cache by." if options["direct_io"] else ", cached twice (no direct I/O below)."),
        f"The tree: {given['counts']['files']:,} files, {size(given['sizes']['tree'])}, from /usr. Streams of "
        f"{size(given['sizes']['new'])}; the long one {size(given['sizes']['long'])}, cairn's journal at most "
        f"{options['journal']}.",
    ]
    if options["quick"]:
        lines.append("--quick: inputs so small that this says that everything works, and little about speed.")
    return lines + report["notes"] + report["failures"]


def text(report):
    lines = []
    for table in all_tables(report):
        rows = [["", *table.columns], *table.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += ["", table.title, ""]
        for row in rows:
            cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(["", *conditions(report), *lines, ""])


def markdown(report):
    lines = [*(f"- {line}" for line in conditions(report))]
    for table in all_tables(report):
        lines += ["", f"**{table.title}**", ""]
        lines.append("| | " + " | ".join(table.columns) + " |")
        lines.append("| --- |" + " --- |" * len(table.columns))
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"
