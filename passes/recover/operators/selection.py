"""Elements chosen by computed positions."""

from __future__ import annotations

import torch

from deburr.passes.recover.operators.table import Call, Tensor, function


@function("Gather")
def gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.ndim
    chosen = x.index_select(axis, _positions(indices, x.shape[axis], x).reshape(-1))
    return chosen.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@function("GatherElements")
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0)
    return torch.gather(x, axis, _positions(indices, x.shape[axis], x))


@function("GatherND")
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    batch, depth = call.get("batch_dims", 0), indices.shape[-1]
    flat, chosen = x.reshape(-1, *x.shape[batch:]), indices.reshape(-1, *indices.shape[batch:]).to(x.device)
    first = torch.arange(len(flat), device=x.device).reshape(-1, *[1] * (chosen.ndim - 2))
    found = flat[(first, *(chosen[..., index] for index in range(depth)))]
    return found.reshape((*indices.shape[:-1], *x.shape[batch + depth :]))


@function("OneHot")
def one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count = int(depth.reshape(()))
    axis = call.get("axis", -1) % (indices.ndim + 1)
    positions = torch.arange(count).reshape([-1 if index == axis else 1 for index in range(indices.ndim + 1)])
    wanted = indices.to(torch.int64)
    inside = (wanted >= -count) & (wanted < count)
    hot = ((wanted % count).unsqueeze(axis) == positions) & inside.unsqueeze(axis)
    return torch.where(hot, values[1], values[0])


def _positions(indices: Tensor, size: int, x: Tensor) -> Tensor:
    """Indices from 0 on; negative ones count from the end."""
    indices = indices.to(x.device, torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@function("TopK")
def top_k(call: Call, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Of equal elements the one that comes first, which `torch.topk` does not promise."""
    axis, wanted = call.get("axis", -1) % x.ndim, int(count.reshape(-1)[0])
    order = torch.argsort(x, dim=axis, descending=bool(call.get("largest", 1)), stable=True).narrow(axis, 0, wanted)
    return torch.gather(x, axis, order), order
