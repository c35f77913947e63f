"""The command line as a user meets it: exit codes, what is printed, where, and what a wrong word is answered with."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from dataclasses import fields

import numpy as np
import pytest
import tiny
import torch

import pygan
import pygan.plan
from pygan import cli, commands, data, memory, pictures
from pygan.commands import evaluate, sample, train
from pygan.commands.wording import on_the_command_line
from pygan.folder import RunFolder
from pygan.recipes import RECIPES, every_part, known_settings
from pygan.run import Run, load

Image = pytest.importorskip("PIL.Image")
pooch = pytest.importorskip("pooch")

SMALL = ["--generator-hidden", "8", "--discriminator_hidden=8", "--pieces", "2", "--evaluation-samples", "50"]


@pytest.fixture
def call(capsys):
    """Runs a command in this process; returns exit code, standard output, standard error."""

    def run(*words):
        code = cli.main(list(map(str, words)))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run on digits that nobody writes to."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    words = ["train", "digits", "--epochs", "2", "--keep-every", "1", "--out", str(folder), "--seed", "3", *SMALL]
    assert cli.main(words) == 0
    return folder


# Help


@pytest.mark.parametrize("words", [["--help"], *([command, "-h"] for command in cli.COMMANDS)])
@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_fits_into_80_columns(call, monkeypatch, words, columns):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert words == ["--help"] or words[0] == "info" or "\nexamples:\n  pygan " in out


@pytest.mark.parametrize("command", ["info", "recipes"])
def test_lists_fit_into_80_columns(call, command, monkeypatch):
    monkeypatch.setenv("PYGAN_CACHE", "/a/cache")  # a path is not broken, however long it is
    monkeypatch.setenv("PYGAN_DATA", "/some/data")
    _, out, _ = call(command)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert set(RECIPES) <= set(re.findall(r"\w+", out))
    if command == "info":
        assert all(line[23] == " " for line in lines)  # values stay in their column
        assert f"{'data cache':<24}/a/cache" in lines


def test_examples_of_the_help_are_valid_command_lines(call):
    parsers = {"train": train.parser, "sample": sample.parser, "evaluate": evaluate.parser}
    for command, parser in parsers.items():
        _, out, _ = call(command, "--help")
        examples = re.findall(r"^  pygan (.*?)(?:   .*)?$", out, re.MULTILINE)
        assert len(examples) >= 2
        for example in examples:
            name, *words = [word for word in example.split() if word != "--help"]
            assert name == command
            parser().parse(words)


@pytest.mark.parametrize("command", ["sample", "evaluate", "latent"])
def test_the_help_says_which_epoch_is_the_best(call, command):
    """Not simply that with the highest log-likelihood, see `pygan.health.rank`; in the words of the documents."""
    _, out, _ = call(command, "--help")
    words = "by validation log-likelihood among the epochs whose samples vary most like the data"
    assert words in " ".join(out.split())


def test_every_setting_has_its_flag_and_its_help(call):
    _, out, _ = call("train", "--help")
    for name, known in known_settings().items():
        assert f"  --{name.replace('_', '-')}" in out
        assert known.help.split()[0] in out


def test_no_command_shows_the_help_and_fails(call):
    code, out, _ = call()
    assert code == 2
    assert "train a generator and evaluate it" in out


def test_version(call):
    assert call("--version") == (0, f"pygan {pygan.__version__}\n", "")


# What the words become


# Settings that paper2014 has not, each with a part that has it.
OF_OTHERS = {
    of.name: {kind: key}
    for kind, key, part in every_part()
    for of in fields(part)
    if of.name not in RECIPES["paper2014"].flat()
}


def other(name):
    """Another value of a setting: as Python has it, and as it is written on the command line."""
    recipe = RECIPES["paper2014"].with_settings(**OF_OTHERS.get(name, {}))
    value, known = recipe.flat()[name], known_settings()[name]
    if isinstance(value, bool):
        return not value, [f"--{'no-' if value else ''}{name.replace('_', '-')}"]
    if isinstance(value, tuple):
        value = (7, 9, 11)
    elif isinstance(value, str):
        value = next((choice for choice in known.choices or (f"{value}x",) if choice != value), value)
    else:
        value = value + 3 if isinstance(value, int) else value + 0.0001
    return value, [f"--{name}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


@pytest.mark.parametrize("name", known_settings())
def test_every_flag_reaches_train_and_changes_the_recipe(call, monkeypatch, name):
    received = {}

    def remember(data, recipe, **keywords):
        received.update(keywords, data=data, recipe=recipe)
        raise KeyboardInterrupt("enough")

    monkeypatch.setattr(commands.train, "train", remember)
    value, words = other(name)
    assert call("train", "mnist", "--recipe", "paper2014", *words)[0] == 130
    assert {known: received[known] for known in known_settings() if known in received} == {name: value}
    assert (received["data"], received["recipe"]) == ("mnist", "paper2014")
    changed = RECIPES["paper2014"].with_settings(**{**OF_OTHERS.get(name, {}), name: value})
    assert changed.flat()[name] == value


def test_the_other_options_reach_train(call, monkeypatch):
    received = {}

    def remember(**keywords):
        received.update(keywords)
        raise KeyboardInterrupt("enough")

    monkeypatch.setattr(commands.train, "train", remember)
    call(
        "train",
        "a",
        "--out",
        "b",
        "--resume",
        "--device",
        "c",
        "--seed",
        "4",
        "--root",
        "d",
        "--valid",
        "e",
        "--test",
        "f",
        "--image-size",
        "5",
        "--threads",
        "6",
        "--conditional",
        "--no-report",
    )
    expected = {"data": "a", "recipe": None, "out": "b", "resume": True, "device": "c", "seed": 4, "root": "d"}
    expected |= {"image_size": 5, "threads": 6, "conditional": True}
    assert received == {**expected, "valid": "e", "test": "f", "progress": True, "report": False}
    received.clear()
    call("train", "--quiet")
    expected = {"data": "digits", "recipe": None, "out": None, "resume": False, "device": "auto"}
    assert received == {**expected, "progress": False, "report": True}


# Wrong words


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ["trian"],
            "'trian' is none of train, sample, evaluate, latent, figure, report, table1, recipes, info; "
            "did you mean 'train'?",
        ),
        (["train", "--batchsize", "5"], "unknown argument --batchsize; did you mean '--batch-size'?"),
        (["train", "--epoch=5"], "unknown argument --epoch=5; did you mean '--epochs'?"),
        (["train", "digits", "mnist"], "unknown argument mnist"),
        (["train", "--updates", "altrnating"], "is none of alternating, simultaneous; did you mean 'alternating'?"),
        (["train", "--k", "1.5"], "argument --k: invalid int value: '1.5'"),
        (["train", "--pieces-hidden"], "unknown argument --pieces-hidden"),
        (["train", "--generator-hidden", "a"], "expected whole numbers such as 1200,1200, got 'a'"),
        (["latent", "arithmetic", "x"], "arithmetic needs --plus, the samples of a concept, such as --plus 3,17,25"),
        (["sample"], "the following arguments are required: RUN"),
        (
            ["sample", "x", "-o", "x.jpg"],
            "expected a name that ends in .png, .npy, .npz or / (a folder), got 'x.jpg'",
        ),
        (["sample", "x", "--checkpoint", "bst"], "number of a kept epoch, got 'bst'; did you mean 'best'?"),
        (["sample", "x", "-n", "0"], "expected a whole number, at least 1, got '0'"),
        (["evaluate", __file__], "samples in a file need data to be judged by"),
        (["train", "--seed", "-1"], "argument --seed: expected a whole number in 0..2**63 - 1, got '-1'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(call, words, answer):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert answer in err
    assert err.count("\n") == 1
    assert err.startswith("pygan")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ["train", "mnits"],
            "pygan: error: data: 'mnits' is neither a data set (digits, mnist, cifar10, olivetti, ",
        ),
        (["train", "--recipe", "papr2014"], "pygan: error: unknown recipe 'papr2014'"),
        (["train", "--k", "0"], "pygan: error: --k must be at least 1, got 0"),
        (
            ["train", "--device", "abacus"],
            "pygan: error: --device: must be auto, cpu, cuda, cuda:1, ..., got 'abacus'",
        ),
        (["sample", "missing"], "pygan: error: load: missing holds no run"),
        (["evaluate", "missing.npy", "digits"], "pygan: error: evaluate: there is no run or file missing.npy"),
        (["evaluate", "runs/typo"], "pygan: error: evaluate: there is no run or file runs/typo"),
    ],
)
def test_an_error_is_one_line_and_1(call, tmp_path, monkeypatch, words, answer):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words)
    assert (code, out) == (1, "")
    assert err.startswith(answer)
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir()), "nothing may be left behind"


# Commands


def test_train_makes_the_run_and_says_where(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("train", "--epochs", "1", *SMALL)
    assert code == 0
    run = load("runs/digits")
    assert (run.recipe.epochs, run.recipe.generator_hidden, run.recipe.pieces) == (1, (8,), 2)
    result = json.loads((tmp_path / "runs/digits/result.json").read_text())
    assert f"{result['log_likelihood']:.1f} +- {result['standard_error']:.1f} nats" in out
    assert "runs/digits/samples/0001.png" in out
    assert call("train", "--epochs", "1", "--out", "runs/digits", *SMALL)[0] == 1, "a run must not be overwritten"
    code, out, _ = call("train", "--epochs", "2", "--resume")
    assert code == 0
    assert "runs/digits/samples/0002.png" in out


def test_train_names_the_picture_of_the_last_epoch(call, tmp_path, trained):
    """As a number: sorted as text, 9995.png came after 10005.png."""
    shutil.copytree(trained, tmp_path / "run")
    for epoch in (9995, 10005):
        shutil.copy(tmp_path / "run/samples/0002.png", tmp_path / f"run/samples/{epoch}.png")
    code, out, err = call("train", "digits", "--resume", "--out", tmp_path / "run", "--seed", "3", *SMALL)
    assert (code, err) == (0, "")
    assert out.endswith("samples/10005.png\n")


def test_a_run_is_resumed_by_its_folder_alone(call, tmp_path):
    """The data too, where they came from a file."""
    data = tmp_path / "points.npy"
    np.save(data, np.random.default_rng(0).random((60, 1, 4, 4), dtype=np.float32))
    run = call("train", data, "--out", tmp_path / "run", "--seed", "3", "--epochs", "2", "--quiet", "--no-report")
    assert run[0] == 0
    code, _, err = call("train", "--resume", "--out", tmp_path / "run", "--epochs", "3", "--quiet", "--no-report")
    assert (code, err) == (0, "")
    assert (pygan.load(tmp_path / "run").seed, len(pygan.load(tmp_path / "run").history)) == (3, 3)
    code, _, err = call("train", "--resume", "--out", tmp_path / "run", "--seed", "0")
    assert err.endswith("got 0; to resume, only epochs may change: leave seed out, and it stays as it was\n")


def test_a_finished_run_is_no_error_whatever_the_streams(tmp_path, trained, monkeypatch):
    """A locale without the letters of a name; a daemon, which has no streams at all."""
    shutil.copytree(trained, tmp_path / "\u00e9t\u00e9")
    words = ["train", "digits", "--resume", "--out", str(tmp_path / "\u00e9t\u00e9"), "--seed", "3", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert cli.main(words) == 0
        assert b"\\xe9t\\xe9" in sys.stdout.buffer.getvalue()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        assert cli.main(words) == 0
        assert cli.main(["sample", str(tmp_path / "none")]) == 1


def test_files_in_the_home_folder(call, tmp_path, trained, monkeypatch):
    """A shell does not expand the ~ of --output=~/x.png."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(trained)
    assert call("sample", "~/run", "-n", "1", "--output=~/x.npy")[0] == 0
    assert call("evaluate", "~/run")[0] == 0
    assert sorted(os.listdir()) == ["run", "x.npy"]


