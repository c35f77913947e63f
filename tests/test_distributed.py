"""Several processes: the same run as in one, whoever goes on with it, and one clear message where it cannot be."""

from pathlib import Path

import pytest
import ranks
import torch

from pygan.folder import RunFolder

load_file = pytest.importorskip("safetensors.torch").load_file

NAMES = ("code2014", "paper2014", "dcgan", "wgan_gp")
RUNS = [*((name, count) for name in NAMES for count in (2, 4)), ("code2014", 3), ("conditional", 3), ("own", 2)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every run, in one process (folder 1) and in several."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ranks.all_of(folder / "1", [(name, 1) for name in dict(RUNS)])
    torch.set_num_threads(threads)
    ranks.processes(ranks.all_of, folder, (4, 3, 2), RUNS)
    return folder


def differences(one: Path, other: Path) -> dict[str, float]:
    """By how much all numbers of the last checkpoints differ, at most; the generator's state must be the same."""
    a, b = (load_file(path / "checkpoints" / "last.safetensors") for path in (one, other))
    assert a.keys() == b.keys()
    assert torch.equal(a.pop("random.cpu"), b.pop("random.cpu"))
    return {name: float((a[name].double() - b[name].double()).abs().max()) for name in a}


@pytest.mark.parametrize(("name", "count"), RUNS)
def test_several_processes_equal_one(trained, name, count):
    alone, together = trained / "1" / name, trained / str(count) / name
    assert max(differences(alone, together).values()) < 1e-5
    before, after = (RunFolder(run).read_log() for run in (alone, together))
    assert before[-1]["update"] >= 50
    for one, other in zip(before, after, strict=True):
        del one["seconds"], other["seconds"]
        for key in one:  # some are None
            assert one[key] == other[key] or one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-5)
