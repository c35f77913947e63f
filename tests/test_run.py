"""The run folder: nothing is lost, nothing is overwritten, and a resumed run is the uninterrupted one."""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
import tomllib

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import pygan
from pygan.data import fingerprint
from pygan.distributed import Ranks
from pygan.folder import RunFolder
from pygan.health import NonFiniteError, spread
from pygan.run import load
from pygan.train import _Play, train

pytestmark = pytest.mark.usefixtures("one_thread")

TIMES = ("seconds", "times")


def everything(path):
    """All that a run folder says but how long it took."""
    folder, said = RunFolder(path), {}
    for name in ("last", "best"):
        tensors, progress = folder.read_checkpoint(name)
        said[name] = tensors, without_times(progress)
    said["log"] = [without_times(json.loads(line)) for line in (path / "log.jsonl").read_text().splitlines()]
    said["result"] = without_times(json.loads((path / "result.json").read_text()))
    return said


def without_times(table):
    return {key: value for key, value in table.items() if key not in TIMES}


def assert_same(one, other):
    for name in ("last", "best"):
        (tensors, progress), (other_tensors, other_progress) = one[name], other[name]
        assert progress == other_progress
        assert tensors.keys() == other_tensors.keys()
        assert [key for key in tensors if not torch.equal(tensors[key], other_tensors[key])] == []
    assert (one["log"], one["result"]) == (other["log"], other["result"])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"updates": "alternating", "k": 3},
        {"optimizer": "adam", "noise": "normal"},
        {"averaging": 0.9, "precision": "bf16"},
    ],
)
def test_ten_epochs_are_five_and_five(tmp_path, settings):
    settings = {"evaluate_every": 5, **settings}
    tiny.run(tmp_path / "straight", epochs=10, **settings)
    tiny.run(tmp_path / "halves", epochs=5, **settings)
    halves = tiny.run(tmp_path / "halves", epochs=10, resume=True, **settings)
    straight = load(tmp_path / "straight", "last")
    assert halves.history == straight.history
    assert len(halves.history) == 10
    assert_same(everything(tmp_path / "halves"), everything(tmp_path / "straight"))


