"""Statistics of BatchNormalization, measured anew on the data."""

import numpy as np
from models import conv_chain, residual_block, samples

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.pipeline import parse

PROTO = conv_chain((3, 8, 16, 16))


def run(pipeline: str, proto=PROTO, count: int = 100) -> Context:
    context = Context(read(proto), data=Samples(samples(proto, count)))
    manager.run(parse(pipeline), context)
    return context


def test_what_is_normalized_has_mean_0_and_variance_1_on_the_data():
    """Also behind normalizations that were measured anew themselves."""
    context = run("reestimate-batch-norm")
    nodes = [node for node in context.model.graph.nodes if node.op == "BatchNormalization"]
    found = Evaluator(context.model, capture=[node.input(0).name for node in nodes]).run(samples(PROTO, 100))
    for node in nodes:
        x = found[node.input(0).name].astype(np.float64)
        np.testing.assert_allclose(node.input(3).array, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(node.input(4).array, x.var((0, 2, 3)), rtol=1e-4)


def test_it_mends_what_changed_weights_did_to_the_statistics():
    """A model whose statistics are those of its data, weights pruned: measured anew they are right again."""
    trained = run("reestimate-batch-norm").model
    data = samples(PROTO, 64, seed=7)
    expected = Evaluator(trained).run(data)["y"]

    def error(pipeline: str) -> float:
        context = Context(trained_copy(), data=Samples(samples(PROTO, 100)))
        manager.run(parse(pipeline), context)
        return float(np.square(Evaluator(context.model).run(data)["y"] - expected).mean())

    def trained_copy():
        from deburr.ir.duplicate import duplicate

        return duplicate(trained)

    assert error("prune-weights{sparsity=0.7},reestimate-batch-norm") < 0.8 * error("prune-weights{sparsity=0.7}")


def test_behind_folding_there_is_nothing_to_measure():
    context = run("clean,reestimate-batch-norm", residual_block(shortcut=True))
    assert [str(remark) for remark in context.remarks] == [
        "reestimate-batch-norm: graph 'tiny': no BatchNormalization is left (put it before fold-batch-norm)"
    ]
