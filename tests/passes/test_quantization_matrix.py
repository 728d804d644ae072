"""Every case of the quantization matrix: valid, near the float model in ONNX Runtime with and without its optimizations."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto

from .quantization_matrix import CASES, calibration
from .quantizing import optimized, outputs, sqnr


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.spoil is None])
def test_case(name: str) -> None:
    case = CASES[name]
    proto = case.make()
    data = calibration(proto)
    result = to_proto(optimized(proto, case.pipeline, data=data).model)
    onnx.checker.check_model(result, full_check=True)
    onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    assert case.holds(result), case.expects
    exact = outputs(proto, data)
    for optimize in (False, True):
        for wanted, given in zip(exact, outputs(result, data, optimize=optimize), strict=True):
            assert np.isfinite(given).all()
            assert sqnr(wanted, given) > case.least


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.spoil is not None])
def test_what_is_not_finite_in_calibration_is_named(name: str) -> None:
    proto = CASES[name].make()
    with pytest.raises(DeburrError) as caught:
        optimized(proto, CASES[name].pipeline, data=CASES[name].spoiled(calibration(proto)))
    assert str(caught.value) == (
        "error[E304]: NaN or infinity in the data, memory, array 'x': in 1 samples, the first is number 0"
    )


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path) -> None:
    """Float weights beyond what one protobuf holds come in and go out as external data; the integers fit in a file again."""
    import deburr

    width, inner, source, target = 17408, 16384, tmp_path / "large.onnx", tmp_path / "small.onnx"
    builder, random = Builder(), np.random.default_rng(0)
    first, second = (builder.constant(random.standard_normal(shape, np.float32)) for shape in ((width, inner), (inner, width)))
    builder.node("MatMul", [builder.node("MatMul", ["x", first]), second], "y")
    graph = onnx.helper.make_graph(
        builder.nodes, "large",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", width])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", width])], builder.initializers,
    )  # fmt: skip
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    del builder
    onnx.save(proto, str(source), save_as_external_data=True, location="large.data")
    del graph, proto
    model = deburr.load(source)
    data = {"x": random.standard_normal((4, width), np.float32)}
    small = deburr.optimize(model, "quantize{rounding=nearest,observer=minmax}", data=data, seed=0)
    deburr.save(small, target)
    assert sum(path.stat().st_size for path in tmp_path.glob("large.*")) > 2**31
    assert sum(path.stat().st_size for path in tmp_path.glob("small*")) < 2**30
    assert sqnr(deburr.run(source, data)["y"], deburr.run(target, data)["y"]) > 25
