"""The text form: golden files, round trips of random graphs, exact literals, errors with their place."""

import math
import time
import warnings
from pathlib import Path

import ml_dtypes
import models
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deburr.ir import text
from deburr.ir.attributes import Attribute, AttributeKind, AttributeReference
from deburr.ir.constants import Constant
from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.onnx_reader import read
from deburr.ir.types import DType, OpaqueType, QParams, TensorType

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

# structure, told independently of the printer


def tell_model(model):
    functions = {key: (tell_graph(item.graph), {name: None if default is None else tell_attribute(default)
                       for name, default in item.attributes.items()}, item.opset_imports, item.metadata, item.doc)
                 for key, item in model.functions.items()}  # fmt: skip
    header = (model.ir_version, model.producer, model.domain, model.version, model.doc, model.metadata, model.extra)
    return tell_graph(model.graph), functions, header, model.opset_imports


def tell_graph(graph):
    values = {value.name: (value.type, value.doc, value.metadata, value.declared, value.qparams, tell(value.constant))
              for value in graph.values}  # fmt: skip
    notes = {value.name: {key: noted.name for key, noted in items.items()} for value, items in graph.annotations.items()}
    ends = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    return graph.name, graph.doc, graph.metadata, values, notes, ends, [tell_node(node) for node in graph.nodes]


def tell_node(node):
    names = [[value and value.name for value in values] for values in (node.inputs, node.outputs)]
    attributes = [(key, tell_attribute(item)) for key, item in node.attributes.items()]
    return node.op, node.domain, node.overload, node.name, node.doc, node.metadata, node.extra, names, attributes


def tell_attribute(attribute):
    value = attribute.value
    items = [tell(item) for item in value] if isinstance(value, tuple) else tell(value)
    return attribute.kind, items, attribute.doc


def tell(item):
    if isinstance(item, Constant):
        array = item.array
        return item.dtype, item.shape, array.tolist() if array.dtype == object else array.tobytes()
    if isinstance(item, Graph):
        return tell_graph(item)
    return np.float32(item).tobytes() if isinstance(item, float) else item


def assert_round_trip(model):
    printed = text.print_model(model)
    again = text.parse_model(printed, text.weights_of(model))
    assert tell_model(again) == tell_model(model)
    assert text.print_model(again) == printed


# random models

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
float32s = st.floats(width=32)
dims = st.one_of(st.none(), st.integers(0, 1000), names)
shapes = st.one_of(st.none(), st.lists(dims, max_size=4).map(tuple))
types = st.one_of(
    st.none(),
    st.builds(TensorType, st.sampled_from(DType), shapes),
    st.builds(OpaqueType, st.binary(max_size=5), texts),
)


@st.composite
def constants(draw):
    dtype = draw(
        st.sampled_from([dtype for dtype in DType if dtype not in (DType.UNDEFINED, DType.FLOAT6E2M3, DType.FLOAT6E3M2)])
    )
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape)
    if dtype is DType.STRING:
        items = draw(st.lists(st.one_of(texts, st.binary(max_size=3)), min_size=size, max_size=size))
        array = np.empty(size, object)
        array[:] = items
        return Constant.of(array.reshape(shape), dtype)
    width = dtype.numpy.itemsize
    if dtype is DType.BOOL or dtype.bits < 8:
        codes = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
        return Constant.of(np.array(codes).astype(dtype.numpy).reshape(shape), dtype)
    data = draw(st.binary(min_size=size * width, max_size=size * width))
    return Constant.of(np.frombuffer(data, dtype.numpy).reshape(shape), dtype)


def plural(kind, items):
    return st.lists(items, max_size=3).map(lambda found: Attribute(kind, tuple(found)))


strings = st.one_of(texts, st.binary(max_size=4))
integers = st.integers(-(2**63), 2**63 - 1)
attributes = st.one_of(
    st.builds(Attribute, st.just(AttributeKind.INT), integers, texts),
    st.builds(Attribute, st.just(AttributeKind.FLOAT), float32s),
    st.builds(Attribute, st.just(AttributeKind.STRING), strings),
    st.builds(Attribute, st.just(AttributeKind.TENSOR), constants()),
    st.builds(Attribute, st.just(AttributeKind.TYPE_PROTO), st.binary(max_size=4)),
    st.builds(Attribute, st.sampled_from(AttributeKind), st.builds(AttributeReference, names)),
    plural(AttributeKind.INTS, integers),
    plural(AttributeKind.FLOATS, float32s),
    plural(AttributeKind.STRINGS, strings),
    plural(AttributeKind.TENSORS, constants()),
)


