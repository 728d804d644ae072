"""Raising the opset keeps what a model computes: every operator whose meaning changed between opsets 7 and 13."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, samples
from onnx import TensorProto, helper, numpy_helper

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.opset import raise_opset

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
INTS = np.int64

# operator, opset, shape of its input, constants behind that, attributes
CASES = [
    *[
        (op, opset, (2, 3, 4), (), {"axis": axis})
        for op in ("Softmax", "LogSoftmax", "Hardmax") for opset in (7, 11) for axis in (0, 1, 2)
    ],
    *[("Softmax", 7, (2, 3, 4), (), {})],
    *[
        (op, 7, (2, 3, 4), (), attributes)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp")
        for attributes in ({"axes": [1]}, {"axes": [0, 2], "keepdims": 0}, {})
    ],
    ("Squeeze", 7, (1, 3, 1), (), {"axes": [0]}),
    ("Squeeze", 11, (1, 3, 1), (), {"axes": [-1]}),
    ("Squeeze", 11, (1, 3, 1), (), {}),
    ("Unsqueeze", 7, (2, 3), (), {"axes": [0, 3]}),
    ("Unsqueeze", 11, (2, 3), (), {"axes": [-1]}),
    ("Split", 7, (2, 6), (), {"axis": 1, "split": [2, 4], "outputs": 2}),
    ("Split", 11, (2, 6), (), {"axis": -1, "outputs": 3}),
    ("Clip", 7, (2, 6), (), {"min": -0.5, "max": 0.5}),
    ("Clip", 7, (2, 6), (), {"max": 0.5}),
    ("Clip", 7, (2, 6), (), {}),
    ("Pad", 7, (2, 3), (), {"pads": [0, 1, 2, 0], "value": 1.5}),
    ("Pad", 7, (2, 3), (), {"pads": [0, 1, 1, 0], "mode": "reflect"}),
    ("Slice", 7, (4, 6), (), {"starts": [1, -4], "ends": [3, 99], "axes": [0, 1]}),
    ("Slice", 7, (4, 6), (), {"starts": [1], "ends": [-1]}),
    ("TopK", 7, (4, 6), (), {"k": 3, "axis": 1, "outputs": 2}),
    ("TopK", 10, (4, 6), (np.array([2], INTS),), {"axis": 0, "outputs": 2}),
    ("Dropout", 7, (4, 6), (), {"ratio": 0.3}),
    ("Dropout", 10, (4, 6), (), {}),
    ("Upsample", 7, (1, 2, 3, 3), (), {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}),
    ("Upsample", 9, (1, 2, 3, 3), (np.array([1, 1, 2, 3], np.float32),), {"mode": "nearest"}),
    ("Resize", 10, (1, 2, 3, 3), (np.array([1, 1, 2, 2], np.float32),), {"mode": "nearest"}),
    ("AveragePool", 7, (1, 2, 5, 5), (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", 10, (1, 2, 5, 5), (), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", 7, (1, 2, 5, 5), (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("BatchNormalization", 7, (1, 2, 4), tuple(np.full(2, x, np.float32) for x in (1.5, 0.25, -1, 2)), {"epsilon": 1e-3}),
    ("BatchNormalization", 9, (1, 2, 4), tuple(np.full(2, x, np.float32) for x in (1.5, 0.25, -1, 2)), {}),
    ("Cast", 7, (2, 3), (), {"to": int(TensorProto.INT32)}),
    ("Flatten", 7, (2, 3, 4), (), {"axis": 2}),
    ("Gather", 7, (4, 3), (np.array([2, 0], INTS),), {"axis": 0}),
    ("Concat", 7, (2, 3), (np.ones((2, 2), np.float32),), {"axis": 1}),
    ("ArgMax", 7, (2, 3), (), {"axis": 1}),
    ("Gemm", 7, (2, 3), (np.ones((3, 4), np.float32), np.ones(4, np.float32)), {"alpha": 0.5}),
    ("DepthToSpace", 7, (1, 8, 2, 2), (), {"blocksize": 2}),
    ("LRN", 7, (1, 4, 2, 2), (), {"size": 3}),
]  # fmt: skip


def single(op, opset, shape, constants, attributes) -> onnx.ModelProto:
    attributes = dict(attributes)
    outputs = [f"y{number}" for number in range(attributes.pop("outputs", 1))]
    names = [f"c{number}" for number in range(len(constants))]
    node = helper.make_node(op, ["x", *names], outputs, "the_node", **attributes)
    graph = helper.make_graph(
        [node], "single", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in zip(names, constants, strict=True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_operator(case):
    proto = single(*case)
    before, after = read(proto), read(proto)
    raise_opset(after, 13)
    assert after.opset == 13
    onnx.checker.check_model(to_proto(after), full_check=True)
    data = samples(proto)
    expected, found = Evaluator(before).run(data), Evaluator(after).run(data)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert array.dtype == found[name].dtype
        assert np.array_equal(array, found[name])


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", "light_inception_v1"])
def test_light_model(name):
    proto = onnx.load(LIGHT / f"{name}.onnx")
    before, after = read(proto), read(proto)
    raise_opset(after, 13)
    data = {
        value.name: np.random.default_rng(0).standard_normal(value.static_shape).astype(np.float32)
        for value in before.graph.inputs
    }
    expected, found = Evaluator(before).run(data), Evaluator(after).run(data)
    assert all(np.array_equal(array, found[name]) for name, array in expected.items())


def test_nodes_in_subgraphs_are_raised():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])

    def branch(axis: int, output: str) -> onnx.GraphProto:
        info = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])
        return helper.make_graph([helper.make_node("ReduceSum", ["x"], [output], axes=[axis])], output, [], [info])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(0, "a"), else_branch=branch(1, "b"))
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph(
        [node], "g", [x, condition], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    before, after = read(proto), read(proto)
    raise_opset(after, 13)
    for choice in (True, False):
        data = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.array(choice)}
        assert np.array_equal(Evaluator(before).run(data)["y"], Evaluator(after).run(data)["y"])


def test_names_docs_and_unchanged_nodes_stay():
    proto = single("ReduceSum", 11, (2, 3), (), {"axes": [1]})
    proto.graph.node[0].doc_string = "why it is here"
    model = read(proto)
    raise_opset(model, 13)
    (node,) = [node for node in model.graph.nodes if node.op == "ReduceSum"]
    assert (node.name, node.doc, node.output().name) == ("the_node", "why it is here", "y0")


def test_newer_model_stays_untouched():
    model = read(conv_chain(opset=17))
    revision = model.revision
    raise_opset(model, 13)
    assert (model.opset, model.revision) == (17, revision)


def test_failure_leaves_the_model_as_it_was():
    proto = single("ReduceSum", 8, (1, 3, 2), (), {"axes": [1], "keepdims": 0})
    body = onnx.parser.parse_graph(
        "body (float[2] s, float[2] e) => (float[2] t, float[2] o) { t = Add(s, e) o = Identity(t) }"
    )
    scan = helper.make_node("Scan", ["", "y0", "x"], ["z", "steps"], "the_scan", body=body, num_scan_inputs=1)
    proto.graph.node.append(scan)
    model = read(proto)
    before, revision = to_proto(model).SerializeToString(deterministic=True), model.revision
    with pytest.raises(DeburrError) as caught:
        raise_opset(model, 18)
    assert str(caught.value) == (
        "error[E105]: no way from opset 8 to 18, Scan 'the_scan': its inputs mean something else; export the model "
        "with a newer opset"
    )
    assert (to_proto(model).SerializeToString(deterministic=True), model.revision) == (before, revision)


def test_out_of_range():
    model = read(conv_chain(opset=13))
    latest = onnx.defs.onnx_opset_version()
    with pytest.raises(DeburrError) as caught:
        raise_opset(model, latest + 1)
    assert str(caught.value) == (
        f"error[E105]: the opset cannot be raised: from 13 to {latest + 1}; supported is from 7 to {latest}; export the model "
        "with a newer opset"
    )


def test_shapes_that_nobody_knows():
    """A Reshape to a computed shape, read by another one: opset 13 only took on more types."""
    builder = Builder()
    builder.node("Relu", [builder.node("Reshape", [builder.node("Reshape", ["x", "first"]), "second"])], "y")
    ends = [helper.make_tensor_value_info(name, *kind) for name, kind in {
        "x": (TensorProto.FLOAT, [2, 6]), "first": (TensorProto.INT64, ["k"]), "second": (TensorProto.INT64, [2]),
        "y": (TensorProto.FLOAT, ["a", "b"]),
    }.items()]  # fmt: skip
    graph = helper.make_graph(builder.nodes, "unknown", ends[:3], ends[3:])
    model = read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8))
    raise_opset(model, 13)
    data = {"x": np.arange(12, dtype=np.float32).reshape(2, 6), "first": np.array([3, 4]), "second": np.array([6, 2])}
    np.testing.assert_array_equal(Evaluator(model).run(data)["y"], data["x"].reshape(6, 2))
