"""NVIDIA's TensorRT as it is installed: which library and version, and what it can be asked for."""

import importlib
import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from frcnn.errors import ExportError, SpecError

log = logging.getLogger(__name__)

LIBRARIES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Names of libraries and of the modules that they come as."""

_GET = {
    "tensorrt": "pip install 'frcnn[tensorrt]', or run in NVIDIA's container nvcr.io/nvidia/tensorrt",
    "tensorrt_rtx": "pip install 'frcnn[tensorrt-rtx]', which builds without a GPU, for RTX engines only",
}


@dataclass(frozen=True)
class Library:
    """TensorRT, or TensorRT for RTX. What a version lacks is asked of the module, not of its number.

    Attributes:
        name: tensorrt or tensorrt_rtx.
        module: as imported.
    """

    name: str
    module: Any

    @property
    def version(self) -> str:
        """As the library numbers itself, such as 10.16.1.11."""
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX, which builds without a GPU and compiles kernels where it runs."""
        return self.name == "tensorrt_rtx"

    @property
    def has_precision_flags(self) -> bool:
        """Whether the builder can be asked to compute a plain graph in fp16 or int8 (TensorRT 10)."""
        return hasattr(self.module.BuilderFlag, "FP16") and hasattr(self.module, "IInt8EntropyCalibrator2")

    @property
    def logger(self) -> "Messages":
        """Where its messages go; one per process, since it keeps the first that it is given."""
        messages: Messages = _logger(self.module)
        return messages

    def start(self, kind: str) -> Any:
        """A `Builder` or a `Runtime`.

        Raises:
            ExportError: the library does not come up, as where the driver is older than it.
        """
        self.logger.taken()
        try:
            return getattr(self.module, kind)(self.logger)
        except TypeError as error:  # what the bindings make of a null pointer
            found = "; ".join(self.logger.taken()) or error
            hint = "a driver that is new enough for this version: nvidia-smi shows it"
            raise ExportError(f"{self} does not start", found=found, hint=hint) from error

    def __str__(self) -> str:
        return f"{'TensorRT for RTX' if self.is_rtx else 'TensorRT'} {self.version}"


def open_library(name: str = "auto") -> Library:
    """Import a library.

    Args:
        name: tensorrt, tensorrt_rtx, or auto: the first of them that is there.

    Raises:
        SpecError: another name.
        ExportError: it is not installed, with how to get it, or does not load.
    """
    if name != "auto" and name not in LIBRARIES:
        allowed = ", ".join(("auto", *LIBRARIES))
        raise SpecError("no such library", where="library", found=name, allowed=allowed)
    wanted = tuple(LIBRARIES) if name == "auto" else (name,)
    for library in wanted:
        for module in LIBRARIES[library]:
            try:
                return Library(library, importlib.import_module(module))
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise _broken(module, error) from error
            except (ImportError, OSError) as error:
                raise _broken(module, error) from error
    what = "TensorRT" if name == "auto" else name
    raise ExportError(f"{what} is not installed", hint="; ".join(_GET[library] for library in wanted))


def _broken(module: str, error: Exception) -> ExportError:
    hint = "its libraries have to be found (LD_LIBRARY_PATH) and be of the version of the Python package"
    return ExportError("is installed and does not load", where=module, found=error, hint=hint)


@dataclass(frozen=True)
class Device:
    """A GPU: its name, and its compute capability such as 8.6."""

    name: str
    capability: str


def cuda_device() -> Device | None:
    """The GPU that torch would use; None without one."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return Device(torch.cuda.get_device_name(), f"{major}.{minor}")


def needed_device(*, to: str) -> Device:
    """The GPU; asked before TensorRT is, which may end the whole process where there is none.

    Args:
        to: what it is needed for.

    Raises:
        ExportError: there is none.
    """
    if (device := cuda_device()) is None:
        raise ExportError(
            f"a GPU is needed to {to}",
            found="torch sees no CUDA device",
            hint="a machine with an NVIDIA GPU and a torch for CUDA; tensorrt_rtx builds without one, "
            "and ONNX Runtime runs the .onnx file on any CPU",
        )
    return device


class Messages:
    """What the library says, on our log; errors are kept until they are asked for.

    The class that the library is given is made of this and its own `ILogger`.
    """

    errors: list[str]

    def log(self, severity: Any, text: str) -> None:
        """Called by the library."""
        level = severity.name
        if level in ("INTERNAL_ERROR", "ERROR"):
            self.errors.append(text)
        log.log(logging.INFO if level == "WARNING" else logging.DEBUG, "%s", text)

    def taken(self) -> list[str]:
        """The errors since the last call, each once, without places in the library's source."""
        found = dict.fromkeys(_words(text) for text in self.errors)
        self.errors.clear()
        return [text for text in found if text]


@cache
def _logger(module: Any) -> Any:
    class Logger(Messages, module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors = []

    return Logger()


def _words(text: str) -> str:
    """`IBuilder::build: Error Code 4: API Usage Error (words In f at /_src/x.cpp:1)` -> `words`."""
    text = re.sub(r"\s*In \w+ at /_src/\S+?:\d+\b", "", text)
    match = re.search(r"Error Code \d+: [\w ]+ \((.*)\)\s*$", text, re.DOTALL)
    text = match[1] if match else text
    return re.sub(r"\s+", " ", text).strip()
