"""The loop of pruning and training: a little goes, the rest is refitted and trained, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.prune.gradually import PruneGradually
from deburr.passes.recover.finetune import Finetune
from deburr.passes.recover.training import Aim, Optimizer, require_training


@dataclass(frozen=True)
class PruneFinetune(PruneGradually):
    """Prune in `steps`, each followed by compensation, training and a measurement, until `ratio` of the budget is gone.

    As `prune-gradually`, with `finetune` in every step: its options are `epochs` (of each step), `lr`, `loss`, `optimizer` and
    `train_batch`. The best epoch of a step is what the next one starts from, and a step is kept only if it holds the floor,
    `max_loss` or `min_sqnr`. The schedule agp is cubic by the name that Zhu & Gupta gave it. The original that training
    looks at is the model as the pipeline got it.
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

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: as `prune-gradually` and `finetune`."""
        self._training._check()
        require_training(self, context)
        super().run(graph, context)

    @property
    def recovery(self) -> tuple[Pass, ...]:
        return (*super().recovery, self._training)

    @property
    def _training(self) -> Finetune:
        return Finetune(
            epochs=self.epochs, lr=self.lr, loss=self.loss, optimizer=self.optimizer, batch=self.train_batch,
            precision=self.precision,
        )  # fmt: skip
