"""Sequences that hold numbers in place of items, made when they are asked for: millions take little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

Item = TypeVar("Item")
Result = TypeVar("Result")


class Rows(Sequence[Item]):
    """Some items of a sequence, in any order.

    Args:
        base: the sequence.
        numbers: of the items in it: a range, an array or a NumPy array of integers.
    """

    def __init__(self, base: Sequence[Item], numbers: Any) -> None:
        self.base, self.numbers = base, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Rows[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Rows[Item]:
        return Rows(self.base, self.numbers[at]) if isinstance(at, slice) else self.base[int(self.numbers[at])]

    def __iter__(self) -> Iterator[Item]:
        return (self.base[int(number)] for number in self.numbers)


class Each(Sequence[Result], Generic[Item, Result]):
    """What a function makes of each item of a sequence, anew each time."""

    def __init__(self, base: Sequence[Item], make: Callable[[Item], Result]) -> None:
        self.base, self.make = base, make

    def __len__(self) -> int:
        return len(self.base)

    @overload
    def __getitem__(self, at: int) -> Result: ...
    @overload
    def __getitem__(self, at: slice) -> Each[Item, Result]: ...
    def __getitem__(self, at: int | slice) -> Result | Each[Item, Result]:
        return Each(self.base[at], self.make) if isinstance(at, slice) else self.make(self.base[at])

    def __iter__(self) -> Iterator[Result]:
        return map(self.make, self.base)
