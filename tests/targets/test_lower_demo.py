"""The demo's network, quantized by deburr: every quantized tensor against ONNX Runtime, and the predictions."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from program import integers, lowered, plain

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import load_samples
from deburr.ir.types import TensorType
from deburr.passes import manager, pipeline
from deburr.passes.core import Context
from deburr.targets import worker
from deburr.targets.emit import emit
from deburr.targets.kernels import pack
from deburr.targets.link import find_host
from deburr.targets.runtime import Program
from deburr.targets.target import find

DEMO = Path(__file__).parents[2] / "examples" / "fashion_mnist"
TARGET = "x86-64-v3"


@pytest.fixture(scope="module")
def demo():
    """The QDQ model as a proto, and images."""
    model = read(DEMO / "model.onnx")
    context = Context(model, data=load_samples(DEMO / "calibration.npz", model.graph).take(64))
    manager.run(pipeline.parse("int8"), context)
    with np.load(DEMO / "evaluation.npz") as data:
        return to_proto(context.model), data["image"]


def feed_every_tensor(model, names):
    """Cut the lowered graph at its quantized tensors: readers get them as inputs, so that no difference travels on."""
    graph, fed = model.graph, []
    for name in names:
        value = graph.value(name)
        given = graph.add_value(f"{name} given", TensorType(value.dtype, value.static_shape))
        value.replace_uses(given)
        fed.append(given)
    graph.set_inputs([*graph.inputs, *fed])


def program(model, capture):
    """The compiled model, its captured values behind its outputs."""
    target = find(TARGET)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "model.so"
        worker.compile_module(emit(model, target, capture), target, library, [find_host()])
        inputs = [value for value in model.graph.inputs if value.constant is None]
        return Program(library, {"main": [(value.static_shape, value.dtype.numpy) for value in inputs]}, 2)


def test_every_operator_is_within_one_of_onnx_runtime(demo):
    """Each operator of the real network on ONNX Runtime's own integers: its result is at most one step away."""
    proto, images = demo
    original, model, _ = lowered(proto, TARGET, fuse_sums=False)
    names = [name for name in integers(model) if any(value.name == name for value in original.graph.values)]
    feed_every_tensor(model, names)
    compiled, reference = program(model, names), Evaluator(original, capture=names)
    outputs, elements, off = len(model.graph.outputs), 0, 0
    for image in images[:4]:
        expected = reference.run({"image": image[None]})
        fed = [pack.pack_activation(_image(expected[name]), find(TARGET).block) for name in names[1:]]
        stem = pack.pack_activation(_image(expected[names[0]]), model.graph.value(names[0]).static_shape[-1])
        results = compiled.run([image[None], stem, *fed])[outputs:]
        for name, result in zip(names, results, strict=True):
            steps = np.abs(plain(result, expected[name].shape).astype(np.int32) - expected[name])
            assert steps.max() <= 1, name
            elements, off = elements + steps.size, off + int((steps > 0).sum())
    assert len(names) >= 20
    assert off / elements < 1e-4  # a tie that float32 sums decide otherwise, here and there


def test_the_whole_network_gives_the_integers_of_onnx_runtime(demo):
    """From image to logits, nothing fed: every quantized tensor is that of ONNX Runtime's integer kernels.

    With its optimizations off, ONNX Runtime computes in float32; its own two modes then differ by up to 3, after layers that
    amplify a tie which a float sum decided otherwise.
    """
    proto, images = demo
    original, model, _ = lowered(proto, TARGET, fuse_sums=False)
    names = [name for name in integers(model) if any(value.name == name for value in original.graph.values)]
    compiled, peer = program(model, names), Evaluator(original, capture=names, optimize=True)
    for image in images[:32]:
        expected = peer.run({"image": image[None]})
        results = compiled.run([image[None]])[len(model.graph.outputs) :]
        for name, result in zip(names, results, strict=True):
            np.testing.assert_array_equal(plain(result, expected[name].shape), expected[name], err_msg=name)


def test_predictions_agree_with_onnx_runtime(demo):
    proto, images = demo
    original, model, _ = lowered(proto, TARGET)
    compiled, reference = program(model, ()), Evaluator(original)
    ours = np.concatenate([compiled.run([image[None]])[0] for image in images[:400]])
    theirs = reference.run({"image": images[:400]})["logits"]
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.995


def _image(array):
    return array if array.ndim == 4 else array[:, :, None, None]
