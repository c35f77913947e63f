#!/usr/bin/env bash
# Builds without CUDA and without torch, checks the result, and checks that CUDA=ON fails where there is no nvcc.
# usage: scripts/check_builds.sh [folder for the builds]; needs a python with torch and pytest for the checks
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/build/check_builds}
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
unset SKBUILD_CMAKE_DEFINE

echo "--- CPU only, in an environment that is empty but for pip"
python3 -m venv "$out/venv"
start=$SECONDS
"$out/venv/bin/pip" wheel --quiet --no-deps --wheel-dir "$out" "$root" \
    --config-settings=build-dir="$out/cpu" \
    --config-settings=cmake.define.PYGAN_CUDA=OFF --config-settings=cmake.define.PYGAN_WERROR=ON
took=$((SECONDS - start))
"$out/venv/bin/pip" install --quiet --no-deps "$out"/pygan-*.whl
site=$(echo "$out"/venv/lib/python*/site-packages)
echo "built in $took s (target: 60 s); wheel $(stat -c %s "$out"/pygan-*.whl) bytes," \
    "module $(stat -c %s "$site"/pygan/_core*.so) bytes"

echo "--- the CPU-only module, beside the packages of the calling environment"
python -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' >"$site/others.pth"
cd "$out"
"$out/venv/bin/python" - <<'PYTHON'
import sys

import torch

import pygan

info = pygan.build_info()
assert pygan.__file__.startswith(sys.prefix), pygan.__file__
assert info["cuda"] is None, info
real, fake = torch.randn(100), torch.randn(100)
native, reference = (pygan.ops.discriminator_loss(real, fake, impl=impl) for impl in ("native", "reference"))
torch.testing.assert_close(native, reference)
print("works:", info)
PYTHON
"$out/venv/bin/python" -m pytest -q -p no:cacheprovider "$root/tests/test_laws.py"

echo "--- CUDA=ON without nvcc must fail, and say so"
# Programs are looked for under an empty root, so that no nvcc is found wherever it is installed.
mkdir -p "$out/nothing"
if env -u CUDA_HOME -u CUDA_PATH PATH=/usr/bin:/bin CUDACXX="$out/nothing/nvcc" \
    cmake -S "$root" -B "$out/no_nvcc" -DPYGAN_CUDA=ON -DCMAKE_CXX_COMPILER="$(command -v g++)" \
    -DCMAKE_FIND_ROOT_PATH="$out/nothing" -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=ONLY -DCMAKE_MAKE_PROGRAM="$(command -v make)" \
    >"$out/no_nvcc.log" 2>&1; then
    echo "PYGAN_CUDA=ON succeeded without nvcc"
    exit 1
fi
grep -A 4 'PYGAN_CUDA=ON, but no working nvcc' "$out/no_nvcc.log" || { cat "$out/no_nvcc.log"; exit 1; }
