"""32-bit ARM (NEON) and RISC-V (RVV): how far TVM's back ends carry, shown by one kernel that is compiled and run under qemu.

    python benchmarks/other_architectures.py

An int8 matrix product with a vectorized inner loop goes through TVM and LLVM, is linked by zig with a small C program that
calls it, and runs emulated (Debian: qemu-user-static); its sums are compared one by one. What deburr lacks for a target
there: a family of schedules (targets/isa.py), and TVM's runtime, of which neither architecture has wheels.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from figures import table

SIZE = 64
# LLVM's names, zig's, qemu's, and the instructions of vectors.
TARGETS: dict[str, tuple[dict[str, Any], str, list[str], str]] = {
    "armv7 NEON": (
        {"mtriple": "armv7a-linux-gnueabihf", "mcpu": "cortex-a7", "mattr": ["+neon"]},
        "arm-linux-musleabihf", ["qemu-arm-static", "-cpu", "cortex-a7"], r"vmlal\.s\d+|vmull\.s\d+",
    ),
    "riscv64 RVV": (
        {"mtriple": "riscv64-linux-gnu", "mcpu": "generic-rv64", "mabi": "lp64d", "mattr": [f"+{one}" for one in "mafdcv"]},
        "riscv64-linux-musl", ["qemu-riscv64-static", "-cpu", "rv64,v=true,vlen=128"], r"vw?macc\w*\.v\w|vw?mul\.v\w",
    ),
}  # fmt: skip
CALLER = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tvm/ffi/c_api.h"
enum { N = SIZE };
int __tvm_ffi_main(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  for (int i = 0; i < count; ++i) fputs(parts[i], stderr);
  exit(3);
}
static int8_t a[N * N] __attribute__((aligned(64))), b[N * N] __attribute__((aligned(64)));
static int32_t c[N * N] __attribute__((aligned(64)));
int main(void) {
  int64_t shape[2] = {N, N};
  DLTensor tensors[3];
  TVMFFIAny given[3], result;
  memset(tensors, 0, sizeof tensors);
  memset(given, 0, sizeof given);
  memset(&result, 0, sizeof result);
  for (int i = 0; i < N * N; ++i) a[i] = (int8_t)rand(), b[i] = (int8_t)rand();
  for (int i = 0; i < 3; ++i) {
    tensors[i].data = i == 0 ? (void*)a : i == 1 ? (void*)b : (void*)c;
    tensors[i].device.device_type = kDLCPU;
    tensors[i].ndim = 2;
    tensors[i].dtype = (DLDataType){kDLInt, i < 2 ? 8 : 32, 1};
    tensors[i].shape = shape;
    given[i].type_index = kTVMFFIDLTensorPtr;
    given[i].v_ptr = &tensors[i];
  }
  if (__tvm_ffi_main(0, given, 3, &result) != 0) return 2;
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) {
      int32_t sum = 0;
      for (int k = 0; k < N; ++k) sum += a[i * N + k] * b[k * N + j];
      if (sum != c[i * N + j]) return 1;
    }
  return 0;
}
"""


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="deburr-other-") as name:
        for label, (llvm, zig, qemu, vectors) in TARGETS.items():
            rows.append({"architecture": label, **attempt(Path(name), llvm, zig, qemu, vectors)})
    print(table({"architecture": "", "vector instructions": "", "under qemu": ""}, rows))
    raise SystemExit(any(row["under qemu"] == "WRONG SUMS" for row in rows))


def attempt(folder: Path, llvm: dict[str, Any], zig: str, qemu: list[str], vectors: str) -> dict[str, str]:
    """The instructions found, and what became of the run."""
    import tvm

    library = tvm.compile(product(), tvm.target.Target({"kind": "llvm", **llvm}))
    found = sorted(set(re.findall(rf"\s({vectors})", library.mod.inspect_source("asm"))))
    (folder / "caller.c").write_text(CALLER)
    program = folder / zig

    def link(_: str, objects: list[str], **__: Any) -> None:
        includes = [f"-I{Path(str(find_spec('tvm_ffi').origin)).parent / 'include'}"]  # type: ignore[union-attr]
        words = [
            "-target",
            zig,
            f"-DSIZE={SIZE}",
            "-O1",
            "-static",
            *includes,
            "-o",
            str(program),
            str(folder / "caller.c"),
            *objects,
        ]
        subprocess.run([sys.executable, "-m", "ziglang", "cc", *words], check=True)

    library.export_library(str(folder / "unused.so"), fcompile=link)
    if shutil.which(qemu[0]) is None:
        return {"vector instructions": ", ".join(found), "under qemu": f"not run: no {qemu[0]}"}
    status = subprocess.run([*qemu, str(program)], check=False).returncode
    verdict = {0: "right", 1: "WRONG SUMS"}.get(status, f"ended with {status}")
    return {"vector instructions": ", ".join(found), "under qemu": verdict}


def product() -> Any:
    """s8 x s8 -> s32, 16 columns at a time."""
    import tvm
    from tvm import te

    a, b = (te.placeholder((SIZE, SIZE), name=name, dtype="int8") for name in "AB")
    k = te.reduce_axis((0, SIZE), "k")
    c = te.compute((SIZE, SIZE), lambda i, j: te.sum(a[i, k].astype("int32") * b[k, j].astype("int32"), axis=k), name="C")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([a, b, c]))
    i, j, k_loop = schedule.get_loops(schedule.get_sblock("C"))
    outer, inner = schedule.split(j, [None, 16])
    schedule.reorder(i, outer, k_loop, inner)
    schedule.vectorize(inner)
    return schedule.mod


if __name__ == "__main__":
    main()
