"""The architectures of torchvision and timm with random weights that show what pruning does, exported to ONNX.

Needs torch, torchvision, timm and onnxscript, and nothing of deburr: it runs in a virtual environment of its own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

Shapes = Sequence[tuple[int, ...]]

_BATCH = 4  # images that set the statistics of BatchNormalization
_KINDS = ("segmentation", "detection", "optical_flow", "video", "quantization")
_SHAPES: Mapping[str, Shapes] = {
    "image": [(3, 64, 64), (3, 128, 128), (3, 224, 224), (3, 256, 256), (3, 299, 299), (3, 384, 384)],
    "segmentation": [(3, 64, 64)],
    "detection": [(3, 320, 320)],
    "optical_flow": [(3, 128, 128)],
    "video": [(3, 8, 64, 64), (3, 16, 112, 112), (3, 16, 224, 224)],
}


def names() -> list[str]:
    """`library/architecture`: all of torchvision but the quantized, and the smallest of each kind in each module of timm.

    A kind is the letters that the name starts with. Sizes are those of models without storage (the meta device).
    """
    import timm

    found = [f"torchvision/{name}" for name in torchvision.models.list_models() if kind_of(name) != "quantization"]
    kinds: dict[tuple[str, str], list[str]] = {}
    for module in timm.list_modules():
        for name in timm.list_models(module=module, pretrained=False):
            kinds.setdefault((module, (re.match("[a-z]+", name) or [name])[0]), []).append(name)
    return [*found, *(f"timm/{_smallest(members)}" for members in kinds.values())]


def _smallest(members: Sequence[str]) -> str:
    return members[0] if len(members) == 1 else min(members, key=lambda name: parameters(f"timm/{name}"))


def parameters(name: str) -> int:
    """How many parameters an architecture has; very many where it cannot be built without storage."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build(name).parameters())
    except Exception:  # builders raise anything
        return 1 << 60


def kind_of(name: str) -> str:
    """What a model of torchvision is for, by the package that builds it."""
    module = torchvision.models.get_model_builder(name).__module__
    return next((kind for kind in _KINDS if f".{kind}." in f"{module}."), "image")


def build(name: str) -> nn.Module:
    library, _, architecture = name.partition("/")
    if library == "timm":
        import timm

        return timm.create_model(architecture, pretrained=False)
    kind = kind_of(architecture)
    small = {"min_size": 160, "max_size": 160} if "rcnn" in architecture or "retinanet" in architecture else {}
    backbone = {"weights_backbone": None} if kind in ("segmentation", "detection") else {}
    return torchvision.models.get_model(architecture, weights=None, **backbone, **small)


class Plain(nn.Module):
    """Any model, from tensors to a tuple of tensors."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = (list(images[0]),) if self.kind == "detection" else images
        return tuple(_tensors(self.model(*given)))


def _tensors(made: Any) -> Iterator[torch.Tensor]:
    if isinstance(made, torch.Tensor):
        yield made
    for part in made.values() if isinstance(made, dict) else made if isinstance(made, (list, tuple)) else ():
        yield from _tensors(part)


def prepare(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model that can be compared, and inputs of the smallest size that it takes.

    Parameters that start as a constant (biases, layer scales, the last norm of a block) get noise: else a channel more or less
    in a block would not show in the output. BatchNormalization takes its statistics from random images.
    """
    torch.manual_seed(0)
    library, _, architecture = name.partition("/")
    kind = kind_of(architecture) if library == "torchvision" else "image"
    model = Plain(build(name), kind).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.is_floating_point() and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(0.1 * torch.randn_like(parameter))
    shapes = _SHAPES[kind]
    if library == "timm":
        shapes = _shapes_of(getattr(model.model, "default_cfg", {}))
    count = 2 if kind == "optical_flow" else 1
    images = _accepted(model, [(1, *shape) for shape in shapes], count)
    _set_statistics(model, images)
    return model, images


def _shapes_of(configuration: Mapping[str, Any]) -> Shapes:
    usual = tuple(configuration.get("input_size", (3, 224, 224)))
    return [usual] if configuration.get("fixed_input_size") else [*(s for s in _SHAPES["image"] if s < usual), usual]


def _accepted(model: nn.Module, shapes: Shapes, count: int) -> tuple[torch.Tensor, ...]:
    failure: Exception | None = None
    for shape in shapes:
        images = tuple(torch.randn(shape) for _ in range(count))
        try:
            with torch.no_grad():
                model(*images)
        except Exception as error:  # models raise anything where an image is too small
            failure = error
        else:
            return images
    raise ValueError(f"takes none of {list(shapes)}: {failure}")


def _set_statistics(model: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(*(torch.randn(_BATCH, *image.shape[1:]) for image in images))
    for norm in norms:
        norm.eval()


def export(name: str, file: Path, exporters: Sequence[str]) -> dict[str, Any]:
    """Write the architecture to `file` with the first exporter that can: "dynamo" (batch 1) or "torchscript" (any batch)."""
    model, images = prepare(name)
    row: dict[str, Any] = {
        "size": "x".join(map(str, images[0].shape)),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    with torch.no_grad():
        row["finite"] = all(bool(torch.isfinite(made).all()) for made in model(*images))
    for exporter in exporters:
        failure = _failure(model, images, file, exporter)
        if not failure:
            return {**row, "exporter": exporter, "file": file.name}
        row[f"{exporter}_error"] = failure
    return row


def _failure(model: nn.Module, images: tuple[torch.Tensor, ...], file: Path, exporter: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _export(model, images, file, exporter)
    except Exception as error:  # exporters raise anything
        return _line(error)
    return ""


def _export(model: nn.Module, images: tuple[torch.Tensor, ...], file: Path, exporter: str) -> None:
    if exporter == "dynamo":
        torch.onnx.export(model, images, file, dynamo=True, verbose=False)
        return
    inputs = [f"image{index}" for index in range(len(images))]
    torch.onnx.export(
        model,
        images,
        file,
        dynamo=False,
        opset_version=17,
        input_names=inputs,
        dynamic_axes={name: {0: "batch"} for name in inputs},
    )


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if "Error" in line or "Unsupported" in line or "not support" in line), "")
    return f"{type(error).__name__}: {cause or (lines[0] if lines else '')}"[:300]
