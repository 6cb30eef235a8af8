"""A language model that is put together while it writes: one model and the differences of others."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from understudy.errors import UserError
from understudy.signals.language import context_of


class Emulated(nn.Module):
    """log p = log p_base + sum_k beta_k (log p_tuned,k - log p_untuned,k), normalised.

    What the base would say if it had been tuned as the (smaller) tuned ones were. Called like a
    causal language model of `transformers` (logits, a cache), so that it is generated from,
    measured and speculated with as any other. Nothing in it is trained. All read one vocabulary;
    where it is padded differently, the shared part.

    Source: Mitchell et al., arXiv 2310.12962, Eq. 4 and section 3.3 (up-scaling: beta 1).
    """

    def __init__(
        self, base: nn.Module, deltas: Sequence[tuple[float, nn.Module, nn.Module]]
    ) -> None:
        super().__init__()
        if not deltas:
            raise UserError("emulated fine-tuning needs a tuned model and its untuned one")
        self.base = base
        self.betas = [float(beta) for beta, _, _ in deltas]
        self.tuned = nn.ModuleList([tuned for _, tuned, _ in deltas])
        self.untuned = nn.ModuleList([untuned for _, _, untuned in deltas])
        limits = [c for c in map(context_of, self._models) if c is not None]
        self.config = SimpleNamespace(max_position_embeddings=min(limits, default=None))

    @property
    def _models(self) -> list[nn.Module]:
        return [self.base, *self.tuned, *self.untuned]

    def get_input_embeddings(self) -> nn.Module:
        """The base's."""
        return self.base.get_input_embeddings()  # pyright: ignore[reportCallIssue]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> Any:
        """Log-probabilities [N, L, V] as `logits`, and every model's cache."""
        before = [None] * len(self._models) if past_key_values is None else past_key_values.each
        said, caches = [], []
        for model, cache in zip(self._models, before, strict=True):
            own: dict[str, Any] = {"attention_mask": attention_mask, "use_cache": use_cache}
            if position_ids is not None:
                own["position_ids"] = position_ids
            if cache is not None:
                own["past_key_values"] = cache
            out = model(input_ids=input_ids, **own)
            said.append(out.logits.float())
            caches.append(getattr(out, "past_key_values", None))
        shared = min(z.shape[-1] for z in said)
        log_p = [z[..., :shared].log_softmax(-1) for z in said]
        count = len(self.betas)
        total = log_p[0]
        for k, beta in enumerate(self.betas):
            total = total + beta * (log_p[1 + k] - log_p[1 + count + k])
        cache = Caches(caches) if use_cache else None
        return SimpleNamespace(logits=total.log_softmax(-1), past_key_values=cache)


class Caches:
    """The key-value caches of several models that read the same texts."""

    def __init__(self, each: list[Any]) -> None:
        self.each = each

    def batch_select_indices(self, rows: Tensor) -> None:
        """Go on with these texts alone."""
        for cache in self.each:
            cache.batch_select_indices(rows)

    def crop(self, length: int) -> None:
        """Keep as many tokens; below zero: take as many back."""
        for cache in self.each:
            cache.crop(length)


def up_scaled(base: nn.Module, tuned: nn.Module, untuned: nn.Module, beta: float = 1.0) -> Emulated:
    """A large base tuned as a small one was, without training."""
    return Emulated(base, [(beta, tuned, untuned)])
