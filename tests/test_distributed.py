"""Several processes: the same run as in one, whoever goes on with it, and one clear message where it cannot be."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy
import pytest
import ranks
import torch
from torch import nn
from torch.nn import functional

from pygan import distributed
from pygan.cli import main
from pygan.distributed import ALONE, Share, join
from pygan.folder import RunFolder
from pygan.ops import dropout

load_file = pytest.importorskip("safetensors.torch").load_file

NAMES = ("code2014", "paper2014", "dcgan", "wgan_gp")
RUNS = [*((name, count) for name in NAMES for count in (2, 4)), ("code2014", 3), ("conditional", 3), ("own", 2)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All that `ranks.everything` does, in one process (folder 1) and in several."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ranks.everything(folder / "1", [(name, 1) for name in dict(RUNS)])
    ranks.train("code2014", folder / "4" / "resumed", epochs=6)
    ranks.processes(ranks.everything, folder, (4, 3, 2), RUNS)
    torch.set_num_threads(threads)
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


def test_another_number_of_processes_goes_on(trained, one_thread):
    whole = trained / "1" / "code2014"
    assert max(differences(whole, trained / "4" / "resumed").values()) < 1e-5
    begun = trained / "2" / "begun"
    assert RunFolder(begun).read_checkpoint("last")[1]["update"] == 24
    ranks.train("code2014", begun, resume=True)
    assert max(differences(whole, begun).values()) < 1e-5


def test_processes_that_cannot_train_together_are_told_why(trained):
    told = [json.loads((trained / "2" / f"told-{rank}.json").read_text()) for rank in range(2)]
    assert told[0] == told[1]
    assert told[0].pop("small batch") == "train: batch_size must be at least the number of processes, 2, got 1"
    same = "must be the same in all processes, but it is"
    assert told[0].pop("settings") == f"train: batch_size {same} 10 in rank 0 and 11 in rank 1"
    assert told[0].pop("seeds") == f"train: seed {same} 0 in rank 0 and 1 in rank 1"
    assert told[0].pop("data").startswith(f"train: valid {same} ")
    strides = "train: the strides of generator.0.weight"
    assert told[0].pop("layout") == f"{strides} {same} [4, 1] in rank 0 and [1, 8] in rank 1"
    assert told[0].pop("rows").startswith("train: in several processes batch norm must get all of a process's 8 rows")
    assert told[0] == {}
    assert not (trained / "2" / "settings").exists()


def test_the_main_process_alone_calls_the_users_function_and_all_follow_it(trained):
    main, other = (json.loads((trained / "2" / f"followed-{rank}.json").read_text()) for rank in range(2))
    assert (main.pop("calls"), other.pop("calls")) == ([1, 2, 3], [])
    assert main == other
    assert len(main["history"]) == 3


@pytest.mark.parametrize("name", ["paper2014", "dcgan", "dcgan-batch_norm"])
def test_the_bytes_that_processes_exchange(trained, name):
    """The formulas of docs/distributed.md."""
    seen = json.loads((trained / "2" / f"counted-{name}.0.json").read_text())
    assert seen == json.loads((trained / "2" / f"counted-{name}.1.json").read_text())
    updates, size, given = seen["updates"], seen["parameters"], seen["given"]
    k = 2 if name == "paper2014" else 1
    gradients = 4 * (k * size["D"] + size["G"])
    forward = backward = 0
    if name == "dcgan":
        channels = seen["channels"]
        forward = 8 * (3 * channels["D"] + 2 * channels["G"])
        backward = 8 * (3 * channels["D"] + channels["G"])
        assert channels["D"] > 0
    assert updates > 0
    assert given["all_reduce torch.float32"] == updates * (gradients + backward)
    assert given.get("all_gather torch.float32", 0) == updates * forward
    assert given["all_reduce torch.uint8"] == (updates + 1) * 3  # once more at the end
    assert given["all_reduce torch.float64"] == updates * 4 * 8


def test_table_1_of_several_processes_is_that_of_one(trained):
    alone, main, other = (json.loads((trained / name).read_text()) for name in ("1/table1-0.json", *TABLES))
    assert (alone.pop("seeds"), main.pop("seeds"), other.pop("seeds")) == ([0, 1, 2, 0], [0, 2], [1])
    assert main == other
    same = "must be the same in all processes, but it is"
    seeds = f"table1: seeds {same} [0] in rank 0 and [1] in rank 1"
    sizes = f"table1: batch_size {same} '10' in rank 0 and '11' in rank 1"
    assert (alone.pop("told"), main.pop("told")) == ([], [seeds, sizes])
    for name in ("trained", "given"):
        for table in (alone[name], main[name]):
            for run in (score["run"] for row in table["rows"] for score in row["scores"] if score["run"]):
                del run["path"], run["seconds"]
        assert alone[name] == main[name]
        assert len(main[name]["rows"][0]["scores"]) == 3
    ours = (trained / count / "table1" / "mnist-code2014-seed1" / "generator.safetensors" for count in ("1", "2"))
    assert len({path.read_bytes() for path in ours}) == 1
    assert json.loads((trained / "2" / "table1" / "table1.json").read_text())["rows"]
    assert (trained / "2" / "table1" / "given" / "table1.md").exists()


TABLES = ("2/table1-0.json", "2/table1-1.json")
KILLED = """
import os, signal, sys
from pygan.cli import main
from pygan.train import _Play

