"""A short part of the fuzzing, the same inputs in each run; `make fuzz` is the long one."""

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import Target, targets

SHORT = 40


@pytest.mark.parametrize("target", targets(), ids=lambda target: str(target.name))
def test_no_input_raises_what_its_reader_does_not_declare(target: Target) -> None:
    fuzz(target, max(2, int(SHORT * target.weight)))
