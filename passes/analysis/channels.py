"""The dependency analysis: which channels of which tensors must be removed together, and which cannot be removed.

Every tensor gets an array of class ids over its elements; one topological walk applies one rule per class of operators: data
movement executes the operator on the ids, elementwise operators unite them, contractions give their output fresh ones. What
no rule knows freezes its classes and says why. Depends on shapes (`deburr.ir.inference`) and on constants being constants
(`fold-constants`). Related: DepGraph (Fang et al. 2023), which follows layers where this follows elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import facts, normal_domain
from deburr.ir.value import Value
from deburr.passes.analysis import (
    rules_contraction,
    rules_elementwise,
    rules_embedding,
    rules_matmul,
    rules_movement,
    rules_normalization,
    rules_recurrent,
)
from deburr.passes.analysis.box import loosen, settle
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.cost import cost
from deburr.passes.analysis.groups import Channels, Frozen, Group, Member, Slice
from deburr.passes.analysis.quantized import is_given_out, readers
from deburr.passes.analysis.sizes import shape, size_rule
from deburr.passes.analysis.walk import ChannelOptions, Walk
from deburr.passes.core import Context

Rule = Callable[[Node, Walk], None]

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Conv": rules_contraction.conv,
        "ConvTranspose": rules_contraction.conv_transpose,
        "Gemm": rules_matmul.gemm,
        "MatMul": rules_matmul.matmul,
        "Einsum": rules_matmul.einsum,
        **dict.fromkeys(("LSTM", "GRU", "RNN"), rules_recurrent.recurrent),
        **dict.fromkeys(("LayerNormalization", "RMSNormalization"), rules_normalization.layer_normalization),
        "GroupNormalization": rules_normalization.group_normalization,
        "BatchNormalization": rules_contraction.batch_normalization,
        "InstanceNormalization": rules_contraction.instance_normalization,
        "Softmax": rules_elementwise.softmax,
        "LogSoftmax": rules_elementwise.softmax,
        "TopK": rules_elementwise.top_k,
        "QuantizeLinear": rules_elementwise.quantize,
        "DequantizeLinear": rules_elementwise.quantize,
        "Resize": rules_elementwise.resize,
        "Upsample": rules_elementwise.resize,
        "Shape": shape,
        "Reshape": rules_movement.reshape,
        "Flatten": rules_movement.flatten,
        "Transpose": rules_movement.transpose,
        "Squeeze": rules_movement.squeeze,
        "Unsqueeze": rules_movement.unsqueeze,
        "Concat": rules_movement.concat,
        "Split": rules_movement.split,
        "Slice": rules_movement.slice_,
        "Gather": rules_embedding.gather,
        "Pad": rules_movement.pad,
        "Tile": rules_movement.tile,
        "Expand": rules_movement.expand,
        "DepthToSpace": rules_movement.depth_to_space,
        "SpaceToDepth": rules_movement.space_to_depth,
        **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), rules_elementwise.pool),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), rules_elementwise.pool),
        **dict.fromkeys(("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum"), rules_elementwise.reduce),
        **dict.fromkeys(("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"), rules_elementwise.reduce),
        **dict.fromkeys(("ReduceProd", "ReduceSum", "ReduceSumSquare"), rules_elementwise.reduce),
    }
)

_REASONS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("LRN", "MeanVarianceNormalization"), "its statistics run over the channels"),
        **dict.fromkeys(("If", "Loop", "Scan"), "it holds subgraphs"),
        # The surgery changes the size by itself, but what is computed from it may mean something else.
        "NonMaxSuppression": "it chooses among the boxes by their values",
        "Size": "its size is read at run time",
    }
)


@dataclass(frozen=True)
class ChannelAnalysis:
    """`channels` with options, to be asked for by `Context.analysis`: equal options give the same analysis."""

    options: ChannelOptions

    def __call__(self, graph: Graph, context: Context) -> Channels:
        return channels(graph, context, self.options)


def channels(graph: Graph, context: Context, options: ChannelOptions | None = None) -> Channels:
    """Analyse a graph whose values have types. Linear in the number of nodes and channels."""
    walk = Walk(graph, context.model.opset, options)
    for node in graph.nodes:
        walk.visit(node, size_rule(node, walk) or _rule(node, context))
    for value in graph.outputs:
        walk.freeze_sizes(value)
        walk.freeze(value, "it is an output of the graph")
    for value in tuple(walk.ids):
        if any(node.graph is not graph for node in value.consumers):
            walk.freeze(value, "a subgraph reads it")
            walk.freeze_sizes(value)
    _settle(walk)
    _tie_shared_constants(walk)
    return _result(walk, cost(graph, context).macs)


def _settle(walk: Walk) -> None:
    """Make every keep-set of classes a full box; slices along axes that lose nothing for that are none."""
    arrays = [*walk.ids.values(), *(slice_.ids for slice_ in walk.slices)]
    for ids in {id(array): array for array in arrays}.values():
        settle(walk.classes, ids)
    loose = [replace(slice_, ids=loosen(walk.classes, slice_.ids)) for slice_ in walk.slices]
    walk.slices = [
        now
        for now, before in zip(loose, walk.slices, strict=True)
        if now.ids.shape[now.ids_axis] == before.ids.shape[now.ids_axis]
    ]


def _rule(node: Node, context: Context) -> Rule | str:
    """The rule for a node, or why there is none."""
    domain = normal_domain(node.domain)
    known = facts(node, context.model.opset_imports.get(node.domain, context.model.opset))
    if domain or not known.known:
        return f"the operator {domain or 'ai.onnx'}.{node.op} is unknown"
    if known.is_elementwise:
        return rules_elementwise.unary if known.is_layout_agnostic else rules_elementwise.broadcast
    return RULES.get(node.op) or _REASONS.get(node.op, f"the analysis has no rule for {node.op}")


def _tie_shared_constants(walk: Walk) -> None:
    """A matrix that is read twice is sliced the same way by all readers; a vector is copied for each of them instead, unless
    they share what dequantizes it."""
    slices: dict[Value, list[Slice]] = {}
    for slice_ in walk.slices:
        slices.setdefault(slice_.constant, []).append(slice_)
    for constant, mine in slices.items():
        assert constant.constant is not None
        if is_given_out(constant):
            for slice_ in mine:
                _freeze_slice(walk, slice_, "it is an output of the graph")
        count = len(readers(constant))
        copied = constant.constant.size == max(constant.constant.shape) and count == len(constant.uses)
        if count == 1 or copied:
            continue
        for axis in dict.fromkeys(slice_.axis for slice_ in mine):
            _tie_axis(walk, count, [slice_ for slice_ in mine if slice_.axis == axis])


def _tie_axis(walk: Walk, count: int, slices: list[Slice]) -> None:
    vectors = [slice_.vector for slice_ in slices]
    if len({slice_.reader for slice_ in slices}) < count or any(vector is None for vector in vectors):
        for slice_ in slices:
            _freeze_slice(walk, slice_, "it is also read where its channels stay")
        return
    for vector in vectors[1:]:
        assert vector is not None
        assert vectors[0] is not None
        walk.classes.union(vectors[0], vector)


def _freeze_slice(walk: Walk, slice_: Slice, reason: str) -> None:
    walk.classes.freeze(slice_.ids)
    walk.frozen.append(Frozen(slice_.constant, slice_.axis, reason, slice_.node))


def _result(walk: Walk, macs: Mapping[Node, int]) -> Channels:
    cache: dict[int, Ids] = {}

    def roots(ids: Ids) -> Ids:
        if id(ids) not in cache:
            cache[id(ids)] = loosen(walk.classes, walk.classes.find(ids))
        return cache[id(ids)]

    ids = {value: roots(array) for value, array in walk.ids.items()}
    slices = [replace(slice_, ids=roots(slice_.ids)) for slice_ in walk.slices]
    every = np.unique(walk.classes.find(np.arange(len(walk.classes), dtype=np.int64)))
    always = np.zeros(len(walk.classes), np.bool_)
    always[every] = walk.classes.frozen(every)
    result = Channels(walk.graph, len(walk.classes), ids, slices, walk.regenerates, (), tuple(walk.frozen), always, walk.lossy)
    result.groups = _groups(walk, result, every[every > 0], macs)
    return result


def _groups(walk: Walk, result: Channels, every: Ids, macs: Mapping[Node, int]) -> tuple[Group, ...]:
    """Classes that stem from the same (merged) axes, with everything that they reach."""
    origin = np.zeros(result.class_count, np.int64)
    origin[every] = [walk.classes.origin(int(root)) for root in every]

    def touched(ids: Ids) -> list[int]:
        return [number for number in np.unique(origin[ids]).tolist() if number]

    members, nodes = _members(result, touched)
    spans = _spans(result, origin)
    by_number: dict[int, list[int]] = {}
    for root in every.tolist():
        by_number.setdefault(int(origin[root]), []).append(root)
    frozen: dict[int, list[Frozen]] = {}
    arrays = {value: [ids] for value, ids in result.ids.items()}
    for slice_ in result.slices:
        arrays.setdefault(slice_.constant, []).append(slice_.ids)
    for entry in result.frozen:
        for number in dict.fromkeys(number for ids in arrays.get(entry.value, ()) for number in touched(ids)):
            if result.always[by_number[number]].any():
                frozen.setdefault(number, []).append(entry)
    for number in members:
        if number not in frozen and result.always[by_number[number]].any():
            first = next(iter(members[number].values()))
            frozen[number] = [Frozen(first.value, first.axis, "some of its channels meet channels that stay", None)]
    return tuple(
        Group(
            number=index,
            classes=np.array(by_number[number], np.int64),
            members=tuple(members[number].values()),
            frozen=tuple(frozen.get(number, ())),
            macs=sum(macs.get(node, 0) for node in nodes.get(number, ())),
            span=spans.get(number, 1),
        )
        for index, number in enumerate(sorted(members))
    )


def _spans(result: Channels, origin: Ids) -> dict[int, int]:
    """By group: how many indices of a weight's axis share a class, as the common divisor over all weights and classes."""
    spans: dict[int, int] = {}
    for slice_ in result.slices:
        if slice_.role in ("input", "output"):
            roots, counts = np.unique(slice_.ids, return_counts=True)
            for number, count in zip(origin[roots].tolist(), counts.tolist(), strict=True):
                spans[number] = math.gcd(spans.get(number, 0), count)
    return spans


Members = dict[int, dict[tuple[Value, int], Member]]


def _members(result: Channels, touched: Callable[[Ids], list[int]]) -> tuple[Members, dict[int, dict[Node, None]]]:
    """By group: the axes of values and constants that shrink with it, and the nodes that read those constants."""
    members: Members = {}
    nodes: dict[int, dict[Node, None]] = {}
    for value, ids in result.ids.items():
        for number in touched(ids):
            for axis in (axis for axis, size in enumerate(ids.shape) if size > 1):
                members.setdefault(number, {})[value, axis] = Member(value, axis, ids.shape[axis])
    for slice_ in result.slices:
        for number in touched(slice_.ids):
            key = slice_.constant, slice_.axis
            members.setdefault(number, {})[key] = Member(*key, slice_.ids.shape[slice_.ids_axis])
            nodes.setdefault(number, {})[slice_.node] = None
    return members, nodes