def test_a_damaged_run_is_one_line_that_names_the_file(call, tmp_path, trained):
    shutil.copytree(trained, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    tensors, progress = folder.read_checkpoint("best")
    folder.write_checkpoint("best", tensors, {name: value for name, value in progress.items() if name != "history"})
    code, _, err = call("sample", tmp_path / "run", "-o", tmp_path / "x.png")
    assert code == 1
    best = folder.checkpoint_path("best")
    assert err == f"pygan: error: {best} is malformed or damaged: history is missing. Put a copy in its place\n"


def test_a_run_on_folders_is_evaluated_from_anywhere(call, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for name, n in (("images", 30), ("valid", 5), ("test", 4)):
        (tmp_path / name).mkdir()
        for i in range(n):
            Image.fromarray(random.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    words = ["images", "--valid", "valid", "--test", "test", "--out", "run", "--epochs", "1"]
    code, _, err = call("train", *words, "--image-size", "4", *SMALL)
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["n_test"] == 4

    monkeypatch.chdir("/")
    code, out, err = call("evaluate", tmp_path / "run")
    assert code == 0, err
    assert f"{result['log_likelihood']:.2f} +-" in out

    (tmp_path / "images" / "3.png").unlink()
    code, _, err = call("evaluate", tmp_path / "run")
    assert (code, err) == (
        1,
        f"pygan: error: run: {tmp_path}/images has changed since {tmp_path}/run was trained on it: "
        "other images in train\n",
    )
    assert call("sample", tmp_path / "run", "-o", tmp_path / "x.png")[0] == 0, "samples need no data"
    code, out, err = call("evaluate", tmp_path / "run", tmp_path / "images")
    assert code == 0, f"other data have the size of the run's: {err}"
    assert "resized); split 80/10/10 at random by seed 0 into 25 train, 2 valid, 2 test" in out


def test_sample_writes_a_picture_or_an_array(call, trained, tmp_path):
    images = load(trained).sample(6, seed=5)
    picture, array = tmp_path / "new" / "grid.png", tmp_path / "other" / "samples.npy"
    words = ["sample", trained, "-n", "6", "--seed", "5"]
    assert call(*words, "-o", picture, "--columns", "2") == (0, f"{picture}\n", "")
    assert call(*words, "--output", array) == (0, f"{array}\n", "")
    assert np.array_equal(np.load(array), images.numpy())
    with Image.open(picture) as opened:
        assert np.array_equal(np.asarray(opened), pictures.grid(images, 2)[:, :, 0].numpy())


def test_sample_uses_the_checkpoint_that_is_named(call, trained, tmp_path):
    words = ["sample", trained, "-n", "2", "--seed", "0", "-o", tmp_path / "x.npy", "--checkpoint"]
    drawn = {}
    for checkpoint in ("best", "last", "1"):
        call(*words, checkpoint)
        assert np.array_equal(np.load(tmp_path / "x.npy"), load(trained, checkpoint).sample(2, seed=0).numpy())
        drawn[checkpoint] = np.load(tmp_path / "x.npy")
    assert not np.array_equal(drawn["1"], drawn["last"])
    assert call(*words, "5")[2] == f"pygan: error: load: {trained} has no checkpoint '5'; kept: best, last, 1, 2\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ["evaluate", "RUN", "--seed", "0"],
            "--seed is for samples in a file; those of a run have the run's",
        ),
        (["evaluate", "FILE", "digits", "--checkpoint", "best"], "--checkpoint is for a run, and these"),
        (["sample", "RUN", "--columns", "2", "-o", "x.npy"], "--columns is for one picture of many images"),
        (["sample", "RUN", "--columns", "2", "-o", "x/"], "--columns is for one picture of many images"),
        (["figure", "curve", "RUN", "--seed", "0"], "--seed is not for curves"),
        (["figure", "curve", "RUN", "--device", "cpu", "-o", "new/x"], "--device is not for curves"),
        (
            ["figure", "2", "RUN", "--device", "cpu", "-o", "new/x"],
            "--device is for a training, and runs that are given",
        ),
        (["table1", "--run", "RUN", "--seeds", "5"], "--seeds is for trainings, and with --run nothing is trained"),
        (["table1", "--run", "RUN", "--precision", "bf16"], "--precision is for trainings"),
    ],
)
def test_an_option_without_effect_is_refused(call, trained, tmp_path, monkeypatch, words, answer):
    monkeypatch.chdir(tmp_path)
    np.save("samples.npy", np.zeros((4, 1, 8, 8), np.float32))
    code, out, err = call(*({"RUN": trained, "FILE": "samples.npy"}.get(word, word) for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert answer in err
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npy"]


def test_columns_are_refused_for_a_plot_of_points(call, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "is_plottable", lambda shape: True)
    code, _, err = call("sample", trained, "--columns", "2", "-o", tmp_path / "x.png")
    assert (code, "--columns is for one picture of many images" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_a_run(call, trained):
    code, out, err = call("evaluate", trained)
    result = json.loads((trained / "result.json").read_text())
    assert (code, err) == (0, "")
    assert "50 samples; published figures have 10,000 and are not comparable" in out
    expected = f"{result['log_likelihood']:.2f} +- {result['standard_error']:.2f} nats on 179 test images"
    assert expected in out
    assert f"{result['sigma']:.4f}, chosen on 179 validation images" in out
    assert "50 samples" in out
    assert "split 80/10/10 at random by seed 3" in out


def test_evaluate_a_run_whose_data_lie_elsewhere(call, trained, monkeypatch):
    received = {}
    load_data = data.load

    def remember(data, **keywords):
        received.update(keywords, data=data)
        return load_data(data, **keywords)

    monkeypatch.setattr(pygan.data, "load", remember)
    assert call("evaluate", trained, "--root", "elsewhere")[0] == 0
    assert received == {"data": "digits", "root": "elsewhere", "seed": 3}


@pytest.mark.filterwarnings("ignore:the best bandwidth")
def test_evaluate_samples_from_elsewhere(call, tmp_path):
    splits = data.load("digits")
    np.save(tmp_path / "flat.npy", splits.train.images.flatten(1).double().numpy())
    np.save(tmp_path / "bytes.npy", (splits.train.images * 255).round().to(torch.uint8).numpy())
    code, out, _ = call("evaluate", tmp_path / "flat.npy", "digits")
    expected = pygan.evaluate.ParzenWindow(splits.train.images).fit(splits.valid.images).score(splits.test.images)
    assert code == 0
    assert out.startswith(
        f"log-likelihood  {expected.mean:.2f} +- {expected.standard_error:.2f} nats on 179 test images"
    )
    again = call("evaluate", tmp_path / "bytes.npy", "digits")[1]
    assert float(again.split()[1]) == pytest.approx(expected.mean, abs=0.1)
    assert call("evaluate", tmp_path / "flat.npy", "digits", "--seed", "1")[1] != out


def test_evaluate_names_what_is_wrong_with_samples(call, tmp_path):
    np.save(tmp_path / "x.npy", np.full((20, 64), -1.0))
    code, _, err = call("evaluate", tmp_path / "x.npy", "digits")
    assert code == 1
    assert re.search(r"x.npy: floats must lie in \[0, 1\], got \[-1, -1\]", err)
    np.save(tmp_path / "x.npy", np.zeros((20, 65)))
    assert call("evaluate", tmp_path / "x.npy", "digits")[2] == (
        f"pygan: error: evaluate: the samples of {tmp_path}/x.npy must have 64 values each, as the images of digits "
        "(1 x 8 x 8), got 65\n"
    )


@pytest.mark.filterwarnings("ignore:the best bandwidth")
def test_evaluate_a_run_on_other_data(call, trained, tmp_path):
    np.save(tmp_path / "gray.npy", np.random.default_rng(0).random((30, 8, 8)))
    code, out, _ = call("evaluate", trained, tmp_path / "gray.npy")
    assert code == 0
    assert "gray: 30 images" in out


def test_info(call, monkeypatch):
    monkeypatch.setenv("PYGAN_DATA", "/somewhere")
    code, out, err = call("info")
    assert (code, err) == (0, "")
    for word in (
        pygan.__version__,
        torch.__version__,
        str(pygan.build_info()["simd"]),
        "/somewhere",
        *data.NAMED,
        *RECIPES,
    ):
        assert word in out


def test_a_warning_is_one_line(call, monkeypatch):
    def warn(words):
        warnings.warn("the sky is falling, pass image_size=3", stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "info", cli.Command(warn, ""))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert call("info") == (0, "", "pygan: warning: the sky is falling, pass --image-size 3\n")


# In a process of its own


def python(*words, **keywords):
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def test_python_m_pygan_and_its_exit_code():
    process = python("-m", "pygan", "train", "mnits")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert (out, err.count("\n")) == ("", 1)


def test_a_reader_that_stops_reading_is_no_error():
    with python("-m", "pygan", "info") as process:
        process.stdout.close()  # before anything is written: importing torch takes a second
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(tmp_path):
    process = python("-m", "pygan", "train", "--out", "run", "--epochs", "100000", *SMALL, cwd=tmp_path)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "resume with: pygan train --out run --epochs 100000" in err
    assert err.endswith(" --resume\n")
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


# What a new user meets (issue 13): the command that was typed, and what it prints


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--lr", "'--generator-lr' or '--discriminator-lr'"),
        ("--learning-rate=0.1", "'--generator-lr' or '--discriminator-lr'"),
        ("--label", "'--conditional'"),
        ("--size", "'--image-size'"),
        ("--hidden", "'--generator-hidden' or '--discriminator-hidden'"),
        ("--optimiser", "'--optimizer'"),
    ],
)
def test_an_option_is_suggested_by_its_meaning(call, word, meant):
    assert f"unknown argument {word}; did you mean {meant}?" in call("train", word, "1")[2]


def test_a_setting_is_suggested_by_its_meaning_in_python():
    with pytest.raises(TypeError, match="unknown setting 'lr'; did you mean 'generator_lr' or 'discriminator_lr'"):
        RECIPES["digits"].with_settings(lr=0.1)


@pytest.mark.parametrize("command", [["train"], ["sample", "x"], ["evaluate", __file__, "digits"]])
def test_a_device_that_is_none(call, tmp_path, monkeypatch, command):
    code, _, err = call(*command, "--device", "gpu")
    expected = "--device: must be auto, cpu, cuda, cuda:1, ..., got 'gpu'; a GPU is 'cuda', and 'auto' takes one if "
    assert (code, err) == (1, f"pygan: error: {expected}there is one\n")
    if not torch.cuda.is_available():
        err = call(*command, "--device", "cuda")[2]
        assert re.fullmatch(r"pygan: error: --device: 'cuda' cannot be used: [^.\n]*\n", err)


def test_the_command_line_answers_in_its_own_words(call, tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    words = ["train", "digits", "--epochs", "2", "--out", "run"]
    _, _, err = call(*words)
    assert err == (
        "pygan: error: train: run holds a run; --resume continues it, another --out starts a new one: "
        "pygan train digits --epochs 2 --out run --resume\n"
    )
    assert (
        "--k must be 1 with --updates simultaneous, got 2; --updates alternating takes any k"
        in call("train", "--k", "2")[2]
    )
    err = call("train", "digits", "--momentum", "0.3")[2]
    assert "--momentum goes with --optimizer momentum, which this recipe does not use" in err


@pytest.mark.parametrize(
    "words", [["report", "run"], ["sample", "run"], ["train", "digits", "--out", "run", "--resume"]], ids=str
)
def test_what_is_no_game_is_named_with_the_call_that_returns_it(call, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    RunFolder(tmp_path / "run").path.mkdir()
    RunFolder(tmp_path / "run").write_config({"task": "bigan"})
    assert call(*words) == (
        1,
        "",
        "pygan: error: run holds what pygan.bigan has trained, and no game; in Python it is returned by the same call "
        "with this folder: pygan.bigan.train(..., out=..., resume=True)\n",
    )


def test_python_is_translated_and_nothing_else():
    for said, meant in {
        "pass image_size=64 or less": "pass --image-size 64 or less",
        "choose another out=": "choose another --out",
        "train with conditional=True": "train with --conditional",
        "use checkpoint='best'": "use --checkpoint best",
        "Lower generator_lr, or (updates='alternating' with k=2)": (
            "Lower --generator-lr, or (--updates alternating with --k 2)"
        ),
        "train: batch_size must be at least 1": "--batch-size must be at least 1",
        "labels: must lie in 0..9": "--labels: must lie in 0..9",
        "k=2: pygan.bigan.train(..., batch_size=3, resume=True), with resume=True": (
            "--k 2: pygan.bigan.train(..., batch_size=3, resume=True), with --resume"
        ),
        "runs/batch_size/k=3 holds no run": "runs/batch_size/k=3 holds no run",
        "got 'lr_floor'": "got 'lr_floor'",
        "d_loss = 3, noise, data": "d_loss = 3, noise, data",
    }.items():
        assert on_the_command_line(said) == meant


@pytest.mark.parametrize(
    ("words", "resume"),
    [
        (["--resume=True"], True),
        (["--resume", "True"], True),
        (["--resume=no"], False),
        (["--resume"], True),
        (["--resume", "mnist"], True),
    ],
)
def test_a_switch_with_a_value_is_understood(words, resume):
    assert train.parser().parse(words).resume is resume


def test_a_switch_with_another_value_is_explained(call):
    assert train.parser().parse(["--deterministic=False"]).deterministic is False
    err = call("train", "--resume=runs/x")[2]
    assert "argument --resume: takes no value, or True or False, got 'runs/x'" in err


def test_one_of_several_processes_that_cannot_find_the_others_is_refused(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = call("train", "digits")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "Start it by torchrun, or unset WORLD_SIZE" in err
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "epochs", "pieces", "momentum"),
    [
        ([], "[200]", "[3]", "[-]"),
        (["mnist"], f"[{RECIPES['code2014'].epochs}]", "[5]", "[0.5]"),
        (["mnist", "--recipe", "averaged"], f"[{RECIPES['averaged'].epochs}]", "[5]", "[0.5]"),
        (["--recipe", "digits", "--epochs", "7", "--optimizer", "momentum"], "[7]", "[3]", "[0.5]"),
        (["pictures.npy"], "[400]", "[-]", "[-]"),  # 320 of them, in batches of 64
    ],
)
def test_help_shows_the_values_of_the_recipe_that_would_run(
    call, tmp_path, monkeypatch, words, epochs, pieces, momentum
):
    monkeypatch.chdir(tmp_path)
    np.save("pictures.npy", np.random.default_rng(0).integers(256, size=(400, 30, 41), dtype=np.uint8))
    code, out, _ = call("train", *words, "--help")
    assert code == 0
    values = {name: re.search(rf"  --{name} [^\[]*(\[[^\]]*\])", out)[1] for name in ("epochs", "pieces", "momentum")}
    assert values == {"epochs": epochs, "pieces": pieces, "momentum": momentum}


def test_recipes_lists_them_and_prints_one_that_config_takes(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = call("recipes")
    assert [line.split()[0] for line in out.splitlines()] == ["recipe", *RECIPES]
    _, out, _ = call("recipes", "averaged")
    (tmp_path / "mine.toml").write_text(out)
    received = {}
    monkeypatch.setattr(commands.train, "train", lambda **keywords: received.update(keywords) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train", "mnist", "--config", "mine.toml", "--k", "1")
    assert (received["data"], received["recipe"], received["k"]) == ("mnist", RECIPES["averaged"], 1)
    assert "unknown recipe 'averagd'" in call("recipes", "averagd")[2]


def test_config_reads_back_what_a_run_wrote(call, tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("train", "--config", trained / "config.toml", "--out", "again", "--quiet")[0] == 0
    assert (tmp_path / "again/config.toml").read_text() == (trained / "config.toml").read_text()
    assert (tmp_path / "again/log.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--config", "none.toml"], "--config: none.toml cannot be read: No such file or directory"),
        (["--valid", "empty"], "--valid: empty: expected images (.png"),
        (["--generator-hidden", "100", "100"], "DATA: there is no 100; several sizes have commas between them"),
    ],
)
def test_what_is_not_there_is_named_with_its_option(call, tmp_path, monkeypatch, words, answer):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, out, err = call("train", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"pygan: error: {answer}")


def test_one_epoch_is_no_epochs(call):
    assert "digits: 1 epoch, batches of" in call("train", "--dry-run", "--epochs", "1")[1]


def test_config_of_a_run_on_data_in_memory_needs_data(call, tmp_path, monkeypatch):
    config = tiny.run(tmp_path / "run", epochs=1).path / "config.toml"
    code, _, err = call("train", "--config", config)
    assert (code, err.count("\n")) == (1, 1)
    assert err.endswith(f"the data of the run in {config} were in memory and are not stored with it: give DATA\n")
    received = {}
    monkeypatch.setattr(commands.train, "train", lambda **keywords: received.update(keywords) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train", "mnist", "--config", config)
    assert received["data"] == "mnist"


def test_options_override_a_config_and_other_data_leave_its_files_alone(call, tmp_path, trained, monkeypatch):
    tomli_w = pytest.importorskip("tomli_w")
    config = tomllib.loads((trained / "config.toml").read_text())
    files = {"valid": "faces_valid", "test": "faces_test", "root": "files", "image_size": 32}
    config["data"] |= {"sources": {"data": "faces", **files}, "classes": 3}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config))
    received = {}
    monkeypatch.setattr(commands.train, "train", lambda **keywords: received.update(keywords) or 1 / 0)

    def given(*words):
        received.clear()
        with pytest.raises(ZeroDivisionError):
            call("train", *words, "--config", tmp_path / "config.toml")
        return {name: received.get(name) for name in ("data", "valid", "test", "root", "image_size", "conditional")}

    all_of_config = ("faces", "faces_valid", "faces_test", "files", 32, True)
    assert tuple(given().values()) == all_of_config
    assert tuple(given("mnist").values()) == ("mnist", None, None, "files", None, True)
    for words in (["--no-conditional"], ["--conditional=False"], ["--conditional", "False"]):
        assert given(*words)["conditional"] is False


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("k = ", "Invalid value"),
        ("seed = 1", "it must have a table [recipe], as `pygan recipes NAME` prints it"),
        ("[recipe]\nname = 'x'\nlr = 3", "unknown setting 'lr'; did you mean"),
        ("[recipe]\n[players]\ngenerator = 'my.Net'", "its run used a generator that the user supplied"),
    ],
)
def test_a_config_that_is_none_is_named(call, tmp_path, text, answer):
    (tmp_path / "x.toml").write_text(text)
    code, _, err = call("train", "--config", tmp_path / "x.toml")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"pygan: error: --config: {tmp_path}/x.toml cannot be used: ")
    assert answer in err


