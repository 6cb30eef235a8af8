"""Knowledge capacity: bits of facts that a language model holds, a parameter."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data.biographies import BioD
from understudy.errors import UserError
from understudy.recipes.language_models._studies import parameters, saying
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting, Stage
from understudy.signals import CausalLM
from understudy.signals.generation import speaking as still
from understudy.tasks.language import language_task
from understudy.training.budget import Budget
from understudy.training.randomness import seeded

SIZES = (
    "llama:width=16,depth=2,heads=2",
    "llama:width=32,depth=2,heads=2",
    "llama:width=48,depth=3,heads=3",
)


def knowledge_capacity(
    setting: Setting | None = None,
    *,
    sizes: tuple[str, ...] = SIZES,
    exposures: tuple[int, ...] = (20, 100),
    people: int = 2000,
    attributes: int = 4,
    diversity: int = 16,
    chunk: int = 2,
    chunks: int = 1,
    tokens: int = 16,
    name_parts: int = 128,
    bits: tuple[int, ...] = (8,),
    batch_size: int = 64,
    lr: float = 4e-3,
) -> Recipe:
    """Physics of Language Models: Part 3.3, Knowledge Capacity Scaling Laws.

    Models of several sizes learn biographies of known entropy by heart; what their loss on names and
    values leaves of it is what they hold, set against their parameters, whole and quantised.

    Source: arXiv 2404.05405
    Kind: measurement
    Equation (theorem 3.2): bits >= N log2((N_0 - N) / e^p1) + N K log2(D^C / e^p2)
        + K D log2((T^L - D) / (D e^p3)); p1, p2, p3: nats a name, a value, a value's first chunk;
        capacity ratio R = bits / parameters
    When: what a student of a size can hold at all is asked, before facts are distilled into it.
    Cost: a model for each size and number of exposures; passes over `people` texts of about 20 tokens.
    Defaults: bioD(N = 2000, K = 4, C = 1, D = 16, L = 2, T = 16) with 16,384 names; 20 and 100
        exposures (1,000 there); int8.
    Deviations: sizes are 10^3 times smaller; a biography is its tuples, (name, attribute, value)*,
        not sentences; the attributes' order is drawn anew for each of four texts a person, which
        share the exposures. Quantised after training by rounding each row of each matrix to its
        largest weight (there: GPTQ). The o(1) of the theorem is left out; sums below 0 are 0. The
        setting is not used.
    Result: bits per parameter 0.224 ± 0.0662, bits per parameter int8 0.223 ± 0.0666, bits per
        parameter at 20 0 ± 0, bits per parameter at 100 0.224 ± 0.0662, share of the set 0.111 ±
        0.114 (3 seeds). See docs/results/language-studies.md.
    """
    if not sizes or not exposures:
        raise UserError("knowledge_capacity needs at least one size and one number of exposures")
    if any(not 2 <= b <= 8 for b in bits):
        raise UserError(f"weights are rounded to 2 to 8 bits, not {bits}")
    data = BioD(
        names=people,
        name_parts=name_parts,
        attributes=attributes,
        chunks=chunks,
        diversity=diversity,
        length=chunk,
        tokens=tokens,
    )
    study = partial(
        _learn,
        data=data,
        sizes=tuple(sizes),
        exposures=tuple(sorted(exposures)),
        bits=tuple(bits),
        batch_size=batch_size,
        lr=lr,
    )
    if setting is None:
        setting = _setting(data, 0, sizes[0], 1, batch_size, lr)
    setting = speaking(setting, "knowledge_capacity", teacher=False)
    return Recipe(
        name="knowledge_capacity",
        setting=setting,
        kind="measurement",
        study=study,
        settings={"sizes": sizes, "exposures": exposures, "people": people, "bits": bits},
    )


def _setting(
    data: BioD, seed: int, size: str, exposures: int, batch_size: int, lr: float
) -> Setting:
    orders = min(4, exposures)
    train = data.texts(seeded(seed, "biographies") % 2**31, orders=orders)
    few = train.subset(torch.arange(min(64, data.names)))
    task = language_task(
        "biographies",
        train=train,
        validate=few,
        vocabulary=data.vocabulary,
        length=data.width,
    )
    return Setting(
        name="biographies",
        task=task,
        kind="language",
        call=CausalLM(),
        student=size,
        method="alone",
        budget=Budget(
            epochs=max(1, exposures // orders),
            batch_size=batch_size,
            lr=lr,
            weight_decay=0.01,
            warmup=0.05,
            final=0.1,
            validate_every=max(1, exposures // orders),
        ),
    )


def _learn(
    studio: Any,
    seed: int,
    *,
    data: BioD,
    sizes: tuple[str, ...],
    exposures: tuple[int, ...],
    bits: tuple[int, ...],
    batch_size: int,
    lr: float,
) -> dict[str, Any]:
    rows: dict[int, list[dict[str, float]]] = {often: [] for often in exposures}
    for i, size in enumerate(sizes):
        for often in exposures:
            own = _setting(data, seed, size, often, batch_size, lr)
            stage = Stage(name="learn", objective=own.supervised(), teacher=None)
            name = f"knowledge_capacity-{i}-{often}"
            model = studio.play(Recipe(name=name, setting=own, stages=(stage,)), seed).model
            held, count = held_bits(own, model, data), parameters(model)
            row = {"parameters": float(count), **held, "per": held["bits"] / count}
            for width in bits:
                row[f"int{width}"] = held_bits(own, rounded(model, width), data)["bits"]
            rows[often].append(row)
    best = max((row for same in rows.values() for row in same), key=lambda row: row["per"])
    figure = {
        "bits_per_parameter": best["per"],
        "share_of_the_set": best["bits"] / data.bits,
        "bits_in_the_set": data.bits,
    }
    for width in bits:
        figure[f"bits_per_parameter_int{width}"] = best[f"int{width}"] / best["parameters"]
    # one curve over sizes for each number of exposures; its parts for the largest
    curves = {"parameters": [row["parameters"] for row in rows[exposures[0]]]}
    for often, same in rows.items():
        figure[f"bits_per_parameter_at_{often}"] = max(row["per"] for row in same)
        curves[f"bits_at_{often}"] = [row["bits"] for row in same]
        curves[f"bits_per_parameter_at_{often}"] = [row["per"] for row in same]
    most = rows[max(exposures)]
    for part in ("names", "values", "strings"):
        curves[f"bits_of_{part}"] = [row[part] for row in most]
    for width in bits:
        curves[f"bits_int{width}"] = [row[f"int{width}"] for row in most]
    return {"figure": figure, **curves}


@torch.no_grad()
def held_bits(setting: Setting, model: nn.Module, data: BioD) -> dict[str, float]:
    """Bits that a model holds at least, from its loss on every training text: `BioD.bound`."""
    device = next(model.parameters()).device
    source, say = setting.task_for(0).train, saying(setting.call, model, device)
    places = {k: v.to(device) for k, v in data.places().items()}
    nats = dict.fromkeys(places, 0.0)
    with still(model):
        for index in torch.arange(len(source)).split(256):
            batch = source.batch(index)
            assert batch.labels is not None
            labels = batch.labels.to(device)
            log_q = say(batch).dense.log_softmax(-1)
            loss = -log_q.gather(-1, labels[..., None])[..., 0].double()
            for kind, where in places.items():
                nats[kind] += float(loss[:, where].sum())
    count = len(source)
    tuples = count * data.attributes
    return data.bound(nats["name"] / count, nats["value"] / tuples, nats["first"] / tuples)


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose matrices are rounded to `bits` bits, symmetric, with a scale for each row."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        if parameter.ndim == 2:
            parameter.data = quantised(parameter.data, bits)
    return copied


def quantised(weight: Tensor, bits: int) -> Tensor:
    """[m, n] rounded to the integers -(2^(b-1) - 1) ... 2^(b-1) - 1 times each row's scale."""
    most = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / most
    return (weight / scale).round() * scale
