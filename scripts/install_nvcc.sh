#!/usr/bin/env bash
# Installs nvcc and the headers and libraries that it needs into a folder, as Python packages: no system-wide CUDA needed.
# usage: scripts/install_nvcc.sh FOLDER [python]; then build with CUDA_HOME=FOLDER/cuda
set -euo pipefail
folder=$1
python=${2:-python3}
release=13.0
packages=()
for name in nvcc crt runtime cccl; do packages+=("nvidia-cuda-$name==$release.*"); done
"$python" -m pip install --quiet --target "$folder" "${packages[@]}" "nvidia-nvvm==$release.*"
ln -sfn nvidia/cu13 "$folder/cuda"
ln -sfn lib "$folder/cuda/lib64"  # where nvcc looks for its libraries
"$folder/cuda/bin/nvcc" --version
