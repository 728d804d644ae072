"""The one exception that a user can cause, and the table of its codes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# One line per code: what kind of trouble it names. The hundreds are rooms of the house.
CODES: Mapping[str, str] = MappingProxyType(
    {
        # 1xx: the model file
        "E101": "the file cannot be read",
        "E102": "the file is not an ONNX model, or is truncated",
        "E103": "the model breaks the ONNX specification",
        "E104": "the model breaks a rule of the IR",
        "E105": "the opset is newer than this installation knows",
        "E106": "external data is missing, too short, or outside the model's folder",
        "E107": "the text form does not parse",
        "E108": "the model cannot be executed",
        "E109": "a file cannot be written",
        # 2xx: passes and pipelines
        "E201": "the pipeline text does not parse",
        "E202": "no such pass or recipe",
        "E203": "no such option, or a value that it does not take",
        "E204": "a pass failed",
        "E205": "a pass left the model invalid",
        "E206": "a pass needs something that was not given",
        "E207": "an operator that cannot be trained through",
        # 3xx: data
        "E301": "the data file cannot be read",
        "E302": "an input of the model is missing in the data, or one is unknown",
        "E303": "shape or dtype of the data does not fit the model",
        "E304": "the data holds NaN or infinity",
        "E305": "the data is empty",
        # 4xx: compilation
        "E401": "no such target",
        "E402": "an operator that nothing supports",
        "E403": "the compiler failed",
        "E404": "the compiler ran out of time",
        "E405": "a tool that compilation needs is missing",
        "E406": "what was linked does not fit the device",
        # 5xx: bundles and measuring
        "E501": "not a bundle",
        "E502": "the bundle does not match its manifest",
        "E503": "the bundle is for another machine",
        "E504": "running failed",
        "E505": "a device cannot be reached, or was lost",
        # 9xx: the call
        "E901": "the call is wrong",
        "E902": "an optional package is missing",
        "E903": "a defect in deburr",
    }
)

WRONG_CALL = frozenset({"E201", "E202", "E203", "E206", "E401", "E901"})


class DeburrError(Exception):
    """Something a user can cause and can mend: rendered as one line, ``error[E123]: what, where: why; what to do``.

    :param code: a key of `CODES`.
    :param what: what went wrong, in a few words.
    :param where: the file, node, tensor or option, as the user knows it.
    :param why: the cause.
    :param hint: what to do about it.
    """

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"{code} is not in the table of error codes")
        self.code, self.what, self.where, self.why, self.hint = code, what, where, why, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"error[{self.code}]: {self.what}"
        text += f", {self.where}" if self.where else ""
        text += f": {self.why}" if self.why else ""
        text += f"; {self.hint}" if self.hint else ""
        return " ".join(text.split())

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.code, self.what, self.where, self.why, self.hint)

    @property
    def exit_code(self) -> int:
        """2 where the call was wrong, 1 where the run failed."""
        return 2 if self.code in WRONG_CALL else 1


def _rebuild(code: str, what: str, where: str, why: str, hint: str) -> DeburrError:
    return DeburrError(code, what, where=where, why=why, hint=hint)
