#!/usr/bin/env bash
# Provides one flavour of Kokkos to the presets: an installed one that CMake finds and that
# has what the flavour needs, otherwise one built into build/kokkos/<flavour>.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: cmake/kokkos.sh openmp|serial|cuda

  openmp  OpenMP and Serial, for this machine's processor   (preset release)
  serial  Serial with assertions and bounds checks          (presets debug, asan)
  cuda    CUDA for compute capability 9.0, and Serial       (preset cuda)

Does nothing where build/kokkos/<flavour> exists or an installed Kokkos >= 4.5 will do.
EOF
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly store=$root/build/kokkos

# No distribution that we serve packages a Kokkos >= 4.5. This source archive carries 4.7.0
# under tpls/kokkos and comes through the package index that pip is configured for.
readonly package=pygenten version=0.1.5
readonly archive=$package-$version.tar.gz
readonly checksum=e620f05c742905e2db705d875f1cac92ef0ed453f9e6734e9beda26cc0f9cce7

say() { printf 'kokkos: %s\n' "$*"; }
fail() { printf 'kokkos: %s\n' "$*" >&2; exit 1; }

# Sets devices and options (what an installed Kokkos must have) and recipe (what ours is
# configured with).
choose_flavour() {
  recipe=(-DCMAKE_CXX_STANDARD=20 -DKokkos_ENABLE_SERIAL=ON)
  options=
  case $1 in
    openmp)
      devices='SERIAL OPENMP'
      recipe+=(-DCMAKE_BUILD_TYPE=Release -DKokkos_ENABLE_OPENMP=ON -DKokkos_ARCH_NATIVE=ON) ;;
    serial)
      devices='SERIAL' options='DEBUG DEBUG_BOUNDS_CHECK'
      recipe+=(-DCMAKE_BUILD_TYPE=Debug -DKokkos_ENABLE_DEBUG=ON
        -DKokkos_ENABLE_DEBUG_BOUNDS_CHECK=ON) ;;
    cuda)
      # As a CMake language: nvcc is called by CMake and not through Kokkos' wrapper script,
      # so a source file is device code where it is marked LANGUAGE CUDA.
      devices='SERIAL CUDA' options='COMPILE_AS_CMAKE_LANGUAGE'
      recipe+=(-DCMAKE_BUILD_TYPE=Release -DKokkos_ENABLE_CUDA=ON -DKokkos_ARCH_HOPPER90=ON
        -DKokkos_ENABLE_COMPILE_AS_CMAKE_LANGUAGE=ON -DCMAKE_CUDA_ARCHITECTURES=90
        -DCMAKE_CUDA_STANDARD=20 "-DCMAKE_CUDA_FLAGS=-std=c++20") ;;
    *) usage >&2; exit 2 ;;
  esac
  generator=()
  if command -v ninja >/dev/null; then generator=(-G Ninja); fi
}

# Asks CMake, so that modules, Spack, CMAKE_PREFIX_PATH and Kokkos_ROOT count as they will
# when Hearth is configured.
find_installed() {
  local probe=$scratch/probe language=
  case $devices in *CUDA*) language=CUDA ;; esac
  mkdir -p "$probe"
  cat >"$probe/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.22)
project(probe LANGUAGES CXX $language)
find_package(Kokkos 4.5 QUIET)
if(NOT Kokkos_FOUND)
  return()
endif()
foreach(device $devices)
  if(NOT device IN_LIST Kokkos_DEVICES)
    return()
  endif()
endforeach()
foreach(option $options)
  if(NOT option IN_LIST Kokkos_OPTIONS)
    return()
  endif()
endforeach()
file(WRITE "$probe/found" "\${Kokkos_VERSION} in \${Kokkos_DIR}")
EOF
  cmake "${generator[@]}" -S "$probe" -B "$probe/build" >"$probe/log" 2>&1 || return 1
  [[ -s $probe/found ]]
}

fetch_source() {
  local python=$root/build/venv/bin/python
  [[ -x $python ]] || python=python3
  if [[ ! -f $store/$archive ]]; then
    say "downloading $archive"
    # Into a scratch folder first: an interrupted download must not look like a finished one.
    "$python" -m pip download --quiet --no-deps --no-binary "$package" \
      --dest "$scratch/download" "$package==$version" ||
      fail "cannot download $package $version; put $archive from the Python package index into $store"
    mv "$scratch/download/$archive" "$store/$archive"
  fi
  printf '%s  %s\n' "$checksum" "$store/$archive" | sha256sum --check --quiet ||
    fail "$store/$archive is not the pinned archive (sha256 $checksum); remove it and call again"
  command -v patch >/dev/null || fail "no patch on PATH; install or load it"
  tar -xzf "$store/$archive" -C "$scratch" "$package-$version/tpls/kokkos"
  source=$scratch/$package-$version/tpls/kokkos
  patch --quiet -p1 -d "$source" <"$root/cmake/kokkos-4.7-cuda-13.patch"
}

build() {
  local log=$store/$1.log
  say "building $1 (log: $log)"
  if ! { cmake "${generator[@]}" -S "$source" -B "$scratch/build" "${recipe[@]}" \
           -DCMAKE_INSTALL_PREFIX="$store/$1" &&
         cmake --build "$scratch/build" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" &&
         DESTDIR=$scratch/stage cmake --install "$scratch/build"; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    fail "the build of $1 failed; the whole log is $log"
  fi
  # Staged, so that the folder appears under its name only when it is complete.
  mv "$scratch/stage$store/$1" "$store/$1"
}

main() {
  case ${1-} in -h | --help) usage; exit 0 ;; esac
  [[ $# -eq 1 ]] || { usage >&2; exit 2; }
  choose_flavour "$1"
  if [[ -f $store/$1/lib/cmake/Kokkos/KokkosConfig.cmake || -f $store/$1/lib64/cmake/Kokkos/KokkosConfig.cmake ]]; then
    exit 0
  fi
  if [[ $1 == cuda ]] && ! command -v "${CUDACXX:-nvcc}" >/dev/null; then
    fail "no nvcc on PATH; install the CUDA toolkit (13.0 is known to work) or set CUDACXX"
  fi
  mkdir -p "$store"
  scratch=$(mktemp -d "$store/.$1.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  if find_installed; then
    say "$1: using $(cat "$scratch/probe/found")"
    exit 0
  fi
  fetch_source
  build "$1"
}

main "$@"
