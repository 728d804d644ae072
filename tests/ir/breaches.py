"""Sound models, and functions that break one rule of the verifier each, with what is then said."""

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.types import DType, QParams, TensorType

FLOAT4 = TensorType(DType.FLOAT, (4,))


def chain():
    """x -> Relu a -> Add b (with a constant c) -> y."""
    graph = Graph()
    x = graph.add_value("x", FLOAT4)
    graph.set_inputs([x])
    a = graph.add_node("Relu", [x], ["a"], name="first").output()
    y = graph.add_node("Add", [a, graph.add_constant(np.ones(4, np.float32), "c")], ["y"], name="second").output()
    a.type = y.type = FLOAT4
    graph.set_outputs([y])
    return Model(graph, {"": 17})


def branches():
    """An If whose branches read x."""
    model = chain()
    graph = model.graph
    condition = graph.add_constant(np.array(True), "condition")
    made = {}
    for key in ("then_branch", "else_branch"):
        inner = Graph(key)
        inner.set_outputs([inner.add_node("Neg", [graph.value("x")], [f"{key}_out"]).output()])
        made[key] = inner
    node = graph.add_node("If", [condition], ["z"], made, name="choose")
    graph.set_outputs([graph.value("y"), node.output()])
    return model


def functions():
    """A call of a function of the model."""
    model = chain()
    body = Graph("twice")
    value = body.add_value("v")
    body.set_inputs([value])
    body.set_outputs([body.add_node("Add", [value, value], ["w"]).output()])
    model.functions["local", "twice", ""] = Function("twice", "local", body, opset_imports={"": 17})
    model.opset_imports["local"] = 1
    call = model.graph.add_node("twice", [model.graph.value("y")], ["z"], domain="local")
    model.graph.set_outputs([call.output()])
    return model


def quantized():
    """Conv of dequantized data, weight [2, 3, 1, 1] per channel and int32 bias, quantized again."""
    graph = Graph()
    x = graph.add_value("x", TensorType(DType.UINT8, (1, 3, 4, 4)))
    graph.set_inputs([x])

    def dequantize(value, scale, zero_point, name, **attributes):
        scales, zeros = graph.add_constant(np.float32(scale), f"{name}_s"), graph.add_constant(zero_point, f"{name}_z")
        return graph.add_node("DequantizeLinear", [value, scales, zeros], [name], attributes, name=name).output()

    data = dequantize(x, 0.5, np.uint8(128), "data")
    weight = graph.add_constant(np.ones((2, 3, 1, 1), np.int8), "w")
    kernel = dequantize(weight, [0.25, 0.5], np.zeros(2, np.int8), "kernel", axis=0)
    bias = dequantize(graph.add_constant(np.ones(2, np.int32), "b"), [0.125, 0.25], np.zeros(2, np.int32), "bias", axis=0)
    conv = graph.add_node("Conv", [data, kernel, bias], ["conv"], name="conv").output()
    out = graph.add_constant(np.float32(0.1), "out_s"), graph.add_constant(np.uint8(0), "out_z")
    y = graph.add_node("QuantizeLinear", [conv, *out], ["y"], name="out").output()
    graph.set_outputs([y])
    for value in (data, conv):
        value.type = TensorType(DType.FLOAT, (1, 3 if value is data else 2, 4, 4))
    y.type = TensorType(DType.UINT8, (1, 2, 4, 4))
    return Model(graph, {"": 17})


def nodes(model):
    return {node.name: node for node in model.graph.nodes}


def set_constant(model, name, array):
    model.graph.set_constant(model.graph.value(name), array)


# one breach per function


def lost_node(model):
    model.graph._count += 1


def moved_node(model):
    nodes(model)["second"].graph = None


def forgotten_value(model):
    del model.graph._values["c"]


def undefined(model):
    model.graph.inputs = ()


def out_of_scope(model):
    inner = next(iter(nodes(model)["choose"].subgraphs))
    nodes(model)["second"].set_input(1, inner.value("then_branch_out"))


def wrong_order(model):
    model.graph.move(nodes(model)["first"], after=nodes(model)["second"])


def cycle(model):
    nodes(model)["first"].set_input(0, model.graph.value("y"))


def shadowed(model):
    inner = next(iter(nodes(model)["choose"].subgraphs))
    inner.rename(inner.value("then_branch_out"), "a")


def wrong_use(model):
    model.graph.value("x")._uses.clear()


def stolen_output(model):
    model.graph.value("a").index = 3


def foreign_output(model):
    other = Graph("other")
    model.graph.outputs = (other.add_node("Neg", [], ["q"]).output(),)


def wrong_constant_type(model):
    model.graph.value("c").type = TensorType(DType.FLOAT, (5,))


def wrong_parent(model):
    next(iter(nodes(model)["choose"].subgraphs)).parent = nodes(model)["first"]


def stale_annotation(model):
    graph = model.graph
    noted = graph.add_constant(np.float32(1), "noted")
    graph.annotations[graph.value("a")] = {"SCALE_TENSOR": noted}
    graph.remove_value(noted)


