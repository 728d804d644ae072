"""Targets: presets, names, and the host without the units that it hides."""

import pytest

from deburr.ir.errors import DeburrError
from deburr.targets import target as targets


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(DeburrError) as caught:
        targets.find("zenver4")
    assert str(caught.value) == (
        "error[E401]: no target 'zenver4': the targets are host, x86-64-v2, x86-64-v3, x86-64-v4, x86-64-v4-vnni, cascadelake, "
        "icelake, znver4; did you mean znver4?"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", targets.names())
def test_every_target_is_known_to_llvm(name):
    import tvm

    target = targets.find(name)
    built = tvm.target.Target(dict(target.tvm))
    assert tvm.target.codegen.llvm_is_valid_cpu(target.tvm["mcpu"], target.tvm["mtriple"])
    assert str(built.attrs["mcpu"]) == target.tvm["mcpu"]
    assert (target.isa == "avx512vnni") == ("avx512vnni" in target.instruction_sets())
    assert target.block % target.lanes == 0


def test_presets_hash_and_compare_by_what_they_are():
    assert targets.find("znver4") == targets.find("znver4")
    assert hash(targets.find("znver4")) == hash(targets.find("znver4"))
    assert targets.find("znver4") != targets.find("icelake")


def test_the_isa_follows_from_the_flags():
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"}
    assert targets.isa_of(avx512 | {"avx512_vnni"}) == "avx512vnni"
    assert targets.isa_of(avx512) == "avx2"
    assert targets.isa_of({"avx2", "fma"}) == "avx2"
    assert targets.isa_of({"sse4_2"}) == "generic"


def test_the_host_assumes_nothing_that_its_cpu_hides(monkeypatch):
    shown = targets.cpu_flags()
    hidden = shown - {"avx512_vnni", "avx512f"}
    monkeypatch.setattr(targets, "cpu_flags", lambda: frozenset(hidden))
    targets.host.cache_clear()
    try:
        host = targets.host()
        assert host.isa != "avx512vnni"
        assert "avx512vnni" not in host.instruction_sets()
        assert targets.missing_here(host.instruction_sets()) == ()
    finally:
        targets.host.cache_clear()


def test_llvms_names_meet_the_kernels(monkeypatch):
    monkeypatch.setattr(targets, "cpu_flags", lambda: frozenset({"pni", "abm", "avx512_vnni", "sse4_1", "sha_ni"}))
    assert targets.missing_here(["sse3", "lzcnt", "avx512vnni", "sse4.1", "sha", "amx-int8"]) == ("amx-int8",)


def test_tuning_flags_are_no_instruction_sets():
    assert not targets.is_instruction_set("fast-gather")
    assert not targets.is_instruction_set("prefer-256-bit")
    assert targets.is_instruction_set("avx512vbmi2")
