"""What a run uses of its process: the device, torch's random generators, Ctrl-C."""

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Self

import torch
from torch import Tensor

__all__ = [
    "CpuRandomness",
    "Interrupt",
    "find_device",
    "forked_randomness",
    "hardware",
    "keep_freed_memory",
    "own_defaults",
    "own_randomness",
]


def find_device(device: str | torch.device) -> torch.device:
    """Return the device; "auto" is CUDA if there is one, else the CPU.

    Raises:
        ValueError: no such kind of device.
        RuntimeError: this machine does not have it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError:  # torch's message lists two dozen devices that nobody has
        meant = "; a GPU is 'cuda', and 'auto' takes one if there is one" if device in ("gpu", "GPU") else ""
        raise ValueError(f"device: must be auto, cpu, cuda, cuda:1, ..., got {device!r}{meant}") from None
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise RuntimeError(f"device: {str(device)!r} cannot be used: {reason}") from error


def hardware(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU and its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = f"{torch.get_num_threads()} threads"
    return f"{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), {threads}"


def keep_freed_memory() -> None:
    """Let the C library keep what a step on the CPU frees, so that the next step need not fetch it from the system.

    glibc gives free memory at the end of its heap back once that is twice as large as the largest block that it has
    returned so far (mallopt(3), M_MMAP_THRESHOLD). A step that frees more than that, in smaller blocks, then gets it
    back page by page, each cleared anew. In some processes, as the heap happens to lie, that takes 4 to 6 ms of 17.
    Freeing one block of nearly 32 MB, the largest that counts, raises the limit to twice that; its pages are never
    touched. A limit that the user has set stays, and other C libraries have no such rule.
    """
    libc = ctypes.CDLL(None)  # not torch.empty, which may be asked to fill what it allocates
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc((32 << 20) - (64 << 10)))


_defaults = threading.Lock()  # of the next two: torch's default dtype is the process's
_users = 0  # contexts of `own_defaults` that have not ended, in all threads
_dtype = torch.float32  # the caller's, before the first of them

_randomness = threading.RLock()  # held by the thread that trains: torch's default generators are the process's


@contextmanager
def own_defaults(device: torch.device) -> Iterator[None]:
    """Set torch's defaults for training in this thread: gradients on, no autocast on this device, float32, CPU.

    The default dtype is that of all threads; it is restored when the last of several overlapping contexts ends.
    """
    global _users, _dtype
    on_cpu = torch.get_default_device().type == "cpu"  # Setting even this device slows every operation a little.
    place = nullcontext() if on_cpu else torch.device("cpu")
    with place, torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        with _defaults:
            if _users == 0:
                _dtype = torch.get_default_dtype()
            _users += 1
            torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            with _defaults:
                _users -= 1
                if _users == 0:
                    torch.set_default_dtype(_dtype)


@contextmanager
def own_randomness(seed: int, device: torch.device, deterministic: bool) -> Iterator[None]:
    """Seed torch's default generators for a run, and restore the caller's state afterwards.

    Raises RuntimeError if another thread of this process trains: both would draw from the same generators.
    """
    if not _randomness.acquire(blocking=False):
        raise RuntimeError(
            "train: another thread of this process is training. Both would draw from torch's default generators, and "
            "neither run would be determined by its seed: train in separate processes, or one after the other"
        )
    mode = torch.get_deterministic_debug_mode()
    try:
        with forked_randomness(device):
            torch.manual_seed(seed)
            if deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True)
            yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        _randomness.release()


def forked_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's default generators, of the CPU and of this device, afterwards."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


class CpuRandomness:
    """The state of torch's default generator of the CPU, as a part of a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the generator's state."""
        return {"cpu": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the generator's state."""
        torch.set_rng_state(state["cpu"])


class Interrupt:
    """Ctrl-C only sets `asked`, so that the current update can be completed. A second Ctrl-C interrupts at once.

    A `patient` one waits then too: torchrun passes on the Ctrl-C that the terminal has already sent to all processes.
    Where Ctrl-C is ignored, as in a job that a script runs in the background, it stays so.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked, self._patient = False, patient
        main = threading.current_thread() is threading.main_thread()  # No other thread may set a handler.
        self._heeds = main and signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)  # None: not Python's

    def __enter__(self) -> Self:
        if self._heeds:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self._heeds:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self._patient:
            raise KeyboardInterrupt
        self.asked = True
