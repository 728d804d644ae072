"""Programs for NVIDIA GPUs: whole networks in the emulation, bundles with cubins, and what is refused without a GPU."""

import struct

import cuda_emulation
import numpy as np
import pytest
from kernel_reference import GPUS
from models import Builder, concat_branches, conv_chain, depthwise_separable, residual_block, samples, transformer_layer
from program import execute, lowered, quantized
from refusals import refusal
from test_emit import decoder, squeeze_and_excite

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.targets import compile as compiling
from deburr.targets import link, runtime, worker
from deburr.targets.bundle import Bundle
from deburr.targets.elf import Elf
from deburr.targets.emit import emit
from deburr.targets.kernels.build import kernel
from deburr.targets.kernels.workload import Conv2d, FloatEpilogue
from deburr.targets.nvidia import compiler, cubin, driver, pack, source, toolchain
from deburr.targets.target import find

TURING = find("nvidia/sm_75")


def needs_compiler(*architectures):
    """Skip the test where no compiler makes code for these."""
    try:
        for architecture in architectures:
            toolchain.find(architecture)
    except DeburrError as error:
        pytest.skip(f"kernels for GPUs are not compiled here: {error}")


@pytest.fixture
def nvcc():
    """Any compiler for GPUs that are not old: there may be none."""
    needs_compiler("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")


@pytest.mark.parametrize("make", [residual_block, depthwise_separable, concat_branches, transformer_layer])
def test_a_quantized_network_gives_the_bits_of_x86(make):
    proto = quantized(make())
    inputs = samples(proto, 1, 3)
    _, model, _ = lowered(proto, TURING.name)
    _, other, _ = lowered(proto)
    expected = execute(other, inputs)
    for target in (TURING, GPUS["cuda"]):
        for name, array in cuda_emulation.run_model(model, inputs, target).items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_float16_network_multiplies_on_tensor_cores():
    proto = halved(residual_block(40))
    inputs = samples(proto, 1, 3)
    _, model, remarks = lowered(proto, TURING.name)
    _, other, _ = lowered(proto)
    assert [int(node.get("half", 0)) for node in model.graph.nodes if node.op == "Conv2d"] == [1, 1, 1, 1]
    assert "multiplied in float16 on tensor cores" in remarks[0]
    assert not any(node.get("half", 0) for node in other.graph.nodes)
    expected = execute(other, inputs)
    for name, array in cuda_emulation.run_model(model, inputs, TURING).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-2, atol=1e-2)


def test_a_float_network_is_close_to_x86():
    """Among others Erf and Div, which have no template: TVM's own operators with the default schedule."""
    proto = transformer_layer()
    inputs = samples(proto, 1, 3)
    _, model, _ = lowered(proto, TURING.name)
    _, other, _ = lowered(proto)
    expected = execute(other, inputs)
    for name, array in cuda_emulation.run_model(model, inputs, TURING).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


def test_operators_without_a_template_are_bound_by_our_default():
    """The gate has Sigmoid, Mul and HardSwish among blocks, the decoder Resize and what ConvTranspose becomes."""
    from deburr.targets.schedules.default import schedule_module

    for make in (squeeze_and_excite, decoder):
        for proto in (make(), quantized(make())):
            inputs = samples(proto, 1, 3)
            original, model, _ = lowered(proto, TURING.name)
            scheduled = schedule_module(emit(model, TURING), gpu=True)
            functions = [one for one in scheduled.functions.values() if "tirx.is_scheduled" in (one.attrs or {})]
            assert all(int(one.attrs["tirx.is_scheduled"]) for one in functions)
            expected = Evaluator(original).run(inputs)["y"]
            result = cuda_emulation.run_model(model, inputs, TURING)["y"]
            tolerance = 1e-4 if proto.graph.node[0].op_type != "QuantizeLinear" else 0.1
            np.testing.assert_allclose(result, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("op", "attributes", "axes"),
    [
        ("Softmax", {"axis": 1}, None),
        ("ReduceSum", {"keepdims": 0}, 1),
        ("CumSum", {}, 1),
        ("Transpose", {"perm": [0, 2, 1]}, None),
    ],
)
def test_sums_over_any_axis(op, attributes, axes):
    builder = Builder()
    constant = [] if axes is None else [builder.constant(np.array(axes if op == "CumSum" else [axes], np.int64))]
    builder.node(op, ["x", *constant], "y", **attributes)
    shape = {"ReduceSum": ["batch", 5], "Transpose": ["batch", 5, 300]}.get(op, ["batch", 300, 5])
    proto = builder.model({"x": ["batch", 300, 5]}, {"y": shape})
    inputs = samples(proto, 1, 3)
    original, model, _ = lowered(proto, TURING.name)
    expected = Evaluator(original).run(inputs)["y"]
    np.testing.assert_allclose(cuda_emulation.run_model(model, inputs, TURING)["y"], expected, rtol=1e-4, atol=1e-4)


