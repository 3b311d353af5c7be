"""nnU-Net's losses in plain torch, in the order of its own code, so that every tensor lives as long.

Source: nnunetv2 2.8.1, training/loss/{compound_losses,dice,robust_ce_loss}.py.
"""

from __future__ import annotations

import torch
from torch.nn import functional

SMOOTH = 1e-5


def soft_dice(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, *, regions: bool, batch_dice: bool) -> torch.Tensor:
    """``MemoryEfficientSoftDiceLoss``: the negative mean score over classes (and samples)."""
    x = torch.sigmoid(x) if regions else torch.softmax(x, 1)
    axes = tuple(range(2, x.ndim))
    with torch.no_grad():
        if x.shape == y.shape:
            planes = y.to(torch.float32)
        else:
            planes = torch.zeros(x.shape, dtype=torch.float32)
            planes.scatter_(1, y.long(), 1)
        if not regions:
            planes = planes[:, 1:]
        expected = (planes if mask is None else planes * mask).sum(axes, dtype=torch.float32)
    if not regions:
        x = x[:, 1:]
    if mask is None:
        overlap = (x * planes).sum(axes, dtype=torch.float32)
        predicted = x.sum(axes, dtype=torch.float32)
    else:
        overlap = (x * planes * mask).sum(axes, dtype=torch.float32)
        predicted = (x * mask).sum(axes, dtype=torch.float32)
    if batch_dice:
        overlap = overlap.sum(0, dtype=torch.float32)
        predicted = predicted.sum(0, dtype=torch.float32)
        expected = expected.sum(0, dtype=torch.float32)
    score = (2 * overlap + SMOOTH) / (expected + predicted + SMOOTH).clamp_min(1e-8)
    score = score.mean()
    return -score


def dice_and_cross_entropy(x: torch.Tensor, target: torch.Tensor, *, batch_dice: bool, ignore_label: int | None) -> torch.Tensor:
    """``DC_and_CE_loss``."""
    if ignore_label is None:
        labels, mask, counted = target, None, None
        ignored = -100
    else:
        mask = target != ignore_label
        labels = torch.where(mask, target, 0)
        counted = mask.sum()
        ignored = ignore_label
    dice = soft_dice(x, labels, mask, regions=False, batch_dice=batch_dice)
    if counted is None or counted > 0:
        entropy = functional.cross_entropy(x, target[:, 0].long(), ignore_index=ignored)
    return 1 * entropy + 1 * dice


def dice_and_binary_cross_entropy(x: torch.Tensor, target: torch.Tensor, *, batch_dice: bool) -> torch.Tensor:
    """``DC_and_BCE_loss``."""
    dice = soft_dice(x, target, None, regions=True, batch_dice=batch_dice)
    regions = target.float()
    entropy = functional.binary_cross_entropy_with_logits(x, regions)
    return 1 * entropy + 1 * dice