def test_dry_run_says_what_it_would_take_and_writes_nothing(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pygan.plan, "_SECONDS", 0.01)
    code, out, err = call(
        "train", "digits", "--dry-run", "--epochs", "3", "--k", "2", "--updates", "alternating", *SMALL
    )
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, err, os.listdir()) == (0, "", [])
    assert rows["images"] == "1,439 for training, 179 for validation, 179 for test, each 1 x 8 x 8"
    assert rows["recipe"] == "digits: 3 epochs, batches of 100, learning rates 0.002 and 0.002"
    assert rows["updates"] == "7 an epoch, 21 in all"
    assert rows["generator"] == f"maxout_mlp, {32 * 8 + 8 + 8 * 64 + 64} parameters"
    assert rows["discriminator"] == f"maxout_mlp, {(64 + 1) * 8 * 2 + 8 + 1:,} parameters"
    assert re.fullmatch(r"\d+\.\d\d GiB at the peak of this trial", rows["memory"])
    assert re.fullmatch(r"\S+ s an epoch, \S+ s an evaluation, about .* in all", rows["time"])


def test_dry_run_refuses_what_does_not_fit_before_it_allocates(call, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**20)
    code, out, err = call("train", "digits", "--dry-run")
    assert (code, out) == (1, "")
    assert re.match(r"pygan: error: train: images of 1x8x8 need about \d+ MiB of memory on cpu, and 1 MiB is free", err)


