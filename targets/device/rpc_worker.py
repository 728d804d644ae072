"""The process that runs a bundle in an RPC session: TVM is loaded here, and whoever started it can end it.

    python -m deburr.targets.device.rpc_worker FOLDER < request.json

FOLDER holds inputs.npz; outputs.npz and times.json (milliseconds) go there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from deburr.ir.errors import CODES, DeburrError
from deburr.ir.types import Array
from deburr.targets import manifest as manifests
from deburr.targets.bundle import LIBRARY, Bundle
from deburr.targets.device.session import Link, connect, last_line
from deburr.targets.nvidia import memory
from deburr.targets.runtime import POOLED


class RemoteProgram:
    """The functions of a library at the other end of a session, as `runtime.Program` is here.

    :param times: of each call, in milliseconds, added up over the parts that a run was divided into.
    """

    def __init__(self, session: Any, library: Path, threads: int, calls: int) -> None:
        self._session, self._calls, self.times = session, calls, [0.0] * calls
        session.upload(str(library), LIBRARY)
        module = session.load_module(LIBRARY)
        module.get_function("deburr_set_threads", query_imports=True)(threads)
        self._machine = module["vm_load_executable"]()
        self._machine["vm_initialization"](memory.CPU, 0, POOLED)

    def run(self, arrays: Sequence[Array], function: str = "main") -> list[Array]:
        """The outputs of the last of `calls` calls; one before them does not count."""
        import tvm

        device = self._session.cpu()
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(array), device=device) for array in arrays]
        self._machine["set_input"](function, *tensors)
        timed = self._machine.time_evaluator("invoke_stateful", device, number=1, repeat=self._calls)(function)
        self.times = [sum(pair) for pair in zip(self.times, (seconds * 1e3 for seconds in timed.results), strict=True)]
        count = int(self._machine["get_output_arity"](function))
        indices = [()] if count < 0 else [(index,) for index in range(count)]
        return [self._machine["get_output"](function, *index).numpy() for index in indices]


def work(request: dict[str, Any], folder: Path) -> None:
    """:raises DeburrError: E501 to E505; E505 begins with "the session broke" where another attempt may do."""
    bundle, link = Path(request["bundle"]), Link.from_json(request["link"])
    description = manifests.read(bundle)
    with np.load(folder / "inputs.npz", allow_pickle=False) as archive:
        arrays = [archive[f"arr_{index}"] for index in range(len(archive.files))]
    session = connect(link, description.architecture, description.instruction_sets)
    from tvm.error import RPCError

    try:
        program = RemoteProgram(session, bundle / LIBRARY, request["threads"] or description.threads, request["calls"])
        opened = Bundle(bundle, description, cast("Any", program))
        outputs = opened.run(dict(zip(opened.inputs, arrays, strict=True)))
    except RPCError as error:  # what the other end objected to
        raise _objection(last_line(error), link.where) from error
    except RuntimeError as error:  # what became of the connection
        raise DeburrError("E505", "the session broke", where=link.where, why=last_line(error)) from error
    np.savez(folder / "outputs.npz", *outputs.values())
    (folder / "times.json").write_text(json.dumps(program.times))


def _objection(text: str, where: str) -> DeburrError:
    """A server of ours gives a code."""
    match = re.match(r"error\[(E\d+)\]: (.*)", text)
    if match and match.group(1) in CODES:
        return DeburrError(match.group(1), match.group(2), where=where)
    return DeburrError("E504", "the program failed", where=where, why=text)


def main() -> None:
    try:
        work(json.load(sys.stdin), Path(sys.argv[1]))
    except DeburrError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # TVM would wait for a session that may be gone


if __name__ == "__main__":
    main()
