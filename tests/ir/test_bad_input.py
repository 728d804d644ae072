"""What a bad model file gets: one coded line that names file, node or tensor, the cause and what to do."""

import os

import models
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.text import print_model

NOT_ONNX = "give a file that torch.onnx.export, tf2onnx or onnx.save wrote"
CORRUPT = "Error parsing message with type 'onnx.ModelProto': Wire format was corrupt"
ONCE = "give every value its own name"
BROKEN = "the model breaks the ONNX specification"
FALSE = "the declared types and shapes are false"
UPGRADE = "upgrade onnx, or export with an older opset"
NEWEST = onnx.defs.onnx_opset_version()


def relu(source, result, name=""):
    return helper.make_node("Relu", [source], [result], name)


def info(name, dims=(4,), dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, dims)


def model(*nodes, inputs=("x",), dims=(4,), weights=(), infos=(), opset=17, ir_version=8):
    graph = helper.make_graph(
        nodes, "g", [info(name) for name in inputs], [info("y", dims)], list(weights), value_info=list(infos)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def with_external(**entries):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        weight.external_data.add(key=key, value=str(value))
    return model(helper.make_node("Add", ["x", "w"], ["y"], "add"), weights=[weight])


def refusal(source):
    with pytest.raises(DeburrError) as caught:
        read(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def refusal_of_file(content, folder):
    """The message, with the folder written as FOLDER; reading leaves the folder as it is."""
    path = folder / "m.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    before = sorted(os.listdir(folder))
    message = refusal(path).replace(str(folder), "FOLDER")
    assert sorted(os.listdir(folder)) == before
    return message


GOOD = model(relu("x", "y", "r")).SerializeToString()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"hello world, this is not ONNX", CORRUPT),
        (b"PK\x03\x04" + bytes(60), CORRUPT),
        (GOOD[:-9], CORRUPT),
        (helper.make_opsetid("", 17).SerializeToString(), "4 bytes without a graph or an IR version"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "2 bytes without a graph or an IR version"),
    ],
    ids=["empty", "text", "archive", "truncated", "another message", "no graph"],
)
def test_what_is_no_model(content, why, tmp_path):
    said = refusal_of_file(content, tmp_path)
    assert said == f"error[E102]: not an ONNX model, or truncated, FOLDER/m.onnx: {why}; {NOT_ONNX}"
    assert refusal(content) == said.replace("FOLDER/m.onnx", "the model")


def test_a_missing_file(tmp_path):
    path = tmp_path / "none.onnx"
    assert refusal(path) == f"error[E101]: cannot read the model, {path}: No such file or directory; check the path"
    assert not path.exists()


def test_a_folder(tmp_path):
    assert refusal(tmp_path) == f"error[E101]: cannot read the model, {tmp_path}: Is a directory; check the path"


def broken(**changes):
    """The good model with fields of its only node replaced."""
    proto = onnx.ModelProto.FromString(GOOD)
    for field, content in changes.items():
        setattr(proto.graph.node[0], field, content)
    return proto


def without_opset():
    proto = onnx.ModelProto.FromString(GOOD)
    del proto.opset_import[:]
    return proto


