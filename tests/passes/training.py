"""Helpers of the tests that train: torch on one thread, small models, and contexts that stop in the middle."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import samples

from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.pipeline import parse

torch = pytest.importorskip("torch", reason="the extra deburr[train] is not installed")
torch.set_num_threads(1)  # workers of a test run share the cores


def context_of(proto: onnx.ModelProto, count: int = 96, labels: np.ndarray | None = None, seed: int = 0) -> Context:
    return Context(read(proto), data=Samples(samples(proto, count), labels), seed=seed)


def run(context: Context, pipeline: str) -> Context:
    manager.run(parse(pipeline), context)
    return context


def trained(proto: onnx.ModelProto, pipeline: str, **options) -> Context:
    return run(context_of(proto, **options), pipeline)


def error(model: Model, proto: onnx.ModelProto) -> float:
    """Against the original on samples that nothing was fitted to: squared error relative to the variance, over all outputs."""
    data = samples(proto, 64, seed=9)
    expected, found = Evaluator(read(proto)).run(data), Evaluator(model).run(data)
    return max(float(np.square(found[name] - array).mean() / array.var()) for name, array in expected.items())


def weights(model: Model) -> dict[str, np.ndarray]:
    return {value.name: np.array(value.array) for value in model.graph.constants}


def remarks(context: Context, name: str) -> list[str]:
    return [str(remark) for remark in context.remarks if remark.pass_name == name]


class Stopped(Exception):
    """Stands for a process that dies."""


def stop_after(steps: int, error: type[BaseException]):
    """Progress bars that raise once so many batches are done, over all epochs."""
    done = []

    def progress(items, total, description):
        for item in items:
            yield item
            if isinstance(description, str) and description.startswith("epoch"):
                done.append(item)
                if len(done) == steps:
                    raise error

    return progress


def counting(done: list):
    """Progress bars that note every batch that is trained on."""

    def progress(items, total, description):
        for item in items:
            yield item
            if isinstance(description, str) and description.startswith("epoch"):
                done.append(item)

    return progress
