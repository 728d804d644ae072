"""Comparing a model with what came back from the IR: by what it states, and by what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, TensorProto

from deburr.ir.onnx_types import value_type
from deburr.ir.types import TensorType

OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


class NotRun(Exception):
    """ONNX Runtime, or its Python interface, does not take this model or its data."""


def assert_same_statement(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Everything but the types is equal; types say what they said before, or more where they left something open."""
    assert _bare(after) == _bare(before)
    for old, new in zip(_graphs(before.graph), _graphs(after.graph), strict=True):
        found = {info.name: info for info in (*new.input, *new.output, *new.value_info)}
        constants = {tensor.name for tensor in (*old.initializer, *(sparse.values for sparse in old.sparse_initializer))}
        defined = {name for node in old.node for name in node.output} | {info.name for info in (*old.input, *old.output)}
        for info in (*old.input, *old.output, *old.value_info):
            if info.name not in defined or (info.name in constants and info.name not in found):
                continue
            assert _refines(info.type, found[info.name].type), f"{info.name}: {info.type} became {found[info.name].type}"
            assert found[info.name].doc_string == info.doc_string
            assert list(found[info.name].metadata_props) == list(info.metadata_props)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in the spelling that the writer uses, without types."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    imports = sorted(("" if entry.domain == "ai.onnx" else entry.domain, entry.version) for entry in bare.opset_import)
    del bare.opset_import[:]
    bare.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in imports)
    for graph in _graphs(bare.graph):
        del graph.value_info[:]
        constants = {tensor.name for tensor in graph.initializer}
        names = [info.name for info in graph.input]
        if model.ir_version < 4:  # initializers among the inputs were obligatory, their order means nothing
            names = [name for name in names if name not in constants] + sorted(constants)
        del graph.input[:]
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in names)
        for info in graph.output:
            info.CopyFrom(onnx.ValueInfoProto(name=info.name))
        _spell(graph.node)
    for function in bare.functions:
        del function.value_info[:]
        _spell(function.node)
    _clear_empty(bare)
    return bare


def _clear_empty(message) -> None:
    """Whether an empty string is stated or left out makes no difference."""
    for field, content in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in content if hasattr(content, "add") else [content]:
                _clear_empty(inner)
        elif not content and (field.name == "model_version" or isinstance(content, str)):
            message.ClearField(field.name)


def _spell(nodes) -> None:
    for node in nodes:
        node.domain = "" if node.domain == "ai.onnx" else node.domain
        while node.input and not node.input[-1]:
            del node.input[-1]


def _graphs(graph: onnx.GraphProto):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for subgraph in inner:
                yield from _graphs(subgraph)


def _refines(stated: onnx.TypeProto, written: onnx.TypeProto) -> bool:
    old, new = value_type(stated), value_type(written)
    if not isinstance(old, TensorType) or not isinstance(new, TensorType):
        return old is None or old == new
    shapes = old.shape is None or (
        new.shape is not None
        and len(old.shape) == len(new.shape)
        and all(mine is None or mine == other for mine, other in zip(old.shape, new.shape, strict=True))
    )
    return shapes and old.dtype in (new.dtype, 0)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = OFF, 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def execute(running: onnxruntime.InferenceSession, inputs) -> list:
    """The outputs for inputs in the model's order; an input that is None is left out.

    :raises NotRun: where ONNX Runtime cannot run the model on them.
    """
    try:
        fed = {info.name: _fed(data) for info, data in zip(running.get_inputs(), inputs, strict=False) if data is not None}
        if not any(isinstance(data, onnxruntime.OrtValue) for data in fed.values()):
            return running.run(None, fed)
        values = {
            name: data if isinstance(data, onnxruntime.OrtValue) else onnxruntime.OrtValue.ortvalue_from_numpy(data)
            for name, data in fed.items()
        }
        return [value.numpy() for value in running.run_with_ort_values(None, values)]
    except Exception as error:
        raise NotRun(str(error)) from error


def _fed(data):
    """What ONNX Runtime takes: arrays for numpy's scalars, OrtValues for the types that numpy lacks."""
    if isinstance(data, list | tuple):
        return [_fed(item) for item in data]
    if isinstance(data, TensorProto):
        return _ort_value(onnx.numpy_helper.to_array(data), data.data_type)
    array = np.asarray(data)
    return array if array.dtype.kind in "biufOUSc" else _ort_value(array, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _ort_value(array, data_type: int):
    if array.dtype.isbuiltin == 1:
        return np.ascontiguousarray(array).reshape(array.shape)
    bits = np.ascontiguousarray(array).view(np.uint16 if array.dtype.itemsize == 2 else np.uint8).reshape(array.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, data_type)


def same(before, after) -> bool:
    """Equal in kind, dtype, shape and every bit."""
    if type(before) is not type(after):
        return False
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(same(x, y) for x, y in zip(before, after, strict=True))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if not isinstance(before, np.ndarray):
        return before == after
    if before.dtype != after.dtype or before.shape != after.shape:
        return False
    return before.tolist() == after.tolist() if before.dtype == object else before.tobytes() == after.tobytes()
