"""The compiled core, found and checked once, and what it was built with."""

import pygan
from pygan._version import __version__

try:
    import pygan._core as _core
except ImportError as error:
    raise ImportError(
        f"pygan's compiled core is missing or cannot be loaded ({error}). The package was looked for in "
        f"{list(pygan.__path__)}. Build it with `pip install .` in the source folder."
    ) from error

if _core.__version__ != __version__:
    raise ImportError(
        f"pygan's Python files are version {__version__}, but its compiled core ({_core.__file__}) is version "
        f"{_core.__version__}. Run `pip install .` again in the source folder."
    )

__all__ = ["build_info"]


def build_info() -> dict[str, object]:
    """What the native core was built with and what it runs.

    Returns:
        `version`, `compiler`; `cuda` (toolkit version, or None for a CPU-only build) and `cuda_architectures`;
        `simd_built` (vector levels in the module) and `simd` (the one in use; the environment variable PYGAN_SIMD
        lowers it); `openmp` (the date of the OpenMP standard, as an integer).
    """
    return dict(_core.build_info())
