"""The search: which workload gets the next trial, which schedule is tried, and when one replaces another.

The next trial goes to the workload with the largest share of the model's time per fruitless trial since its last improvement
(an index policy in the manner of a bandit: large layers first, those that stopped improving ever more rarely). A candidate is
either any legal schedule, the best of a few by the analytic cost, or a change of one that did well. A candidate that looks
faster fights a duel over more rounds against the default, and takes its place only if it wins by a margin in most rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from deburr.targets.kernels.workload import Workload
from deburr.targets.kernels.workload_text import from_text, representative, to_text
from deburr.targets.records import CHOICE, SESSION, TRIAL, Records
from deburr.targets.schedules.search import Space, from_fields, to_fields
from deburr.targets.schedules.space import is_tunable, space
from deburr.targets.schedules.tile import ConvSchedule
from deburr.targets.target import Target
from deburr.targets.tuning.protocol import OK, Fleet, Measure, Outcome

ROUNDS, DUEL_ROUNDS = 5, 21
MARGIN = 0.98  # of the time of whoever is challenged
WON = 0.75  # of the rounds of a duel
SETTLED = 60  # fruitless trials after which a workload gets no more


@dataclass
class Work:
    """One distinct workload: what is known of it."""

    text: str
    calls: int
    space: Space
    tried: dict[ConvSchedule, float] = field(default_factory=dict)  # time over the default's
    best: ConvSchedule | None = None  # None: the default
    ratio: float = 1.0  # of the best to the default, in its duel
    seconds: float = 0.0  # of the default
    fruitless: int = 0
    exhausted: bool = False

    @property
    def priority(self) -> float:
        time_spent = self.calls * self.seconds * self.ratio if self.seconds else float("inf")
        return 0.0 if self.exhausted or self.fruitless >= SETTLED else time_spent / (1 + self.fruitless)


@dataclass(frozen=True)
class Status:
    """How far a search is: `gain` is the default kernels' time over the chosen ones', weighted by calls."""

    spent_s: float
    total_s: float
    trials: int
    gain: float


class Tuner:
    """A search over the distinct workloads of one model, resumed from what `records` hold.

    :param calls: how often the model runs each workload.
    """

    def __init__(self, calls: Mapping[Workload, int], target: Target, records: Records, seed: int = 0) -> None:
        self.records, self.seed, self.trials = records, seed, 0
        counts: dict[str, int] = {}
        for workload, count in calls.items():
            if is_tunable(workload):
                text = to_text(representative(workload))
                counts[text] = counts.get(text, 0) + count
        self.works = {text: Work(text, count, _space(text, target)) for text, count in sorted(counts.items())}
        self.model = sha256("\n".join(self.works).encode()).hexdigest()[:16]
        self.spent_s = self._replay()

    def choices(self) -> dict[str, ConvSchedule]:
        """The schedules that won a duel against the default, by the text of the representative workload."""
        return {text: work.best for text, work in self.works.items() if work.best is not None}

    def status(self, total_s: float) -> Status:
        before = sum(work.calls * work.seconds for work in self.works.values())
        after = sum(work.calls * work.seconds * work.ratio for work in self.works.values())
        return Status(self.spent_s, total_s, self.trials, before / after if after else 1.0)

    def wants(self, seconds: float) -> bool:
        """Whether a search of `seconds` in all, what the records hold included, has anything left to do."""
        return self.spent_s < seconds and any(work.priority > 0 for work in self.works.values())

    def search(
        self,
        measure: Measure | Fleet,
        seconds: float,
        report: Callable[[Status], None] | None = None,
        trials: float = float("inf"),
    ) -> None:
        """Spend what is left of `seconds`, or `trials`; then the chosen prove themselves once more.

        :raises KeyboardInterrupt: with every result in the records.
        :raises DeburrError: E505 where the last device is lost, as well.
        """
        if not self.wants(seconds):
            return
        fleet = measure if isinstance(measure, Fleet) else Fleet([measure])
        before, start, last = self.spent_s, time.monotonic(), self.trials + trials
        while self.trials < last and self.wants(seconds * 0.9):  # the rest is for the last duels
            first = sorted(self.works.values(), key=lambda work: work.priority, reverse=True)[: fleet.width]
            self._trials([work for work in first if work.priority > 0], fleet)
            self.spent_s = max(self.spent_s, before + time.monotonic() - start)
            if report is not None:
                report(self.status(seconds))
        self._duels([(work, work.best) for work in self.works.values() if work.best is not None and work.tried], fleet)
        self.spent_s = seconds if self.trials < last else before + time.monotonic() - start
        self.records.append({"kind": SESSION, "model": self.model, "seconds": self.spent_s})

    def _trials(self, works: Sequence[Work], fleet: Fleet) -> None:
        """One candidate of each, all measured side by side; those that look faster then fight."""
        proposed = [(work, self._propose(work)) for work in works]
        pairs = [(work, candidate) for work, candidate in proposed if candidate is not None]
        for work, candidate in proposed:
            work.exhausted = candidate is None
        start = time.monotonic()
        outcomes = [found[0] for found in fleet.measure([(work.text, [candidate]) for work, candidate in pairs], ROUNDS)]
        cost = (time.monotonic() - start) / max(1, len(pairs))
        challengers = []
        for (work, candidate), outcome in zip(pairs, outcomes, strict=True):
            self.trials += 1
            record = _trial_record(work, candidate, outcome)
            self.records.append({**record, "model": self.model, "cost": cost})
            self._learn(work, candidate, record)
            if outcome.ratio < MARGIN * work.ratio:
                challengers.append((work, candidate))
        self._duels(challengers, fleet)

    def _duels(self, pairs: Sequence[tuple[Work, ConvSchedule]], fleet: Fleet) -> None:
        """Each challenger against the default, and against the best so far where that is another."""
        rest = list(pairs)
        while rest:
            now, rest = rest[: fleet.width], rest[fleet.width :]  # what one turn found outlives an interrupt in the next
            requests = []
            for work, challenger in now:
                holders = [work.best] if work.best is not None and work.best != challenger else []
                requests.append((work.text, [challenger, *holders]))
            for (work, challenger), (outcome, *others) in zip(now, fleet.measure(requests, DUEL_ROUNDS), strict=True):
                self._judge(work, challenger, outcome, others)

    def _judge(self, work: Work, challenger: ConvSchedule, outcome: Outcome, others: Sequence[Outcome]) -> None:
        won = beats_default(outcome)
        if won and others and others[0].status == OK:
            won = outcome.ratio < MARGIN * others[0].ratio
        if won:
            self._choose(work, challenger, outcome.ratio)
        elif challenger == work.best:
            self._choose(work, None, 1.0)

    def _choose(self, work: Work, schedule: ConvSchedule | None, ratio: float) -> None:
        if schedule != work.best:
            work.fruitless = 0
        fields = None if schedule is None else to_fields(schedule)
        self.records.append({"kind": CHOICE, "workload": work.text, "schedule": fields, "ratio": ratio})
        work.best, work.ratio = schedule, ratio

    def _propose(self, work: Work) -> ConvSchedule | None:
        """A schedule that was not tried; the same one for the same history, whatever happened to the workers."""
        random = Random(f"{self.seed} {work.text} {len(work.tried)}")  # noqa: S311
        for _ in range(50):
            good = sorted(work.tried, key=lambda schedule: work.tried[schedule])[:3]
            if random.random() < 0.3:
                drawn = [found for _ in range(4) if (found := work.space.sample(random)) is not None]
                candidate = min(drawn, key=work.space.estimate, default=None)
            else:
                candidate = work.space.mutate(random.choice([work.best or work.space.default, *good]), random)
            if candidate is not None and candidate not in work.tried and candidate != work.space.default:
                return candidate
        return None

    def _learn(self, work: Work, candidate: ConvSchedule, record: Mapping[str, Any]) -> None:
        work.tried[candidate] = record["ratio"] if record["status"] == OK else float("inf")
        work.seconds = record["default_seconds"] or work.seconds
        work.fruitless += 1

    def _replay(self) -> float:
        """Learn from the records; the seconds that were spent on exactly this model."""
        costs = sessions = 0.0
        for record in self.records.load():
            work = self.works.get(record.get("workload", ""))
            if record.get("model") == self.model:
                costs += record.get("cost", 0.0)
                sessions = max(sessions, record.get("seconds", 0.0))
            try:
                self._replay_one(work, record)
            except (ValueError, KeyError, TypeError):  # a record of a space that changed within one version
                continue
        return max(costs, sessions)

    def _replay_one(self, work: Work | None, record: Mapping[str, Any]) -> None:
        if work is not None and record["kind"] == TRIAL:
            self._learn(work, from_fields(record["schedule"]), record)
        elif work is not None and record["kind"] == CHOICE:
            best = None if record["schedule"] is None else from_fields(record["schedule"])
            if best is None or work.space.legal(best):
                work.best, work.ratio, work.fruitless = best, float(record["ratio"]), 0


def beats_default(outcome: Outcome) -> bool:
    """By the margin in the median, in most of the rounds, and between the fastest rounds.

    The last one is for a busy machine: there a kernel without threads wins most rounds, since it waits for nobody, and still
    loses the quiet ones, which are what counts.
    """
    wins = sum(ratio < 1 for ratio in outcome.ratios)
    return outcome.ratio < MARGIN and outcome.fastest < MARGIN and wins >= WON * len(outcome.ratios)


def _space(text: str, target: Target) -> Space:
    workload: Any = from_text(text)
    return space(workload, target)


def _trial_record(work: Work, candidate: ConvSchedule, outcome: Outcome) -> dict[str, Any]:
    ratio = outcome.ratio if outcome.status == OK else None
    return {
        "kind": TRIAL, "workload": work.text, "schedule": to_fields(candidate), "status": outcome.status, "why": outcome.why,
        "seconds": outcome.seconds, "default_seconds": outcome.default_seconds, "ratio": ratio,
    }  # fmt: skip
