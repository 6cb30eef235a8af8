"""Losses over a vocabulary, from the published equations, in float64 NumPy."""

import numpy as np

from .logits import kl, softmax


def jsd(p, q, beta):
    """Agarwal et al. 2306.13649, Eq. 1, without the limits."""
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def alpha_beta(p, q, a, b):
    """Cichocki et al., Entropy 13 (2011), Eq. 9."""
    terms = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return -terms.sum(-1) / (a * b)


KINDS = {
    "kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": lambda p, q: jsd(p, q, 0.5),
    # Ko et al. 2402.03898, Eq. 4 and 5
    "skew_kl": lambda p, q: kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.1 * q + 0.9 * p),
    "tv": lambda p, q: 0.5 * np.abs(p - q).sum(-1),
    "alpha_beta": lambda p, q: alpha_beta(p, q, 0.5, 0.5),
    "symmetric": lambda p, q: 0.5 * (kl(p, q) + kl(q, p)),
    "jeffreys": lambda p, q: kl(p, q) + kl(q, p),
}


def divergence(kind, student, teacher, t):
    """T^2 D(p, q), mean over positions."""
    p, q = softmax(teacher.logits, t), softmax(student.logits, t)
    return t**2 * KINDS[kind](p, q).mean()


def ce(student, labels, smoothing):
    """Cross-entropy with a share of the target spread over all classes."""
    q = softmax(student.logits)
    k = q.shape[-1]
    goal = (1 - smoothing) * np.eye(k)[labels] + smoothing / k
    return -(goal * np.log(q)).sum(-1).mean()
