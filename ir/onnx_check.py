"""What is refused before any pass runs: models that break the ONNX specification, or that are newer than we know.

The checker and strict shape inference see a copy in which big weights are inputs: so neither reads them, no file is opened,
and models beyond protobuf's 2 GB pass. What the checker would say about those weights is checked here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deburr.ir import onnx_tensors
from deburr.ir.errors import DeburrError
from deburr.ir.onnx_load import Loaded
from deburr.ir.onnx_structure import check_structure

_BIG = 1024  # elements; shape inference reads smaller constants


def check(loaded: Loaded) -> None:
    """Everything that a model must keep to before it is read into the IR.

    :raises DeburrError: E103 where it breaks the specification (and where declared shapes are false), E105 where it is newer
        than the installed onnx, E106 for external data.
    """
    check_versions(loaded.proto, loaded.name)
    check_structure(loaded.proto, loaded.name)
    light = lighten(loaded.proto, loaded.folder)
    for domain in sorted(unimported(light)):
        light.opset_import.add(domain=domain, version=1)
    _run_checker(light, loaded.name)


def check_versions(proto: Any, name: str) -> None:
    """
    :raises DeburrError: E105.
    """
    import onnx

    hint = "upgrade onnx, or export with an older opset"
    if proto.ir_version > onnx.IR_VERSION:
        why = f"the installed onnx {onnx.__version__} knows up to {onnx.IR_VERSION}"
        raise DeburrError("E105", f"IR version {proto.ir_version} is too new", where=name, why=why, hint=hint)
    known = {domain: latest for domain, (_, latest) in onnx.defs.C.schema_version_map().items()}
    for entry in (*proto.opset_import, *(entry for function in proto.functions for entry in function.opset_import)):
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if entry.version > known.get(domain, entry.version):
            label = f"opset {entry.version}" + (f" of {domain}" if domain else "")
            why = f"the installed onnx {onnx.__version__} knows up to {known[domain]}"
            raise DeburrError("E105", f"{label} is too new", where=name, why=why, hint=hint)


def lighten(proto: Any, folder: Path | None) -> Any:
    """A copy in which the main graph's big initializers are inputs, and all other external data is inside.

    :raises DeburrError: E103 for a tensor with more or fewer elements than its dims say, E106 for external data.
    """
    import onnx

    light = onnx.ModelProto()
    for field, content in proto.ListFields():
        if field.name != "graph":
            _copy(light, field.name, content)
    for field, content in proto.graph.ListFields():
        if field.name not in ("initializer", "sparse_initializer"):
            _copy(light.graph, field.name, content)
    listed = {info.name for info in proto.graph.input}
    for tensor in proto.graph.initializer:
        if _elements(tensor) <= _BIG:
            light.graph.initializer.append(tensor)
            continue
        check_tensor(tensor, folder)
        if tensor.name not in listed:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            light.graph.input.append(info)
    for sparse in proto.graph.sparse_initializer:  # values of a dense type, which inference takes for sparse ones
        values = sparse.values
        _check_sparse(sparse)
        light.graph.input.append(onnx.helper.make_tensor_value_info(values.name, values.data_type, list(sparse.dims)))
    _inline(light, folder)
    return light


def check_tensor(tensor: Any, folder: Path | None) -> None:
    """
    :raises DeburrError: E103, E106.
    """
    from deburr.ir.onnx_types import element_type

    dtype = element_type(tensor.data_type, f"tensor {tensor.name!r}")
    if tensor.data_location == tensor.EXTERNAL:
        onnx_tensors.locate(tensor, folder)
    elif tensor.HasField("raw_data"):
        needed, given = (_elements(tensor) * dtype.bits + 7) // 8, len(tensor.raw_data)
        if needed != given:
            why = f"{dtype}{list(tensor.dims)} takes {needed} bytes, there are {given}"
            raise DeburrError("E103", "a tensor of the wrong length", where=f"tensor {tensor.name!r}", why=why)
    else:
        _check_fields(tensor, dtype.bits)


def _check_sparse(sparse: Any) -> None:
    import onnx

    try:
        onnx.checker.check_sparse_tensor(sparse)
    except onnx.checker.ValidationError as error:
        raise _refusal("the model breaks the ONNX specification", f"sparse tensor {sparse.values.name!r}", error) from error


def _check_fields(tensor: Any, bits: int) -> None:
    import onnx

    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    needed, given = _elements(tensor), len(getattr(tensor, field))
    if onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "c":
        needed *= 2
    elif 0 < bits < 8:
        needed = -(-needed * bits // 8)
    if needed != given:
        why = f"{list(tensor.dims)} takes {needed} entries of {field}, there are {given}"
        raise DeburrError("E103", "a tensor of the wrong length", where=f"tensor {tensor.name!r}", why=why)


def _copy(target: Any, name: str, content: Any) -> None:
    if hasattr(content, "extend") or hasattr(content, "MergeFrom"):
        getattr(target, name).MergeFrom(content)
    else:
        setattr(target, name, content)


def _elements(tensor: Any) -> int:
    count = 1
    for dim in tensor.dims:
        count *= max(dim, 0)
    return count


def _inline(light: Any, folder: Path | None) -> None:
    """Put external data of small initializers, subgraphs and attributes inside; the checker lets too long tensors pass."""
    for tensor in _tensors(light):
        check_tensor(tensor, folder)
        if tensor.data_location == tensor.EXTERNAL:
            tensor.CopyFrom(onnx_tensors.locate(tensor, folder).inline())


def _tensors(proto: Any) -> list[Any]:
    from onnx.external_data_helper import _get_all_tensors  # walks graphs, functions and attributes

    return list(_get_all_tensors(proto))


def unimported(proto: Any) -> set[str]:
    """Custom domains that nodes of the main graph use and nobody imports: version 1 then, as graphsurgeon has it too."""
    imported = {entry.domain for entry in proto.opset_import} | {"", "ai.onnx"}
    return {node.domain for node in proto.graph.node} - imported


def _run_checker(light: Any, name: str) -> None:
    import onnx

    try:
        data = light.SerializeToString()
        onnx.checker.check_model(data)
        _infer_strictly(data)
    except onnx.checker.ValidationError as error:
        raise _refusal("the model breaks the ONNX specification", name, error) from error
    except onnx.shape_inference.InferenceError as error:
        raise _refusal("the declared types and shapes are false", name, error) from error
    except (ValueError, RuntimeError, TypeError, IndexError) as error:  # what else onnx's C++ throws
        raise _refusal("the model breaks the ONNX specification", name, error) from error


def _infer_strictly(data: bytes) -> None:
    import onnx

    try:
        onnx.shape_inference.infer_shapes(data, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        if not all(_is_false_alarm(line) for line in str(error).splitlines() if "op_type:" in line):
            raise


def _is_false_alarm(line: str) -> bool:
    """Operators that ONNX defines as functions of others: inference through their bodies misses attribute defaults."""
    import onnx

    outer, *inner = re.findall(r"op_type:(\w+)", line)
    return bool(inner) and onnx.defs.has(outer) and bool(onnx.defs.get_schema(outer).has_function) and "existing" not in line


def _refusal(what: str, name: str, error: Exception) -> DeburrError:
    """One line from the checker's several, with the node that it names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith("==> Context")) if len(lines) < 4 else " ".join(lines[:3])
    text = re.sub(r"\[(ShapeInferenceError|TypeInferenceError)\] (Inference error\(s\): )?", "", text)
    found = re.search(r"Bad node spec for node\. Name: (.*?) OpType: (\S+)", str(error))
    found = found or re.search(r"op_type:(?P<op>\w+), node name: (?P<name>[^)]*)\)", str(error))
    where = name
    if found:
        node, op = (found.group("name"), found.group("op")) if "name" in found.re.groupindex else found.groups()
        where += f", node {node!r} ({op})" if node else f", a node {op}"
    return DeburrError("E103", what, where=where, why=text[:400])
