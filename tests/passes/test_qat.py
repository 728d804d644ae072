"""Quantization-aware training: the rounding in the loop, its gradients, and what ONNX Runtime makes of the result."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import concat_branches, depthwise_separable, perceptron, residual_block, samples

from deburr.ir.duplicate import duplicate
from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_writer import to_proto
from deburr.ir.types import DType, QParams
from deburr.passes.quantize.arithmetic import round_trip
from deburr.passes.quantize.dialects import DIALECTS, find_dialect

from .training import Stopped, context_of, counting, error, remarks, run, stop_after, torch, trained, weights

NOTED = "clean,calibrate,scale-weights"
TUNED = "qat{epochs=6,lr=0.002,batch=16}"
PROTO = residual_block()


def fake(qparams: QParams):
    from deburr.passes.recover.learning.fake_quantize import FakeQuantize

    return FakeQuantize(qparams)


@given(st.data())
def test_it_rounds_as_the_emitted_model_does(data):
    dtype = data.draw(st.sampled_from([DType.UINT8, DType.INT8, DType.INT4, DType.UINT4]))
    bits = data.draw(st.sampled_from([None, 3]))
    axis, block = data.draw(st.sampled_from([(None, None), (0, None), (1, None), (1, 2)]))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    shape = () if axis is None else (3,) if block is None else (3, 2, 5)
    scale = random.uniform(0.001, 0.1, shape).astype(np.float32)
    zero = np.zeros(shape, np.int32) + (0 if dtype.name.startswith("I") else int(random.integers(0, 7)))
    qparams = QParams(np.asarray(scale), zero, dtype, axis, block, bits)
    x = random.standard_normal((3, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(fake(qparams)(torch.from_numpy(x)).detach().numpy(), round_trip(x, qparams))


def test_gradients_are_those_of_learned_step_size_quantization():
    """Straight through inside the range; for the scale round(v) - v there, the bounds outside, over sqrt(count · largest)."""
    quantizer = fake(QParams(np.asarray(0.5, np.float32), np.asarray(0, np.int32), DType.INT4))
    x = torch.tensor([0.6, -1.3, 9.0, -9.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    slopes = [1 - 1.2, -3 + 2.6, 7, -8]
    assert float(quantizer.log_factor.grad) == pytest.approx(sum(slopes) / 0.5 / np.sqrt(4 * 7), rel=1e-5)


def in_torch(model, dialect: str, data: dict) -> np.ndarray:
    from deburr.passes.recover.learning.module import TorchModel
    from deburr.passes.recover.learning.rounding import round_as

    module = TorchModel(duplicate_with_scales(model))
    assert round_as(module, find_dialect(dialect)) is not None
    with torch.no_grad():
        return next(iter(module({name: torch.from_numpy(array) for name, array in data.items()}).values())).numpy()


def duplicate_with_scales(model):
    """Scales are notes on values, which no file holds."""
    made = duplicate(model)
    for value in model.graph.values:
        if value.qparams is not None:
            made.graph.set_qparams(made.graph.value(value.name), value.qparams)
    return made


MODELS = {
    "residual": residual_block(shortcut=True),
    "depthwise": depthwise_separable(),
    "concat": concat_branches(),
    "mlp": perceptron(),
}


@pytest.mark.parametrize(("bits", "activations"), [(8, ""), (4, ""), (4, "bits=4,")], ids=["W8A8", "W4A8", "W4A4"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", MODELS)
def test_onnx_runtime_gives_what_the_module_gave(name, dialect, bits, activations):
    """Within a step of the output's range in 8 bits."""
    proto = MODELS[name]
    option = f"{{dialect={dialect}}}"
    noted = f"clean,calibrate{{{activations}dialect={dialect}}},scale-weights{{bits={bits},smallest=0,dialect={dialect}}}"
    context = trained(proto, f"{noted},qat{{epochs=2,lr=0.002,batch=16,dialect={dialect}}}", count=64)
    data = samples(proto, 16, seed=4)
    expected = in_torch(context.model, dialect, data)
    run(context, f"insert-qdq{option}")
    found = next(iter(Evaluator(context.model).run(data).values()))
    step = float(np.ptp(expected)) / 255
    assert np.abs(found - expected).max() <= 1.001 * step


