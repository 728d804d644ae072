"""Instructions that an aarch64 CPU executes for an inference: our int8 ResNet-18 beside ONNX Runtime's wheel, emulated.

    benchmarks/qemu_with_plugins.sh build/qemu
    python benchmarks/make_resnet18.py build/resnet18.onnx --calibration build/resnet18.npz
    deburr optimize build/resnet18.onnx -o build/resnet18-int8.onnx -p int8 --data build/resnet18.npz
    python benchmarks/instructions.py build/resnet18-int8.onnx --qemu build/qemu --json build/instructions.json

Both run the same file on one thread, under qemu with its plugin that counts. A run of 1 inference is taken from one of N + 1:
neither the start nor the loading counts. ONNX Runtime runs in Debian's aarch64 Python, which is downloaded and unpacked
beside qemu, without being installed. Its count differs from run to run, now and then by half: of either program the least of
three stands. An instruction is not a cycle, and nothing here knows caches: fewer is no promise.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from figures import table, write_json

from deburr.ir.onnx_reader import read
from deburr.targets.compile import compile as compile_for
from deburr.targets.target import find

# qemu's CPU, and a preset whose code it can run.
CPUS = {"cortex-a53": "raspberry-pi/3b", "cortex-a76": "raspberry-pi/5", "neoverse-n1": "ampere/altra", "max": "aws/graviton3"}
REPEATS = 3
OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
DOT = f"{OLD} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
FEATURES = {  # of /proc/cpuinfo, and the number of the part
    "cortex-a53": (OLD, "0xd03"), "cortex-a76": (DOT, "0xd0b"), "neoverse-n1": (DOT, "0xd0c"),
    "max": (f"{DOT} asimdfhm jscvt fcma sha3 sha512 sve i8mm bf16", "0xd40"),
}  # fmt: skip
PACKAGES = (
    "python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8"
)
PEER = """import sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
given = {session.get_inputs()[0].name: np.load(sys.argv[2])}
for _ in range(int(sys.argv[3])):
    made = session.run(None, given)[0]
np.save(sys.argv[4], made)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--qemu", type=Path, required=True, help="where qemu_with_plugins.sh built it")
    parser.add_argument("--cpu", action="append", choices=list(CPUS), help="these only")
    parser.add_argument("--calls", type=int, default=4, metavar="N")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="deburr-instructions-") as name:
        folder = Path(name)
        graph = onnx.load(options.model).graph
        shape = [size.dim_value or 1 for size in graph.input[0].type.tensor_type.shape.dim]
        np.save(folder / "input0.npy", np.random.default_rng(0).random(shape, np.float32))
        for cpu in options.cpu or CPUS:
            rows.append(measure(options, folder, cpu))
            print(rows[-1], flush=True)
    print(table({"cpu": "", "target": "", "onnxruntime": ",", "deburr": ",", "share": ".2f", "same_class": ""}, rows))
    if options.json:
        write_json(options.json, {"onnxruntime": version("onnxruntime"), "calls": options.calls, "rows": rows})


def measure(options: argparse.Namespace, folder: Path, cpu: str) -> dict[str, object]:
    """One CPU: the instructions of either program for one inference."""
    bundle = folder / cpu
    compile_for(read(options.model), bundle, target=find(CPUS[cpu]), threads=1, check=False)
    system = peer_system(options.qemu)
    describe_cpu(system, cpu)
    (folder / "peer.py").write_text(PEER)
    home = {"PYTHONHOME": str(system / "usr"), "PYTHONPATH": str(system / "site")}
    python = [str(system / "usr/bin/python3.11"), str(folder / "peer.py"), str(options.model), str(folder / "input0.npy")]

    def peers(calls: int) -> int:
        return count(options.qemu, cpu, system, [*python, str(calls), str(folder / "peer.npy")], home)

    def ours(calls: int) -> int:
        words = [str(bundle / "run"), str(bundle), str(folder), str(folder), "--threads", "1", "--calls", str(calls)]
        return count(options.qemu, cpu, system, words, {"TVM_NUM_THREADS": "1"})

    def one_inference(run: Callable[[int], int]) -> float:
        return (min(run(options.calls + 1) for _ in range(REPEATS)) - min(run(1) for _ in range(REPEATS))) / options.calls

    theirs, own = one_inference(peers), one_inference(ours)
    same = np.load(folder / "peer.npy").argmax() == np.load(folder / "output0.npy").argmax()
    return {
        "cpu": cpu, "target": CPUS[cpu], "onnxruntime": round(theirs), "deburr": round(own), "share": own / theirs,
        "same_class": "yes" if same else "no",
    }  # fmt: skip


def count(qemu: Path, cpu: str, system: Path, words: list[str], environment: dict[str, str]) -> int:
    """The instructions of a whole program."""
    command = [str(qemu / "qemu-aarch64"), "-cpu", cpu, "-L", str(system), "-plugin", f"{qemu / 'libinsn.so'},inline=on"]
    done = subprocess.run(
        [*command, "-d", "plugin", *words], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    found = re.findall(r"insns: (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return int(found[-1])


def peer_system(qemu: Path) -> Path:
    """Debian's aarch64 Python with numpy and ONNX Runtime, as a folder that qemu takes for the root."""
    root = (qemu / "aarch64").resolve()
    if (root / "proc").exists():
        return root
    lists, archives = root / "lists", root / "archives"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    archives.mkdir(exist_ok=True)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (root / "source.list").write_text(f"deb [arch=arm64 signed-by={key}] http://deb.debian.org/debian bookworm main\n")
    (root / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": root / "source.list", "Dir::Etc::sourceparts": "-", "Dir::State::lists": lists,
        "Dir::State::status": root / "status", "APT::Architecture": "arm64", "APT::Architectures": "arm64",
    }  # fmt: skip
    own = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", "update", "-qq", *own], check=True)
    subprocess.run(["apt-get", "download", "-qq", *own, *PACKAGES.split(), "libbz2-1.0", "liblzma5"], cwd=archives, check=True)
    for package in archives.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    platforms = [word for tag in ("2_28", "2_27", "2_17") for word in ("--platform", f"manylinux_{tag}_aarch64")]
    wanted = [f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")]
    how = ["--only-binary=:all:", "--no-deps", "--python-version", "3.11", "--target", root / "site"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *platforms, *how, *wanted], check=True)
    (root / "proc").mkdir()
    return root


def describe_cpu(system: Path, cpu: str) -> None:
    """ONNX Runtime reads what CPU it is on, and dies of what it finds where that is an x86's."""
    features, part = FEATURES[cpu]
    lines = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\n"
    text = "".join(f"processor\t: {index}\n{lines}CPU revision\t: 1\n\n" for index in range(2))
    (system / "proc" / "cpuinfo").write_text(text)


if __name__ == "__main__":
    if platform.machine() != "x86_64":
        raise SystemExit("this counts by emulation; on aarch64 itself: perf stat -e instructions")
    main()
