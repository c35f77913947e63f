"""The run folder: what was written is what is read, and what is damaged is said by name."""

import errno
import io
import itertools
import json
import locale
import os
import random
import stat
import sys
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from pygan import checkpoint
from pygan._files import replace_file
from pygan._terminal import escape_unprintable, is_terminal, say
from pygan.checkpoint import plain_state, state_of, take_over
from pygan.folder import DamagedError, RunFolder, check_tables, choose_folder
from pygan.run import load, summary

safetensors_torch = pytest.importorskip("safetensors.torch")

TENSORS = {
    "net.weight": torch.arange(6.0).view(2, 3),
    "net.half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "net.count": torch.tensor(7),
    "net.mask": torch.tensor([True, False]),
    "net.empty": torch.empty(0, 3),
}
PROGRESS = {"update": 3, "best": None, "history": [{"epoch": 1, "loss": 0.1}]}
OLD_NAMES = ("config.toml.part", "log.jsonl.part", "last.safetensors.part", ".0005.png.4711")


@pytest.fixture
def folder(tmp_path):
    """A folder with every file of a run."""
    folder = RunFolder(tmp_path)
    folder.write_config({"seed": 0, "data": {"name": "\u00e9t\u00e9", "shape": [1, 4, 4]}})
    folder.write_log([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    folder.write_result({"epochs": 2})
    for name in ("last", "best"):
        folder.write_checkpoint(name, TENSORS, {**PROGRESS, "name": name})
    return folder


def net(*sizes):
    return nn.Sequential(*(nn.Linear(n, m) for n, m in itertools.pairwise(sizes)))


class Remembers(nn.Module):
    """A module with an extra state."""

    def __init__(self, value):
        super().__init__()
        self.value, self.scale = value, nn.Parameter(torch.ones(2))

    def get_extra_state(self):
        return self.value

    def set_extra_state(self, value):
        self.value = value


# What was written is read


def test_a_checkpoint_is_read_as_it_was_written(folder):
    tied = torch.randn(4)
    negative = torch.tensor([1 + 2j]).conj().imag  # -2, of which memory holds +2
    tensors = {**TENSORS, "a": tied, "b": tied, "transposed": torch.randn(3, 4).T, "negative": negative}
    folder.write_checkpoint("last", tensors, PROGRESS)
    found, progress = folder.read_checkpoint("last")
    assert progress == PROGRESS
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_checkpoints_from_before_the_checksum_are_read(folder):
    safetensors_torch.save_file(TENSORS, folder.checkpoint_path("last"), {"progress": json.dumps(PROGRESS)})
    tensors, progress = folder.read_checkpoint("last")
    assert progress == PROGRESS
    assert torch.equal(tensors["net.weight"], TENSORS["net.weight"])


def test_a_flipped_bit_of_a_checkpoint_is_noticed(folder):
    path = folder.checkpoint_path("last")
    whole, noticed = path.read_bytes(), 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            tensors, progress = folder.read_checkpoint("last")
        except DamagedError as error:
            noticed += str(error).startswith(f"{path} is malformed or damaged: ") and "checkpoint='best'" in str(error)
        else:  # in the padding or the order of the header, at most
            assert progress == {**PROGRESS, "name": "last"}
            assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert noticed > 0.3 * len(whole)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(folder, monkeypatch):
    """safetensors opens the file twice, once for the header and once for the numbers."""
    read = checkpoint._read

    def replaced(path):
        monkeypatch.setattr(checkpoint, "_read", read)
        folder.write_checkpoint("last", {"new": torch.ones(1)}, {})
        raise ValueError("the header of one, the numbers of the other")

    monkeypatch.setattr(checkpoint, "_read", replaced)
    tensors, _ = folder.read_checkpoint("last")
    assert list(tensors) == ["new"]


def test_the_log_and_the_result_are_json(folder):
    """NaN and Infinity, which json.dumps writes, are not."""
    table = {"nan": float("nan"), "of": [float("inf"), {"x": -float("inf")}], "good": 1.5, "text": "\u00e9"}
    clean = {"nan": None, "of": [None, {"x": None}], "good": 1.5, "text": "\u00e9"}
    folder.write_log([table])
    folder.append_log(table)
    folder.write_result(table)
    lines = (folder.path / "log.jsonl").read_text("utf-8").splitlines()
    for text in ((folder.path / "result.json").read_text("utf-8"), *lines):
        assert json.loads(text, parse_constant=pytest.fail) == clean
    assert folder.read_log() == [clean, clean]
    assert folder.read_result() == clean


def test_a_log_line_that_a_kill_cut_short_is_left_out(folder):
    lines = folder.read_log()
    with (folder.path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "lo')
    assert folder.read_log() == lines
    with (folder.path / "log.jsonl").open("a") as log:
        log.write("\n")
    with pytest.raises(DamagedError, match=r"log\.jsonl is malformed or damaged: line 3: .*Delete it"):
        folder.read_log()


def test_an_empty_folder_has_nothing_to_read(tmp_path):
    folder = RunFolder(tmp_path)
    assert (folder.read_log(), folder.read_result(), folder.last_picture()) == ([], None, None)
    assert folder.read_checkpoints() == {}
    assert not folder.is_finished()


def test_the_last_picture_is_that_of_the_highest_epoch(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch in (5, 9995, 10000, 10005):
        replace_file(_made(folder.samples(epoch)), b"")
    (tmp_path / "samples" / "grid.png").touch()
    assert folder.last_picture().name == "10005.png"


def _made(path):
    path.parent.mkdir(exist_ok=True)
    return path


# Parts


def test_parts_are_saved_and_taken_over():
    given, taken = {"one": net(3, 2), "two": net(2, 2, 1)}, {"one": net(3, 2), "two": net(2, 2, 1)}
    take_over(taken, {**state_of(given), "other.x": torch.ones(1)}, "last")
    for part in given:
        for name, tensor in given[part].state_dict().items():
            assert torch.equal(taken[part].state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("two.0.bias"), r"^last does not fit: two\.0\.bias is missing$"),
        (lambda t: t.update({"two.0.b": torch.ones(1)}), r"two\.0\.b is not known here"),
        (lambda t: t.update({"two.0.weight": torch.ones(2, 3)}), r"must be float32 \[2, 2\], got float32 \[2, 3\]"),
        (lambda t: t.update({"two.0.weight": torch.ones(4)}), r"must be float32 \[2, 2\], got float32 \[4\]"),
        (lambda t: t.update({"two.0.weight": torch.ones(2, 2).half()}), r"float32 \[2, 2\], got float16 \[2, 2\]"),
        (lambda t: t.clear(), r"one\.0\.weight is missing; .*; and 1 more$"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(change, message):
    given, parts = {"one": net(3, 2), "two": net(2, 2)}, {"one": net(3, 2), "two": net(2, 2)}
    before = {name: tensor.clone() for name, tensor in state_of(parts).items()}
    tensors = state_of(given)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        take_over(parts, tensors, "last")
    assert all(torch.equal(before[name], tensor) for name, tensor in state_of(parts).items())


@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_module_has_the_names_of_a_plain_one(whole):
    plain, inner = net(3, 2), net(3, 2)
    compiled = (
        torch.compile(inner, backend="eager") if whole else nn.Sequential(torch.compile(inner[0], backend="eager"))
    )
    assert any("_orig_mod" in name for name in compiled.state_dict())
    assert plain_state(compiled).keys() == plain.state_dict().keys()
    take_over({"net": compiled}, state_of({"net": plain}), "last")
    assert torch.equal(inner[0].weight, plain[0].weight)
    old = {f"net.{name}": torch.zeros_like(tensor) for name, tensor in compiled.state_dict().items()}
    take_over({"net": plain}, old, "last")  # as it was saved before
    assert not plain[0].weight.any()


@pytest.mark.parametrize("value", [None, 3, "text", [1, 2.5, None], {"a": {"b": [True]}}, torch.arange(3)])
def test_extra_state_is_kept(tmp_path, value):
    folder = RunFolder(tmp_path)
    folder.write_checkpoint("last", state_of({"net": Remembers(value)}), {})
    other = Remembers([7] * 10)
    tensors, _ = folder.read_checkpoint("last")
    take_over({"net": other}, tensors, "last")
    assert torch.equal(other.value, value) if isinstance(value, torch.Tensor) else other.value == value


@pytest.mark.parametrize("value", [object(), {1: 2}, (1, 2), float("nan"), {"a": torch.ones(1)}, b"bytes"])
def test_extra_state_that_cannot_be_kept_is_refused_by_name(value):
    with pytest.raises(TypeError, match=r"^net\.0\._extra_state cannot be stored .* a tensor or a JSON value"):
        state_of({"net": nn.Sequential(Remembers(value))})


# Nothing is lost, whatever the file system and whoever else writes


def test_no_link_is_followed(folder, tmp_path_factory, monkeypatch):
    target = tmp_path_factory.mktemp("elsewhere") / "thesis.tex"
    target.write_text("precious")
    for name in ("config.toml.part", "log.jsonl.part", "result.json.part"):
        (folder.path / name).symlink_to(target)
    (folder.path / "log.jsonl").unlink()
    (folder.path / "log.jsonl").symlink_to(target)
    with pytest.raises(OSError, match=r"log\.jsonl"):
        folder.append_log({"epoch": 1})
    folder.write_config({"seed": 1})
    folder.write_log([])
    folder.write_result({})
    assert not (folder.path / "log.jsonl").is_symlink()
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)  # a name that could be staged after all
    (folder.path / f".{'0' * 16}.part").symlink_to(target)
    with pytest.raises(FileExistsError):
        folder.write_config({"seed": 2})
    assert folder.read_config() == {"seed": 1}
    assert target.read_text() == "precious"


def test_leftovers_of_killed_runs_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: os._exit(1))
    path = tmp_path / "run"
    for name in (".", "checkpoints", "samples"):
        (path / name).mkdir(parents=True, exist_ok=True)
        if (child := os.fork()) == 0:  # Killed before the renaming.
            replace_file(path / name / "file", b"half")
        os.waitpid(child, 0)
    monkeypatch.undo()
    assert len([file for file in path.rglob(".*.part") if file.read_bytes() == b"half"]) == 3
    for name in OLD_NAMES:
        (path / name).touch()
    mine = path / "samples" / ".mine.part"
    mine.touch()
    (path / "checkpoints").rename(tmp_path / "c")
    (path / "samples").rename(tmp_path / "s")
    assert choose_folder(path, "digits", resume=False).path == path, "a start that was killed left no run"
    (tmp_path / "c").rename(path / "checkpoints")
    (tmp_path / "s").rename(path / "samples")
    with RunFolder(path).locked():
        assert {file for file in path.rglob("*") if file.is_file()} == {path / ".lock", mine}


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(folder, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    monkeypatch.setattr(call, full)
    for write, name in (
        (lambda: folder.write_config({}), "config.toml"),
        (lambda: folder.write_result({}), "result.json"),
        (lambda: folder.write_checkpoint("last", {}, {}), "last.safetensors"),
    ):
        with pytest.raises(OSError, match=f"No space left on device: '.*{name}'"):
            write()
    assert {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_flushed_is_written_to(folder, monkeypatch, code, fails):
    """CIFS and some of FUSE answer EINVAL. A disk that fails is another matter."""
    flush = os.fsync

    def fsync(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(code, os.strerror(code))
        flush(file)

    monkeypatch.setattr(os, "fsync", fsync)
    if fails:
        with pytest.raises(OSError, match=os.strerror(code)):
            folder.write_config({"seed": 1})
    else:
        folder.write_config({"seed": 1})
    assert folder.read_config() == {"seed": 1}


@pytest.mark.parametrize(
    ("what", "code", "advice"),
    [
        ("fcntl.flock", errno.ENOLCK, "on a file system"),
        ("fcntl.flock", errno.EOPNOTSUPP, "on a file system"),
        ("fcntl.flock", errno.EIO, "on a file system"),
        ("filelock.FileLock.acquire", errno.EACCES, "where you may write"),
        ("filelock.FileLock.acquire", errno.EROFS, "where you may write"),
    ],
)
def test_a_folder_that_cannot_be_locked_is_named_and_nothing_stays_behind(tmp_path, monkeypatch, what, code, advice):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(what, refuse)
    message = rf"run cannot be locked against other processes \({os.strerror(code)}\); choose out= {advice}"
    with pytest.raises(OSError, match=message), RunFolder(tmp_path / "run").locked():
        pytest.fail("it is not locked")
    assert list(tmp_path.iterdir()) == []


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert RunFolder("~/a").path == tmp_path / "a"
    assert choose_folder("~/a", "digits", resume=False).path == tmp_path / "a"
    with pytest.raises(ValueError, match="~nobody-of-this-name/a names no folder"):
        RunFolder("~nobody-of-this-name/a")
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/a holds no run"):
        load("~/a")


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (5, TypeError, "out must be the path of a folder, got 5"),
        ("", ValueError, "got an empty one"),
        ("file", ValueError, "file is not a folder; choose another out="),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path, monkeypatch, out, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        choose_folder(out, "digits", resume=False)


def test_names_are_utf8_whatever_the_locale(tmp_path):
    folder, before = RunFolder(tmp_path), locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        folder.write_config({"name": "\u00e9t\u00e9"})
        folder.write_log([{"name": "\u00e9t\u00e9"}])
        assert folder.read_config() == folder.read_log()[0] == {"name": "\u00e9t\u00e9"}
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert "\u00e9t\u00e9" in (tmp_path / "config.toml").read_text("utf-8")


def test_a_name_that_is_no_unicode_is_refused_before_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"config\.toml cannot hold .* not UTF-8: .*faces.udcff.*; rename it"):
        RunFolder(tmp_path).write_config({"data": {"path": "faces\udcff", "n": 1}})
    assert list(tmp_path.iterdir()) == []


# Streams


def test_only_a_terminal_is_one():
    controller, terminal = os.openpty()
    with open(terminal, "w") as stream:
        assert is_terminal(stream)
    os.close(controller)
    with open(os.devnull) as null:
        assert not any(map(is_terminal, (stream, None, object(), Broken(), null)))


def test_what_a_stream_cannot_print_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        say("said \u00e9 \udcff")
    escape_unprintable(stream)
    print("printed \u00e9 \udcff", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"said \\xe9 \\udcff\nprinted \\xe9 \\udcff\n"


class Broken:
    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("make", [lambda: None, object, Broken, lambda: os.fdopen(os.open(os.devnull, os.O_RDONLY))])
def test_nothing_is_said_where_nothing_can_be(monkeypatch, make):
    stream = make()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        say("text")
    escape_unprintable(stream)
    if hasattr(type(stream), "close"):
        stream.close()


# Damage


def test_the_other_checkpoint_is_used_where_one_is_damaged(folder):
    for name, other, lost in (("last", "best", "what was trained after it"), ("best", "last", "the best epoch")):
        path = folder.checkpoint_path(name)
        whole = path.read_bytes()
        path.write_bytes(whole[:-3])
        with pytest.warns(UserWarning, match=rf"{name}\.safetensors is .* '{other}' is used in its place; .*{lost}"):
            found = folder.read_checkpoints()
        assert list(found) == [other]
        assert found[other][1]["name"] == other
        path.write_bytes(whole)
    for name in ("last", "best"):
        folder.checkpoint_path(name).write_bytes(b"")
    with pytest.raises(DamagedError, match=r"last\.safetensors is malformed or damaged"):
        folder.read_checkpoints()


def test_a_damaged_result_is_not_the_end_of_a_run(folder):
    assert folder.is_finished()
    (folder.path / "result.json").write_text("{")
    assert not folder.is_finished()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_read(folder, make):
    """Reading a pipe would wait for ever."""
    for path, read in (
        (folder.path / "config.toml", folder.read_config),
        (folder.path / "log.jsonl", folder.read_log),
        (folder.path / "result.json", folder.read_result),
        (folder.checkpoint_path("last"), lambda: folder.read_checkpoint("last")),
    ):
        path.unlink()
        make(path)
        with pytest.raises(DamagedError, match=rf"{path} .*: not a regular file"):
            read()


def test_tables_are_checked():
    kinds = {"a": dict, "a.n": int, "a.x": float, "a.list": list[float], "a.map": dict[str, str], "best": float | None}
    good = {"a": {"n": 1, "x": 2, "list": [1.5, 2], "map": {"k": "v"}}, "best": None}
    check_tables(good, kinds, Path("f"))
    for key, value, message in (
        ("n", True, "a.n must be of type int, got True"),
        ("x", "2", "a.x must be of type float, got '2'"),
        ("list", ["a"], r"a.list must be of type list\[float\], got \['a'\]"),
        ("map", {"k": 1}, r"a.map must be of type dict\[str, str\]"),
    ):
        with pytest.raises(DamagedError, match=message):
            check_tables({**good, "a": {**good["a"], key: value}}, kinds, Path("f"))
    with pytest.raises(DamagedError, match=r"^f is malformed or damaged: best is missing\. Put a copy in its place$"):
        check_tables({"a": good["a"]}, kinds, Path("f"))
    with pytest.raises(DamagedError, match=r"best must be of type float \| None, got 'x'"):
        check_tables({**good, "best": "x"}, kinds, Path("f"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny.run(tmp_path_factory.mktemp("fuzz") / "run", optimizer="adam", averaging=0.9).path


FILES = ("config.toml", "log.jsonl", "result.json", "checkpoints/last.safetensors", "checkpoints/best.safetensors")


def damage(chance, content):
    """One of the ways in which disks, editors and half copies spoil a file."""
    data, n = bytearray(content), len(content)
    start = chance.randrange(n)
    end = min(n, start + chance.choice((1, 2, 16, 512)))
    match chance.randrange(8):
        case 0:
            return data[:start]
        case 1:
            data[start] ^= 1 << chance.randrange(8)
        case 2:
            data[start:end] = bytes(end - start)
        case 3:
            del data[start:end]
        case 4:
            data[start:start] = chance.randbytes(end - start)
        case 5:
            data[start:end] = chance.randbytes(end - start)
        case 6:
            data += data[start:end]
        case 7:  # A value of another type or a key that is missing, where the file is text.
            words = [b"0", b"-1", b"null", b"true", b'"x"', b"[]", b"{}", b"nan", b"1e999", b""]
            parts = bytes(data).split(chance.choice((b" ", b"\n", b",", b'"')))
            parts[chance.randrange(len(parts))] = chance.choice(words)
            return chance.choice((b" ", b"\n", b",", b'"')).join(parts)
    return data


def outcome(path, seed):
    """Damage one file of a run and use the run in every way: the file, what came back, and the messages."""
    chance = random.Random(seed)
    file = path / chance.choice(FILES)
    whole = file.read_bytes()
    file.write_bytes(damage(chance, whole))
    uses = (lambda: load(path), lambda: load(path, "last"), lambda: summary(RunFolder(path)), RunFolder(path).read_log)
    results, messages = [], []
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for use in uses:
                try:
                    results.append(use())
                except (ValueError, FileNotFoundError) as error:
                    results.append(None)
                    messages.append(str(error))
        messages += [str(warning.message) for warning in warned]
    finally:
        file.write_bytes(whole)
    return file, results, messages


def check_damage(path, seeds):
    """Every damage ends in an error that names the file, or changes no weight."""
    expected = {name: state_of({"g": (run := load(path, name)).generator, "d": run.discriminator}) for name in BOTH}
    named = 0
    for seed in seeds:
        file, results, messages = outcome(path, seed)
        assert all(file.name in message for message in messages), (seed, file, messages)
        named += bool(messages)
        if file.suffix == ".safetensors":
            for name, run in zip(BOTH, results, strict=False):
                if run is not None:
                    state = state_of({"g": run.generator, "d": run.discriminator})
                    assert all(torch.equal(state[key], tensor) for key, tensor in expected[name].items()), seed
    return named


BOTH = ("best", "last")


def test_damage_is_named_or_harmless(trained):
    assert check_damage(trained, range(150)) > 100


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_made(tmp_path):
    """Its checkpoints could be written but not read."""
    for name in (b"\xff", b"runs/\xe9t\xe9"):
        with pytest.raises(ValueError, match=r"the name of a run folder must be UTF-8, got b'.*\\x"):
            tiny.run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)))
    assert list(tmp_path.iterdir()) == []


def test_a_run_and_its_loading_read_each_checkpoint_once(tmp_path, monkeypatch):
    read, real = [], checkpoint.read
    monkeypatch.setattr(checkpoint, "read", lambda path, remedy: read.append(path.stem) or real(path, remedy))
    tiny.run(tmp_path / "run")
    assert read == ["best"]  # by whose weights the result is measured
    load(tmp_path / "run")
    assert sorted(read[1:]) == ["best", "last"]  # weights, and the whole history