def _forkserver():
    """A context in which each start is a fork, not an import of all that training needs."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pygan.train", "PIL.Image", "filelock", "safetensors.torch", "tomli_w"])
    return processes


def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path):
    """At least 20 kills; the shortest leave no checkpoint or not even a configuration, the longest a finished run."""
    processes = _forkserver()
    settings = {"epochs": 12, "evaluate_every": 3, "averaging": 0.9, "checkpoint_seconds": 0.05, "resume": True}

    def start(path):
        process = processes.Process(target=tiny.run_in_one_thread, args=(path,), kwargs=settings)
        process.start()
        return process

    start(tmp_path / "warm-up").join()
    began = time.monotonic()
    start(tmp_path / "straight").join()
    longest = time.monotonic() - began
    straight = everything(tmp_path / "straight")

    chance, kills, finished = random.Random(0), 0, 0
    while kills < 20 or not finished:
        path = tmp_path / "killed"
        process = start(path)
        process.join(chance.uniform(0, longest))  # at times long enough for a checkpoint, however slow the start is
        process.kill()  # Too late, if it has just ended.
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            for name in ("last", "best"):
                RunFolder(path).read_checkpoint(name)  # The old one, the new one or none, but never half of one.
        else:
            assert process.exitcode == 0
            assert_same(everything(path), straight)
            finished += 1
            shutil.rmtree(path)


def test_ctrl_c_in_the_last_update_counts_where_flags_are_exchanged_before_it(tmp_path, monkeypatch):
    """As several processes do, which compare flags while an update is computed."""

    def early(_, flags):
        taken = flags()
        return lambda: taken

    def interrupted(self, number):
        update(self, number)
        if number + 1 == epochs * per_epoch:
            os.kill(os.getpid(), signal.SIGINT)

    epochs, per_epoch = 2, len(tiny.run(tmp_path / "other", epochs=1).splits.train) // tiny.SETTINGS["batch_size"]
    update = _Play.update
    monkeypatch.setattr(Ranks, "agree", early)
    monkeypatch.setattr(_Play, "update", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after 2\.0 of 2 epochs"):
        tiny.run(tmp_path / "run", epochs=epochs)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys):
    def interrupt(run):
        if len(run.history) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after 3\.0 of 6 epochs, saved in") as stop:
        tiny.run(tmp_path / "run", epochs=6, checkpoint_every=100, on_epoch=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert str(tmp_path / "run") in str(stop.value)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "run" / "result.json").exists()
    tiny.run(tmp_path / "run", epochs=6, checkpoint_every=100, resume=True)
    tiny.run(tmp_path / "straight", epochs=6, checkpoint_every=100)
    assert_same(everything(tmp_path / "run"), everything(tmp_path / "straight"))


def test_training_works_in_a_thread(tmp_path):
    """Where no signal handler can be set."""
    thread = threading.Thread(target=tiny.run, args=(tmp_path / "run",))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "result.json").exists()


def test_checkpoints_are_made_within_an_epoch_too(tmp_path):
    class Stop(Exception):
        pass

    class Stopping(nn.Sequential):
        calls = 0

        def forward(self, images):
            Stopping.calls += self.training
            if Stopping.calls > 8:
                raise Stop
            return super().forward(images)

    player = Stopping(nn.Flatten(), nn.Linear(16, 1))
    with pytest.raises(Stop):
        tiny.run(tmp_path / "run", discriminator=player, epochs=9, checkpoint_every=100, checkpoint_seconds=1e-9)
    _, progress = RunFolder(tmp_path / "run").read_checkpoint("last")
    assert progress["update"] == 4  # Two passes, real and fake, in each of the updates before the ninth pass.


def test_a_second_process_is_refused(tmp_path):
    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(RuntimeError, match=r"another process is training in .*run"),
    ):
        tiny.run(tmp_path / "run", resume=True)
    tiny.run(tmp_path / "run", resume=True)


def test_nothing_is_overwritten(tmp_path):
    tiny.run(tmp_path / "run")
    before = everything(tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run; resume=True continues it"):
        tiny.run(tmp_path / "run")
    assert_same(everything(tmp_path / "run"), before)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(ValueError, match="is not empty and holds no run"):
            tiny.run(tmp_path / "other", resume=resume)


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_that_fails_leaves_nothing(tmp_path, monkeypatch, resume):
    """So that the corrected call finds a free folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    (tmp_path / "empty").mkdir()
    wrong = [({"generator": nn.Linear(4, 15)}, "generator must map noise"), ({"tensorboard": True}, "True needs")]
    for out in (None, "run", "empty"):
        for settings, message in wrong:
            with pytest.raises((ValueError, RuntimeError), match=message):
                tiny.run(out, resume=resume, **settings)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    for out in (None, "run", "empty"):
        tiny.run(out, resume=resume)


