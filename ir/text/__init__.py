"""The text form of a model: what people and tests read. It round-trips, with the larger weights beside it, named by hash.

ir_version 10
opset "" 21

graph main {
  input %x: float[batch, 1, 28, 28]
  const %w = float[16, 1, 3, 3] sha256:0123456789abcdef
  const %b = float[2] [0.5, -1.0]
  %y: float[batch, 16, 26, 26] = Conv(%x, %w) {strides=[1, 1]} "first"
  %z, _ = com.example::Split(%y, _, %b)
  return %z
}
"""

from __future__ import annotations

import difflib

from deburr.ir.text.parser import parse_model
from deburr.ir.text.printer import print_graph, print_model, print_node
from deburr.ir.text.weights import load_weights, save_weights, weights_of

__all__ = ["diff", "load_weights", "parse_model", "print_graph", "print_model", "print_node", "save_weights", "weights_of"]


def diff(before: str, after: str) -> str:
    """The lines that differ between two texts, as a unified diff; empty if none do."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", n=2, lineterm="")
    return "\n".join(lines)