@pytest.mark.parametrize("name", ["residual"])
def test_four_bits_lose_less_after_training(name):
    proto = MODELS[name]
    rounded = trained(proto, f"{NOTED}{{bits=4,smallest=0}},insert-qdq")
    context = trained(proto, f"{NOTED}{{bits=4,smallest=0}},{TUNED},insert-qdq")
    assert error(context.model, proto) < 0.6 * error(rounded.model, proto)


@pytest.mark.parametrize(
    "form",
    ["{bits=4,scheme=affine}", "{bits=4,block=16}", "{bits=3}", "{bits=4,scheme=affine,block=16}"],
)
def test_onnx_runtime_gives_what_the_module_gave_in_every_form_of_weights(form):
    proto = residual_block(channels=32)
    context = trained(proto, f"{NOTED}{form},qat{{epochs=2,lr=0.002,batch=16}}", count=64)
    data = samples(proto, 16, seed=4)
    expected = in_torch(context.model, "ort", data)
    run(context, "insert-qdq")
    found = Evaluator(context.model).run(data)["y"]
    assert np.abs(found - expected).max() <= 1.001 * float(np.ptp(expected)) / 255


def test_weights_and_activations_of_four_bits():
    noted = "clean,calibrate{bits=4},scale-weights{bits=4,smallest=0}"
    before = trained(PROTO, f"{noted},insert-qdq")
    after = trained(PROTO, f"{noted},qat{{epochs=12,lr=0.005,batch=16}},insert-qdq")
    assert error(after.model, PROTO) < 0.5 * error(before.model, PROTO)


def test_weights_lie_on_their_grid_and_keep_one_scale_a_channel():
    context = trained(PROTO, f"{NOTED}{{bits=4}},{TUNED}")
    noted = [value for value in context.model.graph.constants if value.qparams is not None and value.array.ndim > 1]
    assert noted
    for value in noted:
        assert value.qparams.scale.shape == (len(value.array),)
        np.testing.assert_array_equal(round_trip(value.array, value.qparams), value.array)


@pytest.mark.parametrize("pruning", ["sparsity=0.7", "pattern=(2,4)"])
def test_pruned_weights_stay_zero(pruning):
    before = weights(trained(PROTO, f"clean,prune-weights{{{pruning}}}").model)
    after = weights(trained(PROTO, f"clean,prune-weights{{{pruning}}},calibrate,scale-weights,{TUNED}").model)
    for name, array in before.items():
        if array.ndim > 1:
            assert (after[name][array == 0] == 0).all()


def test_without_notes_it_says_what_is_missing():
    context = trained(PROTO, "clean,qat")
    assert remarks(context, "qat") == [
        "qat: graph 'tiny': no weights are to be rounded (run calibrate and scale-weights first)"
    ]


def test_a_quantized_model_is_left_alone():
    context = context_of(PROTO)
    run(context, "clean,quantize{rounding=nearest}")
    before = context.model.revision
    run(context, "qat")
    assert context.model.revision == before
    assert "the model is quantized already (train before insert-qdq)" in remarks(context, "qat")[0]


@pytest.mark.parametrize("other", ["scale-weights{bits=4}", "scale-weights{bits=3}"])
def test_a_checkpoint_of_other_scales_is_refused(other, tmp_path):
    """The weights that it starts from are the same."""
    end = f"qat{{epochs=1,checkpoint={tmp_path}/state.npz}}"
    trained(PROTO, f"{NOTED},{end}")
    with pytest.raises(DeburrError, match=r"E203\]: the checkpoint is of another training"):
        trained(PROTO, f"clean,calibrate,{other},{end}")


def test_a_training_that_dies_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from deburr.passes.recover.learning import trainer

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    pipeline = f"{NOTED}{{bits=4}},qat{{epochs=3,lr=0.01,batch=16,checkpoint={tmp_path}/state.npz}},insert-qdq"
    stopped = context_of(PROTO)
    stopped.progress = stop_after(8, Stopped)
    with pytest.raises(DeburrError, match="Stopped"):
        run(stopped, pipeline)
    resumed, counted = context_of(PROTO), []
    resumed.progress = counting(counted)
    run(resumed, pipeline)
    assert len(counted) == 18 - 8
    whole = trained(PROTO, f"{NOTED}{{bits=4}},qat{{epochs=3,lr=0.01,batch=16}},insert-qdq")
    assert (to_proto(resumed.model).SerializeToString(deterministic=True)) == to_proto(whole.model).SerializeToString(
        deterministic=True
    )
