"""Helpers for the pruning tests: topologies, random keep-sets, and the masked original that a pruned model must equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from models import Builder

from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.groups import Channels, Slice
from deburr.passes.analysis.walk import ChannelOptions
from deburr.passes.core import Context
from deburr.passes.prune.surgery import remove_channels


def analyse(proto: onnx.ModelProto, options: ChannelOptions | None = None) -> tuple[Model, Context, Channels]:
    model = read(proto)
    context = Context(model)
    return model, context, channels(model.graph, context, options)


def random_keep(analysis: Channels, random: np.random.Generator) -> np.ndarray:
    """Each prunable group keeps a random share of its classes, at least one."""
    keep = analysis.keep_all()
    for group in analysis.prunable:
        kept = random.random(group.size) < random.uniform(0.1, 0.9)
        kept[random.integers(group.size)] = True
        keep[group.classes] = kept
    return keep


def mask_consumers(analysis: Channels, keep: np.ndarray) -> None:
    """Zero, in place, every slice of a weight that reads a class outside `keep`; shapes stay. Integers go to the zero point."""
    for slice_ in analysis.slices:
        if slice_.role == "input":
            array = np.array(slice_.constant.array)
            gone = np.flatnonzero(~keep[slice_.vector])
            place = (slice(None),) * slice_.axis + (gone,)
            array[place] = np.broadcast_to(_zero(slice_), array.shape)[place]
            slice_.constant.graph.set_constant(slice_.constant, array)


def _zero(slice_: Slice) -> np.ndarray:
    """What stands for zero in the weight, broadcastable to it."""
    node, shape = slice_.use.node, slice_.constant.array.shape
    zero = node.optional_input(2) if node.op == "DequantizeLinear" else None
    if zero is None or zero.array.size == 1:
        return np.zeros(()) if zero is None else zero.array.reshape(())
    along, block_size = node.get("axis", 1) % len(shape), node.get("block_size", 0)
    if block_size:
        return np.repeat(zero.array, block_size, along).take(range(shape[along]), along)
    return zero.array.reshape([-1 if axis == along else 1 for axis in range(len(shape))])


def run(model: Model, seed: int = 0, length: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = {
        value.name: random.standard_normal([dim if isinstance(dim, int) else length for dim in value.shape]).astype(np.float32)
        for value in model.graph.inputs
    }
    return Evaluator(model, threads=1).run(inputs)


def check_exact(
    proto: onnx.ModelProto, random: np.random.Generator, keep_sets: int = 20, length: int = 3,
    options: ChannelOptions | None = None,
) -> int:  # fmt: skip
    """Prune with random keep-sets; every result must equal the masked original. Returns how many classes went in all.

    :param length: of axes whose size is known at run time only.
    """
    removed, error = largest_error(proto, random, keep_sets, length, options)
    assert error <= 1e-5
    return removed


def largest_error(
    proto: onnx.ModelProto, random: np.random.Generator, keep_sets: int = 20, length: int = 3,
    options: ChannelOptions | None = None,
) -> tuple[int, float]:  # fmt: skip
    """How many classes random keep-sets removed, and the largest difference from the masked original, relative to the largest
    element of the output."""
    removed, error = 0, 0.0
    for _ in range(keep_sets):
        model, context, analysis = analyse(proto, options)
        keep, refused = analysis.repair(random_keep(analysis, random))
        assert not refused, [group.name for group in refused]
        removed += int((~keep).sum())
        remove_channels(analysis, keep, context)
        masked, _, again = analyse(proto, options)
        mask_consumers(again, keep)
        pruned = run(model, length=length)
        for name, expected in run(masked, length=length).items():
            assert pruned[name].shape == expected.shape
            error = max(error, float(np.abs(pruned[name] - expected).max() / (np.abs(expected).max() + 1e-6)))
            assert np.isfinite(error), name
    return removed, error


def image_model(build: Callable[[Builder, str], tuple[str, int]], channels: int = 3, size: int = 6) -> onnx.ModelProto:
    """`build` makes a tensor of images and says how many channels it has; a convolution to 5 channels reads it as "y".

    What `build` calls "also_…" is an output too.
    """
    builder = Builder()
    made, width = build(builder, "x")
    builder.conv(made, width, 5, 1, "y")
    also = [name for node in builder.nodes for name in node.output if name.startswith("also_")]
    proto = builder.model({"x": ["batch", channels, size, size]}, {"y": ["batch", 5, None, None]})
    types = {info.name: info for info in onnx.shape_inference.infer_shapes(proto).graph.value_info}
    proto.graph.output.extend(types[name] for name in also)
    return proto
