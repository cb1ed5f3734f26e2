"""Measures cairn's codec beside zipnn and zstd -3 in frames of 64 KiB: the same numbers, one thread, interleaved.

Usage: speeds.py EXAMPLE INPUTS JSON ROUNDS

EXAMPLE is benches/examples/tensors.rs, built; INPUTS a directory that inputs.py made; JSON a file for what was measured. All times are
processor time. Each round measures all three on an input, one after the other, a few times each; what counts is the best of all ROUNDS
for each. Prints a table in Markdown.
"""

import json
import pathlib
import subprocess
import sys
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).parent / "stub"))
_torch = types.ModuleType("safetensors.torch")
for _name in ("safe_open", "save_file", "load_file"):
    setattr(_torch, _name, None)
sys.modules["safetensors.torch"] = _torch

import zipnn
import zstandard

FRAME = 64 << 10
# How often each is measured in a round: the first time is slower, for all of them.
TRIES = 3


def timed(work):
    since = time.process_time()
    result = work()
    return time.process_time() - since, result


def cairn(example, path, *options):
    """Figures of each type of a file's tensors."""
    out = subprocess.run([example, "--json", "--kernel=" + kernel(example, path), *options, path], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


_kernel = None


def kernel(example, path):
    """The fastest that the processor has: the first that is told."""
    global _kernel
    if _kernel is None:
        out = subprocess.run([example, "--json", "--speed", "--passes=1", path], check=True, capture_output=True, text=True)
        _kernel = json.loads(out.stdout.splitlines()[0])["kernel"]
    return _kernel


def with_zipnn(numbers, dtype):
    """Share of the size, seconds to compress and to decompress."""
    codec = zipnn.ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)
    # It takes what it may write into.
    copy = bytearray(numbers)
    encoding, coded = timed(lambda: codec.compress(copy))
    decoding, plain = timed(lambda: codec.decompress(coded))
    if bytes(plain) != numbers:
        raise SystemExit("zipnn gave other bytes back")
    return len(coded) / len(numbers), encoding, decoding


def with_zstd(numbers):
    compressor, decompressor = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    frames = [numbers[at : at + FRAME] for at in range(0, len(numbers), FRAME)]
    encoding, coded = timed(lambda: [compressor.compress(frame) for frame in frames])
    decoding, plain = timed(lambda: [decompressor.decompress(frame) for frame in coded])
    if plain != frames:
        raise SystemExit("zstd gave other bytes back")
    return sum(map(len, coded)) / len(numbers), encoding, decoding


def better(best, new):
    """The size, and the least seconds of each."""
    return new if best is None else (new[0], min(best[1], new[1]), min(best[2], new[2]))


def measure(example, directory, entry, rounds):
    path = str(directory / entry["file"])
    numbers = (directory / entry["file"]).read_bytes()[entry["data"] :]
    told = cairn(example, path, "--passes=1")
    plain = sum(figures["plain"] for figures in told)
    mean = lambda key: sum(figures[key] * figures["plain"] for figures in told) / plain
    most = max(told, key=lambda figures: figures["plain"])
    best = {"cairn": None, "zipnn": None, "zstd": None}
    for _ in range(rounds):
        figures = cairn(example, path, "--speed", f"--passes={TRIES}")
        seconds = lambda key: sum(f["plain"] / 1e6 / f[key] for f in figures)
        best["cairn"] = better(best["cairn"], (mean("kept") / 100, seconds("encoded"), seconds("decoded")))
        if entry["zipnn"]:
            try:
                for _ in range(TRIES):
                    best["zipnn"] = better(best["zipnn"], with_zipnn(numbers, entry["zipnn"]))
            except (ValueError, KeyError, TypeError) as error:
                print(f"zipnn does not take {entry['zipnn']}: {error}", file=sys.stderr)
                entry["zipnn"] = None
        for _ in range(TRIES):
            best["zstd"] = better(best["zstd"], with_zstd(numbers))
    result = {"name": entry["name"], "bytes": plain, "as_bytes": mean("as_bytes"), "planes": mean("size")}
    result["fetched"] = dict(zip(("4 KiB", "64 KiB", "1 MiB"), most["fetched"]))
    for name, figures in best.items():
        if figures:
            size, encoding, decoding = figures
            result[name] = {"size": 100 * size, "encoded": plain / 1e6 / encoding, "decoded": plain / 1e6 / decoding}
    return result


def table(results):
    """Sizes, and how many times as fast cairn is."""
    lines = ["| | cairn | zipnn | zstd -3 | cairn: encoded, decoded, MB/s | against zipnn | against zstd -3 | 4 KiB fetch | 64 KiB | 1 MiB |"]
    lines.append("| --- " * 10 + "|")
    for of in results:
        ours = of["cairn"]
        size = lambda name: f"{of[name]['size']:.2f}%" if name in of else "–"
        times = lambda name: "{:.1f}x, {:.1f}x".format(*(ours[k] / of[name][k] for k in ("encoded", "decoded"))) if name in of else "–"
        fetched = " | ".join(f"{times:.2f}x" for times in of["fetched"].values())
        lines.append(
            f"| {of['name']} | {size('cairn')} | {size('zipnn')} | {size('zstd')} | {ours['encoded']:.0f}, {ours['decoded']:.0f} "
            f"| {times('zipnn')} | {times('zstd')} | {fetched} |"
        )
    return "\n".join(lines)


def main(example, directory, out, rounds):
    directory = pathlib.Path(directory)
    results = []
    for entry in json.loads((directory / "inputs.json").read_text()):
        print(f"measuring {entry['name']}", file=sys.stderr)
        results.append(measure(example, directory, entry, int(rounds)))
    document = {"kernel": _kernel, "rounds": int(rounds), "inputs": results}
    pathlib.Path(out).write_text(json.dumps(document, indent=1))
    print(table(results))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
