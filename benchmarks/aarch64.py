"""What the inner loops of our aarch64 kernels are made of, and how many cycles llvm-mca gives them: no device is needed.

    python benchmarks/aarch64.py --json build/aarch64.json

For each layer of ResNet-18 and each CPU, the kernel is compiled and its hottest basic block looked at: the share of multiply-
accumulate instructions, loads, whether anything goes to the stack, and llvm-mca's cycles against the fewest that the CPU's
multipliers allow. llvm-mca (Debian: llvm) models the core alone: no cache, no memory. It knows what a block costs, not a layer.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels import SHAPES, Shape

from deburr.targets.kernels import build
from deburr.targets.schedules import pipeline
from deburr.targets.target import find

MULTIPLY = r"(sdot|udot|sudot|usdot|smmla|usmmla|smlal2?|smull2?|fmla)"
BRANCH = r"(b|b\.\w+|cbn?z|tbn?z)\s"
# What a cycle takes of 128-bit multiply-accumulates, by the makers' optimization guides; CPUs that llvm-mca has a model of.
CPUS = {"raspberry-pi/5": 2, "ampere/altra": 2, "raspberry-pi/4b": 1, "rockchip/rk3568": 1}


@dataclass(frozen=True)
class Row:
    """One kernel: counts are of its hottest block, `cycles` of one turn through it, `peak` the fewest possible over those."""

    target: str
    layer: str
    instructions: int
    multiplications: int
    share: float
    loads: int
    stack: int
    cycles: float | None
    peak: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=list(CPUS), help="these only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'target':16} {'layer':18} instr  macs  share loads stack  cycles of peak")
    for target in options.target or CPUS:
        for shape in SHAPES:
            row = measure(target, shape)
            rows.append(row)
            cycles, peak = (f"{row.cycles:7.1f}", f"{row.peak:7.0%}") if row.cycles and row.peak else ("      -", "      -")
            print(
                f"{target:16} {row.layer:18} {row.instructions:5} {row.multiplications:5} {row.share:6.0%} {row.loads:5} "
                f"{row.stack:5} {cycles} {peak}",
                flush=True,
            )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def measure(target: str, shape: Shape) -> Row:
    """Compile the kernel and look at its inner loop."""
    device = find(target)
    lines = inner_loop(assembly(shape.workload(device.block), device))
    names = [line.split()[0] for line in lines]
    multiplications = sum(re.fullmatch(MULTIPLY, name) is not None for name in names)
    loads = sum(2 if name == "ldp" else 1 for name in names if name.startswith("ld"))
    cycles = cycles_of(lines, str(device.tvm["mcpu"]))
    return Row(
        target, shape.name, len(lines), multiplications, multiplications / len(lines), loads,
        sum("[sp" in line for line in lines), cycles, cycles and multiplications / CPUS[target] / cycles,
    )  # fmt: skip


def assembly(workload: Any, target: Any) -> str:
    """The kernel as LLVM prints it."""
    return str(pipeline.library(build.kernel(workload, target).function, target).mod.inspect_source("asm"))


def inner_loop(text: str) -> list[str]:
    """The block with most multiplications, up to the first branch back: what stands behind that is another loop's."""
    blocks = re.split(r"\n(?=\.L\w+:)", text)
    hottest = max(range(len(blocks)), key=lambda index: len(re.findall(rf"^\s+{MULTIPLY}\s", blocks[index], re.M)))
    behind = {block.partition(":")[0] for block in blocks[: hottest + 1]}
    lines = [line.split("//")[0].strip() for line in blocks[hottest].splitlines() if re.match(r"\s+[a-z]", line)]
    ends = [index for index, line in enumerate(lines) if re.match(BRANCH, line) and line.split()[-1] in behind]
    return lines[: ends[0] + 1] if ends else lines


def cycles_of(lines: list[str], cpu: str) -> float | None:
    """Cycles of one turn by llvm-mca; None where it is not installed or does not know the CPU or an instruction."""
    mca = shutil.which("llvm-mca")
    if mca is None:
        return None
    text = "\n".join(line for line in lines if not re.match(BRANCH, line))
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", "-iterations=100"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    return int(found.group(1)) / 100 if done.returncode == 0 and found else None


if __name__ == "__main__":
    main()
