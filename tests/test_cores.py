"""Every architecture of CORES keeps every promise; what it does not keep stands here with why."""

from itertools import product

import pytest

from echospan.checks import CORE_CHECKS, name_of
from echospan.cores import CORES

EXPECTED_FAILURES: dict[tuple[str, str], str] = {}
"""(core, check) -> reason; strict: one that begins to pass is an error."""


def cases():
    for (name, make), check in product(CORES.items(), CORE_CHECKS):
        reason = EXPECTED_FAILURES.get((name, name_of(check)))
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        yield pytest.param(make, check, marks=marks, id=f"{name}-{name_of(check)}")


@pytest.mark.parametrize(("make", "check"), list(cases()))
def test_a_core_keeps_its_promise(make, check):
    check(make)


def test_expected_failures_name_cores_and_checks_that_are_there():
    checks = {name_of(check) for check in CORE_CHECKS}
    assert all(core in CORES and check in checks for core, check in EXPECTED_FAILURES)
