"""The run folder: its files, and how they are written so that nothing is lost.

    runs/mnist/config.toml              every setting, the data, the players
    runs/mnist/log.jsonl                one line for each epoch
    runs/mnist/report.html              a page that shows all of it; drawn after evaluations and at the end
    runs/mnist/curves.png, curves.svg   the log as curves; drawn with the page
    runs/mnist/samples/0005.png         samples after epoch 5, always from the same noise
    runs/mnist/samples.gif              these pictures in turn; drawn with the page
    runs/mnist/checkpoints/             last.safetensors and best.safetensors
    runs/mnist/generator.safetensors    the generator that was evaluated, for use elsewhere; written at the end
    runs/mnist/README.md                a model card that describes it; written at the end
    runs/mnist/result.json              what the run led to; written at the end

Files are replaced atomically: written to a temporary file, flushed to the disk, renamed. If a run is killed, at any
moment, its folder has either the old file or the new one. The callers decide what the tables contain.
"""

import errno
import itertools
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from torch import Tensor

from pygan import checkpoint
from pygan._files import DamagedError, damaged, is_leftover, read_text, remove_leftovers, replace_file
from pygan._nearest import nearest
from pygan._terminal import say, warn
from pygan.checkpoint import Checkpoint
from pygan.distributed import Ranks

__all__ = [
    "DamagedError",
    "RunFolder",
    "SharedFolder",
    "begun_with",
    "check_numbers",
    "check_tables",
    "checkpoint_stem",
    "choose_folder",
]