WRONG = {
    "duplicate value": (
        model(relu("x", "y", "a"), relu("x", "y", "b")),
        f"E103: the value 'y' is defined twice, FOLDER/m.onnx, node 'b'; {ONCE}",
    ),
    "duplicate input": (
        model(relu("x", "y"), inputs=("x", "x")),
        f"E103: the input 'x' is listed twice, FOLDER/m.onnx; {ONCE}",
    ),
    "duplicate initializer": (
        model(relu("x", "y"), weights=[numpy_helper.from_array(np.zeros(1, np.float32), "w")] * 2),
        f"E103: the initializer 'w' is listed twice, FOLDER/m.onnx; {ONCE}",
    ),
    "cycle": (
        model(helper.make_node("Add", ["x", "b"], ["a"], "n1"), relu("a", "b", "n2"), relu("b", "y", "n3")),
        "E103: the nodes form a cycle, FOLDER/m.onnx, node 'n1': 'n1' -> 'n2' -> 'n1'",
    ),
    "order": (
        model(relu("a", "y", "n2"), relu("x", "a", "n1")),
        "E103: the input 'a' is read before it is computed, FOLDER/m.onnx, node 'n2': "
        "the node 'n1' that computes it stands behind; sort the nodes",
    ),
    "undefined input": (
        model(relu("q", "y", "r")),
        "E103: the input 'q' is not defined, FOLDER/m.onnx, node 'r': no input, initializer or node has it",
    ),
    "undefined output": (
        model(relu("x", "z", "r")),
        "E103: the output 'y' is not computed by any node, FOLDER/m.onnx",
    ),
    "false output shape": (
        model(relu("x", "y", "r"), dims=(5,)),
        f"E103: {FALSE}, FOLDER/m.onnx, node 'r' (Relu): (op_type:Relu, node name: r): "
        "Inferred shape and existing shape differ in dimension 0: (4) vs (5)",
    ),
    "false shape inside": (
        model(relu("x", "a", "r"), relu("a", "y"), infos=[info("a", (7,))], dims=("n",)),
        f"E103: {FALSE}, FOLDER/m.onnx, node 'r' (Relu): (op_type:Relu, node name: r): "
        "Inferred shape and existing shape differ in dimension 0: (4) vs (7)",
    ),
    "false type": (
        model(helper.make_node("Shape", ["x"], ["y"], "s"), dims=(1,)),
        f"E103: {FALSE}, FOLDER/m.onnx, node 's' (Shape): (op_type:Shape, node name: s): "
        "Inferred elem type differs from existing elem type: (7) vs (1)",
    ),
    "mixed types": (
        model(helper.make_node("Add", ["x", "c"], ["y"], "r"), weights=[numpy_helper.from_array(np.arange(4), "c")]),
        f"E103: {FALSE}, FOLDER/m.onnx, node 'r' (Add): (op_type:Add, node name: r): B has inconsistent type tensor(int64)",
    ),
    "opset": (
        model(relu("x", "y"), opset=99),
        f"E105: opset 99 is too new, FOLDER/m.onnx: the installed onnx {onnx.__version__} knows up to {NEWEST}; {UPGRADE}",
    ),
    "IR version": (
        model(relu("x", "y"), ir_version=99),
        f"E105: IR version 99 is too new, FOLDER/m.onnx: "
        f"the installed onnx {onnx.__version__} knows up to {int(onnx.IR_VERSION)}; {UPGRADE}",
    ),
    "no opset": (
        without_opset(),
        f"E103: {BROKEN}, FOLDER/m.onnx: model with IR version >= 3 must specify opset_import for ONNX",
    ),
    "unknown operator": (
        broken(op_type="NoSuchOp"),
        f"E103: {BROKEN}, FOLDER/m.onnx, node 'r' (NoSuchOp): No Op registered for NoSuchOp with domain_version of 17",
    ),
    "no operator": (
        broken(op_type=""),
        f"E103: {BROKEN}, FOLDER/m.onnx: Field 'op_type' of 'node' is required to be non-empty.",
    ),
    "missing attribute": (
        broken(op_type="Concat"),
        f"E103: {BROKEN}, FOLDER/m.onnx, node 'r' (Concat): Required attribute 'axis' is missing.",
    ),
    "unknown attribute": (
        model(helper.make_node("Relu", ["x"], ["y"], "r", alpha=1.0)),
        f"E103: {BROKEN}, FOLDER/m.onnx, node 'r' (Relu): Unrecognized attribute: alpha for operator Relu",
    ),
    "too many inputs": (
        model(helper.make_node("Relu", ["x", "x"], ["y"], "r")),
        f"E103: {BROKEN}, FOLDER/m.onnx, node 'r' (Relu): "
        "Node(r) with schema(::Relu:14) has input size 2 not in range [min=1, max=1].",
    ),
    "short tensor": (
        model(
            helper.make_node("Add", ["x", "w"], ["y"], "r"),
            weights=[TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(12))],
        ),
        "E103: a tensor of the wrong length, tensor 'w': float[4] takes 16 bytes, there are 12",
    ),
    "long tensor": (
        model(
            helper.make_node("Add", ["x", "w"], ["y"], "r"),
            weights=[TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(20))],
        ),
        "E103: a tensor of the wrong length, tensor 'w': float[4] takes 16 bytes, there are 20",
    ),
    "long tensor of numbers": (
        model(
            helper.make_node("Add", ["x", "w"], ["y"], "r"),
            weights=[TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], float_data=[0] * 5)],
        ),
        "E103: a tensor of the wrong length, tensor 'w': [4] takes 4 entries of float_data, there are 5",
    ),
    "large short tensor": (
        model(
            helper.make_node("Add", ["x", "w"], ["y"], "r"),
            weights=[TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1000, 4], raw_data=bytes(12))],
            dims=(1000, 4),
        ),
        "E103: a tensor of the wrong length, tensor 'w': float[1000, 4] takes 16000 bytes, there are 12",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model(name, tmp_path):
    proto, said = WRONG[name]
    code, _, rest = said.partition(": ")
    assert refusal_of_file(proto, tmp_path) == f"error[{code}]: {rest}"


