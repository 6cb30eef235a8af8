"""Speculative sampling: the student drafts, the teacher verifies; what is written is the teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.errors import UserError
from understudy.signals.generation import Decoder, Sampling, speaking
from understudy.signals.taps import plain


@dataclass(frozen=True, kw_only=True)
class Speculated:
    """Continuations, distributed as the teacher's own, and what they cost.

    texts:    the continuation of each prompt (1-d token ids), a stop token included
    drafted:  tokens that the student proposed; tested: those that the teacher looked at (up to the
              first it refused); accepted: those it took
    passes:   of the teacher
    """

    texts: list[Tensor]
    drafted: int
    tested: int
    accepted: int
    passes: int

    @property
    def acceptance(self) -> float:
        """Share of the tested tokens that the teacher took (Leviathan et al.'s alpha)."""
        return self.accepted / self.tested if self.tested else 0.0

    @property
    def tokens_a_pass(self) -> float:
        """Tokens written for each pass of the teacher; 1 without a draft."""
        return sum(len(t) for t in self.texts) / max(self.passes, 1)


def speculate(
    teacher: nn.Module,
    student: nn.Module,
    prompts: Sequence[Tensor],
    *,
    sampling: Sampling | None = None,
    draft: int = 4,
    generator: torch.Generator | None = None,
) -> Speculated:
    """Continue prompts (1-d token ids) as the teacher would, with the student as its draft model.

    The student proposes `draft` tokens x ~ q one by one; the teacher reads all of them in one pass
    and takes each with probability min(1, p(x) / q(x)), up to the first that it refuses, in whose
    place it draws from max(0, p - q), normalised; where it takes all, it adds one of its own. The
    texts are distributed exactly as the teacher's (Leviathan et al., arXiv 2211.17192, Algorithm 1
    and Appendix A.1); p and q are both cut and tempered as `sampling` says. Temperature 0: the
    teacher's greedy text. Both models read one vocabulary (padded differently at most).
    """
    sampling = sampling or Sampling()
    if draft < 1:
        raise UserError(f"speculate: draft is a number of tokens from 1, not {draft}")
    teacher, student = plain(teacher), plain(student)
    found: list[Tensor] = []
    counts = [0, 0, 0, 0]
    with speaking(teacher, student):
        for prompt in prompts:
            text, own = _one(teacher, student, prompt, sampling, draft, generator)
            found.append(text)
            counts = [a + b for a, b in zip(counts, own, strict=True)]
    drafted, tested, accepted, passes = counts
    return Speculated(texts=found, drafted=drafted, tested=tested, accepted=accepted, passes=passes)


def _one(
    teacher: nn.Module,
    student: nn.Module,
    prompt: Tensor,
    sampling: Sampling,
    draft: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, tuple[int, int, int, int]]:
    verifier, drafter = _Reader(teacher, prompt), _Reader(student, prompt)
    most = min(sampling.max_new, verifier.room, drafter.room)
    if most < 1:
        raise UserError(f"a prompt of {len(prompt)} tokens leaves no room in the models' context")
    told: list[int] = []
    drafted = tested = accepted = passes = 0
    stop = set(sampling.stop)
    while len(told) < most and not (told and told[-1] in stop):
        count = min(draft, most - len(told) - 1)
        proposed, said = list[int](), list[Tensor]()
        for _ in range(count):
            # what the teacher does not know is not worth proposing
            q = sampling.log_probabilities(drafter.next()[:, : verifier.known]).exp()[0]
            proposed.append(_draw(q, generator))
            said.append(q)
            drafter.tell(proposed[-1])
        p = sampling.log_probabilities(verifier.read(proposed)).exp()
        width = p.shape[-1]
        passes, drafted = passes + 1, drafted + count
        taken, extra = 0, None
        for x, own, q in zip(proposed, p[:-1], said, strict=True):
            q = _fitted(q, width)
            tested += 1
            # one number a token, whatever comes of it
            chance = torch.rand((), generator=generator, device=q.device, dtype=q.dtype)
            if float(chance) * float(q[x]) >= float(own[x]):
                extra = _draw((own - q).clamp_min(0), generator)
                break
            taken += 1
            if x in stop:
                break
        accepted += taken
        told += proposed[:taken]
        if told and told[-1] in stop:
            break
        told.append(_draw(p[-1], generator) if extra is None else extra)
        for reader in (drafter, verifier):
            reader.back(count - taken)
            reader.tell(told[-1])
    return torch.tensor(told), (drafted, tested, accepted, passes)


class _Reader:
    """A model and the tokens of one text, of which it has read all but the last few."""

    def __init__(self, model: nn.Module, prompt: Tensor) -> None:
        if len(prompt) == 0:
            raise UserError("an empty prompt: there is nothing to continue from")
        self.device = next(model.parameters()).device
        empty = torch.zeros(1, 0, dtype=torch.long, device=self.device)
        self.decoder = Decoder(model, empty)
        self.unread = [int(t) for t in prompt]
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        self.known = getattr(embedding, "num_embeddings", 10**9)
        limit = self.decoder.room
        # the last token that is written need not be read
        self.room = 10**9 if limit is None else limit - len(prompt) + 1

    def tell(self, token: int) -> None:
        """One more token."""
        self.unread.append(token)

    def next(self) -> Tensor:
        """Logits [1, V] of the token after all it was told."""
        return self.read([])[-1:]

    def read(self, more: Sequence[int]) -> Tensor:
        """Logits [1 + len(more), V] of the token after what it was told, and after each of `more`."""
        ids = torch.tensor([[*self.unread, *more]], device=self.device)
        if int(ids.max()) >= self.known:
            raise UserError(
                f"token {int(ids.max())} is not in the vocabulary of one of the models "
                f"({self.known} tokens): a draft model reads what the other writes"
            )
        self.unread = []
        return self.decoder.read(ids)[0, -1 - len(more) :]

    def back(self, count: int) -> None:
        """Take back the last `count` tokens, read or not."""
        kept = max(0, len(self.unread) - count)
        count -= len(self.unread) - kept
        self.unread = self.unread[:kept]
        self.decoder.forget(count)


def _draw(p: Tensor, generator: torch.Generator | None) -> int:
    """A token from weights [V]."""
    return int(torch.multinomial(p, 1, generator=generator))


def _fitted(q: Tensor, width: int) -> Tensor:
    """Probabilities over `width` tokens: what the student does not know has none."""
    return q if len(q) == width else torch.cat([q, q.new_zeros(width - len(q))])
