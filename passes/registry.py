"""Where passes, recipes, criteria, observers and targets are found: the built-in tables, and the entry points of plugins.

Everything is named here and imported when it is first asked for. What cannot be loaded is kept with its reason and stops
nothing; a plugin can not take a name that is built in, nor one that another plugin gives.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from deburr.ir.errors import DeburrError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from deburr.passes.core import Pass

Entry = TypeVar("Entry")
Check = Callable[[str, Any], str]  # (name, loaded entry) -> what is wrong with it, or nothing

# Name -> "module:attribute". A new built-in is one line here.
PASSES = {
    "fold-constants": "deburr.passes.clean.fold_constants:FoldConstants",
    "fold-batch-norm": "deburr.passes.clean.fold_batch_norm:FoldBatchNorm",
    "fold-affine": "deburr.passes.clean.fold_affine:FoldAffine",
    "explicit-padding": "deburr.passes.clean.explicit_padding:ExplicitPadding",
    "fold-pad": "deburr.passes.clean.fold_pad:FoldPad",
    "remove-identity": "deburr.passes.clean.remove_identity:RemoveIdentity",
    "remove-dead-code": "deburr.passes.clean.remove_dead_code:RemoveDeadCode",
    "raise-opset": "deburr.passes.clean.raise_opset:RaiseOpset",
    "prune-channels": "deburr.passes.prune.channels:PruneChannels",
    "prune-gradually": "deburr.passes.prune.gradually:PruneGradually",
    "prune-search": "deburr.passes.prune.search:PruneSearch",
    "cluster-weights": "deburr.passes.prune.cluster_weights:ClusterWeights",
    "prune-weights": "deburr.passes.prune.weights:PruneWeights",
    "store-weights": "deburr.passes.prune.store_weights:StoreWeights",
    "compensate": "deburr.passes.prune.compensate:Compensate",
    "equalize-layers": "deburr.passes.quantize.equalize_layers:EqualizeLayers",
    "smooth-activations": "deburr.passes.quantize.smooth_activations:SmoothActivations",
    "calibrate": "deburr.passes.quantize.calibrate:Calibrate",
    "scale-weights": "deburr.passes.quantize.scale_weights:ScaleWeights",
    "mixed-precision": "deburr.passes.quantize.mixed_precision:MixedPrecision",
    "round-weights": "deburr.passes.quantize.round_weights:RoundWeights",
    "correct-bias": "deburr.passes.quantize.correct_bias:CorrectBias",
    "insert-qdq": "deburr.passes.quantize.insert_qdq:InsertQdq",
    "quantize": "deburr.passes.quantize.quantize:Quantize",
    "quantize-weights": "deburr.passes.quantize.quantize_weights:QuantizeWeights",
    "quantize-dynamically": "deburr.passes.quantize.quantize_dynamically:QuantizeDynamically",
    "convert-float16": "deburr.passes.float16.convert_float16:ConvertFloat16",
    "quantize-with-accuracy-control": "deburr.passes.quantize.accuracy_control:QuantizeWithAccuracyControl",
    "reestimate-batch-norm": "deburr.passes.recover.reestimate_batch_norm:ReestimateBatchNorm",
    "finetune": "deburr.passes.recover.finetune:Finetune",
    "prune-finetune": "deburr.passes.recover.prune_finetune:PruneFinetune",
    "qat": "deburr.passes.recover.qat:Qat",
}
RECIPES = {
    "clean": "deburr.passes.recipes:CLEAN",
    "prune": "deburr.passes.recipes:PRUNE",
    "int8": "deburr.passes.recipes:INT8",
    "prune-int8": "deburr.passes.recipes:PRUNE_INT8",
}
CRITERIA: dict[str, str] = {
    "l1": "deburr.passes.prune.importance:l1",
    "l2": "deburr.passes.prune.importance:l2",
    "batch-norm": "deburr.passes.prune.importance:batch_norm",
    "geometric-median": "deburr.passes.prune.importance:geometric_median",
    "wanda": "deburr.passes.prune.activations:wanda",
    "obd": "deburr.passes.prune.activations:obd",
    "random": "deburr.passes.prune.importance:random",
    "reconstruction": "deburr.passes.prune.reconstruction:reconstruction",
}  # how important a channel is
OBSERVERS: dict[str, str] = {
    "minmax": "deburr.passes.quantize.observers:MinMax",
    "moving-average": "deburr.passes.quantize.observers:MovingAverage",
    "percentile": "deburr.passes.quantize.observers:Percentile",
    "entropy": "deburr.passes.quantize.entropy:Entropy",
    "mse": "deburr.passes.quantize.observers:MeanSquaredError",
    "output-weighted": "deburr.passes.quantize.observers:OutputWeightedError",
}  # how a range is read off calibration data


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that cannot be used: its group (`deburr.passes`, …), name, where it comes from and why."""

    group: str
    name: str
    origin: str
    reason: str


