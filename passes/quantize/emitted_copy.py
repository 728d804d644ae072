"""The quantized model before it is emitted: what the layers so far will really give, for whoever settles the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.passes.core import Context
from deburr.passes.linear.prefix import part
from deburr.passes.quantize.arithmetic import limits
from deburr.passes.quantize.insert_qdq import InsertQdq, raise_for_four_bits


@dataclass(frozen=True)
class EmittedCopy:
    """A copy of a model as `insert-qdq` would emit it now; `nodes` are the copies of the original's, by the original.

    Those that emission takes away (activation functions) are left out. Constants are shared.
    """

    model: Model
    nodes: dict[Node, Node]

    @classmethod
    def of(cls, model: Model, dialect: str) -> EmittedCopy | None:
        """None for a model whose main graph holds subgraphs."""
        graph = model.graph
        if any(node.subgraphs for node in graph.nodes):
            return None
        results = [value for value in dict.fromkeys(graph.outputs) if value.producer is not None]
        copy = part(model, list(graph.nodes), results, graph.inputs)
        for value in graph.values:
            if value.qparams is not None and (value.uses or value.producer is not None):
                copy.graph.set_qparams(copy.graph.value(value.name), value.qparams)
        for node, copied in zip(graph.nodes, copy.graph.nodes, strict=True):
            copied.metadata.update(node.metadata)
        raise_for_four_bits(copy)
        nodes = {
            node: cast(Node, copy.graph.value(output.name).producer)
            for node in graph.nodes
            if (output := next((one for one in node.outputs if one is not None), None)) is not None
        }
        InsertQdq(dialect).run(copy.graph, Context(copy))
        return cls(copy, {node: copied for node, copied in nodes.items() if copied.graph is not None})

    def set_bias(self, node: Node, bias: npt.NDArray[np.float64]) -> None:
        """Give the copy of a layer, which must have a bias, another one [channels]: integers where its own are."""
        copied = self.nodes[node]
        graph, dequantize = copied.owner, copied.input(2).producer
        if dequantize is None:
            copied.set_input(2, graph.add_constant(bias.astype(np.float32), "b"))
            return
        scale, (smallest, largest) = dequantize.input(1).array, limits(DType.INT32)
        integers = np.clip(np.rint(bias / np.asarray(scale, np.float64)), smallest, largest)
        graph.set_constant(dequantize.input(0), integers.astype(np.int32))
