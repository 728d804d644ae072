"""The table from ONNX operators to torch functions, and what its rows are given.

A function gets the node as a `Call` and the tensors it reads (None for an input left out), and gives a tensor, or a tuple of
them for a node of several outputs. What it does not cover it refuses by `Uncovered`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from deburr.ir.constants import Constant
from deburr.ir.node import Node

Tensor = Any  # torch.Tensor: torch is imported where it is used
Function = Callable[..., Any]  # (call, *tensors) -> a tensor or a tuple of them

_TABLE: dict[str, Function] = {}


class Uncovered(Exception):  # noqa: N818 - it is an answer, not a failure
    """This form of an operator has no torch function; the message says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node, and the version of the default operator set that it is read by."""

    node: Node
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute's value; a tensor as an array."""
        value = self.node.get(name, default)
        return value.array if isinstance(value, Constant) else value

    def list(self, name: str, given: Tensor | None = None) -> list[int] | None:
        """Integers that older opsets hold in an attribute and newer ones in an input; None where neither says."""
        if given is not None:
            return [int(item) for item in given.reshape(-1).tolist()]
        value = self.node.get(name)
        return None if value is None else [int(item) for item in value]

    @property
    def outputs(self) -> int:
        return len(self.node.outputs)


def function(*ops: str) -> Callable[[Function], Function]:
    """Enter a function into the table for these operators."""

    def enter(made: Function) -> Function:
        _TABLE.update(dict.fromkeys(ops, made))
        return made

    return enter


def plain(op: str, made: Callable[..., Tensor]) -> None:
    """Enter a function of the tensors alone."""
    _TABLE[op] = lambda call, *tensors: made(*tensors)


@cache
def functions() -> dict[str, Function]:
    """Every operator of the default domain that torch computes."""
    from deburr.passes.recover.operators import (  # noqa: F401 - importing a room fills the table
        arithmetic,
        contraction,
        elementwise,
        generation,
        movement,
        normalization,
        pooling,
        reduction,
        resizing,
        selection,
    )

    return dict(_TABLE)


def axes_of(axes: Sequence[int] | None, rank: int) -> list[int]:
    """Axes as numbers from 0; all of them where none are named."""
    return list(range(rank)) if axes is None else sorted(axis % rank for axis in axes)
