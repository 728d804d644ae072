import numpy as np
import onnx
import pytest
from models import Builder
from onnx import helper

from deburr.ir.model import Model
from deburr.ir.onnx_reader import read

from .rewriting import assert_same, check, run, unchanged

PASS = "fold-batch-norm"


def _norm(builder: Builder, source: str, channels: int, output: str = "y", **attributes) -> str:
    """BatchNormalization with attributes."""
    scale, variance = (builder.constant(builder.random.uniform(0.5, 1.5, channels).astype(np.float32)) for _ in range(2))
    shift, mean = builder.weight(channels, scale=0.3), builder.weight(channels, scale=0.3)
    return builder.node("BatchNormalization", [source, scale, shift, mean, variance], output, **attributes)


def _folds(proto: onnx.ModelProto) -> Model:
    changed = read(proto)
    assert run(changed, PASS) == []
    assert "BatchNormalization" not in [node.op for node in changed.graph.nodes]
    assert_same(read(proto), changed)
    return changed


def test_by_hand():
    """scale / sqrt(variance + epsilon) is 3 / sqrt(3 + 1) = 1.5; 0.5 - 1.5 * 2 + 1.5 * 1 = -1."""
    check(
        PASS,
        """input %x: float[2, 1, 4, 4]
        const %w = float[1, 1, 1, 1] [2.0]
        const %b = float[1] [1.0]
        const %scale = float[1] [3.0]
        const %shift = float[1] [0.5]
        const %mean = float[1] [2.0]
        const %variance = float[1] [3.0]
        %c = Conv(%x, %w, %b)
        %y: float[2, 1, 4, 4] = BatchNormalization(%c, %scale, %shift, %mean, %variance) {epsilon=1.0}
        return %y""",
        """input %x: float[2, 1, 4, 4]
        const %w = float[1, 1, 1, 1] [3.0]
        const %b = float[1] [-1.0]
        const %scale = float[1] [3.0]
        const %shift = float[1] [0.5]
        const %mean = float[1] [2.0]
        const %variance = float[1] [3.0]
        %y: float[2, 1, 4, 4] = Conv(%x, %w, %b)
        return %y""",
    )


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("epsilon", [1e-5, 0.3])
def test_convolutions(group, bias, epsilon):
    builder = Builder()
    weights = [builder.weight(8, 4 // group, 3, 3), *([builder.weight(8)] if bias else [])]
    _norm(builder, builder.node("Conv", ["x", *weights], group=group), 8, epsilon=epsilon)
    _folds(builder.model({"x": ["batch", 4, 6, 6]}, {"y": ["batch", 8, 4, 4]}))


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolutions(group, bias):
    builder = Builder()
    weights = [builder.weight(4, 12 // group, 3, 3), *([builder.weight(12)] if bias else [])]
    _norm(builder, builder.node("ConvTranspose", ["x", *weights], group=group, strides=[2, 2]), 12)
    _folds(builder.model({"x": ["batch", 4, 3, 3]}, {"y": ["batch", 12, 7, 7]}))


def test_one_dimension():
    builder = Builder()
    _norm(builder, builder.node("Conv", ["x", builder.weight(5, 3, 3)]), 5)
    _folds(builder.model({"x": ["batch", 3, 9]}, {"y": ["batch", 5, 7]}))


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (6,), (1, 6), (1, 1)])
def test_gemm(trans_b, bias):
    builder = Builder()
    weights = [builder.weight(6, 4) if trans_b else builder.weight(4, 6), *([] if bias is None else [builder.weight(*bias)])]
    _norm(builder, builder.node("Gemm", ["x", *weights], transB=trans_b, alpha=0.5, beta=3.0), 6)
    _folds(builder.model({"x": ["batch", 4]}, {"y": ["batch", 6]}))


def test_a_bias_with_a_row_per_sample():
    builder = Builder()
    _norm(builder, builder.node("Gemm", ["x", builder.weight(4, 6), builder.weight(2, 6)]), 6)
    changed = read(builder.model({"x": [2, 4]}, {"y": [2, 6]}))
    [remark] = run(changed, PASS)
    assert remark.endswith("the bias of Gemm 'Gemm_0' varies over the batch")


def test_a_shared_weight_is_cloned():
    builder = Builder()
    weight = builder.weight(4, 4, 1, 1)
    _norm(builder, builder.node("Conv", ["x", weight]), 4)
    builder.node("Conv", ["x", weight], "z")
    changed = _folds(builder.model({"x": ["batch", 4, 3, 3]}, {"y": ["batch", 4, 3, 3], "z": ["batch", 4, 3, 3]}))
    first, second = changed.graph.nodes
    assert first.input(1) is not second.input(1)
    assert not first.input(1).constant.equals(second.input(1).constant)


def test_two_in_a_row():
    builder = Builder()
    first = _norm(builder, builder.conv("x", 3, 4), 4, "middle")
    _norm(builder, first, 4)
    changed = _folds(builder.model({"x": ["batch", 3, 5, 5]}, {"y": ["batch", 4, 5, 5]}))
    assert [node.op for node in changed.graph.nodes] == ["Conv"]


def test_small_variances_are_folded_in_double_precision():
    builder = Builder()
    conv = builder.node("Conv", ["x", builder.weight(4, 4, 1, 1)])
    constants = [np.full(4, value, np.float32) for value in (1e-3, 2.0, 1e-3, 1e-12)]
    builder.node("BatchNormalization", [conv, *map(builder.constant, constants)], "y", epsilon=1e-10)
    _folds(builder.model({"x": ["batch", 4, 3, 3]}, {"y": ["batch", 4, 3, 3]}))


HEAD = """input %x: float[2, 2, 3, 3]
const %w = float[2, 2, 1, 1] [1.0, 2.0, 3.0, 4.0]
const %scale = float[2] [1.0, 2.0]
const %shift = float[2] [0.5, 1.0]
const %mean = float[2] [0.0, 1.0]
const %variance = float[2] [1.0, 4.0]
"""
NORM = "BatchNormalization(%c, %scale, %shift, %mean, %variance)"
TYPE = "float[2, 2, 3, 3]"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            f"%c = Conv(%x, %w)\n %y: {TYPE} = {NORM}\n %z: {TYPE} = Relu(%c)\n return %y, %z",
            "its input c is used elsewhere as well",
        ),
        (f"%c: {TYPE} = Conv(%x, %w)\n %y: {TYPE} = {NORM}\n return %y, %c", "its input c is used elsewhere as well"),
        (
            f"%c = Relu(%x)\n %y: {TYPE} = {NORM}\n return %y",
            "its input c does not come from a Conv, ConvTranspose or Gemm",
        ),
        (f"%v = Relu(%w)\n %c = Conv(%x, %v)\n %y: {TYPE} = {NORM}\n return %y", "v is not constant"),
    ],
)
def test_stays(body, reason):
    unchanged(PASS, HEAD + body, f"{PASS}: BatchNormalization -> y: {reason}")


