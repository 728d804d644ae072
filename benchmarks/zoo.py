"""How many architectures of torchvision and timm prune, how many decline, and why: exported with random weights, then pruned.

    ZOOENV/bin/python benchmarks/zoo.py export [--folder build/zoo] [--exporter dynamo --exporter torchscript] [NAME …]
    .venv/bin/python  benchmarks/zoo.py prune  [--folder build/zoo] [--ratio 0.5] [--lossy] [--heads inner] [NAME …]

`export` needs `pip install torch torchvision timm onnx onnxscript`, a gigabyte or more, and nothing of deburr: it may run in an
environment of its own. Names are like torchvision/resnet18 or timm/vit_tiny_patch16_224, with * and ?. Each architecture runs
in a process of its own with limits on time and memory, so that a crash is a row. The rows are written as they are made, to
export.json and prune.json in the folder, and a second run does what is missing; --again does all.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from figures import table, write_json

Row = dict[str, Any]


def isolated(work: Callable[[], Row], seconds: float, gigabytes: float) -> Row:
    """What `work` gives in a forked process, with its wall time and peak memory; or a row that says how it failed."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=_run, args=(work, sender, int(gigabytes * 2**30)))
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv() if receiver.poll(seconds) else {"failed": f"more than {seconds:.0f} seconds"}
    except EOFError:
        process.join()
        row = {"failed": f"the process died: exit code {process.exitcode}"}
    process.kill()
    process.join()
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def _run(work: Callable[[], Row], sender: Connection, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        row = work()
    except BaseException as error:  # whatever went wrong is the row
        row = {"failed": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
    sender.send({**row, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024})


def rows_of(file: Path) -> dict[str, Row]:
    return json.loads(file.read_text()) if file.exists() else {}


def each(names: Sequence[str], file: Path, given: argparse.Namespace, work: Callable[[str], Row]) -> dict[str, Row]:
    """A row for each name that has none yet, written at once."""
    rows = rows_of(file)
    for name in names:
        if given.again or name not in rows:
            rows[name] = {"model": name, **isolated(lambda name=name: work(name), given.seconds, given.gigabytes)}  # type: ignore[misc]
            write_json(file, rows)
            print("  ".join(f"{key}={value}" for key, value in rows[name].items() if key != "reasons"), flush=True)
    return {name: rows[name] for name in names}


def export(given: argparse.Namespace) -> None:
    import zoo_architectures

    given.folder.mkdir(parents=True, exist_ok=True)
    listed = given.folder / "names.json"
    if not listed.exists():
        write_json(listed, zoo_architectures.names())
    exporters = given.exporter or ["dynamo", "torchscript"]

    def work(name: str) -> Row:
        return zoo_architectures.export(name, given.folder / f"{name.replace('/', '_')}.onnx", exporters)

    rows = each(matching(json.loads(listed.read_text()), given.names), given.folder / "export.json", given, work)
    outcomes = Counter(row.get("exporter", "none") for row in rows.values())
    print(f"\n{len(rows)} architectures, by exporter: {dict(outcomes)}")
    for row in rows.values():
        if "exporter" not in row:
            print(f"{row['model']}: {row.get('failed') or row.get('torchscript_error') or row.get('dynamo_error')}")


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def prune(given: argparse.Namespace) -> None:
    import zoo_pruning

    from deburr.passes.analysis.walk import ChannelOptions

    exported = rows_of(given.folder / "export.json")
    files = {name: given.folder / row["file"] for name, row in exported.items() if "file" in row}
    options = ChannelOptions(heads=given.heads, lossy=given.lossy)

    def work(name: str) -> Row:
        return zoo_pruning.measure(files[name], given.ratio, options)

    made = given.folder / ("prune.json" if options == ChannelOptions() else f"prune_{given.heads}{'_lossy' * given.lossy}.json")
    rows = list(each(matching(list(files), given.names), made, given, work).values())
    print("\n" + table(zoo_pruning.COLUMNS, rows) + "\n")
    verdicts = Counter(zoo_pruning.verdict(row) for row in rows)
    print(
        f"{len(exported)} architectures, {len(rows)} exported: "
        + ", ".join(f"{n} {what}" for what, n in verdicts.most_common())
    )
    reasons = Counter(reason for row in rows for reason in _without_names(row.get("reasons", {})))
    for reason, count in reasons.most_common():
        print(f"{count:4} models: {reason}")


def _without_names(reasons: Iterable[str]) -> set[str]:
    return {re.sub("'[^']*'", "…", reason) for reason in reasons} - {"it is an output of the graph"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/zoo"))
    parser.add_argument("--seconds", type=float, default=180, help="most time for one architecture")
    parser.add_argument("--gigabytes", type=float, default=16, help="most address space for one architecture")
    parser.add_argument("--again", action="store_true", help="also what has a row already")
    parser.add_argument("stage", choices=("export", "prune"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--exporter", action="append", choices=("dynamo", "torchscript"), help="in the order they are tried")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--lossy", action="store_true")
    parser.add_argument("--heads", choices=("whole", "inner"), default="whole")
    given = parser.parse_intermixed_args()
    (export if given.stage == "export" else prune)(given)


if __name__ == "__main__":
    main()