def test_a_resume_that_fails_changes_nothing(tmp_path):
    path = tiny.run(tmp_path / "run", generator=nn.Sequential(nn.Linear(4, 16), nn.Sigmoid())).path
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    other = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 16), nn.Sigmoid())  # of the same class
    with pytest.raises(ValueError, match=r"last\.safetensors does not fit: generator\.1\.weight is missing"):
        tiny.run(path, generator=other, epochs=3, resume=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_run_killed_before_its_model_card_gets_it_when_resumed(tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("pygan.train"), "model_card", die)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tmp_path / "run")
    tiny.run(tmp_path / "run", resume=True)
    assert {"generator.safetensors", "README.md", "result.json"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_finished_run_is_returned_as_it_is(tmp_path):
    first = tiny.run(tmp_path / "run")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").iterdir()}
    again = tiny.run(tmp_path / "run", resume=True)
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert again.history == first.history
    assert torch.equal(again.sample(5, seed=0), first.sample(5, seed=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 5}, "batch_size was 10 in .*, got 5; to resume, only epochs may change"),
        ({"seed": 1}, "seed was 0 in .*, got 1"),
        ({"epochs": 1}, "epochs was 2 in .*, got 1; to resume, epochs may only grow"),
        ({"recipe": "paper2014"}, "name was 'code2014' in .*, got 'paper2014'"),
        (
            {"discriminator": nn.Sequential(nn.Flatten(), nn.Linear(16, 1))},
            'discriminator was "the recipe\'s" in .*Seq',
        ),
        ({"data": tiny.images(seed=1)}, "data must be .* of the run in .*run: other images in train, valid, test$"),
    ],
)
def test_a_changed_setting_is_refused_by_name(tmp_path, settings, message):
    tiny.run(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        tiny.run(tmp_path / "run", resume=True, **settings)


def test_a_changed_split_is_refused_by_name(tmp_path):
    """Zeros of another shape or dtype have the same bytes, and are other images all the same."""
    zeros = torch.zeros(8, 1, 4, 4, dtype=torch.uint8)
    given = {"data": tiny.images(40), "valid": tiny.images(8, seed=1), "test": zeros}
    tiny.run(tmp_path / "run", **given)
    for changed, names in (
        ({"valid": tiny.images(8)}, "valid"),
        ({"test": tiny.images(8)}, "test"),
        ({"test": zeros[:2].float()}, "test"),
        ({name: images.view(-1, 1, 2, 8) for name, images in given.items()}, "train, valid, test"),
    ):
        with pytest.raises(ValueError, match=rf"of the run in .*: other images in {names}$"):
            tiny.run(tmp_path / "run", **{**given, **changed}, resume=True)
    tiny.run(tmp_path / "run", **given, resume=True)


def test_files_that_have_changed_are_not_judged_by(tmp_path):
    for seed, name in enumerate(("data", "valid", "test")):
        np.save(tmp_path / f"{name}.npy", tiny.images(40, seed).numpy())
    splits = {name: tmp_path / f"{name}.npy" for name in ("valid", "test")}
    run = tiny.run(tmp_path / "run", tmp_path / "data.npy", **splits)
    assert load(run.path).log_likelihood() == run.log_likelihood()
    for name in ("valid", "test"):
        kept = splits[name].read_bytes()
        np.save(splits[name], tiny.images(40, seed=3).numpy())
        with pytest.raises(ValueError, match=rf"data\.npy has changed since .* was trained on it: .* in {name}$"):
            load(run.path).log_likelihood()
        splits[name].write_bytes(kept)


def test_what_is_left_open_stays_when_resumed(tmp_path):
    tiny.run(tmp_path / "run")
    run = train(tiny.images(), out=tmp_path / "run", resume=True, progress=False)
    assert (run.recipe.epochs, run.recipe.batch_size) == (2, 10)


@pytest.mark.parametrize("out", ["run", None])
def test_sources_and_seed_that_are_left_open_stay_when_resumed(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("faces.2", "valid")):
        np.save(f"{name}.npy", tiny.images(40, seed).numpy())
    given = {"seed": 3, "valid": "valid.npy", "image_size": 5}
    tiny.run(out, "faces.2.npy", **given)
    longer = train("faces.2.npy", out=out, epochs=3, resume=True, progress=False)
    straight = tiny.run("straight", "faces.2.npy", **{**given, "epochs": 3})
    assert (longer.seed, len(longer.history), longer.data["shape"]) == (3, 3, [1, 5, 5])
    assert torch.equal(longer.sample(5, seed=0), straight.sample(5, seed=0))
    with pytest.raises(ValueError, match=r"seed was 3 in .*, got 0; .*: leave seed out, and it stays as it was"):
        train("faces.2.npy", out=out, resume=True, progress=False, seed=0)


@pytest.mark.parametrize("out", ["run", None])
def test_where_there_is_nothing_to_resume_a_new_run_begins_and_says_so(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    path = tiny.run(out, resume=True).path
    assert capsys.readouterr().err == f"train: nothing to resume in {path}: a new run begins\n"
    tiny.run(out, resume=True)
    assert capsys.readouterr().err == ""


def test_folders_are_named_after_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [str(tiny.run(None).path) for _ in range(3)]
    assert paths == ["runs/tensor", "runs/tensor-2", "runs/tensor-3"]
    assert str(tiny.run(None, resume=True, epochs=3).path) == "runs/tensor-3"


def test_resume_finds_no_run_in_a_folder_of_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.run(None)
    (tmp_path / "runs" / "tensor-2").mkdir()
    assert str(tiny.run(None, resume=True).path) == "runs/tensor-2", "an empty folder is where a run may start"
    (tmp_path / "runs" / "tensor-3").mkdir()
    (tmp_path / "runs" / "tensor-3" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="runs/tensor-3 is not empty and holds no run"):
        tiny.run(None, resume=True)
    assert [path.name for path in (tmp_path / "runs" / "tensor-3").iterdir()] == ["thesis.tex"]


def test_what_the_folder_holds(tmp_path):
    run = tiny.run(tmp_path / "run", epochs=4, samples_every=3, evaluate_every=3, seed=5)
    path = run.path
    assert sorted(file.name for file in path.iterdir()) == [
        ".lock", "README.md", "checkpoints", "config.toml", "generator.safetensors", "log.jsonl", "result.json",
        "samples",
    ]  # fmt: skip
    assert sorted(file.name for file in (path / "samples").iterdir()) == ["0003.png", "0004.png"]
    config = tomllib.loads((path / "config.toml").read_text("utf-8"))
    assert (config["seed"], config["recipe"]["batch_size"], config["data"]["shape"]) == (5, 10, [1, 4, 4])
    log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3, 4]
    assert [line["log_likelihood"] is not None for line in log] == [False, False, True, True]
    result = json.loads((path / "result.json").read_text())
    estimate = run.log_likelihood()
    assert (result["log_likelihood"], result["standard_error"]) == (estimate.mean, estimate.standard_error)
    assert result["validation_log_likelihood"] == max(line["log_likelihood"] for line in log[2:])
    for key in ("protocol", "splits", "sigma", "versions", "hardware", "seconds", "recipe", "n_test", "n_samples"):
        assert key in result


def by_log_likelihood(entry):
    """In place of `health.rank`, for tests that need a run whose best epoch is not the last."""
    return entry["log_likelihood"], 0


def test_load_gives_the_best_or_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("pygan.health.rank", by_log_likelihood)
    trained = tiny.run(tmp_path / "run", epochs=6, evaluate_every=1, generator_lr=2.0)
    judged = [entry["log_likelihood"] for entry in trained.history]
    assert judged.index(max(judged)) < 5, "the test needs a run whose best epoch is not the last"
    best, last = load(tmp_path / "run"), load(tmp_path / "run", "last")
    assert best.history == last.history == trained.history
    assert best.recipe == trained.recipe
    assert torch.equal(best.sample(20, seed=3), trained.sample(20, seed=3))
    assert not torch.equal(best.sample(20, seed=3), last.sample(20, seed=3))
    assert not best.generator.training


def test_averaged_weights_are_what_is_judged_and_kept(tmp_path):
    run = tiny.run(tmp_path / "run", averaging=0.9, generator_lr=2.0, discriminator_range=0.3)
    tensors, _ = RunFolder(run.path).read_checkpoint("best")
    for name, weight in run.generator.state_dict().items():
        assert torch.equal(weight, tensors[f"averaged.module.{name}"])
        assert not torch.equal(weight, tensors[f"generator.{name}"])


def test_runs_of_named_data_find_them_again(tmp_path):
    settings = {**tiny.SETTINGS, "recipe": "digits", "epochs": 1, "evaluate_every": 1}
    run = train("digits", out=tmp_path / "run", **settings)
    loaded = load(tmp_path / "run")
    assert loaded.log_likelihood() == run.log_likelihood()
    tiny.run(tmp_path / "memory")
    with pytest.raises(RuntimeError, match="were given in memory"):
        load(tmp_path / "memory").log_likelihood()


def test_the_sources_of_data_are_kept_as_load_takes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = pygan.data.load(tiny.images())
    sources = fingerprint.describe(splits, data="digits", valid="digits", test="~/x", image_size=np.int64(8))["sources"]
    home = os.path.expanduser("~")
    assert sources == {"data": "digits", "valid": str(tmp_path / "digits"), "test": f"{home}/x", "image_size": 8}
    assert type(sources["image_size"]) is int


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load(tmp_path)
    run = tiny.run(tmp_path / "run")
    with pytest.raises(ValueError, match="checkpoint must be 'best', 'last' or the number"):
        load(run.path, "first")
    best = run.path / "checkpoints" / "best.safetensors"
    whole = best.read_bytes()
    for damaged in (b"", whole[:100], b"\xff" * 64, whole[:-7]):
        best.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"best\.safetensors is malformed or damaged"):
            load(run.path)
    best.unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best'; kept: last"):
        load(run.path)
    config = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text("seed = [")
    with pytest.raises(ValueError, match=r"config\.toml is malformed"):
        load(run.path)
    (run.path / "config.toml").write_text(config.replace("keep_hidden", "keep_hiden"))
    with pytest.raises(ValueError, match=r"config\.toml .*: unknown setting 'keep_hiden'.*'keep_hidden'"):
        load(run.path)
    (run.path / "config.toml").write_text("seed = 0\n[recipe]\n[data]\nshape = 3")
    with pytest.raises(ValueError, match=r"config\.toml .*: data\.shape must be of type list\[int\], got 3"):
        load(run.path)


