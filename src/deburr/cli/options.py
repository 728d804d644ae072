"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON ('-': to stdout, alone).")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Same inputs, same seed: same bytes.")]
Threads = Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="Threads (all cores unless given).")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="Where a bundle runs: ssh://USER@HOST:PORT, rpc://HOST:PORT, adb, qemu, qemu:CPU."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="NPZ|DIR",
        help="An array per model input, samples on the first axis; a folder of them, one for each size.",
    ),
]
