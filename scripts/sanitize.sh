#!/usr/bin/env bash
# Runs the operators' tests over CPU kernels that are built with AddressSanitizer and UndefinedBehaviorSanitizer.
# usage: scripts/sanitize.sh [pytest options]; needs g++, cmake and a python with torch, pybind11 and pytest
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/sanitize
mkdir -p "$build"
unset SKBUILD_CMAKE_DEFINE

cmake -S "$root" -B "$build/cmake" -DPYGAN_SANITIZE=ON -DPYGAN_CUDA=OFF -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF \
    -DPython_EXECUTABLE="$(command -v python)" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" >"$build/configure.log"
cmake --build "$build/cmake" --parallel "$(nproc)" >"$build/build.log" || { tail -50 "$build/build.log"; exit 1; }

# An environment of its own, beside the packages of the calling one: whatever core is installed there is not used.
rm -rf "$build/venv"
python -m venv --without-pip "$build/venv"
site=$(echo "$build"/venv/lib/python*/site-packages)
python -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' >"$site/others.pth"
cmake --install "$build/cmake" --prefix "$site" >"$build/install.log"

tests=()
for family in "$root"/csrc/*/; do
    test=$root/tests/test_$(basename "$family").py
    if [ -f "$test" ]; then tests+=("$test"); fi
done

cd "$root"
# libstdc++ too: AddressSanitizer looks for the exception functions when the process starts. The compiler of
# torch.compile would run under the sanitizer as well, and compiles no code of ours.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TORCHDYNAMO_DISABLE=1
"$build/venv/bin/python" -c 'import sys; from pygan import _core; assert _core.__file__.startswith(sys.prefix), _core'
# --capture=sys: a report that ends the process goes to the terminal, not into a file of pytest's.
"$build/venv/bin/python" -m pytest -q -p no:cacheprovider --capture=sys "${tests[@]}" "$@"
