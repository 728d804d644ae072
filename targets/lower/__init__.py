"""Lowering: from ONNX to the operators that the templates compute, on blocked images. Each step edits the model it is given."""

from __future__ import annotations

from deburr.ir.model import Model
from deburr.passes.core import Context
from deburr.targets.target import Target


def lower(model: Model, target: Target, *, fuse_sums: bool = True) -> list[str]:
    """Turn a prepared model (prepare.py) into a lowered one, in place; the remarks say what stays as it is and why.

    :param fuse_sums: False keeps every quantized tensor of the model in the graph, for tests.
    """
    from deburr.ir.inference import infer
    from deburr.targets.lower import borders, dialect, fuse, layout, matmul, share, to_integer, to_templates, transposed, widen

    context = Context(model)
    model.opset_imports[dialect.DOMAIN] = dialect.VERSION
    in_half = widen.holds_float16(model) and target.multiplies_float16()
    widen.widen(model, context, products=widen.IN_HALF[bool(target.gpu)] if in_half else "")
    transposed.rewrite(model.graph, context)
    to_integer.to_integer(model.graph, context)
    borders.fold_weights(model.graph)
    dialect.remove_dead(model)
    infer(model)
    to_templates.to_templates(model.graph, context)
    dialect.remove_dead(model)
    if fuse_sums:
        fuse.fuse(model.graph)
    matmul.fold_transposes(model.graph)
    share.share(model.graph)
    dialect.remove_dead(model)
    if in_half:
        widen.multiply_in_float16(model.graph)
    layout.assign_layouts(model.graph, target)
    return [
        f"lower: {remark.where}: {remark.reason}" + (f" ({remark.hint})" if remark.hint else "") for remark in context.remarks
    ]
