"""The IR as a differentiable torch module: the nodes run in order, each by its function in the table of operators.

Weights are parameters, each tied to a constant of the graph. Operators that torch does not compute run in ONNX Runtime where
no gradient has to pass through them, and are refused by name where one has to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.ops import normal_domain
from deburr.ir.types import Array
from deburr.ir.value import Value
from deburr.passes.clean.common import has_references
from deburr.passes.linear.prefix import ancestors, part
from deburr.passes.recover.operators.generation import tensor_of
from deburr.passes.recover.operators.table import Call, Function, Tensor, Uncovered, functions
from deburr.passes.recover.weights import trainable

Change = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class _Step:
    node: Node
    call: Call
    function: Function
    last: list[Value]  # read here for the last time


class TorchModel(torch.nn.Module):  # type: ignore[misc]
    """The main graph of a model. `model` is the IR that it stands for, which it changes only in `write_back`.

    :param on_read: what a node reads is changed by a function first: (node, input index) -> function. A value that several
        nodes read through the same function is changed once.
    :param on_value: what a node gives, or the model is given, is changed by a function before anything reads it.
    :raises DeburrError: E207 for an operator that no gradient passes through although something in front of it trains.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.values = trainable(model.graph)  # the constants that the parameters are tied to, in the same order
        self.weights = torch.nn.ParameterList([tensor_of(value.array) for value in self.values])
        self.on_read: dict[tuple[Node, int], Change] = {}
        self.on_value: dict[Value, Change] = {}
        needed = ancestors(model.graph.outputs)
        self._nodes = [node for node in model.graph.nodes if node in needed]
        self._trained = _trained(self._nodes, set(self.values))
        self._constants: dict[Value, str] = {}  # the float ones are buffers, so that they follow the module to a device
        self._integers: dict[Value, Tensor] = {}
        self._keep_constants()
        self._steps = [self._step(node) for node in self._nodes]
        self._note_last_readers()

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The names that the weights have in the model, and their parameters."""
        yield from ((value.name, weight) for value, weight in zip(self.values, self.weights, strict=True))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of the model, by name.

        :raises DeburrError: E302 where an input is missing, E207 for a form of an operator that cannot be trained.
        """
        held: dict[Value, Tensor] = dict(zip(self.values, self.weights, strict=True))
        held.update({value: getattr(self, name) for value, name in self._constants.items()})
        held.update(self._integers)
        for value in self.model.graph.inputs:
            if value.name in inputs:
                held[value] = self._changed(value, inputs[value.name])
            elif value.constant is not None:
                held[value] = tensor_of(value.constant.array)
            else:
                raise DeburrError("E302", f"no data for the input {value.name!r}")
        rounded: dict[tuple[Value, Change], Tensor] = {}
        for step in self._steps:
            self._run(step, held, rounded)
            for value in step.last:
                del held[value]
        return {value.name: held[value] for value in self.model.graph.outputs}

    @property
    def in_onnx_runtime(self) -> list[Node]:
        """The nodes that ONNX Runtime computes, without gradient. More may join at the first call."""
        return [step.node for step in self._steps if isinstance(step.function, _InOnnxRuntime)]

    def arrays(self) -> list[Array]:
        """The weights as they are, each a copy of its own."""
        return [weight.detach().cpu().contiguous().numpy().copy() for weight in self.weights]

    def write_back(self) -> None:
        """Give the constants of the model what the parameters hold."""
        for value, array in zip(self.values, self.arrays(), strict=True):
            value.graph.set_constant(value, array)

    def _keep_constants(self) -> None:
        for node in self._nodes:
            for value in node.inputs:
                if value is None or not value.is_constant or value in self.values or value in self._constants:
                    continue
                try:
                    tensor = tensor_of(value.array)
                except (Uncovered, TypeError):
                    continue  # text, or a type that torch has not: only ONNX Runtime reads it
                if tensor.is_floating_point():
                    self._constants[value] = f"constant_{len(self._constants)}"
                    self.register_buffer(self._constants[value], tensor, persistent=False)
                else:
                    self._integers[value] = tensor

    def _step(self, node: Node) -> _Step:
        function = functions().get(node.op) if not normal_domain(node.domain) and not has_references(node) else None
        call = Call(node, self.model.opset)
        return _Step(node, call, function or self._foreign(node, "torch does not compute it"), [])

    def _foreign(self, node: Node, reason: str) -> Function:
        """The node in ONNX Runtime, without gradient."""
        if any(value in self._trained for value in node.inputs):
            raise DeburrError(
                "E207", f"{node.op} cannot be trained through", where=f"node {node!r}",
                why=f"{reason}, and what stands in front of it trains",
                hint="train before insert-qdq" if node.op == "QuantizeLinear" else "cut the model in front of it",
            )  # fmt: skip
        if node.subgraphs:
            raise DeburrError("E207", f"{node.op} cannot be trained", where=f"node {node!r}", why="it holds a subgraph")
        return _InOnnxRuntime(self.model, node)

    def _note_last_readers(self) -> None:
        kept = {*self.values, *self._constants, *self._integers, *self.model.graph.outputs}
        seen: set[Value] = set()
        for step in reversed(self._steps):
            given = [value for value in (*step.node.inputs, *step.node.outputs) if value is not None and not value.is_constant]
            step.last = [value for value in dict.fromkeys(given) if value not in kept and value not in seen]
            seen.update(step.last)

    def _run(self, step: _Step, held: dict[Value, Tensor], rounded: dict[tuple[Value, Change], Tensor]) -> None:
        tensors = [self._read(step.node, index, held, rounded) for index in range(len(step.node.inputs))]
        try:
            results = step.function(step.call, *tensors)
        except Uncovered as reason:
            step.function = self._foreign(step.node, str(reason))
            results = step.function(step.call, *tensors)
        results = results if isinstance(results, tuple) else (results,)
        for value, tensor in zip(step.node.outputs, results, strict=False):
            if value is not None:
                held[value] = self._changed(value, tensor)

    def _read(
        self, node: Node, index: int, held: dict[Value, Tensor], rounded: dict[tuple[Value, Change], Tensor]
    ) -> Tensor | None:
        value, change = node.inputs[index], self.on_read.get((node, index))
        if value is None:
            return None
        if change is None:
            return held.get(value)
        if (value, change) not in rounded:
            rounded[value, change] = change(held[value])
        return rounded[value, change]

    def _changed(self, value: Value, tensor: Tensor) -> Tensor:
        change = self.on_value.get(value)
        return tensor if change is None else change(tensor)


class _InOnnxRuntime:
    """One node, run in ONNX Runtime on what torch gives it."""

    def __init__(self, model: Model, node: Node) -> None:
        outputs = [value for value in node.outputs if value is not None]
        self._evaluator = Evaluator(part(model, [node], outputs))
        self._names = [value.name if value is not None else "" for value in node.inputs]
        self._outputs = [value.name if value is not None else "" for value in node.outputs]

    def __call__(self, call: Call, *tensors: Tensor | None) -> Any:
        given = dict(zip(self._names, tensors, strict=True))
        inputs = {
            name: tensor.detach().cpu().numpy() for name, tensor in given.items()
            if tensor is not None and name in self._evaluator.inputs
        }  # fmt: skip
        results = self._evaluator.run(inputs)
        return tuple(tensor_of(results[name]) if name else None for name in self._outputs)


def _trained(nodes: Sequence[Node], weights: set[Value]) -> set[Value]:
    """The weights, and every float value that depends on one."""
    found: set[Value] = set(weights)
    for node in nodes:
        if any(value in found for value in node.inputs):
            found.update(value for value in node.outputs if value is not None and _is_float(value))
    return found


def _is_float(value: Value) -> bool:
    return value.dtype is None or value.dtype.is_float
