"""Cross-layer equalization: channels of one layer and of the next share their range.

Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.passes.clean.common import bypass, remove_if_unused
from deburr.passes.core import Context, Pass
from deburr.passes.linear.activations import activations
from deburr.passes.quantize.channel_scales import (
    READERS,
    Floats,
    Source,
    divide_source,
    find_source,
    multiply_reader,
    reader_ranges,
    reader_refusal,
    source_ranges,
)
from deburr.passes.quantize.placement import clamp_bounds

WORTH_IT, SETTLED = 1e-2, 1e-3  # of the logarithm of a factor
SWEEPS = 100


@dataclass(frozen=True, eq=False)
class _Pair:
    source: Source
    reader: Node


@dataclass(frozen=True)
class EqualizeLayers(Pass):
    """Divide the outputs of a layer by a factor for each channel and multiply the next layer's weights by it.

    The factor s = sqrt(r1 / r2) makes the ranges r1 of a channel's weights in the first layer and r2 in the second equal;
    pairs along a chain are gone through until they settle. Between the two may stand functions with f(s x) = s f(x): Relu,
    LeakyRelu, PRelu, pooling, Flatten. Outputs are the same up to rounding in float.

    :param clip: a Clip with an upper bound between two layers; `keep`: such pairs are left alone; `bounds`: it becomes
        Relu and Min (or Max and Min) with a bound for each channel, the same numbers in two operators that stay float in a
        quantized model; `relu`: it becomes Relu where no calibration sample reaches the bound (other data may).
    """

    name: ClassVar[str] = "equalize-layers"
    main_graph_only: ClassVar[bool] = True

    clip: Literal["keep", "bounds", "relu"] = "keep"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: with clip=relu, what `linear.activations` raises."""
        pairs = [pair for node in graph.nodes if (pair := _pair(node, context)) is not None]
        pairs = self._with_clips(pairs, context)
        for pair, factors in zip(pairs, _factors(pairs), strict=True):
            if np.abs(np.log(factors)).max(initial=0) < WORTH_IT:
                continue
            for clip in pair.source.clips:
                _replace_clip(clip, None if self.clip == "relu" else factors, last=pair.reader.op == "MatMul")
            divide_source(pair.source, factors)
            multiply_reader(pair.reader, np.repeat(factors, pair.source.repeats))

    def _with_clips(self, pairs: list[_Pair], context: Context) -> list[_Pair]:
        """The pairs whose Clips allow it; a Clip without an upper bound is a Relu."""
        bound = {clip: clamp_bounds(clip) for pair in pairs for clip in pair.source.clips}
        reached = _reached(bound, context) if self.clip == "relu" else set()
        kept = []
        for pair in pairs:
            reason = next(
                (reason for clip in pair.source.clips if (reason := self._refusal(clip, pair, bound[clip], reached))), ""
            )
            if reason:
                context.remark(pair.reader, f"not equalized with {pair.source.node!r}: {reason}", self._hint())
            else:
                kept.append(pair)
        return kept

    def _refusal(self, clip: Node, pair: _Pair, bounds: tuple[float, float] | None, reached: set[Node]) -> str:
        if bounds is None or clip.input(0).shape is None or pair.source.repeats > 1:
            return f"the bounds of {clip!r} are computed, or channels of unknown shape or behind a Flatten"
        if self.clip == "keep":
            return f"{clip!r} has a bound"
        if self.clip == "relu" and clip in reached:
            return f"the calibration data reaches a bound of {clip!r}"
        return ""

    def _hint(self) -> str:
        return "clip=bounds gives each channel a bound of its own" if self.clip != "bounds" else ""


def _pair(reader: Node, context: Context) -> _Pair | None:
    """The layer with the one in front of it, where the value between is read by it alone."""
    if reader.op not in READERS or reader.input(0).producer is None or reader_refusal(reader, 0):
        return None
    data = reader.input(0)
    source = f"{data.name} is used elsewhere as well" if len(data.uses) > 1 else find_source(data, reader)
    if isinstance(source, Source) and source.node.op not in READERS:
        source = f"{source.node!r} stands in front"
    if isinstance(source, Source) and len(reader_ranges(reader)) != len(source_ranges(source.node)) * source.repeats:
        source = "their channels do not match"
    if isinstance(source, str):
        context.remark(reader, f"not equalized with a layer before it: {source}")
        return None
    return _Pair(source, reader)


