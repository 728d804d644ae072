"""Intermediate values of a model, asked for in topological order, with every node run once for each sample.

Passes that settle one layer after the other need the input of each layer as the settled part before it gives it. Running that
part anew for every layer takes time in the square of their number; a sweep keeps what nodes still to come will read, as a
compiler keeps what is live, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deburr.ir.evaluate import Evaluator, fixed_batch
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.samples import Samples
from deburr.ir.types import Array
from deburr.ir.value import Value
from deburr.passes.linear.prefix import ancestors, capture_prefix, part


class Sweep:
    """One walk over the main graph of `model` with all of `samples`, in batches.

    A node that was run must not change any more; those to come may. Memory holds the live values of all samples, in the
    element type of the model. A value that is asked for when nothing live leads to it, and a graph with subgraphs, run from
    the start.
    """

    def __init__(self, model: Model, samples: Samples, batch: int) -> None:
        self._model, self._samples = model, samples
        self._batch = fixed_batch(model) or batch
        self._done: set[Node] = set()
        self._live: list[dict[Value, Array]] = [
            {value: inputs[value.name] for value in model.graph.inputs if value.name in inputs}
            for inputs in samples.batches(self._batch)
        ]
        # A fixed batch larger than 1 may have to be padded, which only the whole model knows how to undo.
        self._whole = self._batch > 1 and fixed_batch(model) is not None
        self._whole |= any(node.subgraphs for node in model.graph.nodes)

    def values(self, wanted: Sequence[Value]) -> Iterator[list[Array]]:
        """The values batch by batch, in the order asked for; all batches have to be drawn before the next call."""
        needed = ancestors(wanted) - self._done
        held = set(self._live[0]) if self._live else set()
        if self._whole or not _leads(held, needed, wanted):
            yield from capture_prefix(self._model, wanted, self._samples, self._batch)
            return
        order = [node for node in self._model.graph.nodes if node in needed]
        self._done.update(order)
        given = [value for node in order for value in node.outputs if value is not None]
        live = [value for value in (*held, *given) if any(use.node not in self._done for use in value.uses)]
        computed = [value for value in dict.fromkeys((*live, *wanted)) if value not in held]
        evaluator = Evaluator(part(self._model, order, computed), optimize=True) if computed else None
        for index, before in enumerate(self._live):
            now = dict(before)
            if evaluator is not None:
                results = evaluator.run(
                    {value.name: array for value, array in before.items() if value.name in evaluator.inputs}
                )
                now |= {value: results[value.name] for value in computed}
            self._live[index] = {value: now[value] for value in live}
            yield [now[value] for value in wanted]


def _leads(held: set[Value], needed: set[Node], wanted: Sequence[Value]) -> bool:
    """Whether the nodes can be run from what is held, and types say how to hand it over."""
    made = {value for node in needed for value in node.outputs if value is not None}
    read = {value for node in needed for value in node.inputs if value is not None and not value.is_constant}
    return all(value in held or value in made for value in (*read, *wanted)) and all(value.dtype for value in read - made)
