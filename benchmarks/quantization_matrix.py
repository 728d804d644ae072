"""The matrix of quantization: what ONNX Runtime's own quantizer makes of each case, and what ours does.

    python benchmarks/quantization_matrix.py [--json build/quantization_matrix.json]

The cases are those of tests/passes/quantization_matrix.py. Both see the same seeded normal data and give QDQ models with scales
for each channel of the weights; ONNX Runtime's quantize_static is otherwise asked for its defaults, after its own
quant_pre_process. SQNR is the least of all outputs in decibels, in ONNX Runtime with and without its optimizations. "holds" is
the case's own condition, on the operators and tensors of the emitted model; "otherwise" is a model that is near enough, built
in another way. Ours rounds to the nearest too, but for the case of 4 bits, whose rounding is second-order; its ranges are of
the mse observer, ONNX Runtime's the extremes.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from figures import table, write_json
from quantization_peers import onnxruntime as quantize_with_onnxruntime

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from passes.quantization_matrix import CASES, Case, calibration
from passes.quantizing import optimized, outputs, sqnr

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto

COLUMNS = {"case": "", "expects": "", "onnxruntime": "", "onnxruntime_db": ".1f", "deburr": "", "deburr_db": ".1f"}


def peer(proto: onnx.ModelProto, data: Mapping[str, np.ndarray], options: Mapping[str, object]) -> onnx.ModelProto:
    """ONNX Runtime's static quantization, per channel.

    :param options: activation_type and weight_type by name; the rest are extra options.
    """
    extra = dict(options)
    kinds = {key: extra.pop(key) for key in ("activation_type", "weight_type") if key in extra}
    size = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    batches = [
        {name: array[i : i + size] for name, array in data.items()} for i in range(0, len(next(iter(data.values()))), size)
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(proto, source)
        quantize_with_onnxruntime(source, batches, target, extra_options=extra, **kinds)
        return onnx.load(target)


def verdict(case: Case, proto: onnx.ModelProto, result: onnx.ModelProto) -> tuple[str, float | None]:
    """What is wrong with a result, or "holds"; and its SQNR, where it runs."""
    data = calibration(proto)
    try:
        onnx.checker.check_model(result, full_check=True)
        found = [*outputs(result, data), *outputs(result, data, optimize=True)]
    except Exception as error:  # whatever the checker or the runtime raise is the finding
        return f"invalid: {one_line(error)}", None
    if not all(np.isfinite(given).all() for given in found):
        return "not finite", None
    exact = outputs(proto, data)
    least = min(sqnr(wanted, given) for wanted, given in zip([*exact, *exact], found, strict=True))
    if least <= case.least:
        return "inaccurate", least
    return "holds" if case.holds(result) else "otherwise", least


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:80].replace("|", "/")


def row(name: str) -> dict[str, Any]:
    """The findings of one case."""
    case = CASES[name]
    proto = case.make()
    data = case.spoiled(calibration(proto))
    try:
        theirs, their_sqnr = verdict(case, proto, peer(proto, data, case.peer))
    except Exception as error:  # a quantizer may fail in any way
        theirs, their_sqnr = one_line(error), None
    try:
        ours, our_sqnr = verdict(case, proto, to_proto(optimized(proto, case.pipeline, data=data).model))
    except DeburrError as error:
        ours, our_sqnr = f"{'holds' if case.spoil else 'fails'}: {error}"[:80], None
    return {
        "case": name, "expects": case.expects, "onnxruntime": theirs, "onnxruntime_db": their_sqnr,
        "deburr": ours, "deburr_db": our_sqnr,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(4)
    rows = [row(name) for name in CASES]
    print(table(COLUMNS, rows))
    holding = sum(one["deburr"].startswith("holds") for one in rows)
    print(f"\nONNX Runtime {onnxruntime.__version__}; {holding} of {len(rows)} hold.")
    if given.json:
        write_json(given.json, {"onnxruntime": onnxruntime.__version__, "rows": rows})


if __name__ == "__main__":
    main()
