"""The matrix of quantization: models on which quantizers go wrong, what must hold of the result, and how near it must come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from models import Builder, residual_block, samples
from onnx import numpy_helper

from .quantizing import ops, quantized, resnet

Model = onnx.ModelProto
IMAGE = ["n", 3, 8, 8]


@dataclass(frozen=True)
class Case:
    """A model, how it is quantized, and what must hold of the emitted model.

    :param least: SQNR in decibels that every output reaches on the calibration data.
    :param spoil: a number put into the calibration data, which must then be refused.
    :param peer: options of ONNX Runtime's quantize_static that ask it for the same.
    """

    make: Callable[[], Model]
    expects: str
    holds: Callable[[Model], bool]
    least: float = 25
    pipeline: str = "clean,quantize{rounding=nearest}"
    spoil: float | None = None
    peer: Mapping[str, object] = field(default_factory=dict)

    def spoiled(self, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.spoil is not None:
            next(iter(data.values())).flat[100] = self.spoil
        return data


def _between(op: str, *constants: float, opset: int = 17) -> Model:
    """Two convolutions with an activation function between them."""
    builder = Builder()
    bounds = [builder.constant(np.float32(bound)) for bound in constants]
    x = builder.node(op, [builder.conv("x", 3, 8), *bounds])
    builder.conv(x, 8, 4, output="y")
    return builder.model({"x": IMAGE}, {"y": ["n", 4, 8, 8]}, opset=opset)


def _old(opset: int) -> Model:
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    builder.gemm(builder.node("Flatten", [builder.node("GlobalAveragePool", [x])]), 8, 4, "y")
    return builder.model({"x": IMAGE}, {"y": ["n", 4]}, opset=opset)


def _stacked_matmul() -> Model:
    builder = Builder()
    builder.node("MatMul", [builder.node("MatMul", ["x", builder.weight(4, 16, 24)]), builder.weight(4, 24, 8)], "y")
    return builder.model({"x": [4, 6, 16]}, {"y": [4, 6, 8]})


def _tied() -> Model:
    """An encoder and its decoder share their weights along different axes."""
    builder = Builder()
    tied = builder.weight(16, 16)
    hidden = builder.node("Relu", [builder.node("MatMul", ["x", tied])])
    builder.node("Gemm", [hidden, tied, builder.weight(16)], "y", transB=1)
    return builder.model({"x": ["n", 16]}, {"y": ["n", 16]})


def _twice() -> Model:
    builder = Builder()
    shared = builder.weight(8, 8, 3, 3)
    x = builder.node("Conv", [builder.conv("x", 3, 8), shared], pads=[1] * 4)
    builder.node("Conv", [x, shared], "y", pads=[1] * 4)
    return builder.model({"x": IMAGE}, {"y": ["n", 8, 8, 8]})


def _shared_bias() -> Model:
    """One bias behind data of very different scales, so that it needs two sets of integers."""
    builder = Builder()
    bias = builder.weight(8, scale=1.0)
    x = builder.node("Conv", ["x", builder.weight(8, 3, 1, 1, scale=100.0), bias])
    builder.node("Conv", [x, builder.weight(8, 8, 1, 1, scale=0.001), bias], "y")
    return builder.model({"x": IMAGE}, {"y": ["n", 8, 8, 8]})


def _colliding_names() -> Model:
    """Tensors called as quantizers like to call theirs."""
    proto = residual_block()
    taken = ("x_QuantizeLinear_Output", "x_scale", "q", "d", "s_1", "w0_quantized")
    renamed = {node.output[0]: name for node, name in zip(proto.graph.node[:-1], taken, strict=False)}
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    return proto


def _dead_channel() -> Model:
    builder = Builder()
    weights, bias = builder.random.standard_normal((8, 3, 3, 3)).astype(np.float32), np.ones(8, np.float32)
    weights[2], weights[5] = 0, 1e-30
    x = builder.node("Conv", ["x", builder.constant(weights), builder.constant(bias)], pads=[1] * 4)
    builder.conv(x, 8, 4, output="y")
    return builder.model({"x": IMAGE}, {"y": ["n", 4, 8, 8]})


def _huge_bias() -> Model:
    """With the scale that suits the weights, the bias would need more than 32 bits."""
    builder = Builder()
    weights = builder.random.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weights[1] *= 1e-8
    bias = np.array([0.1, 1000, -0.2, 0.3], np.float32)
    builder.node("Conv", ["x", builder.constant(weights), builder.constant(bias)], "y")
    return builder.model({"x": IMAGE}, {"y": ["n", 4, 8, 8]})


def _transposed() -> Model:
    builder = Builder()
    x = builder.conv("x", 3, 8)
    builder.node("ConvTranspose", [x, builder.weight(8, 3, 3, 3, scale=0.2), builder.weight(6)], "y", group=2, strides=[2, 2])
    return builder.model({"x": IMAGE}, {"y": ["n", 6, 17, 17]})


def _wide_matmul() -> Model:
    builder = Builder()
    x = builder.node("Relu", [builder.node("MatMul", ["x", builder.weight(128, 64, scale=0.1)])])
    builder.node("MatMul", [x, builder.weight(64, 32, scale=0.1)], "y")
    return builder.model({"x": ["n", 128]}, {"y": ["n", 32]})


def _wide_convolutions() -> Model:
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 32, 40)])
    builder.conv(x, 40, 24, output="y")
    return builder.model({"x": ["n", 32, 6, 6]}, {"y": ["n", 24, 6, 6]})


def _decomposed_norm() -> Model:
    """LayerNorm, GELU and Softmax as exporters of old opsets write them, behind linear layers."""
    builder = Builder()
    x = builder.node("MatMul", ["x", builder.weight(16, 16)])
    centred = builder.node("Sub", [x, builder.node("ReduceMean", [x], axes=[-1])])
    square = builder.node("Pow", [centred, builder.constant(np.float32(2))])
    variance = builder.node("Add", [builder.node("ReduceMean", [square], axes=[-1]), builder.constant(np.float32(1e-5))])
    normed = builder.node("Div", [centred, builder.node("Sqrt", [variance])])
    x = builder.node("MatMul", [builder.node("Mul", [normed, builder.weight(16)]), builder.weight(16, 16)])
    erf = builder.node("Erf", [builder.node("Div", [x, builder.constant(np.float32(2**0.5))])])
    gelu = builder.node("Mul", [x, builder.node("Add", [erf, builder.constant(np.float32(1))])])
    builder.node("Softmax", [builder.node("MatMul", [gelu, builder.weight(16, 8)])], "y")
    return builder.model({"x": ["n", 5, 16]}, {"y": ["n", 5, 8]}, opset=13)


def _norm_behind_relu() -> Model:
    builder = Builder()
    builder.conv(builder.batch_norm(builder.node("Relu", [builder.conv("x", 3, 8)]), 8), 8, 4, output="y")
    return builder.model({"x": IMAGE}, {"y": ["n", 4, 8, 8]})


def _output_read_on() -> Model:
    builder = Builder()
    hidden = builder.conv("x", 3, 8, output="hidden")
    builder.conv(builder.node("Relu", [hidden]), 8, 4, output="y")
    return builder.model({"x": IMAGE}, {"hidden": ["n", 8, 8, 8], "y": ["n", 4, 8, 8]})


def _free_size() -> Model:
    proto = resnet()
    for axis, symbol in ((2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = symbol
    return proto


def _split_and_concat() -> Model:
    """The halves of a split go through branches and meet again."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    builder.nodes.append(onnx.helper.make_node("Split", [x, builder.constant(np.array([4, 4]))], ["left", "right"], axis=1))
    joined = builder.node("Concat", ["left", builder.node("Relu", [builder.conv("right", 4, 4)])], axis=1)
    builder.conv(joined, 8, 4, output="y")
    return builder.model({"x": IMAGE}, {"y": ["n", 4, 8, 8]})