@st.composite
def qparams(draw):
    count = draw(st.integers(1, 12))
    axis = draw(st.one_of(st.none(), st.integers(-3, 3)))
    block_size = draw(st.one_of(st.none(), st.integers(1, 64))) if axis is not None else None
    shape = () if axis is None else (count,) if block_size is None else (count, 1, 1)
    scale = draw(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=count, max_size=count))
    made = np.array(scale[: math.prod(shape)], np.float32).reshape(shape)
    axis = axis % 3 if axis is not None and block_size is not None else axis
    bits = draw(st.one_of(st.none(), st.integers(1, 7)))
    return QParams(made, np.full(shape, -3, np.int32), DType.INT8, axis, block_size, bits)


@st.composite
def graphs(draw, outer=(), depth=0):
    graph = Graph(draw(names))
    graph.doc, graph.metadata = draw(texts), draw(st.dictionaries(texts, texts, max_size=2))

    def value():
        made = graph.add_value(graph.fresh_name(draw(names.filter(lambda name: name not in graph._values))), draw(types))
        made.doc, made.declared = draw(texts), draw(st.binary(max_size=3))
        made.qparams = draw(st.one_of(st.none(), qparams()))
        return made

    graph.set_inputs([value() for _ in range(draw(st.integers(0, 2)))])
    for _ in range(draw(st.integers(0, 2))):
        graph.add_constant(draw(constants()), draw(names))
    if graph.inputs and draw(st.booleans()):
        graph.inputs[0].constant = draw(constants())
    for _ in range(draw(st.integers(0, 3))):
        visible = st.sampled_from([None, *graph.values, *outer])
        outputs = [value() if draw(st.booleans()) else None for _ in range(draw(st.integers(0, 2)))]
        given = draw(st.dictionaries(names, attributes, max_size=2))
        if depth < 2 and draw(st.booleans()):
            inner = tuple(item for item in (*graph.values, *outer) if item not in outputs)
            given["body"] = Attribute(AttributeKind.GRAPH, draw(graphs(inner, depth + 1)))
        # What is visible inside is what has another name there: the nearest one counts.
        inputs = [item for item in draw(st.lists(visible, max_size=3)) if item is None or item.name not in graph._values
                  or graph._values[item.name] is item]  # fmt: skip
        node = graph.add_node(draw(names), inputs, outputs, given, domain=draw(texts), name=draw(texts))
        node.overload, node.doc, node.extra = draw(texts), draw(texts), draw(st.binary(max_size=3))
    graph.set_outputs(draw(st.lists(st.sampled_from(graph.values), max_size=2)) if graph.values else [])
    return graph


@st.composite
def whole_models(draw):
    model = Model(draw(graphs()), draw(st.dictionaries(texts, st.integers(1, 99), max_size=2)))
    model.doc, model.domain, model.producer = draw(texts), draw(texts), (draw(texts), draw(texts))
    model.version, model.extra = draw(st.integers(0, 9)), draw(st.binary(max_size=3))
    if draw(st.booleans()):
        function = Function(draw(names), draw(texts), draw(graphs()), draw(texts))
        function.attributes = draw(st.dictionaries(names, st.one_of(st.none(), attributes), max_size=2))
        function.opset_imports = {"": 17}
        model.functions[function.domain, function.name, function.overload] = function
    return model


@settings(max_examples=150, deadline=None)
@given(whole_models())
def test_random_models_round_trip(model):
    assert_round_trip(model)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2000), st.integers(0, 12))
def test_damaged_text_is_an_error_and_nothing_else(junk, at, cut):
    printed = text.print_model(read(models.branch_on_sum()))
    at %= len(printed)
    damaged = printed[:at] + junk.decode("latin-1") + printed[at + cut :]
    try:
        text.parse_model(damaged)
    except DeburrError as error:
        assert error.code == "E107"  # noqa: PT017


