"""What a call is refused with."""

import pytest

from deburr.ir.errors import DeburrError


def refusal(function, *given, **named):
    """The whole line of the error that a call ends in."""
    with pytest.raises(DeburrError) as caught:
        function(*given, **named)
    return str(caught.value)
