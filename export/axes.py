"""Where the parts of a tensor's axes go when it is reshaped and its axes are moved."""

from __future__ import annotations

import math

import numpy as np


class SampleView:
    """The axes of one sample as parts of what they were at first; the first holds the batch and what was put to it.

    ``move`` and ``reshape`` return False where they cannot be followed.

    Args:
        total: values of one sample.
        sizes: of the axes behind the batch; empty: the first Reshape tells them.
    """

    def __init__(self, total: int, sizes: list[int]) -> None:
        self._total = total
        self._size: list[int] = list(sizes)
        self._first = [[k] for k in range(len(sizes))]
        self.axes: list[list[int]] = [[], *([k] for k in range(len(sizes)))]

    def parts(self, axis: int) -> list[int]:
        return self._first[axis]

    def all(self) -> list[int]:
        return [part for axis in self._first for part in axis]

    def order(self) -> list[int]:
        return [part for axis in self.axes for part in axis]

    def sizes(self, parts: list[int]) -> list[int]:
        return [self._size[part] for part in parts]

    def tail(self) -> list[int]:
        return [math.prod(self.sizes(axis)) for axis in self.axes[1:]]

    def move(self, perm: list[int]) -> bool:
        if len(perm) != len(self.axes) or perm[:1] != [0]:
            return False
        self.axes = [self.axes[k] for k in perm]
        return True

    def reshape(self, shape: np.ndarray | None) -> bool:
        tail = [] if shape is None else [int(size) for size in shape[1:]]
        if (
            shape is None
            or not tail
            or min(tail) < 1
            or shape[0] not in (0, -1)
            or self._total % math.prod(tail)
        ):
            return False
        if not self._size:  # the first: its own axes are what parts are parts of
            self._size = tail
            self._first = [[k] for k in range(len(tail))]
            self.axes = [[], *([k] for k in range(len(tail)))]
            return math.prod(tail) == self._total
        left = self.order()
        axes = []
        for size in (self._total // math.prod(tail), *tail):
            axis: list[int] = []
            while math.prod(self.sizes(axis)) < size:
                needed = size // math.prod(self.sizes(axis))
                part = left[0]
                if self._size[part] > needed:
                    if self._size[part] % needed:
                        return False
                    left.insert(1, self._split(part, needed))
                axis.append(left.pop(0))
            if math.prod(self.sizes(axis)) != size:
                return False
            axes.append(axis)
        self.axes = axes
        return not left

    def _split(self, part: int, outer: int) -> int:
        self._size.append(self._size[part] // outer)
        self._size[part] = outer
        inner = len(self._size) - 1
        for axis in (*self._first, *self.axes):
            if part in axis:
                axis.insert(axis.index(part) + 1, inner)
        return inner
