"""A device of torch that lives in the memory of the CPU: what runs on a GPU is run where there is none."""

from __future__ import annotations

import ctypes
import subprocess
import types
from pathlib import Path

__all__ = ["SecondDevice", "build"]

SOURCE = Path(__file__).with_name("device.cpp")
NAME = "second"


def build(folder: Path) -> Path:
    """Compile the device, which takes about 20 s; return its library.

    :raises RuntimeError: with what the compiler said
    """
    import torch
    from torch.utils import cpp_extension

    library, places = folder / "second_device.so", cpp_extension.library_paths()
    flags = [
        "-O0",
        "-std=c++20",
        "-shared",
        "-fPIC",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
    ]
    flags += [f"-I{place}" for place in cpp_extension.include_paths()]
    flags += [f"{option}{place}" for place in places for option in ("-L", "-Wl,-rpath,")]
    command = ["c++", *flags, str(SOURCE), "-o", str(library), "-ltorch", "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return library


class SecondDevice:
    """The device, made known to torch as "second"; it stays for as long as the process.

    :param library: as compiled
    """

    def __init__(self, library: Path):
        import torch

        torch.ops.load_library(str(library))
        self._library = ctypes.CDLL(str(library))
        self._library.second_device_limit.argtypes = [ctypes.c_size_t]
        for name in ("in_use", "most", "operations", "fetched"):
            getattr(self._library, f"second_device_{name}").restype = ctypes.c_size_t
        self._library.second_device_names.restype = ctypes.c_char_p
        self._library.second_device_register()
        torch.utils.rename_privateuse1_backend(NAME)
        module = types.ModuleType(f"torch.{NAME}")
        answers = {"is_available": True, "device_count": 1, "current_device": 0, "_is_in_bad_fork": False}
        for name, answer in answers.items():
            setattr(module, name, lambda answer=answer: answer)
        module.manual_seed_all = lambda seed: None  # type: ignore[attr-defined]
        torch._register_device_module(NAME, module)

    def limit(self, nbytes: int) -> None:
        """Let no more memory be in use."""
        self._library.second_device_limit(nbytes)

    @property
    def in_use(self) -> int:
        """Bytes."""
        return int(self._library.second_device_in_use())

    def most(self) -> int:
        """Return the most bytes that were in use at a time since the last question."""
        return int(self._library.second_device_most())

    @property
    def operations(self) -> int:
        """Operations so far, those that only look at memory in another way left out: a GPU starts a kernel for each."""
        return int(self._library.second_device_operations())

    @property
    def fetched(self) -> int:
        """How often something was brought to the CPU, for which a GPU has to be waited for."""
        return int(self._library.second_device_fetched())

    @property
    def names(self) -> list[str]:
        """The operations that there were so far, as torch calls them, sorted."""
        return str(self._library.second_device_names().decode()).split()
