"""Pipeline text: it round-trips, and what is wrong with it is said with place, nearest name and list."""

import enum
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deburr.ir.errors import DeburrError
from deburr.passes import registry
from deburr.passes.core import Pass
from deburr.passes.parser import PipelineError
from deburr.passes.pipeline import Fixpoint, Pipeline, Repeat, parse


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@dataclass(frozen=True, slots=True)
class Try(Pass):
    """A pass with an option of every type."""

    name: ClassVar[str] = "try"

    count: int = 1
    share: float = 0.5
    on: bool = False
    label: str = ""
    mode: Literal["l1", "l2"] = "l2"
    colour: Colour = Colour.RED
    limit: int | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[float, str] = (1.0, "x")
    either: int | str = 0

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")

    def run(self, graph, context):
        raise NotImplementedError


@pytest.fixture(autouse=True, scope="module")
def register_try():
    """`try`, as if a plugin gave it."""
    passes = registry.passes()
    passes._loaders["try"] = ("tests", lambda: Try)
    yield
    registry.reload()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clean",
        "fold-constants",
        "fold-batch-norm,prune-channels{ratio=0.25,criterion=l1},repeat<4>(fold-constants,remove-dead-code),quantize",
        "fixpoint(remove-identity,repeat<2>(fold-constants))",
        "fixpoint<3>(remove-identity)",
        "repeat<2>()",
        'try{count=3,share=1e-05,on=true,label="a b",mode=l1,colour=dark-blue,limit=7,sizes=(1,2,3),pair=(0.25,y)}',
        'try{label="true",either="12"}',
        'try{label="quote \\" backslash \\\\ comma , ümlaut"}',
        "try{sizes=(4)}",
        "try{share=inf,either=word}",
    ],
)
def test_round_trip(text):
    pipeline = parse(text)
    assert str(pipeline) == text
    assert parse(str(pipeline)) == pipeline


def test_blanks_comments_and_defaults():
    written = """
        fold-constants ,   # first
        try { count = 2, share = 0.5, sizes = ( 1 , 2 , ) },
        repeat < 2 > ( remove-identity )
    """
    assert str(parse(written)) == "fold-constants,try{count=2,sizes=(1,2)},repeat<2>(remove-identity)"


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
passes = st.builds(
    Try,
    count=st.integers(0, 10**9),
    share=st.floats(allow_nan=False),
    on=st.booleans(),
    label=texts,
    mode=st.sampled_from(["l1", "l2"]),
    colour=st.sampled_from(Colour),
    limit=st.none() | st.integers(),
    sizes=st.lists(st.integers(), max_size=3).map(tuple),
    pair=st.tuples(st.floats(allow_nan=False, allow_infinity=False), texts),
    either=st.integers() | texts,
)
bodies = st.recursive(
    st.lists(passes, max_size=2).map(lambda items: Pipeline(tuple(items))),
    lambda inner: st.lists(
        st.builds(Repeat, st.integers(1, 99), inner) | st.builds(Fixpoint, inner, st.integers(1, 99)), max_size=2
    ).map(lambda items: Pipeline(tuple(items))),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(bodies)
def test_any_pipeline_round_trips(pipeline):
    assert parse(str(pipeline)) == pipeline


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='clean,{}()<>="# \n12.-trysizcout', max_size=30))
def test_any_text_parses_or_is_refused_with_its_place(text):
    try:
        pipeline = parse(text)
    except PipelineError as error:
        refused = error
    else:
        assert parse(str(pipeline)) == pipeline
        return
    line, caret = refused.excerpt.split("\n")
    assert 0 <= refused.offset <= len(text)
    assert line in text
    assert caret.endswith("^")


def message(text: str) -> str:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    return str(caught.value)


