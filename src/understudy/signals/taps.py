"""Taps: name a module by path, record what passes it, or put something else in its place."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import SignalError, nearest
from understudy.signals.batch import Batch
from understudy.signals.calls import Call, default_call
from understudy.signals.record import Signals
from understudy.signals.stages import automatic_taps, is_automatic

Injection = Tensor | Callable[[Tensor], Tensor]


def plain(model: nn.Module) -> nn.Module:
    """The user's module inside wrappers (DDP, compile) that prefix its paths."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The submodule at `path`; parts that are numbers may count from the end (`layer2.-1.relu`)."""
    module = plain(model)
    for part in path.split(".") if path else []:
        children = dict(module.named_children())
        if part in children:
            module = children[part]
        elif part.lstrip("-").isdigit() and -len(children) <= int(part) < len(children):
            module = list(children.values())[int(part)]
        else:
            paths = [name for name, _ in plain(model).named_modules() if name]
            raise SignalError(
                f"no module {path!r} in {type(plain(model)).__name__}{nearest(path, paths, 4)}"
            )
    return module


def exists(model: nn.Module, path: str) -> bool:
    """Whether `module_at` would find it."""
    try:
        module_at(model, path)
    except SignalError:
        return False
    return True


class Taps:
    """Named places of one model, resolved once.

    A name is a module path (its output), a path with `:in` (its first input), or automatic:
    `stage.0` ... `stage.-1`, `preact.0` ... `preact.-1` (the same before their last non-linearity),
    `penultimate` (the input of the last linear layer) and `pooled` (the map that it averages). A
    real module of that path wins over the automatic meaning.

    What a later operation overwrites in place (`bn` before `ReLU(inplace=True)`) is recorded as a
    copy: the first pass of `observe` shows which taps need one, and is taken back.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        example: Batch | None = None,
        call: Call = default_call,
    ) -> None:
        self.paths: dict[str, str] = {}
        self.copied: set[str] | None = None
        automatic: dict[str, str] | None = None
        for name in dict.fromkeys(names):
            path, _, side = name.partition(":")
            if is_automatic(path) and not exists(model, path):
                if automatic is None:
                    if example is None:
                        raise SignalError(f"the tap {name!r} needs an example batch to be resolved")
                    with preserved(model):
                        automatic = automatic_taps(plain(model), lambda m, b=example: call(m, b))
                self.paths[name] = _pick(automatic, name, model)
            else:
                if side not in ("", "in", "out"):
                    raise SignalError(f"tap {name!r}: after ':' comes 'in' or 'out', not {side!r}")
                module_at(model, path)
                self.paths[name] = name

    @contextmanager
    def recording(self, model: nn.Module, *, trial: bool = False) -> Iterator[dict[str, Tensor]]:
        """Within the block, what passes the taps is put into the yielded dict under its name.

        Before a pass has shown what needs a copy, everything is copied; a `trial` is such a pass:
        it copies nothing, and what it recorded is right only if `copied` is empty afterwards.

        Raises:
            SignalError: at the end, for what was overwritten though the trial's was not.
        """
        found: dict[str, Tensor] = {}
        versions: dict[str, int] = {}
        copied = self.copied if self.copied is not None else () if trial else self.paths

        def record(name: str, value: Tensor, overwritten: bool) -> None:
            # of tensors of inference mode torch keeps no versions
            if overwritten or name in copied or value.is_inference():
                value = value.clone()
            else:
                versions[name] = value._version
            found[name] = value

        handles = [
            _hook(module_at(model, path), side, partial(record, name), name)
            for name, full in self.paths.items()
            for path, _, side in (full.partition(":"),)
        ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
        changed = {name for name, version in versions.items() if found[name]._version != version}
        if changed and not trial:
            name = min(changed)
            raise SignalError(
                f"what the tap {name!r} ({self.paths[name]}) passed was overwritten in place by a "
                "later operation; tap that operation's output, or make it not work in place"
            )
        if trial:
            self.copied = changed


@contextmanager
def injected(model: nn.Module, places: Mapping[str, Injection]) -> Iterator[None]:
    """Within the block, the output (`path`) or input (`path:in`) of modules is replaced.

    A tensor replaces it whole; a function maps what would have passed.
    """
    handles = []
    for name, value in places.items():
        path, _, side = name.partition(":")
        module = module_at(model, path)

        def swap(old: Tensor, value: Injection = value) -> Tensor:
            return value if isinstance(value, Tensor) else value(old)

        if side == "in":

            def before(_m: nn.Module, args: tuple[Any, ...], swap: Any = swap) -> tuple[Any, ...]:
                return (swap(args[0]), *args[1:])

            handles.append(module.register_forward_pre_hook(before))
        else:

            def after(_m: nn.Module, _a: Any, output: Any, swap: Any = swap) -> Any:
                if isinstance(output, tuple):
                    return (swap(output[0]), *output[1:])
                return swap(output)

            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def observe(
    model: nn.Module,
    batch: Batch,
    taps: Taps | None = None,
    call: Call = default_call,
    inject: Mapping[str, Injection] | None = None,
) -> Signals:
    """Run the model on the batch and return what it says, with the tapped features."""
    with injected(model, inject or {}):
        if taps is None or not taps.paths:
            said = call(model, batch)
            return said if isinstance(said, Signals) else Signals(logits=said)
        said, found = _passed(model, batch, taps, call)
    missing = [name for name in taps.paths if name not in found]
    if missing:
        raise SignalError(
            f"{type(plain(model)).__name__} did not run the module of tap {missing[0]!r} "
            f"({taps.paths[missing[0]]}); choose a module that its forward pass uses"
        )
    if isinstance(said, Signals):
        return Signals(logits=said.logits, features={**said.features, **found}, others=said.others)
    return Signals(logits=said, features=found)


def _passed(
    model: nn.Module, batch: Batch, taps: Taps, call: Call
) -> tuple[Any, dict[str, Tensor]]:
    if taps.copied is None:
        take_back = _state(model)
        with taps.recording(model, trial=True) as found:
            said = call(model, batch)
        if not taps.copied:
            return said, found
        take_back()
    with taps.recording(model) as found:
        said = call(model, batch)
    return said, found


@contextmanager
def preserved(*models: nn.Module) -> Iterator[None]:
    """Leave mode, buffers and random state of the models as they were found."""
    modes = [(m, m.training) for model in models for m in model.modules()]
    take_back = _state(*models)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        take_back()


def _state(*models: nn.Module) -> Callable[[], None]:
    """Buffers of the models and random state as they are now; called, it brings them back."""
    buffers = [
        (b, b.detach().clone()) for model in models for b in model.buffers() if b is not None
    ]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    cpu, cuda = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]

    def take_back() -> None:
        torch.set_rng_state(cpu)
        for device, state in zip(devices, cuda, strict=True):
            torch.cuda.set_rng_state(state, device)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    return take_back


def _hook(module: nn.Module, side: str, record: Callable[[Tensor, bool], None], name: str) -> Any:
    if side == "in":

        def before(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = _first([*args, *kwargs.values()], name)
            record(value, bool(getattr(module, "inplace", False)))

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_m: nn.Module, _a: Any, output: Any) -> None:
        record(_first(output, name), False)

    return module.register_forward_hook(after)


def _first(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "last_hidden_state"):
        return value.last_hidden_state
    values = value.values() if isinstance(value, Mapping) else value
    if isinstance(values, Iterable):
        for item in values:
            if isinstance(item, Tensor):
                return item
    raise SignalError(f"the module of tap {name!r} passes no tensor ({type(value).__name__})")


def _pick(automatic: dict[str, str], name: str, model: nn.Module) -> str:
    path, _, side = name.partition(":")
    stages = [k for k in automatic if k.startswith("stage.")]
    kind, _, place = path.partition(".")
    if kind in ("stage", "preact"):
        number = int(place)
        if not -len(stages) <= number < len(stages):
            raise SignalError(
                f"tap {name!r}: {type(plain(model)).__name__} has {len(stages)} stages "
                f"(stage.0 to stage.{len(stages) - 1})"
            )
        path = f"{kind}.{number % len(stages)}"
    if path not in automatic:
        raise SignalError(
            f"tap {name!r} was not found in {type(plain(model)).__name__}; "
            f"name a module path instead{nearest(path, automatic)}"
        )
    found = automatic[path]
    return found + (f":{side}" if side and ":" not in found else "")
