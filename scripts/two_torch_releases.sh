#!/usr/bin/env bash
# One built wheel, two torch releases: builds pygan once, installs that same file into two environments that differ in
# their torch, and runs the operators' tests in both.
# usage: scripts/two_torch_releases.sh [torch requirement ...]     default: torch==2.13.0 and the newest torch
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- 'torch==2.13.0' 'torch'
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

python3 -m venv "$out/build"
"$out/build/bin/pip" wheel --quiet --no-deps --wheel-dir "$out" "$root" --config-settings=build-dir="$out/cmake"
wheel=$(ls "$out"/pygan-*.whl)
sha256sum "$wheel"

cd "$out"  # not the clone: the tests must meet the installed package
number=0
for requirement in "$@"; do
    number=$((number + 1))
    python3 -m venv "$out/$number"
    "$out/$number/bin/pip" install --quiet "$requirement"
    "$out/$number/bin/pip" install --quiet "$wheel[test]"
    printf '\n=== '
    "$out/$number/bin/python" -c 'import torch, pygan; print("torch", torch.__version__, pygan._core.__file__)'
    sha256sum "$out/$number"/lib/python*/site-packages/pygan/_core*.so
    "$out/$number/bin/python" -m pytest -q -p no:cacheprovider "$root"/tests/test_{laws,adversarial_loss,maxout,parzen,properties}.py
done
