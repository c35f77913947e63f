"""Fixtures that every test file may use."""

import os
import signal
from pathlib import Path

import pytest
import torch

import pygan
from pygan import _core
from pygan.report import live

SIMD_LEVELS = pygan.build_info()["simd_built"]
_FILES = live._files


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _heed_ctrl_c():
    """A shell without job control starts what runs in the background with SIGINT ignored; a CI may do so too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_reports():
    """A report takes ten times as long as the tiny run that it shows. Tests that need one ask for `reports`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "_files", lambda run, weights: {})
        yield


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw their curves, film and page."""
    monkeypatch.setattr(live, "_files", _FILES)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that the native kernels serve."""
    return str(request.param)


@pytest.fixture(params=SIMD_LEVELS)
def simd_level(request: pytest.FixtureRequest):
    """Runs the test once at each vector level of the CPU kernels."""
    before = _core.simd_level()
    try:
        _core.set_simd_level(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _core.set_simd_level(before)


@pytest.fixture
def one_thread():
    """For tests with many tiny operations, which two threads make slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets."""
    if "PYGAN_DATA" not in os.environ:
        pytest.skip("PYGAN_DATA names no folder with real data sets")
    return Path(os.environ["PYGAN_DATA"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need a GPU and a core built with CUDA."""
    if torch.cuda.is_available() and pygan.build_info()["cuda"] is not None:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU and a build with CUDA"))
