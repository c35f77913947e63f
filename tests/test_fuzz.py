"""A sample of `tests/fuzz_operators.py`, in a process of its own, for a fault there may end the process."""

import os
import subprocess
import sys
from pathlib import Path


def test_random_calls_of_every_operator() -> None:
    script = Path(__file__).with_name("fuzz_operators.py")
    command = [sys.executable, str(script), "--calls", "1500"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.endswith("1500 calls, 0 failures\n")
