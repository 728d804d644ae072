"""An encoder layer of BERT-base's size beside its peers: float32 and int8, all programs interleaved in one run.

    python benchmarks/transformer.py --out build/transformer [--tokens 128] [--layers 1] [--threads 2] [--rounds 30]

Batch 1, 768 wide, 12 heads, weights from a seed, which changes no latency. The graph is what exporters of PyTorch write: a
MatMul and an Add for each linear layer, GELU spelt out with Erf. ONNX Runtime runs the int8 model that deburr made and the one
that its own quantizer makes. "ratio" is against ONNX Runtime on the float32 model.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from figures import table, write_json
from onnx import TensorProto, helper, numpy_helper
from quantization_peers import one_by_one
from quantization_peers import onnxruntime as quantize_with_onnxruntime

import deburr
from deburr.measure import Candidate, bench, default_threads

INT8 = "clean,calibrate{observer=minmax},scale-weights,insert-qdq,remove-dead-code"
COLUMNS = {"name": "", "p50_ms": ".2f", "p90_ms": ".2f", "ratio": ".2f"}


class Encoder:
    """Layers of self-attention and feed-forward, normalized behind each sum, as BERT has them."""

    def __init__(self, tokens: int, width: int = 768, heads: int = 12, inner: int = 3072) -> None:
        self.tokens, self.width, self.heads, self.inner = tokens, width, heads, inner
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def model(self, layers: int) -> onnx.ModelProto:
        x = "tokens"
        for index in range(layers):
            x = self.layer(x, "output" if index == layers - 1 else "")
        shape = [1, self.tokens, self.width]
        graph = helper.make_graph(
            self.nodes, "encoder", [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)], self.initializers,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def layer(self, x: str, output: str = "") -> str:
        attended = self.linear(self.attention(x), self.width, self.width)
        x = self.normalized(self.node("Add", attended, x))
        wide = self.gelu(self.linear(x, self.width, self.inner))
        return self.normalized(self.node("Add", self.linear(wide, self.inner, self.width), x), output)

    def attention(self, x: str) -> str:
        size = self.width // self.heads
        q = self.split(self.linear(x, self.width, self.width), [0, 2, 1, 3])
        k = self.split(self.linear(x, self.width, self.width), [0, 2, 3, 1])
        v = self.split(self.linear(x, self.width, self.width), [0, 2, 1, 3])
        scores = self.node("Div", self.node("MatMul", q, k), self.constant(np.float32(size**0.5)))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        joined = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.node("Reshape", joined, self.constant(np.array([1, self.tokens, self.width])))

    def split(self, x: str, order: list[int]) -> str:
        """Into heads."""
        shape = self.constant(np.array([1, self.tokens, self.heads, self.width // self.heads]))
        return self.node("Transpose", self.node("Reshape", x, shape), perm=order)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.random.standard_normal((inputs, outputs)).astype(np.float32) * np.float32(inputs**-0.5)
        bias = self.random.standard_normal(outputs).astype(np.float32) * np.float32(0.1)
        return self.node("Add", self.node("MatMul", x, self.constant(weight)), self.constant(bias))

    def gelu(self, x: str) -> str:
        inner = self.node("Erf", self.node("Div", x, self.constant(np.float32(2**0.5))))
        return self.node("Mul", self.node("Mul", x, self.node("Add", inner, self.constant(np.float32(1)))),
                         self.constant(np.float32(0.5)))  # fmt: skip

    def normalized(self, x: str, output: str = "") -> str:
        scale = self.constant(self.random.uniform(0.5, 1.5, self.width).astype(np.float32))
        shift = self.constant(self.random.standard_normal(self.width).astype(np.float32) * np.float32(0.1))
        return self.node("LayerNormalization", x, scale, shift, output=output, axis=-1, epsilon=1e-12)

    def node(self, op: str, *inputs: str, output: str = "", **attributes: object) -> str:
        name = output or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name


def programs(out: Path, tokens: int, layers: int, threads: int) -> tuple[list[Candidate], dict[str, np.ndarray]]:
    """What is timed, ONNX Runtime on the float32 model first, and its data."""
    data = {"tokens": np.random.default_rng(1).standard_normal((4, tokens, 768)).astype(np.float32)}
    floats, integers, by_peer = (out / f"{name}.onnx" for name in ("float", "int8", "int8-by-onnxruntime"))
    onnx.save(Encoder(tokens).model(layers), floats)
    deburr.save(deburr.optimize(deburr.load(str(floats)), INT8, data=data), integers)
    quantize_with_onnxruntime(floats, one_by_one(data), by_peer)
    candidates = [Candidate("fp32, ONNX Runtime", "onnxruntime", floats)]
    for precision, source in {"fp32": floats, "int8": integers}.items():
        bundle = out / f"{precision}.bundle"
        deburr.compile(deburr.load(str(source)), bundle, target="host", threads=threads)
        candidates.append(Candidate(f"{precision}, deburr", "deburr", bundle))
    candidates.append(Candidate("int8, ONNX Runtime, quantized by deburr", "onnxruntime", integers))
    candidates.append(Candidate("int8, ONNX Runtime, quantized by itself", "onnxruntime", by_peer))
    if importlib.util.find_spec("openvino"):
        candidates += [Candidate(f"{path.stem}, OpenVINO", "openvino", path) for path in (floats, integers)]
    return candidates, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/transformer"))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=min(2, default_threads()))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, default=Path("build/figures/transformer.json"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    candidates, data = programs(given.out, given.tokens, given.layers, given.threads)
    measured = bench(candidates, threads=given.threads, rounds=given.rounds, data={"tokens": data["tokens"][:1]})
    rows = [asdict(row) for row in measured.rows]
    write_json(given.json, {"threads": given.threads, "rounds": given.rounds, "tokens": given.tokens, "rows": rows})
    print(f"{table(COLUMNS, rows)}\n\n{given.threads} threads, {given.rounds} rounds interleaved; {given.json}")


if __name__ == "__main__":
    main()
