"""What the tuner asks and what it is told: the seam between searching and measuring, where tests put a measure of their own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from deburr.ir.errors import DeburrError
from deburr.targets.schedules.tile import ConvSchedule

OK, WRONG, REFUSED, CRASHED, HUNG = "ok", "wrong numbers", "refused", "crashed", "hung"
LOST = "lost"  # no outcome of a candidate: the device is out of reach


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate measured against the default schedule, in turns, so that what slows the machine down slows both.

    :param status: `OK`; `WRONG` where the numbers are not the default's, `REFUSED` where it does not build, `CRASHED` or `HUNG`
        where it took the worker with it, each time it was tried.
    :param seconds: the median of its rounds.
    :param default_seconds: that of the default's rounds.
    :param ratios: candidate over default, round by round.
    :param fastest: the candidate's fastest round over the default's.
    """

    status: str
    seconds: float = 0.0
    default_seconds: float = 0.0
    ratios: tuple[float, ...] = ()
    fastest: float = float("inf")
    why: str = ""

    @property
    def ratio(self) -> float:
        """The median of the ratios; infinite for a candidate that does not count."""
        if self.status != OK:
            return float("inf")
        ordered = sorted(self.ratios)
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


class Measure(Protocol):
    """Something that times schedules."""

    def measure(self, workload: str, schedules: Sequence[ConvSchedule], rounds: int) -> list[Outcome]:
        """Outcomes in the order of `schedules`, `rounds` rounds each, in turns with the default of `workload` (its text).

        :raises DeburrError: E505 where the device is out of reach.
        """
        ...

    def stop(self) -> None:
        """End what another thread measures."""
        ...


Request = tuple[str, Sequence[ConvSchedule]]  # a workload's text, and what to time for it


class Fleet:
    """Boards of one kind, which measure side by side; a comparison is never torn over two of them.

    One that is out of reach for good (E505) leaves its request to the others.
    """

    def __init__(self, boards: Sequence[Measure]) -> None:
        self._boards = list(boards)

    @property
    def width(self) -> int:
        """How many requests are measured at once."""
        return len(self._boards)

    def measure(self, requests: Sequence[Request], rounds: int) -> list[list[Outcome]]:
        """Outcomes in the order of the requests.

        :raises DeburrError: E505 where no board is left.
        """
        if self.width == 1:
            return [self._boards[0].measure(text, schedules, rounds) for text, schedules in requests]
        found: dict[int, list[Outcome]] = {}
        with ThreadPoolExecutor(self.width) as pool:
            try:
                while len(found) < len(requests):
                    self._turn(pool, found, requests, rounds)
            except BaseException:
                for board in self._boards:
                    board.stop()  # the pool waits for its threads
                raise
        return [found[index] for index in range(len(requests))]

    def _turn(
        self, pool: ThreadPoolExecutor, found: dict[int, list[Outcome]], requests: Sequence[Request], rounds: int
    ) -> None:
        """A request for each board."""
        rest = (index for index in range(len(requests)) if index not in found)
        pairs = list(zip(self._boards, rest, strict=False))
        tasks = [pool.submit(board.measure, *requests[index], rounds) for board, index in pairs]
        for (board, index), task in zip(pairs, tasks, strict=True):
            self._collect(found, index, board, task)

    def _collect(self, found: dict[int, list[Outcome]], index: int, board: Measure, task: Future[list[Outcome]]) -> None:
        try:
            found[index] = task.result()
        except DeburrError as error:
            self._boards.remove(board)
            if error.code != "E505" or not self._boards:
                raise
