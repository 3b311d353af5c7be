"""Operators of torchvision's extension, as its Python functions call them (``torch.ops.torchvision``)."""

from __future__ import annotations

from typing import Any

from memest.ops.table import OPERATORS
from memest.sources.assumptions import BOXES
from memest.sources.importers.torch.calls.plain import Call, Request, bound

NAMES = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


def _nms(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """How many boxes it keeps depends on their values."""
    given = bound(("dets", "scores", "iou_threshold"), args, kwargs)
    most = recorder.live.known(given["dets"]).value.spec.shape[0]
    count = recorder.assumed.count(BOXES, most, "torchvision.ops.nms()")
    return Request("nms", [given["dets"], given["scores"]], {"iou_threshold": given["iou_threshold"], "count": count}, own_result=True)


def _plain(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    row = OPERATORS[name]
    attributes = [a.name for a in row.attributes]
    given = bound((*row.roles, *attributes), args, kwargs)
    return Request(name, [given[role] for role in row.roles], {a: given[a] for a in attributes}, own_result=True)


CALLS: dict[str, Call] = {"nms": _nms, **dict.fromkeys(NAMES, _plain)}
