"""Models whose parts are compiled, around the places that taps read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from understudy.signals.taps import module_at, plain


@contextmanager
def compiled(model: nn.Module, paths: Iterable[str] = (), **options: Any) -> Iterator[list[str]]:
    """Within the block the largest submodules without a tap inside run compiled.

    A tap is a hook, and inside a compiled graph hooks that come and go are not seen: so a module
    is compiled whole only if no tapped module lies below it; a tap on the module itself stays
    outside, around its `forward`. Yields the names of what is compiled; afterwards the model is as
    it was. `options` are `torch.compile`'s.
    """
    model = plain(model)
    tapped = {id(module_at(model, path.partition(":")[0])) for path in paths}
    parts = list(_parts(model, "", tapped))
    for _, part in parts:
        part.forward = torch.compile(part.forward, **options)  # pyright: ignore
    try:
        # parts of one class share their code, and so the count of its variants
        with torch._dynamo.config.patch(recompile_limit=16 * (len(parts) + 1)):  # pyright: ignore
            yield [name for name, _ in parts]
    finally:
        for _, part in parts:
            del part.forward  # an attribute of the instance; the class's own is below it


def _parts(module: nn.Module, name: str, tapped: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules with parameters and no tapped module strictly inside.

    A single layer is left as it is: there is nothing to fuse in it.
    """
    inside = any(id(m) in tapped for m in module.modules() if m is not module)
    if not inside:
        whole = next(module.children(), None) is not None
        if whole and next(module.parameters(), None) is not None:
            yield name, module
        return
    for child_name, child in module.named_children():
        yield from _parts(child, f"{name}.{child_name}" if name else child_name, tapped)