# real models


@pytest.mark.parametrize("name", ["conv_chain", "residual_block", "branch_on_sum", "perceptron"])
def test_golden(name, golden):
    model = read(getattr(models, name)())
    assert_round_trip(model)
    golden(f"text_{name}.txt", text.print_model(model))


def test_the_node_tests_of_onnx_round_trip():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, where the tests compute what they expect
        protos = [case.model for case in collect_testcases(None) if case.model is not None]
    assert len(protos) > 1500
    for proto in protos[::4]:
        assert_round_trip(read(proto))


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_light_models_of_onnx_round_trip(path):
    assert_round_trip(read(path))


def test_a_large_graph_prints_in_linear_time():
    def seconds(count):
        graph = Graph()
        value = graph.add_value("x")
        graph.set_inputs([value])
        for _ in range(count):
            value = graph.add_node("Add", [value, graph.add_constant(np.float32(1))], [f"y{len(graph)}"]).output()
        start = time.process_time()
        text.print_graph(graph)
        return time.process_time() - start

    seconds(100)
    assert seconds(8000) < 8 * seconds(2000) + 0.05


# literals


def printed_constant(array, dtype=None):
    graph = Graph()
    graph.add_constant(Constant.of(array, dtype), "c")
    (line,) = [line for line in text.print_graph(graph).splitlines() if "const" in line]
    return line.strip().removeprefix("const %c = ")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.float32([0.1, -0.0, np.nan, np.inf, -np.inf, 1e-45]), "float[6] [0.1, -0.0, nan, inf, -inf, 1e-45]"),
        (np.float64(0.1), "double[] 0.1"),
        (np.float16([[0.1]]), "float16[1, 1] [0.1]"),
        (np.array([1.5], ml_dtypes.bfloat16), "bfloat16[1] [1.5]"),
        (np.array([-8, 7], ml_dtypes.int4), "int4[2] [-8, 7]"),
        (np.complex64(1 - 2j), "complex64[] [1.0, -2.0]"),
        (np.array([True, False]), "bool[2] [true, false]"),
        (np.array(["a\n", "Käse"], object), 'string[2] ["a\\n", "Käse"]'),
        (np.zeros((0, 3), np.int64), "int64[0, 3] []"),
        (np.array([0x7FC00001], np.uint32).view(np.float32), 'float[1] hex"0100c07f"'),  # NaN with a message
    ],
)
def test_constants_are_written_exactly(array, expected):
    assert printed_constant(array) == expected


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(0x7FC00000, "nan"), (0xFFC00000, "nan:ffc00000"), (0x7FC00001, "nan:7fc00001"), (0xFF800000, "-inf")],
)
def test_float_attributes_keep_the_bits_of_nan(bits, expected):
    graph = Graph()
    number = float(np.uint32(bits).view(np.float32))
    graph.add_node("Op", [], [], {"a": number, "b": [number, 1.0]})
    printed = text.print_graph(graph)
    assert f"{{a={expected}, b=[{expected}, 1.0]}}" in printed
    (node,) = text.parse_model(printed).graph.nodes
    assert [np.float32(item).view(np.uint32) for item in (node.get("a"), node.get("b")[0])] == [bits, bits]


def test_large_constants_are_named_by_their_hash():
    weight = np.arange(9, dtype=np.float32)
    key = Constant.of(weight).digest[:16]
    assert printed_constant(weight) == f"float[9] sha256:{key}"
    assert printed_constant(weight.reshape(3, 3)) != f"float[3, 3] sha256:{key}"  # dims are part of it


def test_names_are_quoted_where_they_could_be_mistaken():
    graph = Graph()
    for name in ("plain/x.1", "onnx::Conv_1", "x:0", "a b", 'q"', "_"):
        graph.add_value(name)
    lines = [line.strip() for line in text.print_graph(graph).splitlines()[1:-2]]
    assert lines == ["value %plain/x.1", "value %onnx::Conv_1", 'value %"x:0"', 'value %"a b"', 'value %"q\\""', "value %_"]


