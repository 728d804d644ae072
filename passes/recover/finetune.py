"""Fine-tuning: what pruning and the like left of a model is trained until it gives again what the original gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.graph import Graph
from deburr.passes.core import Context
from deburr.passes.recover.training import TrainingPass, keep_zeros, require_training


@dataclass(frozen=True)
class Finetune(TrainingPass):
    """Train the weights that are left, on the outputs of the original model, on labels, or on both.

    The original is the model as the pipeline got it (Hinton et al. 2015, "Distilling the knowledge in a neural network"), or
    another ONNX file, `teacher`. With `loss=auto` labels count where the data has them. Weights, biases, and scales and shifts
    of normalizations train; statistics of BatchNormalization stay. Shapes stay, and so do the zeros of pruned weights unless
    `keep_zeros=false`.

    The learning rate rises to `lr` over the share `warmup` of the steps and falls to 0 along a cosine. A share `validate` of
    the samples is kept apart: the epoch with the lowest loss on them is what remains, and after `patience` epochs without a
    lower one training ends. `augment=module:function` names a function of (arrays by input name, numpy Generator) that
    changes each batch; the labels are among the arrays as `labels`, and where it mixes samples it gives them back as shares
    of the classes. `precision=bfloat16` saves time on CPUs that compute in it. With a file as `checkpoint`, training that
    was killed goes on from there, to the same weights. `curve` is a picture of the losses to write. Ctrl-C ends the pass with
    the best epoch so far.
    """

    name: ClassVar[str] = "finetune"

    keep_zeros: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E902 without torch; E203 for an option out of its range; E206 without data, or labels that the
        loss needs; E207 for an operator that no gradient passes through; E305 for too few samples."""
        self._check()
        require_training(self, context)
        module = self._module(graph, context)
        if module is None:
            return
        trainer = self._trainer(module, context, self.precision)
        if self.keep_zeros:
            keep_zeros(trainer)
        self._train(trainer, graph, context)
