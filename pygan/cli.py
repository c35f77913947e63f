"""The command line, `pygan COMMAND`: what all commands share. Each command is a file; `COMMANDS` lists them."""

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pygan
from pygan._nearest import nearest
from pygan._terminal import escape_unprintable, is_terminal, say
from pygan.commands import evaluate, figure, info, latent, report, sample, table1, train
from pygan.commands.wording import on_the_command_line
from pygan.distributed import MainFailedError, may_speak, quiet
from pygan.fit import Interrupted

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """The function that gets the words after the command's name, and one line about the command."""

    run: Callable[[Sequence[str]], None]
    summary: str


COMMANDS = {
    "train": Command(train.run, train.SUMMARY),
    "sample": Command(sample.run, sample.SUMMARY),
    "evaluate": Command(evaluate.run, evaluate.SUMMARY),
    "latent": Command(latent.run, latent.SUMMARY),
    "figure": Command(figure.run, figure.SUMMARY),
    "report": Command(report.run, report.SUMMARY),
    "table1": Command(table1.run, table1.SUMMARY),
    "recipes": Command(info.recipes, info.RECIPES_SUMMARY),
    "info": Command(info.info, info.INFO_SUMMARY),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 is success, 1 an error (one line on standard error), 2 a wrong command line, 130 an interrupt by Ctrl-C. Of
    several processes (`torchrun -m pygan`) only one prints.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    escape_unprintable(sys.stdout)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            with quiet():
                code = _run(words)
            if sys.stdout is not None:  # as in a daemon
                sys.stdout.flush()
        except SystemExit as stop:  # argparse has printed its help or what is wrong
            return int(stop.code or 0)
        except KeyboardInterrupt as interrupt:
            if not may_speak():
                return 130
            if isinstance(interrupt, Interrupted):
                say(f"pygan: {interrupt.done}; resume with: {_to_resume(words, str(interrupt.path))}")
            else:
                say("pygan: interrupted")
            return 130
        except BrokenPipeError:  # whoever read our output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush would fail
            return 1
        except (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, MainFailedError) or not may_speak():
                return 1
            message = on_the_command_line(str(error))
            if "--resume" in message and words[0] == "train":
                message += f": {_to_resume(words)}"
            say(f"pygan: error: {message}")
            return 1
    return code


def _run(words: Sequence[str]) -> int:
    """Run the command that the first word names."""
    name = words[0] if words else "--help"
    if name in COMMANDS:
        COMMANDS[name].run(words[1:])
    elif name == "--version":
        print(f"pygan {pygan.__version__}")
    elif name in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    else:
        say(f"pygan: error: {name!r} is none of {', '.join(COMMANDS)}{nearest(name, COMMANDS)} (see pygan --help)")
        return 2
    return 0


def _help() -> str:
    return "\n".join(
        [
            "usage: pygan COMMAND ...",
            "",
            "Generative adversarial nets as published in 2014, trained and judged.",
            "",
            "commands (pygan COMMAND --help says more):",
            *(f"  {name:<10}{command.summary}" for name, command in COMMANDS.items()),
            "",
            "options:",
            "  -h, --help  show this help",
            "  --version   show the version",
        ]
    )


def _to_resume(words: Sequence[str], path: str | None = None) -> str:
    """The command that continues from the last checkpoint: the same one.

    `train` also needs --resume, and --out if it had none.
    """
    if words[0] != "train":
        return shlex.join(["pygan", *words])
    resume = [] if any(word.split("=")[0] == "--resume" for word in words) else ["--resume"]
    named = path is None or any(word.split("=")[0] == "--out" for word in words)
    out = [] if path is None or named else ["--out", path]
    return shlex.join(["pygan", *words, *resume, *out])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from tqdm import tqdm

    text = f"pygan: warning: {on_the_command_line(str(message))}"
    if is_terminal(sys.stderr):
        tqdm.write(text, file=sys.stderr)  # above a progress bar, not through it
    else:
        say(text)