def test_a_node_prints_on_one_line():
    graph = Graph()
    graph.set_inputs([graph.add_value("x", TensorType(DType.FLOAT, (1, "N", None)))])
    body = Graph("body")
    node = graph.add_node("Op", [graph.inputs[0], None, graph.inputs[0]], ["y"], {
        "a": 1, "b": 1.0, "c": Attribute(AttributeKind.FLOATS, ()), "d": [1, 2], "e": b"\xff", "f": body,
    }, domain="com.example", name="n 1")  # fmt: skip
    assert text.print_node(node) == (
        '%y = com.example::Op(%x, _, %x) {a=1, b=1.0, c=floats [], d=[1, 2], e=hex"ff", f=graph body {…}} "n 1"'
    )


# side file


def test_weights_survive_their_file(tmp_path):
    model = read(models.conv_chain())
    strings = np.array([f"s{index}" for index in range(9)] + [b"\xff"], object)
    for array in (strings, np.arange(10).astype(ml_dtypes.int4), np.arange(10).astype(ml_dtypes.bfloat16)):
        model.graph.add_constant(array)
    text.save_weights(tmp_path / "w.npz", text.weights_of(model))
    again = text.parse_model(text.print_model(model), text.load_weights(tmp_path / "w.npz"))
    assert tell_model(again) == tell_model(model)


def test_a_wrong_side_file(tmp_path):
    path = tmp_path / "w.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(DeburrError) as caught:
        text.load_weights(path)
    assert caught.value.code == "E101"
    text.save_weights(path, {"0123456789abcdef": Constant.of(np.zeros(9))})
    with pytest.raises(DeburrError) as caught:
        text.load_weights(path)
    assert str(caught.value) == (
        f"error[E107]: a tensor does not have the hash it is filed under, {path}, sha256:0123456789abcdef"
    )


# errors


@pytest.mark.parametrize(
    ("body", "place", "why"),
    [
        ("%y = Relu(%q)\n return %y", "line 3, column 12, at %q", "no value with this name is defined before it is read"),
        ("input %x: flaot[1]\n return", "line 3, column 12, at flaot", "there is no such element type"),
        ("input %x\n input %x\n return", "line 4, column 8, at %x", "the name is empty, or taken by another value"),
        ("const %c = float[2] [1.0]\n return", "line 3, column 22, at [", "cannot reshape array of size 1 into shape (2,)"),
        ("const %c = uint8[] 256\n return", "line 3, column 21, at 256", "256 does not fit into uint8"),
        ("const %c = float[9] sha256:00\n return", "line 3, column 22, at sha256:00",
         "the weights hold no tensor with this hash"),
        ("() = Op() {a=[1, 2.0]}\n return", "line 3, column 15, at [", "the items of a list are of one kind"),
        ("() = Op() {a=1, a=2}\n return", "line 3, column 18, at a", "the attribute is given twice"),
        ("() = Op() {a=99999999999999999999}\n return", "line 3, column 15, at 99999999999999999999",
         "the number does not fit into 64 bits"),
        ("() = Op(\n return", "line 4, column 2, at return", "expected a value, as %name"),
        ("§\n return", "line 3, column 2, at §", "no part of the text form starts like this"),
        ("input %x\n return %x", "line 5, column 1, at the end of the text", "expected '}'"),
    ],
)  # fmt: skip
def test_parse_errors_name_the_place(body, place, why):
    end = "" if place.endswith("the text") else "\n}"
    with pytest.raises(DeburrError) as caught:
        text.parse_model(f'opset "" 17\ngraph g {{\n {body}\n{end}')
    assert str(caught.value) == f"error[E107]: the text form does not parse, {place}: {why}"


def test_nesting_has_an_end():
    deep = "graph g { () = If() {a=" * 200
    with pytest.raises(DeburrError, match="nested deeper than 100"):
        text.parse_model(deep)


def test_diff():
    model = read(models.perceptron())
    before = text.print_model(model)
    assert text.diff(before, before) == ""
    model.graph.rename(next(model.graph.nodes).output(), "renamed")
    lines = text.diff(before, text.print_model(model)).splitlines()
    assert sum(line.startswith("-  %") for line in lines) == sum(line.startswith("+  %") for line in lines) == 2
