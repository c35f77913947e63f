"""Plants mistakes in the kernels, one at a time, and asserts that the SIMT suite notices each.

    python tests/simt/mutate.py [FAMILY ...]

Each mistake of mutations.py is a replacement of text in a copy of csrc/. It names the build that must fail; a mistake
that does not compile, or whose text is no longer in the source exactly once, is an error of the list. Prints one line
per mistake with the tool that noticed it. Exit code 1 if one survived.
"""

import argparse
import collections
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import simt_build
from mutations import MUTATIONS, Mutation

TOOLS = {  # in a failed run's output: the tool that spoke
    "ThreadSanitizer: data race": "ThreadSanitizer",
    "AddressSanitizer": "AddressSanitizer",
    "runtime error:": "UndefinedBehaviorSanitizer",
    "deadlock": "rule: deadlock",
    "threads have left": "rule: barrier",
    "some threads wait": "rule: barrier",
    "of shared ": "rule: canary",
    "_sync": "rule: warp operation",
    "the launch failed": "launch error",
}


def tool_that_noticed(family: str, mutation: Mutation) -> str | None:
    """Runs the family's cases on the mutated source; None if all passed."""
    simt_build.OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=simt_build.OUTPUT) as folder:
        root = Path(folder)
        shutil.copytree(simt_build.ROOT / "csrc", root / "csrc")
        mutate(root / "csrc" / family / mutation.file, mutation)
        if mutation.build == "cpp":
            return None if cpp_tests_pass(root, Path(mutation.file)) else "C++ tests"
        library = simt_build.compile_library(family, mutation.build, root)
        command = [sys.executable, str(simt_build.HERE / "run.py"), family, "--build", mutation.build]
        command += ["--root", folder]
        command += ["--orders", "random:1"] if mutation.build == "tsan" else []
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        library.unlink()
    if result.returncode == 0:
        return None
    output = result.stdout + result.stderr
    failed = re.findall(r"^FAIL .*(?:\n(?!FAIL).*)?", output, re.MULTILINE)
    spoken = output if mutation.build != "plain" else "\n".join(failed)
    for words, tool in TOOLS.items():
        if words in spoken:
            return tool
    return "values" if failed else {-11: "crash", -14: "time limit"}.get(result.returncode, f"exit {result.returncode}")


def cpp_tests_pass(root: Path, header: Path) -> bool:
    """Whether the tests of a maths header, tests/cpp/<its name>.cpp, pass with the headers of `root`."""
    source = simt_build.ROOT / "tests" / "cpp" / f"{header.stem.removesuffix('_math')}.cpp"
    program = root / "program"
    simt_build.run_compiler([*simt_build.COMMON, "-O2", "-I", str(root / "csrc"), str(source), "-o", str(program)])
    names = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    return all(subprocess.run([program, name], capture_output=True, check=False).returncode == 0 for name in names)


def mutate(path: Path, mutation: Mutation) -> None:
    text = path.read_text()
    found = text.count(mutation.old)
    if found != 1:
        raise ValueError(f"{path.name}: {mutation.what}: {mutation.old!r} is there {found} times, expected once")
    path.write_text(text.replace(mutation.old, mutation.new))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="*", choices=[[], *MUTATIONS], default=[])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", metavar="TEXT", help="only mistakes whose description contains TEXT")
    arguments = parser.parse_args()
    families = arguments.families or MUTATIONS
    work = [(family, m) for family in families for m in MUTATIONS[family] if arguments.only in m.what]
    started = time.perf_counter()
    survivors = 0
    noticed_by: collections.Counter[str] = collections.Counter()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for (family, mutation), tool in zip(work, pool.map(lambda item: tool_that_noticed(*item), work), strict=True):
            survivors += tool is None
            noticed_by[tool or "survived"] += 1
            print(f"{family:17} {mutation.what:62} {tool or 'SURVIVED'}", flush=True)
    print(f"{len(work)} mistakes, {survivors} survived, {time.perf_counter() - started:.0f} s: {dict(noticed_by)}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
