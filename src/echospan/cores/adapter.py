"""Any torch.nn.Module as a core: its width is found, its state is carried, its faults are named."""

from dataclasses import replace

import torch
from torch import nn

from echospan.cores.adapted import Adapted, adapt
from echospan.cores.calling import Plan, module_device
from echospan.cores.carrying import Carrying, is_plain, reading_again
from echospan.cores.copying import uncompiled
from echospan.cores.discovery import Discovery
from echospan.cores.probing import Refused, Trial, undisturbed
from echospan.errors import CoreError
from echospan.validation import whole


def as_core(
    module: nn.Module,
    features: int | None = None,
    hidden: int | None = None,
    *,
    context: int | None = None,
    judge: bool = True,
) -> Adapted:
    """Return the module as a core (`echospan.cores.Core`), with the same object inside.

    It may take its input time-first or channels-first, return more than its output, take its state
    by any argument, keep it on itself, or have none: then its last `context` inputs are read again,
    and the core says so (`carries`, `rereads`, `note`). A copy is tried; weights, buffers, mode,
    random states and torch's settings stay as they are. Only weights that a module makes in its
    first call are made.

    Args:
        module: Any `torch.nn.Module`.
        features: Width of its input, where the module does not say it.
        hidden: Width of its output, to be checked.
        context: How many inputs are read again (default: as many as matter, 256 where more do).
        judge: False takes what breaks a core's promises too, so that the checks can name them.

    Raises:
        CoreError: The module cannot be a core: what was wrong and what to write, in one sentence.
    """
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise CoreError(
            f"{module.__name__} is a class", f"give an instance of it, as {module.__name__}(…)"
        )
    features, hidden, context = (
        None if size is None else whole(name, size, 1)
        for name, size in (("features", features), ("hidden", hidden), ("context", context))
    )
    if not isinstance(module, nn.Module):
        raise CoreError(f"{module!r:.60} is no torch.nn.Module", "give an instance of one")
    if isinstance(module, Adapted) and features in (None, module.input_size):
        return module
    with undisturbed():
        try:
            trial = Trial(uncompiled(module), judge)
            plan = _plan(trial, features, hidden, context)
        except Refused as e:
            raise CoreError(e.fact, e.remedy) from None
        as_it_is = is_plain(trial, plan)
    core = adapt(module, plan, as_it_is)
    if plan.lazy:
        _make_weights(core)
    return core


def _plan(trial: Trial, features: int | None, hidden: int | None, context: int | None) -> Plan:
    """Return how a module is called and carried; CoreError or Refused say why it cannot be."""
    discovery = Discovery(trial)
    width, call = discovery.find(features, hidden)
    time = discovery.length(call, width)
    x = trial.draw(3 if width != 3 else 5, time, width)
    note = discovery.check_own_weights(call, x)
    plan = Carrying(trial, width, call, time).find()
    if context is not None and not plan.leaves:
        plan = reading_again(plan, context)
    if trial.judge:
        discovery.check_training_after_eval(plan.call, x)
    return replace(plan, note="; ".join(filter(None, (plan.note, note))))


def _make_weights(core: Adapted) -> None:
    """Call a core once, so that its module makes its weights, by the caller's random numbers."""
    training = core.module.training
    modes = [(part, part.training) for part in core.modules()]
    core.eval()
    x = torch.zeros(1, core.plan.tested, core.input_size, device=module_device(core))
    with torch.inference_mode(False), torch.no_grad():
        core(x)
    core.train(training)  # of what is new; the others get their own mode back
    for part, mode in modes:
        part.training = mode
