#!/usr/bin/env bash
# Cross-compiles the whole CPU module for aarch64, warnings as errors.
# usage: scripts/cross_aarch64.sh; needs a python with pybind11; installs Debian's cross compiler where it may;
# without one it is skipped, but fails if $CI is set
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cxx=aarch64-linux-gnu-g++

if ! command -v "$cxx" >/dev/null; then
    echo "installing g++-aarch64-linux-gnu"
    root_by=()
    if [ "$(id -u)" != 0 ] && command -v sudo >/dev/null; then root_by=(sudo -n); fi
    { "${root_by[@]}" apt-get update -qq &&
        "${root_by[@]}" apt-get install -y -qq --no-install-recommends g++-aarch64-linux-gnu; } >/dev/null 2>&1 || true
fi
if ! command -v "$cxx" >/dev/null; then
    missing="no $cxx, and it could not be installed (Debian: apt-get install g++-aarch64-linux-gnu)"
    if [ -n "${CI:-}" ]; then
        echo "FAILED: $missing"
        exit 1
    fi
    echo "SKIPPED: $missing"
    exit 0
fi

# Python's headers are this machine's: both are 64-bit little-endian Linux, and nothing compiled here is run with them.
cmake -S "$root" -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER="$cxx" \
    -DCMAKE_BUILD_TYPE=Release -DPYGAN_CUDA=OFF -DPYGAN_WERROR=ON \
    -DPython_EXECUTABLE="$(command -v python)" \
    -DPython_INCLUDE_DIR="$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
cmake --build "$build" --parallel "$(nproc)"
readelf -h "$build"/_core*.so | grep 'Machine: *AArch64'