def _constants(proto: Model) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _always(_: Model) -> bool:
    return True


def _never(_: Model) -> bool:
    return False


def _domains(proto: Model) -> set[str]:
    return {node.domain for node in proto.graph.node}


def _stored(proto: Model, kind: int, rank: int) -> int:
    return sum(tensor.data_type == kind and len(tensor.dims) == rank for tensor in proto.graph.initializer)


def _symbol(proto: Model, axis: int) -> str:
    return proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param


def _opset(proto: Model) -> int:
    return max(entry.version for entry in proto.opset_import if entry.domain == "")


def _scales_of(op: str, dims: int) -> Callable[[Model], bool]:
    """Whether the weights of all such nodes have scales of so many axes: none, or one along the channels."""

    def holds(proto: Model) -> bool:
        producer, constants = {node.output[0]: node for node in proto.graph.node}, _constants(proto)
        weights = [producer[node.input[1]] for node in proto.graph.node if node.op_type == op]
        return bool(weights) and all(constants[node.input[1]].ndim == dims for node in weights)

    return holds


def _has_blocks(op: str, block_size: int) -> Callable[[Model], bool]:
    """Whether the weights of all such nodes have scales in blocks, and their biases stay float."""

    def holds(proto: Model) -> bool:
        producer = {name: node for node in proto.graph.node for name in node.output}
        nodes = [node for node in proto.graph.node if node.op_type == op]
        blocks = [_attribute(producer[node.input[1]], "block_size") for node in nodes]
        return set(blocks) == {block_size} and not any(name in producer for node in nodes for name in node.input[2:])

    return holds


def _attribute(node: onnx.NodeProto, name: str) -> object:
    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), None)


