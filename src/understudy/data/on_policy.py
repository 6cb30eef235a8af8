"""Texts that are written while the student learns, in place of the data's: a loader."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from understudy.data.loader import Loader
from understudy.data.replay import Buffer, Replay, packed, unpacked
from understudy.data.sources import Source
from understudy.data.texts import Texts
from understudy.data.writers import ModelWriter, PairWriter, Pick, Writer, gathered
from understudy.data.written import Written, batch_of, beside, prompts_of
from understudy.errors import DataError, MethodRefused, UserError
from understudy.objectives.gather import processes
from understudy.signals import Batch
from understudy.signals.authors import CORPUS, TEACHER, marked, numbers
from understudy.signals.generation import Sampling
from understudy.signals.language import context_of

Share = float | Callable[[float], float]
"""A number, or a function of the stage's progress (0 to 1)."""


@dataclass(frozen=True, kw_only=True)
class OnPolicy:
    """What stands between the data and the updates where texts are written on the way.

    A `Stage.loader`. With probability `lmbda` the completions of a batch are replaced by ones that
    the `writer` has written from the batch's prompts, after the update before it; the prompt of a
    text ends before its first scored token, and all that is written is scored, the stop token
    included. What is drawn depends on (seed, epoch, batch, process) alone.

    lmbda:     share of batches, or a function of progress; with an adaptive `replay` its start
    writer:    student (that learns), teacher, `pair` (both, each text of the batch once by either),
               a `Pick` of each token from both, or a `Writer` of your own
    teacher:   its name; the setting's first where None
    temperature, top_k, top_p: of what is written (0, 0, 1 leave none out)
    max_new:   tokens at most; None for the longest completion in the data
    stop:      tokens that end a text; None for the task's own (`extras["stop"]`, its tokenizer's
               end), or the token that all texts of the data end with
    prompt_tokens: first tokens of texts that have no prompt
    cut:       whether prompts that fill the context lose tokens at the beginning, or are refused
    replay:    texts that are read again
    refresh:   `batch`: a text is written when its batch is drawn; `epoch`: all at its start
    corpus:    other texts, of which as many go beside every batch (`authors.CORPUS`)
    """

    lmbda: Share = 1.0
    writer: Literal["student", "teacher", "pair"] | Pick | Writer = "student"
    teacher: str | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new: int | None = None
    stop: tuple[int, ...] | None = None
    prompt_tokens: int = 8
    cut: bool = False
    replay: Replay | None = None
    refresh: Literal["batch", "epoch"] = "batch"
    corpus: Source | None = None

    def __post_init__(self) -> None:
        if not callable(self.lmbda) and not 0 <= self.lmbda <= 1:
            raise UserError(f"lmbda, the share of batches that is written, lies in [0, 1], "
                            f"not {self.lmbda}")  # fmt: skip
        if self.prompt_tokens < 1:
            raise UserError(f"prompt_tokens is at least 1, not {self.prompt_tokens}")
        if self.replay is not None and (self.refresh == "epoch" or callable(self.lmbda)):
            raise UserError("a replay buffer goes with refresh='batch' and a number for lmbda")

    def __call__(self, play: Any, loader: Loader) -> "OnPolicyLoader":
        """The loader of a play."""
        example = loader.example()
        checked_texts(example)
        student = play.models[play.recipe.stages[play.stage].learners[0]]
        models = {"student": student}
        name = self.teacher or play.setting.teacher
        if self.writer == "student":
            if name is not None:
                teacher_of(play, name)
        elif not hasattr(self.writer, "write"):
            models["teacher"] = teacher_of(play, name)
        contexts = [c for c in map(context_of, models.values()) if c is not None]
        return OnPolicyLoader(
            loader,
            self,
            writers=self._writers(models),
            sampling=self.sampling(play.task, getattr(loader, "source", play.task.train)),
            context=min(contexts, default=None),
            seed=play.seed,
            total=_updates(play, loader),
            measure=_validation(play, student) if self.replay and self.replay.adaptive else None,
        )

    def _writers(self, models: dict[str, nn.Module]) -> list[Writer]:
        student, teacher = models["student"], models.get("teacher")
        if hasattr(self.writer, "write"):
            return [self.writer]  # pyright: ignore[reportReturnType]
        if self.writer == "student":
            return [ModelWriter(model=student)]
        assert teacher is not None
        if self.writer == "teacher":
            return [ModelWriter(model=teacher, author=TEACHER)]
        if self.writer == "pair":
            return [ModelWriter(model=teacher, author=TEACHER), ModelWriter(model=student)]
        if callable(self.writer):
            return [PairWriter(student=student, teacher=teacher, pick=self.writer)]
        raise UserError(
            f"a writer is 'student', 'teacher', 'pair', a pick or a writer, not {self.writer!r}"
        )

    def sampling(self, task: Any, source: Any) -> Sampling:
        """How tokens are drawn, with what the task and its texts say about their end."""
        stop = self.stop if self.stop is not None else _stop(task, source)
        most = self.max_new
        if most is None:
            if not isinstance(source, Texts):
                raise UserError("max_new: how many tokens are written at most has to be said here")
            most = longest_answer(source, self.prompt_tokens)
        return Sampling(
            max_new=most,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            stop=stop,
        )