def _factors(pairs: list[_Pair]) -> list[Floats]:
    """What each source is to be divided by, [channels]. The weights stay as they are; only their magnitudes are followed."""
    magnitude = {node: _magnitudes(node) for pair in pairs for node in (pair.source.node, pair.reader)}
    totals = [np.ones(len(magnitude[pair.source.node][0])) for pair in pairs]
    for _ in range(SWEEPS):
        moved = 0.0
        for pair, total in zip(pairs, totals, strict=True):
            step = _step(pair, magnitude)
            np.multiply(total, step, out=total)
            moved = max(moved, float(np.abs(np.log(step)).max(initial=0)))
        if moved < SETTLED:
            break
    return totals


Magnitudes = tuple[Floats, int]


def _magnitudes(node: Node) -> Magnitudes:
    """The largest magnitude of every kernel, [outputs, inputs per group], and the number of groups."""
    assert node.input(1).array is not None
    array = np.abs(node.input(1).array.astype(np.float64))  # type: ignore[union-attr]
    if node.op == "Conv":
        return array.max(axis=tuple(range(2, array.ndim))), int(node.get("group", 1))
    return (array.copy() if node.op == "Gemm" and node.get("transB", 0) else array.T.copy()), 1


def _step(pair: _Pair, magnitude: dict[Node, Magnitudes]) -> Floats:
    """One equalization of a pair, which the magnitudes follow: the factors, 1 for a channel without weights."""
    first, (second, groups) = magnitude[pair.source.node][0], magnitude[pair.reader]
    blocks = second.reshape(groups, len(second) // groups, -1)  # a view
    given = first.max(axis=1)
    taken = blocks.max(axis=1).reshape(len(given), -1).max(axis=1)
    alive = (given > 0) & (taken > 0)
    step = np.sqrt(np.divide(given, taken, out=np.ones_like(given), where=alive))
    first /= step[:, None]
    blocks *= np.repeat(step, pair.source.repeats).reshape(groups, 1, -1)
    made: Floats = step
    return made


def _reached(bounds: dict[Node, tuple[float, float] | None], context: Context) -> set[Node]:
    """The Clips whose upper bound, or a lower one that is not zero, some sample reaches."""
    found: set[Node] = set()
    if not bounds:
        return found
    for batch in activations(list(dict.fromkeys(clip.input(0) for clip in bounds)), context, "looking at bounds"):
        for clip, bound in bounds.items():
            array = batch[clip.input(0)]
            if bound is not None and array.size and (bound[0] != 0 or float(array.max()) >= bound[1]):
                found.add(clip)
    return found


def _replace_clip(clip: Node, factors: Floats | None, *, last: bool) -> None:
    """Relu alone, or Relu (or Max) and Min with a bound for each channel, divided by `factors`."""
    bounds = clamp_bounds(clip)
    assert bounds is not None
    steps: list[tuple[str, Floats | None]] = []
    if bounds[0] == 0:
        steps.append(("Relu", None))
    elif np.isfinite(bounds[0]) and factors is not None:
        steps.append(("Max", bounds[0] / factors))
    if np.isfinite(bounds[1]) and factors is not None:
        steps.append(("Min", bounds[1] / factors))
    graph, value, old = clip.owner, clip.input(0), clip.output()
    trailing = 0 if last else len(value.shape or ()) - 2
    for op, bound in steps:
        constants = (
            [] if bound is None else [graph.add_constant(bound.reshape(-1, *[1] * trailing).astype(np.float32), "bound")]
        )
        value = graph.add_node(op, [value, *constants], before=clip).output()
        graph.set_type(value, old.type)
    if steps and bypass(old, value):
        name = old.name
        remove_if_unused(clip)
        graph.rename(value, name)
