"""A pass is a frozen dataclass: its fields are options, `run` edits one graph through the graph's own methods.

To give it to `deburr` itself, name it as an entry point of the group `deburr.passes` in your package's pyproject.toml:

    [project.entry-points."deburr.passes"]
    relu-to-clip = "my_package:ReluToClip"
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import deburr
from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.pipeline import Pipeline

here = Path(__file__).parent / "fashion_mnist"


@dataclass(frozen=True)
class ReluToClip(Pass):
    """Bound every Relu from above, as networks for 8 bits like it."""

    name = "relu-to-clip"
    tolerance = None  # it changes what is computed
    limit: float = 6.0

    def run(self, graph: Graph, context: Context) -> None:
        bounds = None
        for node in graph.nodes:
            if node.op != "Relu" or node.domain:
                continue
            bounds = bounds or [graph.add_constant(np.float32(bound), "bound") for bound in (0, self.limit)]
            clip = graph.add_node("Clip", [node.input(0), *bounds], name=node.name, after=node)
            if node.output().replace_uses(clip.output()):
                graph.remove(node)
            else:
                context.remark(node, "its output has to stay")


model = deburr.optimize(here / "model.onnx", Pipeline((ReluToClip(limit=4.0),)))
print(
    sum(node.op == "Clip" for node in model.graph.nodes), "Clip,", sum(node.op == "Relu" for node in model.graph.nodes), "Relu"
)