def _float_only(*kinds: str) -> Callable[[Model], bool]:
    """Whether no operator of these kinds has a quantizer directly behind it."""

    def holds(proto: Model) -> bool:
        quantized_names = {node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
        return not any(quantized_names & set(node.output) for node in proto.graph.node if node.op_type in kinds)

    return holds


CASES: dict[str, Case] = {
    "relu, symmetric": Case(
        lambda: _between("Relu"), "Relu is kept", lambda proto: ops(proto)["Relu"] == 1,
        pipeline="clean,quantize{dialect=tensorrt,rounding=nearest}",
        peer={"activation_type": "QInt8", "ActivationSymmetric": True},
    ),
    "clip 1 to 6": Case(lambda: _between("Clip", 1, 6), "Clip is kept", lambda proto: ops(proto)["Clip"] == 1),
    "clip -3 to -1": Case(lambda: _between("Clip", -3, -1), "Clip is kept", lambda proto: ops(proto)["Clip"] == 1),
    "clip 0 to 6": Case(lambda: _between("Clip", 0, 6), "Clip falls away", lambda proto: not ops(proto)["Clip"]),
    **{
        f"opset {opset}": Case(
            lambda opset=opset: _old(opset), "raised to 13 or later", lambda proto: _opset(proto) >= 13,
        )
        for opset in (10, 11, 12)
    },
    "stack of matrices": Case(_stacked_matmul, "one scale for a stack", _scales_of("MatMul", 0)),
    "tied weights": Case(_tied, "cloned: an axis each", lambda proto: _stored(proto, onnx.TensorProto.INT8, 2) == 2),
    "weights used twice": Case(_twice, "stored once", lambda proto: _stored(proto, onnx.TensorProto.INT8, 4) == 2),
    "shared bias": Case(_shared_bias, "integers for each user", lambda proto: _stored(proto, onnx.TensorProto.INT32, 1) == 2),
    "colliding names": Case(_colliding_names, "all names stay apart", _always),
    "quantized before": Case(
        lambda: quantized(residual_block(), "clean,quantize{rounding=nearest}"), "nothing is quantized twice",
        lambda proto: ops(proto) == ops(quantized(residual_block(), "clean,quantize{rounding=nearest}")), pipeline="quantize",
    ),
    "infinity in data": Case(residual_block, "refused, by name", _never, spoil=np.inf),
    "not a number in data": Case(residual_block, "refused, by name", _never, spoil=np.nan),
    "dead channel": Case(_dead_channel, "finite, in range", _scales_of("Conv", 1)),
    "huge bias": Case(_huge_bias, "scale of weights raised", _scales_of("Conv", 1)),
    "transposed, groups": Case(_transposed, "scales along axis 1", _scales_of("ConvTranspose", 1)),
    "4-bit matmul": Case(
        _wide_matmul, "opset 21, ONNX operators", lambda proto: _opset(proto) >= 21 and _domains(proto) == {""}, least=18,
        pipeline="clean,quantize{bits=4}", peer={"weight_type": "QInt4"},
    ),
    "affine weights": Case(
        lambda: _between("Relu"), "u8 with zero points", lambda proto: _stored(proto, onnx.TensorProto.UINT8, 4) == 2,
        pipeline="clean,quantize{scheme=affine,rounding=nearest}", peer={"weight_type": "QUInt8"},
    ),
    "16-bit activations": Case(
        lambda: _between("Relu"), "u16, an int32 bias", lambda proto: _stored(proto, onnx.TensorProto.UINT16, 0) >= 2, least=35,
        pipeline="clean,quantize{activations=u16,rounding=nearest}", peer={"activation_type": "QUInt16"},
    ),
    "blocks, convolution": Case(
        _wide_convolutions, "scales in blocks, a float bias", _has_blocks("Conv", 16), least=25,
        pipeline="clean,quantize{block=16,rounding=nearest}",
    ),
    "blocks, 4-bit matmul": Case(
        _wide_matmul, "scales in blocks, opset 21", _has_blocks("MatMul", 32), least=19,
        pipeline="clean,quantize{bits=4,block=32}", peer={"weight_type": "QInt4"},
    ),
    "decomposed norm": Case(
        _decomposed_norm, "the decomposed stays float", _float_only("Pow", "Sqrt", "Erf", "Softmax", "Sub", "Div"),
    ),
    "norm behind relu": Case(_norm_behind_relu, "the norm stays float", lambda proto: ops(proto)["BatchNormalization"] == 1),
    "output read on": Case(
        _output_read_on, "both outputs in order", lambda proto: [info.name for info in proto.graph.output] == ["hidden", "y"],
    ),
    "dynamic batch": Case(resnet, "batch stays symbolic", lambda proto: _symbol(proto, 0) == "batch"),
    "free height and width": Case(
        _free_size, "sizes stay symbolic", lambda proto: _symbol(proto, 3) == "width",
    ),
    "split and concat": Case(_split_and_concat, "the scale passes Split", lambda proto: ops(proto)["Concat"] == 1),
}  # fmt: skip


def calibration(proto: Model, count: int = 40) -> dict[str, np.ndarray]:
    """Seeded normal data; symbolic sizes but the batch are 32, a fixed first axis stays."""
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    for info in sized.graph.input:
        for dim in info.type.tensor_type.shape.dim[1:]:
            if dim.dim_param:
                dim.dim_value = 32
    first = sized.graph.input[0].type.tensor_type.shape.dim[0]
    return samples(sized, first.dim_value or count)
