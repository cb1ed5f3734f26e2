"""The report as one page: HTML with its style and drawings in it, nothing loaded from elsewhere."""

import html
import os

import figures
import tables
from tables import TITLES, number, size

SHORT = {"ext4": "ext4", "btrfs": "btrfs", "memfs": "memfs", "cairn": "cairn"}
# Which targets stand at the top, by workload, step and field, with the words for them.
HEADLINES = (
    ("First copy of a tree", "tree", "copy", "btrfs", "value"),
    ("Second copy of it", "tree", "copy-again", "btrfs", "value"),
    ("Room for two copies, journal aside", "tree", "copy-again", "btrfs", figures.SPACE_ALONE),
    ("Reading a tree, cold", "tree", "cold-read", "btrfs", "value"),
    ("A big new file", "streams", "new", "btrfs", "value"),
    ("A file of eight journals", "long", "write", "btrfs", "value"),
    ("4 KiB with fsync", "small", "fsync", "ext4", "value"),
    ("stat, warm", "small", "stat", "ext4", "value"),
)
WORDS = (
    (
        "ext4, btrfs, memfs, cairn",
        "ext4 as mkfs makes it; btrfs mounted with compress=zstd:1; memfs, a FUSE filesystem that keeps everything in memory, "
        "with cairn's own settings: what the road through the kernel costs by itself; cairn, its volume on ext4. Each "
        "in its turn on the same image on a loop device.",
    ),
    (
        "Durable",
        "Each write ends durable, and its time includes that: on ext4 and btrfs by syncfs, which does it in one go; a FUSE daemon "
        "never hears of that, so on cairn and memfs by an fsync of every file and every directory that was written.",
    ),
    (
        "Settled",
        "Nothing is left to do in the background: for cairn, everything is deduplicated, compressed and in packs (cairn sync); "
        "for the others, written back. The next step begins only then.",
    ),
    (
        "Cold, warm",
        "Cold: unmounted, mounted again, and all the kernel's caches dropped (for memfs only the caches). Warm: the same once more.",
    ),
    (
        "Bars, dots, ratios",
        "A bar is the median; each dot is one repetition. Ratios are of medians; their range is that of the ratios within each "
        "repetition. Each group of bars has a scale of its own, from zero. Less is better everywhere.",
    ),
    (
        "CPU seconds",
        "Client: the program that copies or reads. Daemon: the filesystem's process. Kernel: what the whole machine spent beside "
        "these two, which is where ext4 and btrfs do their work. Where something else ran on the machine it is in there, too.",
    ),
)


def text(value):
    return html.escape(str(value))


def page(report):
    with open(os.path.join(os.path.dirname(__file__), "page.css"), encoding="utf-8") as file:
        style = file.read()
    title = f"cairn {report['cairn']['version']}, measured"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title><style>{style}</style></head><body>",
        f"<h1>{text(title)}</h1>",
        '<p class="soft">Beside ext4, btrfs zstd:1 and a FUSE filesystem in memory, in one run.</p>',
        _cards(report),
        '<ul class="conditions">' + "".join(f"<li>{text(line)}</li>" for line in tables.conditions(report)) + "</ul>",
        _targets(report["targets"]),
        *(_workload(workload) for workload in report["workloads"]),
        _words(),
        _details(report),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


# ---- What it comes to ----


