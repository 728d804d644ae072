"""The threads of a compiled library: any number gives the same bits, callers do not meet, a child of fork has its own."""

import os
import subprocess
import sys

import numpy as np
import pytest
from models import residual_block, samples

from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.bundle import Bundle
from deburr.targets.target import find


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "block"
    compiling.compile(read(residual_block(48, 24)), path, target=find("x86-64-v3"), threads=1)
    return path


@pytest.fixture(scope="module")
def data():
    return samples(residual_block(48, 24), 1)["x"]


def run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_any_number_of_threads_gives_the_same_bits(bundle, data):
    one = Bundle.open(bundle, threads=1).run({"x": data})["y"]
    for threads in (2, 3, 7, 300):
        many = Bundle.open(bundle, threads=threads)
        for _ in range(20):
            np.testing.assert_array_equal(many.run({"x": data})["y"], one)


COUNTED = """
import os, sys
import numpy as np
from deburr.targets.bundle import Bundle
def threads(): return len(os.listdir("/proc/self/task"))
np.zeros((64, 64)) @ np.zeros((64, 64))  # numpy's own are there from now on
before = threads()
bundle = Bundle.open(sys.argv[1], threads=int(sys.argv[2]))
inputs = {"x": np.zeros((1, 3, 24, 24), np.float32)}
for _ in range(3): bundle.run(inputs)
print(threads() - before)
for _ in range(10): Bundle.open(sys.argv[1], threads=int(sys.argv[2])).run(inputs)
print(threads() - before)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_there_are_as_many_threads_as_asked_for_however_often_it_is_opened(bundle, threads):
    assert run(COUNTED, bundle, threads) == [str(threads - 1)] * 2


SHARED = """
import os, sys, threading
import numpy as np
from deburr.targets.bundle import Bundle
x = np.random.default_rng(0).random((1, 3, 24, 24), np.float32)
bundles = [Bundle.open(sys.argv[1], threads=n) for n in (1, 2, 3, 4)]
expected = bundles[0].run({"x": x})["y"]
wrong = []
def use(bundle):
    for _ in range(50):
        if not np.array_equal(bundle.run({"x": x})["y"], expected): wrong.append(bundle.threads)
callers = [threading.Thread(target=use, args=(bundle,)) for bundle in bundles * 2]
for caller in callers: caller.start()
for caller in callers: caller.join()
child = os.fork()
if child == 0:
    use(bundles[3])
    os._exit(len(wrong))
print(len(wrong), os.waitpid(child, 0)[1])
"""


def test_many_callers_and_a_child_of_fork(bundle):
    assert run(SHARED, bundle) == ["0", "0"]
