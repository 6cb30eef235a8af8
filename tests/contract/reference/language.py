"""Losses of language models from their published equations, float64 NumPy: [N, L, V] logits.

Means over all positions, each text with all of its positions.
"""

import numpy as np


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def pair(student, teacher):
    """log q, log p."""
    return log_softmax(student.logits), log_softmax(teacher.logits)


def at(logs, labels):
    return np.take_along_axis(logs, labels[..., None], -1)[..., 0]


def ce(student, labels, smoothing=0.0):
    log_q = log_softmax(student.logits)
    k = log_q.shape[-1]
    return -((1 - smoothing) * at(log_q, labels) + smoothing / k * log_q.sum(-1)).mean()


def kl(log_a, log_b):
    return (np.exp(log_a) * (log_a - log_b)).sum(-1)


def divergence(kind, student, teacher, temperature=1.0, **settings):
    q = log_softmax(student.logits / temperature)
    p = log_softmax(teacher.logits / temperature)
    if kind == "kl":
        values = kl(p, q)
    elif kind == "reverse_kl":
        values = kl(q, p)
    else:
        b = settings["beta"]
        m = np.log(b * np.exp(p) + (1 - b) * np.exp(q))
        values = b * kl(p, m) + (1 - b) * kl(q, m)
    return temperature**2 * values.mean()


def sampled(student, teacher, labels, estimator, limit=10.0):
    """k1, k2 or k3 at the labels: Schulman's estimators with r = p / q."""
    log_q, log_p = pair(student, teacher)
    log_r = np.clip(at(log_p, labels) - at(log_q, labels), -limit, limit)
    values = {"k1": -log_r, "k2": log_r**2 / 2, "k3": np.exp(log_r) - 1 - log_r}
    return values[estimator].mean()


def minillm(student, teacher, labels, alpha):
    """sum_t w_t KL(q_t || p_t): the value; w_t = q / (alpha p + (1 - alpha) q) at the token."""
    log_q, log_p = pair(student, teacher)
    q, p = np.exp(at(log_q, labels)), np.exp(at(log_p, labels))
    return (q / (alpha * p + (1 - alpha) * q) * kl(log_q, log_p)).mean()


def taid(student, teacher, t, form):
    """TAID Eq. 3: the target is softmax((1 - t) z_q + t z_p)."""
    log_q = log_softmax(student.logits)
    log_t = log_softmax((1 - t) * student.logits + t * teacher.logits)
    if form == "kl":
        return kl(log_t, log_q).mean()
    return -(np.exp(log_t) * log_q).sum(-1).mean()


def akl(student, teacher, mu):
    """AKL, class by class: walk down the teacher's classes until their mass exceeds mu."""
    log_q, log_p = (x.reshape(-1, x.shape[-1]) for x in pair(student, teacher))
    values = []
    for lq, lp in zip(log_q, log_p, strict=True):
        p, q = np.exp(lp), np.exp(lq)
        mass, head, tail = 0.0, 0.0, 0.0
        for place, k in enumerate(np.argsort(-p)):
            mass += p[k]
            if place == 0 or mass <= mu:
                head += abs(p[k] - q[k])
            else:
                tail += abs(p[k] - q[k])
        forward, reverse = (p * (lp - lq)).sum(), (q * (lq - lp)).sum()
        values.append((head * forward + tail * reverse) / (head + tail))
    return np.mean(values)


def skew(student, teacher, labels, direction, alpha=0.1, anchor=None):
    """Skew KL with a share per text: 1 - (1 - alpha) m / g, g the gap of the mean token."""
    log_q, log_p = pair(student, teacher)
    q, p = np.exp(log_q), np.exp(log_p)
    shares = np.full(len(q), alpha)
    if anchor is not None:
        gap = np.exp(at(log_p, labels).mean(1)) - np.exp(at(log_q, labels).mean(1))
        gap = gap if direction == "forward" else -gap
        shares = np.clip(1 - (1 - alpha) * anchor / (gap + 1e-5), 0.01, alpha)
    a = shares[:, None, None]
    if direction == "forward":
        return (p * np.log(p / (a * p + (1 - a) * q))).sum(-1).mean()
    return (q * np.log(q / (a * q + (1 - a) * p))).sum(-1).mean()