class OnPolicyLoader:
    """Batches of which some hold what was written on the way; made by `OnPolicy`.

    `seconds`: spent on writing, in this process. `logged()` gives the share of written batches
    since it was last asked, and where it adapts the share that is aimed at.
    """

    def __init__(
        self,
        loader: Loader,
        plan: OnPolicy,
        *,
        writers: Sequence[Writer],
        sampling: Sampling,
        context: int | None = None,
        seed: int = 0,
        total: int = 1,
        measure: Callable[[], float] | None = None,
        padding: int = 0,
    ) -> None:
        self.loader, self.plan, self.writers = loader, plan, list(writers)
        self.sampling, self.context, self.seed, self.total = sampling, context, seed, max(total, 1)
        self.measure, self.padding = measure, padding
        self.exact = loader.exact
        self.rank: int = getattr(loader, "rank", 0)
        self.seconds = 0.0
        self.buffer = Buffer(plan.replay.capacity) if plan.replay is not None else None
        self.share = 0.0 if callable(plan.lmbda) else plan.lmbda
        self.loss: float | None = None
        self.ahead: dict[str, Any] = {"epoch": -1, "batches": {}}
        self.count = {"drawn": 0, "written": 0, "again": 0}

    def steps(self, epoch: int) -> int:
        """As the data's."""
        return self.loader.steps(epoch)

    def example(self) -> Batch:
        """The data's first batch: nothing is written for a dry run."""
        return self.loader.example()

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch from number `start` on, each written when it is drawn."""
        before = sum(self.loader.steps(e) for e in range(epoch))
        if start == 0:
            self._adapt()
        if self.plan.refresh == "epoch" and self.ahead["epoch"] != epoch:
            self._write_ahead(epoch, before)
        for number, batch in enumerate(self.loader.batches(epoch, start), start):
            yield self._drawn(batch, epoch, number, (before + number) / self.total)

    def _drawn(self, batch: Batch, epoch: int, number: int, progress: float) -> Batch:
        self.count["drawn"] += 1
        chance = float(torch.rand((), generator=self._dice("choice", epoch, number)))
        texts: list[Written] | None = None
        if self.plan.refresh == "epoch":
            kept = self.ahead["batches"].get(str(number))
            texts = None if kept is None else unpacked(kept)
        elif self.buffer is not None:
            texts = self._replayed(batch, epoch, number, progress, chance)
        elif chance < self._aim(progress):
            texts = self._write(batch, epoch, number)
        if texts is not None:
            self.count["written"] += 1
        if texts:
            device = batch.inputs["input_ids"].device
            batch = batch_of(texts, like=batch, padding=self.padding, device=device)
        return batch if self.plan.corpus is None else self._with_corpus(batch, epoch, number)

    def _aim(self, progress: float) -> float:
        share = self.plan.lmbda
        return share(progress) if callable(share) else self.share

    def _replayed(
        self, batch: Batch, epoch: int, number: int, progress: float, chance: float
    ) -> list[Written] | None:
        assert self.buffer is not None
        assert self.plan.replay is not None
        if chance >= self.share:
            return None
        if chance < self.share * self.plan.replay.anew(progress) or not self.buffer.full:
            texts = self._write(batch, epoch, number)
            self.buffer.add(texts)
            return texts
        self.count["again"] += 1
        return self.buffer.draw(len(batch), self._dice("replay", epoch, number, self.rank))

    def _write(self, batch: Batch, epoch: int, number: int) -> list[Written]:
        """What every writer makes of the batch's prompts, one writer after another."""
        began = time.perf_counter()
        prompts = prompts_of(
            batch, prompt_tokens=self.plan.prompt_tokens, context=self.context, cut=self.plan.cut
        )
        samples = range(len(prompts)) if batch.index is None else numbers(batch.index).tolist()
        found = []
        for writer in self.writers:
            seed = _seed("text", self.seed, epoch, number, self.rank, writer.author)
            with gathered(getattr(writer, "models", ())):  # in step, also with nothing to write
                answers = writer.write(prompts, self.sampling, seed) if prompts else []
            found += [
                Written(
                    tokens=torch.cat([prompt, answer]),
                    prompt=len(prompt),
                    sample=int(sample),
                    author=writer.author,
                )
                for prompt, answer, sample in zip(prompts, answers, samples, strict=True)
            ]
        self.seconds += time.perf_counter() - began
        return found

    def _write_ahead(self, epoch: int, before: int) -> None:
        """All texts of an epoch, by the models as they are at its start."""
        made = {}
        for number, batch in enumerate(self.loader.batches(epoch)):
            chance = float(torch.rand((), generator=self._dice("choice", epoch, number)))
            if chance < self._aim((before + number) / self.total):
                made[str(number)] = packed(self._write(batch, epoch, number))
        self.ahead = {"epoch": epoch, "batches": made}

    def _with_corpus(self, batch: Batch, epoch: int, number: int) -> Batch:
        corpus = self.plan.corpus
        assert corpus is not None
        dice = self._dice("corpus", epoch, number, self.rank)
        rows = torch.randint(len(corpus), (len(batch),), generator=dice)
        other = corpus.batch(rows)
        assert other.index is not None
        device = batch.inputs["input_ids"].device
        index = marked(numbers(other.index), CORPUS)
        other = Batch(
            inputs=other.inputs, labels=other.labels, mask=other.mask,
            weights=other.weights, index=index,
        ).to(device)  # fmt: skip
        return beside(batch, other, padding=self.padding)

    def _adapt(self) -> None:
        """Learn more from own text where the loss on held-out text has risen (DistiLLM)."""
        replay = self.plan.replay
        if self.measure is None or replay is None:
            return
        loss = self.measure()
        risen = self.loss is not None and loss > self.loss + replay.tolerance
        if risen:
            self.share = min(self.share + replay.rise, 1.0)
        if risen or self.loss is None or replay.against == "previous":
            self.loss = loss

    def _dice(self, *parts: object) -> torch.Generator:
        return torch.Generator().manual_seed(_seed(*parts, self.seed))

    def logged(self) -> dict[str, float]:
        """Shares of batches since it was last asked: written, and of those read again."""
        drawn, written = max(self.count["drawn"], 1), self.count["written"]
        found = {"written": written / drawn}
        if self.buffer is not None:
            found |= {"again": self.count["again"] / max(written, 1), "lmbda": self.share}
        self.count = dict.fromkeys(self.count, 0)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beside the cursor, of every process."""
        mine = {
            "buffer": None if self.buffer is None else self.buffer.state_dict(),
            "share": self.share,
            "loss": self.loss,
            "ahead": self.ahead,
            "count": dict(self.count),
            "seconds": self.seconds,
        }
        if processes() == 1:
            return {"processes": [mine]}
        every: list[Any] = [None] * processes()
        torch.distributed.all_gather_object(every, mine)
        return {"processes": every}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back; in another number of processes there is no own state to go on from."""
        every = state["processes"]
        if len(every) != processes():
            raise UserError(
                f"texts were written in {len(every)} process(es) and cannot be shared among "
                f"{processes()}; continue with as many as before"
            )
        mine = every[self.rank]
        if self.buffer is not None:
            self.buffer.load_state_dict(mine["buffer"])
        self.share, self.loss = mine["share"], mine["loss"]
        self.ahead, self.count = mine["ahead"], dict(mine["count"])
        self.seconds = mine["seconds"]


