# shellcheck shell=bash
# python: a virtual environment with its pip, a wheel made here installed into it, its program run, everything compiled.

export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=$AT/cache PIP_NO_INPUT=1 PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

prepare() {
    mkdir "$BESIDE/wheels"
    python3 - "$BESIDE/wheels" <<'PYTHON'
import base64, hashlib, sys, zipfile
files = {f"stones/part{i}.py": f"VALUE = {i}\n" + f"# {i}\n" * 2000 for i in range(200)}
files["stones/__init__.py"] = (
    "import importlib\n"
    "def main():\n"
    "    print(sum(importlib.import_module(f'stones.part{i}').VALUE for i in range(200)))\n"
)
info = "stones-1.0.dist-info"
files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: stones\nVersion: 1.0\n"
files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
files[f"{info}/entry_points.txt"] = "[console_scripts]\nstones = stones:main\n"
def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
record = "".join(f"{name},sha256={digest(text)},{len(text.encode())}\n" for name, text in files.items())
files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
with zipfile.ZipFile(sys.argv[1] + "/stones-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
PYTHON
}

run_it() {
    local found
    found=$("$AT/venv/bin/stones")
    [ "$found" = 19900 ] || fail "stones says $found"
    # Each file's hash against what its wheel recorded.
    "$AT/venv/bin/python" - <<'PYTHON'
import base64, hashlib, importlib.metadata
for wheel in ("stones", "pip"):
    for path in importlib.metadata.files(wheel):
        if path.hash is not None:
            found = base64.urlsafe_b64encode(hashlib.new(path.hash.mode, path.read_binary()).digest()).rstrip(b"=").decode()
            assert found == path.hash.value, f"{path} is not what was installed"
PYTHON
}

install() {
    "$AT/venv/bin/python" -m pip install -q --force-reinstall "$AT/stones-1.0-py3-none-any.whl"
    "$AT/venv/bin/python" -m pip check -q
}

work() {
    cp "$BESIDE/wheels/"*.whl "$AT/"
    ack copied
    python3 -m venv "$AT/venv"
    ack made
    install
    ack installed
    run_it
    "$AT/venv/bin/python" -m compileall -q -f "$AT"/venv/lib/python3*/site-packages/stones
    ack compiled
    "$AT/venv/bin/python" -m pip uninstall -q -y stones
    [ ! -e "$AT/venv/bin/stones" ] || fail 'the program stays when its package goes'
    install
    ack 'installed again'
}

verify() {
    acked copied || return 0
    # Over what an interrupted one left.
    acked made || python3 -m venv --clear "$AT/venv"
    if ! acked installed || { acked compiled && ! acked 'installed again'; }; then
        install
    fi
    run_it
}
