"""Divergences in float64 NumPy, from their equations, and small pairs of heads to try them on."""

import numpy as np
import torch

from understudy.signals import Factored


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(a, b):
    """sum a log(a / b); nothing where a is nothing."""
    safe = np.where(a > 0, a, 1)
    return np.where(a > 0, a * (np.log(safe) - np.log(np.where(a > 0, b, 1))), 0).sum(-1)


def jsd(p, q, beta=0.5):
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def alpha_beta(p, q, a=0.5, b=0.5):
    terms = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return -terms.sum(-1) / (a * b)


REFERENCE = {
    "kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": jsd,
    "skew_kl": lambda p, q: kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.1 * q + 0.9 * p),
    "tv": lambda p, q: 0.5 * np.abs(p - q).sum(-1),
    "alpha_beta": alpha_beta,
    "symmetric": lambda p, q: 0.5 * kl(p, q) + 0.5 * kl(q, p),
    "jeffreys": lambda p, q: kl(p, q) + kl(q, p),
}
SETTINGS = {
    "jsd": {"beta": 0.3},
    "skew_kl": {"alpha": 0.4},
    "skew_reverse_kl": {"alpha": 0.4},
    "alpha_beta": {"alpha": 0.6, "beta": 0.9},
    "symmetric": {"weight": 0.2},
}
"""Other settings than the defaults, and what they mean."""
SET = {
    "jsd": lambda p, q: jsd(p, q, 0.3),
    "skew_kl": lambda p, q: kl(p, 0.4 * p + 0.6 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.4 * q + 0.6 * p),
    "alpha_beta": lambda p, q: alpha_beta(p, q, 0.6, 0.9),
    "symmetric": lambda p, q: 0.2 * kl(p, q) + 0.8 * kl(q, p),
}


def slope(f, z, eps=1e-6):
    """Central differences of a NumPy function of an array."""
    found = np.zeros_like(z)
    for i in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[i] += eps
        down[i] -= eps
        found[i] = (f(up) - f(down)) / (2 * eps)
    return found


def heads(
    n=7, vocabulary=23, width=5, *, softcap=None, scale=0.7, bias=True, seed=0, dtype=torch.float64
):
    """(student, teacher), factored; all of the student's tensors are leaves."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    student = Factored(
        hidden=draw(n, width).requires_grad_(),
        weight=draw(vocabulary, width).requires_grad_(),
        bias=draw(vocabulary).requires_grad_() if bias else None,
        scale=scale,
        softcap=softcap,
    )
    return student, Factored(hidden=draw(n, 2 * width), weight=draw(vocabulary, 2 * width))


def leaves(student):
    return [t for t in (student.hidden, student.weight, student.bias) if t is not None]


def logits(said):
    """Of a factored record, in NumPy: softcap(scale (h W + b))."""
    parts = (said.hidden, said.weight, said.bias)
    h, w, b = (None if t is None else t.detach().double().numpy() for t in parts)
    z = said.scale * (h @ w.T + (0 if b is None else b))
    return z if said.softcap is None else said.softcap * np.tanh(z / said.softcap)
