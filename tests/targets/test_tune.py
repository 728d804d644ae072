"""The tuner with a deterministic measure: its choice, what it remembers, and workers that die or hang under it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from models import Builder, residual_block, transformer_layer
from program import lowered, quantized
from refusals import refusal
from test_lower_channels import split_and_joined

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets import tune
from deburr.targets.kernels.workload import Add, Conv2d, Requantize
from deburr.targets.programs import lowered_for
from deburr.targets.records import Records, Setting
from deburr.targets.schedules.search import to_fields
from deburr.targets.schedules.space import space
from deburr.targets.target import find
from deburr.targets.tuning import measuring
from deburr.targets.tuning.measuring import WorkerMeasure
from deburr.targets.tuning.protocol import OK, WRONG, Fleet, Outcome
from deburr.targets.tuning.tuner import Tuner, beats_default

TARGET = find("x86-64-v3")
SMALL = Conv2d(1, 16, 8, 8, 16, (3, 3), pads=(1, 1, 1, 1), in_block=8, out_block=8, requantize=Requantize(3))
CALLS = {SMALL: 2, replace(SMALL, out_channels=64): 1, Add((1, 2, 8, 8, 8)): 1}

# A worker whose times depend on the schedule alone. It dies or hangs at a share of the requests, by their number.
FAKE = """
import hashlib, json, os, pathlib, random, sys, time
counter, rate = pathlib.Path(sys.argv[1]), float(sys.argv[2])
for line in sys.stdin:
    request = json.loads(line)
    number = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(number + 1))
    chance = random.Random(number).random()
    if chance < rate / 4:
        time.sleep(60)
    if chance < rate:
        os.kill(os.getpid(), 9)
    outcomes = []
    for schedule in request["schedules"]:
        text = request["workload"] + json.dumps(schedule, sort_keys=True)
        ratio = 0.5 + int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 2**24
        outcomes.append({"status": "ok", "seconds": ratio, "default_seconds": 1.0, "ratios": [ratio] * request["rounds"],
                         "fastest": ratio})
    print(json.dumps({"outcomes": outcomes}), flush=True)
"""


def fake(monkeypatch, tmp_path, rate=0.0):
    """Put the fake in the worker's place; the function counts the requests that it got."""
    counter = tmp_path / f"requests-{rate}"
    monkeypatch.setattr(measuring, "worker_command", lambda: [sys.executable, "-S", "-c", FAKE, str(counter), str(rate)])
    return lambda: int(counter.read_text()) if counter.exists() else 0


def tuner(path):
    return Tuner(CALLS, TARGET, Records(path, Setting.of(TARGET, 1)))


def search(path, trials=40, seconds=1e9):
    found = tuner(path)
    with WorkerMeasure(TARGET, 1, limit_s=1.0) as measure:
        found.search(measure, seconds, trials=trials)
    return found, measure.lost


def test_a_fifth_of_the_workers_killed_or_hung_changes_no_choice(tmp_path, monkeypatch):
    fake(monkeypatch, tmp_path)
    calm, _ = search(tmp_path / "calm.jsonl")
    fake(monkeypatch, tmp_path, 0.2)
    stormy, lost = search(tmp_path / "stormy.jsonl")
    assert lost >= 5
    assert stormy.choices() == calm.choices() != {}
    assert [work.tried for work in stormy.works.values()] == [work.tried for work in calm.works.values()]


def test_a_candidate_that_always_takes_the_worker_with_it_counts_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "worker_command", lambda: [sys.executable, "-S", "-c", "input(); raise SystemExit('oh')"])
    found, lost = search(tmp_path / "r.jsonl", trials=2)
    assert found.choices() == {}
    assert lost == 2 * measuring.ATTEMPTS
    records = Records(tmp_path / "r.jsonl", Setting.of(TARGET, 1)).load()
    assert [(r["status"], r["why"]) for r in records if r["kind"] == "trial"] == [("crashed", "oh")] * 2


def test_the_second_run_measures_nothing_and_chooses_the_same(tmp_path, monkeypatch):
    requests = fake(monkeypatch, tmp_path)
    first, _ = search(tmp_path / "r.jsonl", trials=1e9, seconds=0.5)
    before = requests()
    assert before > 0
    second, _ = search(tmp_path / "r.jsonl", trials=1e9, seconds=0.5)
    assert requests() == before
    assert second.choices() == first.choices()


