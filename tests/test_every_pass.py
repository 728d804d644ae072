"""What every pass of the registry keeps, built in or not: a new pass is tested by having a line in the table."""

import dataclasses
import re

import numpy as np
import onnx
import pytest
from models import (
    branch_on_sum,
    concat_branches,
    conv_chain,
    custom_function,
    depthwise_separable,
    perceptron,
    residual_block,
    samples,
)

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.ir.verify import verify
from deburr.passes import manager, registry
from deburr.passes.core import Context
from deburr.passes.instruments import VerifyEach
from deburr.passes.options import option_types
from deburr.passes.pipeline import Pipeline, parse

MODELS = {
    "conv chain": conv_chain(),
    "conv chain at opset 11": conv_chain(opset=11),
    "residual": residual_block(shortcut=True),
    "depthwise": depthwise_separable(),
    "concat": concat_branches(),
    "perceptron": perceptron(),
    "branch": branch_on_sum(),
    "function": custom_function(),
}
PASSES = sorted(registry.passes())
RECIPES = sorted(registry.recipes())


def require_extras(pipeline: Pipeline) -> None:
    """Skip what needs torch where it is not installed; where it is, one thread is enough for models of this size."""
    if any(one.needs_torch for one in pipeline.passes):
        pytest.importorskip("torch", reason="the extra deburr[train] is not installed").set_num_threads(1)


def run(proto: onnx.ModelProto, pipeline: Pipeline) -> Context:
    """The pipeline on a fresh copy, with data for passes that ask for it."""
    model = read(proto)
    verify(model)
    context = Context(model, data=Samples(samples(proto, 16, seed=2)), seed=3)
    manager.run(pipeline, context, [VerifyEach()])
    return context


def error(before: onnx.ModelProto, after: onnx.ModelProto) -> float:
    """The largest difference of an output, relative to its largest element."""
    data = samples(before)
    expected, found = (Evaluator(read(proto)).run(data) for proto in (before, after))
    assert {name: (array.dtype, array.shape) for name, array in expected.items()} == {
        name: (array.dtype, array.shape) for name, array in found.items()
    }
    assert all(np.isfinite(array).all() for array in found.values())
    return max(float(np.abs(found[name] - array).max() / np.abs(array).max()) for name, array in expected.items())


def test_nothing_is_broken():
    assert registry.broken() == []


@pytest.mark.parametrize("name", PASSES)
class TestContract:
    def test_the_name_is_kebab_case_and_the_key(self, name):
        assert registry.passes()[name].name == name
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)

    def test_it_says_what_it_does(self, name):
        """`deburr passes` prints the first line; a dataclass without a docstring would have its signature there."""
        first = (registry.passes()[name].__doc__ or "").strip().split("\n")[0]
        assert len(first) > 20
        assert first.endswith(".")
        assert not first.startswith(registry.passes()[name].__name__)

    def test_it_is_a_frozen_value(self, name):
        kind = registry.passes()[name]
        assert kind() == kind()
        assert hash(kind()) == hash(kind())
        for option in dataclasses.fields(kind):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(kind(), option.name, None)

    def test_the_text_round_trips(self, name):
        kind = registry.passes()[name]
        assert str(kind()) == name
        written = ",".join(f"{key}={_written(kind, key)}" for key in option_types(kind))
        text = f"{name}{{{written}}}" if written else name
        assert parse(text) == Pipeline((kind(),))


def _written(kind, option) -> str:
    from deburr.passes.options import print_value

    return print_value(getattr(kind(), option))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [*PASSES, *RECIPES])
def test_on_a_model(name, model):
    """Valid before and after, within the tolerance, the same for the same seed, and a second run changes nothing."""
    proto, pipeline = MODELS[model], parse(name)
    require_extras(pipeline)
    context = run(proto, pipeline)
    after = to_proto(context.model)
    onnx.checker.check_model(after, full_check=True)
    difference = error(proto, after)
    tolerances = [one.tolerance for one in pipeline.passes]
    if None not in tolerances:
        assert difference <= sum(tolerances)
    assert to_proto(run(proto, pipeline).model).SerializeToString(deterministic=True) == after.SerializeToString(
        deterministic=True
    )
    if all(one.idempotent for one in pipeline.passes):
        revision = context.model.revision
        manager.run(pipeline, context)
        assert context.model.revision == revision
