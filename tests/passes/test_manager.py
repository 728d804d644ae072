"""The manager: order, recursion, fixed points, opset, data, and failures that name what failed."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from models import branch_on_sum, conv_chain, custom_function

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context, Pass
from deburr.passes.instruments import Instrument, VerifyEach
from deburr.passes.pipeline import Fixpoint, Pipeline, Recipe, Repeat

from .rewriting import model


@dataclass(frozen=True)
class Visit(Pass):
    """Note which graphs are visited."""

    name: ClassVar[str] = "visit"
    seen: list = field(default_factory=list)

    def run(self, graph, context):
        self.seen.append(graph.name)


@dataclass(frozen=True)
class VisitMain(Visit):
    name: ClassVar[str] = "visit-main"
    main_graph_only: ClassVar[bool] = True


@dataclass(frozen=True)
class DropOne(Pass):
    """Take one Relu out of the graph; nothing once there is none."""

    name: ClassVar[str] = "drop-one"

    def run(self, graph, context):
        for node in graph.nodes:
            if node.op == "Relu":
                node.output().replace_uses(node.input(0))
                graph.remove(node)
                return


@dataclass(frozen=True)
class Restless(Pass):
    """Change something every time."""

    name: ClassVar[str] = "restless"

    def run(self, graph, context):
        graph.touch()


@dataclass(frozen=True)
class Crash(Pass):
    """Fail on the first node."""

    name: ClassVar[str] = "crash"
    hard: bool = False

    def run(self, graph, context):
        for node in graph.nodes:
            self.look(node)

    def look(self, node):
        raise KeyError("no such thing")


@dataclass(frozen=True)
class Spoil(Pass):
    """Leave an invalid graph."""

    name: ClassVar[str] = "spoil"

    def run(self, graph, context):
        nodes = list(graph.nodes)
        graph.move(nodes[0], after=nodes[-1])


@dataclass(frozen=True)
class NeedOpset(Pass):
    """Need operator set 13."""

    name: ClassVar[str] = "need-opset"
    minimum_opset: ClassVar[int] = 13

    def run(self, graph, context):
        assert context.model.opset >= 13


@dataclass(frozen=True)
class NeedData(Visit):
    name: ClassVar[str] = "need-data"
    needs_data: ClassVar[bool] = True


RELUS = "input %x: float[2]\n %a = Relu(%x)\n %b = Relu(%a)\n %c = Relu(%b)\n %y: float[2] = Abs(%c)\n return %y"


def test_subgraphs_are_visited_before_what_holds_them():
    given, visit, main = read(branch_on_sum()), Visit(), VisitMain()
    manager.run(Pipeline((visit, main)), Context(given))
    assert sorted(visit.seen[:2]) == ["then_Mul", "then_Sub"]
    assert visit.seen[2:] == ["tiny"]
    assert main.seen == ["tiny"]


def test_functions_are_visited_before_the_main_graph():
    given, visit = read(custom_function()), Visit()
    manager.run(Pipeline((visit,)), Context(given))
    assert len(visit.seen) == 2
    assert visit.seen[-1] == given.graph.name


def test_a_graph_that_went_away_is_not_visited():
    given = model(
        """input %c: bool[]
        input %x: float[2]
        %dead: ? = If(%c) {then_branch=graph then {
          %p: float[2] = Exp(%x)
          return %p
        }, else_branch=graph other {
          %q: float[2] = Neg(%x)
          return %q
        }}
        %y: float[2] = Relu(%x)
        return %y"""
    )

    @dataclass(frozen=True)
    class RemoveHolder(Visit):
        name: ClassVar[str] = "remove-holder"

        def run(self, graph, context):
            self.seen.append(graph.name)
            if graph.parent is not None:
                graph.parent.graph.remove(graph.parent)

    visit = RemoveHolder()
    manager.run(Pipeline((visit,)), Context(given))
    assert visit.seen == ["other", "main"]


def test_repeat():
    given = model(RELUS)
    manager.run(Pipeline((Repeat(2, Pipeline((DropOne(),))),)), Context(given))
    assert [node.op for node in given.graph.nodes] == ["Relu", "Abs"]


def test_a_fixed_point_ends_when_a_round_changes_nothing():
    given, visit = model(RELUS), Visit()
    context = Context(given)
    manager.run(Pipeline((Fixpoint(Pipeline((DropOne(), visit))),)), context)
    assert [node.op for node in given.graph.nodes] == ["Abs"]
    assert len(visit.seen) == 4  # three rounds that drop a Relu, and one that finds none
    assert context.remarks == []


def test_a_fixed_point_that_is_not_reached_says_so():
    context = Context(model(RELUS))
    manager.run(Pipeline((Fixpoint(Pipeline((Restless(),)), 3),)), context)
    assert [str(remark) for remark in context.remarks] == [
        "fixpoint<3>(restless): it still changes something after 3 rounds (give a higher limit)"
    ]


def test_the_opset_is_raised_for_a_pass_that_needs_it():
    given = read(conv_chain(opset=9))
    manager.run(Pipeline((Visit(),)), Context(given))
    assert given.opset == 9
    manager.run(Pipeline((NeedOpset(),)), Context(given), [VerifyEach()])
    assert given.opset == 13


def test_data_that_is_missing_is_noticed_before_anything_runs():
    first, needy = Visit(), NeedData()
    pipeline = Pipeline((first, Recipe("later", Pipeline((needy,)))))
    with pytest.raises(DeburrError) as caught:
        manager.run(pipeline, Context(model(RELUS)))
    assert str(caught.value) == (
        "error[E206]: the pass need-data needs calibration data, pipeline visit,later: none was given; "
        "give samples with --data FILE.npz"
    )
    assert first.seen == []
    manager.run(pipeline, Context(model(RELUS), data=Samples({"x": np.zeros((2,), np.float32)})))
    assert needy.seen == ["main"]


def test_an_exception_names_pass_options_graph_and_node():
    with pytest.raises(DeburrError) as caught:
        manager.run(Pipeline((Crash(hard=True),)), Context(model(RELUS)))
    assert str(caught.value) == (
        "error[E204]: a pass failed, pass crash{hard=true}, graph 'main', node Relu -> a: KeyError: 'no such thing'; "
        "this is a defect of the pass: please report it"
    )
    assert isinstance(caught.value.__cause__, KeyError)


def test_verify_each_names_the_pass_that_broke_the_model():
    with pytest.raises(DeburrError) as caught:
        manager.run(Pipeline((DropOne(), Spoil(), DropOne())), Context(model(RELUS)), [VerifyEach()])
    assert str(caught.value).startswith("error[E205]: the model is invalid after a pass, pass 2 spoil: ")
    assert caught.value.__cause__.code == "E104"


def test_types_are_there_again_after_a_pass():
    given = model(RELUS)

    @dataclass(frozen=True)
    class Insert(Pass):
        """Put an Exp behind the input."""

        name: ClassVar[str] = "insert"

        def run(self, graph, context):
            first = next(graph.nodes)
            first.set_input(0, graph.add_node("Exp", [graph.inputs[0]], ["e"], before=first).output())

    manager.run(Pipeline((Insert(),)), Context(given))
    assert str(given.graph.value("e").type) == "float[2]"


def test_the_order_of_the_hooks():
    calls = []

    @dataclass
    class Log(Instrument):
        label: str

        def before_pipeline(self, pipeline, context):
            calls.append(f"{self.label} before all")

        def after_pipeline(self, pipeline, context):
            calls.append(f"{self.label} after all")

        def before_pass(self, step, context):
            calls.append(f"{self.label} before {step}")

        def after_pass(self, step, context, changed):
            calls.append(f"{self.label} after {step} {changed}")

        def failed(self, step, context, error):
            calls.append(f"{self.label} failed {step} {error.code}")

    with pytest.raises(DeburrError):
        manager.run(Pipeline((DropOne(), Crash())), Context(model(RELUS)), [Log("a"), Log("b")])
    assert calls == [
        "a before all", "b before all", "a before 1 drop-one", "b before 1 drop-one", "b after 1 drop-one True",
        "a after 1 drop-one True", "a before 2 crash", "b before 2 crash", "b failed 2 crash E204", "a failed 2 crash E204",
    ]  # fmt: skip
