"""From a lowered model to one Relax module: a call per node, constants packed, equal workloads sharing one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import Array, TensorType
from deburr.ir.value import Value
from deburr.targets import foreign, groups, moving, plain
from deburr.targets.kernels import build, pack
from deburr.targets.kernels.workload import Conv2d, MatMul, Workload
from deburr.targets.kernels.workload_text import representative, to_text
from deburr.targets.lower import dialect
from deburr.targets.lower.workloads import workload
from deburr.targets.schedules.tile import ConvSchedule
from deburr.targets.target import Target

OPAQUE = 8  # relax's operator pattern for a function that is not to be fused


def emit(model: Model, target: Target, capture: Sequence[str] = (), schedules: Mapping[str, ConvSchedule] | None = None) -> Any:
    """A `tvm.IRModule` whose "main" takes the model's inputs in order and gives a tuple of its outputs.

    :param capture: names of values that come out behind the outputs, as they lie in memory.
    :param schedules: what tuning chose, by the text of the representative workload; the others have their default.
    :raises DeburrError: E402 naming an operator that neither a template nor a converter of TVM's takes.
    """
    return emit_all({"main": model}, target, capture, schedules)


def emit_all(
    models: Mapping[str, Model],
    target: Target,
    capture: Sequence[str] = (),
    schedules: Mapping[str, ConvSchedule] | None = None,
) -> Any:
    """As `emit`: a function for each model, by its name, all in one module. They share the kernels that are equal."""
    from tvm import relax

    builder = relax.BlockBuilder()
    functions: dict[object, tuple[Any, Any]] = {}
    for name, model in models.items():
        _Emitter(model, target, builder, schedules or {}, functions).emit(name, capture)
    return builder.get()


@dataclass
class _Emitter:
    model: Model
    target: Target
    builder: Any
    schedules: Mapping[str, ConvSchedule]
    functions: dict[object, tuple[Any, Any]]  # key -> (global, arguments)
    made: dict[Value, Any] = field(default_factory=dict)

    def emit(self, name: str, capture: Sequence[str]) -> None:
        from tvm import relax

        inputs = [value for value in self.model.graph.inputs if value.constant is None]
        parameters = [relax.Var(f"input{index}", _type(value)) for index, value in enumerate(inputs)]
        self.made = dict(zip(inputs, parameters, strict=True))
        results = [*self.model.graph.outputs, *(self.model.graph.value(name) for name in capture)]
        with self.builder.function(name, parameters):
            with self.builder.dataflow():
                self.emit_nodes()
                outputs = self.builder.emit_output(relax.Tuple([self.output(value) for value in results]))
            self.builder.emit_func_output(outputs)

    def emit_nodes(self) -> None:
        converters = foreign.Converters(self.model, self.builder)
        for node in self.model.graph.nodes:
            if node.domain == dialect.DOMAIN:
                self.made[node.output()] = self._own(node)
            else:
                converted = converters.convert(node, [self._operand(value) for value in node.inputs])
                self.made.update(
                    {value: made for value, made in zip(node.outputs, converted, strict=False) if value is not None}
                )

    def output(self, value: Value) -> Any:
        """What stands for a model output; a bare input or constant is copied, since Relax returns what it computed."""
        from tvm import relax

        made = self._operand(value)
        return made if value.producer is not None else self.builder.emit(relax.op.add(made, relax.op.zeros_like(made)))

    def _operand(self, value: Value | None) -> Any:
        from tvm import relax

        if value is None:
            return None
        if value not in self.made:
            assert value.constant is not None, value
            self.made[value] = relax.const(value.constant.array)
        return self.made[value]

    def _own(self, node: Node) -> Any:
        if dialect.is_plain(node):
            return plain.emit(self.builder, node, [self._operand(value) for value in node.inputs])
        if dialect.is_view(node):
            shape = node.output().static_shape
            assert shape is not None
            return self._shaped(self._operand(node.input(0)), shape)
        work = workload(node)
        if work is None:
            function = self._computed(node, *moving.expression(node))
            return self._call(node, function, [self._operand(value) for value in node.inputs])
        return self._call(node, self._kernel(work), self._arguments(node, work))

    def _kernel(self, work: Workload) -> tuple[Any, Any]:
        if work not in self.functions:
            kernel = build.kernel(work, self.target, self.schedules.get(to_text(representative(work))))
            self.functions[work] = self._add(kernel.function, groups.kind(work)), kernel.arguments
        return self.functions[work]

    def _computed(self, node: Node, define: Any, *extra: Any) -> tuple[Any, Any]:
        """A function without a template: a TE expression, scheduled by the default."""
        from tvm import te

        key = (node.op, *(str(value.type) for value in node.inputs if value), *extra)
        if key not in self.functions:
            tensors = define([_placeholder(value) for value in node.inputs if value], *extra)
            arguments = tuple(
                build.Argument(str(index), _ints(tensor.shape), str(tensor.dtype)) for index, tensor in enumerate(tensors)
            )
            function = te.create_prim_func(tensors)
            self.functions[key] = self._add(function, node.op, scheduled=False), arguments
        return self.functions[key]

    def _add(self, function: Any, name: str, *, scheduled: bool = True) -> Any:
        symbol = f"deburr_{name.lower()}_{len(self.functions)}"
        attributes = {"op_pattern": OPAQUE, "global_symbol": symbol, "tirx.is_scheduled": scheduled, "tirx.noalias": True}
        return self.builder.add_func(function.with_attrs(attributes), symbol)

    def _arguments(self, node: Node, work: Workload) -> list[Any]:
        from tvm import relax

        if isinstance(work, MatMul):
            return self._of_product(node, work)
        if not isinstance(work, Conv2d):
            return [self._operand(value) for value in node.inputs]
        weight, bias = _array(node, 1), _array(node, 2)
        scale = None if node.optional_input(3) is None else _array(node, 3)
        packed = pack.pack_conv2d(work, self.target, weight, bias, scale)
        constants = [relax.const(array) for array in packed.values()]
        residual = node.optional_input(4)
        return [self._operand(node.input(0)), *constants, *([] if residual is None else [self._operand(residual)])]

    def _of_product(self, node: Node, work: MatMul) -> list[Any]:
        from tvm import relax

        bias, scale, residual = (node.optional_input(index) for index in (2, 3, 4))
        packed = pack.pack_matmul(
            work, self.target, None if work.b else _array(node, 1), None if bias is None else bias.array,
            None if scale is None else scale.array,
        )  # fmt: skip
        weight = packed.pop("weight", None)
        second = self._operand(node.input(1)) if weight is None else relax.const(weight)
        constants = [relax.const(array) for array in packed.values()]
        return [self._operand(node.input(0)), second, *constants, *([] if residual is None else [self._operand(residual)])]

    def _call(self, node: Node, function: tuple[Any, Any], operands: list[Any]) -> Any:
        """Call a function; where a pixel stands for an image, the shapes differ by axes of size 1."""
        from tvm import relax

        handle, arguments = function
        given = [self._shaped(operand, argument.shape) for operand, argument in zip(operands, arguments, strict=False)]
        result = arguments[-1]
        made = self.builder.emit(relax.call_tir(handle, given, relax.TensorType(result.shape, result.dtype)))
        shape = node.output().static_shape
        assert shape is not None
        return self._shaped(made, shape)

    def _shaped(self, operand: Any, shape: tuple[int, ...]) -> Any:
        from tvm import relax

        if _ints(operand.ty.shape) == tuple(shape):
            return operand
        return self.builder.emit(relax.op.reshape(operand, shape))


def _placeholder(value: Value) -> Any:
    from tvm import te

    shape, dtype = value.static_shape, value.dtype
    assert shape is not None
    assert dtype is not None
    return te.placeholder(shape, str(dtype.numpy))


def _array(node: Node, index: int) -> Array:
    array = node.input(index).array
    assert array is not None
    return array


def _ints(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)


def _type(value: Value) -> Any:
    from tvm import relax

    if not isinstance(value.type, TensorType) or value.type.static_shape is None:
        raise DeburrError(
            "E402", "an input that is no tensor of fixed size", where=f"input {value.name!r}", why=str(value.type)
        )
    return relax.TensorType(value.type.static_shape, str(value.type.dtype.numpy))