OUTSIDE = "external data outside of the model's folder, tensor 'w': its location is"
BESIDE = "put the data file beside the model and name it by a relative path"

EXTERNAL = {
    "missing": (
        {"location": "none.bin"},
        "external data is missing, tensor 'w': there is no file FOLDER/none.bin; put it beside the model",
    ),
    "no place": ({}, f"{OUTSIDE} ''; {BESIDE}"),
    "above": ({"location": "../w.bin"}, f"{OUTSIDE} '../w.bin'; {BESIDE}"),
    "absolute": ({"location": "/etc/passwd"}, f"{OUTSIDE} '/etc/passwd'; {BESIDE}"),
    "link": ({"location": "link.bin"}, f"{OUTSIDE} 'link.bin'; {BESIDE}"),
    "short": (
        {"location": "short.bin"},
        "external data is too short, tensor 'w': bytes 0 to 16 of 'short.bin', which has 8; fetch the whole file again",
    ),
    "behind the end": (
        {"location": "full.bin", "offset": 8},
        "external data is too short, tensor 'w': bytes 8 to 24 of 'full.bin', which has 16; fetch the whole file again",
    ),
    "before the start": (
        {"location": "full.bin", "offset": -4},
        "external data is too short, tensor 'w': bytes -4 to 12 of 'full.bin', which has 16; fetch the whole file again",
    ),
    "wrong length": (
        {"location": "full.bin", "length": 8},
        "external data of the wrong length, tensor 'w': float[4] takes 16 bytes, the file states 8",
    ),
    "no number": (
        {"location": "full.bin", "offset": "q"},
        "external data with a malformed place, tensor 'w': invalid literal for int() with base 10: 'q'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTERNAL)
def test_wrong_external_data(name, tmp_path):
    entries, said = EXTERNAL[name]
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "short.bin").write_bytes(bytes(8))
    (folder / "full.bin").write_bytes(bytes(16))
    assert refusal_of_file(with_external(**entries), folder) == f"error[E106]: {said}"


def test_a_name_that_is_no_text(tmp_path):
    said = (
        "error[E102]: not an ONNX model, or damaged, FOLDER/m.onnx: a name or text is not UTF-8: invalid start byte; "
        "fetch it again"
    )
    named = model(relu("x", "y", "name")).SerializeToString()
    assert refusal_of_file(named.replace(b"name", b"n\xffme"), tmp_path) == said
    read_by_node = model(relu("x", "name"), relu("name", "y")).SerializeToString()
    assert refusal_of_file(read_by_node.replace(b"name", b"n\xffme"), tmp_path) == said


def test_external_data_of_a_model_without_a_folder():
    assert refusal(with_external(location="w.bin").SerializeToString()) == (
        "error[E106]: external data without a folder, tensor 'w': the model did not come from a file; "
        "give the path of the model"
    )


places = st.integers(0, 10_000)
SEEDS = [build().SerializeToString() for build in (models.perceptron, models.branch_on_sum)]


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4), st.integers(0), st.booleans()
)
def test_a_damaged_file_is_read_or_refused(seed, flips, end, cut):
    data = bytearray(seed)
    for at, byte in flips:
        data[at % len(data)] = byte
    damaged = bytes(data[: end % len(data)] if cut else data)
    try:
        found = read(damaged)
        print_model(found)  # loads every weight
    except DeburrError as error:
        assert "\n" not in str(error)  # noqa: PT017
