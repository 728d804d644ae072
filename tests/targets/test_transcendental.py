"""exp, erf and tanh of whole vectors, on every instruction set: close to C's, infinities and NaN included."""

import math

import numpy as np
import pytest
from kernel_reference import TARGETS

from deburr.targets.schedules import transcendental

SPECIAL = [0.0, -0.0, 1e-30, -1e-30, 88.7, 88.8, 200.0, -87.4, -103.0, -104.5, -300.0, math.inf, -math.inf, math.nan, 4.1, -9.5]
CASES = {"exp": (-105, 90, 4e-7, 2e-45), "erf": (-6, 6, 1e-6, 3e-7), "tanh": (-12, 12, 1e-6, 1e-7)}


def computed(name, values, target, lanes):
    import tvm
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    data = te.placeholder(values.shape, "float32", "data")
    result = te.compute(values.shape, lambda i: getattr(tirx, name)(data[i]), name="result")
    plan = Schedule(tvm.IRModule({"main": te.create_prim_func([data, result])}))
    if lanes > 1:
        _, inner = plan.split(plan.get_loops(plan.get_sblock("result"))[0], [None, lanes])
        plan.vectorize(inner)
    transcendental.register()
    library = tvm.compile(plan.mod, tvm.target.Target(dict(target.tvm)))
    output = tvm.runtime.tensor(np.empty_like(values))
    library["main"](tvm.runtime.tensor(values), output)
    return output.numpy()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("isa", "lanes"), [("avx512vnni", 16), ("avx2", 8), ("generic", 4), ("generic", 1)])
def test_close_to_the_c_library(name, isa, lanes):
    low, high, relative, absolute = CASES[name]
    values = np.concatenate([np.float32(SPECIAL), np.linspace(low, high, 4080, dtype=np.float32)])
    exact = {"exp": np.exp, "erf": np.vectorize(math.erf), "tanh": np.tanh}[name]
    with np.errstate(over="ignore"):
        expected = exact(values.astype(np.float64)).astype(np.float32)
    result = computed(name, values, TARGETS[isa], lanes)
    np.testing.assert_allclose(result, expected, rtol=relative, atol=absolute)
