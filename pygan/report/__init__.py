"""The report page: one HTML file that shows how runs went, without a server, a script or anything from elsewhere.

    pygan.report.write(["runs/mnist", "runs/mnist-2"], "report.html")

`page.html` and `page.css` are its template; matplotlib and Jinja are imported when the first page is made.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from pygan._files import replace_file
from pygan._session import own_defaults
from pygan.record import listed
from pygan.run import Run

__all__ = ["write"]


@own_defaults(torch.device("cpu"))
def write(runs: Sequence[Run | str | Path] | Run | str | Path, path: str | Path, weights: str = "") -> Path:
    """Write one page about runs, side by side, and return its path.

    Args:
        runs: at least one, or the folders of runs, which may still be training.
        path: of the page. It is replaced atomically, so that it can be reloaded at any moment.
        weights: which ones a run in memory has, for the page: "after epoch 5".

    Raises:
        FileNotFoundError: a folder that holds no run.
        ValueError: no run, or a folder that is damaged.
        OSError: the page cannot be written.
    """
    from pygan.report.page import render
    from pygan.report.subject import Subject

    given = listed(runs)
    if not given:
        raise ValueError("write: runs must hold at least one run, got none")
    path = Path(path).expanduser()
    page = render([Subject.of(run, weights) for run in given])
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page.encode())
    return path
