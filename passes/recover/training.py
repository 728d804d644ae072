"""What the passes that train have in common: options, data and teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from deburr.ir.duplicate import duplicate
from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import fixed_batch
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.samples import Samples
from deburr.passes.core import Context, Pass
from deburr.passes.options import print_options
from deburr.passes.recover.batches import Batches, find_augmentation
from deburr.passes.recover.curve import draw, require_matplotlib
from deburr.passes.recover.extra import require_torch
from deburr.passes.recover.weights import explain_frozen, trainable, zeros

if TYPE_CHECKING:
    from deburr.passes.recover.learning.losses import Loss
    from deburr.passes.recover.learning.module import TorchModel
    from deburr.passes.recover.learning.trainer import Trainer
    from deburr.passes.recover.teacher import Teacher

Aim = Literal["auto", "labels", "distill", "both"]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class TrainingPass(Pass):
    """The options of training; a subclass says what the module is."""

    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    needs_torch: ClassVar[bool] = True
    needs_original: ClassVar[bool] = True
    keeps_best: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False
    tolerance: ClassVar[float | None] = None

    epochs: int = 10
    lr: float = 0.001
    loss: Aim = "auto"
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0001
    batch: int = 64
    warmup: float = 0.05
    validate: float = 0.1
    patience: int | None = None
    augment: str = ""
    teacher: str = ""
    curve: str = ""
    checkpoint: str = ""

    def _check(self) -> None:
        for option, right, hint in (
            ("epochs", self.epochs >= 1, "it is at least 1"),
            ("lr", 0 < self.lr < float("inf"), "it is above 0"),
            ("weight_decay", self.weight_decay >= 0, "it is at least 0"),
            ("batch", self.batch >= 1, "it is at least 1"),
            ("warmup", 0 <= self.warmup < 1, "it is a share of the steps, from 0 to below 1"),
            ("validate", 0 < self.validate < 1, "it is a share of the samples, between 0 and 1"),
            ("patience", self.patience is None or self.patience >= 0, "it is a number of epochs, or none"),
        ):
            if not right:
                raise DeburrError("E203", f"{option} is out of range", where=f"pass {self}", hint=hint)
        if self.curve:
            require_matplotlib(Path(self.curve), f"pass {self.name}")

    def _module(self, graph: Graph, context: Context) -> TorchModel | None:
        """The module to train; None, with a remark, where nothing trains.

        :raises DeburrError: E207 for an operator that no gradient passes through.
        """
        from deburr.passes.recover.learning.module import TorchModel

        explain_frozen(graph, context)
        if not trainable(graph):
            context.remark(f"graph {graph.name!r}", "nothing in it trains", "it holds no float32 weights")
            return None
        return TorchModel(context.model)

    def _trainer(self, module: TorchModel, context: Context, precision: str = "float32") -> Trainer:
        """:raises DeburrError: E206 without the labels that the loss needs, E305 with too few samples, E203 for an augmentation
        that is not there, and what the teacher's file raises."""
        import torch

        from deburr.passes.recover.learning.trainer import Settings, Trainer

        data, where = context.data, f"pass {self}"
        assert data is not None
        held_out, fit = data.split(self.validate, context.random())
        size = fixed_batch(context.model)
        batches, apart = (Batches(part, size or self.batch, size is not None) for part in (fit, held_out))
        loss, teacher = self._loss(batches, context)
        module.to(memory_format=torch.channels_last)
        settings = Settings(
            epochs=self.epochs, lr=self.lr, optimizer=self.optimizer, weight_decay=self.weight_decay, warmup=self.warmup,
            patience=self.patience, bfloat16=precision == "bfloat16", seed=int(context.random().integers(2**31)),
            augment=find_augmentation(self.augment, where), checkpoint=Path(self.checkpoint) if self.checkpoint else None,
            identity=self._identity(context) if self.checkpoint else "",
        )  # fmt: skip
        return Trainer(module, loss, teacher, (batches, apart), settings)

    def _train(self, trainer: Trainer, graph: Graph, context: Context, written: Callable[[], None] = lambda: None) -> None:
        """Train; what was best goes into the graph, also after a KeyboardInterrupt.

        :param written: called once the weights are in the graph.
        """
        try:
            trainer.run(context.progress)
        finally:
            if trainer.progress.best_epoch:
                trainer.module.write_back()
                written()
            _explain(trainer, graph, context, self.curve)

    def _loss(self, batches: Batches, context: Context) -> tuple[Loss, Teacher | None]:
        """The loss, and who says what the outputs should be."""
        from deburr.passes.recover.learning.losses import Loss, float_outputs, labelled_output
        from deburr.passes.recover.teacher import Teacher

        assert context.data is not None
        graph, labels, aim = context.model.graph, context.data.labels, self._aim(context.data)
        labelled = labelled_output(graph, labels, f"pass {self}") if aim != "distill" and labels is not None else None
        names = [value.name for value in float_outputs(graph)] if aim != "labels" else []
        if not names and labelled is None:
            hint = "train the part of the model in front of it"
            raise DeburrError(
                "E206", "there is nothing to learn from", where=f"pass {self}", why="no output is float", hint=hint
            )
        if not names:
            return Loss({}, labelled), None
        teacher = Teacher(self._original(context), names)
        first = teacher.outputs(next(batches.in_order()), keep=False)
        return Loss({name: float(np.asarray(first[name], np.float64).var()) for name in names}, labelled), teacher

    def _aim(self, data: Samples) -> str:
        if self.loss in ("labels", "both") and data.labels is None:
            raise DeburrError(
                "E206", f"loss={self.loss} needs labels", where=f"pass {self}", why=f"{data.source} has none",
                hint="add an array `labels` [samples] to the data, or train with loss=distill",
            )  # fmt: skip
        if self.loss != "auto":
            return self.loss
        return "distill" if data.labels is None else "both"

    def _original(self, context: Context) -> Model:
        """The model that is learnt from: the file of `teacher`, else the model as the pipeline got it.

        Where a pass runs without a pipeline, that is the model before pruning, or as it is.

        :raises DeburrError: E101 to E106 for the file, E206 where it lacks an input or output.
        """
        if self.teacher:
            return self._read_teacher(context.model)
        if context.original is None:
            context.original = context.reference.model if context.reference is not None else duplicate(context.model)
        return context.original

    def _read_teacher(self, model: Model) -> Model:
        from deburr.ir.onnx_reader import read

        found = read(Path(self.teacher))
        for kind in ("inputs", "outputs"):
            mine, theirs = ({value.name for value in getattr(one.graph, kind)} for one in (model, found))
            wrong = (theirs - mine) if kind == "inputs" else (mine - theirs)
            if wrong:
                raise DeburrError(
                    "E206", f"the teacher's {kind} are others", where=self.teacher, why=f"{', '.join(sorted(wrong))} differ",
                    hint="a teacher has the input and output names of the model that learns",
                )  # fmt: skip
        return found

    def _identity(self, context: Context) -> str:
        """Of the training: the options and the seed, without where things are written, both models and the data."""
        from deburr.passes.recover.checkpoint import fingerprint

        assert context.data is not None
        options = print_options({**dataclasses.asdict(self), "checkpoint": "", "curve": ""})
        models = [context.model, *([self._original(context)] if self._aim(context.data) != "labels" else [])]
        return fingerprint(f"{self.name}{options} {context.seed}", models, context.data)


