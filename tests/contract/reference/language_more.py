"""Revision, relations within spans and other tokenizers' losses, written from their equations."""

import math

import numpy as np


def softmax(z):
    z = np.asarray(z, dtype=np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dac_kl(state, student, teacher, seen, sharpness):
    """Position by position: limits from a network, soft edges on log ranks, both normalised."""
    values = []
    for z_s, z_t in zip(student.logits, teacher.logits, strict=True):
        p, q = softmax(z_t), softmax(z_s)
        order = sorted(range(len(p)), key=lambda k, p=p: -p[k])
        p, q = p[order], q[order]
        seen_now = np.concatenate([p[:seen], q[:seen]])
        hidden = np.tanh(state["limits.hidden.weight"] @ seen_now + state["limits.hidden.bias"])
        a, b = sigmoid(state["limits.out.weight"] @ hidden + state["limits.out.bias"])
        low = -0.2 + 0.7 * a
        high = low + (1.2 - low) * b
        place = np.array([math.log(r + 1) / math.log(len(p)) for r in range(len(p))])
        inside = sigmoid(sharpness * (place - low)) * sigmoid(sharpness * (high - place))
        p, q = inside * p, inside * q
        values.append(kl(p / p.sum(), q / q.sum()))
    return float(np.mean(values))


def span_relation(student, teacher, following, kinds):
    """Neighbours whose tokens are of one kind above zero; `following` [N, L - 1] token ids."""
    values = []
    for z_s, z_t, text in zip(student.logits, teacher.logits, following, strict=True):
        p, q = softmax(z_t), softmax(z_s)
        for left in range(len(text) - 1):
            a, b = kinds[text[left]], kinds[text[left + 1]]
            if a == b and a > 0:
                gap = p[left] * p[left + 1] - q[left] * q[left + 1]
                values.append(float((gap**2).sum()))
    return float(np.mean(values))


def sorted_gap(p, q):
    p, q = sorted(p, reverse=True), sorted(q, reverse=True)
    width = max(len(p), len(q))
    p, q = p + [0.0] * (width - len(p)), q + [0.0] * (width - len(q))
    return sum(abs(a - b) for a, b in zip(p, q, strict=True))


def uld(student, teacher):
    pairs = zip(softmax(student.logits), softmax(teacher.logits), strict=True)
    return float(np.mean([sorted_gap(p, q) for q, p in pairs]))


def gold_one(p, q, shared, matched, unmatched, mine=1.0, other=1.0):
    """One group: `mine` and `other` the probability of its later tokens."""
    own, its = [a for a, _ in shared], [b for _, b in shared]
    near_p, near_q = np.array([p[i] for i in its]), np.array([q[i] for i in own])
    near = kl(near_p / near_p.sum(), near_q / near_q.sum())
    far = sorted_gap(
        [other * v for i, v in enumerate(p) if i not in its],
        [mine * v for i, v in enumerate(q) if i not in own],
    )
    return matched * near + unmatched * far


def gold(student, teacher, shared, matched, unmatched):
    pairs = zip(softmax(student.logits), softmax(teacher.logits), strict=True)
    return float(np.mean([gold_one(p, q, shared, matched, unmatched) for q, p in pairs]))


def projected_one(p, q, shared):
    p_own, q_own = [p[b] for _, b in shared], [q[a] for a, _ in shared]
    p_rest = [v for i, v in enumerate(p) if i not in {b for _, b in shared}]
    q_rest = [v for i, v in enumerate(q) if i not in {a for a, _ in shared}]
    return kl([*p_own, sum(p_rest)], [*q_own, sum(q_rest)])


def projected(student, teacher, shared):
    pairs = zip(softmax(student.logits), softmax(teacher.logits), strict=True)
    return float(np.mean([projected_one(p, q, shared) for q, p in pairs]))


def swing(student, teacher, private, low, high):
    """low^2 KL(softmax(z_t / T_n) || softmax(z_s / low)); private None: the teacher's confidence."""
    values = []
    for n, (z_s, z_t) in enumerate(zip(student.logits, teacher.logits, strict=True)):
        r = float(softmax(z_t).max()) if private is None else private[n]
        values.append(low**2 * kl(softmax(z_t / (low + (high - low) * r)), softmax(z_s / low)))
    return float(np.mean(values))


def compatible(student, teacher, labels, t, mask):
    """MUSCLE Eq. 1: the old version where a mistake is made, else the new one."""
    values = []
    for z, new, old, y in zip(
        student.logits, teacher.logits, teacher.features["old"], labels, strict=True
    ):
        judged = z if mask == "student" else new
        target = old if max(range(len(judged)), key=lambda k, j=judged: j[k]) != y else new
        values.append(kl(softmax(target / t), softmax(z / t)))
    return float(np.mean(values))


def layer_mse(student, teacher, layers):
    """Mean over samples, layers and units of the squared difference."""
    found = [((student.features[k] - teacher.features[k]) ** 2).mean() for k in layers]
    return float(np.mean(found))