def test_an_interrupt_keeps_what_was_found_and_the_next_run_goes_on(tmp_path, monkeypatch):
    class Interrupting(WorkerMeasure):
        left = 9

        def measure(self, *given):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().measure(*given)

    requests = fake(monkeypatch, tmp_path)
    found = tuner(tmp_path / "r.jsonl")
    with pytest.raises(KeyboardInterrupt), Interrupting(TARGET, 1) as measure:
        found.search(measure, 1e9)
    again = tuner(tmp_path / "r.jsonl")
    assert requests() == 8
    assert again.choices() == found.choices()
    assert [work.tried for work in again.works.values()] == [work.tried for work in found.works.values()]
    assert any(again.works[text].tried for text in again.works)


def test_the_default_stays_unless_it_is_beaten_by_a_margin_in_most_rounds():
    assert beats_default(Outcome(OK, ratios=(0.9,) * 15 + (1.2,) * 5, fastest=0.9))
    assert not beats_default(Outcome(OK, ratios=(0.99,) * 20, fastest=0.9))
    assert not beats_default(Outcome(OK, ratios=(0.9,) * 11 + (1.2,) * 9, fastest=0.9))
    assert not beats_default(Outcome(OK, ratios=(0.5,) * 20, fastest=1.1)), "it wins only while the machine is busy"
    assert not beats_default(Outcome(WRONG, ratios=(0.5,) * 20, fastest=0.5))


def test_a_winner_that_loses_its_last_duel_gives_way_to_the_default(tmp_path):
    class Flattering:
        """Everything is faster at first, and slower when it is measured again."""

        def measure(self, workload, schedules, rounds):
            self.asked = getattr(self, "asked", 0) + 1
            return [Outcome(OK, 1.0, 1.0, (0.8 if self.asked < 3 else 1.1,) * rounds, 0.8) for _ in schedules]

    found = tuner(tmp_path / "r.jsonl")
    found.search(Flattering(), 1e9, trials=1)
    assert found.choices() == {}
    assert tuner(tmp_path / "r.jsonl").choices() == {}


def test_the_real_worker_checks_the_numbers_and_times_in_turns():
    text = next(iter(tuner("nowhere").works))
    searched = space(SMALL, TARGET)
    odd = replace(searched.default, oc_tile=7)
    with WorkerMeasure(TARGET, 1) as measure:
        good, refused = measure.measure(text, [searched.default, odd], 5)
    assert good.status == OK
    assert len(good.ratios) == 5
    assert 0.2 < good.ratio < 5
    assert (refused.status, refused.ratio) == ("refused", float("inf"))
    assert "do not divide" in refused.why


def test_wrong_numbers_are_not_timed(monkeypatch):
    from deburr.targets.tuning import places, worker

    text = next(iter(tuner("nowhere").works))
    bench = worker.Bench(text, TARGET, places.Here())
    bench.expected = bench.expected ^ 1
    assert bench.measure([to_fields(space(SMALL, TARGET).default)], 3) == [{"status": WRONG}]


def test_records_decide_the_bytes_of_the_bundle(tmp_path):
    """A choice in the records is what is compiled, with no search; the same records give the same bytes."""
    proto = quantized(residual_block())
    _, model, _ = lowered(proto, TARGET.name)
    records = Records(tmp_path / "r.jsonl", Setting.of(TARGET, 1))
    for text, work in Tuner(tune.workloads([model]), TARGET, records).works.items():
        other = replace(work.space.default, unroll=1, parallel=work.space.default.parallel)
        records.append({"kind": "choice", "workload": text, "schedule": to_fields(other), "ratio": 0.5})
    code = {}
    for name, given in (("untuned", None), ("tuned", records.path), ("again", records.path)):
        compiling.compile(read(proto), tmp_path / name, target=TARGET, threads=1, records=given, check=False)
        code[name] = [(tmp_path / name / file).read_bytes() for file in ("model.so", "manifest.json")]
    assert code["tuned"] == code["again"]
    assert code["tuned"][0] != code["untuned"][0]


def resized():
    builder = Builder()
    sizes = builder.constant(np.array([1, 1, 2, 2], np.float32))
    builder.node("Resize", [builder.conv("x", 3, 16), "", sizes], "y", mode="nearest")
    return builder.model({"x": [1, 3, 4, 4]}, {"y": [1, 16, 8, 8]})


