"""Targets: presets ours and the user's, names, and the host without the units that it hides."""

import pytest
from refusals import refusal

from deburr.ir.errors import DeburrError
from deburr.targets import features, isa, llvm, presets
from deburr.targets import target as targets


@pytest.fixture
def board(tmp_path):
    """A function that writes a file of presets and says what `find` makes of it."""

    def find(text, entry=""):
        path = tmp_path / "board.toml"
        path.write_text(text)
        return targets.find(f"{path}{entry}")

    return find


@pytest.fixture
def own_presets(tmp_path, monkeypatch):
    """The user's own file of presets, in a configuration folder made for the test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    presets.user_file().parent.mkdir(parents=True)
    return presets.user_file()


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(DeburrError) as caught:
        targets.find("zenver4")
    assert str(caught.value) == (
        "error[E401]: no target 'zenver4': it is neither a preset nor a file of presets; "
        "did you mean znver4 or znver5 or znver3?"
    )
    assert caught.value.exit_code == 2
    assert "did you mean raspberry-pi/4b" in refusal(targets.find, "raspberry-pi/4")


@pytest.mark.parametrize("name", targets.names())
def test_every_target_is_what_llvm_says(name):
    target = targets.find(name)
    llvm.check(target.triple, target.cpu["mcpu"], target.cpu.get("mattr", ()), name)
    have = llvm.features(target.cpu)
    assert have.issuperset(isa.ISAS[target.isa].needs)
    assert isa.ISAS[target.isa].architecture == ("nvidia" if target.gpu else target.architecture)
    assert target.block % target.lanes == 0
    if target.architecture == "aarch64" and not target.gpu:
        assert target.isa == isa.best(have, "aarch64"), "the best schedules that the CPU can run"


def test_there_are_presets_for_real_devices():
    architectures = [targets.find(name).architecture for name in presets.built_in()]
    assert architectures.count("aarch64") >= 25
    assert architectures.count("x86_64") >= 12


def test_a_gpu_is_what_its_architectures_share(board):
    turing, every = targets.find("nvidia/sm_75"), targets.find("nvidia/any")
    assert (turing.tvm["kind"], turing.tvm["arch"], turing.architecture, turing.block) == ("cuda", "sm_75", "x86_64", 32)
    assert every.tvm["arch"] == "sm_75"
    assert every.gpu == ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
    assert targets.find("jetson/orin-gpu").architecture == "aarch64"
    assert board('[pascal]\nmcpu = "znver2"\ngpu = ["sm_61"]\n').isa == "dp4a"
    assert board('[a]\nmcpu = "cortex-a78ae"\ngpu = ["sm_90", "sm_87"]\n').tvm["arch"] == "sm_87"
    assert "did you mean nvidia/sm_90 or" in refusal(targets.find, "nvidia/sm_95")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('gpu = ["sm_35"]', "no schedules for sm_35, {}: CUDA 12 makes no code for it; sm_50 is the oldest"),
        ('gpu = ["sm_61"]\nisa = "tensorcore"', "sm_61 cannot run isa 'tensorcore', {}; write isa = 'dp4a', or leave it out"),
        ('isa = "dp4a"', "a broken preset, {}: isa 'dp4a' is a GPU's; gpu = [\"sm_80\"] names the architecture"),
        ('gpu = ["sm_80"]\nisa = "avx2"', "a broken preset, {}: isa 'avx2' is no GPU's; gpu = "),
        ('gpu = ["ampere"]', "a broken preset, {}: gpu.0: String should match pattern"),
    ],
)
def test_a_broken_preset_of_a_gpu(board, tmp_path, text, expected):
    told = refusal(board, f'[x]\nmcpu = "znver2"\n{text}\n')
    assert told.startswith("error[E401]: " + expected.format(f"{tmp_path / 'board.toml'}, [x]"))


def test_a_pi_4_has_no_cryptography():
    assert targets.find("raspberry-pi/4b").instruction_sets() == ("crc", "fp-armv8", "neon")
    assert {"aes", "dotprod", "sha2"} <= set(targets.find("raspberry-pi/5").instruction_sets())


def test_presets_hash_and_compare_by_what_they_are():
    assert targets.find("znver4") == targets.find("znver4")
    assert hash(targets.find("znver4")) == hash(targets.find("znver4"))
    assert targets.find("znver4") != targets.find("icelake")


def test_a_preset_of_ones_own_is_one_line(board):
    found = board('[bench]\nmcpu = "cortex-a72"\n')
    assert (found.name, found.isa, found.triple, found.cores) == ("bench", "neon", "aarch64-linux-gnu", 4)
    assert board('[zen]\nmcpu = "znver2"\n').isa == "avx2"
    more = board('[a]\nmcpu = "cortex-a72"\n[b]\nmcpu = "cortex-a72"\nmattr = ["+dotprod"]\ncores = 2\n', "#b")
    assert (more.isa, more.cores) == ("dotprod", 2)


A72 = 'mcpu = "cortex-a72"'
NEAR = "LLVM does not know it; did you mean"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('mcpu = "cortex-a77x"', f"no CPU 'cortex-a77x', {{}}: {NEAR} cortex-a77 or "),
        (f'{A72}\nmattr = ["+dotproduct"]', f"no CPU feature '+dotproduct', {{}}: {NEAR} dotprod"),
        (f'{A72}\nmattr = ["dotprod"]', "no CPU feature 'dotprod', {}: it starts with neither + nor -; did you mean dotprod"),
        (
            f'{A72}\nisa = "i8mm"',
            "cortex-a72 cannot run isa 'i8mm', {}: it lacks dotprod, i8mm; write isa = 'neon', or leave it out",
        ),
        (f'{A72}\nisa = "sve9"', "a broken preset, {}: no isa 'sve9'; there are avx512vnni, avxvnni, avx2, generic"),
        ('cpu = "cortex-a72"', "a broken preset, {}: mcpu: Field required; its keys are mcpu, mattr, isa, mtriple, cores"),
        (f"{A72}\ncores = 0", "a broken preset, {}: cores: Input should be greater than or equal to 1"),
        (f'{A72}\nglibc = "new"', "a broken preset, {}: glibc: String should match pattern"),
    ],
)
def test_a_broken_preset_says_what_is_wrong(board, tmp_path, text, expected):
    assert refusal(board, f"[x]\n{text}\n").startswith("error[E401]: " + expected.format(f"{tmp_path / 'board.toml'}, [x]"))


def test_a_file_of_presets_that_is_none(board, tmp_path):
    path = tmp_path / "board.toml"
    assert refusal(targets.find, str(path)) == (
        f"error[E101]: cannot read the presets, {path}: No such file or directory; name another file"
    )
    assert refusal(board, "mcpu: cortex").startswith(f"error[E101]: not a TOML file, {path}: ")
    two = '[a]\nmcpu = "cortex-a72"\n[b]\nmcpu = "cortex-a53"\n'
    assert refusal(board, two) == f"error[E401]: which preset?, {path}: it holds a, b; write {path}#NAME"
    assert refusal(board, two, "#c") == f"error[E401]: no preset 'c', {path}: it holds a, b; write {path}#NAME"


def test_the_users_own_presets_go_first(own_presets):
    own_presets.write_text('["lab/board"]\nmcpu = "neoverse-n1"\n["raspberry-pi/4b"]\nmcpu = "cortex-a72"\ncores = 3\n')
    assert targets.names()[:3] == ("host", "lab/board", "raspberry-pi/4b")
    assert len(set(targets.names())) == len(targets.names())
    assert targets.find("lab/board").isa == "dotprod"
    assert targets.find("raspberry-pi/4b").cores == 3
    assert targets.find("raspberry-pi/5").cores == 4


def test_the_isa_follows_from_the_features():
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"}
    assert isa.best(avx512 | {"avx512vnni"}, "x86_64") == "avx512vnni"
    assert isa.best(avx512, "x86_64") == "avx2"
    assert isa.best({"avx2", "fma", "avxvnni"}, "x86_64") == "avxvnni"
    assert isa.best({"sse4.2"}, "x86_64") == "generic"
    assert isa.best({"neon", "dotprod"}, "aarch64") == "dotprod"
    assert isa.best({"neon"}, "aarch64") == "neon"
    assert isa.best({"vsx"}, "ppc64le") is None


@pytest.fixture
def flags(monkeypatch):
    """Lets the machine show other flags."""

    def show(flags):
        monkeypatch.setattr(features, "cpu_flags", lambda: frozenset(flags))
        targets.host.cache_clear()

    yield show
    targets.host.cache_clear()


def test_the_host_assumes_nothing_that_its_cpu_hides(flags):
    flags(features.cpu_flags() - {"avx512_vnni", "avx512f"})
    host = targets.host()
    assert host.isa != "avx512vnni"
    assert "avx512vnni" not in host.instruction_sets()
    assert features.missing_here(host.instruction_sets()) == ()


def test_a_host_that_is_not_supported(monkeypatch, flags):
    flags(())
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert refusal(targets.find, "host") == (
        "error[E401]: no target 'host': Linux on riscv64 is not supported yet; name a preset"
    )


def test_llvms_names_meet_the_kernels(flags):
    flags({"pni", "abm", "avx512_vnni", "sse4_1", "sha_ni"})
    assert features.missing_here(["sse3", "lzcnt", "avx512vnni", "sse4.1", "sha", "amx-int8"]) == ("amx-int8",)
    flags({"fp", "asimd", "asimddp", "atomics", "crc32"})
    assert features.missing_here(["neon", "fp-armv8", "dotprod", "lse", "crc", "i8mm"]) == ("i8mm",)


def test_tuning_flags_are_no_instruction_sets():
    assert not features.is_instruction_set("fast-gather")
    assert not features.is_instruction_set("prefer-256-bit")
    assert not features.is_instruction_set("el3")
    assert features.is_instruction_set("avx512vbmi2")
    assert features.is_instruction_set("dotprod")
