"""Channels in blocks over the whole graph: changes of layout stand only before and behind operators that have no template."""

from __future__ import annotations

from dataclasses import dataclass, field

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.targets.kernels import layout, planes
from deburr.targets.kernels.workload import Conv2d
from deburr.targets.lower import dialect
from deburr.targets.lower.lookup import BINARY, ELEMENTWISE
from deburr.targets.lower.movement import RESHAPES
from deburr.targets.target import Target

PLAIN = 0
# The first layer's images take blocks of this size, which is what an instruction multiplies at a time: blocks of 16 would be
# mostly padding. Or blocks of 1, where that wastes less (`planes`). In floats, where each channel is multiplied by itself, the
# block is as large as the image is deep, unless that is three where instructions take one element of a register: they find a
# whole register or half of one.
FEW_CHANNELS = 4


def assign_layouts(graph: Graph, target: Target) -> None:
    """Give images their blocked shape, [N, ceil(C / block), H, W, block], and put in `ChangeLayout` where two sides differ."""
    _Assignment(graph, target).run()


@dataclass
class _Assignment:
    graph: Graph
    target: Target
    blocks: dict[Value, int] = field(default_factory=dict)  # absent: plain
    shapes: dict[Value, tuple[int, int, int, int]] = field(default_factory=dict)  # N, C, H, W of blocked values
    plain: dict[Value, TensorType] = field(default_factory=dict)  # the ONNX type of blocked values
    changed: dict[tuple[Value, int], Value] = field(default_factory=dict)
    leading: set[Value] = field(default_factory=set)  # values that an operator on blocks reads, or single elements of them

    @property
    def block(self) -> int:
        return self.target.block

    def run(self) -> None:
        nodes = list(self.graph.nodes)
        for node in reversed(nodes):
            self.leading.update(value for value in node.outputs if value is not None and self._leads_to_blocks(value))
        for node in nodes:
            self._visit(node)
        outputs = [self._as(value, PLAIN, None) for value in self.graph.outputs]
        for old, new in zip(self.graph.outputs, outputs, strict=True):
            if old is not new:
                self._hand_over(old, new)

    def _visit(self, node: Node) -> None:
        if dialect.is_op(node, "MatMul", "Rows"):
            self._require(node, PLAIN)
            node.set_attribute(*(("block", self.block) if node.op == "MatMul" else ("lanes", self.target.lanes)))
        elif self._is_plain(node):
            self._require(node, PLAIN)
            node.set_attribute("plain", 1)
        elif dialect.is_op(node, "Quantize"):
            self._require(node, PLAIN)
            self._place(node, self._block_for(node.output()))
        elif dialect.is_op(node, "Dequantize"):
            self._require(node, self._own_block(node.input(0)))
            node.set_attribute("channels", self._image(node.input(0))[1])
            node.set_attribute("in_block", self.blocks[node.input(0)])
        elif dialect.is_op(node, "Conv2d"):
            self._require(node, self._own_block(node.input(0)))
            residual = node.optional_input(4)
            if residual is not None:
                node.set_input(4, self._as(residual, self.block, node))
            self._place(node, self.block)
        elif node.domain == dialect.DOMAIN or self._is_blockwise(node):
            self._require(node, self.block)
            self._place(node, self.block)
        elif self._is_same_image(node):
            self._forward(node)
        else:
            self._require(node, PLAIN)

    def _is_plain(self, node: Node) -> bool:
        """Whether a node of ours that takes single elements has nothing to do with blocks: before it or behind it."""
        if not dialect.is_op(node, "Quantize", "Dequantize", "Lookup", "Add"):
            return False
        images = [value for value in node.inputs if value is not None and value.array is None]
        if any(value in self.blocks for value in images):
            return False
        return any(dialect.image_of(value) is None for value in images) or node.output() not in self.leading

    def _leads_to_blocks(self, value: Value) -> bool:
        """Once that of all values behind it is known."""
        return any(
            dialect.is_op(use.node, *dialect.ON_BLOCKS)
            or (dialect.is_op(use.node, "Lookup", "Add", "Quantize") and use.node.output() in self.leading)
            for use in value.uses
        )

    def _is_same_image(self, node: Node) -> bool:
        """A reshape between [N, C, 1, 1] and [N, C]: nothing moves."""
        if not dialect.is_onnx(node, *RESHAPES) or node.input(0) not in self.blocks:
            return False
        return self.shapes[node.input(0)] == dialect.image_of(node.output())

    def _own_block(self, value: Value) -> int:
        """The block that a value has; the one it would best get where it is plain."""
        return self.blocks.get(value) or self._block_for(value)

    def _block_for(self, value: Value) -> int:
        convolutions = all(dialect.is_op(use.node, "Conv2d") and use.index == 0 for use in value.uses)
        channels = self._image(value)[1]
        if not convolutions or value.is_output or channels > FEW_CHANNELS:
            return self.block
        nodes = [use.node for use in value.uses]
        if self.target.gpu and any(node.get("half", 0) for node in nodes):
            return next((block for block in (4, 8, 16) if all(_sums_sixteen(node, block) for node in nodes)), self.block)
        if value.dtype is DType.FLOAT and not self.target.gpu:
            by_element = self.target.architecture == "aarch64" and channels == FEW_CHANNELS - 1
            return FEW_CHANNELS if by_element else channels
        return 1 if planes.pays([self._few_channels(node, value) for node in nodes], self.target.isa) else FEW_CHANNELS

    def _few_channels(self, node: Node, image: Value) -> Conv2d:
        """A convolution that reads `image`, as far as layouts are concerned."""
        weight, (batch, channels, height, width) = node.input(1).static_shape or (), self._image(image)
        return Conv2d(
            batch, channels, height, width, weight[0], (weight[2], weight[3]), dilations=tuple(node.get("dilations", (1, 1))),
            groups=int(node.get("groups", 1)), dtype="float32" if image.dtype is DType.FLOAT else "uint8",
            in_block=FEW_CHANNELS, out_block=self.block,
        )  # fmt: skip

    def _is_blockwise(self, node: Node) -> bool:
        """An elementwise operator among blocked images of one size (a pixel may stand for a whole image)."""
        if not dialect.is_onnx(node, *ELEMENTWISE, *BINARY) or len(node.outputs) != 1 or node.op == "PRelu":
            return False
        images = [value for value in node.inputs if value is not None and dialect.scalar(value) is None]
        blocked = [value for value in images if value in self.blocks]
        if not blocked or any(value.array is not None or self._logical(value) is None for value in images):
            return False
        shapes = [self._image(value) for value in images]
        ranks = {len(self.plain[value].shape or ()) if value in self.plain else len(value.shape or ()) for value in images}
        return len({shape[:2] for shape in shapes}) == 1 and len(ranks) == 1

    def _logical(self, value: Value) -> tuple[int, int, int, int] | None:
        return self.shapes.get(value) or dialect.image_of(value)

    def _image(self, value: Value) -> tuple[int, int, int, int]:
        shape = self._logical(value)
        assert shape is not None
        return shape

    def _require(self, node: Node, block: int) -> None:
        """Every image among the inputs in blocks of `block`."""
        for index, value in enumerate(node.inputs):
            is_image = value is not None and value.array is None and (block == PLAIN or index < _images(node))
            if value is not None and is_image:
                node.set_input(index, self._as(value, block, node))

    def _as(self, value: Value, block: int, before: Node | None) -> Value:
        """`value` in blocks of `block`, changed once for all its readers."""
        old = self.blocks.get(value, PLAIN)
        if old == block:
            return value
        if (value, block) not in self.changed:
            self.changed[value, block] = self._change(value, old, block, before)
        return self.changed[value, block]

    def _change(self, value: Value, old: int, block: int, before: Node | None) -> Value:
        shape = self._image(value)
        attributes = {"from_block": old, "to_block": block, "channels": shape[1]}
        after = value.producer  # right behind the producer: a reader further up would otherwise come too early
        node = self.graph.add_node(
            "ChangeLayout", [value], [value.name], attributes, domain=dialect.DOMAIN, name=f"{value.name} layout",
            **({"after": after} if after is not None else {"before": next(iter(self.graph.nodes))}),
        )  # fmt: skip
        self.graph.set_type(node.output(), self.plain.get(value) or value.type)
        if block:
            self._block(node.output(), block, shape)
        return node.output()

    def _place(self, node: Node, block: int) -> None:
        if node.domain == dialect.DOMAIN:  # ONNX's operators have no such attributes, and need none
            node.set_attribute("channels", self._image(node.input(0))[1])
            if node.input(0) in self.blocks:
                node.set_attribute("in_block", self.blocks[node.input(0)])
            node.set_attribute("out_block", block)
        self._block(node.output(), block, self._image(node.output()))

    def _forward(self, node: Node) -> None:
        """A reshape of one pixel per channel: templates behind it read the image itself."""
        value, source = node.output(), node.input(0)
        for use in value.uses:
            if use.node.domain == dialect.DOMAIN:
                use.node.set_input(use.index, source)
        if value.uses or value.is_output:
            self._require(node, PLAIN)
        else:
            self.graph.remove(node)

    def _block(self, value: Value, block: int, shape: tuple[int, int, int, int]) -> None:
        self.blocks[value], self.shapes[value] = block, shape
        if isinstance(value.type, TensorType):
            self.plain[value] = value.type
        physical = (shape[0], -(-shape[1] // block), *shape[2:], block)
        self.graph.set_type(value, TensorType(value.dtype or DType.FLOAT, physical))

    def _hand_over(self, old: Value, new: Value) -> None:
        name = old.name
        outputs = [new if value is old else value for value in self.graph.outputs]
        self.graph.set_outputs(outputs)
        self.graph.rename(old, self.graph.fresh_name(f"{name} blocked"))
        self.graph.rename(new, name)


def _sums_sixteen(node: Node, block: int) -> bool:
    """Whether a tensor core can sum taps of a convolution together where the data has such blocks."""
    stride, dilation = node.get("strides", (1, 1))[1], node.get("dilations", (1, 1))[1]
    return layout.taps_of_a_sum(block, int(stride), int(dilation)) > 0


def _images(node: Node) -> int:
    """How many of the first inputs are images."""
    if node.domain != dialect.DOMAIN or node.op == "Concat":
        return len(node.inputs)
    return 2 if node.op == "Add" else 1
