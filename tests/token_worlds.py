"""A tiny language model and texts of different lengths, for stores of token signals."""

import numpy as np
import torch

from understudy.data import Texts
from understudy.signals import CausalLM
from understudy.students import load_model
from understudy.teachers import Frozen

VOCABULARY = 40
SIZES = [int(n) for n in np.random.default_rng(0).integers(2, 14, size=21)]
IDS = np.random.default_rng(1).permutation(len(SIZES)) * 3 + 5


def texts(seed=0, **changed):
    """21 texts of 2 to 13 tokens; some are scored after a prompt, some with gaps."""
    rng = np.random.default_rng([7, seed])
    tokens = [rng.integers(0, VOCABULARY, n).tolist() for n in SIZES]
    scored = [(rng.random(n) < 0.6).tolist() for n in SIZES]
    for row, some in enumerate(scored):
        some[-1] = some[-1] or not any(some[1:]) or row % 3 == 0
    return Texts(tokens, changed.pop("scored", scored), ids=changed.pop("ids", IDS), **changed)


def llama(seed=0, vocabulary=VOCABULARY, width=16):
    torch.manual_seed(seed)
    spec = f"llama:width={width},depth=1,heads=2"
    model = load_model(spec, classes=vocabulary, vocabulary=vocabulary, length=32)
    with torch.no_grad():  # peaked enough that draws repeat
        model.get_output_embeddings().weight.mul_(40)
    return model.eval()


def live(seed=0, **sizes):
    return Frozen(llama(seed, **sizes), CausalLM())


def whole(source):
    return source.batch(torch.arange(len(source)))


def log_p(teacher, batch, temperature=1.0):
    """[M, V] in double precision NumPy, from the live teacher's logits of scored positions."""
    with torch.no_grad():
        z = teacher.signals(batch).rows(batch.mask).dense.double().numpy() / temperature
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))