def _cards(report):
    cards = []
    for words, workload, key, peer, name in HEADLINES:
        step = figures.step_of(report, workload, key)
        seen = step and figures.ratio(step, "cairn", peer, name)
        if not seen:
            continue
        target = next(t for t in figures.TARGETS if (t.workload, t.step, t.peer, t.name) == (workload, key, peer, name))
        verdict = "met" if seen[0] <= target.limit else "missed"
        ours, theirs = (_amount(step, fs, name) for fs in ("cairn", peer))
        cards.append(
            f'<div class="card"><span>{text(words)}</span><b>{number(seen[0])} ×</b>'
            f"<span>{ours}; {text(TITLES[peer])} {theirs}</span>"
            f'<span class="{verdict}">target {tables.limit(target.limit)}: {verdict}</span></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _amount(step, filesystem, name):
    value = figures.median(figures.values(step, filesystem, name))
    return size(value) if name in (figures.SPACE, figures.SPACE_ALONE) else f"{number(value)} {_unit(step)}"


def _unit(step):
    return "µs" if step["unit"] == "us" else step["unit"]


def _targets(targets):
    if not targets:
        return ""
    rows = [
        "<h2>Targets</h2>",
        "<p>cairn's figure divided by the peer's. The vertical line is the target: what ends left of it is met. The thin line is "
        "the range over the repetitions; what would lie beyond the right edge is drawn at it.</p>",
    ]
    for target in targets:
        verdict = "met" if target["met"] else "missed"
        # The target stands in the same place in each row.
        ratio, least, most = (min(100.0, 40 * target[name] / target["limit"]) for name in ("ratio", "least", "most"))
        spread = "" if least == most else f'<line class="range" x1="{least:.2f}%" x2="{most:.2f}%" y1="9" y2="9"/>'
        rows.append(
            f'<div class="target {verdict}"><div class="what">{text(target["text"])} '
            f'<small>against {text(TITLES[target["peer"]])}</small></div>'
            f'<svg class="track" role="img" aria-label="{number(target["ratio"])} of at most {target["limit"]:.3g}">'
            f'<rect class="back" y="7" height="4" width="100%" rx="2"/>{spread}'
            f'<line class="limit" x1="40%" x2="40%" y1="0" y2="18"/><circle class="mark" cx="{ratio:.2f}%" cy="9" r="5"/></svg>'
            f'<div><b>{number(target["ratio"])}</b> of {tables.limit(target["limit"])}: {verdict}</div></div>'
        )
    return "\n".join(rows)


# ---- Bars ----


def _bar(filesystem, segments, dots, scale, shown, note=""):
    """One row. Segments follow each other from the left, each paler than the one before it."""
    drawn, at = [], 0.0
    for value, paleness in segments:
        width = 100 * max(value, 0) / scale
        drawn.append(f'<rect class="{filesystem} {paleness}" x="{at:.2f}%" y="2" width="{width:.2f}%" height="14"/>')
        at += width
    drawn += [f'<circle class="dot" cx="{100 * dot / scale:.2f}%" cy="9" r="3.2"/>' for dot in dots]
    small = f" <small>{text(note)}</small>" if note else ""
    return (
        f'<div class="bar"><div>{SHORT[filesystem]}</div>'
        f'<svg class="track" role="img" aria-label="{text(SHORT[filesystem])}: {text(shown)}">'
        f'<rect class="back" y="2" width="100%" height="14"/>{"".join(drawn)}</svg>'
        f'<div class="figure">{text(shown)}{small}</div></div>'
    )


def _key(entries):
    swatches = "".join(
        f'<span><svg aria-hidden="true"><rect class="cairn {paleness}" width="100%" height="100%"/></svg>{text(words)}</span>'
        for words, paleness in entries
    )
    return f'<div class="key">{swatches}</div>'


def _workload(workload):
    names = tables.present(workload)
    parts = [f"<h2>{text(workload['title'])}</h2>", f"<p>{text(workload['bound'])}</p>", "<h4>Time</h4>"]
    parts.append(_key((("the step, made durable", ""), ("what comes after it until settled", "third"))))
    parts += [_times(step, names) for step in workload["steps"]]
    cpu = [_cpu(step, names) for step in workload["steps"] if step["unit"] == "s"]
    if any(cpu):
        parts.append("<h4>CPU seconds</h4>")
        parts.append(_key((("client", ""), ("daemon", "second"), ("kernel", "third"), ("until settled", "fourth"))))
        parts += cpu
    space = [_space(step, names) for step in workload["steps"]]
    if any(space):
        parts.append("<h4>Room on disk, once settled, all steps so far together</h4>")
        parts.append(_key((("data and metadata", ""), ("cairn's journal, set aside once", "third"))))
        parts += space
    return "\n".join(part for part in parts if part)


def _times(step, names):
    rows = []
    for name in names:
        values = figures.values(step, name)
        if values:
            settle = figures.median(figures.values(step, name, "settle_seconds")) if step["unit"] == "s" else None
            rows.append((name, values, figures.median(values), settle or 0.0))
    if not rows:
        return ""
    scale = max(max(*values, median + settle) for _, values, median, settle in rows) or 1.0
    # No dot is cut by the edge.
    scale *= 1.02
    lines = [f"<h3>{text(step['title'])}</h3>"]
    for name, values, median, settle in rows:
        note = tables.rate(step["bytes"], median)
        segments = [(median, ""), (settle, "third")]
        lines.append(_bar(name, segments, values, scale, f"{number(median)} {_unit(step)}", note))
    return "\n".join(lines)


def _cpu(step, names):
    rows = []
    for name in names:
        medians = [figures.median(figures.values(step, name, f"cpu_{part}")) for part in ("client", "daemon", "machine")]
        if None in medians:
            continue
        client, daemon, machine = medians
        settle = figures.median(figures.values(step, name, "settle_cpu_machine")) or 0.0
        rows.append((name, [(client, ""), (daemon, "second"), (max(machine - client - daemon, 0), "third"), (settle, "fourth")]))
    # Three hundredths are what /proc/stat can tell apart.
    scale = max((sum(value for value, _ in segments) for _, segments in rows), default=0)
    if scale < 0.03:
        return ""
    lines = [f"<h3>{text(step['title'])}</h3>"]
    for name, segments in rows:
        lines.append(_bar(name, segments, [], scale, f"{number(sum(value for value, _ in segments))} s"))
    return "\n".join(lines)


def _space(step, names):
    rows = []
    for name in names:
        used = figures.median(figures.values(step, name, figures.SPACE))
        if used is not None:
            alone = figures.median(figures.values(step, name, figures.SPACE_ALONE))
            rows.append((name, used, alone))
    scale = max((used for _, used, _ in rows), default=0)
    if scale <= 0:
        return ""
    lines = [f"<h3>{text(step['title'])}</h3>"]
    for name, used, alone in rows:
        note = f"{size(alone)} of data" if used - alone > 0 else ""
        lines.append(_bar(name, [(alone, ""), (used - alone, "third")], [], scale, size(used), note))
    return "\n".join(lines)


# ---- Words and numbers ----


def _words():
    entries = "".join(f"<dt>{text(word)}</dt><dd>{text(meaning)}</dd>" for word, meaning in WORDS)
    return f"<h2>What the words mean</h2><dl>{entries}</dl>"


def _details(report):
    parts = ["<h2>All figures</h2>"]
    for table in tables.all_tables(report):
        head = "".join(f"<th>{text(cell)}</th>" for cell in ["", *table.columns])
        rows = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
        parts.append(
            f"<details><summary>{text(table.title)}</summary>"
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
        )
    return "\n".join(parts)
