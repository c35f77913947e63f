"""Runs the cases of one kernel family in this process: `python tests/simt/run.py FAMILY --build plain|asan|tsan`.

The process starts itself again under the sanitizer's library. Exit code 0 if everything was right; each failed case is
a line `FAIL <case> [<order>]: ...`, and what a sanitizer finds it prints itself.
"""

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path

import simt_build
from simt_host import ORDERS, Host


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family")
    parser.add_argument("--build", choices=simt_build.BUILDS, default="plain")
    parser.add_argument("--orders", nargs="+", default=ORDERS, metavar="ORDER", help="forward, reverse, random:<seed>")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--root", type=Path, default=simt_build.ROOT, help="the project whose csrc/ is compiled")
    parser.add_argument("--seconds", type=int, default=60, help="limit of one case; the process ends by SIGALRM")
    arguments = parser.parse_args()

    if os.environ.get("SIMT_PROCESS") != arguments.build:
        env = simt_build.environment(arguments.build) | {"SIMT_PROCESS": arguments.build}
        again = [*simt_build.command(arguments.build), sys.executable, *sys.argv]
        os.execvpe(again[0], again, env)

    host = Host(simt_build.compile_library(arguments.family, arguments.build, arguments.root), arguments.build)
    cases = importlib.import_module(f"cases_{arguments.family}").cases()
    started, ran, failed = time.perf_counter(), 0, 0
    for name, case in cases:
        if arguments.only not in name:
            continue
        for order in arguments.orders:
            print(f"{name} [{order}]", file=sys.stderr, flush=True)  # so that a sanitizer's report has a heading
            signal.alarm(arguments.seconds)  # by its default action, which also ends a loop inside a kernel
            ran += 1
            try:
                host.run(case, order)
            except AssertionError as error:
                failed += 1
                print(f"FAIL {name} [{order}]: {error}", flush=True)
    seconds = time.perf_counter() - started
    print(f"{arguments.family} {arguments.build}: {ran} cases, {failed} failed, {seconds:.1f} s")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
