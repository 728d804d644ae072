"""What is built into a bundle: the model lowered once for each batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.types import Shape, TensorType
from deburr.ir.value import Value
from deburr.targets import batch_sizes
from deburr.targets import manifest as manifests
from deburr.targets.groups import groups
from deburr.targets.lower import lower, prepare
from deburr.targets.lower.prepare import Sizes
from deburr.targets.target import Target


@dataclass(frozen=True)
class Program:
    """A model lowered for one batch size.

    :param function: what the library calls it.
    :param sizes: the ones that it was lowered for.
    """

    function: str
    batch: int
    sizes: Sizes
    lowered: Model
    remarks: list[str]

    def reference(self, model: Model) -> Model:
        """`model` at the same sizes, not lowered: what the outputs are checked against. Made anew: weights may be large."""
        return prepare.fixed_copy(model, self.sizes)

    def describe(self, isa: str) -> manifests.Program:
        return manifests.Program(function=self.function, batch=self.batch, groups=groups(self.lowered, isa))


@dataclass(frozen=True)
class Programs:
    """All of them, in ascending order of their batch sizes.

    :param divisible: whether samples may be run in parts.
    """

    each: tuple[Program, ...]
    divisible: bool

    @property
    def remarks(self) -> list[str]:
        return list(dict.fromkeys(remark for program in self.each for remark in program.remarks))

    def inputs(self) -> list[manifests.Tensor]:
        """For the manifest."""
        first = self.each[0].lowered.graph.inputs
        return [self._tensor(value, index, "inputs") for index, value in enumerate(first) if value.constant is None]

    def outputs(self) -> list[manifests.Tensor]:
        """For the manifest.

        :raises DeburrError: E402 where the size of one depends on the data.
        """
        return [self._tensor(value, index, "outputs") for index, value in enumerate(self.each[0].lowered.graph.outputs)]

    def _tensor(self, value: Value, index: int, side: str) -> manifests.Tensor:
        """A size is open where it differs between the programs, or is the number of samples that may be divided."""
        assert isinstance(value.type, TensorType)
        shapes = [getattr(program.lowered.graph, side)[index].static_shape for program in self.each]
        if None in shapes:
            raise DeburrError(
                "E402", "a size that depends on the data", where=f"{side[:-1]} {value.name!r}", why=f"its type is {value.type}"
            )
        sizes: list[int | None] = [axis[0] if len(set(axis)) == 1 else None for axis in zip(*shapes, strict=True)]
        if self.divisible:
            sizes[0] = None
        return manifests.Tensor(name=value.name, dtype=str(value.type.dtype), shape=sizes)


def lowered_for(
    model: Model, target: Target, batch: int | Sequence[int] = 1, symbols: Mapping[str, int] | None = None
) -> Programs:
    """The programs of `model`, which stays as it is.

    :raises DeburrError: E901 for a wrong batch size, or where the model leaves no choice of it; what lowering raises.
    """
    batches = batch_sizes.checked(batch)
    if batches != (1,):
        prepare.require_open_batch(model, batches, symbols)
    each, outputs = [], {}
    for size in batches:
        sizes = Sizes(size, symbols)
        lowered = prepare.fixed_copy(model, sizes)
        outputs[size] = [value.shape for value in lowered.graph.outputs]
        function = "main" if len(batches) == 1 else f"main_{size}"
        one = Program(function, prepare.batch_of(lowered, size), sizes, lowered, prepare.clean_up(lowered))
        one.remarks.extend(lower(lowered, target))
        each.append(one)
    return Programs(tuple(each), _is_divisible(model, symbols, outputs))


def _is_divisible(model: Model, symbols: Mapping[str, int] | None, outputs: dict[int, list[Shape | None]]) -> bool:
    """Whether all inputs leave the same first axis open, and those of all outputs follow it.

    What the file declares of its outputs proves nothing: their shapes are inferred, for two batch sizes at least.

    :param outputs: their shapes by the batch size.
    """
    if not prepare.shares_open_batch(model, symbols):
        return False
    if len(outputs) == 1:
        other = 1 + max(outputs)
        outputs = {**outputs, other: [value.shape for value in prepare.fixed_copy(model, Sizes(other, symbols)).graph.outputs]}
    return all(shape and shape[0] == size for size, shapes in outputs.items() for shape in shapes)
