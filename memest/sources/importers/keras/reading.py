"""From a file to a network's configuration: ``config.json`` in a ``.keras`` archive, or the text that ``model.to_json()`` gives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memest.errors import FileError, UsageError

SUFFIX = ".keras"
INSIDE = "config.json"
NETWORKS = ("Functional", "Sequential", "Model")
MAX_BYTES = 64 * 1024 * 1024
FOREIGN = "is no network that Keras 3 saved"


def read(path: Path) -> Mapping[str, Any]:
    """The configuration in a file; FileError where there is none, or where it is too large to be one."""
    if not path.is_file():
        raise UsageError(f"{path} is a directory; name a file in it" if path.is_dir() else f"no such file: {path}")
    try:
        found = json.loads(_archived(path) if path.suffix.lower() == SUFFIX else _plain(path))
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None
    except (ValueError, RecursionError) as e:
        raise FileError(f"{path}: its configuration is no JSON ({e})") from None
    if not is_network(found):
        raise FileError(f"{path} {FOREIGN}: its configuration has no class_name and layers")
    return found


def is_network(value: object) -> bool:
    """Whether plain data are a network's configuration as Keras writes it."""
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        return False
    return isinstance(value.get("class_name"), str) and isinstance(value["config"].get("layers"), list)


def _archived(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if INSIDE not in archive.namelist():
                raise FileError(f"{path} {FOREIGN}: there is no {INSIDE} in it")
            with archive.open(INSIDE) as f:
                return _bounded(f.read(MAX_BYTES + 1), path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as e:
        older = " (an .h5 file of Keras 2: load it with Keras 3 and save it anew)" if _is_hdf5(path) else ""
        raise FileError(f"{path} {FOREIGN}: {e}{older}") from None


def _plain(path: Path) -> bytes:
    with path.open("rb") as f:
        return _bounded(f.read(MAX_BYTES + 1), path)


def _bounded(raw: bytes, path: Path) -> bytes:
    if len(raw) > MAX_BYTES:
        raise FileError(f"{path}: a configuration of more than {MAX_BYTES:,} bytes")
    return raw


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(4) == b"\x89HDF"
