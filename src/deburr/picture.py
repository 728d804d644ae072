"""The picture of a model's channel groups: layers from left to right, in the colour of the group that they produce.

networkx gives the graph and its layers, matplotlib draws it: the optional extra `plot`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deburr.ir.errors import DeburrError

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.ir.node import Node
    from deburr.passes.analysis.groups import Channels, Group

_GREY = "#b8b8b8"


def draw_groups(model: Model, path: Path) -> None:
    """Write an .svg, .png or .pdf of the layers: who reads whom, which lose channels together, and why some keep theirs.

    :raises DeburrError: E902 without matplotlib, E901 for another kind of file, E109 where it cannot be written.
    """
    matplotlib_for("--picture", path)
    write_figure(lambda: _figure(coupling_graph(model)), path)


def matplotlib_for(option: str, path: Path) -> None:
    """Refuse a picture that could not be drawn.

    :raises DeburrError: E902 without matplotlib, E901 for a kind of file that is none of .svg, .png and .pdf.
    """
    if path.suffix.lower() not in (".svg", ".png", ".pdf"):
        hint = "end its name in .svg, .png or .pdf"
        raise DeburrError("E901", "no such kind of picture", where=str(path), hint=hint)
    if find_spec("matplotlib") is None:
        hint = "pip install 'deburr[plot]'"
        raise DeburrError("E902", "matplotlib is missing", where=option, why="it draws the picture", hint=hint)


def write_figure(make: Callable[[], Any], path: Path) -> None:
    """Write the `matplotlib.figure.Figure` that `make` gives, whole or not at all.

    :raises DeburrError: E109 where it cannot be written.
    """
    import matplotlib as mpl

    from deburr.ir.files import write_atomically

    kind = path.suffix.lower().lstrip(".")
    # Letters stay text, and nothing in the file changes from one run to the next.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "deburr"}):
        figure = make()
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
        write_atomically(path, lambda fresh: figure.savefig(fresh, format=kind, metadata=metadata))


def coupling_graph(model: Model) -> Any:
    """A `networkx.DiGraph`: a node for each layer with weights, an edge to every layer that reads it.

    A node holds `label`, `group` (the number of the group that its output belongs to, or -1), `frozen` (why it keeps all its
    channels, or ""), `layer` (its depth) and `channels`.
    """
    import networkx as nx

    from deburr.passes.analysis.channels import channels
    from deburr.passes.analysis.cost import cost
    from deburr.passes.core import Context

    context = Context(model)
    found = context.analysis(channels, model.graph)
    layers = list(context.analysis(cost, model.graph).macs)
    owners = _owners(found)
    reasons = {frozen.value: frozen.reason for frozen in found.frozen}
    graph = nx.DiGraph(groups=found.groups)
    for number, node in enumerate(layers):
        group = owners.get(node)
        stays = group is None or group not in found.prunable
        why = "; ".join(dict.fromkeys(one.reason for one in group.frozen)) if group is not None else ""
        why = why or reasons.get(node.output(), "its channels belong to no group")
        shape = node.output().shape or ()
        size = group.size if group else shape[1] if len(shape) > 1 else 0
        label = node.name or node.output().name
        graph.add_node(number, label=label, group=group.number if group else -1, frozen=why if stays else "", channels=size)
    graph.add_edges_from(_reads(model, layers))
    for depth, generation in enumerate(nx.topological_generations(graph)):
        for number in generation:
            graph.nodes[number]["layer"] = depth
    return graph


def _owners(found: Channels) -> dict[Node, Group]:
    """The group that each node's output channels belong to."""
    return {
        member.value.producer: group
        for group in found.groups
        for member in group.members
        if member.value.producer is not None and (member.axis == 1 or member.axis == len(member.value.shape or ()) - 1)
    }


