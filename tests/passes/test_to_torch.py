"""A model as a torch module: the same numbers as ONNX Runtime, gradients that are right, and what is refused."""

import numpy as np
import pytest
from models import Builder, conv_chain, depthwise_separable, perceptron, residual_block, samples

import deburr
import deburr.train
from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read

from .matrix import FROZEN, PRUNABLE, case
from .quantizing import mobilenet, resnet

torch = pytest.importorskip("torch", reason="the extra deburr[train] is not installed")

# What no gradient passes through, with weights in front of it.
REFUSED = {
    "choice_of_boxes": "NonMaxSuppression",
    "if_branches": "If",
    "loop_body": "Loop",
    "quantized_activations": "QuantizeLinear",
    "quantized_by_a_computed_scale": "QuantizeLinear",
    "quantized_per_channel": "QuantizeLinear",
    "quantized_shared": "QuantizeLinear",
}


def tensors(data: dict) -> dict:
    return {name: torch.from_numpy(array) for name, array in data.items()}


def difference(proto) -> float:
    """The largest difference of an output from ONNX Runtime's, relative to its largest element."""
    data = samples(proto)
    expected, module = Evaluator(read(proto)).run(data), deburr.train.to_torch(read(proto))
    with torch.no_grad():
        found = module(tensors(data))
    assert {name: array.shape for name, array in expected.items()} == {name: tuple(one.shape) for name, one in found.items()}
    return max(float(np.abs(found[name].numpy() - array).max() / np.abs(array).max()) for name, array in expected.items())


@pytest.mark.parametrize("name", sorted({**PRUNABLE, **FROZEN}))
def test_every_wiring_of_the_matrix_gives_the_same_numbers(name):
    proto = case(name)
    if name in REFUSED:
        with pytest.raises(DeburrError, match=rf"error\[E207\]: {REFUSED[name]} cannot be trained"):
            deburr.train.to_torch(read(proto))
    else:
        assert difference(proto) < 1e-4


@pytest.mark.parametrize(
    "proto",
    [
        conv_chain(),
        conv_chain(opset=11),
        residual_block(shortcut=True),
        depthwise_separable(),
        perceptron(),
        resnet(),
        mobilenet(),
    ],
)
def test_networks_give_the_same_numbers(proto):
    assert difference(proto) < 1e-4


def test_a_refusal_names_the_operator_and_why():
    with pytest.raises(DeburrError) as caught:
        deburr.train.to_torch(read(case("quantized_shared")))
    assert str(caught.value) == (
        "error[E207]: QuantizeLinear cannot be trained through, node QuantizeLinear 'QuantizeLinear_5': "
        "torch does not compute it, and what stands in front of it trains; train before insert-qdq"
    )


def test_an_operator_without_gradient_runs_in_front_of_the_weights():
    builder = Builder()
    builder.gemm(builder.node("Hardmax", ["x"]), 6, 4, "y")
    proto = builder.model({"x": ["batch", 6]}, {"y": ["batch", 4]})
    assert difference(proto) < 1e-6
    module = deburr.train.to_torch(read(proto))
    module(tensors(samples(proto)))["y"].square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in module.weights)


@pytest.mark.parametrize("proto", [residual_block(), case("layer_scale"), case("shared_weights"), case("one_dimensional")])
def test_gradients_are_those_of_the_model_in_onnx_runtime(proto):
    """Along a random direction in the space of all weights, against central differences."""
    data, model = samples(proto), read(proto)
    module = deburr.train.to_torch(model)
    sum(output.square().sum() for output in module(tensors(data)).values()).backward()
    random = np.random.default_rng(0)
    directions = [random.standard_normal(weight.shape).astype(np.float32) for weight in module.weights]
    slope = sum(float((weight.grad.numpy() * way).sum()) for weight, way in zip(module.weights, directions, strict=True))

    def loss(step: float) -> float:
        for (name, weight), way in zip(module.named_weights(), directions, strict=True):
            value = model.graph.value(name)
            model.graph.set_constant(value, weight.detach().numpy() + np.float32(step) * way)
        return sum(float(np.square(array.astype(np.float64)).sum()) for array in Evaluator(model).run(data).values())

    assert (loss(1e-3) - loss(-1e-3)) / 2e-3 == pytest.approx(slope, rel=2e-2)


def test_a_loop_of_ones_own_gives_a_model_that_computes_what_was_trained(tmp_path):
    proto = residual_block(shortcut=True)
    model, data = read(proto), samples(proto, 16)
    module = deburr.train.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.mse_loss(module(tensors(data))["y"], torch.ones(16, 10)))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    before = Evaluator(model).run(data)["y"]
    np.testing.assert_array_equal(before, Evaluator(read(proto)).run(data)["y"])
    deburr.save(deburr.train.from_torch(module), tmp_path / "trained.onnx")
    after = Evaluator(deburr.load(tmp_path / "trained.onnx")).run(data)["y"]
    np.testing.assert_allclose(after, module(tensors(data))["y"].detach().numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_weights_have_the_names_of_the_model_and_statistics_do_not_train():
    model = read(conv_chain())
    names = [name for name, _ in deburr.train.to_torch(model).named_weights()]
    node = next(node for node in model.graph.nodes if node.op == "BatchNormalization")
    assert {node.input(1).name, node.input(2).name} <= set(names)
    assert not {node.input(3).name, node.input(4).name} & set(names)
