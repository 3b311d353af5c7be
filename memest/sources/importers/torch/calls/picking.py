"""Calls that order, pick and look up: sorts, medians, distances, tables of vectors, reparametrized weights; and an encoder's layer."""

from __future__ import annotations

from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.complex import CALLS as COMPLEX_CALLS
from memest.sources.importers.torch.calls.plain import CALLS as PLAIN_CALLS
from memest.sources.importers.torch.calls.plain import Call, Request, bound, plain, request, signature

PLAIN = {
    "msort": "input",
    "kthvalue": "input k dim keepdim",
    "mode": "input dim keepdim",
    "cummax": "input dim",
    "cummin": "input dim",
    "cumprod": "input dim",
    "bucketize": "input boundaries out_int32 right",
    "embedding": "weight indices padding_idx scale_grad_by_freq sparse",
    "one_hot": "input num_classes",
    "_weight_norm": "v g dim",
    "vdot": "input tensor",
}


def _clamp(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """Between numbers, or between tensors."""
    given = bound(("input", "min", "max"), args, kwargs)
    if not any(isinstance(given.get(n), torch.Tensor) for n in ("min", "max")):
        return PLAIN_CALLS[name](name, args, kwargs, recorder)
    return Request("clamp.Tensor", [given.get(n) for n in ("input", "min", "max")], {"inplace": name.endswith("_")})


def _limit(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``clamp_min`` and ``clamp_max``."""
    limit = name.rstrip("_").rpartition("_")[2]
    given = bound(("input", limit), args, kwargs)
    if not isinstance(given[limit], torch.Tensor):
        return PLAIN_CALLS[name](name, args, kwargs, recorder)
    return Request("clamp.Tensor", [given["input"], *(given.get(n) for n in ("min", "max"))], {"inplace": name.endswith("_")})


def _solve(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.linalg.solve(A, B)``."""
    given = bound(("A", "B"), args, kwargs)
    if not given.pop("left", True):
        raise UnsupportedError("torch.linalg.solve with left=False has no rule: solve(A.mT, B.mT).mT is modelled")
    return Request("linalg_solve", [given["A"], given["B"]], {})


def _cross(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.cross``, which takes the first dim of 3 where none is said, and ``torch.linalg.cross``, which takes the last."""
    given = bound(("input", "other", "dim"), args, kwargs)
    if name == "cross" and given.get("dim") is None:
        given["dim"] = next((d for d, n in enumerate(given["input"].shape) if n == 3), -1)
    return request("linalg_cross", given, {})


def _isin(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """Of a tensor, among the elements of another or equal to a number."""
    named = {"test_elements" if n == "test_element" else n: v for n, v in kwargs.items()}
    given = bound(("elements", "test_elements"), args, named)
    input, tested = given.pop("elements", None), given.pop("test_elements")
    if not isinstance(input, torch.Tensor):
        raise UnsupportedError("torch.isin of a number has no rule: (x == number).any() is modelled")
    if isinstance(tested, torch.Tensor):
        return Request("isin", [input, tested], given)
    return Request("isin", [input, None], {"value": tested, **given})


def _sort(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.sort(dim, descending)``, and ``stable`` by name."""
    return request(name, bound(("input", "dim", "descending"), args, kwargs), {})


def _median(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``median(x)``, or ``median(x, dim)`` with the places."""
    given = bound(("input", "dim", "keepdim"), args, kwargs)
    return request(f"{name}_dim" if "dim" in given else name, given, {})


def _cdist(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.cdist`` calls this with the mode as a number."""
    given = bound(("x1", "x2", "p", "compute_mode"), args, kwargs)
    if isinstance(given.get("compute_mode"), int):
        given["compute_mode"] = MODES[given["compute_mode"]]
    return request("cdist", {n: v for n, v in given.items() if v is not None}, {})


def _searchsorted(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``side`` says what ``right`` says; a ``sorter`` is read on the way, and takes nothing."""
    given = bound(("sorted_sequence", "input"), args, kwargs)
    side = given.pop("side", None)
    if not isinstance(given["input"], torch.Tensor):
        raise UnsupportedError("searchsorted for a number has no rule; give it a tensor")
    if given.pop("sorter", None) is not None:
        raise UnsupportedError("searchsorted with a sorter has no rule; sort the sequence before")
    return request("searchsorted", {**given, **({"right": side == "right"} if side is not None else {})}, {})


def _embedding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """No row is left out where ``padding_idx`` is negative."""
    names = PLAIN["embedding"].split()
    given = {("indices" if k == "input" else k): v for k, v in bound(names, args, kwargs).items()}
    if given.get("padding_idx") == -1:
        del given["padding_idx"]
    return request("embedding", given, {})


MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def _new_tensor(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.new_tensor([1.0, 2.0])``: a small tensor of the data's shape, in the dtype of ``x`` if none is said."""
    if isinstance(args[1], torch.Tensor):
        raise UnsupportedError("new_tensor of a tensor has no rule; use clone().detach()")
    with torch._C.DisableTorchFunction():
        shape = tuple(torch.tensor(args[1]).shape)
    return Request("empty", [], {"shape": shape, "dtype": plain(kwargs.get("dtype") or args[0].dtype)}, own_result=True)


def _broadcast(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``broadcast_tensors(a, b)`` and ``broadcast_tensors([a, b])``."""
    return Request(name, [list(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else list(args)], {})


def _encoder_layer(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(ENCODER_LAYER.split(), args, kwargs)
    given.pop("mask_type", None)
    made = request(name, given, {})
    made.own_result = True
    return made


ENCODER_LAYER = (
    "src embed_dim num_heads qkv_weight qkv_bias proj_weight proj_bias use_gelu norm_first eps norm_weight_1 norm_bias_1 norm_weight_2"
    " norm_bias_2 ffn_weight_1 ffn_bias_1 ffn_weight_2 ffn_bias_2 mask mask_type"
)


def _into(otherwise: Call) -> Call:
    """``torch.div(x, y, out=z)`` and the like write into ``z``."""

    def binding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        if kwargs.get("out") is None:
            return otherwise(name, args, {n: v for n, v in kwargs.items() if n != "out"}, recorder)
        given = bound(("input", "other"), args, kwargs)
        if not isinstance(given["other"], torch.Tensor) or len(given) > 3:
            raise UnsupportedError(f"{name} with out= by a number, or rounded, has no rule")
        return Request(f"{name}_into_", [given["out"], given["input"], given["other"]], {})

    return binding


def _adjoint(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.H`` of real matrices."""
    if args[0].is_complex():
        raise UnsupportedError(f"{name.removeprefix('__get__:')} of a complex tensor has no rule")
    return Request("transpose", [args[0]], {"dim0": -2, "dim1": -1})


def _svd(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.linalg.svd``: ``driver`` counts on CUDA alone."""
    given = bound(("input", "full_matrices"), args, {n: v for n, v in kwargs.items() if v is not None})
    given["input"] = given.pop("A", given.get("input"))
    return request("linalg_svd", given, {})


def _eigh(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.linalg.eigh(A)``."""
    return request(name, bound(("input", "UPLO"), args, {("input" if n == "A" else n): v for n, v in kwargs.items()}), {})


def _qr(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.linalg.qr(A, mode)``, and the older ``torch.qr(input, some)``."""
    given = bound(("input", "mode"), args, {("input" if n == "A" else n): v for n, v in kwargs.items()})
    if name == "qr":
        given["mode"] = "reduced" if given.pop("some", given.pop("mode", True)) else "complete"
    return request("linalg_qr", given, {})


def _pinv(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """By the usual tolerance, of any matrix."""
    given = {("input" if n == "A" else n): v for n, v in kwargs.items() if v is not None and v is not False}
    if len(args) > 1 or given.keys() - {"input"}:
        raise UnsupportedError(f"{name} with a tolerance, or hermitian, has no rule: the usual tolerance of any matrix is modelled")
    return request("linalg_pinv", bound(("input",), args, given), {})


CALLS: dict[str, Call] = {
    **{name: signature(name, names) for name, names in PLAIN.items()},
    **dict.fromkeys(("sort", "argsort"), _sort),
    **dict.fromkeys(("median", "nanmedian"), _median),
    "isin": _isin,
    **dict.fromkeys(("cross", "linalg_cross"), _cross),
    **dict.fromkeys(("linalg_inv", "inverse"), signature("linalg_inv", "input")),
    "linalg_solve": _solve,
    **dict.fromkeys(("linalg_eigh", "linalg_eigvalsh"), _eigh),
    **dict.fromkeys(("linalg_qr", "qr"), _qr),
    **dict.fromkeys(("linalg_pinv", "pinverse"), _pinv),
    "linalg_solve_triangular": signature("linalg_solve_triangular", "input other upper left unitriangular"),
    "cholesky_solve": signature("cholesky_solve", "input input2 upper"),
    "cholesky_inverse": signature("cholesky_inverse", "input upper"),
    "linalg_svdvals": signature("linalg_svdvals", "input"),
    "linalg_svd": _svd,
    **dict.fromkeys(("linalg_det", "det"), signature("linalg_det", "input")),
    **dict.fromkeys(("linalg_slogdet", "slogdet"), signature("linalg_slogdet", "input")),
    "linalg_cholesky": signature("linalg_cholesky", "input upper"),
    **dict.fromkeys(("clamp", "clamp_", "clip", "clip_"), _clamp),
    **dict.fromkeys(("clamp_min", "clamp_min_", "clamp_max", "clamp_max_"), _limit),
    "cdist": _cdist,
    "div": _into(COMPLEX_CALLS["div"]),
    **{name: _into(signature(name, "input other")) for name in ("maximum", "minimum")},
    **dict.fromkeys(("__get__:H", "__get__:mH", "adjoint"), _adjoint),
    "new_tensor": _new_tensor,
    "broadcast_tensors": _broadcast,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "searchsorted": _searchsorted,
    "embedding": _embedding,
}
