"""Pre-training distillation: what of the teacher's logits is kept, and how it is matched."""

import torch
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives.base import Needs, PerSample
from understudy.objectives.logits import checked_temperature
from understudy.signals import Batch, Signals

LOSSES = ("kld", "nll", "mse")
ADAPTIVE = ("fixed", "normkd", "wttm")


def truncated(logits: Tensor, *, top_p: float = 0.95, top_k: int = 50) -> Tensor:
    """Logits [..., V] with -inf outside top-p, of which at most the top k stay.

    top-p keeps the fewest classes whose probabilities sum to at least p (the one that crosses
    included). top_p 1 and top_k 0 leave none out.
    """
    kept = logits
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[..., -1:]
        kept = kept.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        ordered, places = logits.sort(-1, descending=True)
        p = ordered.softmax(-1)
        out = p.cumsum(-1) - p >= top_p
        kept = kept.masked_fill(torch.zeros_like(out).scatter(-1, places, out), float("-inf"))
    return kept


class PretrainKD(PerSample):
    r"""D(F(z_t), softmax(z_s)) a position, F(z) = softmax(truncate(z) / tau); the student keeps T = 1.

    loss: kld = sum p log(p / q) and nll = -sum p log q, nats; mse = sum (p - q)^2.
    adaptive: fixed, tau = temperature; normkd, tau = temperature * std of the teacher's logits at the
    position (arXiv 2308.00520); wttm, tau = temperature and the position weighs sum_k p_k^(1 / tau),
    p = softmax(z_t) over what is kept (arXiv 2402.11148).
    """

    name = "kd"
    coupling = "position"
    needs = Needs()

    def __init__(
        self,
        loss: str = "kld",
        *,
        temperature: float = 2.0,
        adaptive: str = "fixed",
        top_p: float = 0.95,
        top_k: int = 50,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise UserError(f"the loss is one of {', '.join(LOSSES)}, not {loss!r}")
        if adaptive not in ADAPTIVE:
            raise UserError(f"the temperature is one of {', '.join(ADAPTIVE)}, not {adaptive!r}")
        if not 0 < top_p <= 1 or top_k < 0:
            raise UserError(f"top_p lies in (0, 1] and top_k is 0 or more, not {top_p} and {top_k}")
        self.loss, self.adaptive = loss, adaptive
        self.temperature = checked_temperature(temperature)
        self.top_p, self.top_k = top_p, top_k

    def target(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(log F(z) [..., V], weight [...]) of the teacher's logits."""
        kept = truncated(logits, top_p=self.top_p, top_k=self.top_k)
        tau: float | Tensor = self.temperature
        if self.adaptive == "normkd":
            tau = (self.temperature * logits.std(-1, keepdim=True)).clamp_min(1e-6)
        log_p = (kept / tau).log_softmax(-1)
        weight = torch.ones_like(log_p[..., 0])
        if self.adaptive == "wttm":
            weight = (kept.log_softmax(-1) / self.temperature).exp().sum(-1)
        return log_p, weight

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """[M] of the active positions; where vocabularies are padded, their common part counts."""
        z_s, z_t = student.dense, teacher.dense
        common = min(z_s.shape[-1], z_t.shape[-1])
        log_p, weight = self.target(z_t[..., :common])
        log_q = z_s[..., :common].log_softmax(-1)
        p = log_p.exp()
        if self.loss == "mse":
            return weight * (p - log_q.exp()).square().sum(-1)
        terms = -p * log_q
        if self.loss == "kld":
            terms = torch.where(p > 0, p * (log_p.clamp_min(-1e30) - log_q), 0.0)
        return weight * terms.sum(-1)
