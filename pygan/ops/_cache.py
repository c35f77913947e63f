"""The size of the processor's last cache."""

from functools import cache
from pathlib import Path

__all__ = ["last_cache_bytes"]

_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")  # Linux's
_UNKNOWN = 32 << 20
_LEAST, _MOST = 8 << 20, 64 << 20  # A larger one serves many cores, or other virtual machines.


@cache
def last_cache_bytes() -> int:
    """Return the bytes of the largest cache of the first core, between 8 and 64 MiB; 32 MiB if it cannot be read."""
    sizes = [_bytes(file) for file in _FOLDER.glob("index*/size")]
    return min(max(max(sizes, default=_UNKNOWN), _LEAST), _MOST)


def _bytes(file: Path) -> int:
    try:
        text = file.read_text(encoding="ascii").strip()
        return int(text.removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0
