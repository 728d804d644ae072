"""Union-find over channel classes: which channels must live or die together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]  # class ids over the elements of a tensor; axes of size 1 are free: nothing varies along them
Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]  # importance of each class, by its number

ALWAYS = 0  # the class of everything that is never removed


class Classes:
    """Classes of channels, merged by `union`. A class stems from an axis (its origin); merged classes merge their origins.

    Roots are the smallest ids. Tarjan 1975, with path compression.
    """

    def __init__(self) -> None:
        self._parent: Ids = np.zeros(1024, np.int64)
        self._origin: Ids = np.zeros(1024, np.int64)
        self._frozen: Mask = np.zeros(1024, np.bool_)
        self._origins: list[int] = [0]  # the union-find parents of the origins
        self._count = 1
        self._frozen[ALWAYS] = True

    def __len__(self) -> int:
        return self._count

    def fresh(self, count: int) -> Ids:
        """`count` new classes that stem from one axis."""
        start, self._count = self._count, self._count + count
        while self._count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
            self._origin = np.concatenate([self._origin, np.zeros_like(self._origin)])
            self._frozen = np.concatenate([self._frozen, np.zeros_like(self._frozen)])
        ids = np.arange(start, self._count, dtype=np.int64)
        self._parent[start : self._count] = ids
        self._origin[start : self._count] = len(self._origins)
        self._origins.append(len(self._origins))
        return ids

    def find(self, ids: Ids) -> Ids:
        """The roots of an array of classes."""
        roots = self._parent[ids]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[ids] = roots
        return roots

    def union(self, one: Ids, other: Ids) -> None:
        """EQUAL: merge classes element by element, with broadcasting."""
        if one is other:
            return
        left, right = np.broadcast_arrays(self.find(one), self.find(other))
        differ = left != right
        if not differ.any():
            return
        for first, second in np.unique(np.stack([left[differ], right[differ]], 1), axis=0).tolist():
            low, high = sorted((self._root(first), self._root(second)))
            self._frozen[[low, high]] |= self._frozen[low] or self._frozen[high]
            if low != ALWAYS:  # what meets ALWAYS is frozen, but stays a class, so that reports can name it
                self._parent[high] = low
                self._merge_origins(int(self._origin[low]), int(self._origin[high]))

    def freeze(self, ids: Ids) -> None:
        """FROZEN: these classes are never removed."""
        self._frozen[self.find(ids)] = True

    def frozen(self, roots: Ids) -> Mask:
        kept: Mask = self._frozen[roots]
        return kept

    def origin(self, root: int) -> int:
        """The number of the coupled group that a class belongs to."""
        return self._root_origin(int(self._origin[root]))

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            number = int(self._parent[number])
        return number

    def _root_origin(self, number: int) -> int:
        while self._origins[number] != number:
            self._origins[number] = self._origins[self._origins[number]]
            number = self._origins[number]
        return number

    def _merge_origins(self, one: int, other: int) -> None:
        low, high = sorted((self._root_origin(one), self._root_origin(other)))
        self._origins[high] = low