def misfiled_function(model):
    model.functions["local", "thrice", ""] = model.functions.pop(("local", "twice", ""))


def no_import(model):
    nodes(model)["first"].domain = "com.example"


def no_such_operator(model):
    nodes(model)["first"].op = "Rulu"


def missing_input(model):
    nodes(model)["second"].set_input(0, None)


def too_many_inputs(model):
    nodes(model)["first"].set_input(1, model.graph.value("c"))


def missing_attribute(model):
    nodes(model)["first"].op = "Concat"


def wrong_kind(model):
    first = nodes(model)["first"]
    first.op = "LeakyRelu"
    first.set_attribute("alpha", 1)


def unknown_attribute(model):
    nodes(model)["first"].set_attribute("alpha", 1.0)


def wrong_element_type(model):
    set_constant(model, "c", np.ones(4, np.int64))


def refused_element_type(model):
    model.graph.value("x").type = TensorType(DType.BOOL, (4,))


def wrong_call(model):
    call = list(model.graph.nodes)[-1]
    call.set_input(1, model.graph.value("c"))


def recursion(model):
    body = model.functions["local", "twice", ""].graph
    body.add_node("twice", [body.value("w")], 1, domain="local")


def constant_node(model):
    node = model.graph.add_node("Constant", [], ["k"], {"value_float": 1.0}, before=nodes(model)["first"])
    nodes(model)["second"].set_input(1, node.output())


def identity(model):
    node = model.graph.add_node("Identity", [model.graph.value("a")], ["k"], before=nodes(model)["second"])
    nodes(model)["second"].set_input(0, node.output())


def dead_node(model):
    model.graph.add_node("Neg", [model.graph.value("a")], ["k"], name="idle")


def dead_constant(model):
    model.graph.add_constant(np.float32(1), "idle")


def zero_scale(model):
    set_constant(model, "kernel_s", np.float32([0.25, 0]))


def far_axis(model):
    nodes(model)["kernel"].set_attribute("axis", 4)


def wrong_channels(model):
    nodes(model)["kernel"].set_attribute("axis", 1)


def wrong_bias(model):
    set_constant(model, "bias_s", np.float32([0.125, 0.26]))


def wrong_qparams(model):
    scales = QParams(np.ones(5, np.float32), np.zeros(5, np.int32), DType.INT8, axis=0)
    model.graph.set_qparams(model.graph.value("w"), scales)


def wrong_blocks(model):
    """int8[2, 3, 1, 1] in blocks of 2 along the inputs has scales of [2, 2, 1, 1]."""
    model.import_opset("", 21)
    nodes(model)["kernel"].set_attribute("axis", 1)
    nodes(model)["kernel"].set_attribute("block_size", 2)


def wrong_block_qparams(model):
    scales = QParams(np.ones((2, 3, 1, 1), np.float32), np.zeros((2, 3, 1, 1), np.int32), DType.INT8, axis=1, block_size=2)
    model.graph.set_qparams(model.graph.value("w"), scales)


def unknown_rank(model):
    model.graph.set_type(model.graph.value("a"), TensorType(DType.FLOAT))


A = "graph 'main', node Relu 'first'"
B = "graph 'main', node Add 'second'"
KERNEL = "graph 'main', node DequantizeLinear 'kernel'"
RELU = '[%a: float[4] = Relu(%x) "first"]'
ADD = '[%y: float[4] = Add(%a, %c) "second"]'

