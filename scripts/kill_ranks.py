"""A run of three processes of which one, at random, is killed again and again: nothing is lost, and the others end.

    python scripts/kill_ranks.py [KILLS]

Each time the run is started again with resume=True. Its last checkpoint is then compared with that of a run that
nobody disturbed, bit for bit. (That several processes train as one does is tested in tests/test_distributed.py, over
some 50 updates. After the 8000 of this run, rounding alone makes a difference of .001 and more.)
"""

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

import pygan
from pygan.distributed import ProcessLostError
from pygan.folder import RunFolder

COUNT = 3
SETTINGS = {
    "recipe": "code2014",
    "epochs": 2000,
    "patience": 0,  # or it would end before the last kill
    "batch_size": 20,
    "generator_hidden": (64, 64),
    "discriminator_hidden": (32, 32),
    "evaluation_samples": 100,
    "evaluate_every": 100,
    "samples_every": 100,
    "checkpoint_seconds": 0.1,
    "progress": False,
    "resume": True,
}


def images() -> Tensor:
    """100 images, of which 80 are trained on."""
    return torch.randint(256, (100, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def process(rank: int, store: str, out: str) -> None:
    """One of the processes; exit code 3 if it was told that another one has ended."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=COUNT)
    Path(f"{store}.has{rank}").touch()
    try:
        pygan.train(images(), out=out, **SETTINGS)
    except ProcessLostError as error:
        Path(f"{store}-{rank}").write_text(str(error))
        sys.exit(3)


def start(folder: Path, out: Path) -> list[torch.multiprocessing.Process]:
    """Start the processes of a run; return when they have found each other, which is not ours to test."""
    store = tempfile.mktemp(dir=folder)
    context = torch.multiprocessing.get_context("forkserver")
    started = [context.Process(target=process, args=(rank, store, str(out))) for rank in range(COUNT)]
    for one in started:
        one.start()
    while not all(Path(f"{store}.has{rank}").exists() for rank in range(COUNT)):
        assert all(one.exitcode is None for one in started), "a process has ended before the run"
        time.sleep(0.01)
    return started


def wait_for_checkpoint(out: Path, process: torch.multiprocessing.Process) -> None:
    """Wait until a run has written a checkpoint, or this process of it has ended."""
    path, now = out / "checkpoints" / "last.safetensors", time.time()
    while process.is_alive() and not (path.exists() and path.stat().st_mtime > now):
        time.sleep(0.01)


def state(run: Path) -> dict[str, Tensor]:
    """The tensors of the last checkpoint."""
    return load_file(run / "checkpoints" / "last.safetensors")


def main(kills: int) -> None:
    torch.multiprocessing.set_forkserver_preload(["torch", "pygan"])
    torch.set_num_threads(1)
    draw, update, done = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in (run := start(folder, folder / "undisturbed")):
            one.join()
        assert [one.exitcode for one in run] == [0] * COUNT
        while True:
            run = start(folder, folder / "disturbed")
            victim, begun = draw.randrange(COUNT), time.monotonic()
            if done % 2 and done < kills:  # every other time in the middle of training, else perhaps while it starts
                wait_for_checkpoint(folder / "disturbed", run[victim])
            run[victim].join(draw.uniform(0.1, 2) if done < kills else None)
            if run[victim].exitcode is not None and done >= kills:
                break
            if run[victim].exitcode is not None:
                for one in run:
                    one.join(20)
                told = [path.read_text() for path in sorted(folder.glob("tmp*-?"))[-COUNT:]]
                raise SystemExit(f"ended by itself, with exit codes {[one.exitcode for one in run]}: {told}")
            run[victim].kill()
            killed = time.monotonic()
            for one in run:
                one.join()
            codes = [one.exitcode for one in run]
            expected = [-signal.SIGKILL if rank == victim else 3 for rank in range(COUNT)]
            checkpoint = RunFolder(folder / "disturbed").read_checkpoint("last")
            before, update = update, 0 if checkpoint is None else checkpoint[1]["update"]
            done += 1
            print(
                f"kill {done:2}: rank {victim} after {killed - begun:.1f} s, the others ended within "
                f"{time.monotonic() - killed:.1f} s with exit codes {codes}; last checkpoint: update {update}",
                flush=True,
            )
            if codes != expected and update > 0:
                raise SystemExit(f"expected exit codes {expected}")
            if update < before:
                raise SystemExit(f"updates were lost: {before} before, {update} now")
        for one in run:
            one.join()
        undisturbed, disturbed = (state(folder / name) for name in ("undisturbed", "disturbed"))
        same = all(torch.equal(tensor, disturbed[name]) for name, tensor in undisturbed.items())
        print(f"bit for bit as undisturbed: {same}")
        if not same:
            raise SystemExit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
