"""Removes what a keep-set leaves out: slices every constant, rewrites every spelled-out size, and checks the shapes after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.inference import infer
from deburr.ir.types import Array, Shape, TensorType
from deburr.ir.value import Use, Value
from deburr.passes.analysis.classes import Ids, Mask
from deburr.passes.analysis.groups import Channels
from deburr.passes.core import Context
from deburr.passes.prune.reference import Reference
from deburr.passes.prune.regenerate import regenerate


def remove_channels(analysis: Channels, keep: Mask, context: Context, reference: Reference | None = None) -> None:
    """Edit the analysed graph so that it holds the classes in `keep` only.

    :param keep: a sound keep-set, from `Channels.repair`.
    :param reference: notes where the channels went.
    :raises DeburrError: E205 if shape inference does not agree with what the analysis says is left.
    """
    along = _Along(analysis, keep)
    for entry in analysis.regenerates:
        regenerate(entry.node, entry.what, analysis, along.of)
    expected = {}
    for value, ids in analysis.ids.items():
        masks = along.masks(ids)
        if reference is not None:
            reference.record(value.name, masks)
        expected[value] = _shrunk(value, masks)
    _slice_constants(analysis, along)
    types = {
        value: TensorType(value.type.dtype, shape)
        for value, shape in expected.items()
        if isinstance(value.type, TensorType) and shape is not None
    }
    for value, type_ in types.items():
        value.graph.set_type(value, type_)
    infer(context.model, overwrite=True)
    for value, type_ in types.items():
        if value.shape is None:  # inference knows nothing (behind a GroupNormalization): what was known before still holds
            value.graph.set_type(value, type_)
    for value, shape in expected.items():
        if not _agree(value.shape, shape):
            raise DeburrError(
                "E205", "the surgery and shape inference disagree", where=repr(value), why=f"the analysis left {shape}",
                hint="this is a defect of the analysis: please report it",
            )  # fmt: skip


class _Along:
    """The masks along each axis, computed once for each class array."""

    def __init__(self, analysis: Channels, keep: Mask) -> None:
        self._analysis, self._keep = analysis, keep
        self._known: dict[int, tuple[Mask, ...]] = {}

    def masks(self, ids: Ids) -> tuple[Mask, ...]:
        if id(ids) not in self._known:
            masks = self._analysis.masks(ids, self._keep)
            if masks is None:
                raise ValueError("the keep-set leaves a tensor that is no full box: repair it first")
            self._known[id(ids)] = masks
        return self._known[id(ids)]

    def of(self, value: Value) -> Sequence[Mask]:
        return self.masks(self._analysis.ids[value])


def _shrunk(value: Value, masks: Sequence[Mask]) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(int(mask.sum()) if mask.size > 1 else dim for dim, mask in zip(value.shape, masks, strict=True))


def _slice_constants(analysis: Channels, along: _Along) -> None:
    cuts: dict[Value, dict[Use, dict[int, Mask]]] = {}
    for slice_ in analysis.slices:
        mask = along.masks(slice_.ids)[slice_.ids_axis]
        if not mask.all():
            cuts.setdefault(slice_.constant, {}).setdefault(slice_.use, {})[slice_.axis] = mask
    for constant, by_use in cuts.items():
        _slice_constant(constant, by_use)


def _slice_constant(constant: Value, by_use: dict[Use, dict[int, Mask]]) -> None:
    """Readers that keep different indices get constants of their own."""
    array = constant.array
    assert array is not None
    made: dict[bytes, Value] = {}
    for use in constant.uses:
        cut = by_use.get(use, {})
        key = b"".join(bytes([axis]) + mask.tobytes() for axis, mask in sorted(cut.items()))
        if key not in made and not made:
            made[key] = constant
        elif key not in made:
            made[key] = constant.graph.add_constant(_cut(array, cut), constant.name)
            use.node.set_input(use.index, made[key])
        else:
            use.node.set_input(use.index, made[key])
        if made[key] is constant and cut:
            constant.graph.set_constant(constant, _cut(array, cut))


def _cut(array: Array, cut: dict[int, Mask]) -> Array:
    for axis, mask in cut.items():
        array = np.compress(mask, array, axis)
    return np.ascontiguousarray(array)


def _agree(found: Shape | None, expected: Shape | None) -> bool:
    """Known sizes are equal; what inference does not know is taken on trust."""
    if found is None or expected is None:
        return True
    if len(found) != len(expected):
        return False
    return all(not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in zip(found, expected, strict=True))
