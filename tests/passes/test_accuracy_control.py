"""Quantization under a floor: what falls back, what does not have to, and what is said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.pipeline import parse
from deburr.passes.quantize import fall_back
from deburr.passes.quantize.calibrate import Calibrate
from deburr.passes.quantize.fall_back import FallBack
from deburr.passes.quantize.units import groups

from .quantizing import mobilenet, ops, optimized, resnet, sqnr

PASS = "quantize-with-accuracy-control"
NEAREST = "rounding=nearest,observer=minmax"


def _images(seed: int = 0, count: int = 60, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype(np.float32)


def _controlled(proto: onnx.ModelProto, options: str, labels: np.ndarray | None = None, size: int = 8) -> Context:
    context = Context(read(proto), data=Samples({"x": _images(size=size)}, labels))
    manager.run(parse(f"clean,{PASS}{{{options}}}"), context)
    onnx.checker.check_model(to_proto(context.model), full_check=True)
    return context


def _float_layers(context: Context) -> list[int]:
    """The numbers of the weighted nodes whose weights are float, in order."""
    weighted = [node for node in context.model.graph.nodes if node.op in ("Conv", "Gemm")]
    return [number for number, node in enumerate(weighted) if node.input(1).is_constant]


def _fresh_sqnr(proto: onnx.ModelProto, context: Context, size: int = 8) -> float:
    data = {"x": _images(seed=1, count=100, size=size)}
    return sqnr(Evaluator(read(proto)).run(data)["y"], Evaluator(context.model).run(data)["y"])


def _with_an_outlier() -> onnx.ModelProto:
    """A chain of five convolutions; one channel behind the third is 3000 times larger, and its readers take that back."""
    proto = to_proto(optimized(conv_chain((3, 8, 8, 8, 8, 8)), "clean").model)
    arrays = {one.name: one for one in proto.graph.initializer}
    convs = [node for node in proto.graph.node if node.op_type == "Conv"]
    for name, index, factor in (
        (convs[2].input[1], np.s_[0], 3000), (convs[2].input[2], np.s_[0], 3000), (convs[3].input[1], np.s_[:, 0], 1 / 3000)
    ):  # fmt: skip
        changed = onnx.numpy_helper.to_array(arrays[name]).copy()
        changed[index] *= factor
        arrays[name].CopyFrom(onnx.numpy_helper.from_array(changed, name))
    return proto


@pytest.mark.parametrize(("dialect", "expected"), [("ort", [2, 3]), ("tensorrt", [3])])
def test_what_breaks_the_floor_stays_float_and_nothing_else_does(dialect, expected):
    """ONNX Runtime's convolutions cannot but give integers, so there the third one has to be float too."""
    proto = _with_an_outlier()
    plain = optimized(proto, f"clean,quantize{{dialect={dialect},{NEAREST}}}", data={"x": _images()})
    assert _fresh_sqnr(proto, plain) < 15
    context = _controlled(proto, f"min_sqnr=25,dialect={dialect},{NEAREST}")
    assert _float_layers(context) == expected
    assert _fresh_sqnr(proto, context) > 24
    said = [str(one) for one in context.remarks if "stays float" in one.reason]
    assert len(said) == len(expected)
    assert all(f"{PASS}: Conv " in one and "or the floor (SQNR of at least 25 dB) breaks: rounded alone" in one for one in said)
    assert not any("named by keep" in one.reason for one in context.remarks)
    (summary,) = [one.reason for one in context.remarks if "is kept by" in one.reason]
    assert summary.startswith(f"the floor (SQNR of at least 25 dB) is kept by {len(expected)} of 6 units in float: SQNR ")


def test_where_the_floor_holds_everything_is_quantized():
    context = _controlled(conv_chain((3, 8, 8)), "min_sqnr=20")
    assert _float_layers(context) == []
    assert [one.reason for one in context.remarks if "is kept by all in integers" in one.reason]


def test_the_higher_the_floor_the_more_is_float():
    proto, floors = conv_chain((3, 8, 8, 8, 8, 8)), (30, 46, 52)
    made = [_controlled(proto, f"min_sqnr={floor},{NEAREST}") for floor in floors]
    counts = [len(_float_layers(context)) for context in made]
    assert 0 == counts[0] < counts[1] < counts[2] < 6
    assert all(_fresh_sqnr(proto, context) > floor - 1 for context, floor in zip(made, floors, strict=True))


def test_four_bits_fall_back_to_eight_before_float():
    context = _controlled(mobilenet(), f"bits=4,min_sqnr=24,{NEAREST}", size=24)
    assert _float_layers(context) == []
    kinds = {
        str(node.input(1).producer.input(0).dtype) for node in context.model.graph.nodes if node.op == "Conv"
    }  # fmt: skip
    assert kinds == {"int4", "int8"}
    said = [str(one) for one in context.remarks if "keeps 8 bits" in one.reason]
    assert said
    assert any("units at 8 bits: SQNR" in one.reason for one in context.remarks)