BREACHES = [
    (chain, lost_node, "V001", "graph 'main': the links lead through 2 nodes, the graph counts 3"),
    (chain, moved_node, "V001", f"{B}: the node says that it was removed, or stands in another graph {ADD}; "
     "3 more violations"),
    (chain, forgotten_value, "V002", f"{B}, value %c: the value was removed from its graph {ADD}"),
    (chain, undefined, "V003", f"{A}, value %x: it is read, and no node, input or constant defines it {RELU}"),
    (branches, out_of_scope, "V004",
     f"{B}, value %then_branch_out: it belongs to Graph 'then_branch' (1 nodes), which does not "
     'enclose the node [%y: float[4] = Add(%a, %then_branch_out) "second"]'),
    (chain, wrong_order, "V005", f"{B}, value %a: Relu 'first', which defines it, stands further down {ADD}"),
    (chain, cycle, "V005", f"{A}, value %y: the nodes form a cycle: first -> second -> first "
     '[%a: float[4] = Relu(%y) "first"]'),
    (branches, shadowed, "V006",
     "graph 'then_branch', node Neg -> a, value %a: the enclosing graph 'main' has a value of this name "
     "[%a = Neg(%x)]"),
    (chain, wrong_use, "V007", f"{A}, value %x: input 0 reads it, and its use list does not say so {RELU}"),
    (chain, stolen_output, "V008", f"{A}, value %a: output 0 of the node is a value that says another node defines it {RELU}; "
     "1 more violation"),
    (chain, foreign_output, "V009",
     "graph 'main', value %q: the graph has it as an output, and it belongs to Graph 'other' (1 nodes)"),
    (chain, wrong_constant_type, "V010", "graph 'main', value %c: its type is float[5], its elements are float[4]"),
    (branches, wrong_parent, "V011",
     "graph 'main', node If 'choose': its subgraph 'then_branch' says that another node holds it "
     '[%z = If(%condition) {then_branch=graph then_branch {…}, else_branch=graph else_branch {…}} "choose"]'),
    (chain, stale_annotation, "V012", "graph 'main', value %noted: a quantization annotation names a value that was removed"),
    (functions, misfiled_function, "V013", "graph 'main': the function 'twice' is filed under ('local', 'thrice', '')"),
    (chain, no_import, "V101", "graph 'main', node com.example.Relu 'first': the model imports no version of the domain "
     "'com.example' [%a: float[4] = com.example::Relu(%x) \"first\"]"),
    (chain, no_such_operator, "V102", "graph 'main', node Rulu 'first': ai.onnx 17 has no operator Rulu "
     '[%a: float[4] = Rulu(%x) "first"]'),
    (chain, missing_input, "V103", f"{B}: its input 'A' is left out [%y: float[4] = Add(_, %c) \"second\"]"),
    (chain, too_many_inputs, "V103", f"{A}: it has 2 inputs, Relu takes 1 [%a: float[4] = Relu(%x, %c) \"first\"]"),
    (chain, missing_attribute, "V105", "graph 'main', node Concat 'first': its attribute 'axis' is missing "
     '[%a: float[4] = Concat(%x) "first"]'),
    (chain, wrong_kind, "V106", "graph 'main', node LeakyRelu 'first': its attribute 'alpha' should be float, and is int "
     '[%a: float[4] = LeakyRelu(%x) {alpha=1} "first"]'),
    (chain, unknown_attribute, "V106", f"{A}: Relu has no attribute 'alpha' at this opset "
     '[%a: float[4] = Relu(%x) {alpha=1.0} "first"]'),
    (chain, wrong_element_type, "V107",
     f"{B}, value %c: it is int64, where the types of the node's other values ask for float {ADD}"),
    (chain, refused_element_type, "V107", f"{A}, value %x: Relu takes or gives no bool as 'X' {RELU}"),
    (functions, wrong_call, "V108", "graph 'main', node local.twice -> z: it has 2 inputs, the function has 1 "
     "[%z = local::twice(%y, %c)]"),
    (functions, recursion, "V109", "graph 'main': the function 'twice' calls itself, or one that does"),
    (chain, constant_node, "V201", "graph 'main', node Constant -> k: a constant that no caller decides is an initializer "
     "[%k = Constant() {value_float=1.0}]; 1 more violation"),
    (chain, identity, "V202", "graph 'main', node Identity -> k: its readers could read its input [%k = Identity(%a)]"),
    (chain, dead_node, "V203", "graph 'main', node Neg 'idle': nothing reads its outputs [%k = Neg(%a) \"idle\"]"),
    (chain, dead_constant, "V204", "graph 'main', value %idle: nothing reads it"),
    (quantized, zero_scale, "V301", f"{KERNEL}, value %kernel_s: its scale is zero, negative, "
     'infinite or not a number [%kernel = DequantizeLinear(%w, %kernel_s, %kernel_z) {axis=0} "kernel"]; 1 more violation'),
    (quantized, far_axis, "V302", f"{KERNEL}: axis 4 is out of range for int8[2, 3, 1, 1] "
     '[%kernel = DequantizeLinear(%w, %kernel_s, %kernel_z) {axis=4} "kernel"]'),
    (quantized, wrong_channels, "V303", f"{KERNEL}: it has 2 scales, axis 1 of int8[2, 3, 1, 1] "
     'has size 3 [%kernel = DequantizeLinear(%w, %kernel_s, %kernel_z) {axis=1} "kernel"]'),
    (quantized, wrong_blocks, "V303", f"{KERNEL}: its scales are [2], blocks of 2 along axis 1 need [2, 2, 1, 1] "
     '[%kernel = DequantizeLinear(%w, %kernel_s, %kernel_z) {axis=1, block_size=2} "kernel"]'),
    (quantized, wrong_bias, "V305",
     "graph 'main', node Conv 'conv', value %bias_s: the scale of its int32 bias is 0.26, input times "
     'weight gives 0.25 [%conv: float[1, 2, 4, 4] = Conv(%data, %kernel, %bias) "conv"]'),
    (quantized, wrong_qparams, "V306", "graph 'main', value %w: it has 5 scales, and axis 0 has size 2"),
    (quantized, wrong_block_qparams, "V306",
     "graph 'main', value %w: its scales are [2, 3, 1, 1], blocks of 2 along axis 1 need [2, 2, 1, 1]"),
    (chain, unknown_rank, "V401",
     "graph 'main', node Relu 'first', value %a: its element type or its rank is unknown, or it is no "
     'tensor [%a: float[...] = Relu(%x) "first"]'),
]  # fmt: skip