@pytest.mark.parametrize(
    ("proto", "untemplated", "templated"),
    [
        (resized(), {"Resize"}, {"Conv2d", "ChangeLayout"}),
        (split_and_joined((16, 32)), {"Part", "Concat"}, {"Conv2d", "ChangeLayout"}),
        (quantized(transformer_layer()), {"Quantize", "Dequantize", "Add"}, {"MatMul", "Rows"}),
    ],
)
def test_what_has_no_template_is_not_tuned(proto, untemplated, templated):
    (program,) = lowered_for(read(proto), TARGET).each
    assert untemplated <= {node.op for node in program.lowered.graph.nodes if node.domain}
    assert {type(work).__name__ for work in tune.workloads([program.lowered])} == templated


def test_every_batch_size_is_tuned_and_they_share_their_records(tmp_path):
    """What was found for one sample alone counts in a bundle for several sizes, and the other way round."""
    proto = read(quantized(residual_block()))
    records = Records(tmp_path / "r.jsonl", Setting.of(TARGET, 1))
    models = {sizes: [one.lowered for one in lowered_for(proto, TARGET, sizes).each] for sizes in (1, (1, 4), 4)}
    works = {sizes: Tuner(tune.workloads(models[sizes]), TARGET, records).works for sizes in models}
    assert works[1, 4].keys() == works[1].keys() | works[4].keys()
    assert not works[1].keys() & works[4].keys()
    for sizes in (1, 4):
        for text, work in works[sizes].items():
            records.append({"kind": "choice", "workload": text, "schedule": to_fields(work.space.default), "ratio": 0.5})
        chosen = tune.tuned_schedules(models[1, 4], TARGET, 1, tune.Request(0, records.path))
        assert chosen.keys() >= works[sizes].keys()
    assert chosen.keys() == works[1, 4].keys()


def test_a_target_that_cannot_run_here_is_not_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "missing_here", lambda sets: ("avx9",))
    with pytest.raises(DeburrError) as caught:
        compiling.compile(read(residual_block()), tmp_path / "b", target=TARGET, tune=1, records=tmp_path / "r.jsonl")
    assert str(caught.value) == (
        "error[E503]: cannot tune for another machine, target 'x86-64-v3': this CPU lacks avx9; "
        "name one with --device; or tune on that machine, and bring its records here"
    )
    assert not (tmp_path / "b").exists()


class Board:
    """Answers with its own name, and is out of reach from the request on that it is told."""

    def __init__(self, name, lost_at=None):
        self.name, self.lost_at, self.asked, self.stopped = name, lost_at, [], False

    def measure(self, workload, schedules, rounds):
        if len(self.asked) == self.lost_at:
            raise DeburrError("E505", "the device cannot be reached", where=self.name)
        self.asked.append(workload)
        return [Outcome(OK, 1.0, 1.0, (1.0,) * rounds, 1.0, why=workload) for _ in schedules]

    def stop(self):
        self.stopped = True


def test_boards_share_the_requests_and_one_that_is_lost_leaves_its_own_to_the_others():
    boards = [Board("a"), Board("b", lost_at=1), Board("c")]
    fleet = Fleet(boards)
    for _ in range(3):
        requests = [(str(index), [None]) for index in range(3)]
        assert [found[0].why for found in fleet.measure(requests, 1)] == ["0", "1", "2"]
    assert fleet.width == 2
    assert (len(boards[0].asked) + len(boards[2].asked), len(boards[1].asked)) == (8, 1)


def test_the_last_board_that_is_lost_ends_the_search():
    boards = [Board("a", lost_at=0), Board("b", lost_at=0)]
    assert refusal(Fleet(boards).measure, [("0", [None]), ("1", [None])], 1).startswith("error[E505]: ")


def test_a_search_over_boards_measures_as_many_layers_at_once(tmp_path):
    boards = [Board("a"), Board("b")]
    found = tuner(tmp_path / "r.jsonl")
    found.search(Fleet(boards), 1e9, trials=6)
    assert [len(board.asked) for board in boards] == [3, 3]
    assert all(first != second for first, second in zip(boards[0].asked, boards[1].asked, strict=True))
    assert sum(len(work.tried) for work in found.works.values()) == 6


def test_equal_layers_are_one_workload(tmp_path):
    calls = {SMALL: 2, replace(SMALL, data_zero_point=7): 3}
    work = next(iter(Tuner(calls, TARGET, Records(tmp_path / "r", Setting.of(TARGET, 1))).works.values()))
    assert work.calls == 5
    assert json.loads(work.text)["data_zero_point"] == 0
