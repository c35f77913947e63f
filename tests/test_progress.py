"""What a run says of itself: on a terminal of any width, in a notebook, in a file; and where warnings point."""

import errno
import fcntl
import io
import os
import re
import signal
import struct
import sys
import termios
import threading
import time
import warnings
from contextlib import contextmanager, suppress

import pytest
import tiny
import torch

from pygan import ParzenWindow, _terminal, load, progress, train
from pygan._session import Interrupt
from pygan.folder import RunFolder
from pygan.progress import Progress, Task

MEANS = "D(x) 0.58 D(G(z)) 0.41 D loss 0.65 G loss 0.93"


def last_line(monkeypatch, columns, epoch="epoch 2/20"):
    """The line after 100 of 1000 updates on a terminal that is so wide, without the blanks that wipe the one before."""
    ours, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with Progress(1000, 0, True) as shown:
            for _ in range(100):
                shown.advance()
            shown.show(epoch, MEANS, "182 nats, spread 0.83")
    written = b""
    with suppress(OSError):  # nobody writes any more, and all is read
        while True:
            written += os.read(ours, 10_000)
    os.close(ours)
    return written.decode().strip().split("\r")[-1].rstrip()


def test_the_line_shrinks_and_grows_with_the_terminal(monkeypatch):
    times = r"\[00:00<00:0\d\]"
    for columns, epoch, line in (
        (30, "epoch 2/20", r"epoch 2/20 G 0\.93 182 nats"),
        (50, "epoch 1200/2500", r"epoch 1200/2500 D 0\.65 G 0\.93 182 nats"),
        (50, "epoch 2/20", rf"epoch 2/20 {times} D 0\.65 G 0\.93 182 nats"),
        (80, "epoch 2/20", rf"epoch 2/20 {times} D loss 0\.65 G loss 0\.93 182 nats, spread 0\.83"),
    ):
        assert re.fullmatch(line, last_line(monkeypatch, columns, epoch))
    wide = last_line(monkeypatch, 140)
    assert re.fullmatch(rf"epoch 2/20 {times} \|.{{20,}}\| D\(x\) 0\.58 .* 182 nats, spread 0\.83", wide)
    assert len(wide) == 139  # tqdm leaves one column free