def _reads(model: Model, layers: list[Node]) -> list[tuple[int, int]]:
    """Which layer's output reaches which other without a layer between."""
    numbers = {node: number for number, node in enumerate(layers)}
    sources: dict[Any, set[int]] = {}
    edges: dict[tuple[int, int], None] = {}
    for node in model.graph.nodes:
        reached = set().union(*(sources.get(value, set()) for value in node.inputs if value is not None))
        if node in numbers:
            edges.update({(source, numbers[node]): None for source in sorted(reached)})
            reached = {numbers[node]}
        sources.update({value: reached for value in node.outputs if value is not None})
    return list(edges)


def _positions(graph: Any) -> dict[int, tuple[float, float]]:
    """Depth runs along rows that wrap like text, so that a deep network still fits on a page."""
    wide = max(8, round((graph.number_of_nodes() * 1.6) ** 0.5))
    levels: dict[int, list[int]] = {}
    for number, depth in graph.nodes(data="layer"):
        levels.setdefault(depth, []).append(number)
    positions, top = {}, 0.0
    for start in range(0, len(levels), wide):
        row = [levels[depth] for depth in range(start, min(start + wide, len(levels)))]
        tall = max(map(len, row))
        for column, level in enumerate(row):
            for index, number in enumerate(level):
                positions[number] = (float(column), top - index - (tall - len(level)) / 2)
        top -= tall + 0.6
    return positions


def _figure(graph: Any) -> Any:
    import networkx as nx
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    positions = _positions(graph)
    columns, rows = (max((place[axis] for place in positions.values()), default=0) for axis in (0, 1))
    low = min((place[1] for place in positions.values()), default=0)
    shown = [group for group in graph.graph["groups"] if any(number == group.number for _, number in graph.nodes(data="group"))]
    palette = [colormaps["tab20"](index) for index in (*range(0, 20, 2), *range(1, 20, 2)) if index not in (14, 15)]
    colours = {group.number: palette[index % len(palette)] for index, group in enumerate(shown)}
    figure = Figure(figsize=(2 + 1.5 * (columns + 1), 1.6 + 0.95 * (rows - low + 1) + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    fill = [
        _GREY if frozen else colours.get(graph.nodes[number]["group"], _GREY) for number, frozen in graph.nodes(data="frozen")
    ]
    # A skip connection is seen by the colour that its ends share; its edges, which a longer way implies, would hide the labels.
    edges = list(nx.transitive_reduction(graph).edges)
    nx.draw_networkx_edges(graph, positions, edges, ax=axes, edge_color="#707070", node_size=700, arrowsize=9, width=0.9,
                           connectionstyle="arc3,rad=0.12")  # fmt: skip
    nx.draw_networkx_nodes(graph, positions, ax=axes, node_color=fill, node_size=700, edgecolors="#404040", linewidths=0.6)
    nx.draw_networkx_labels(graph, positions, dict(graph.nodes(data="channels")), ax=axes, font_size=8)
    below = {number: (x, y - 0.33) for number, (x, y) in positions.items()}
    names = {number: _short(label) for number, label in graph.nodes(data="label")}
    nx.draw_networkx_labels(graph, below, names, ax=axes, font_size=6.5, verticalalignment="top")
    axes.margins(0.08)
    entries = [_entry(group, graph) for group in shown]
    patches = [Patch(facecolor=_GREY if stays else colours[group.number], label=text)
               for group, (text, stays) in zip(shown, entries, strict=True)]  # fmt: skip
    loose = dict.fromkeys(frozen for number, frozen in graph.nodes(data="frozen") if graph.nodes[number]["group"] < 0)
    patches += [Patch(facecolor=_GREY, label=f"keeps its channels: {reason}") for reason in loose]
    figure.legend(handles=patches, loc="outside lower left", fontsize=7, frameon=False)
    return figure


def _entry(group: Group, graph: Any) -> tuple[str, bool]:
    why = next((frozen for number, frozen in graph.nodes(data="frozen")
                if frozen and graph.nodes[number]["group"] == group.number), "")  # fmt: skip
    text = f"{group.name}: {group.size} channels, {group.macs} MACs"
    return (f"{text}; keeps them: {why}" if why else text), bool(why)


def _short(label: str, most: int = 18) -> str:
    """The end of a long name, where exporters put what tells layers apart."""
    return label if len(label) <= most else "…" + label[1 - most :]
