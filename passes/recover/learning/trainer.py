"""The loop of training: one cosine of the learning rate over all epochs, the best weights kept, and a state that can be saved.

Nothing in it depends on when it was interrupted: the order of the samples follows from seed and epoch, the learning rate from
the number of the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deburr.ir.types import Array
from deburr.passes.core import Progress as ProgressBar
from deburr.passes.recover import checkpoint
from deburr.passes.recover.batches import Augment, Batch, Batches, Order
from deburr.passes.recover.checkpoint import Progress
from deburr.passes.recover.learning.losses import Loss
from deburr.passes.recover.learning.module import TorchModel
from deburr.passes.recover.teacher import Teacher

SAVE_SECONDS = 30.0  # between two states that are saved within an epoch
NOTHING = 1e-9  # a distance from the original's outputs that only rounding makes
_MOMENTUM = 0.9
_LARGEST_GRADIENT = 1.0  # the norm beyond which the weights' gradients are scaled down: once in a while a batch explodes


@dataclass(frozen=True)
class Settings:
    """How to train.

    :param lr: the learning rate at its highest, after `warmup` (a share of all steps); from there a cosine down to 0
        (Loshchilov & Hutter 2017, "SGDR").
    :param patience: how many epochs may pass without a lower loss on the samples kept apart; None: all.
    :param bfloat16: contractions compute in it; weights and their updates stay float32.
    """

    epochs: int
    lr: float
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    warmup: float = 0.05
    patience: int | None = None
    bfloat16: bool = False
    seed: int = 0
    augment: Augment | None = None
    checkpoint: Path | None = None
    identity: str = ""


class Trainer:
    """Trains the parameters of `module` on `fit`, and leaves in it those that did best on `held_out`."""

    def __init__(
        self, module: TorchModel, loss: Loss, teacher: Teacher | None, data: tuple[Batches, Batches], settings: Settings
    ) -> None:
        """:param data: what is trained on, and what is kept apart."""
        self.module, self._loss, self._settings = module, loss, settings
        self._fit, self._held_out = data
        self._teachers = (teacher, teacher) if teacher is None else (teacher, teacher.twin())
        self.parameters: list[Any] = list(module.parameters())
        self.masks: list[tuple[Any, Any]] = []  # a parameter, and where it stays zero
        self.progress = Progress()
        self._optimizer = _optimizer(self.parameters, settings)
        self._saved = time.monotonic()

    @property
    def steps(self) -> int:
        return self._settings.epochs * len(self._fit)

    @property
    def done(self) -> int:
        return self.progress.epoch * len(self._fit) + self.progress.batch

    def figures(self) -> str:
        """How far it is, for the progress bar."""
        progress = self.progress
        recent = float(np.mean(progress.training_losses[-len(self._fit) :])) if progress.training_losses else math.nan
        apart = progress.losses[-1] if progress.losses else math.nan
        return f"epoch {progress.epoch}/{self._settings.epochs}: loss {recent:.4g}, on samples kept apart {apart:.4g}"

    def run(self, bar: ProgressBar) -> Progress:
        """Train to the end; the module then holds the best weights, also after a KeyboardInterrupt, which goes up.

        :raises DeburrError: of the checkpoint.
        """
        try:
            self._resume()
            self._train(bar)
        finally:
            if self.progress.best:
                self._give(self.progress.best)
        return self.progress

    def _train(self, bar: ProgressBar) -> None:
        if not self.progress.losses:
            self._measure()
            self._save()
        for _epoch in bar(self._epochs(bar), self._settings.epochs - self.progress.epoch, self.figures):
            pass

    def _epochs(self, bar: ProgressBar) -> Iterator[int]:
        """Every epoch that is still to do, yielded once it is done and measured."""
        progress = self.progress
        while progress.epoch < self._settings.epochs and not self._is_over():
            order = self._fit.shuffled(self._random(progress.epoch))
            for _batch in bar(self._batches(order), len(order) - progress.batch, f"epoch {progress.epoch + 1}"):
                pass
            progress.epoch, progress.batch = progress.epoch + 1, 0
            self._measure()
            self._save()
            yield progress.epoch

    def _batches(self, order: Order) -> Iterator[int]:
        """The batches of an epoch that are still to do, yielded once they are done."""
        progress = self.progress
        while progress.batch < len(order):
            batch = self._augmented(self._fit.take(*order[progress.batch]))
            progress.training_losses.append(self._step(batch))
            progress.batch += 1
            if progress.batch < len(order) and time.monotonic() - self._saved >= SAVE_SECONDS:
                self._save()
            yield progress.batch

    def _is_over(self) -> bool:
        losses, patience = self.progress.losses, self._settings.patience
        waited = self.progress.epoch - self.progress.best_epoch
        if losses[0] < NOTHING and self._loss.labelled is None:
            return True
        return not math.isfinite(losses[-1]) or (patience is not None and waited > patience)

    def _step(self, batch: Batch) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.lr * rate(self.done, self.steps, self._settings.warmup)
        self._optimizer.zero_grad(set_to_none=True)
        wanted = self._wanted(0, batch, keep=self._settings.augment is None)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.bfloat16):
            outputs = self.module(_tensors(batch))
        loss = self._loss(outputs, wanted, batch.labels)
        loss.backward()
        for parameter, mask in self.masks:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0)
        torch.nn.utils.clip_grad_norm_(self.module.weights, _LARGEST_GRADIENT)
        self._optimizer.step()
        return float(loss.detach())

    def _wanted(self, which: int, batch: Batch, *, keep: bool) -> dict[str, Array]:
        teacher = self._teachers[which]
        return {} if teacher is None else teacher.outputs(batch, keep=keep)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _measure(self) -> None:
        """The loss on the samples kept apart, after an epoch or before the first; the lowest one's weights are kept."""
        total, count = 0.0, 0
        for batch in self._held_out.in_order():
            loss = self._loss(self.module(_tensors(batch)), self._wanted(1, batch, keep=True), batch.labels)
            total, count = total + float(loss) * len(batch.rows), count + len(batch.rows)
        progress = self.progress
        progress.losses.append(total / count)
        if not progress.best or progress.losses[-1] < progress.best_loss:
            progress.best = self._take()
            progress.best_epoch = len(progress.losses) - 1

    def _augmented(self, batch: Batch) -> Batch:
        augment = self._settings.augment
        if augment is None:
            return batch
        random = np.random.default_rng([self._settings.seed, self.progress.epoch, self.progress.batch])
        return batch.augmented(augment, random)

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, epoch])

    def _take(self) -> list[Array]:
        return [parameter.detach().contiguous().numpy().copy() for parameter in self.parameters]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _give(self, arrays: Sequence[Array]) -> None:
        for parameter, array in zip(self.parameters, arrays, strict=True):
            parameter.copy_(torch.from_numpy(np.array(array)))

    def _save(self) -> None:
        settings = self._settings
        if settings.checkpoint is not None:
            state = {
                f"{index}/{name}": tensor.contiguous().numpy()
                for index, parameter in enumerate(self.parameters)
                for name, tensor in self._optimizer.state.get(parameter, {}).items()
                if tensor is not None
            }
            checkpoint.save(settings.checkpoint, settings.identity, self.progress, self._take(), state)
        self._saved = time.monotonic()

    def _resume(self) -> None:
        settings = self._settings
        found = None if settings.checkpoint is None else checkpoint.load(settings.checkpoint, settings.identity)
        if found is None:
            return
        self.progress, weights, state = found
        self._give(weights)
        for name, array in state.items():
            index, _, key = name.partition("/")
            parameter, tensor = self.parameters[int(index)], torch.from_numpy(np.array(array))
            # In the memory order of the parameter, so that sums run in the same order as before.
            kept = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
            self._optimizer.state[parameter][key] = kept.detach()


def rate(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step: a straight line up to 1, then half a cosine down to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _optimizer(parameters: list[Any], settings: Settings) -> Any:
    """Weight decay pulls on matrices and kernels, not on biases and scales."""
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, settings.lr, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, settings.lr)


def _tensors(batch: Batch) -> dict[str, Any]:
    return {name: _tensor(array) for name, array in batch.inputs.items()}


def _tensor(array: npt.NDArray[Any]) -> Any:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
