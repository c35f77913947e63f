"""Threads of the CPU: how they wait for each other, and how many a run uses."""

import os
import subprocess
import sys
import tomllib

import pytest
import tiny
import torch

import pygan
from pygan._threads import choose_threads

SCRIPT = "import os; before = dict(os.environ); {imports}; assert dict(os.environ) == before"


def spins(imports: str, **choice: str) -> str:
    """What OpenMP says of its spinning in a process with these imports."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **choice}
    command = [sys.executable, "-c", SCRIPT.format(imports=imports)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line.partition("=")[2].strip() for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not lines:
        pytest.skip("torch's OpenMP runtime is not libgomp")
    return lines[0]


def test_waiting_threads_spin_for_a_moment():
    assert spins("import pygan") == "'1500'"


def test_a_choice_of_the_user_holds():
    assert spins("import pygan", GOMP_SPINCOUNT="123") == "'123'"
    assert spins("import pygan", OMP_WAIT_POLICY="PASSIVE") == "'0'"
    assert spins("import torch; import pygan") != "'1500'"


def test_a_run_uses_and_keeps_its_threads(tmp_path):
    before = torch.get_num_threads()
    seen = []
    run = tiny.run(tmp_path / "run", threads=before + 1, on_epoch=lambda run: seen.append(torch.get_num_threads()))
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before
    assert run.threads == pygan.load(tmp_path / "run").threads == before + 1
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["threads"] == before + 1


def test_a_resumed_run_has_the_threads_that_it_was_begun_with(tmp_path, capsys):
    begun = torch.get_num_threads() + 1
    tiny.run(tmp_path / "run", threads=begun)
    assert tiny.run(tmp_path / "run", epochs=3, resume=True).threads == begun
    assert capsys.readouterr().err == ""
    assert choose_threads(begun + 1, {"threads": begun}) == begun + 1
    assert f"started with threads={begun} and continues with {begun + 1}" in capsys.readouterr().err
    assert choose_threads(None, {}) == torch.get_num_threads()  # a run from before threads were kept


def test_small_nets_use_one_thread(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert tiny.run(tmp_path / "small").threads == 1
        assert tiny.run(tmp_path / "large", generator_hidden=(8, 400_000), epochs=1).threads == 2
        own = torch.nn.Linear(4, 16)
        torch.nn.init.zeros_(own.weight), torch.nn.init.constant_(own.bias, 0.5)
        assert tiny.run(tmp_path / "own", generator=own).threads == 2  # its activations are not known
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_impossible_threads_are_refused(tmp_path, threads, error):
    with pytest.raises(error, match="threads must be"):
        tiny.run(tmp_path / "run", threads=threads)
