"""For the test suites of people who write layers: `assert_span(MyLayer, at_least=16)`."""

from collections.abc import Callable
from typing import Any

from torch import nn


def assert_span(
    module_or_factory: nn.Module | Callable[..., nn.Module],
    at_least: int = 16,
    seconds: float = 60,
    **settings: Any,
) -> None:
    """AssertionError, with the whole profile, where a layer's span is shorter than `at_least`.

    It is asked at every delay up to `at_least`, within `seconds` of training and evaluation;
    `settings` go to `echospan.profile` (`symbols=…` makes it the same work on every machine).
    """
    __tracebackhide__ = True
    from echospan import profile
    from echospan.validation import positive, whole

    at_least, seconds = whole("at_least", at_least), positive("seconds", seconds)
    profiled = profile(module_or_factory, at_least, seconds=seconds, **settings)
    assert profiled.span >= at_least, (
        f"span {profiled.span} is shorter than {at_least}; train longer (seconds={2 * seconds:g}) "
        f"or mend what forgets\n{profiled}"
    )
