"""How sparse and how repetitive the weights of a graph are, and how many bytes each way of storing them takes.

Every figure in bytes is the length of a real encoding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deburr.ir.constants import Constant
from deburr.ir.graph import Graph
from deburr.ir.onnx_tensors import from_array
from deburr.passes.prune.encodings import indexed, masked, sparse_proto
from deburr.passes.prune.pattern import block_magnitudes, outside_pattern
from deburr.passes.prune.weight_tensors import WeightTensor, weight_tensors


@dataclass(frozen=True)
class Sparsity:
    """One weight. `structure` is `2:4`, `block 4x1` (output x input channels), `all zero`, `unstructured` or `-`.

    Bytes: `dense` and `sparse_initializer` as serialized protos, `deflate` of the dense bytes (what a zip archive holds),
    `bitmask` and `indices` as `store-weights` writes them at opset 21, without the nodes that unpack them; None where there
    is no such form.
    """

    name: str
    elements: int
    zeros: int
    structure: str
    distinct: int
    dense: int
    deflate: int
    sparse_initializer: int
    bitmask: int
    indices: int | None


def sparsity(graph: Graph) -> Iterator[Sparsity]:
    """Each weight of a convolution or matrix product that is a constant, in the order of the nodes."""
    for weight in weight_tensors(graph):
        array = weight.array
        proto, few = from_array(Constant.of(array)), indexed(array)
        yield Sparsity(
            name=weight.value.name,
            elements=array.size,
            zeros=int((array == 0).sum()),
            structure=structure(weight),
            distinct=len(np.unique(array.astype(np.float64))),
            dense=proto.ByteSize(),
            deflate=len(zlib.compress(proto.raw_data)),
            sparse_initializer=sparse_proto(array).ByteSize(),
            bitmask=masked(array).nbytes,
            indices=few.nbytes if few is not None else None,
        )


def structure(weight: WeightTensor) -> str:
    """The tightest regular pattern that the zeros of a weight fill."""
    kept = weight.array != 0
    if kept.all() or not kept.any():
        return "-" if kept.all() else "all zero"
    block = _block(kept, (weight.output_axis, weight.summed_axis))
    if max(block) > 1:
        return f"block {block[0]}x{block[1]}"
    lengths = [of for of in (4, 8, 16) if of <= kept.shape[weight.summed_axis]]
    for of in lengths:
        for most in range(1, of // 2 + 1):
            if not kept[outside_pattern(kept, weight.summed_axis, most, of)].any():
                return f"{most}:{of}"
    return "unstructured"


def _block(kept: npt.NDArray[np.bool_], axes: tuple[int, int]) -> tuple[int, int]:
    """The largest block, of powers of two, that is zero or nonzero as a whole everywhere."""
    found = (1, 1)
    for first in (0, 1):
        block = [1, 1]
        for side in (first, 1 - first):
            while block[side] * 2 <= kept.shape[axes[side]] and _is_whole(kept, axes, block, side):
                block[side] *= 2
        if block[0] * block[1] > found[0] * found[1]:
            found = (block[0], block[1])
    return found


def _is_whole(kept: npt.NDArray[np.bool_], axes: tuple[int, int], block: list[int], side: int) -> bool:
    """Whether blocks twice as long on one side are still zero or nonzero as a whole."""
    lengths = (block[0] * (2 if side == 0 else 1), block[1] * (2 if side == 1 else 1))
    shares = block_magnitudes(kept, axes, lengths)
    return bool(((shares == 0) | kept).all())
