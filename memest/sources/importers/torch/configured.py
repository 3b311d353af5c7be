"""Networks by their configuration: a folder with a ``config.json`` as Hugging Face's libraries write them, without weights.

transformers says the class in ``architectures``, diffusers in ``_class_name``, timm the network in ``architecture``; the library builds it,
transformers and diffusers on meta tensors. Nothing is downloaded: the hub's client is told that it is offline meanwhile, and backbones come
without their weights. No code in the folder is run.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memest.errors import FileError, UnsupportedError, UsageError, did_you_mean
from memest.files import decode, parse
from memest.sources.importers.torch.refusals import text_of

CONFIG, PIPELINE = "config.json", "model_index.json"


def of_folder(folder: Path) -> nn.Module:
    """The network that the configuration in a folder describes, in training mode. FileError for a file that is none, UnsupportedError for a
    network whose code is not in an installed library, UsageError where the library is missing."""
    if not (folder / CONFIG).is_file() and (folder / PIPELINE).is_file():
        raise UsageError(f"{folder} is a pipeline of several networks: name one of its folders, such as {folder / _first_part(folder)}")
    config = _read(folder / CONFIG)
    if "_class_name" in config:
        return _diffusers(folder, config)
    if "architecture" in config and "pretrained_cfg" in config:
        return _timm(folder)
    if "architectures" in config or "model_type" in config:
        return _transformers(folder, config)
    raise FileError(f"{folder / CONFIG}: no configuration of transformers, diffusers or timm (architectures, _class_name, architecture)")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = parse(decode(path.read_bytes(), str(path)), "json", str(path))
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None
    if not isinstance(found, dict):
        raise FileError(f"{path}: a mapping is needed")
    return found


def _first_part(folder: Path) -> str:
    """The folder of a pipeline's network that is there."""
    parts = [name for name in _read(folder / PIPELINE) if (folder / name / CONFIG).is_file()]
    return next((name for name in ("unet", "transformer", "vae") if name in parts), parts[0] if parts else "unet")


def _transformers(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    library = _library("transformers", folder)
    names = config.get("architectures") or ["AutoModel"]
    name = str(names[0]) if isinstance(names, list) else str(names)
    kind = getattr(library, name, None)
    if kind is None:
        where = (
            "its code is in the folder, which memest does not run" if "auto_map" in config else f"transformers {_version(library)} has none"
        )
        hint = did_you_mean(name, dir(library)) if "auto_map" not in config else ""
        raise UnsupportedError(f"{folder / CONFIG}: no {name!r}: {where}{hint}; give the code that builds it as package.module:callable")

    def made() -> nn.Module:
        settings = library.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        _without_weights(settings)
        build = kind.from_config if name.startswith("AutoModel") else kind._from_config
        with torch.device("meta"):
            network: nn.Module = build(settings)
        return network.train()

    return _built(folder, name, made)


def _diffusers(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    library = _library("diffusers", folder)
    name = str(config["_class_name"])
    kind = getattr(library, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UnsupportedError(
            f"{folder / CONFIG}: diffusers {_version(library)} has no network {name!r}{did_you_mean(name, dir(library))}"
        )

    def made() -> nn.Module:
        with torch.device("meta"):
            network: nn.Module = kind.from_config(dict(config))  # type: ignore[attr-defined]
        return network.train()

    return _built(folder, name, made)


def _timm(folder: Path) -> nn.Module:
    library = _library("timm", folder)
    return _built(folder, "the network", lambda: library.create_model(f"local-dir:{folder}", pretrained=False))


def _library(name: str, folder: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UsageError(f"{folder} is a configuration of {name}, which is not installed: pip install {name}") from None
    except Exception as e:
        raise UsageError(f"{folder} is a configuration of {name}, and importing it fails: {type(e).__name__}: {text_of(e)}") from None


def _version(library: Any) -> str:
    return str(getattr(library, "__version__", ""))


def _without_weights(settings: Any) -> None:
    """No backbone of the configuration loads weights of its own."""
    if hasattr(settings, "use_pretrained_backbone"):
        settings.use_pretrained_backbone = False
    for name in getattr(settings, "sub_configs", ()):
        if getattr(settings, name, None) is not None:
            _without_weights(getattr(settings, name))


def _built(folder: Path, name: str, made: Any) -> nn.Module:
    """The network, or why the library does not build it, on one line."""
    try:
        with _offline(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = made()
    except Exception as e:
        raise UnsupportedError(f"{folder}: building {name} from its configuration fails: {type(e).__name__}: {text_of(e)}") from None
    if not isinstance(network, nn.Module):
        raise UnsupportedError(f"{folder}: {name} is no torch.nn.Module")
    return network


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's client fetches nothing, and its libraries are quiet."""
    constants: Any = sys.modules.get("huggingface_hub.constants")
    before = getattr(constants, "HF_HUB_OFFLINE", None)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    if constants is not None:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        logging.disable(level)
        if constants is not None:
            constants.HF_HUB_OFFLINE = before