def test_layers_are_ranked_by_the_scheme_that_is_asked_for(monkeypatch):
    """Blocks of 4 lose other layers' accuracy than a scale for each channel does."""
    seen, rank = [], fall_back.ranked_units

    def ranked(graph, context, dialect):
        seen.extend(value.qparams for value in graph.constants if value.qparams is not None)
        return rank(graph, context, dialect)

    monkeypatch.setattr(fall_back, "ranked_units", ranked)
    _controlled(_with_an_outlier(), f"min_sqnr=25,block=4,{NEAREST}")
    assert {qparams.block_size for qparams in seen} >= {4}


def test_labels_are_the_floor_where_there_are_some():
    proto = _with_an_outlier()
    labels = Evaluator(read(proto)).run({"x": _images()})["y"].argmax(1)
    context = _controlled(proto, f"max_loss=0.0,{NEAREST}", labels)
    assert _float_layers(context) == [2, 3]
    (summary,) = [one.reason for one in context.remarks if "is kept by" in one.reason]
    assert summary.startswith("the floor (at most 0 points of accuracy lost) is kept by 2 of 6 units in float: ")


def test_a_floor_that_nothing_holds_leaves_the_model():
    proto = conv_chain((3, 8, 8))
    context = _controlled(proto, f"min_sqnr=200,{NEAREST}")
    assert ops(context.model) == ops(optimized(proto, "clean").model)
    (remark,) = [str(one) for one in context.remarks if "nothing was quantized" in one.reason]
    assert remark.startswith(f"{PASS}: graph 'tiny': nothing was quantized: with 2 of 3 units in float: SQNR ")
    assert remark.endswith(
        "and the floor is SQNR of at least 200 dB (give a lower floor, more trials, or better options of quantize)"
    )


def test_a_model_that_misses_the_floor_before_it_is_quantized():
    context = Context(read(conv_chain((3, 24, 16))), data=Samples({"x": _images()}))
    manager.run(parse(f"clean,prune-channels{{ratio=0.5,criterion=l1}},{PASS}{{min_sqnr=60}}"), context)
    assert "QuantizeLinear" not in ops(context.model)
    (remark,) = [str(one) for one in context.remarks if one.pass_name == PASS]
    assert remark.startswith(
        f"{PASS}: graph 'tiny': nothing was quantized: the float model itself misses the floor (SQNR of at least 60 dB): SQNR "
    )
    assert remark.endswith("(give a lower floor, or prune less)")


def test_an_interrupt_keeps_the_best_model_so_far(monkeypatch):
    holds, seen = FallBack._holds, []

    def interrupted(search, levels):
        seen.append(search.reached)
        if search.reached is not None:
            raise KeyboardInterrupt
        return holds(search, levels)

    monkeypatch.setattr(FallBack, "_holds", interrupted)
    proto = _with_an_outlier()
    context = _controlled(proto, f"min_sqnr=25,{NEAREST}")
    assert 0 < len(_float_layers(context)) < 6
    assert _fresh_sqnr(proto, context) > 24
    assert any("stays float" in one.reason for one in context.remarks)
    assert f"{PASS}: interrupted: it ended early, with the best model so far" in [str(one) for one in context.remarks]


def test_layers_that_read_one_quantizer_fall_back_together():
    context = optimized(resnet(), "clean")
    found = groups(context.model.graph, "ort")
    together = [[node.op for node in nodes] for nodes in found if len(nodes) > 1]
    assert ["Conv", "Conv"] in [[op for op in one if op == "Conv"] for one in together]  # a branch and the shortcut beside it
    weighted = [node for nodes in found for node in nodes if node.op in ("Conv", "Gemm")]
    assert len(weighted) == len(set(weighted)) == ops(context.model)["Conv"] + ops(context.model)["Gemm"]
    manager.run_pass(Calibrate(), context)
    assert groups(context.model.graph, "ort") == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("trials=0", f"error[E203]: trials is out of range, pass {PASS}{{trials=0}}; it is at least 1"),
        ("max_loss=none,min_sqnr=none", f"error[E203]: there is no floor to keep, pass {PASS}{{max_loss=none,min_sqnr=none}}; "
         "give max_loss or min_sqnr"),
        ("validate=0.0", f"error[E203]: validate is out of range, pass {PASS}{{validate=0.0}}; it is a share of the samples, "
         "between 0 and 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(options, message):
    with pytest.raises(DeburrError) as caught:
        _controlled(conv_chain((3, 8)), options)
    assert str(caught.value) == message
