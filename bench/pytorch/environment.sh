#!/usr/bin/env bash
# Makes the Python environment of bench/pytorch.
set -euo pipefail

needed_gb=9
if [[ $# -ne 1 || $1 == -* ]]; then
  echo "Usage: environment.sh FOLDER
Makes a Python virtual environment in FOLDER with requirements.txt ($needed_gb GB free needed).
PYTHON names the interpreter (default python3). For less space, let PIP_INDEX_URL name PyTorch's
index of CPU wheels, and PIP_EXTRA_INDEX_URL the usual one."
  [[ ${1:-} == --help ]] && exit 0
  exit 2
fi
folder=$1
if [[ -e $folder && ! -f $folder/pyvenv.cfg ]]; then
  echo "environment.sh: $folder exists and is not a virtual environment" >&2
  exit 1
fi
mkdir -p "$folder"
free=$(df --output=avail -BG "$folder" | tail -n 1 | tr -dc 0-9)
if [[ -z ${PIP_INDEX_URL:-} ]] && ((free < needed_gb)); then
  rmdir "$folder" 2>/dev/null || true
  echo "environment.sh: $folder has $free GB free; PyTorch with its libraries wants $needed_gb" >&2
  exit 1
fi
"${PYTHON:-python3}" -m venv "$folder"
# Downloads go where space was checked, not to /tmp.
download=$(mktemp -d "$(cd "$folder" && pwd)/download.XXXX")
trap 'rm -r "$download"' EXIT
TMPDIR=$download "$folder/bin/python" -m pip install --quiet --no-cache-dir \
  --disable-pip-version-check --requirement "$(dirname "$0")/requirements.txt"
"$folder/bin/python" -c 'import torch; print("PyTorch", torch.__version__)'