_CHECKPOINTS = ("last", "best")
_LOST = {  # what is lost with a checkpoint, where the other one can be read
    "last": "The checkpoint 'best' is used in its place; what was trained after it is lost",
    "best": "The checkpoint 'last' is used in its place; the weights of the best epoch are lost",
}
_REMEDY = {
    "last": "Put a copy in its place, or use checkpoint='best'; resume=True goes on from there",
    "best": "Put a copy in its place, or use checkpoint='last'",
}
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_LARGEST = 1e300  # of numbers in a file: their differences and sums are finite too
_COPY_REMEDY = "Put a copy in its place"
_CONFIG_REMEDY = "Correct it or put a copy in its place: without it the run cannot be read"
_LOG_REMEDY = "Delete it: resume=True writes it again from the last checkpoint"
_RESULT_REMEDY = "Delete it: resume=True computes it again from the checkpoints"


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; a leading ~ means the user's home.
        made: the folders that this process has made for this run, the innermost first.
    """

    def __init__(self, path: str | Path, made: Sequence[Path] = ()) -> None:
        try:
            self.path = Path(path).expanduser()
        except RuntimeError:
            raise ValueError(f"{path} names no folder: there is no such user") from None
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # safetensors reads and writes no such file
            raise ValueError(f"the name of a run folder must be UTF-8, got {os.fsencode(self.path)!r}") from None
        self._made = made

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder while this context lasts. The lock of a killed process disappears.

        If an error occurs before the run has begun, the folder is left as it was found.

        Raises:
            RuntimeError: another process has locked it.
            OSError: the folder cannot be made, or its file system has no locks.
        """
        return self._locked()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import filelock  # here, as the others below: `import pygan` needs torch and numpy alone

        if missing := _missing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RuntimeError(
                f"train: another process is training in {self.path}; wait for it, or choose another out="
            ) from None
        except OSError as error:
            self._clear()
            advice = "where you may write" if error.errno in _NOT_ALLOWED else "on a file system that has locks"
            raise OSError(
                f"train: {self.path} cannot be locked against other processes ({error.strerror or error}); "
                f"choose out= {advice}, such as a local disk"
            ) from error
        try:
            for folder in (self.path, self.path / "checkpoints", self.path / "samples"):
                remove_leftovers(folder)
            yield
        except BaseException:
            self._clear()
            raise
        finally:
            lock.release()

    def _clear(self) -> None:
        """Remove what a failed start has left, and the folders that were made for this run if they are empty."""
        if not self.holds_run():
            (self.path / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for folder in self._made:
                    folder.rmdir()

    def holds_run(self) -> bool:
        """Return whether a run has begun in this folder."""
        return (self.path / "config.toml").exists()

    def is_finished(self) -> bool:
        """Return whether there is a result that can be read."""
        try:
            return self.read_result() is not None
        except DamagedError:
            return False

    def read_config(self) -> dict[str, Any]:
        """Return the tables of config.toml, as `write_config` got them.

        Raises:
            FileNotFoundError: the folder holds no run.
            DamagedError: the file is not TOML.
        """
        path = self.path / "config.toml"
        if not path.exists():
            raise FileNotFoundError(f"load: {self.path} holds no run (it has no config.toml)")
        text = read_text(path, _CONFIG_REMEDY)
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise damaged(path, error, _CONFIG_REMEDY) from None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store tables of plain values as config.toml, in UTF-8. From here on the folder holds a run.

        Raises:
            ValueError: a text is not Unicode, as a path with bytes that are not UTF-8.
        """
        import tomli_w

        text = tomli_w.dumps(config)
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            line = text[text.rfind("\n", 0, error.start) + 1 :].partition("\n")[0]
            raise ValueError(f"config.toml cannot hold a name that is not UTF-8: {line!a}; rename it") from None
        replace_file(self.path / "config.toml", content)

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of the log; one that a kill cut short at the end is left out.

        Raises:
            DamagedError: a line is not a JSON table.
        """
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        complete = read_text(path, _LOG_REMEDY).split("\n")[:-1]
        return [_json_table(line, path, f"line {n}: ", _LOG_REMEDY) for n, line in enumerate(complete, 1)]

    def write_log(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Replace the log by these lines, the history of a resumed run."""
        replace_file(self.path / "log.jsonl", "".join(_line(line) for line in lines).encode())

    def append_log(self, line: Mapping[str, Any]) -> None:
        """Add one line to the log. Numbers that are not finite become null, which JSON has, unlike NaN."""
        path = self.path / "log.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o666), "wb") as log:
            log.write(_line(line).encode())

    def read_result(self) -> dict[str, Any] | None:
        """Return the result, or None if there is none yet. Raises DamagedError if it is not a JSON table."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        return _json_table(read_text(path, _RESULT_REMEDY), path, "", _RESULT_REMEDY)

    def write_result(self, result: Mapping[str, Any] | None) -> None:
        """Store the result, with null for numbers that are not finite.

        None removes it, when a run continues; the page that shows it goes first.
        """
        path = self.path / "result.json"
        if result is None:
            if path.exists():
                with suppress(OSError):  # a page that stays is no reason not to train
                    self.report.unlink()
            path.unlink(missing_ok=True)
        else:
            replace_file(path, (json.dumps(_finite(result), indent=2, allow_nan=False) + "\n").encode())

    def write_checkpoint(self, name: str, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Store "last", "best" or the number of an epoch: named tensors, and what JSON can hold."""
        path = self.checkpoint_path(name)
        path.parent.mkdir(exist_ok=True)
        checkpoint.write(path, tensors, progress)

    def read_checkpoint(self, name: str) -> Checkpoint | None:
        """Return what `write_checkpoint` stored, on the CPU, or None if there is none. Raises DamagedError."""
        path = self.checkpoint_path(name)
        return checkpoint.read(path, _REMEDY.get(name, _REMEDY["best"])) if path.exists() else None

    def read_checkpoints(self, known: Mapping[str, Checkpoint] | None = None) -> dict[str, Checkpoint]:
        """Return "last" and "best", as far as they exist and can be read, and those that are `known` already.

        A damaged checkpoint is left out with a UserWarning that says what is lost, as long as there is another.

        Raises:
            DamagedError: no checkpoint can be read, and one is damaged.
        """
        found, errors = dict(known or {}), {}
        for name in _CHECKPOINTS:
            if name in found:
                continue
            try:
                if (state := self.read_checkpoint(name)) is not None:
                    found[name] = state
            except DamagedError as error:
                errors[name] = error
        for name, damage in errors.items():
            if not found:
                raise damage
            warn(str(damage).removesuffix(_REMEDY[name]) + _LOST[name])
        return found

    def checkpoint_path(self, name: str) -> Path:
        """Return where "last", "best" or a checkpoint that is kept for good ("100") lies; see `checkpoint_stem`."""
        return self.path / "checkpoints" / f"{checkpoint_stem(name)}.safetensors"

    def kept_checkpoints(self) -> list[str]:
        """Return the names of the checkpoints that exist: "best", "last" and the numbers of epochs, ascending."""
        stems = {path.stem for path in (self.path / "checkpoints").glob("*.safetensors")}
        epochs = sorted(int(stem) for stem in stems if stem.isdecimal())
        return [*sorted(stems & set(_CHECKPOINTS)), *map(str, epochs)]

    def samples(self, epoch: int) -> Path:
        """Return where the picture of an epoch goes."""
        return self.path / "samples" / f"{epoch:04}.png"

    @property
    def report(self) -> Path:
        """Where the page about the run lies, if it has one."""
        return self.path / "report.html"

    def write_picture(self, epoch: int, png: bytes) -> None:
        """Store the picture of an epoch."""
        path = self.samples(epoch)
        path.parent.mkdir(exist_ok=True)
        replace_file(path, png)

    def pictures(self) -> list[tuple[int, Path]]:
        """Return the epochs that have a picture, ascending, and where it lies."""
        found = (self.path / "samples").glob("*.png")
        return sorted((int(path.stem), path) for path in found if path.stem.isdecimal())

    def last_picture(self) -> Path | None:
        """Return the picture of the highest epoch, or None if there is none."""
        pictures = self.pictures()
        return pictures[-1][1] if pictures else None


class SharedFolder(RunFolder):
    """The folder of a run of several processes: the main process reads and writes it, and the others get what it read.

    All processes call the same methods in the same order.

    Args:
        ranks: the processes.
        choose: returns the folder; it is called in the main process.
    """

    def __init__(self, ranks: Ranks, choose: Callable[[], RunFolder]) -> None:
        chosen: list[RunFolder] = []

        def path() -> str:
            chosen.append(choose())
            return str(chosen[0].path)

        self.path, self._ranks = Path(ranks.from_main(path)), ranks
        self._folder = chosen[0] if chosen else None  # in the main process

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext() if self._folder is None else self._folder.locked()

    def holds_run(self) -> bool:
        return self._read("holds_run")

    def is_finished(self) -> bool:
        return self._read("is_finished")

    def read_config(self) -> dict[str, Any]:
        return self._read("read_config")

    def read_result(self) -> dict[str, Any] | None:
        return self._read("read_result")

    def read_checkpoint(self, name: str) -> Checkpoint | None:
        kept: dict[str, Tensor] = {}

        def progress() -> dict[str, Any] | None:
            assert self._folder is not None
            if (state := self._folder.read_checkpoint(name)) is None:
                return None
            kept.update(state[0])
            return state[1]

        found = self._exchange(progress)
        return None if found is None else (dict(self._ranks.spread_new(kept)), found)

    def write_config(self, config: Mapping[str, Any]) -> None:
        self._write("write_config", config)

    def write_log(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._write("write_log", lines)

    def append_log(self, line: Mapping[str, Any]) -> None:
        self._write("append_log", line)

    def write_result(self, result: Mapping[str, Any] | None) -> None:
        self._write("write_result", result)

    def write_checkpoint(self, name: str, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        self._write("write_checkpoint", name, tensors, progress)

    def _read(self, method: str) -> Any:
        return self._exchange(lambda: getattr(self._folder, method)())

    def _write(self, method: str, *content: Any) -> None:
        if self._folder is not None:
            getattr(self._folder, method)(*content)

    def _exchange(self, read: Callable[[], Any]) -> Any:
        """What the main process reads; DamagedError in every process, since callers may have a remedy."""

        def attempt() -> dict[str, Any]:
            try:
                return {"read": read()}
            except DamagedError as error:
                return {"damaged": str(error)}

        found = self._ranks.from_main(attempt)
        if "damaged" in found:
            raise DamagedError(found["damaged"])
        return found["read"]


def check_tables(tables: Mapping[str, Any], kinds: Mapping[str, Any], path: Path) -> None:
    """Check the content of a file.

    Args:
        tables: the content.
        kinds: "name" or "table.name" -> type, tables before their entries. `list[T]` and `dict[str, T]` are checked
            entry by entry; `float` also accepts an int.
        path: the file.

    Raises:
        DamagedError: a value is missing or of another type.
    """
    for key, kind in kinds.items():
        value: Any = tables
        for name in key.split("."):
            if name not in value:
                raise damaged(path, f"{key} is missing", _COPY_REMEDY)
            value = value[name]
        if not _is(value, kind):
            expected = kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else kind
            raise damaged(path, f"{key} must be of type {expected}, got {value!r:.80}", _COPY_REMEDY)


def check_numbers(table: Mapping[str, Any], path: Path, least: Mapping[str, int] | None = None) -> None:
    """Check that every value of a table is a number that can be drawn, or None.

    Args:
        table: from a file.
        path: the file.
        least: the lowest value of some of them.

    Raises:
        DamagedError: a value is of another type, NaN, too large or too small.
    """
    for name, value in table.items():
        if value is None:
            continue
        if not _is(value, float) or not abs(value) <= _LARGEST:
            expected = f"must be a number in -{_LARGEST:g}..{_LARGEST:g}"
            raise damaged(path, f"{name} {expected}, got {value!r:.80}", _COPY_REMEDY)
        if least is not None and value < least.get(name, -math.inf):
            raise damaged(path, f"{name} must be at least {least[name]}, got {value!r:.80}", _COPY_REMEDY)


def checkpoint_stem(name: str) -> str:
    """Return what the file of a checkpoint is called without its suffix: "last", "best" or the number of an epoch.

    Raises ValueError for any other name.
    """
    if name.isdecimal():
        return f"{int(name):04}"
    if name in _CHECKPOINTS:
        return name
    raise ValueError(
        f"checkpoint must be 'best', 'last' or the number of a kept epoch, got {name!r}{nearest(name, _CHECKPOINTS)}"
    )


def choose_folder(out: str | Path | None, name: str, resume: bool) -> RunFolder:
    """Return the folder `out`, or the next free one of runs/<name>, runs/<name>-2, ...; to resume, the last of these.

    A message says if there is nothing to resume.

    Raises:
        TypeError: `out` is no path.
        ValueError: the folder holds a run that is not to be resumed, or anything that is no run.
    """
    folder = _usable_folder(out, name, resume)
    if resume and not folder.holds_run():
        say(f"train: nothing to resume in {folder.path}: a new run begins")
    return folder


def _usable_folder(out: str | Path | None, name: str, resume: bool) -> RunFolder:
    if out is None:
        last = None
        for path in _numbered(name):
            if resume and last and not path.exists():
                out = last
                break
            missing = _missing(path)
            try:
                path.mkdir(parents=True)  # Fails for all but one of several processes that want the same name.
                return RunFolder(path, missing)
            except FileExistsError:
                last = path
    assert out is not None  # the names do not end
    folder = _folder_at(out)
    if folder.holds_run():
        if not resume:
            raise ValueError(f"train: {out} holds a run; resume=True continues it, another out= starts a new one")
    elif folder.path.exists():
        if not folder.path.is_dir():
            raise ValueError(f"train: {out} is not a folder; choose another out=")
        if any(entry.name != ".lock" and not is_leftover(entry.name) for entry in folder.path.iterdir()):
            raise ValueError(f"train: {out} is not empty and holds no run; choose another out=")
    return folder


def begun_with(out: str | Path | None, name: str = "") -> dict[str, Any]:
    """Return config.toml of the run that `choose_folder` would choose to resume; empty where none has begun.

    Raises TypeError, ValueError: as `choose_folder`; DamagedError: the file is not TOML.
    """
    if out is None:
        *_, out = None, *itertools.takewhile(Path.exists, _numbered(name))
    folder = None if out is None else _folder_at(out)
    return folder.read_config() if folder is not None and folder.holds_run() else {}


def _numbered(name: str) -> Iterator[Path]:
    """The folders that runs on this data have, in turn: runs/<name>, runs/<name>-2, ..."""
    return (Path("runs", name if number == 1 else f"{name}-{number}") for number in itertools.count(1))


def _folder_at(out: str | Path) -> RunFolder:
    if not isinstance(out, str | os.PathLike):
        raise TypeError(f"train: out must be the path of a folder, got {out!r}")
    if not str(out):
        raise ValueError("train: out must be the path of a folder, got an empty one")
    return RunFolder(out)


def _missing(path: Path) -> list[Path]:
    """Return the path and its parents as far as they do not exist."""
    return list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))


def _json_table(text: str, path: Path, where: str, remedy: str) -> dict[str, Any]:
    """Return the JSON table, or raise DamagedError."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"{where}{error}", remedy) from None
    if type(table) is not dict:
        raise damaged(path, f"{where}it must be a table, got {text!r:.50}", remedy)
    return table


def _line(table: Mapping[str, Any]) -> str:
    return json.dumps(_finite(table), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return the value with None for every number that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is(value: Any, kind: Any) -> bool:
    """Return whether a value that was read from a file is of a kind, as `check_tables` has it."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_is(value, one) for one in of)
    if origin is list:
        return type(value) is list and all(_is(v, of[0]) for v in value)
    if origin is dict:
        return type(value) is dict and all(_is(v, of[1]) for v in value.values())
    return kind is Any or type(value) is kind or (kind is float and type(value) is int)