def longest_answer(texts: Texts, prompt_tokens: int) -> int:
    """Tokens after the prompt in the longest completion of the data."""
    sizes = texts.offsets.diff()
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)
    places = torch.arange(len(texts.flat)) - texts.offsets[:-1].repeat_interleave(sizes)
    places = places.where(texts.scored, sizes.max())
    first = torch.full_like(sizes, int(sizes.max())).scatter_reduce(0, owner, places, "amin")
    plain = first <= 1  # scored from its second token on: a text without a prompt
    first = first.where(~plain, torch.minimum(sizes - 1, torch.tensor(prompt_tokens)))
    return int((sizes - first).max())


def _stop(task: Any, source: Any) -> tuple[int, ...]:
    given = task.extras.get("stop")
    if given is not None:
        return tuple(given) if isinstance(given, tuple | list) else (int(given),)
    end = getattr(task.extras.get("tokenizer"), "eos_token_id", None)
    if isinstance(end, int):
        return (end,)
    if isinstance(source, Texts):
        last = source.flat[source.offsets[1:] - 1]
        if bool((last == last[0]).all()):
            return (int(last[0]),)
    return ()


def checked_texts(example: Batch) -> None:
    """Refuse batches that texts cannot be written from."""
    inputs = example.inputs
    known = isinstance(inputs, dict) and {"input_ids", "attention_mask"} <= set(inputs)
    if not known or example.mask is None or example.labels is None:
        raise DataError(
            "texts are written from batches with input_ids, attention_mask, labels and a mask of "
            "the scored tokens (understudy.data.Texts); this data has another form"
        )