restarts, update = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), _Play.update

def dying(self, number):
    update(self, number)
    if os.environ["RANK"] == "1" and (restarts, number) in ((0, 7), (1, 12)):
        os.kill(os.getpid(), signal.SIGKILL)

_Play.update = dying
sys.exit(main(sys.argv[1:]))
"""
INTERRUPTED = """
import os, pathlib, signal, sys, time
from pygan.cli import main
from pygan.train import _Play

update = _Play.update

def waiting(self, number):
    update(self, number)
    if number == 7:
        pathlib.Path(sys.argv[0] + os.environ["RANK"]).touch()
        while not signal.getsignal(signal.SIGINT).__self__.asked:
            time.sleep(0.01)

_Play.update = waiting
sys.exit(main(sys.argv[1:]))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def command(folder: Path, out: str, *more: str) -> list[str]:
    """The words of a training of 20 updates."""
    settings = {
        "out": folder / out,
        "epochs": 4,
        "recipe": "code2014",
        "generator-hidden": "16,16",
        "batch-size": 10,
        "evaluation-samples": 50,
        "checkpoint-every": 1,
    }
    numpy.save(folder / "images.npy", ranks.PICTURES.numpy())
    return ["train", str(folder / "images.npy"), *(f"--{name}={value}" for name, value in settings.items()), *more]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """That training in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(command(folder, "run", "--quiet")) == 0
    return folder / "run"


def start(folder: Path, script: str, *options: str) -> subprocess.Popen:
    """Start that training in two processes by torchrun."""
    (folder / "script.py").write_text(script)
    words = [
        *TORCHRUN,
        "--monitor-interval=0.1",
        *options,
        str(folder / "script.py"),
        *command(folder, "run", "--resume"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, text=True, env=environment, start_new_session=True, **pipes)


def test_torchrun_restarts_a_run_whose_processes_are_killed_twice(tmp_path, undisturbed):
    torchrun = start(tmp_path, KILLED, "--max-restarts=2")
    said, errors = torchrun.communicate()
    assert torchrun.returncode == 0, errors
    assert said.count("nats on the test split") == 1
    assert errors.count("another process of this run has ended") <= 2
    assert RunFolder(tmp_path / "run").read_result()["epochs"] == 4
    assert max(differences(undisturbed, tmp_path / "run").values()) < 1e-5


def test_ctrl_c_ends_all_processes_with_one_message(tmp_path, undisturbed):
    torchrun = start(tmp_path, INTERRUPTED)
    while torchrun.poll() is None and not all((tmp_path / f"script.py{rank}").exists() for rank in range(2)):
        time.sleep(0.05)
    os.killpg(torchrun.pid, signal.SIGINT)  # as a terminal does
    _, errors = torchrun.communicate()
    assert torchrun.returncode != 0
    (message,) = [line for line in errors.splitlines() if line.startswith(("pygan: interrupted", "pygan: error"))]
    assert message.startswith(f"pygan: interrupted after 1.8 of 4 epochs, saved in {tmp_path / 'run'}; resume with: ")
    assert RunFolder(tmp_path / "run").read_checkpoint("last")[1]["update"] == 9
    assert main(command(tmp_path, "run", "--resume", "--quiet")) == 0
    assert max(differences(undisturbed, tmp_path / "run").values()) < 1e-5


WITHOUT = """
import sys

