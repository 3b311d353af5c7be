"""What a data set's ``dataset.json`` says of the network: channels of the image, and the labels that become its outputs.

Source: nnunetv2 2.8.1, utilities/label_handling/label_handling.py (LabelManager, determine_num_input_channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memest.errors import FileError, UnsupportedError, UsageError, kind_of
from memest.files import MAX_BYTES, decode, parse

MOST = 1 << 16
GIVE = "give input_channels= and num_classes=, as in {path}:configuration=NAME,input_channels=1,num_classes=2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Channels that go in, heads that come out; ``regions`` overlap, ``ignore`` is the label nobody learns from."""

    channels: int
    heads: int
    regions: bool = False
    ignore: int | None = None
    notes: tuple[str, ...] = ()


def labels_of(plans: Path, cascaded: bool, options: Mapping[str, Any]) -> Labels:
    """Those of the ``dataset.json`` beside the plans, with ``options`` before it; in a cascade the labels of the stage before come in as
    one channel each (``input_channels`` is then all of them)."""
    beside = plans.parent / "dataset.json"
    found = _read(beside, cascaded) if beside.is_file() else None
    given = {key: _count(options[key], plans, key) for key in ("input_channels", "num_classes") if key in options}
    if found is None and len(given) < 2:
        missing = ", ".join(key for key in ("input_channels", "num_classes") if key not in given)
        raise UsageError(f"{plans}: {missing} stand in dataset.json, which is not beside it; {GIVE.format(path=plans)}")
    regions = {"true": True, "false": False, "none": None}.get(str(options.get("regions")).lower(), "neither")
    if regions == "neither":
        raise UsageError(f"{plans}, option 'regions': expected true or false, got {kind_of(options['regions'])}")
    labels = found or Labels(channels=1, heads=1)
    return Labels(
        channels=given.get("input_channels", labels.channels),
        heads=given.get("num_classes", labels.heads),
        regions=labels.regions if regions is None else bool(regions),
        ignore=labels.ignore,
    )


def _count(value: Any, plans: Path, key: str) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value
    if type(number) is not int or not 1 <= number <= MOST:
        raise UsageError(f"{plans}, option {key!r}: expected a whole number from 1 to {MOST:,}, got {kind_of(value)}")
    return number


def _read(path: Path, cascaded: bool) -> Labels:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path}: more than {MAX_BYTES:,} bytes")
        data = parse(decode(path.read_bytes(), str(path)), "json", str(path))
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None
    channels = data.get("channel_names", data.get("modality")) if isinstance(data, Mapping) else None
    labels = data.get("labels") if isinstance(data, Mapping) else None
    if not isinstance(channels, Mapping) or not channels or not isinstance(labels, Mapping) or not labels:
        raise FileError(f"{path}: a data set has channel_names and labels")
    if "background" not in labels:
        raise FileError(f"{path}: labels have a 'background', which is 0")
    values = {name: _members(value, path, str(name)) for name, value in labels.items()}
    ignored = values.pop("ignore", None)
    regions = any(len(members) > 1 for members in values.values())
    if regions and ignored is not None:
        raise UnsupportedError(f"{path}: regions with an ignore label are not modelled; leave one of them out")
    known = {member for members in values.values() for member in members}
    heads = sum(set(members) != {0} for members in values.values()) if regions else len(known)
    return Labels(
        channels=len(channels) + (len(known - {0}) if cascaded else 0),
        heads=heads,
        regions=regions,
        ignore=None if ignored is None else ignored[0],
    )


def _members(value: Any, path: Path, name: str) -> tuple[int, ...]:
    members = tuple(value) if isinstance(value, list) else (value,)
    numbers = tuple(int(m) if isinstance(m, str) and m.isascii() and m.isdigit() else m for m in members)
    if not numbers or not all(type(m) is int and 0 <= m <= MOST for m in numbers):
        raise FileError(f"{path}: label {name[:60]!r} is a whole number or a list of them, got {kind_of(value)}")
    return numbers