def teacher_of(play: Any, name: str | None) -> nn.Module:
    """The model of the teacher of that name (the first if None).

    Raises:
        MethodRefused: there is none, or only what it once said: a store has not heard what is new.
    """
    name = name or play.setting.teacher
    if name is None:
        raise MethodRefused(
            f"{play.recipe.name} learns from a teacher, and the setting has none; methods on the "
            "labels alone, such as --method alone, do without"
        )
    if name in play.models:
        return play.models[name]
    modules = play.studio.teacher(play.setting, name, play.seed).modules()
    if not modules:
        raise MethodRefused(
            f"{play.recipe.name} learns from texts that are written on the way, which no store of "
            "signals holds; give the teacher's model"
        )
    return next(iter(modules.values()))


def _updates(play: Any, loader: Loader) -> int:
    budget = play._budget(play.recipe.stages[play.stage])
    return budget.updates(loader.steps)


def _validation(play: Any, student: nn.Module) -> Callable[[], float]:
    """The student's loss on the validation texts, nats a token."""
    from understudy.evaluation.language import token_scores
    from understudy.signals import Signals, as_call
    from understudy.signals.generation import speaking
    from understudy.signals.taps import plain

    call = as_call(play.setting.call)

    def measure() -> float:
        model = plain(student)
        device = next(model.parameters()).device

        def say(batch: Batch) -> Signals:
            said = call(model, batch.to(device))
            return said if isinstance(said, Signals) else Signals(logits=said)

        with speaking(model):
            found = token_scores(say, play.task.validate)
        return found.nats / found.tokens

    return measure


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