def test_the_emulation_notices_a_missing_barrier(monkeypatch):
    """What the tests rest on: a kernel whose threads do not wait for each other gives other numbers."""
    from test_kernels_conv import check_exact
    from test_kernels_cuda import CONVOLUTIONS

    real = cuda_emulation.source.complete
    monkeypatch.setattr(cuda_emulation.source, "complete", lambda code: real(code).replace("__syncthreads();", "", 1))
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        check_exact(CONVOLUTIONS["1x1"], TURING, 0)


def build(path, target="nvidia/sm_80", **options):
    return compiling.compile(read(quantized(residual_block())), path, target=find(target), threads=1, **options)


def test_a_bundle_holds_machine_code_for_each_architecture(nvcc, tmp_path):
    bundle = build(tmp_path / "b", "nvidia/any")
    wanted = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
    assert cubin.contained(tmp_path / "b" / "model.so") == wanted
    assert bundle.manifest["target"]["gpu"] == list(wanted)
    assert b"__global__" not in (tmp_path / "b" / "model.so").read_bytes()
    if driver.architecture() is None:
        assert bundle.manifest["remarks"][-1] == "the numbers were not checked: its kernels are a GPU's"
        assert refusal(Bundle.open, tmp_path / "b") == (
            f"error[E503]: the bundle is for another machine, {tmp_path / 'b'}: its kernels are for sm_75, sm_80, sm_86, "
            "sm_89, sm_90, and there is no NVIDIA GPU with a driver here; --target host"
        )
        inputs = samples(quantized(residual_block()), 1)
        assert refusal(bundle.run, inputs).startswith("error[E503]: the bundle is for another machine")


@pytest.mark.parametrize("name", ["jetson/xavier-gpu", "jetson/nano-gpu", "jetson/orin-gpu"])
def test_a_bundle_for_a_board(name, tmp_path):
    """An aarch64 library with machine code of its GPU: both are checked as it is made."""
    target = find(name)
    needs_compiler(*target.gpu)
    bundle = build(tmp_path / "b", name)
    assert cubin.contained(tmp_path / "b" / "model.so") == target.gpu
    assert Elf.read(tmp_path / "b" / "model.so").architecture == "aarch64"
    assert bundle.manifest["remarks"][-1] == "the numbers were not checked: its kernels are a GPU's"


def test_the_same_model_gives_the_same_bytes(nvcc, tmp_path):
    libraries = []
    for name in ("a", "b"):
        build(tmp_path / name)
        libraries.append((tmp_path / name / "model.so").read_bytes())
    assert libraries[0] == libraries[1]


def test_a_gpu_runs_code_of_its_own_generation_up_to_its_own_step():
    assert driver.fits("sm_86", ["sm_80"])
    assert driver.fits("sm_90", ["sm_75", "sm_90"])
    assert not driver.fits("sm_80", ["sm_86"])
    assert not driver.fits("sm_90", ["sm_80", "sm_89"])


def test_a_bundle_for_another_gpu(tmp_path, nvcc, monkeypatch):
    build(tmp_path / "b", check=False)
    monkeypatch.setattr(driver, "architecture", lambda: "sm_75")
    assert refusal(Bundle.open, tmp_path / "b").endswith("for sm_80, and the GPU here is sm_75; --target nvidia/sm_75")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"tune": 5},
            "error[E503]: no search for kernels of a GPU, target 'nvidia/sm_80': there is none yet; leave --tune out",
        ),
        (
            {"runtime": True},
            "error[E901]: no program that runs without Python, target 'nvidia/sm_80': ours computes on the CPU; --no-runtime",
        ),
    ],
)
def test_what_a_gpu_does_not_have_yet(tmp_path, monkeypatch, options, expected):
    monkeypatch.setattr(toolchain, "find", lambda architecture: None)
    assert refusal(build, tmp_path / "b", **options) == expected


def header(machine=190, flags=0x6005004, abi=8):
    return struct.pack("<4sBBBBB7xHHIQQQI", b"\x7fELF", 2, 1, 1, 65, abi, 2, machine, 1, 0, 0, 0, flags) + bytes(12)


def test_what_a_cubin_says():
    assert cubin.architecture(header()) == "sm_80"
    assert cubin.architecture(header(flags=0x500556, abi=7)) == "sm_86"
    assert cubin.architecture(header(machine=62)) is None
    assert cubin.architecture(b"\x7fELF") is None


def test_a_library_without_the_kernels_it_should_have(tmp_path):
    library = tmp_path / "model.so"
    library.write_bytes(header(machine=62) + b"..." + header() + header(flags=0x6004B04))
    cubin.check(library, ("sm_75", "sm_80"))
    assert refusal(cubin.check, library, ("sm_80", "sm_90")) == (
        "error[E406]: the kernels do not fit the device, model.so: they are for sm_75, sm_80, the target names sm_80, sm_90; "
        "compile it again"
    )


