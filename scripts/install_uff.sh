#!/bin/sh
# Install RASPA, Zeo++ and aiida-lsmo into .venv. RASPA is compiled: without a C compiler this says so and leaves it,
# or fails with --required. Does nothing where nothing has changed.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/installed-uff
wanted=$(cat pyproject.toml scripts/install_uff.sh | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit; fi

required=
[ "${1-}" = --required ] && required=yes

give_up() {
    echo "note: Monte Carlo with UFF is not installed and its tests are skipped: $1"
    [ -z "$required" ] || exit 1
    exit 0
}

command -v gcc >/dev/null 2>&1 || give_up "there is no gcc to compile RASPA with (sudo apt-get install gcc)"
printf '\n==> installing RASPA, Zeo++ and aiida-lsmo; RASPA is compiled, which takes minutes\n'
# pip refuses aiida-lsmo for a URL in one of its own extras, uv takes it.
"$venv/bin/pip" install -q uv
"$venv/bin/uv" pip install -q --python "$venv/bin/python" -e '.[uff]' || give_up "see the message of uv above"
printf '%s' "$wanted" > "$stamp"