@contextmanager
def terminal(monkeypatch, columns):
    """Standard error is a terminal that is so wide; the function that is given returns what was written since.

    A terminal hands on what is written in order but not at once, so the function writes a mark and reads up to it.
    """
    ours, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    rest = b""

    def written():
        nonlocal rest
        os.write(slave, b"\0")
        while b"\0" not in rest:
            rest += os.read(ours, 10_000)
        text, _, rest = rest.partition(b"\0")
        return text.decode()

    with os.fdopen(slave, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield written
    os.close(ours)


def until(pattern, written):
    """All that is written until it matches; the line of a task is drawn by a thread."""
    text, end = "", time.monotonic() + 30
    while not re.search(pattern, text):
        assert time.monotonic() < end, text
        text += written()
        time.sleep(0.01)
    return text


def test_a_task_shows_how_far_it_is_and_leaves_no_line(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    with terminal(monkeypatch, 80) as written:
        with Task("log-likelihood", 8) as task:
            task.advance(2)
            line = until(r"log-likelihood  25% \|.*\| \[\d\d:\d\d<", written).split("\r")[-1]
            assert len(line) < 80
            with Task("part of it", 8), Task("and of this"):
                task.advance(4)
                assert "part of it" not in until("75%", written)
        assert written().split("\r")[-2].strip() == "", "the line is wiped"
        with Task("k-means"):
            until(r"k-means \[\d\d:\d\d\]", written)


@pytest.mark.parametrize("patience", [0.0, 1000.0])
def test_a_task_is_silent_where_it_should_be(monkeypatch, patience):
    """In a file; in what is silent; in a run, which has its own line; and where it is short."""
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    before = threading.active_count()
    with terminal(monkeypatch, 80) as written:
        with Task("quiet", show=False), Task("inner"):
            assert threading.active_count() == before
        with Progress(10, 0, False), Task("inner"):
            assert threading.active_count() == before
        if patience:
            with Task("short", 3):
                pass
            assert threading.active_count() == before
        assert written() == ""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Task("in a file", 3):
        assert threading.active_count() == before
    assert sys.stderr.getvalue() == ""


def test_a_window_of_many_pieces_counts_them(monkeypatch):
    counted = []
    monkeypatch.setattr(Task, "advance", lambda task, n=1: counted.append((task._name, task._total, n)))
    pieces = [torch.rand(3, 4), torch.rand(5, 4)]
    ParzenWindow(pieces).log_density([torch.rand(2, 4), torch.rand(7, 4)], 0.3)
    assert counted == [("log-likelihood", 72, n) for n in (6, 10, 21, 35)]


def test_the_remaining_time_is_by_the_mean_over_all_updates(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(1010, 10, True) as shown:
        for seconds in [100.0] + [1.0] * 99:  # the first one is slow
            clock[0] += seconds
            shown.advance()
        shown.report("epoch 1/10", MEANS, "1 nats")
    assert sys.stderr.getvalue() == f"epoch 1/10: {MEANS} 1 nats; 3 min so far, about 30 min to go\n"


def test_without_a_terminal_there_is_one_line_for_each_evaluation(tmp_path, capsys):
    tiny.run(tmp_path / "run", epochs=5, progress=True)  # evaluated after epochs 2, 4 and the last
    out, err = capsys.readouterr()
    first, nats, *lines = err.splitlines()
    assert out == ""
    assert first == (
        f"pygan: tensor, 48 training images of 1 x 4 x 4; recipe code2014, 5 epochs; run folder {tmp_path / 'run'}"
    )
    assert re.fullmatch(
        r"pygan: nats are the mean .* training images in place of samples score -?\d+; spread is .*", nats
    )
    assert [line.partition(": ")[0] for line in lines] == ["epoch 2/5", "epoch 4/5", "epoch 5/5"]
    assert all(
        re.search(r": D\(x\) \S+ .* D loss \S+ G loss \S+ -?\d+ nats, spread \d.\d\d; .* so far, about .* to go", x)
        for x in lines
    )
    tiny.run(tmp_path / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")


def test_what_is_said_changes_no_bit(tmp_path, one_thread):
    silent, speaking = (tiny.run(tmp_path / str(show), progress=show) for show in (False, True))
    assert silent.history == speaking.history


def test_a_notebook_gets_its_own_bar(monkeypatch):
    from tqdm.notebook import tqdm_notebook

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.is_live()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(progress, "_tqdm", lambda: tqdm_notebook)
    assert progress.is_live()


def test_a_warning_points_at_the_first_line_that_is_not_ours(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tiny.run(tmp_path / "run", generator_lr=1e4, discriminator_lr=1e4, epochs=1)
    assert {warning.filename for warning in caught} == {tiny.__file__}
    assert any("the losses diverge" in str(warning.message) for warning in caught)
    with pytest.warns(UserWarning, match="here") as found:
        _terminal.warn("here")
    assert found[0].filename == __file__


@pytest.mark.parametrize("size", ["2", "16"])
def test_one_of_several_processes_that_cannot_find_the_others_is_refused(tmp_path, monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(
        RuntimeError, match=rf"one of WORLD_SIZE={size} processes, so RANK, MASTER_ADDR, MASTER_PORT must be set"
    ):
        train(tiny.images(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_torchrun_with_one_process_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert (tiny.run(tmp_path / "run", epochs=1).path / "result.json").exists()


def test_ctrl_c_stays_ignored_where_it_is():
    """As in a job that a script runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        assert not interrupt.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked
    assert signal.getsignal(signal.SIGINT) is before


def test_a_line_that_cannot_be_written_ends_nothing(monkeypatch):
    """As on a terminal that is copied into a file on a full disk."""

    class Full(io.StringIO):
        def isatty(self):
            return True

        def write(self, text):
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(sys, "stderr", Full())
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    with Progress(10, 0, True) as line:  # first, since an error in the thread of a task would block every later line
        line.advance()
        line.show("epoch 1/2", "D(x) 0.5", "")
    with Task("a task", 3) as task:
        time.sleep(0.05)
        task.advance()


def test_what_is_written_around_the_line_does_not_end_up_in_it(monkeypatch):
    with terminal(monkeypatch, 60) as written, Progress(10, 0, True):
        written()
        progress._tqdm().write("said in on_epoch", file=sys.stderr)
        assert re.match(r"\r +\rsaid in on_epoch\r?\n", written())


def test_a_warning_under_a_decorator_points_outside_too(tmp_path):
    best = RunFolder(tiny.run(tmp_path / "run").path).checkpoint_path("best")
    best.write_bytes(best.read_bytes()[:-1] + b"\xff")
    with pytest.warns(UserWarning, match="damaged") as found:
        load(tmp_path / "run", "last")
    assert found[0].filename == __file__
