"""The loop of pruning and training: a little goes, the rest is refitted and trained, and so on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.options import print_options
from deburr.passes.prune.gradually import PruneGradually
from deburr.passes.prune.trial import PruningTrials
from deburr.passes.recover.checkpoint import fingerprint
from deburr.passes.recover.finetune import Finetune
from deburr.passes.recover.pruned_steps import PrunedSteps
from deburr.passes.recover.training import Aim, Optimizer, require_training
from deburr.passes.trial.quality import Floor


@dataclass(frozen=True)
class PruneFinetune(PruneGradually):
    """Prune in `steps`, each followed by compensation, training and a measurement, until `ratio` of the budget is gone.

    As `prune-gradually`, with `finetune` in every step: its options are `epochs` (of each step), `lr`, `loss`, `optimizer` and
    `train_batch`. The best epoch of a step is what the next one starts from, and a step is kept only if it holds the floor,
    `max_loss` or `min_sqnr`. The schedule agp is cubic by the name that Zhu & Gupta gave it. The original that training
    looks at is the model as the pipeline got it. With a file as `checkpoint`, a run that was killed goes on from the step, and
    from the batch within its training, that it had come to: to the same model, unless the budget is latency, which differs
    from one measurement to the next.
    """

    name: ClassVar[str] = "prune-finetune"
    needs_torch: ClassVar[bool] = True
    needs_original: ClassVar[bool] = True

    schedule: Literal["linear", "cubic", "agp"] = "cubic"  # type: ignore[assignment]
    epochs: int = 2
    lr: float = 0.001
    loss: Aim = "auto"
    optimizer: Optimizer = "adamw"
    train_batch: int = 64
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint: str = ""

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: as `prune-gradually` and `finetune`."""
        self._training._check()
        require_training(self, context)
        super().run(graph, context)

    def _loop(
        self, trials: PruningTrials, floor: Floor, context: Context, done: int = 0, after: Callable[[int], None] | None = None
    ) -> None:
        if not self.checkpoint:
            super()._loop(trials, floor, context, done, after)
            return
        steps = PrunedSteps(Path(self.checkpoint), self._identity(context))

        def prepare(number: int) -> None:
            trials.recovery = (*super(PruneFinetune, self).recovery, self._training_in(steps, number))

        def keep(number: int) -> None:
            steps.save(number, trials, context)
            prepare(number + 1)

        done = steps.load(trials, context)
        prepare(done + 1)
        super()._loop(trials, floor, context, done, keep)

    @property
    def recovery(self) -> tuple[Pass, ...]:
        return (*super().recovery, self._training)

    @property
    def _training(self) -> Finetune:
        return Finetune(
            epochs=self.epochs, lr=self.lr, loss=self.loss, optimizer=self.optimizer, batch=self.train_batch,
            precision=self.precision,
        )  # fmt: skip

    def _training_in(self, steps: PrunedSteps, number: int) -> Finetune:
        """The training of a step, with a checkpoint of its own. Measured latency cuts otherwise each time: what was trained
        then does not go on."""
        path = "" if self.budget == "latency" else str(steps.training(number))
        return dataclasses.replace(self._training, checkpoint=path)

    def _identity(self, context: Context) -> str:
        """Of the run: options, seed and target, the model and its original, and the data."""
        assert context.data is not None
        options = print_options({**dataclasses.asdict(self), "checkpoint": ""})
        models = [context.model, *([context.original] if context.original is not None else [])]
        return fingerprint(f"{self.name}{options} {context.seed} {context.target} {context.lanes}", models, context.data)