TRY = (
    'its options are count=1, share=0.5, on=false, label="", mode=l2, colour=red, limit=none, sizes=(), pair=(1.0,x), either=0'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "clean,,try",
            "error[E201]: the pipeline does not parse, in the pipeline, at column 7, ',': expected the name of a pass",
        ),
        (
            "clean try",
            "error[E201]: the pipeline does not parse, in the pipeline, at column 7, 'try': "
            "expected ',' or the end of the text",
        ),
        (
            "clean,",
            "error[E201]: the pipeline does not parse, in the pipeline, at column 7, the end of the text: "
            "expected the name of a pass",
        ),
        (
            "clean,\nrepeat<0>(try)",
            "error[E201]: the pipeline does not parse, in the pipeline, at line 2, column 8, '0': "
            "expected a number of times, 1 or more",
        ),
        (
            "repeat(try)",
            "error[E201]: the pipeline does not parse, in the pipeline, at column 7, '(': expected '<'",
        ),
        (
            "repeat<2>(try",
            "error[E201]: the pipeline does not parse, in the pipeline, at column 14, the end of the text: expected ')'",
        ),
        (
            'try{label="open}',
            "error[E201]: the pipeline does not parse, in the pipeline, at column 11, '\"': expected a value",
        ),
        (
            'try{label="\\q"}',
            "error[E201]: the pipeline does not parse, in the pipeline, at column 11, '\"\\\\q\"': "
            "wrong string: Invalid \\escape: line 1 column 2 (char 1)",
        ),
        (
            "try{cuont=1}",
            f"error[E203]: try has no option 'cuont', in the pipeline, at column 5, 'cuont': {TRY}; did you mean 'count'?",
        ),
        (
            "try{count=1,count=2}",
            "error[E203]: the option 'count' is given twice, in the pipeline, at column 13, 'count'",
        ),
        (
            "try{count=0.5}",
            "error[E203]: try: count does not take this, in the pipeline, at column 11, '0.5': it takes int",
        ),
        (
            "try{mode=l3}",
            "error[E203]: try: mode does not take this, in the pipeline, at column 10, 'l3': it takes l1|l2",
        ),
        (
            "try{colour=green}",
            "error[E203]: try: colour does not take this, in the pipeline, at column 12, 'green': it takes red|dark-blue",
        ),
        (
            "try{limit=few}",
            "error[E203]: try: limit does not take this, in the pipeline, at column 11, 'few': it takes int or none",
        ),
        (
            "try{pair=(1,2,3)}",
            "error[E203]: try: pair does not take this, in the pipeline, at column 10, '(': it takes (float,str)",
        ),
        (
            "try{count=-1}",
            "error[E203]: try does not take these options, in the pipeline, at column 1, 'try': count must not be negative",
        ),
        (
            "remove-identity{deep=true}",
            "error[E203]: remove-identity has no option 'deep', in the pipeline, at column 17, 'deep': it has no options",
        ),
        (
            "clean{limit=3}",
            "error[E203]: the recipe 'clean' takes no options, in the pipeline, at column 1, 'clean'; write its pipeline out: "
            "fixpoint(fold-constants,remove-identity,fold-batch-norm,fold-affine,explicit-padding,fold-pad,remove-dead-code)",
        ),
    ],
)
def test_messages(text, expected):
    assert message(text) == expected


def test_a_typo_gets_the_nearest_name_and_the_list():
    known = ", ".join(sorted([*registry.passes().names, *registry.recipes().names]))
    assert message("clean,prune-chanels{ratio=0.5}") == (
        "error[E202]: no pass or recipe 'prune-chanels', in the pipeline, at column 7, 'prune-chanels': "
        f"there are {known}; did you mean 'prune-channels'?"
    )


def test_the_caret_stands_under_the_place():
    with pytest.raises(PipelineError) as caught:
        parse("clean,\nprune-chanels,\nquantize")
    assert caught.value.excerpt == "prune-chanels,\n^"
    with pytest.raises(PipelineError) as caught:
        parse("clean,try{count=x}")
    assert caught.value.excerpt == "clean,try{count=x}\n                ^"


def test_nesting_is_limited():
    deep = 100
    assert "it is nested deeper than 50" in message("repeat<2>(" * deep + ")" * deep)
    assert "it is nested deeper than 50" in message("try{sizes=" + "(" * deep + ")" * deep + "}")


def test_from_a_file(tmp_path):
    file = tmp_path / "pipeline.txt"
    file.write_text("clean, # what comes first\ntry{count=2}\n")
    assert str(parse(f"@{file}")) == "clean,try{count=2}"
    file.write_text("nonsens")
    assert f"in {file}, at column 1, 'nonsens'" in message(f"@{file}")
    with pytest.raises(DeburrError) as caught:
        parse(f"@{tmp_path / 'missing.txt'}")
    assert str(caught.value).startswith(f"error[E201]: the pipeline's file cannot be read, {tmp_path / 'missing.txt'}: ")


def test_passes_and_expansion():
    pipeline = parse("clean,repeat<2>(try)")
    assert [one.name for one in pipeline.passes][-2:] == ["remove-dead-code", "try"]
    assert str(pipeline.expanded()) == f"{registry.recipes()['clean']},repeat<2>(try)"