def test_a_damaged_last_checkpoint_costs_only_time(tmp_path):
    settings = {"epochs": 6, "evaluate_every": 1, "generator_lr": 2.0, "optimizer": "adam"}
    path = tiny.run(tmp_path / "run", **settings).path
    straight, best = everything(path), load(path)
    last = path / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"last\.safetensors is .* damaged.*'best' is used .* after it is lost"):
        loaded = load(path)
    assert torch.equal(loaded.sample(5, seed=0), best.sample(5, seed=0))
    assert loaded.history == best.history[: len(loaded.history)] != []
    with pytest.raises(ValueError, match=r"last\.safetensors is malformed or damaged: .*use checkpoint='best'"):
        load(path, "last")
    with pytest.warns(UserWarning, match=r"last\.safetensors is .* damaged"):
        tiny.run(path, resume=True, **settings)
    assert_same(everything(path), straight)


@pytest.mark.parametrize("finished", [False, True])
def test_a_damaged_best_checkpoint_does_not_stop_the_run(tmp_path, finished):
    settings = {"evaluate_every": 1, "generator_lr": 2.0}
    path = tiny.run(tmp_path / "run", epochs=6, **settings).path
    best = path / "checkpoints" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-9])
    if not finished:
        (path / "result.json").unlink()
    with pytest.warns(UserWarning, match=r"best\.safetensors is .* damaged.*'last' is used .* best epoch are lost"):
        run = tiny.run(path, epochs=6, resume=True, **settings)
    tensors, _ = RunFolder(path).read_checkpoint("last")
    assert torch.equal(run.generator.output.bias, tensors["generator.output.bias"])
    if not finished:
        assert json.loads((path / "result.json").read_text())["best_epoch"] == 6
    with pytest.warns(UserWarning, match="best epoch are lost"):
        longer = tiny.run(path, epochs=7, resume=True, **settings)
    tensors, progress = RunFolder(path).read_checkpoint("best")
    assert len(progress["history"]) == 7, "the best of the epochs that were still to come"
    assert torch.equal(longer.generator.output.bias, tensors["generator.output.bias"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_beside_its_best_checkpoint_goes_on_from_there(tmp_path, monkeypatch, when):
    """The weights that the result was computed with are those of the epoch that it names."""
    monkeypatch.setattr("pygan.health.rank", by_log_likelihood)
    settings = {"epochs": 6, "evaluate_every": 1, "generator_lr": 0.01, "optimizer": "adam", "averaging": 0.5}
    straight = everything(tiny.run(tmp_path / "straight", **settings).path)
    epoch = straight["result"]["best_epoch"]
    assert 1 < epoch < 6
    write = RunFolder.write_checkpoint

    class Killed(BaseException):
        pass

    def killed(folder, name, tensors, progress):
        if name == "best" and len(progress["history"]) == epoch:
            if when == "after":
                write(folder, name, tensors, progress)
            raise Killed
        write(folder, name, tensors, progress)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_checkpoint", killed)
        with pytest.raises(Killed):
            tiny.run(tmp_path / "run", **settings)
    _, last = RunFolder(tmp_path / "run").read_checkpoint("last")
    assert len(last["history"]) == epoch - 1
    evaluated = []
    with monkeypatch.context() as patch:
        patch.setattr("pygan.health.spread", lambda images: evaluated.append(len(images)) or spread(images))
        tiny.run(tmp_path / "run", **settings, resume=True)
    epochs = 6 - epoch + (when == "before")
    assert len(evaluated) == 2 * epochs, "with other bits, as on another machine, an epoch must not be done again"
    assert_same(everything(tmp_path / "run"), straight)


def _train_and_die(path, seen, die_in, **settings):
    """For a process of its own: it ends within on_epoch of an epoch, as if it were killed."""

    def look(run):
        with seen.open("a") as file:
            file.write(f"{len(run.history)}\n")
        if len(run.history) == die_in:
            os._exit(1)

    torch.set_num_threads(1)
    pygan.health.rank = lambda entry: (entry["update"],)  # each epoch is the best so far
    tiny.run(path, on_epoch=look, **settings)


def test_a_run_killed_in_on_epoch_of_its_best_epoch_makes_up_for_it(tmp_path):
    cadence = {"epochs": 6, "evaluate_every": 1, "keep_every": 2, "checkpoint_every": 3}
    settings = {**cadence, "resume": True, "report": False}
    seen = {}
    for name, ends in {"straight": (0,), "cut": (2, 0)}.items():
        for die_in in ends:
            seen[name] = tmp_path / f"{name}-{die_in}.txt"
            process = _forkserver().Process(
                target=_train_and_die, args=(tmp_path / name, seen[name], die_in), kwargs=settings
            )
            process.start()
            process.join()
            assert process.exitcode == (1 if die_in else 0)
    assert seen["cut"].read_text().split() == ["2", "3", "4", "5", "6"]
    assert_same(everything(tmp_path / "cut"), everything(tmp_path / "straight"))
    for epoch in ("0002", "0004", "0006"):
        (tensors, progress), (others, other_progress) = (
            RunFolder(tmp_path / name).read_checkpoint(epoch) for name in ("cut", "straight")
        )
        assert without_times(progress) == without_times(other_progress)
        assert [key for key in tensors if not torch.equal(tensors[key], others[key])] == []


def test_a_checkpoint_is_complete_or_refused(tmp_path):
    path = tiny.run(tmp_path / "run", optimizer="adam").path
    folder = RunFolder(path)
    tensors, progress = folder.read_checkpoint("last")
    bias = "step.generator.output.bias.exp_avg"
    cases = [
        ({n: t for n, t in tensors.items() if not n.startswith("step.")}, progress, r"step\.\S+ is missing; .* more$"),
        ({n: t for n, t in tensors.items() if n != "random.cpu"}, progress, r"random\.cpu is missing$"),
        ({**tensors, bias: torch.zeros(3)}, progress, r"exp_avg must be float32 \[16\], got float32 \[3\]$"),
        ({**tensors, bias: tensors[bias].double()}, progress, r"float32 \[16\], got float64 \[16\]$"),
        (tensors, {n: v for n, v in progress.items() if n != "totals"}, "damaged: totals is missing"),
        (tensors, {**progress, "update": 2.5}, "damaged: update must be of type int, got 2.5"),
    ]
    for wrong, wrong_progress, message in cases:
        folder.write_checkpoint("last", wrong, wrong_progress)
        with pytest.raises(ValueError, match=rf"last\.safetensors .*{message}"):
            tiny.run(path, optimizer="adam", epochs=3, resume=True)


def test_a_compiled_player_is_saved_as_a_plain_one(tmp_path):
    def player():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 16), nn.Sigmoid())

    run = tiny.run(tmp_path / "run", generator=torch.compile(player(), backend="eager"))
    with pytest.raises(ValueError, match="was trained with"):
        load(run.path)
    plain = load(run.path, generator=player())
    assert torch.equal(plain.sample(5, seed=0), run.sample(5, seed=0))


@pytest.mark.parametrize("stream", [None, object()])
def test_training_needs_no_standard_error(tmp_path, monkeypatch, stream):
    """A daemon has none; a logger in its place may know nothing of terminals."""
    monkeypatch.setattr(sys, "stderr", stream)
    assert tiny.run(tmp_path / "run", progress=True).history
    assert tiny.run(tmp_path / "run", progress=True, resume=True).history


def test_no_checkpoint_holds_a_nan(tmp_path):
    def poison(run):
        if len(run.history) == 3:
            with torch.no_grad():
                run.generator.output.bias[2] = float("nan")

    with pytest.raises(NonFiniteError):
        tiny.run(tmp_path / "run", epochs=9, on_epoch=poison)
    tensors, progress = RunFolder(tmp_path / "run").read_checkpoint("last")
    assert len(progress["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
