"""The program as a process: help, wrong calls, streams, interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from deburr.cli import main

SCRIPT = Path(sys.executable).with_name("deburr")
COMMANDS = ("optimize", "compile", "run", "bench", "compare", "inspect", "passes", "targets", "doctor")


def test_help_answers_within_three_tenths_of_a_second() -> None:
    seconds = []
    for _ in range(5):  # the best of five: other processes share this machine
        start = time.perf_counter()
        done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert done.stderr == ""
    assert all(re.search(rf"^  {command} ", done.stdout, re.M) for command in COMMANDS)
    assert min(seconds) <= 0.3


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "deburr", "optimise"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error[E901]: no such command 'optimise'; did you mean optimize?\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: deburr " + command in capfd.readouterr().out


def test_nothing_given_is_help_and_version_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capfd.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"deburr \d+\.\d+\.\d+\n", capfd.readouterr().out)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimise m.onnx", "error[E901]: no such command 'optimise'; did you mean optimize?"),
        ("optimize m.onnx -o x.onnx --sead 3", "error[E901]: no such option: --sead; did you mean --seed?"),
        ("optimize", "error[E901]: missing argument 'MODEL.onnx'; see deburr optimize --help"),
        ("optimize m.onnx", "error[E901]: missing option '-o' / '--output'; see deburr optimize --help"),
        ("passes --jsn x", "error[E901]: no such option: --jsn; did you mean --json?"),
        ("compile m.onnx -o b --dim h", "error[E901]: not a size, --dim h; write SYMBOL=NUMBER"),
        ("bench m.onnx --peer tflite", "error[E901]: no peer 'tflite', --peer: there are onnxruntime, openvino"),
        ("optimize m.onnx -o x.onnx --data c.npz --synthetic-data 4",
         "error[E901]: both real and random data, --data and --synthetic-data; give one of them"),
    ],
)  # fmt: skip
def test_wrong_calls(fails, line: str, message: str) -> None:
    assert fails(2, line) == message


def test_a_number_that_is_none(fails) -> None:
    assert re.fullmatch(
        r"error\[E901\]: invalid value for '--seed'.*; see deburr optimize --help",
        fails(2, "optimize m.onnx -o x.onnx --seed x"),
    )


def test_results_go_to_stdout_and_the_rest_to_stderr(folder: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "optimize", "m.onnx", "-o", "x.onnx", "--json", "-"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["pipeline"] == "clean"
    assert re.fullmatch(r"optimized with clean in \d+\.\d s\n", done.stderr)


def test_debug_shows_the_traceback(folder: Path) -> None:
    done = subprocess.run([SCRIPT, "inspect", "gone.onnx", "--debug"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "error[E101]: cannot read the model, gone.onnx" in done.stderr


def test_a_defect_is_one_line_too(fails, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(path: str) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("deburr.api.load", burst)
    wanted = "error[E903]: a defect in deburr: RuntimeError: boom; please report it with what --debug prints"
    assert fails(1, "inspect m.onnx") == wanted


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(f"{SCRIPT} passes | head -1", shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_interrupting_gives_one_line_and_leaves_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    process = subprocess.Popen(
        [SCRIPT, "bench", "m.onnx", "--rounds", "100000", "--json", "j.json"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        # A shell starts background jobs with interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not _children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    workers = _children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    try:
        out, error = process.communicate(timeout=60)
    finally:
        for leftover in {process.pid, *workers} if process.poll() is None else ():
            os.kill(leftover, signal.SIGKILL)
    assert (process.returncode, out, error) == (130, "", "interrupted\n")
    assert sorted(folder.rglob("*")) == before
    assert workers
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def test_interrupting_gradual_pruning_writes_the_best_model_so_far(folder: Path) -> None:
    pipeline = "clean,prune-gradually{ratio=0.9,steps=500,schedule=linear,round_to=1},remove-dead-code"
    process = subprocess.Popen(
        [SCRIPT, "optimize", "m.onnx", "-o", "x.onnx", "-p", pipeline, "--data", "c.npz", "--report", "r"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stderr is not None
    lines = []
    while not (lines and " gone, SQNR" in lines[-1]):  # the first step that removed something
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    process.send_signal(signal.SIGINT)
    try:
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted: prune-gradually ends with what it has reached" in error
    assert "warning: prune-gradually was interrupted: the model is what it had reached by then" in error
    assert json.loads(Path("r/report.json").read_text())["interrupted"] == "prune-gradually"
    before, after = (sum(len(one.raw_data) for one in onnx.load(name).graph.initializer) for name in ("m.onnx", "x.onnx"))
    assert after < before
    onnx.checker.check_model(onnx.load("x.onnx"), full_check=True)