def test_dry_run_refuses_what_train_refuses(call):
    code, out, err = call("train", "swiss_roll", "--conditional", "--dry-run")
    assert (code, out) == (1, "")
    assert "needs labels, and 'swiss_roll' has none" in err


def test_neither_a_dry_run_nor_help_downloads(call, tmp_path, monkeypatch):
    monkeypatch.delenv("PYGAN_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: 1 / 0)
    code, out, err = call("train", "olivetti", "--dry-run")
    assert (code, out) == (1, "")
    assert err.startswith("pygan: error: olivetti is not on this machine yet; a training downloads it to ")
    assert "\n  digits, or - where" in call("train", "olivetti", "--help")[1]
    with pytest.raises(ZeroDivisionError):
        call("train", "olivetti")


def test_sample_writes_arrays_with_labels_and_single_pictures(call, trained, tmp_path, monkeypatch):
    images = load(trained).sample(11, seed=5)
    words = ["sample", trained, "-n", "11", "--seed", "5", "--device", "cpu", "-o"]
    assert call(*words, tmp_path / "x.npz")[0] == 0
    with np.load(tmp_path / "x.npz") as file:
        assert dict(file).keys() == {"images"}
        assert np.array_equal(file["images"], images.numpy())
    assert call(*words, f"{tmp_path}/single/") == (0, f"{tmp_path}/single\n", "")
    assert sorted(os.listdir(tmp_path / "single")) == [f"{i:02}.png" for i in range(11)]
    with Image.open(tmp_path / "single/10.png") as picture:
        assert np.array_equal(np.asarray(picture), (images[10, 0] * 255).round().byte().numpy())
    with monkeypatch.context() as patch:  # before anything is drawn
        patch.setattr(Run, "sample", None)
        assert "has pictures already" in call(*words, f"{tmp_path}/single")[2]
    for name, start in {"X.NPZ": b"PK", "X.Npy": b"\x93NUMPY", "X.PNG": b"\x89PNG"}.items():
        assert call(*words, tmp_path / name)[0] == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    (tmp_path / "X.NPZ").rename(tmp_path / "Y.NPZ")
    assert call("evaluate", tmp_path / "Y.NPZ", "digits")[0] == 0


def test_an_array_is_written_as_a_whole(call, trained, tmp_path, monkeypatch):
    (tmp_path / "x.npy").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("sample", trained, "-n", "2", "-o", tmp_path / "x.npy")
    assert (tmp_path / "x.npy").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["x.npy"]


def test_labels_of_a_run_that_has_none(call, trained, tmp_path):
    err = call("sample", trained, "--labels", "3", "-o", tmp_path / "x.png")[2]
    assert err == "pygan: error: --labels: this run is not conditional; train with --conditional\n"
    err = call("sample", trained, "--labels", "3,1", "-n", "5", "-o", tmp_path / "x.png")[2]
    assert "--labels: must be one, or as many as samples, 5, got 2" in err
