"""Weights by name, `torchvision:resnet18` or `timm:mobilenetv2_100`, from the caches of those libraries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from frcnn.errors import WeightsError

log = logging.getLogger(__name__)

TORCHVISION, TIMM = "torchvision:", "timm:"


class Named(NamedTuple):
    """A model of a library; its weights need not be here yet."""

    source: str  # the name as it was given
    names: dict[str, Tensor]  # its state dict without numbers
    eps: float | None  # of its batch norms; None where it has none
    url: str
    cached: Path  # where its weights are or will be: the file, or Hugging Face's folder of the repository
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None  # None: the usual of the architecture
    hub: tuple[str, str] | None  # repository and file at Hugging Face, otherwise the URL is what there is


def is_name(source: str) -> bool:
    """Whether a source is a name to look up rather than a path."""
    return source.startswith((TORCHVISION, TIMM))


def look_up(source: str) -> Named:
    """Find a model by name, without its weights.

    Raises:
        WeightsError: no such model, none with weights, or timm is not installed.
    """
    return _torchvision(source) if source.startswith(TORCHVISION) else _timm(source)


def fetch(named: Named) -> Path:
    """The file of a model's weights, downloaded unless it is in the cache.

    Raises:
        WeightsError: it cannot be downloaded, or is not what its name says.
    """
    if named.hub is None:
        if named.cached.exists():
            return named.cached
        log.info("downloading %s to %s", named.url, named.cached)
        digest = named.cached.stem.rpartition("-")[2]  # torch.hub: names end in the start of their SHA-256
        with _downloading(named):
            named.cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(named.url, str(named.cached), digest, progress=False)
        return named.cached
    import huggingface_hub

    with _downloading(named):
        try:
            return Path(huggingface_hub.hf_hub_download(*named.hub, local_files_only=True))
        except FileNotFoundError:
            log.info("downloading %s", named.url)
            _reach(named.url)
            return Path(huggingface_hub.hf_hub_download(*named.hub))


def _reach(url: str) -> None:
    """Ask for a file once: without a connection hf_hub_download tries for half a minute, line by line.

    Raises:
        OSError: it cannot be reached.
    """
    import huggingface_hub

    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=10)
    except Exception as error:  # of its HTTP library, which differs between versions
        raise OSError(str(error) or type(error).__name__) from error


@contextmanager
def _downloading(named: Named) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # Hugging Face's cache is a tree of names and hashes, where no one puts a file by hand.
        place = "" if named.hub else f"put it at {named.cached}, or "
        raise WeightsError(
            "its weights cannot be downloaded",
            where=named.source,
            found=f"{named.url}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            hint=f"download that elsewhere and {place}give the path of the file",
        ) from error


def _torchvision(source: str) -> Named:
    name, _, tag = source.removeprefix(TORCHVISION).partition(".")
    models = torchvision.models
    if name not in (known := models.list_models(module=models)):
        allowed = ", ".join(n for n in known if n.startswith(name[:4])) or ", ".join(known)
        raise WeightsError("torchvision has no such model", where=source, found=name, allowed=allowed)
    choices = models.get_model_weights(name)
    if tag and tag not in choices.__members__:
        allowed = ", ".join(choices.__members__)
        raise WeightsError("has no such weights", where=source, found=tag, allowed=allowed)
    url = (choices[tag] if tag else choices.DEFAULT).url
    with torch.device("meta"):
        options = {"init_weights": False} if name == "googlenet" else {}
        twin = models.get_model(name, weights=None, **options)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return Named(source, twin.state_dict(), _epsilon(twin), url, cached, None, None)


def _timm(source: str) -> Named:
    timm = _import_timm(source)
    name = source.removeprefix(TIMM)
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        like = timm.list_models(f"*{name.partition('.')[0][:8]}*")
        raise WeightsError("timm has no such model", where=source, found=name, allowed=", ".join(like[:12]))
    if not config.hf_hub_id:
        allowed = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}*"))
        raise WeightsError("timm has no weights of this model", where=source, found=name, allowed=allowed)
    with torch.device("meta"):
        twin = timm.create_model(name)
    from huggingface_hub import constants

    hub = (config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
    url = f"{constants.ENDPOINT}/{hub[0]}/resolve/main/{hub[1]}"
    folder = Path(constants.HF_HUB_CACHE) / f"models--{hub[0].replace('/', '--')}"
    normalisation = (tuple(config.mean), tuple(config.std))
    return Named(source, twin.state_dict(), _epsilon(twin), url, folder, normalisation, hub)


def _import_timm(source: str) -> ModuleType:
    try:
        import timm
    except ImportError:
        hint = "pip install timm, or give the path of a .pth or .safetensors file"
        raise WeightsError("this name needs timm, which is not installed", where=source, hint=hint) from None
    return timm


def _epsilon(model: nn.Module) -> float | None:
    return next((m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)
