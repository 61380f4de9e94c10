"""How a module wants its input, found by trying: width, layout, arguments; and what it must not do.

Names of attributes and arguments order the trials. They decide nothing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from echospan.cores.calling import (
    ABSENT,
    BATCH_FIRST,
    CHANNEL_FIRST,
    TIME_FIRST,
    ByMethod,
    ByZeros,
    Call,
    Place,
    parts_of,
    slots,
)
from echospan.cores.copying import held_tensors
from echospan.cores.probing import Refused, Trial, graph_leaves, short
from echospan.cores.state_tree import is_state, leaves, rebuild
from echospan.errors import CoreError, option

WIDTHS = (
    *("input_size", "in_features", "d_input", "input_dim", "in_dim", "d_in", "in_channels"),
    *("num_inputs", "n_inputs", "num_features", "d_model", "dim", "embed_dim", "embedding_dim"),
    *("model_dim", "emb_dim", "n_embd", "hidden_dim", "hidden_size", "width", "features"),
    *("channels", "units", "size", "d"),
)
"""Where modules say how wide their input is, the surest first."""

STATE = re.compile(
    r"(h|c|hx|cx|h_?0|c_?0|h_?n|z_?0|s|(.*_)?(state|hidden|cache|memory|mem|carry|past)s?(_.*)?"
    r"|past.*|prev.*|inference_params|mems|.*_hxs?)"
)
"""Usual names of the argument that takes a state: they are tried first."""

STARTS = (
    *("initial_state", "init_state", "init_hidden", "initHidden", "get_initial_state"),
    *("zero_state", "empty_state", "default_state", "initial_hidden", "init_cache"),
)
"""Usual names of methods that make the first state of so many rows."""

NAMES = ("last_hidden_state", "output", "outputs", "out", "y", "hidden_states", "hidden", "logits")
"""What the sequence is called in a dict or dataclass."""

LENGTHS = (64, 256, 60, 100, 128, 32, 512, 1024)
"""Lengths that are tried with a module that takes only some."""

SCALES = (10, 100, 1_000, 10_000)
"""Factors by which the input is enlarged where numbers of about 1 give one answer only."""

FEW = 16
"""Different numbers in an output, as that of spiking neurons, that a change may easily leave as it
is: then gradients are looked at as well."""

SLOPE = 1e-3
"""Share of the largest gradient from which one is more than rounding."""

FUTURE = "mask the future (a causal mask, padding on the left alone) or wrap it so"

Order = tuple[int, int, int]


class Discovery:
    """Finds the call of one module, and refuses what breaks a core's promises."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.name = trial.name
        self.worst: Refused | None = None
        """Of all refusals the one that came farthest."""

    # --- what is tried

    def widths(self) -> tuple[list[int], list[int]]:
        """Return the widths that the module says it takes, and others that it might."""
        parts = list(self.trial.module.modules())
        homes: list[tuple[Any, tuple[str, ...]]] = [(parts[0], WIDTHS)]
        for key in ("config", "cfg", "args"):
            homes += [(getattr(p, key), WIDTHS) for p in parts[:3] if hasattr(p, key)]
        homes += [(p, (*WIDTHS[:7], "embed_dim", "d_model", "dim")) for p in parts[1:]]
        said: dict[int, None] = {}
        for home, names in homes:
            for name in names:
                value = getattr(home, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    said[value] = None
            shape = getattr(home, "normalized_shape", None)
            if isinstance(shape, tuple) and shape:
                said[int(shape[-1])] = None
        guesses = sorted(self.trial.sizes() - set(said))
        return list(said), guesses[:24]

    def orders(self) -> tuple[Order, ...]:
        """Return the layouts, the likeliest first."""
        parts = list(self.trial.module.modules())[:4]
        said = [p.batch_first for p in parts if hasattr(p, "batch_first")]
        if said and not said[0]:
            return TIME_FIRST, BATCH_FIRST, CHANNEL_FIRST
        return BATCH_FIRST, TIME_FIRST, CHANNEL_FIRST

    def calls(self) -> Iterator[Call]:
        """Yield ways to call the module with `x` first: what it gets beside it."""
        required = self.trial.required
        yield Call(required=required)
        if not required:
            return
        for name in STARTS:
            if callable(getattr(self.trial.module, name, None)):
                yield Call(begin=ByMethod(name), required=required, give=required)
                if len(required) > 1:
                    yield Call(begin=ByMethod(name), required=required, give=required[:1])
        sizes = sorted(self.trial.sizes())
        layers = getattr(self.trial.module, "num_layers", 1)
        for size in sizes[:8]:
            for shape in dict.fromkeys([(-1, size), (1, -1, size), (layers, -1, size)]):
                for number in (1, 2) if len(required) == 1 else (len(required),):
                    yield Call(begin=ByZeros(shape, number), required=required, give=required)

    def keyword_calls(self) -> Iterator[Call]:
        """Yield ways to call the module with `x` by keyword, as models that embed first want it."""
        names = [
            name
            for name, p in self.trial.arguments.items()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            and not isinstance(p.default, bool)
        ]
        required = (self.trial.first, *self.trial.required)
        for name in sorted(names, key=lambda name: "embed" not in name):
            yield Call(keyword=name, required=tuple(r for r in required if r != name))

    # --- the search

    def find(self, features: int | None, hidden: int | None) -> tuple[int, Call]:
        """Return the width of the input and the call.

        Raises:
            CoreError: Nothing fits: one sentence says what came nearest, and what to write.
        """
        if features is None and self.trial.lazy:
            raise self.wants_features()
        said, guesses = ([features], []) if features is not None else self.widths()
        for dtype, name in self.trial.dtypes.items():
            self.trial.dtype = dtype
            only = len(self.trial.dtypes) == 1
            like = None if only and dtype == torch.get_default_dtype() else name
            for sizes, calls, sure in (
                (said, self.calls, True),
                (said, self.keyword_calls, True),
                (guesses, self.calls, False),
                (guesses, self.keyword_calls, False),
            ):
                fitting = []
                for size in sizes:
                    if call := self.first_fit(size, calls(), like, hidden):
                        fitting.append((size, call))
                        if sure:
                            break
                if len(fitting) > 1:
                    raise CoreError(
                        f"{self.name} does not say how wide its input is, and takes "
                        + " and ".join(str(size) for size, _ in fitting[:4]),
                        f"give the width of its input as {option('features')}",
                    )
                if fitting:
                    if features is None and self.trial.lazy:
                        raise self.wants_features()
                    return fitting[0]
                # A refusal for what it does, not for its width, is the answer.
                if self.worst is not None and self.worst.near >= 3:
                    raise CoreError(self.worst.fact, self.worst.remedy)
        raise self.nothing_fits(features, said, like)

    def first_fit(
        self, features: int, calls: Iterable[Call], like: str | None, hidden: int | None
    ) -> Call | None:
        """Return the first of the calls, in any layout, that does; note the refusals."""
        calls = list(calls)
        for order in self.orders():
            for call in calls:
                if self.trial.lazy:
                    self.trial.begin_anew()  # the last trial may have set its widths
                try:
                    return self.fit(replace(call, order=order, like=like), features, hidden)
                except Refused as e:
                    if e.near >= 8:
                        raise CoreError(e.fact, e.remedy) from None
                    if e.near < 2 and call.keyword and "embed" in call.keyword:
                        e.near = 2.5  # it is the argument for vectors: what it says counts
                    if self.worst is None or e.near > self.worst.near:
                        self.worst = e
        return None

    def wants_features(self) -> CoreError:
        """Return the error for weights that are made in the first call."""
        return CoreError(
            f"{self.name} makes weights in its first call, as wide as its input",
            f"give the width of its input as {option('features')}, or call it once before",
        )

    def nothing_fits(self, features: int | None, said: list[int], like: str | None) -> CoreError:
        """Return the error that says best why no call fits."""
        worst = self.worst
        if worst is not None and worst.near < 2 and self.is_cell(features, said):
            return CoreError(
                f"{self.name} reads one step (batch, features), not a sequence",
                "wrap it in a module whose forward(x, state=None) calls it for each step of x",
            )
        if self.trial.required:
            return wants_arguments(self.trial)
        if worst is None or (features is None and worst.near < 2 and not said):
            reason = f" ({worst.fact})" if worst is not None else ""
            return CoreError(
                f"the width of the input of {self.name} cannot be found{reason}",
                f"give the width of its input as {option('features')}",
            )
        if features is not None and not self.trial.lazy:
            for size in [size for sizes in self.widths() for size in sizes if size != features]:
                if self.first_fit(size, self.calls(), like, None):
                    return CoreError(
                        f"{self.name} takes input of width {size}, not {features}",
                        f"make it for width {features}, or give {option('features', size)}",
                    )
        return CoreError(worst.fact, worst.remedy)

    def is_cell(self, features: int | None, said: list[int]) -> bool:
        """Return whether the module takes the input of one step."""
        for size in said if features is None else [features]:
            try:
                parts = parts_of(self.trial.module(self.trial.draw(3, 1, size)[:, 0]))
            except (Exception, SystemExit):
                continue
            shapes = [tuple(p.shape) for p in parts.values() if isinstance(p, Tensor)]
            return bool(shapes) and len(shapes[0]) == 2 and shapes[0][0] == 3
        return False

    def fit(self, call: Call, features: int, hidden: int | None) -> Call:
        """Return the call with the place of its sequence, if the module does as a core must."""
        rows, time = (3 if features != 3 else 5), self.length(call, features)
        x = self.trial.draw(rows, time, features)
        call, y = self.locate(call, x, hidden)
        x, y = self.loud_enough(call, x, y)
        self.trial.measure_rounding(call, x)
        if not self.trial.judge:
            return call
        if not y.isfinite().all():
            raise Refused(
                8,
                f"{self.name} returns NaN or infinite values",
                "mend that first (it was given numbers of about 1)",
            )
        for seed in (1, 2):
            again, _ = self.trial.run(call, x, seed=seed)
            if self.trial.gap(y, again):
                raise Refused(
                    8,
                    f"{self.name} in eval() answers the same input differently each time",
                    "switch its random parts off in eval(), or return the state that it keeps",
                )
        self.check_rows(call, x, y)
        self.check_causal(call, x, y)
        if y.unique().numel() <= FEW:
            self.check_slopes(call, x)
            self.check_slopes(call, x / self.trial.scale)
        return call

    def loud_enough(self, call: Call, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return an input, and the output, that is not the same number everywhere.

        Thresholds, as those of spiking neurons, may need larger numbers than 1. From here on all
        input is drawn as large.
        """
        trial = self.trial
        for trial.scale in (1, *SCALES):
            larger = trial.draw(*x.shape)
            varied, _ = trial.run(call, larger)
            if varied.isfinite().all() and (varied != varied.flatten()[0]).any():
                return larger, varied
        trial.scale = 1
        return x, y

    def length(self, call: Call, features: int) -> int:
        """Return a length that is no other size, and that the module takes."""
        lengths = [11 if features == 7 else 7, *LENGTHS[:2]]
        if call.order == self.orders()[0] and call.begin is None and call.keyword is None:
            named = sorted(n for n in self.trial.sizes() if 8 < n <= 4096)
            lengths += [*LENGTHS, *named]
        error: Refused | None = None
        for length in dict.fromkeys(n for n in lengths if n != features):
            try:
                self.trial.outputs(call, self.trial.draw(2, length, features))
                return length
            except Refused as e:
                error = error or e
        assert error is not None
        raise error

    def locate(self, call: Call, x: Tensor, hidden: int | None) -> tuple[Call, Tensor]:
        """Return the call with the place of the sequence in what comes back, and the output."""
        parts = self.trial.outputs(call, x)
        rows, time, _ = x.shape
        fitting: list[Place] = []
        for place, part in parts.items():
            if isinstance(part, Tensor) and part.dim() == 3:
                shape = part.permute(call.order).shape
                if shape[:2] == (rows, time) and hidden in (None, shape[2]):
                    fitting.append(place)
        fitting.sort(key=lambda p: NAMES.index(p) if p in NAMES else len(NAMES))
        if not fitting:
            shapes = [
                tuple(p.permute(call.order).shape if p.dim() == 3 else p.shape)
                for p in parts.values()
                if isinstance(p, Tensor)
            ]
            returned = " and ".join(str(shape) for shape in shapes) or "no tensor"
            width = "hidden" if hidden is None else hidden
            raise Refused(
                2,
                f"{self.name} returns {returned} for an input of {tuple(x.shape)}",
                f"return (batch, time, {width}), one output for each step",
            )
        call = replace(call, sequence=fitting[0])
        y = parts[fitting[0]]
        if not y.is_floating_point():
            raise Refused(
                8,
                f"{self.name} returns {y.dtype}",
                "return floating-point numbers (.real, .float())",
            )
        return call, self.trial.run(call, x)[0]

    # --- what a core must not do

    def check_rows(self, call: Call, x: Tensor, y: Tensor) -> None:
        """Refuse a module in which a row's output depends on the other rows."""
        trial = self.trial
        # Other numbers altogether: many layers normalise away a shift or a scale.
        changed = x.clone()
        changed[0] = trial.other(x)[0]
        gap = trial.gap(y[1:], trial.run(call, changed)[0][1:])
        if not gap:
            remedy = "give a new one, or give it a method reset() that forgets"
            try:
                gap = trial.gap(y[:2], trial.run(call, x[:2])[0])
            except Refused as e:
                if e.near >= 8:
                    raise
                reason = short(e.__cause__ or e)
                raise Refused(
                    7,
                    f"{self.name} takes {len(x)} rows and not 2 ({reason})",
                    f"make its state for as many rows as its input has; if it was used: {remedy}",
                ) from None
            if gap and trial.gap(trial.run(call, x)[0], trial.go_on(call, x)[0]):
                raise Refused(
                    8,
                    f"{self.name} keeps its state on itself, and begins from what it was used for",
                    remedy,
                )
        if gap:
            raise Refused(
                5 if call.order == self.orders()[0] else 3,
                f"{self.name} mixes the rows of a batch (one row's output changed by {gap:.2g} "
                "when another row's input changed)",
                "its input must be (batch, time, features), each row by itself",
            )

    def check_causal(self, call: Call, x: Tensor, y: Tensor) -> None:
        """Refuse a module whose output depends on later steps, or on how many there are."""
        trial, time = self.trial, x.shape[1]
        near = 6 if call.order == self.orders()[0] else 4
        others = trial.other(x)
        for step in range(1, time) if time <= 16 else (time // 3, time // 2, time - 1):
            changed = x.clone()
            changed[:, step] = others[:, step]
            other, _ = trial.run(call, changed)
            if trial.gap(y[:, :step], other[:, :step]):
                moved = (y[:, :step] - other[:, :step]).double().abs().amax((0, 2))
                at = int((moved > trial.tolerance * max(1e-3, float(moved.max()))).nonzero()[0])
                raise Refused(
                    near,
                    f"{self.name} sees the future (the output at step {at} changed by "
                    f"{float(moved[at]):.2g} when the input at step {step} changed)",
                    FUTURE,
                )
        try:
            short_one, _ = trial.run(call, x[:, : time // 2])
        except Refused as e:
            if e.near >= 8:
                raise
            return  # it takes some lengths only
        if gap := trial.gap(y[:, : time // 2], short_one):
            raise Refused(
                near,
                f"{self.name} sees the future (the first {time // 2} outputs changed by {gap:.2g} "
                f"when the sequence ended there)",
                FUTURE,
            )

    def check_slopes(self, call: Call, x: Tensor) -> None:
        """Refuse a module whose gradients lead to other rows or to later steps."""
        x = x.clone().requires_grad_()
        time = x.shape[1]
        with torch.enable_grad():
            y, _ = self.trial.run(call, x)
            if not y.requires_grad:
                return
            weights = torch.linspace(0.5, 1.5, y.shape[2], device=y.device, dtype=y.dtype)
            pick = [(y[1, -1] * weights).sum(), (y[:, time // 2] * weights).sum()]
            slopes = [torch.autograd.grad(p, x, retain_graph=True, allow_unused=True) for p in pick]
        of_row, of_step = (
            torch.zeros_like(x) if slope is None else slope.nan_to_num().abs()
            for (slope,) in slopes
        )
        near = 0 if call.order == self.orders()[0] else -2
        others = torch.cat([of_row[:1], of_row[2:]])
        if others.max() > SLOPE * of_row.max():
            raise Refused(
                5 + near,
                f"{self.name} mixes the rows of a batch (the gradient of one row's output leads to "
                "another row's input)",
                "its input must be (batch, time, features), each row by itself",
            )
        if of_step[:, time // 2 + 1 :].max() > SLOPE * of_step.max():
            raise Refused(
                6 + near,
                f"{self.name} sees the future (the gradient of the output at step {time // 2} "
                "leads to later inputs)",
                FUTURE,
            )

    def check_own_weights(self, call: Call, x: Tensor) -> str:
        """Refuse a module whose copy computes with weights that are not its own.

        Returns:
            A note where it computes with tensors that require a gradient, and that training will
            not change since they are not among its parameters; else nothing.
        """
        trial, runs = self.trial, []
        if any(p.requires_grad and p.layout != torch.strided for p in trial.module.parameters()):
            raise CoreError(
                f"{self.name} has a sparse parameter, which the optimiser does not train",
                "make it dense and multiply it by a mask, or set requires_grad=False",
            )
        self.check_derived(call, x)
        with torch.enable_grad():
            for _ in range(2):
                y, _ = trial.run(call, x)
                runs.append((y, graph_leaves(y)))
        # What both computed from was not made in forward.
        lasting = [t for t in runs[0][1] if any(t is other for other in runs[1][1])]
        own = {id(p) for p in trial.module.parameters()}
        strangers = [t for t in lasting if id(t) not in own]
        if not strangers:
            return ""
        shapes = " and ".join(str(tuple(t.shape)) for t in strangers[:3])
        held = {id(t) for t in held_tensors(trial.module)}
        if any(id(t) not in held for t in strangers):
            raise CoreError(
                f"a copy of {self.name} computes with weights that are not its own ({shapes})",
                "make them in __init__, as parameters of the module",
            )
        return f"weights of shape {shapes} are not among its parameters(), and are not trained"

    def check_derived(self, call: Call, x: Tensor) -> None:
        """Refuse a module that computes with what it made of its weights once, in __init__.

        Its graph is used up by one backward, and a copy has no part in it.
        """
        trial = self.trial
        own = {id(p) for p in trial.original.parameters()}
        made = dict(slots(trial.module))
        for slot, value in slots(trial.original):
            results = [t for t in leaves(value) if isinstance(t, Tensor) and not t.is_leaf]
            if not any(id(t) in own for t in graph_leaves(*results)):
                continue
            if any(isinstance(t, Tensor) and not t.is_leaf for t in leaves(made.get(slot))):
                continue  # a view of a parameter, in the copy as well
            trial.forget()
            trial.put({slot: rebuild(_poisoned, made.get(slot))})
            y, _ = trial.go_on(call, x)
            trial.put({slot: trial.fresh.get(slot, ABSENT)})
            if not y.isfinite().all():
                raise CoreError(
                    f"{self.name} computes with {slot[1]}, which it made of its parameters once",
                    "make it in forward, from the parameters as they are then",
                )

    def check_training_after_eval(self, call: Call, x: Tensor) -> None:
        """Refuse a module that works in train() until it has been in eval()."""
        trial = self.trial
        trial.run(call, x)
        try:
            trial.module.train()
            trial.run(call, x)
        except Refused as e:
            reason = short(e.__cause__) if e.__cause__ is not None else e.fact
            trial.begin_anew()
            trial.module.train()
            try:
                trial.run(call, x)
            except Refused:
                return  # it is not to be trained at all: what trains it says so
            raise CoreError(
                f"{self.name} cannot be trained once it was in eval() ({reason})",
                "let forward register no parameters: set what it computes as plain attributes",
            ) from None
        finally:
            trial.begin_anew() if trial.lazy else trial.module.eval()


def _poisoned(value: Any) -> Any:
    floating = is_state(value) and value.is_floating_point()
    return torch.full_like(value, float("nan")) if floating else value


def wants_arguments(trial: Trial) -> CoreError:
    """Return the error for a module that wants more than its input and a state."""
    names = ", ".join([trial.first, *trial.required])
    return CoreError(
        f"the forward of {trial.name} wants {1 + len(trial.required)} inputs ({names})",
        "wrap it in a module whose forward(x) gives it all of them, causally",
    )