def test_in_training_mode_it_stays():
    unchanged(
        PASS,
        HEAD + f"%c = Conv(%x, %w)\n %y: {TYPE}, %m, %v = {NORM} {{training_mode=1}}\n return %y",
        f"{PASS}: BatchNormalization -> y, m, v: it runs in training mode",
    )


def test_a_variance_of_minus_epsilon_stays():
    text = HEAD.replace("%variance = float[2] [1.0, 4.0]", "%variance = float[2] [-1.0, 4.0]")
    unchanged(
        PASS,
        text + f"%c = Conv(%x, %w)\n %y: {TYPE} = {NORM} {{epsilon=1.0}}\n return %y",
        f"{PASS}: BatchNormalization -> y: the folded weights of Conv -> c would not be finite in float",
    )


def test_half_precision_that_would_overflow_stays():
    dims, dtype = [1, 1, 2, 2], onnx.TensorProto.FLOAT16
    arrays = {"w": np.full((1, 1, 1, 1), 1000, np.float16)}
    arrays |= {name: np.array([value], np.float16) for name, value in {"s": 1000, "b": 0, "m": 0, "v": 1}.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"]),
        ],
        "half",
        [helper.make_tensor_value_info("x", dtype, dims)],
        [helper.make_tensor_value_info("y", dtype, dims)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    given = read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert run(given, PASS) == [
        f"{PASS}: BatchNormalization -> y: the folded weights of Conv -> c would not be finite in float16"
    ]
