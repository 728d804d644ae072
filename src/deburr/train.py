"""A model in a training loop of one's own: the IR as a torch module, and back.

    module = deburr.train.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    ...  # loss(module({"image": images})["logits"], labels).backward(), optimizer.step()
    deburr.save(deburr.train.from_torch(module), "trained.onnx")

torch is the optional extra `deburr[train]`. The passes finetune, qat and prune-finetune need no loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.passes.recover.learning.module import TorchModel


def to_torch(model: Model | str | Path) -> TorchModel:
    """A `torch.nn.Module` that computes what the model computes: `module({input name: tensor})` gives {output name: tensor}.

    Weights, biases, scales and shifts of float32 are parameters (`named_weights()` has their names in the model); statistics
    of BatchNormalization and all other constants stay. The model itself is left as it is.

    :raises DeburrError: E902 without torch, E207 naming an operator that no gradient passes through, E101 to E106 for a file.
    """
    from deburr.passes.recover.extra import require_torch

    require_torch("deburr.train.to_torch")
    from deburr.api import load
    from deburr.ir.duplicate import duplicate
    from deburr.passes.recover.learning.module import TorchModel

    return TorchModel(load(model) if isinstance(model, str | Path) else duplicate(model))


def from_torch(module: TorchModel) -> Model:
    """A new model: the one that `to_torch` was given, with the weights that the module holds now."""
    from deburr.ir.duplicate import duplicate

    module.write_back()
    return duplicate(module.model)
