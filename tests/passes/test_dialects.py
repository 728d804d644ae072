"""What each back end documents about the placement of Q/DQ, held on emitted models; and that all of them mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder, concat_branches, samples
from onnx.reference import ReferenceEvaluator

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto
from deburr.passes.quantize.dialects import DIALECTS

from .matrix import FROZEN, PRUNABLE, case
from .quantizing import mobilenet, ops, optimized, outputs, quality, quantized, resnet, sqnr

MODELS = {"resnet": resnet, "mobilenet": mobilenet, "concat": concat_branches}
WEIGHTED = ("Conv", "Gemm", "MatMul")


class Emitted:
    """An emitted model with what its tests ask of it."""

    def __init__(self, proto: onnx.ModelProto, dialect: str, options: str = "") -> None:
        self.proto = quantized(proto, f"clean,quantize{{dialect={dialect},rounding=nearest{options}}}")
        graph = self.proto.graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.inputs, self.outputs = {info.name for info in graph.input}, {info.name for info in graph.output}

    def made_by(self, name: str) -> str:
        """The operator that gives a tensor, or what else it is."""
        return self.producer[name].op_type if name in self.producer else "constant" if name in self.constants else "input"

    def readers(self, node: onnx.NodeProto) -> list[str]:
        return [other.op_type for other in self.nodes if set(other.input) & set(node.output)]

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in kinds]

    @property
    def activations(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scale and zero point of every QuantizeLinear."""
        return [(self.constants[node.input[1]], self.constants[node.input[2]]) for node in self.of("QuantizeLinear")]


def scale_behind(model: Emitted, node: onnx.NodeProto) -> float:
    (quantizer,) = (other for other in model.of("QuantizeLinear") if other.input[0] == node.output[0])
    return float(model.constants[quantizer.input[1]])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_quality_and_meaning(name: str, dialect: str) -> None:
    """The ONNX reference evaluator and ONNX Runtime's integer kernels read the same model out of it."""
    if dialect == "ort":
        proto, result = MODELS[name](), quantized(MODELS[name](), "clean,quantize{rounding=nearest}")
    else:
        proto, result = MODELS[name](), Emitted(MODELS[name](), dialect).proto
    assert quality(proto, result) > 28
    data = samples(proto, 2)
    plain, fast = outputs(result, data)[0], outputs(result, data, optimize=True)[0]
    assert sqnr(plain, fast) > 35
    raised = onnx.version_converter.convert_version(result, 19)  # onnx evaluates DequantizeLinear from there on
    assert sqnr(plain, np.asarray(ReferenceEvaluator(raised).run(None, data)[0])) > 35


