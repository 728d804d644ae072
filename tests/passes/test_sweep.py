"""A sweep gives what the whole model gives, and runs no node twice."""

import numpy as np
import pytest
from models import conv_chain, residual_block

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes.linear import sweep as room
from deburr.passes.linear.sweep import Sweep


def _samples(count=10):
    return Samples({"x": np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)})


@pytest.mark.parametrize("proto", [conv_chain((3, 4, 5)), residual_block(6, shortcut=True)], ids=["chain", "residual"])
def test_every_value_in_turn_equals_the_whole_model(proto):
    model, samples = read(proto), _samples()
    values = [value for node in model.graph.nodes for value in (node.input(0), *node.outputs) if value is not None]
    whole = Evaluator(model, capture=[value.name for value in values]).run(samples.inputs)
    sweep = Sweep(model, samples, 4)
    for value in values:
        (got,) = zip(*sweep.values([value]), strict=True)
        assert [len(batch) for batch in got] == [4, 4, 2]
        np.testing.assert_allclose(np.concatenate(got), whole[value.name], rtol=1e-4, atol=1e-5)


def test_no_node_runs_twice(monkeypatch):
    ran: list[str] = []

    class Counting(Evaluator):
        def __init__(self, model, **options):
            ran.extend(node.op for node in model.graph.nodes)
            super().__init__(model, **options)

    monkeypatch.setattr(room, "Evaluator", Counting)
    model = read(residual_block(6, shortcut=True))
    sweep = Sweep(model, _samples(), 4)
    nodes = list(model.graph.nodes)
    for node in nodes:
        list(sweep.values([node.input(0)]))
    assert sorted(ran) == sorted(node.op for node in nodes[:-1])


def test_nodes_to_come_may_change():
    model, samples = read(conv_chain((3, 4, 5))), _samples()
    first, second = [node for node in model.graph.nodes if node.op == "Conv"]
    sweep = Sweep(model, samples, 4)
    list(sweep.values([first.input(0)]))
    model.graph.set_constant(first.input(1), first.input(1).array * 2)
    (got,) = zip(*sweep.values([second.input(0)]), strict=True)
    whole = Evaluator(model, capture=[second.input(0).name]).run(samples.inputs)[second.input(0).name]
    np.testing.assert_allclose(np.concatenate(got), whole, rtol=1e-4, atol=1e-5)


def test_a_value_that_is_gone_is_computed_from_the_start():
    model, samples = read(conv_chain((3, 4, 5))), _samples()
    values = [node.output() for node in model.graph.nodes]
    sweep = Sweep(model, samples, 4)
    list(sweep.values([values[-1]]))
    (got,) = zip(*sweep.values([values[0]]), strict=True)
    whole = Evaluator(model, capture=[values[0].name]).run(samples.inputs)[values[0].name]
    np.testing.assert_allclose(np.concatenate(got), whole, rtol=1e-4, atol=1e-5)