def test_what_ptxas_tells():
    told = """ptxas info    : Compiling entry function 'one' for 'sm_80'
    0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 10496 bytes smem, 384 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 368 bytes cmem[0]
"""
    assert compiler.facts(told) == [compiler.Kernel("one", 80, 4, 10496), compiler.Kernel("two", 10, 0, 0)]


def test_how_far_a_loop_is_unrolled_stands_right_before_it():
    """Between the two TVM puts barriers, after which no compiler takes it for the loop's."""
    written = "  #pragma unroll 4\n  __syncthreads();\n  for (int i = 0; i < 16; ++i) {\n"
    assert source.complete(written).endswith("  __syncthreads();\n  #pragma unroll 4\n  for (int i = 0; i < 16; ++i) {\n")


def test_code_takes_the_place_of_its_source():
    """The bytes of a library's modules, as TVM writes them: the lengths follow what is in them."""

    def sized(content):
        return struct.pack("<Q", len(content)) + content

    def library(kind, code):
        inner = sized(b"tree") + sized(b"cuda") + sized(sized(kind) + b"functions" + sized(code)) + sized(b"_lib")
        return struct.pack("<Q", len(inner)) + inner

    assert pack.replace(library(b"cuda", b"source"), "source", b"machine") == library(b"cubin", b"machine")
    with pytest.raises(ValueError, match="no such module"):
        pack.replace(library(b"cuda", b"source"), "another", b"machine")


def test_tvm_loads_what_was_packed_and_runs_it(tmp_path, monkeypatch):
    """All but NVIDIA's own part: the library is written, loaded by `Program`, and its kernels are called with its arrays."""
    cuda_emulation.pretend()
    import tvm_ffi

    proto = quantized(conv_chain())
    _, model, _ = lowered(proto, TURING.name)
    inputs = samples(proto, 1, 3)
    expected = cuda_emulation.run_model(model, inputs, TURING)
    emulated, given = cuda_emulation.LAST[-1], []
    monkeypatch.setattr(compiler, "cubin", lambda code, architecture, folder: (header(flags=0x6004B04), []))
    tvm_ffi.register_global_func(
        "ffi.Module.load_from_bytes.cuda", lambda content: given.append(bytes(content)) or emulated, override=True
    )
    worker.compile_module(emit(model, TURING), TURING, tmp_path / "model.so", [link.find_host()])
    monkeypatch.setattr(runtime.memory, "load", lambda library: None)
    parameters = [(value.static_shape, value.dtype.numpy) for value in model.graph.inputs if value.constant is None]
    program = runtime.Program(tmp_path / "model.so", {"main": parameters}, 1, gpu=True)
    (result,) = program.run([inputs[value.name] for value in model.graph.inputs if value.constant is None])
    np.testing.assert_array_equal(result, next(iter(expected.values())))
    (content,) = given
    assert content.startswith(struct.pack("<Q", 5) + b"cubin")
    assert content.endswith(struct.pack("<Q", 64) + header(flags=0x6004B04))


def halved(proto):
    import deburr

    return to_proto(deburr.optimize(read(proto), "clean,convert-float16"))


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_no_kernel_spills_and_every_product_is_on_tensor_cores(nvcc, tmp_path, architecture):
    for proto in (quantized(residual_block()), quantized(transformer_layer()), halved(residual_block(40))):
        _, model, _ = lowered(proto, f"nvidia/{architecture}")
        target = find(f"nvidia/{architecture}")
        with worker.without_gpu():
            executable = worker.build_module(emit(model, target), target)
        (code,) = pack.sources(executable.mod)
        _, kernels = compiler.cubin(code, architecture, tmp_path)
        assert len(kernels) == code.count("__launch_bounds__") // 2
        assert [one for one in kernels if one.spilled or one.shared > 48 * 1024] == []
        text = compiler.ptx(code, architecture, tmp_path)
        names = {one.name.rsplit("_kernel", 1)[0] for one in kernels if one.name.startswith(("deburr_conv2d", "deburr_matmul"))}
        multiplying = {
            part.split("(")[0].rsplit("_kernel", 1)[0]
            for part in text.split(".entry ")[1:]
            if "wmma.mma" in part or "dp4a" in part
        }
        assert names <= multiplying


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_wide_images_of_float16_stay_in_registers(nvcc, tmp_path, architecture):
    """The shape of ResNet-50 that loads most at a time, residual included."""
    import tvm

    target = find(f"nvidia/{architecture}")
    epilogue = FloatEpilogue(residual=True, low=0.0)
    shape = Conv2d(1, 128, 28, 28, 512, (1, 1), dtype="float32", in_block=32, out_block=32, float_epilogue=epilogue, half=True)
    with worker.without_gpu(), tvm.transform.PassContext(config=source.CONFIG):
        built = tvm.compile(tvm.IRModule({"main": kernel(shape, target).function}), tvm.target.Target(dict(target.tvm)))
    (code,) = pack.sources(built.mod)
    (found,) = compiler.cubin(code, architecture, tmp_path)[1]
    assert found.spilled == 0
    assert "wmma.mma" in compiler.ptx(code, architecture, tmp_path)
