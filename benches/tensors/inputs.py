"""Makes files of tensors from one real model: casts, fine-tunes, quantised packings, shards, other formats.

Usage: inputs.py MODEL.safetensors DIR

Writes the files, and DIR/inputs.json: for each its name, file, and where in it its numbers lie, of which type for zipnn.
"""

import json
import pathlib
import struct
import sys
import zipfile

import numpy as np


def read_safetensors(path):
    """Names -> fp32 arrays."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            part = np.frombuffer(data[8 + size + start : 8 + size + end], np.float32)
            tensors[name] = part.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Names -> (type, array of its bytes' integers). Returns where the numbers begin."""
    header, at = {}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
    return 8 + len(text)


def bfloat16(x):
    """Rounded to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def float8(x):
    """The nearest number of e4m3 (finite, with NaN), scaled so that the largest weight is near 448, as is done for weights."""
    codes = np.arange(127)
    exponent, fraction = codes >> 3, codes & 7
    values = np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0))
    scaled = np.abs(x) * (448 / max(np.abs(x).max(), 1e-12))
    code = np.searchsorted((values[1:] + values[:-1]) / 2, scaled)
    return (code | np.signbit(x) << 7).astype(np.uint8)


def int8(x):
    """Rows of 8-bit integers, and the scale of each."""
    rows = x.reshape(x.shape[0], -1)
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / 127
    return np.rint(rows / scale).astype(np.int8).reshape(x.shape), scale.astype(np.float32).ravel()


def dequantised(x):
    """What 8 bits for a whole tensor leave of it."""
    scale = np.float32(max(np.abs(x).max(), 1e-12) / 127)
    return (np.rint(x / scale).astype(np.float32) * scale).astype(np.float32)


def q8_0(x):
    """GGUF's: groups of 32 behind a scale of 16 bits."""
    groups = x.reshape(-1, 32)
    scale = np.abs(groups).max(axis=1, keepdims=True) / 127
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    packed = np.empty(len(groups), np.dtype([("d", "<f2"), ("q", "i1", 32)]))
    packed["d"], packed["q"] = scale.ravel(), np.rint(groups * inverse)
    return packed.view(np.uint8)


def q4_0(x):
    """GGUF's: groups of 32 numbers of 4 bits behind a scale of 16."""
    groups = x.reshape(-1, 32)
    largest = groups[np.arange(len(groups)), np.abs(groups).argmax(axis=1)][:, None]
    scale = largest / -8
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.minimum(15, (groups * inverse + 8.5).astype(np.int8)).astype(np.uint8)
    packed = np.empty(len(groups), np.dtype([("d", "<f2"), ("q", "u1", 16)]))
    packed["d"], packed["q"] = scale.ravel(), q[:, :16] | q[:, 16:] << 4
    return packed.view(np.uint8)


