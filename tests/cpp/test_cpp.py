"""The shared maths headers of csrc, tested in C++: each TEST of this folder's .cpp files is one test here.

They are compiled with UndefinedBehaviorSanitizer, and with every warning an error.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-O2", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion"]
FLAGS += ["-Wno-unknown-pragmas", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
TESTS = [
    pytest.param(source, name, id=f"{source.stem}-{name}")
    for source in sorted(HERE.glob("*.cpp"))
    for name in re.findall(r"^TEST\((\w+)\)", source.read_text(), re.MULTILINE)
]

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"needs {CXX}")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Source -> compiled program; each is compiled at its first use."""
    folder = tmp_path_factory.mktemp("cpp")

    class Programs(dict[Path, Path]):
        def __missing__(self, source: Path) -> Path:
            program = folder / source.stem
            command = [CXX, *FLAGS, "-I", str(ROOT / "csrc"), str(source), "-o", str(program)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            self[source] = program
            return program

    return Programs()


@pytest.mark.parametrize(("source", "name"), TESTS)
def test_cpp(programs: dict[Path, Path], source: Path, name: str) -> None:
    result = subprocess.run([programs[source], name], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("source", sorted(HERE.glob("*.cpp")), ids=lambda source: source.stem)
def test_no_test_is_left_out(programs: dict[Path, Path], source: Path) -> None:
    """A program's own list against the names found in its text."""
    listed = subprocess.run([programs[source]], capture_output=True, text=True, check=True).stdout.split()
    assert listed == [param.values[1] for param in TESTS if param.values[0] == source]