FEATURES = ("_c10d_init", "_rpc_init", "_dist_autograd_init")

class Without:
    def find_spec(self, name, path=None, target=None):
        if name == "torch.distributed":
            for feature in [name for name in vars(sys.modules["torch._C"]) if name in FEATURES]:
                delattr(sys.modules["torch._C"], feature)

sys.meta_path.insert(0, Without())
import torch
assert not torch.distributed.is_available()
import pygan
from pygan.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_torch_without_distributed_trains_in_one_process(tmp_path, undisturbed):
    words = [sys.executable, "-c", WITHOUT, *command(tmp_path, "run")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert max(differences(undisturbed, tmp_path / "run").values()) < 1e-5


# ---- in one process -------------------------------------------------------------------------------------------------


def shares(total, count):
    """The shares of all of `count` processes."""

    class Process:
        def __init__(self, rank):
            self.rank, self.count = rank, count

    return [distributed._Rows(Process(rank), total, synchronised=False) for rank in range(count)]


@pytest.mark.parametrize(("total", "count"), [(8, 2), (10, 3), (3, 3)])
def test_shares_make_up_the_batch(total, count):
    rows = torch.arange(2 * total)
    parts = shares(total, count)
    assert torch.cat([share.of(rows[:total]) for share in parts]).tolist() == list(range(total))
    assert max(share.size for share in parts) - min(share.size for share in parts) <= 1
    for share in parts:  # two batches, stacked, cut at every place
        mine = torch.cat([share.of(rows[:total]), share.of(rows[total:])])
        for first in range(len(mine)):
            found = [(row, piece.tolist()) for row, (piece,) in share.pieces(first, mine[first:])]
            assert [row + i for row, piece in found for i in range(len(piece))] == mine[first:].tolist()
            assert [number for _, piece in found for number in piece] == mine[first:].tolist()


def test_mean_gradients_have_the_order_of_the_parameters_in_memory():
    share = shares(10, 4)[0]
    share._ranks.data, share._ranks.reduce = None, lambda tensor, group: None
    weight, gradient = torch.empty(4, 2, 3, 5), torch.rand(4, 2, 3, 5)
    other = torch.empty(5, 4, 3, 2).permute(1, 3, 2, 0)
    for parameter in (weight, weight.to(memory_format=torch.channels_last), other):
        for given in (gradient, gradient.to(memory_format=torch.channels_last)):
            (bias, mean) = share.mean([torch.ones(()), given], [torch.zeros(()), parameter])
            assert float(bias) == pytest.approx(0.3)
            assert torch.equal(mean, gradient * 0.3)
            assert mean.stride() == parameter.stride()


def dropped_in_place(x):
    y = x.clone()
    functional.dropout(y, 0.3, inplace=True)
    return y


DRAWS = {
    "rand": lambda x: torch.rand(len(x), 3),
    "rand of numpy's sizes": lambda x: torch.rand(numpy.int64(len(x)), 3),
    "rand of a size": lambda x: torch.rand((len(x), 3)),
    "randn": lambda x: torch.randn(size=(len(x), 3)),
    "like": torch.rand_like,
    "like, by name": lambda x: torch.rand_like(input=x),
    "normal like": torch.randn_like,
    "normal_": lambda x: torch.empty_like(x).normal_(1, 2),
    "uniform_": lambda x: torch.empty_like(x).uniform_(),
    "bernoulli_": lambda x: torch.empty_like(x).bernoulli_(0.3),
    "dropout": lambda x: functional.dropout(x, 0.3),
    "dropout in place": dropped_in_place,
    "dropout2d": lambda x: nn.Dropout2d(0.3)(x[..., None, None])[..., 0, 0],
    "own dropout": lambda x: dropout(x, 0.3),
    "reference dropout": lambda x: dropout(x, 0.3, impl="reference"),
    "no dropout": lambda x: functional.dropout(dropout(x, 0.0), 0.3, training=False),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("batches", [1, 2])
def test_random_numbers_are_those_of_the_whole_batch(draw, batches):
    whole = torch.rand(batches, 10, 3) + 1
    torch.manual_seed(3)
    expected = draw(whole.flatten(0, 1)).view(batches, 10, 3)
    state = torch.get_rng_state()
    for share in shares(10, 3):
        rows = slice(share.first, share.first + share.size)
        torch.manual_seed(3)
        with share.as_whole(), share.as_whole():  # not twice
            mine = draw(whole[:, rows].flatten(0, 1))
        assert torch.equal(mine.view(batches, -1, 3), expected[:, rows])
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("draw", ["like", "normal like", "normal_", "bernoulli_", "dropout", "dropout in place"])
@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 0, 1, 2), None], ids=["channels last", "batch last", "expanded"])
def test_random_numbers_are_those_of_the_whole_batch_in_any_order_in_memory(draw, order):
    """As channels_last, in which a DCGAN on the CPU works: random numbers are drawn in the order in memory."""

    def ordered(x):
        if order is None:
            return x[:, :1].expand_as(x)
        return x.permute(order).contiguous().permute([order.index(d) for d in range(4)])

    whole = ordered(torch.rand(10, 3, 4, 5))
    torch.manual_seed(3)
    expected = DRAWS[draw](whole)
    for share in shares(10, 3):
        rows = slice(share.first, share.first + share.size)
        torch.manual_seed(3)
        with share.as_whole():
            assert torch.equal(DRAWS[draw](ordered(whole[rows])), expected[rows])


