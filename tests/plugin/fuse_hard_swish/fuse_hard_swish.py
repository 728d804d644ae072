"""A pass of someone else's: x * HardSigmoid(x), as MobileNetV3 is exported, becomes the HardSwish of opset 14."""

from dataclasses import dataclass
from typing import ClassVar

from deburr.passes.core import Context, Pass

MOBILE = "clean,fuse-hard-swish"


@dataclass(frozen=True)
class FuseHardSwish(Pass):
    """Write x * HardSigmoid(x), with slope 1/6 and shift 1/2, as HardSwish."""

    name: ClassVar[str] = "fuse-hard-swish"
    minimum_opset: ClassVar[int] = 14

    tolerance_of_slope: float = 1e-6

    def run(self, graph, context: Context):
        for node in graph.nodes:
            for gate, x in (node.inputs[:2], node.inputs[1::-1]) if node.op == "Mul" else ():
                sigmoid = gate.producer
                if sigmoid is None or sigmoid.op != "HardSigmoid" or sigmoid.input(0) is not x:
                    continue
                if abs(sigmoid.get("alpha", 0.2) - 1 / 6) > self.tolerance_of_slope or sigmoid.get("beta", 0.5) != 0.5:
                    context.remark(sigmoid, "its slope or shift is not HardSwish's")
                    continue
                fused = graph.add_node("HardSwish", [x], before=node)
                node.output().replace_uses(fused.output())
                graph.remove(node)
                break