def write_gguf(path, tensors, kind, pack):
    """Tensors of two dimensions packed, the others as they are. Returns where the numbers begin."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1) + text("general.name") + struct.pack("<I", 8)
    head += text("a model")
    parts, at = [], 0
    for name, array in tensors.items():
        code, data = (kind, pack(array)) if array.ndim == 2 and array.shape[1] % 32 == 0 else (0, array)
        shape = array.shape[::-1]
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", code, at)
        data = data.tobytes()
        parts.append(data + bytes(-len(data) % 32))
        at += len(parts[-1])
    head += bytes(-len(head) % 32)
    path.write_bytes(head + b"".join(parts))
    return len(head)


def write_pytorch(path, tensors):
    """As torch.save does: a stored zip archive of a pickle and of each tensor's numbers, at multiples of 64 bytes."""
    keys = {name: str(n) for n, name in enumerate(tensors)}
    shapes = lambda shape: b"(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t"
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()
    body = b"\x80\x02ccollections\nOrderedDict\n)R("
    for name, array in tensors.items():
        body += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        body += text(keys[name]) + text("cpu") + b"J" + struct.pack("<i", array.size) + b"tQK\0"
        strides = [n // array.itemsize for n in array.strides]
        body += shapes(array.shape) + shapes(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    entries = [("data.pkl", body + b"u."), ("byteorder", b"little")]
    entries += [(f"data/{keys[name]}", np.ascontiguousarray(a).tobytes()) for name, a in tensors.items()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(f"model/{name}")
            start = archive.fp.tell() + 30 + len(info.filename) + 4
            padding = -start % 64
            info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            archive.writestr(info, data)


def write_onnx(path, tensors):
    """A model whose graph is nothing but its initializers."""

    def varint(n):
        out = b""
        while n >= 0x80:
            out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
        return out + bytes([n])

    field = lambda number, data: bytes([number << 3 | 2]) + varint(len(data)) + data
    graph = b"".join(
        field(
            5,
            b"".join(b"\x08" + varint(n) for n in a.shape)
            + b"\x10\x01"
            + field(8, name.encode())
            + field(9, np.ascontiguousarray(a).tobytes()),
        )
        for name, a in tensors.items()
    )
    path.write_bytes(b"\x08\x08" + field(2, b"benches") + field(7, graph) + field(8, b"\x10\x11"))


def main(model, to):
    to = pathlib.Path(to)
    to.mkdir(parents=True, exist_ok=True)
    base = read_safetensors(model)
    # Zipped formats and GGUF want them as they are; all others go by name and type.
    every = lambda dtype, cast: {name: (dtype, cast(array)) for name, array in base.items()}
    rng = np.random.default_rng(1)
    tuned = [
        {n: a + rng.normal(0, 0.01 * a.std(), a.shape).astype(np.float32) for n, a in base.items()}
        for _ in range(2)
    ]
    inputs = []

    def put(name, tensors, zipnn):
        path = to / f"{name}.safetensors"
        inputs.append({"name": name, "file": path.name, "data": write_safetensors(path, tensors), "zipnn": zipnn})

    put("fp32", every("F32", lambda a: a), "float32")
    put("bf16", every("BF16", bfloat16), "bfloat16")
    put("fp16", every("F16", lambda a: a.astype(np.float16)), "float16")
    put("fp8-e4m3", every("F8_E4M3", float8), "float8_e4m3fn")
    packed = {}
    for name, array in base.items():
        if array.ndim == 2:
            packed[name], packed[name + ".scale"] = (("I8", int8(array)[0]), ("F32", int8(array)[1]))
        else:
            packed[name] = ("F32", array)
    put("int8", packed, None)
    put("fp32-from-int8", every("F32", lambda a: dequantised(a) if a.ndim == 2 else a), "float32")
    put("fp32-from-bf16", every("F32", lambda a: (bfloat16(a).astype(np.uint32) << 16).view(np.float32)), "float32")
    for kind, code, pack in (("q8_0", 8, q8_0), ("q4_0", 2, q4_0)):
        path = to / f"{kind}.gguf"
        data = write_gguf(path, base, code, pack)
        inputs.append({"name": kind, "file": path.name, "data": data, "zipnn": None})
    for n, tensors in enumerate(tuned, 1):
        put(f"fine-tune-{n}-bf16", {k: ("BF16", bfloat16(a)) for k, a in tensors.items()}, "bfloat16")
        write_safetensors(to / f"fine-tune-{n}.safetensors", {k: ("F32", a) for k, a in tensors.items()})
    # The same tensors in other files.
    names = list(base)
    for n, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        write_safetensors(to / f"fp32-{n}-of-2.safetensors", {k: ("F32", base[k]) for k in part})
    np.savez(to / "fp32.npz", **base)
    write_pytorch(to / "fp32.pt", base)
    write_onnx(to / "fp32.onnx", base)
    (to / "inputs.json").write_text(json.dumps(inputs, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
