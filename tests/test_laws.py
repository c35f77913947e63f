"""The laws of CONTRIBUTING.md that a machine can check: on the sources, on the built module, on the running process."""

import ast
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

import pygan
from pygan import _core

ROOT = Path(__file__).parents[1]
MODULE = Path(_core.__file__)
NATIVE_SOURCES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"})
PACKAGE_SOURCES = sorted((ROOT / "pygan").rglob("*.py"))
BUILD_FILES = sorted(
    path
    for pattern in ("CMakeLists.txt", "cmake/*", "pyproject.toml", "scripts/*", ".ci/run", ".github/workflows/*")
    for path in ROOT.glob(pattern)
)
WRITTEN_FILES = sorted(
    path
    for pattern in ("*.md", "*.toml", "docs/**/*.md", "pygan/**/*.py", "pygan/**/*.pyi", "csrc/**/*", "tests/**/*.py")
    for path in ROOT.glob(pattern)
    if path.is_file() and "__pycache__" not in path.parts
)


def readelf(*arguments: str | Path) -> str:
    return run_tool("readelf", "--wide", *arguments)


def run_tool(name: str, *arguments: str | Path) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} (binutils) is not installed")
    return subprocess.run([name, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def matches(pattern: str, files: list[Path]) -> list[str]:
    assert files, "no files to look at"
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


# ---- law 1: the native core knows no torch ---------------------------------------------------------------------------


def test_no_torch_header_in_the_core():
    assert matches(r'#\s*include\s*[<"](torch|ATen|c10|caffe2)/', NATIVE_SOURCES) == []


def test_pybind11_only_in_the_bindings():
    assert {line.split(":")[0] for line in matches("pybind11|Python.h", NATIVE_SOURCES)} == {"csrc/bindings.cpp"}


def test_no_torch_symbol_in_the_module():
    symbols = run_tool("nm", "--dynamic", "--demangle", MODULE)
    assert "PyModule" in symbols  # nm sees something
    assert re.findall(r".*\b(?:at|c10|torch|caffe2)::.*", symbols) == []


def test_the_build_asks_for_no_torch():
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert not any("torch" in requirement for requirement in requirements)


def test_the_module_needs_only_what_every_linux_has():
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\.so", readelf("--dynamic", MODULE)))
    assert "libc" in needed
    allowed = r"libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|libgomp|ld-linux-.*"
    assert {name for name in needed if not re.fullmatch(allowed, name)} == set()


def test_the_module_exports_only_its_entry_point():
    exported = re.findall(r" [A-Z] (\S+)", run_tool("nm", "--dynamic", "--defined-only", MODULE))
    assert [name for name in exported if not name.startswith("_Z") and not name.startswith("PyInit")] == []
    assert "PyInit__core" in exported
    assert [name for name in exported if "pygan" in name] == []


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["inside the clone", "outside"])
def test_the_module_is_found_from_any_folder(folder):
    """Inside a clone, `python -c` meets the source folder first, which has no compiled core of its own."""
    script = "import pygan, torch; print(pygan._core.__file__, pygan.ops.generator_loss(torch.zeros(3), impl='native'))"
    result = subprocess.run([sys.executable, "-c", script], check=True, cwd=folder, capture_output=True, text=True)
    assert result.stdout.startswith(str(MODULE))


# ---- one OpenMP runtime, no newer than torch's -----------------------------------------------------------------------


def test_nothing_newer_than_the_openmp_of_torch():
    versions = re.findall(r"Name: (G?OMP)_([0-9.]+)", readelf("--version-info", MODULE))
    assert versions
    assert [v for v in versions if tuple(map(int, v[1].split("."))) > (5, 0)] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_one_openmp_runtime_in_the_process():
    script = """
import pygan, torch
logits = torch.zeros(1_000_000)
pygan.ops.discriminator_loss(logits, logits, impl="native")
with open("/proc/self/maps") as maps:
    files = {line.split()[-1] for line in maps if "/" in line}
runtimes = sorted(f for f in files if f.rsplit("/", 1)[-1].startswith(("libgomp", "libomp", "libiomp")))
assert any("_core" in f for f in files), files
assert len(runtimes) == 1, runtimes
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


# ---- SIMD levels do not leak -----------------------------------------------------------------------------------------


def objects_of(*levels: str) -> list[tuple[Path, str]]:
    found = [
        (path, level)
        for level in levels
        for path in (ROOT / "build").rglob("*.o")
        if path.parent.parent.parent.name.endswith(f"_{level}.dir")
    ]
    if not found:
        pytest.skip("no objects under build/: the module was not built in this folder, or not for x86-64")
    return found


def test_no_weak_symbol_leaves_a_simd_object():
    """The linker keeps one copy of a weak symbol for everybody: if it is the AVX-512 one, an older machine crashes."""
    leaks = [
        f"{path.name} for {level}: {symbol}"
        for path, level in objects_of("avx2", "avx512")
        for symbol in re.findall(r" [uvVwW] (\S+)$", run_tool("nm", "--defined-only", path), re.MULTILINE)
        if f"{len(level)}{level}" not in symbol and not symbol.startswith("DW.ref.")
    ]
    assert leaks == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64")
def test_the_baseline_needs_no_vector_extension():
    code = {path: run_tool("objdump", "--disassemble", path) for path, _ in objects_of("baseline")}
    assert all("%xmm" in text for text in code.values())
    assert [path for path, text in code.items() if re.search(r"%[yz]mm|\tv[a-z]+[sp][sd] ", text)] == []


# ---- accuracy and safety ---------------------------------------------------------------------------------------------


def test_no_fast_math_and_no_native_code_in_the_build():
    flags = r"ffast-math|Ofast|use_fast_math|ffinite-math|fassociative|funsafe-math|march=native|mtune=native"
    assert matches(flags, BUILD_FILES) == []
    assert matches(flags + r"|pragma.*optimize", NATIVE_SOURCES) == []


def test_cuda_source_runs_on_the_host():
    """Launches and dynamic shared memory only through the macros of csrc/common, no cub, no active mask."""
    cuda = [path for path in NATIVE_SOURCES if path.parent.name != "common"]
    assert matches(r"<<<|extern\s+__shared__|#\s*include\s*[<\"]cub/|__activemask", cuda) == []


def test_nothing_reads_a_pickle():
    unsafe = []
    for path in PACKAGE_SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & set(names)
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if call == "torch.load" and options.get("weights_only") != "True":
                    bad.add("torch.load without weights_only=True")
                if options.get("allow_pickle", "False") != "False":
                    bad.add("allow_pickle")
            unsafe += [f"{path.relative_to(ROOT)}:{node.lineno}: {reason}" for reason in bad]
    assert unsafe == []


def test_the_reference_stands_alone():
    tree = ast.parse((ROOT / "pygan/ops/reference.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    assert {name.partition(".")[0] for name in imported} <= {"math", "collections", "torch"}


# ---- names, versions, text -------------------------------------------------------------------------------------------


def test_one_version_everywhere():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {declared, pygan.__version__, _core.__version__, version("pygan")} == {declared}


def test_the_index_is_never_recommended():
    """Another project owns the name there."""
    assert matches("pip install (-U )?" + r"['\"]?pygan\b", [p for p in WRITTEN_FILES if p != Path(__file__)]) == []


def test_sources_are_ascii():
    assert [str(p.relative_to(ROOT)) for p in WRITTEN_FILES if not p.read_bytes().isascii()] == []


# ---- law 4: every operator has a derivative, or one that raises ------------------------------------------------------


def operators() -> list[str]:
    return sorted(n for n in torch._C._dispatch_get_all_op_names() if n.startswith("pygan::"))


def resolve(name: str) -> torch._ops.OpOverload:
    return getattr(torch.ops.pygan, name.removeprefix("pygan::")).default


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


EXAMPLES = {
    "pygan::discriminator_loss": lambda: (normal(5), normal(3), True),
    "pygan::dropout": lambda: (normal(5), torch.tensor(3), 0.5),
    "pygan::generator_loss": lambda: (normal(5), False, True),
    "pygan::maxout": lambda: (normal(4, 3), normal(2, 5, 3), normal(2, 5)),
    "pygan::maxout_grad_input": lambda: (normal(4, 2), normal(2, 5, 3), torch.zeros(4, 2, dtype=torch.uint8)),
    "pygan::maxout_grad_weight": lambda: (normal(4, 2), normal(4, 3), torch.zeros(4, 2, dtype=torch.uint8), 5),
    "pygan::maxout_pool": lambda: (normal(4, 10), 5),
    "pygan::maxout_spread": lambda: (normal(4, 2), torch.zeros(4, 2, dtype=torch.uint8), 5),
    "pygan::parzen_logsumexp": lambda: (normal(5, 3), normal(4, 3), normal(2).exp(), "split"),
    "pygan::parzen_logsumexp_backward": lambda: (
        normal(2, 5),
        normal(5, 3),
        normal(4, 3),
        normal(2).exp(),
        normal(2, 5),
        "split",
    ),
}


def test_every_operator_has_an_example():
    assert operators() == sorted(EXAMPLES)


WITHOUT_DERIVATIVE = ("pygan::parzen_logsumexp", "pygan::parzen_logsumexp_backward")


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # torch's own forward mode uses it
@pytest.mark.parametrize("name", operators())
def test_no_silent_zero(name):
    """A bare operator has the derivative of its public function, in both modes, or one that raises."""
    positions = [i for i, a in enumerate(EXAMPLES[name]()) if isinstance(a, torch.Tensor) and a.is_floating_point()]
    assert positions
    for position in positions:
        arguments = list(EXAMPLES[name]())
        if name not in WITHOUT_DERIVATIVE:
            arguments[position].requires_grad_()
            assert torch.autograd.gradcheck(resolve(name), arguments, check_forward_ad=True)
            continue
        arguments[position].requires_grad_()
        with pytest.raises(RuntimeError, match=f"{name} has no derivative"):
            resolve(name)(*arguments)
        arguments = list(EXAMPLES[name]())
        with forward_ad.dual_level():
            arguments[position] = forward_ad.make_dual(arguments[position], torch.ones_like(arguments[position]))
            with pytest.raises(RuntimeError, match=f"{name} has no derivative"):
                resolve(name)(*arguments)


@pytest.mark.parametrize("name", operators())
def test_operators_are_functional_and_have_fake_kernels(name):
    assert not resolve(name)._schema.is_mutable
    torch.library.opcheck(resolve(name), EXAMPLES[name](), test_utils=("test_schema", "test_faketensor"))
