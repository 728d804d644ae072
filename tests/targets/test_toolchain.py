"""CUDA compilers: which is taken for an architecture, what each makes, and what is said where there is none."""

import struct
from pathlib import Path

import pytest
from refusals import refusal

from deburr.ir.errors import DeburrError
from deburr.targets.nvidia import compiler, cubin, toolchain

CODE = """
#include <mma.h>
extern "C" __global__ void __launch_bounds__(128) halves_kernel(half *data) {
  data[threadIdx.x] = __float2half_rn(2.0f * __half2float(data[threadIdx.x]));
}
"""
NVCC = """#!/bin/sh
case "$1" in
  --list-gpu-code) echo sm_75; echo sm_100; echo sm_80 ;;
  *) echo "kernels.cu(1): error: what a mess" >&2; exit 1 ;;
esac
"""
EVERY = list(toolchain.candidates())


@pytest.mark.skipif(not EVERY, reason=f"there is no CUDA compiler here: {toolchain.INSTALL}")
@pytest.mark.parametrize("made_by", EVERY, ids=lambda one: one.program.name)
def test_every_compiler_here_makes_machine_code(made_by, tmp_path):
    known = made_by.architectures()
    assert {"sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90"} <= set(known)
    cubins = {}
    for architecture in {known[0], "sm_90"}:
        cubins[architecture], (kernel,) = compiler.cubin(CODE, architecture, tmp_path, made_by)
        assert (kernel.name, kernel.spilled, kernel.shared) == ("halves_kernel", 0, 0)
        assert 0 < kernel.registers < 32
        assert cubin.architecture(cubins[architecture]) == architecture
        text = compiler.ptx(CODE, architecture, tmp_path, made_by)
        assert f".target {architecture}" in text
        assert ".entry halves_kernel(" in text
    if not made_by.binder.exists():
        assert refusal(compiler.bind, cubins, tmp_path, made_by).endswith(f"it is missing; {toolchain.INSTALL}")
        return
    bound = tmp_path / "model.so"
    bound.write_bytes(compiler.bind(cubins, tmp_path, made_by))
    assert struct.unpack("<I", bound.read_bytes()[:4]) == (0xBA55ED50,)
    cubin.check(bound, tuple(cubins))
    assert compiler.bind({"sm_90": cubins["sm_90"]}, tmp_path, made_by) == cubins["sm_90"]


@pytest.mark.skipif(not EVERY, reason=f"there is no CUDA compiler here: {toolchain.INSTALL}")
@pytest.mark.parametrize("made_by", EVERY, ids=lambda one: one.program.name)
def test_what_a_compiler_objects_to(made_by, tmp_path):
    told = refusal(compiler.cubin, "__global__ void broken(", "sm_80", tmp_path, made_by)
    assert told.startswith("error[E403]: the CUDA compiler failed, ")
    assert "kernels.cu(" in told


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """One with nothing on it; and what puts a compiler there."""
    for name in ("CUDA_HOME", "CUDA_PATH", "NVCC_CCBIN"):
        monkeypatch.delenv(name, raising=False)
    on_path = {"g++": "/usr/bin/g++"}
    monkeypatch.setattr("shutil.which", on_path.get)
    monkeypatch.setattr(toolchain, "_wheels", lambda: [tmp_path / "nvidia"])
    (tmp_path / "nvidia").mkdir()
    return on_path


def put(path, text=NVCC):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_without_a_compiler(machine):
    why = "neither nvcc nor NVRTC is here, on the PATH, in CUDA_HOME or as a wheel"
    assert refusal(toolchain.find, "sm_80") == f"error[E405]: no CUDA compiler for sm_80: {why}; pip install 'deburr[cuda]'"
    assert refusal(toolchain.find, "sm_53").endswith("; pip install 'deburr[cuda12]'")


def test_the_first_that_knows_the_architecture(machine, tmp_path, monkeypatch):
    first, second, third = (put(tmp_path / name / "bin" / "nvcc") for name in ("a", "b", "nvidia/cu13"))
    machine["nvcc"] = str(first)
    monkeypatch.setenv("CUDA_HOME", str(second.parent.parent))
    assert [one.program for one in toolchain.candidates()] == [first, second, third]
    assert toolchain.find("sm_80").program == first
    assert toolchain.find("sm_80").architectures() == ("sm_75", "sm_80", "sm_100")
    put(first, NVCC.replace("sm_80", "sm_90"))
    toolchain._architectures.cache_clear()
    assert toolchain.find("sm_80").program == second
    told = refusal(toolchain.find, "sm_72")
    assert told.startswith(f"error[E405]: no CUDA compiler for sm_72: {first} knows sm_75 to sm_100; {second} knows ")
    assert told.endswith("; pip install 'deburr[cuda12]'")


def test_nvcc_without_a_cpp_compiler_is_left_out(machine, tmp_path, monkeypatch):
    machine["nvcc"] = str(put(tmp_path / "nvcc"))
    del machine["g++"]
    assert list(toolchain.candidates()) == []
    monkeypatch.setenv("NVCC_CCBIN", "clang++")
    assert len(list(toolchain.candidates())) == 1


def test_a_library_without_its_headers(machine, tmp_path):
    """The folders of CUDA 13's wheels and of 12's; libraries that are none do not work, and are told of."""
    folder = tmp_path / "nvidia"
    newer, older = put(folder / "cu13/lib/libnvrtc.so.13"), put(folder / "cuda_nvrtc/lib/libnvrtc.so.12")
    for name in toolchain.HEADERS:
        put(folder / "cu13/include" / name)
        put(folder / ("cuda_cccl" if "std" in name else "cuda_nvcc" if "crt" in name else "cuda_runtime") / "include" / name)
    assert [one.program for one in toolchain.candidates()] == [newer, older]
    assert f"{newer} does not work; {older} does not work" in refusal(toolchain.find, "sm_80")
    (folder / "cuda_nvcc/include/crt/mma.h").unlink()
    assert f"{older} has no crt/mma.h; " in refusal(toolchain.find, "sm_80")


def test_a_tool_that_fails_or_is_missing(machine, tmp_path):
    machine["nvcc"] = str(put(tmp_path / "nvcc"))
    assert refusal(compiler.cubin, "", "sm_80", tmp_path) == (
        f"error[E403]: the CUDA compiler failed, {tmp_path / 'nvcc'}: kernels.cu(1): error: what a mess; "
        "is it of one release with its headers?"
    )
    assert refusal(compiler.bind, {"sm_75": b"", "sm_80": b""}, tmp_path) == (
        f"error[E405]: the CUDA compiler is not whole, {tmp_path / 'fatbinary'}: it is missing; pip install 'deburr[cuda]'"
    )
    gone = toolchain.Toolchain(Path("/nowhere/nvcc"), Path("/nowhere/fatbinary"))
    with pytest.raises(DeburrError, match="/nowhere/nvcc: No such file or directory"):
        compiler.cubin("", "sm_80", tmp_path, gone)
