"""The table of a model's sparse and clustered weights: what `deburr inspect --sparsity` and the report of a pruning show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deburr.inspect import Table

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.passes.prune.sparsity import Sparsity

_FORMS = ("dense", "deflate", "sparse_initializer", "bitmask", "indices")
_COLUMNS = ("weight", "structure", "elements", "zeros", "share", "distinct", *(f"{form} bytes" for form in _FORMS))


def _unpacked(model: Model) -> Model:
    """The model with weights that `store-weights` stored as they are once unpacked."""
    from deburr import api

    return api.optimize(model, f"fold-constants{{limit={1 << 30}}}")


def _of(model: Model) -> list[Sparsity]:
    """The weights of all graphs."""
    from deburr.passes.prune.sparsity import sparsity

    return [found for graph in model.graphs for found in sparsity(graph)]


def sparsity(model: Model) -> Table:
    """Zeros, their structure, distinct values, and what each form takes in a file, for each weight and in total."""
    return _table(_of(_unpacked(model)))


def _table(found: Sequence[Sparsity]) -> Table:
    """Where a weight has no form of some kind, the total counts it dense."""
    rows: list[tuple[Any, ...]] = [(one.name, one.structure, *_counts([one]), one.distinct, *_bytes(one)) for one in found]
    if found:
        totals = [sum(size if size is not None else one.dense for one, size in _sizes(found, form)) for form in _FORMS]
        rows.append(("total", "-", *_counts(found), "-", *totals))
    return Table("sparsity", _COLUMNS, rows, left=2)


def changes(before: Model, after: Model) -> Table | None:
    """The table of `after` where weights became zero, or came to share values that an index of one byte counts."""
    unpacked = _unpacked(after)
    (zeros, few), (more_zeros, more_few) = _simple(before), _simple(unpacked)
    return _table(_of(unpacked)) if more_zeros > zeros or more_few > few else None


def _simple(model: Model) -> tuple[int, int]:
    """How many elements of weights are zero, and how many weights have few values."""
    import numpy as np

    from deburr.passes.prune.weight_tensors import weight_tensors

    arrays = [weight.array for graph in model.graphs for weight in weight_tensors(graph)]
    few = sum(len(np.unique(array.astype(np.float64))) <= 256 < array.size for array in arrays)
    return sum(int((array == 0).sum()) for array in arrays), few


def _sizes(found: Sequence[Sparsity], form: str) -> list[tuple[Sparsity, int | None]]:
    return [(one, getattr(one, form)) for one in found]


def _bytes(one: Sparsity) -> list[int | str]:
    sizes = [getattr(one, form) for form in _FORMS]
    return ["-" if size is None else size for size in sizes]


def _counts(found: Sequence[Sparsity]) -> tuple[int, int, str]:
    elements, zeros = sum(one.elements for one in found), sum(one.zeros for one in found)
    return elements, zeros, f"{zeros / max(elements, 1):.1%}"
