"""What the wing's studies and data-choosing systems share: scores of texts, answers, sizes."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Source, Subset, Texts
from understudy.data.stopping import stop_tokens
from understudy.errors import MethodRefused
from understudy.objectives import Needs
from understudy.setting import ModelSpec, Setting, Trained
from understudy.signals import Batch, Signals, as_call
from understudy.signals.generation import Sampling, generate, speaking
from understudy.tasks.language import LanguageJudge
from understudy.tasks.task import Task

Say = Callable[[Batch], Signals]
CHUNK = 2**22
"""Logits held at once."""


def taught(setting: Setting, name: str) -> str:
    """The name of the setting's first teacher."""
    if setting.teacher is None:
        raise MethodRefused(f"{name} learns from a teacher, and the setting has none")
    return setting.teacher


def texts(source: Source, what: str) -> Texts:
    """A source as the texts that it is."""
    if isinstance(source, Subset):
        return texts(source.source, what).subset(source.rows)
    if not isinstance(source, Texts):
        raise MethodRefused(f"{what} reads texts, and this data is {type(source).__name__}")
    return source


def saying(call: Any, model: nn.Module, device: Any = "cpu") -> Say:
    """What a model, called so, says about a batch."""
    call = as_call(call)

    def say(batch: Batch) -> Signals:
        said = call(model, batch.to(device))
        return said if isinstance(said, Signals) else Signals(logits=said)

    return say


def hearing(studio: Any, setting: Setting, name: str, seed: int, example: Batch) -> Say:
    """What the setting's teacher `name` says about a batch."""
    teacher = copy.copy(studio.teacher(setting, name, seed))
    device = studio.device
    teacher.prepare(Needs(), example.to(device))
    return lambda batch: teacher.signals(batch.to(device))


def module_of(studio: Any, setting: Setting, name: str, seed: int, what: str) -> nn.Module:
    """The teacher's model itself, for what lets it write."""
    model = studio.teacher(setting, name, seed).modules().get("model")
    if model is None:
        raise MethodRefused(f"{what} lets the teacher write, and {name!r} is no model that is here")
    return model


@torch.no_grad()
def text_scores(
    say: Say, source: Texts, *, batch_size: int = 64, classes: int = 1
) -> tuple[Tensor, Tensor]:
    """(nats [N] float64, scored tokens [N]) of each text: -sum log q over its scored tokens."""
    nats = torch.zeros(len(source), dtype=torch.float64)
    tokens = torch.zeros(len(source), dtype=torch.long)
    longest = int(source.lengths.max())
    size = max(1, min(batch_size, 8192 // longest))
    for index in source.lengths.argsort(stable=True).split(size):
        batch = source.batch(index)
        mask, labels = batch.mask, batch.labels
        assert mask is not None
        assert labels is not None
        said, truth = say(batch).rows(mask), labels[mask]
        owner = index[mask.nonzero()[:, 0]]
        tokens.index_add_(0, owner, torch.ones_like(owner))
        for part in torch.arange(len(truth)).split(max(1, CHUNK // classes)):
            log_q = said.rows(part).dense.log_softmax(-1)
            picked = log_q.gather(-1, truth[part].to(log_q.device)[:, None])[:, 0]
            nats.index_add_(0, owner[part], -picked.double().cpu())
    return nats, tokens


def mean_loss(setting: Setting, model: nn.Module, source: Texts) -> float:
    """Nats a scored token of a model on texts."""
    device = next(model.parameters()).device
    with speaking(model):
        nats, tokens = text_scores(saying(setting.call, model, device), source)
    return float(nats.sum() / tokens.sum())


def parameters(model: nn.Module) -> int:
    """Parameters of a model; what is shared counts once."""
    return sum(p.numel() for p in model.parameters())


def picked(source: Texts, count: int | None, seed: int) -> Texts:
    """`count` texts drawn by the seed, in their order (all where there are no more)."""
    if count is None or count >= len(source):
        return source
    g = torch.Generator().manual_seed(seed)
    return source.subset(torch.randperm(len(source), generator=g)[:count].sort().values)


def longest_answer(source: Texts) -> int:
    """Most tokens that any text has from its first scored one on."""
    return max(len(source.answer(i)) for i in range(len(source)))


def stops(task: Task) -> tuple[int, ...]:
    """Token ids that end a text of this task (`extras["stop"]`, else its texts' last tokens)."""
    found = task.extras.get("stop")
    if found is not None:
        return (found,) if isinstance(found, int) else tuple(found)
    return stop_tokens(texts(task.train, task.name))


def written(
    model: nn.Module,
    source: Texts,
    sampling: Sampling,
    *,
    seed: int,
    name: str = "answers",
) -> Texts:
    """The prompts of a source with what a model writes after them: the written part is scored."""
    prompts = [source.prompt(i) for i in range(len(source))]
    device = next(model.parameters()).device
    g = torch.Generator(device=device).manual_seed(seed % 2**63)
    answers = generate(model, prompts, sampling, generator=g)
    return joined(prompts, answers, ids=source.ids, name=name)


def joined(
    prompts: Sequence[Tensor], answers: Sequence[Tensor], *, ids: Tensor | None = None, name: str
) -> Texts:
    """Prompts and answers as texts of which the answers are scored."""
    tokens = [torch.cat((p, a)) for p, a in zip(prompts, answers, strict=True)]
    scored = [
        torch.cat((torch.zeros(len(p), dtype=torch.bool), torch.ones(len(a), dtype=torch.bool)))
        for p, a in zip(prompts, answers, strict=True)
    ]
    return Texts(tokens, scored, ids=ids, name=name)


def answering(task: Task, source: Texts, *, temperature: float) -> Sampling:
    """Sampling that writes at most as much as the longest answer of a source."""
    return Sampling(max_new=longest_answer(source), temperature=temperature, stop=stops(task))


def spec_of(setting: Setting, name: str) -> ModelSpec | None:
    """The architecture of a teacher that is trained here."""
    spec = setting.teachers.get(name)
    return spec.model if isinstance(spec, Trained) else None


def by_perplexity(setting: Setting) -> Setting:
    """The setting judged by perplexity alone: models that are means need not write anything."""
    # a teacher that is trained stays the one that the setting itself would train
    teachers = {
        name: replace(spec, task=spec.task or setting.task) if isinstance(spec, Trained) else spec
        for name, spec in setting.teachers.items()
    }
    return replace(setting, task=partial(_unwritten, given=setting.task), teachers=teachers)


def _unwritten(split: int, *, given: Task | Callable[[int], Task]) -> Task:
    task = given if isinstance(given, Task) else given(split)
    judge = task.judge
    if isinstance(judge, LanguageJudge):
        judge = replace(judge, answers=None)
    return replace(task, judge=judge, metric="perplexity", metrics=())


def without_teachers(setting: Setting, student: ModelSpec | None = None) -> Setting:
    """The setting with one model that learns and nobody to learn from."""
    return replace(
        setting, teachers={}, student=student or setting.student, warm_start=None, method="alone"
    )
