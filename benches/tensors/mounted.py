"""Keeps a directory of checkpoints in a volume with tensor=on and in one with tensor=off: the room they take, and cold loads.

Usage: mounted.py BIN INPUTS WORKDIR JSON ROUNDS

BIN has cairn and mkfs-cairn; INPUTS is a directory that inputs.py made. Loads are by the package safetensors, as numpy arrays, each after
the mounts were made anew and the packs dropped from the page cache, with and without in turn; what counts is the best of ROUNDS. All that
is loaded is compared with what was put in.
"""

import filecmp
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from safetensors.numpy import load_file

# A base, what was made of it by training and by casting, and the same in parts: numpy knows no others of the types.
CHECKPOINTS = [
    "fp32.safetensors",
    "fine-tune-1.safetensors",
    "fine-tune-2.safetensors",
    "bf16.safetensors",
    "fine-tune-1-bf16.safetensors",
    "fine-tune-2-bf16.safetensors",
    "fp16.safetensors",
    "fp32-1-of-2.safetensors",
    "fp32-2-of-2.safetensors",
    "fp32.pt",
    "fp32.npz",
]
LOADED = ["fp32.safetensors", "fine-tune-1.safetensors", "fp16.safetensors"]


class Volume:
    def __init__(self, bin, where, tensor):
        self.cairn, self.tensor = f"{bin}/cairn", tensor
        self.dir, self.mount = where / f"{tensor}", where / f"mnt-{tensor}"
        self.mount.mkdir(parents=True)
        subprocess.run([f"{bin}/mkfs-cairn", self.dir], check=True, stdout=subprocess.DEVNULL)

    def __enter__(self):
        subprocess.run([self.cairn, "mount", self.dir, self.mount, "-o", f"tensor={self.tensor}"], check=True)
        return self.mount

    def __exit__(self, *_):
        subprocess.run([self.cairn, "umount", self.mount], check=True)

    def stored(self):
        """Bytes of the data, and of the packs with all that belongs to them."""
        out = subprocess.run([self.cairn, "df", "--json", self.mount], check=True, capture_output=True, text=True)
        df = json.loads(out.stdout)
        packs = sum(path.stat().st_size for path in (self.dir / "store" / "packs").rglob("*") if path.is_file())
        return df, packs

    def forget(self):
        """Drops the packs from the page cache."""
        for path in (self.dir / "store" / "packs").rglob("*"):
            if path.is_file():
                file = os.open(path, os.O_RDONLY)
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def main(bin, inputs, workdir, out, rounds):
    inputs, workdir = pathlib.Path(inputs), pathlib.Path(workdir)
    volumes = {tensor: Volume(bin, workdir, tensor) for tensor in ("on", "off")}
    document = {"files": CHECKPOINTS, "logical": sum((inputs / name).stat().st_size for name in CHECKPOINTS)}
    for tensor, volume in volumes.items():
        with volume as mount:
            for name in CHECKPOINTS:
                shutil.copyfile(inputs / name, mount / name)
            subprocess.run([volume.cairn, "sync", mount], check=True)
            df, packs = volume.stored()
            document[tensor] = {"packs": packs, "df": df}
    expected = {name: load_file(inputs / name) for name in LOADED}
    best = {name: {} for name in LOADED}
    for _ in range(int(rounds)):
        for name in LOADED:
            for tensor, volume in volumes.items():
                volume.forget()
                with volume as mount:
                    since = time.perf_counter()
                    tensors = load_file(mount / name)
                    # Arrays may be views of a mapping: what is loaded is looked at.
                    same = all((tensors[key].view("u1") == array.view("u1")).all() for key, array in expected[name].items())
                    seconds = time.perf_counter() - since
                if not same:
                    raise SystemExit(f"{name} with tensor={tensor} holds other numbers than were put in")
                best[name][tensor] = min(best[name].get(tensor, seconds), seconds)
    for tensor, volume in volumes.items():
        with volume as mount:
            for name in CHECKPOINTS:
                if not filecmp.cmp(mount / name, inputs / name, shallow=False):
                    raise SystemExit(f"{name} with tensor={tensor} is another file than was put in")
    document["cold"] = best
    pathlib.Path(out).write_text(json.dumps(document, indent=1))
    on, off = document["on"]["packs"], document["off"]["packs"]
    mib = lambda n: f"{n / (1 << 20):.1f} MiB"
    print(f"{len(CHECKPOINTS)} files, {mib(document['logical'])}: {mib(on)} of packs with tensor=on, {mib(off)} with tensor=off: {on / off:.3f}x (at most 0.65x is wanted)")
    for name, seconds in best.items():
        print(f"{name}: loaded cold in {seconds['on'] * 1000:.0f} ms with tensor=on, {seconds['off'] * 1000:.0f} ms with tensor=off: {seconds['on'] / seconds['off']:.2f}x")
    print("all files are what they were, byte for byte")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