class Registry(Mapping[str, Entry], Generic[Entry]):
    """The entries of one group that load, by name. Looking a name up imports that entry only."""

    def __init__(self, group: str, builtin: Mapping[str, str], check: Check = lambda name, entry: "") -> None:
        """:param group: the group of entry points where plugins add theirs."""
        self.group, self._check = group, check
        self._broken: dict[tuple[str, str], Broken] = {}
        self._loaders: dict[str, tuple[str, Callable[[], Any]]] = {
            name: ("built in", functools.partial(_load, reference)) for name, reference in builtin.items()
        }
        self._loaded: dict[str, Entry] = {}
        self._add_plugins()

    def _add_plugins(self) -> None:
        offers: dict[str, dict[str, EntryPoint]] = {}
        for point in _entry_points(self.group):
            offers.setdefault(point.name, {})[_origin(point)] = point
        for name, points in offers.items():
            taken = self._loaders.get(name)
            for origin, point in points.items():
                if taken is not None:
                    self._note(name, origin, f"the name is taken: {name} is built in")
                elif len(points) > 1:
                    self._note(name, origin, f"the name is given by more than one package: {', '.join(sorted(points))}")
                else:
                    self._loaders[name] = (origin, point.load)

    def _note(self, name: str, origin: str, reason: str) -> None:
        self._broken[name, origin] = Broken(self.group, name, origin, reason)

    def _fetch(self, name: str) -> bool:
        if name in self._loaded:
            return True
        origin, load = self._loaders[name]
        if (name, origin) in self._broken:
            return False
        try:
            entry = load()
            reason = self._check(name, entry)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            reason = f"{type(error).__name__}: {error}"
        if reason:
            self._note(name, origin, " ".join(reason.split()))
            return False
        self._loaded[name] = entry
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, known without importing anything; some may turn out broken."""
        return tuple(self._loaders)

    def origin(self, name: str) -> str:
        """`built in`, or the package that gives it."""
        return self._loaders[name][0]

    @property
    def broken(self) -> list[Broken]:
        """What cannot be used, after trying to load everything."""
        for name in self._loaders:
            self._fetch(name)
        return list(self._broken.values())

    def find(self, name: str, code: str, kind: str, where: str = "") -> Entry:
        """The entry called `name`.

        :param kind: what it is, for the message: `pass`, `observer`, …
        :raises DeburrError: `code`, with the nearest name and the list, or with the reason why it does not load.
        """
        if name in self._loaders and self._fetch(name):
            return self._loaded[name]
        for (broken_name, _), broken in self._broken.items():
            if broken_name == name:
                raise DeburrError(
                    code, f"the {kind} {name!r} cannot be loaded", where=where, why=f"{broken.reason} ({broken.origin})",
                    hint="mend or uninstall the package that gives it",
                )  # fmt: skip
        raise DeburrError(code, f"no {kind} {name!r}", where=where, why=listed(self.names), hint=nearest(name, self.names))

    def __getitem__(self, name: str) -> Entry:
        if name not in self._loaders or not self._fetch(name):
            raise KeyError(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._loaders if self._fetch(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@functools.cache
def passes() -> Registry[type[Pass]]:
    """Every pass, by its name in pipeline text."""
    return Registry("deburr.passes", PASSES, _check_pass)


@functools.cache
def recipes() -> Registry[str]:
    """Every recipe: name -> pipeline text."""
    return Registry("deburr.recipes", RECIPES, _check_recipe)


@functools.cache
def criteria() -> Registry[Any]:
    """How important a channel is, by name."""
    return Registry("deburr.criteria", CRITERIA)


@functools.cache
def observers() -> Registry[Any]:
    """How a range is read off calibration data, by name."""
    return Registry("deburr.observers", OBSERVERS)


@functools.cache
def targets() -> Registry[Any]:
    """Devices that plugins describe, by name; the built-in ones are the presets of `deburr.targets`."""
    return Registry("deburr.targets", {})


_RESERVED = ("repeat", "fixpoint")
_GROUPS: tuple[Callable[[], Registry[Any]], ...] = (passes, recipes, criteria, observers, targets)


def broken() -> list[Broken]:
    """Everything of any group that cannot be used, with the reason."""
    return [entry for group in _GROUPS for entry in group().broken]


def reload() -> None:
    """Look at the installed packages anew (after one was installed into a running process)."""
    importlib.invalidate_caches()
    for group in _GROUPS:
        group.cache_clear()  # type: ignore[attr-defined]


def nearest(name: str, names: tuple[str, ...]) -> str:
    """`did you mean 'x'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def listed(names: tuple[str, ...]) -> str:
    return f"there are {', '.join(sorted(names))}" if names else "there are none"


def _load(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _entry_points(group: str) -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=group))


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _check_pass(name: str, entry: Any) -> str:
    from deburr.passes.core import Pass
    from deburr.passes.options import option_types

    if not (isinstance(entry, type) and issubclass(entry, Pass)):
        return "it is not a subclass of deburr.passes.core.Pass"
    if name in _RESERVED:
        return f"the grammar of pipelines uses the word {name}"
    if getattr(entry, "name", None) != name:
        return f"the class calls itself {getattr(entry, 'name', None)!r}"
    if "__dataclass_params__" not in vars(entry):
        return "the class lacks @dataclass(frozen=True)"
    missing = [option.name for option in dataclasses.fields(entry) if not _has_default(option)]
    if missing:
        return f"options without a default: {', '.join(missing)}"
    option_types(entry)
    entry()
    return ""


def _check_recipe(name: str, entry: Any) -> str:
    if name in passes().names or name in _RESERVED:
        return f"the name is taken: {name} is a pass"
    return "" if isinstance(entry, str) else "a recipe is a string"


def _has_default(option: dataclasses.Field[Any]) -> bool:
    return option.default is not dataclasses.MISSING or option.default_factory is not dataclasses.MISSING
