"""What the consumers of channels read, as moments over calibration data, for every criterion that looks at activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deburr.ir.errors import DeburrError
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.groups import Channels
from deburr.passes.core import Context
from deburr.passes.linear.activations import activations
from deburr.passes.linear.layers import Layer, layer_of
from deburr.passes.linear.regression import Moments, some_rows

_ROWS = 32768


@dataclass(eq=False)
class Consumer:
    """A contraction, the class of each of its input channels (of one group: the groups lose the same positions), and the
    moments of the rows that it reads."""

    layer: Layer
    vector: Ids
    moments: Moments


def consumers(analysis: Channels, context: Context, criterion: str, *, grouped: bool = True) -> list[Consumer]:
    """The contractions that read removable channels, measured in one pass over the data.

    :param grouped: grouped convolutions too.
    :raises DeburrError: E206 without calibration data, which `criterion` needs.
    """
    if context.data is None:
        raise DeburrError("E206", f"the criterion {criterion} needs calibration data", hint="give --data FILE.npz")
    found = [one for one in _consumers(analysis) if grouped or one.layer.groups == 1]
    _measure(found, context)
    return found


def _consumers(analysis: Channels) -> Iterator[Consumer]:
    for slice_ in analysis.slices:
        vector = slice_.vector
        layer = layer_of(slice_.node)
        if slice_.role == "input" and vector is not None and isinstance(layer, Layer):
            yield Consumer(layer, vector, Moments())


def _measure(found: list[Consumer], context: Context) -> None:
    """At most `_ROWS` rows of each consumer, the same share of every batch."""
    assert context.data is not None
    random, count = context.random(), len(context.data)
    inputs = list(dict.fromkeys(consumer.layer.node.input(0) for consumer in found))
    for arrays in activations(inputs, context, "measure inputs") if inputs else ():
        for consumer in found:
            x = arrays[consumer.layer.node.input(0)]
            chosen = some_rows(consumer.layer.positions(x), _ROWS, (len(x), count), random)
            rows = consumer.layer.rows(x, chosen)
            consumer.moments.add(rows, rows[:, :, :1])