UNDIVIDED = {
    "torch.Tensor.bernoulli_": lambda x: torch.empty_like(x).bernoulli_(x),
    "torch.bernoulli": lambda x: torch.bernoulli(x),
    "torch.Tensor.bernoulli": lambda x: x.bernoulli(0.5),
    "torch.normal": lambda x: torch.normal(0.0, 1.0, x.shape),
    "torch.randint": lambda x: torch.randint(9, (len(x), 2)),
    "torch.randperm": lambda x: torch.randperm(len(x)),
    "torch.multinomial": lambda x: torch.distributions.Categorical(x).sample(),
    "_standard_gamma": lambda x: torch.distributions.Gamma(x, x).sample(),
    "torch.Tensor.exponential_": lambda x: torch.empty_like(x).exponential_(),
    "torch.nn.functional.alpha_dropout": nn.AlphaDropout(),
    "torch.nn.functional.rrelu": nn.RReLU(),
    "torch.nn.functional.gumbel_softmax": functional.gumbel_softmax,
}


@pytest.mark.parametrize("name", UNDIVIDED)
def test_random_functions_that_are_not_divided_warn_once(name):
    share, x = shares(10, 2)[0], torch.rand(5, 3)
    with warnings.catch_warnings(record=True) as caught, share.as_whole():
        warnings.simplefilter("always")
        UNDIVIDED[name](x)
        UNDIVIDED[name](x)
    assert [str(one.message).split(" among ")[0] for one in caught] == [f"train: {name} is not divided"]


def test_what_is_the_same_in_all_processes_does_not_warn():
    share, x = shares(10, 2)[0], torch.rand(5, 3)
    with share.as_whole():
        torch.randint(9, ())
        torch.normal(torch.zeros(7), 1.0)
        for layer in (nn.AlphaDropout(), nn.RReLU(), nn.Dropout()):
            layer.eval()(x)
        nn.Dropout()(x)


def test_other_tensors_are_left_alone():
    share = shares(10, 2)[0]
    for shape in ((), (0, 3), (7, 3)):
        torch.manual_seed(0)
        expected = torch.rand(shape)
        torch.manual_seed(0)
        with share.as_whole():
            assert torch.equal(torch.rand(shape), expected)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has this policy")
def test_threads_of_gloo_do_not_interrupt_others():
    policies: list[int] = []
    with distributed._background_threads():
        thread = threading.Thread(target=lambda: policies.append(os.sched_getscheduler(0)))
        thread.start()
    thread.join()
    assert (policies, os.sched_getscheduler(0)) == ([os.SCHED_BATCH], os.SCHED_OTHER)


def test_one_process_does_nothing():
    share, x = ALONE.share(5), torch.rand(5, 2)
    assert type(share) is Share
    assert share.is_whole
    assert share.of(x) is x
    assert share.mean([x], [x])[0] is x
    assert share.pieces(0, x)[0][1][0] is x
    assert join(CPU) is ALONE
    assert ALONE.agree(lambda: (True, False))() == (True, False)


def test_a_scheduler_that_refuses_is_left_alone(monkeypatch):
    def refused(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setscheduler", refused, raising=False)
    with distributed._background_threads():
        pass
