"""Full boxes: where classes vary along several axes of a tensor, they are united until whole slices of one axis go.

A Reshape that splits an axis of channels ([C] -> [heads, positions]) leaves one class per element; what reads the tensor
decides which axis stays (an attention takes heads or positions), and what no reader decided is settled at the end.
"""

from __future__ import annotations

import numpy as np

from deburr.passes.analysis.classes import Classes, Ids


def varying(ids: Ids) -> list[int]:
    """The axes along which an array of classes has more than one index."""
    return [axis for axis, size in enumerate(ids.shape) if size > 1]


def loosen(classes: Classes, ids: Ids) -> Ids:
    """The same classes, with every axis free along which nothing varies; arrays with at most one axis are left as they are."""
    if len(varying(ids)) < 2:
        return ids
    roots = classes.find(ids)
    for axis in varying(roots):
        first = roots.take([0], axis)
        if np.array_equal(np.broadcast_to(first, roots.shape), roots):
            roots = first
    return roots


def unite(classes: Classes, ids: Ids, axis: int) -> Ids:
    """EQUAL along one axis, which is free afterwards."""
    first = ids.take([0], axis)
    classes.union(ids, first)
    return first


def settle(classes: Classes, ids: Ids) -> Ids:
    """Classes vary along at most one axis afterwards: the longest, the last of equally long ones."""
    ids = loosen(classes, ids)
    for axis in sorted(varying(ids), key=lambda axis: (ids.shape[axis], axis))[:-1]:
        ids = unite(classes, ids, axis)
    return ids