@pytest.mark.parametrize("name", MODELS)
class TestTensorRt:
    """NVIDIA, TensorRT documentation, "Explicit Quantization": recommendations for the placement of Q/DQ layers."""

    def test_symmetric_signed_activations_per_tensor(self, name: str) -> None:
        for scale, zero_point in Emitted(MODELS[name](), "tensorrt").activations:
            assert scale.shape == ()
            assert zero_point.dtype == np.int8
            assert zero_point == 0

    def test_all_inputs_of_weighted_layers_are_quantized_and_biases_are_float(self, name: str) -> None:
        model = Emitted(MODELS[name](), "tensorrt")
        for node in model.of(*WEIGHTED):
            assert [model.made_by(source) for source in node.input[:2]] == ["DequantizeLinear"] * 2
            weights = model.producer[node.input[1]]
            assert model.constants[weights.input[0]].dtype == np.int8
            assert not model.constants[weights.input[2]].any()
            assert model.constants[weights.input[1]].ndim == 1
            assert all(model.constants[bias].dtype == np.float32 for bias in node.input[2:])

    def test_one_addend_of_a_skip_connection_is_quantized_and_the_other_comes_straight_from_a_convolution(
        self, name: str
    ) -> None:
        model = Emitted(MODELS[name](), "tensorrt")
        for node in model.of("Add"):
            assert sorted(model.made_by(source) for source in node.input) == ["Conv", "DequantizeLinear"]

    def test_quantizers_stand_only_in_front_of_integer_layers(self, name: str) -> None:
        model = Emitted(MODELS[name](), "tensorrt")
        moving = {"MaxPool", "Flatten"}
        for node in model.of("DequantizeLinear"):
            assert set(model.readers(node)) <= {*WEIGHTED, *moving, "Add", "Concat", "GlobalAveragePool"}
        assert all(model.made_by(output) in WEIGHTED for output in model.outputs)

    def test_activation_functions_stay(self, name: str) -> None:
        before = ops(MODELS[name]())
        after = ops(Emitted(MODELS[name](), "tensorrt").proto)
        assert (after["Relu"], after["Clip"]) == (before["Relu"], before["Clip"])


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino"])
def test_what_meets_at_concat_has_one_scale(dialect: str) -> None:
    """Nested and overlapping: the third tensor is read by both."""
    builder = Builder()
    parts = [builder.node("Relu", [builder.conv("x", 3, 4)]) for _ in range(3)]
    inner = builder.node("Concat", parts, axis=1)
    outer = builder.node("Concat", [inner, builder.conv("x", 3, 5)], axis=1)
    other = builder.node("Concat", [parts[2], builder.conv("x", 3, 3)], axis=1)
    builder.conv(outer, 17, 4, output="y")
    builder.conv(other, 7, 4, output="z")
    proto = builder.model({"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6], "z": ["n", 4, 6, 6]})
    model = Emitted(proto, dialect)
    concats = model.of("Concat")
    assert len({scale_behind(model, node) for node in concats}) == 1
    for source in {source for node in concats for source in node.input}:
        assert model.constants[model.producer[source].input[1]] == pytest.approx(scale_behind(model, concats[0]), rel=0)
    assert quality(proto, model.proto) > 28


@pytest.mark.parametrize("dialect", ["ort", "qnn"])
def test_elsewhere_concat_keeps_the_scales_apart(dialect: str) -> None:
    model = Emitted(concat_branches(), dialect)
    (node,) = model.of("Concat")
    assert len({float(model.constants[model.producer[source].input[1]]) for source in node.input}) == 2


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino"])
def test_outputs_of_weighted_layers_in_front_of_float_operators_stay_float(dialect: str) -> None:
    builder = Builder()
    hidden = builder.node("Relu", [builder.conv("x", 3, 8)])
    builder.node("Softmax", [builder.node("Transpose", [builder.conv(hidden, 8, 4)], perm=[0, 2, 3, 1])], "y")
    model = Emitted(builder.model({"x": ["n", 3, 6, 6]}, {"y": ["n", 6, 6, 4]}), dialect)
    assert model.made_by(model.of("Transpose")[0].input[0]) == "Conv"
    assert len(model.of("QuantizeLinear")) == 2


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino", "qnn"])
def test_products_of_activations_read_integers(dialect: str) -> None:
    """Attention: its two products of activations too, with softmax in float between them."""
    builder = Builder()
    query, key, value = (builder.node("MatMul", ["x", builder.weight(16, 16, scale=0.25)]) for _ in range(3))
    scores = builder.node("MatMul", [query, builder.node("Transpose", [key], perm=[0, 2, 1])])
    mixed = builder.node("MatMul", [builder.node("Softmax", [scores], axis=-1), value])
    builder.node("MatMul", [mixed, builder.weight(16, 16, scale=0.25)], "y")
    proto = builder.model({"x": ["n", 6, 16]}, {"y": ["n", 6, 16]})
    model = Emitted(proto, dialect)
    assert {model.made_by(source) for node in model.of("MatMul") for source in node.input} == {"DequantizeLinear"}
    assert model.made_by(model.of("Softmax")[0].input[0]) == ("MatMul" if dialect != "qnn" else "DequantizeLinear")
    assert quality(proto, model.proto) > 25


class TestOpenVino:
    """OpenVINO documentation, "Low Precision Transformations"."""

    @pytest.mark.parametrize("name", MODELS)
    def test_inputs_of_integer_operators_are_quantized_and_nothing_else(self, name: str) -> None:
        model = Emitted(MODELS[name](), "openvino")
        assert {zero_point.dtype for _, zero_point in model.activations} == {np.dtype(np.uint8)}
        assert all(model.made_by(output) in WEIGHTED for output in model.outputs)
        for node in model.of(*WEIGHTED):
            assert [model.made_by(source) for source in node.input[:2]] == ["DequantizeLinear"] * 2
            assert all(model.made_by(bias) == "constant" for bias in node.input[2:])
        assert not model.of("Relu", "Clip")


@pytest.mark.parametrize("dialect", ["openvino", "ort"])
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_openvino_computes_every_layer_on_integers(name: str, dialect: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    proto, result = MODELS[name](), Emitted(MODELS[name](), dialect).proto
    onnx.save(result, tmp_path / "model.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU")
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    layers = [fact["runtimePrecision"] for fact in facts if fact["layerType"] in ("Convolution", "FullyConnected")]
    assert len(layers) == sum(ops(proto)[op] for op in WEIGHTED)
    assert set(layers) <= {"u8", "i8"}
    data = samples(proto, 4)
    assert sqnr(outputs(proto, data)[0], compiled(data)[0]) > 20


class TestQnn:
    """ONNX Runtime documentation, "QNN Execution Provider", and its get_qnn_qdq_config."""

    @pytest.mark.parametrize("name", MODELS)
    def test_every_input_and_output_is_quantized(self, name: str) -> None:
        model = Emitted(MODELS[name](), "qnn")
        for node in model.nodes:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                assert {model.made_by(source) for source in node.input} == {"DequantizeLinear"}
                assert model.readers(node) == ["QuantizeLinear"]
        assert all(model.made_by(output) == "DequantizeLinear" for output in model.outputs)

    def test_integers_begin_at_the_input_and_constants_are_integers(self) -> None:
        builder = Builder()
        x = builder.node("Sub", ["x", builder.constant(np.full((1, 3, 1, 1), 0.5, np.float32))])
        x = builder.node("Sigmoid", [builder.conv(builder.node("Mul", [x, builder.weight(1, 3, 1, 1)]), 3, 8)])
        builder.gemm(builder.node("Flatten", [builder.node("GlobalAveragePool", [x])]), 8, 4, "y")
        proto = builder.model({"x": ["n", 3, 6, 6]}, {"y": ["n", 4]})
        model = Emitted(proto, "qnn")
        assert {model.made_by(source) for node in model.of("Sub", "Mul") for source in node.input} == {"DequantizeLinear"}
        assert all(model.readers(node) == ["QuantizeLinear"] for node in model.of("Sub", "Mul", "Sigmoid"))
        assert quality(proto, model.proto) > 25

    def test_scales_per_channel_for_convolutions_only(self) -> None:
        model = Emitted(resnet(), "qnn")
        assert {model.constants[model.producer[node.input[1]].input[1]].ndim for node in model.of("Conv")} == {1}
        assert {model.constants[model.producer[node.input[1]].input[1]].ndim for node in model.of("Gemm")} == {0}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_second_order_rounding(dialect: str) -> None:
    assert quality(concat_branches(), quantized(concat_branches(), f"clean,quantize{{dialect={dialect}}}")) > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("dialect=tensorrt,activations=u8", "error[E203]: the dialect tensorrt has no u8 activations, calibrate"),
        ("dialect=tensort", "error[E203]: no dialect 'tensort'; there are ort, tensorrt, openvino, qnn"),
    ],
)
def test_what_a_dialect_does_not_have(options: str, message: str) -> None:
    with pytest.raises(DeburrError) as caught:
        optimized(mobilenet(), f"quantize{{{options}}}")
    assert str(caught.value) == message


@pytest.mark.parametrize("name", sorted({*PRUNABLE, *FROZEN}))
def test_every_wiring_of_the_pruning_matrix(name: str) -> None:
    """Valid, near the float model, and left alone by a second run, in every dialect."""
    proto = case(name)
    data = samples(proto, 8)
    for dialect in DIALECTS:
        pipeline = f"clean,quantize{{dialect={dialect},rounding=nearest,observer=minmax}}"
        context = optimized(proto, pipeline, data=data)
        result = to_proto(context.model)
        onnx.checker.check_model(result, full_check=True)
        for wanted, given in zip(outputs(proto, data), outputs(result, data), strict=True):
            # Indices of chosen boxes are nearly all the same, and how far apart the others are means nothing.
            if name == "choice_of_boxes" and np.array_equal(wanted, np.rint(wanted)):
                assert np.mean(wanted == given) > 0.9
            else:
                assert sqnr(wanted, given) > 18
        assert ops(optimized(result, f"quantize{{dialect={dialect}}}", data=data).model) == ops(context.model)
