"""Helpers of the lowering and compilation tests: quantized models, and programs built in this process (fast, and loud)."""

import tempfile
from pathlib import Path

import onnx
from models import samples

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.targets import worker
from deburr.targets.emit import emit
from deburr.targets.kernels import pack
from deburr.targets.link import find_host
from deburr.targets.lower import lower, prepare
from deburr.targets.runtime import Program
from deburr.targets.target import find


def quantized(proto, *, signed=False, per_channel=True, count=16):
    """The model in QDQ form by ONNX Runtime's own quantizer (u8 or s8 activations, s8 weights)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = read(proto)
    prepare.clean_up(model)
    proto = to_proto(model)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter([samples(proto, count, seed) for seed in (5, 6)])

        def get_next(self):
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        onnx.save(proto, source)
        quantize_static(
            source, result, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return onnx.load(result)


def lowered(proto, target="x86-64-v4-vnni", *, fuse_sums=True, batch=1):
    """The prepared original, the lowered copy, and the remarks."""
    model = prepare.copy_of(read(proto))
    prepare.fix_sizes(model, prepare.Sizes(batch))
    remarks = prepare.clean_up(model)
    original = prepare.copy_of(model)
    return original, model, [*remarks, *lower(model, find(target), fuse_sums=fuse_sums)]


def ops(model):
    """The operators in order, ours without their domain."""
    return [node.op for node in model.graph.nodes]


def execute(model, inputs, target="x86-64-v4-vnni", *, capture=(), threads=1):
    """Outputs by name, of a lowered model; captured values come as they lie in memory."""
    chosen = find(target)
    given = [value for value in model.graph.inputs if value.constant is None]
    names = [value.name for value in model.graph.outputs] + list(capture)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "model.so"
        worker.compile_module(emit(model, chosen, capture), chosen, library, [find_host()])
        program = Program(library, {"main": [(value.static_shape, value.dtype.numpy) for value in given]}, threads)
        return dict(zip(names, program.run([inputs[value.name] for value in given]), strict=True))


def integers(model):
    """Names of the u8 images that nodes of the lowered model produce, as ONNX knows them."""
    names = [node.output().name for node in model.graph.nodes if node.output().dtype is not None]
    return [name for name in names if str(model.graph.value(name).dtype) == "uint8" and not name.endswith("layout")]


def plain(array, shape):
    """A captured image as ONNX has it."""
    unpacked = pack.unpack_activation(array, shape[1]) if array.ndim == 5 else array
    return unpacked.reshape(shape)
