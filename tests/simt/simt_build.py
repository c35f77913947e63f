"""Compiles a kernel family's CUDA source for the CPU, with a sanitizer or without, into a shared library for ctypes.

Libraries are kept under `build/simt/`, named by a digest of everything that went into them, so that each is compiled
once. Nothing but g++ is needed.
"""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST = HERE / "host"
OUTPUT = ROOT / "build" / "simt"
CXX = os.environ.get("CXX", "g++")

BUILDS = {
    "plain": ["-O2"],
    "asan": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"],
}
COMMON = ["-std=c++20", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]


def sources(family: str, root: Path = ROOT) -> list[Path]:
    """The files that are compiled as kernels: the family's .cu, and the shim that exports its launch functions."""
    if family == "selftest":
        return [HERE / "selftest.cu"]
    return [*sorted((root / "csrc" / family).glob("*_cuda.cu")), HERE / "shims" / f"{family}.cpp"]


def compile_library(family: str, build: str, root: Path = ROOT) -> Path:
    """Returns the library of one family; `root` is the project whose csrc/ is compiled (mutate.py gives a copy)."""
    kernels = sources(family, root)
    headers = [
        *(root / "csrc" / "common").glob("*.h"),
        *(root / "csrc" / family).glob("*.h"),
        HERE / "shims" / "shim.h",
    ]
    as_kernel = ["-include", str(HOST / "simt.h"), "-I", str(root / "csrc"), "-x", "c++", *BUILDS[build]]
    host = [compile_host(HOST / name) for name in ("fiber.cpp", "runtime.cpp")]
    library = OUTPUT / f"{family}-{build}-{digest([*kernels, *headers, *HOST.glob('*')], BUILDS[build])}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=OUTPUT) as scratch:
            objects = [Path(scratch) / f"{source.stem}.o" for source in kernels]
            for source, target in zip(kernels, objects, strict=True):
                run_compiler([*COMMON, *as_kernel, "-c", str(source), "-o", str(target)])
            linked = Path(scratch) / "library.so"
            run_compiler(["-shared", *BUILDS[build], *map(str, [*objects, *host]), "-o", str(linked)])
            linked.replace(library)
    return library


def compile_host(source: Path) -> Path:
    """The host itself is never instrumented, and so the same for every build."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    target = OUTPUT / f"{source.stem}-{digest(list(HOST.glob('*')), [])}.o"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=OUTPUT) as scratch:
            compiled = Path(scratch) / "host.o"
            run_compiler([*COMMON, "-O2", "-g", "-c", str(source), "-o", str(compiled)])
            compiled.replace(target)
    return target


def digest(files: list[Path], flags: list[str]) -> str:
    total = hashlib.sha256(repr((CXX, COMMON, flags)).encode())
    for path in sorted(files):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def run_compiler(arguments: list[str]) -> None:
    result = subprocess.run([CXX, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{CXX} {' '.join(arguments)}\n{result.stderr}")


@functools.cache
def why_not(build: str) -> str | None:
    """Why this build cannot run here, in one sentence; None if it can."""
    if platform.system() != "Linux":
        return "the SIMT host needs Linux"
    if shutil.which(CXX) is None:
        return f"the SIMT host needs {CXX}"
    if build != "plain" and not runtime_library(build).exists():
        return f"{CXX} has no {runtime_library(build).name}"
    return None


def runtime_library(build: str) -> Path:
    """The sanitizer's own library, which must be in the process before anything else."""
    return compiler_file({"asan": "libasan.so", "tsan": "libtsan.so"}[build])


def compiler_file(name: str) -> Path:
    found = subprocess.run([CXX, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def environment(build: str) -> dict[str, str]:
    """The environment in which a Python process can load a library of this build."""
    env = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    if build == "asan":
        env |= {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    if build == "tsan":
        env |= {"TSAN_OPTIONS": "report_signal_unsafe=0 exitcode=66 history_size=4"}
    if build != "plain":
        # libstdc++ too: the sanitizers look for the exception functions when the process starts
        env["LD_PRELOAD"] = f"{runtime_library(build)} {compiler_file('libstdc++.so.6')}"
    return env


def command(build: str) -> list[str]:
    """What precedes the Python interpreter: ThreadSanitizer of gcc 12 cannot map its shadow at high randomisation."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    if build == "tsan" and bits.exists() and int(bits.read_text()) > 28 and shutil.which("setarch"):
        return ["setarch", "-R"]
    return []