def require_training(pass_: Pass, context: Context) -> None:
    """:raises DeburrError: E902 without torch, E206 without data."""
    require_torch(f"pass {pass_.name}")
    if context.data is None:
        raise DeburrError("E206", f"{pass_.name} needs data to train on", where=f"pass {pass_}", hint="give --data FILE.npz")


def keep_zeros(trainer: Trainer) -> None:
    """Let weights that are zero stay zero."""
    import torch

    module = trainer.module
    masks = zip(module.weights, zeros(module.values), strict=True)
    trainer.masks += [(weight, torch.from_numpy(mask)) for weight, mask in masks if mask is not None]


def _explain(trainer: Trainer, graph: Graph, context: Context, curve: str) -> None:
    """Say what came of it, and draw it where that was asked for."""
    progress = trainer.progress
    if not progress.losses:
        return
    if curve:
        draw(progress.training_losses, progress.losses, Path(curve))
    place, before = f"graph {graph.name!r}", progress.losses[0]
    if len(progress.losses) == 1 and not progress.training_losses:
        context.remark(place, "it gives what the original gives: there is nothing to recover", "put it behind what prunes")
    elif progress.best_epoch:
        context.remark(
            place, f"the loss on samples kept apart fell from {before:.4g} to {progress.best_loss:.4g} in epoch "
            f"{progress.best_epoch} of {len(progress.losses) - 1}",
        )  # fmt: skip
    else:
        context.remark(place, f"no epoch is better than before, with a loss of {before:.4g}: nothing changed", "try a lower lr")
