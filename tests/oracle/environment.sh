#!/usr/bin/env bash
# Makes the Python environment of the oracle tests.
set -euo pipefail

# The CUDA libraries of PyTorch's wheel are linked in, so it does not import without them,
# GPU or not; that is most of its 5.1 GB.
packages=(torch==2.4.1 numpy==1.26.4 h5py==3.11.0 pytest==8.3.5)
needed_gb=12     # for packages, their downloads and some room
debian=(python3-torch python3-numpy python3-h5py python3-pytest)
debian_gb=2
python=${PYTHON:-/usr/bin/python3}

usage() {
  cat <<EOF
Usage: environment.sh [--debian] FOLDER

Creates a Python virtual environment in FOLDER with PyTorch, NumPy, h5py and pytest, and does
nothing where these can already be imported from it.

With $needed_gb GB free it installs ${packages[0]} from the Python package index (5.1 GB, about two
minutes on a fast network). With less, or if that fails, or with --debian, it uses Debian's
$(IFS=' '; echo "${debian[*]}") (0.6 GB, needs root or sudo).

PYTHON names the interpreter (default /usr/bin/python3).
EOF
}

fail() {
  echo "environment.sh: $*" >&2
  exit 1
}

complete() {
  [[ -x $folder/bin/python ]] &&
    "$folder/bin/python" -c 'import h5py, numpy, pytest, torch; print("PyTorch", torch.__version__)'
}

free_gb() { df --output=avail -BG "$1" | tail -n 1 | tr -dc 0-9; }

from_index() {
  "$python" -m venv --clear "$folder" || return
  # Downloads go where space was checked, not to /tmp.
  mkdir "$folder/download"
  TMPDIR=$folder/download "$folder/bin/python" -m pip install --quiet --no-cache-dir \
    --disable-pip-version-check "${packages[@]}" || return
  rm -r "$folder/download"
}

from_debian() {
  command -v apt-get >/dev/null || fail "no apt-get here; free $needed_gb GB at $folder instead"
  (($(free_gb /) >= debian_gb)) || fail "Debian's packages need $debian_gb GB free on /"
  local root=()
  ((EUID == 0)) || root=(sudo)
  # Others may be installing: wait for the lock.
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 \
    --no-install-recommends -o DPkg::Lock::Timeout=600 "${debian[@]}" >/dev/null
  "$python" -m venv --clear --system-site-packages "$folder"
}

from=
folder=
for argument; do
  case $argument in
    --help) usage; exit 0 ;;
    --debian) from=debian ;;
    -*) usage >&2; exit 2 ;;
    *) [[ -z $folder ]] || { usage >&2; exit 2; }; folder=$argument ;;
  esac
done
[[ -n $folder ]] || { usage >&2; exit 2; }

if complete 2>/dev/null; then
  echo "Nothing to do: $folder is complete."
  exit 0
fi

# Only an environment that was made before may be replaced.
if [[ -d $folder && ! -f $folder/pyvenv.cfg && -n $(ls -A "$folder") ]]; then
  fail "$folder is neither empty nor a virtual environment"
fi
"$python" -c 'import ensurepip' 2>/dev/null || fail "$python lacks venv: install python3-venv"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
free=$(free_gb "$folder")

if [[ -z $from ]] && ((free >= needed_gb)); then
  echo "Installing ${packages[*]} into $folder ($free GB free, 5.1 GB needed)."
  from_index || { echo "That failed."; from=debian; }
elif [[ -z $from ]]; then
  echo "Only $free GB are free at $folder; ${packages[0]} wants $needed_gb."
  from=debian
fi
if [[ $from == debian ]]; then
  echo "Installing Debian's ${debian[*]}; $folder will use them."
  from_debian
fi
complete || fail "PyTorch cannot be imported from $folder"
