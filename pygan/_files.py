"""Files that are replaced atomically, and errors about damaged ones."""

import os
import re
import secrets
import stat
from contextlib import suppress
from errno import EBADF, EINVAL, ENOTSUP
from pathlib import Path

__all__ = [
    "DamagedError",
    "damaged",
    "flush_folder",
    "is_leftover",
    "read_text",
    "remove_leftovers",
    "replace_file",
    "require_regular",
]

_LEFTOVER = re.compile(
    r"\.[0-9a-f]{16}\.part"
    r"|(config\.toml|log\.jsonl|result\.json|(last|best)\.safetensors)\.part|\.\d+\.png\.\d+"  # before version 0.2
)


class DamagedError(ValueError):
    """A file is malformed or damaged. The message names the file, what is wrong with it, and what to do."""


def damaged(path: Path, wrong: object, remedy: str) -> DamagedError:
    """Return the error for a file that cannot be used."""
    return DamagedError(f"{path} is malformed or damaged: {wrong}. {remedy}")


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically: after a crash at any moment it has either the old or the new content.

    The content goes to a temporary file in the same folder, which is flushed to the disk and renamed. It is created
    exclusively, with a random name, so that nobody can put a symbolic link in its place. If anything fails, as when the
    disk is full, it is removed.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            with suppress(OSError):
                beside.unlink()
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    flush_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes have left in a folder, if there is such a folder.

    To be used only if no other process writes there, because its temporary files look the same.
    """
    if folder.is_dir():
        for entry in list(os.scandir(folder)):
            if is_leftover(entry.name) and not entry.is_dir(follow_symlinks=False):
                Path(entry).unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Return whether a file of this name is temporary."""
    return _LEFTOVER.fullmatch(name) is not None


def read_text(path: Path, remedy: str) -> str:
    """Return the text of a UTF-8 file. Raises DamagedError, which ends in `remedy`, if it is not UTF-8."""
    require_regular(path, remedy)
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise damaged(path, f"not UTF-8 at byte {error.start}", remedy) from None


def require_regular(path: Path, remedy: str) -> None:
    """Raise DamagedError for a folder, a pipe or a device, where reading might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise damaged(path, "not a regular file", remedy)


def flush_folder(folder: Path) -> None:
    """Flush a renaming to the disk, if the file system can do that (CIFS and some FUSE file systems cannot)."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written to but not listed
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (EINVAL, EBADF, ENOTSUP):
            raise
    finally:
        os.close(handle)
