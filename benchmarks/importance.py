"""What each importance criterion is worth: accuracy at fewer MACs, as pruned and after compensation, without training.

    python benchmarks/importance.py --out build/importance

Every criterion of the registry prunes the network of examples/fashion_mnist to the same budget, calibrated on its calibration
data and scored in ONNX Runtime on its test images. `batch-norm` sees the network before BatchNormalization is folded.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import deburr
from deburr.inspect import size
from deburr.ir.fidelity import accuracy
from deburr.passes import registry

FOLDER = Path(__file__).parent.parent / "examples" / "fashion_mnist"


def measure(criterion: str, model: object, ratio: float, data: dict, labels: np.ndarray) -> dict:
    """One row: the MACs that are left, and the accuracy without and with compensation."""
    prune = f"prune-channels{{ratio={ratio},criterion={criterion},per_cost=true,round_to=16}}"
    remarks: list = []
    row = {"criterion": criterion}
    for name, rest in (("pruned", ""), ("compensated", ",compensate")):
        # batch-norm needs its layers while it ranks.
        text = f"{prune}{rest},clean" if criterion == "batch-norm" else f"clean,{prune}{rest}"
        made = deburr.optimize(model, text, data=FOLDER / "calibration.npz", seed=0, remarks=remarks)
        row[name] = accuracy(deburr.run(made, data)["logits"], labels)
        row["macs"] = size(made).macs
    row["ranked_by_l2"] = sum("ranked by l2" in remark.reason for remark in remarks)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/importance"))
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the MACs that goes")
    parser.add_argument("--samples", type=int, default=None, help="evaluate on the first N images only")
    parser.add_argument("--criterion", action="append", help="this one only (may be given again); all of them otherwise")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with np.load(FOLDER / "evaluation.npz") as archive:
        data, labels = {"image": archive["image"][: given.samples]}, archive["labels"][: given.samples]
    model = deburr.load(FOLDER / "model.onnx")
    whole = size(model).macs
    original = accuracy(deburr.run(model, data)["logits"], labels)
    print(f"original: accuracy {original:.2%}, {whole} MACs, {len(labels)} images\n")
    print("| criterion | MACs left | pruned | compensated |\n| :-- | --: | --: | --: |")
    rows = []
    for criterion in given.criterion or sorted(registry.criteria()):
        row = measure(criterion, model, given.ratio, data, labels)
        rows.append(row)
        note = f" ({row['ranked_by_l2']} groups ranked by l2)" if row["ranked_by_l2"] else ""
        print(f"| {criterion}{note} | {row['macs'] / whole:.1%} | {row['pruned']:.2%} | {row['compensated']:.2%} |", flush=True)
    report = {"original": original, "macs": whole, "samples": len(labels), "ratio": given.ratio, "rows": rows}
    (given.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
