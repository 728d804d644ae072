"""The log of record under everything that happens to files: torn, shared, edited, killed."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deburr.ir.errors import DeburrError
from deburr.targets.kernels import workload as w
from deburr.targets.kernels import workload_text
from deburr.targets.records import Records, Setting, read
from deburr.targets.target import find

SETTING = Setting.of(find("x86-64-v3"), 2)
WRITER = """
import sys
from deburr.targets.records import Records, Setting
records = Records(sys.argv[1], Setting(*sys.argv[2:5]))
print("ready", flush=True)
for number in range(int(sys.argv[5])):
    records.append({"number": number, "padding": "x" * 300})
"""
KILLER = """
import os, random, signal, sys, time
from deburr.targets.records import Records, Setting, read

records, generator = Records(sys.argv[1], Setting("t", 2, "v")), random.Random(0)

def write_for_ever():
    number = 0
    while True:
        records.append({"number": number, "padding": "x" * 1_000})
        number += 1

known = 0
for _ in range(int(sys.argv[2]) // 2):
    writers = []
    for _ in range(2):
        writers.append(os.fork())
        if not writers[-1]:
            write_for_ever()
    for writer in writers:
        time.sleep(generator.uniform(0, 0.002))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    found = sum(1 for _ in read(records.path))
    assert found >= known, (found, known)
    known = found
"""


def numbers(path, setting=SETTING):
    return [record["number"] for record in Records(path, setting).load()]


def writer(path, writes, target="t"):
    command = [sys.executable, "-c", WRITER, str(path), target, "2", "v", str(writes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_what_was_appended_is_loaded_in_order(tmp_path):
    records = Records(tmp_path / "new folder" / "r.jsonl", SETTING)
    assert records.load() == []
    for number in range(3):
        records.append({"number": number})
    assert numbers(records.path) == [0, 1, 2]


def test_records_of_other_targets_threads_and_versions_stay_and_do_not_count(tmp_path):
    path = tmp_path / "r.jsonl"
    others = [replace(SETTING, target="another"), replace(SETTING, threads=1), replace(SETTING, version="another")]
    for number, setting in enumerate([SETTING, *others]):
        Records(path, setting).append({"number": number})
    assert numbers(path) == [0]
    assert [numbers(path, setting) for setting in others] == [[1], [2], [3]]


def test_a_target_is_the_code_it_gives_not_its_name():
    target = find("x86-64-v3")
    assert Setting.of(replace(target, name="mine", about="x"), 2) == Setting.of(target, 2)
    assert Setting.of(replace(target, cores=64), 2) != Setting.of(target, 2)


@given(cut=st.integers(1, 400))
def test_a_torn_tail_costs_one_record_and_the_next_writer_mends_it(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "r.jsonl"
    for number in range(3):
        Records(path, SETTING).append({"number": number})
    last = len(path.read_bytes().splitlines(keepends=True)[-1])
    os.truncate(path, path.stat().st_size - min(cut, last))
    kept = [0, 1, 2] if cut == 1 else [0, 1]  # without its line break alone, the line is whole
    assert numbers(path) == kept
    Records(path, SETTING).append({"number": 7})
    assert numbers(path) == [*kept, 7]


def test_blank_damaged_and_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "r.jsonl"
    for number in range(3):
        Records(path, SETTING).append({"number": number})
    first, second, third = path.read_text().splitlines()
    changed = second.replace('"number": 1', '"number": 9')
    assert changed != second
    junk = [
        "",
        "   ",
        "{}",
        "[]",
        "null",
        '{"checksum": 1, "record": 2}',
        "[" * 100_000,
        "\x00\xff",
        json.dumps({"record": {}}),
    ]
    path.write_text("\n".join([*junk, first, changed, *junk, third, first[:40]]))
    assert numbers(path) == [0, 2]


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "r.jsonl"
    writers = [writer(path, 1000, target=name) for name in ("a", "b")]
    assert [process.wait() for process in writers] == [0, 0]
    for name in ("a", "b"):
        found = [record["number"] for record in read(path) if record["target"] == name]
        assert found == list(range(1000))
    assert len(path.read_bytes().splitlines()) == 2000


def test_fifty_kills_at_random_points_leave_a_log_that_loads(tmp_path):
    """Two writers at a time, each killed while it writes: what was whole stays whole, and a kill costs one record at most."""
    path = tmp_path / "r.jsonl"
    subprocess.run([sys.executable, "-c", KILLER, str(path), "50"], check=True)
    lines, whole = path.read_bytes().splitlines(), [record["number"] for record in read(path)]
    assert len(whole) > 100
    assert len(whole) >= len(lines) - 50
    Records(path, SETTING).append({"number": -1})
    assert [record["number"] for record in read(path)] == [*whole, -1]


def test_a_file_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").write_text("")
    records = Records(tmp_path / "file" / "r.jsonl", SETTING)
    with pytest.raises(DeburrError) as caught:
        records.append({})
    assert str(caught.value) == f"error[E109]: cannot write the records, {records.path}: File exists; name another file"
    with pytest.raises(DeburrError) as caught:
        Records(tmp_path, SETTING).load()
    assert str(caught.value) == f"error[E101]: cannot read the records, {tmp_path}: Is a directory; name another file"


WORKLOADS = [
    w.Conv2d(1, 64, 56, 56, 64, (3, 3), pads=(1, 1, 1, 1), data_zero_point=3, requantize=w.Requantize(7, 7, 255)),
    w.Conv2d(2, 20, 7, 9, 20, (3, 1), groups=20, dtype="float32", float_epilogue=w.FloatEpilogue(True, 0.0)),
    w.Conv2d(1, 8, 1, 1, 8, (1, 1), requantize=w.Requantize(0), add=w.FixedPointAdd(1, 2, 3, 4, 5, 6)),
    w.Pool2d("average", 1, 64, 7, 7, (7, 7), requantize=w.Requantize(1)),
    w.Add((1, 4, 8, 8, 16), add=w.FixedPointAdd(1, 2, 3, 4, 5, 6)),
    w.Quantize(1, 3, 8, 8, 0.1, 5),
]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_a_workload_survives_its_text(workload):
    assert workload_text.from_text(workload_text.to_text(workload)) == workload
    assert workload_text.to_text(workload).count("\n") == 0


def test_layers_that_differ_in_calibration_share_their_tuning():
    calibrated = replace(WORKLOADS[0], data_zero_point=99, requantize=w.Requantize(0, 3, 200))
    assert workload_text.representative(calibrated) == workload_text.representative(WORKLOADS[0])
    larger = replace(WORKLOADS[0], in_height=57)
    assert workload_text.representative(larger) != workload_text.representative(WORKLOADS[0])
