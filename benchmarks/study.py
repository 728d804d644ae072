"""What the benchmarks of training share: a model is changed step by step, and every step gives a row of figures.

Rows are written as they come: a run that is killed leaves those it has.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from figures import table, write_json

COLUMNS = {
    "model": "", "macs_cut": ".1%", "parameters_cut": ".1%", "smaller": ".1f", "accuracy": ".2%", "lost": "+.2f",
    "seconds": ".0f", "cpu_seconds": ".0f",
}  # fmt: skip


class Study:
    """Rows against the original on test images that nothing was fitted to; `lost` is in points of accuracy.

    `seconds` is what a step took on the wall, `cpu_seconds` on all cores together.

    :param evaluation: an .npz with the model's input and `labels`; `samples` of it count, or all.
    :param folder: where the models are written.
    :param path: of the JSON file.
    """

    def __init__(self, original: Path, evaluation: Path, *, folder: Path, path: Path, samples: int | None, seed: int) -> None:
        import numpy as np

        import deburr

        with np.load(evaluation) as archive:
            self._labels = archive["labels"][:samples]
            self._data = {name: archive[name][:samples] for name in archive.files if name != "labels"}
        self.rows: list[dict[str, Any]] = []
        self._folder, self._path, self._seed = folder, path, seed
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes, self._model = original.stat().st_size, deburr.load(original)
        self._note("original", self._model, self._bytes, seconds=0.0, cpu_seconds=0.0)

    def step(self, name: str, model: Any, pipeline: str, data: Path, **more: Any) -> Any:
        """What `pipeline` makes of a model (or of the original, for None): a model again, and a row.

        :param data: what the pipeline may look at, as an .npz.
        :param more: columns of the row.
        """
        import deburr

        wall, cpu = time.perf_counter(), time.process_time()
        made = deburr.optimize(self._model if model is None else model, pipeline, data=data, seed=self._seed)
        spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        path = self._folder / f"{name.replace(', ', '-').replace(' ', '-').replace('%', '')}.onnx"
        deburr.save(made, path)
        self._note(name, made, path.stat().st_size, **spent, pipeline=pipeline, file=str(path), **more)
        return made

    def table(self) -> str:
        return f"{table(COLUMNS, self.rows)}\n\n{len(self._labels)} test images; {self._path} holds the figures."

    def _note(self, name: str, model: Any, size_in_bytes: int, **more: Any) -> None:
        import deburr
        from deburr.inspect import size
        from deburr.ir.fidelity import accuracy

        (scores,) = deburr.run(model, self._data).values()
        found, now = accuracy(scores, self._labels), size(model)
        first = self.rows[0] if self.rows else {"accuracy": found, "macs": now.macs, "parameters": now.parameters}
        self.rows.append({
            "model": name, "accuracy": found, "lost": 100 * (first["accuracy"] - found), "macs": now.macs,
            "macs_cut": 1 - now.macs / first["macs"], "parameters": now.parameters,
            "parameters_cut": 1 - now.parameters / first["parameters"], "bytes": size_in_bytes,
            "smaller": self._bytes / size_in_bytes, "samples": len(self._labels), **more,
        })  # fmt: skip
        write_json(self._path, self.rows)
        print(f"{name}: {found:.2%} after {more['seconds']:.0f} s", file=sys.stderr, flush=True)
