"""Whether a document says all that a summary says: a small network that was trained for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from understudy.errors import CheckpointError
from understudy.store.fingerprints import teacher_fingerprint
from understudy.teachers.experts.base import Choice, Expert
from understudy.teachers.experts.encoder import SentenceEncoder, minilm
from understudy.teachers.experts.overlap import FEATURES, overlap, sentences

WEIGHTS = Path(__file__).with_name("entailment.safetensors")


class EntailmentNet(nn.Module):
    """Log-odds that a document supports a sentence, from vectors u of the sentence and v of the
    nearest sentence of the document, and features f of their words (`overlap`).

    x = [u, v, |u - v|, u * v, (f - mean) / std]; log-odds = w . relu(A x + a) + b
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 384, hidden: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(4 * width + len(FEATURES), hidden)
        self.last = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(len(FEATURES)))
        self.register_buffer("std", torch.ones(len(FEATURES)))

    def forward(self, u: Tensor, v: Tensor, f: Tensor) -> Tensor:
        """[N] log-odds from u, v [N, d] and f [N, len(FEATURES)]."""
        words = (f - self.mean) / self.std
        x = torch.cat([self.dropout(torch.cat([u, v, (u - v).abs(), u * v], -1)), words], -1)
        return self.last(self.dropout(torch.relu(self.first(x))))[:, 0]


def inputs_of(
    encoder: SentenceEncoder, pairs: Sequence[tuple[str, str]], *, whole: bool = False
) -> tuple[Tensor, Tensor, Tensor, list[int], list[int]]:
    """u, v, f of every sentence of every summary; to which pair each belongs; tokens of each pair.

    pairs: (document, summary); whole: a summary is one sentence
    """
    split = [
        (sentences(document), [summary] if whole else sentences(summary))
        for document, summary in pairs
    ]
    vectors, counts = encoder.read([s for d, h in split for s in (*d, *h)])
    us, vs, fs, owners, tokens = [], [], [], [], []
    at = 0
    for place, (document, summary) in enumerate(split):
        of_document = vectors[at : at + len(document)]
        at += len(document)
        of_summary = vectors[at : at + len(summary)]
        at += len(summary)
        near = of_summary @ of_document.T
        for row, sentence in enumerate(summary):
            best = int(near[row].argmax())
            us.append(of_summary[row])
            vs.append(of_document[best])
            fs.append(torch.tensor(overlap(sentence, document, best, near[row].tolist())))
            owners.append(place)
        tokens.append(sum(counts[at - len(document) - len(summary) : at]))
    return torch.stack(us), torch.stack(vs), torch.stack(fs).float(), owners, tokens


class Entailment(Expert):
    """Answers prompts `Task: consistent` with `yes` or `no`.

    p(yes) = the least over the summary's sentences of sigmoid(log-odds) (`EntailmentNet`): a
    summary is as consistent as its worst sentence. Log-probabilities are of the two answers.

    Trained on sentences of Python's own documentation (docstrings and the language reference):
    supported ones are sentences of the document, one or two as one, shortened, turned round or in
    other words; unsupported ones have another number, name or subject, a negation, an opposite, or
    are of another document. `benchmarks/entailment_expert.py` makes it; `entailment.json` holds all
    of its measures. ROC-AUC on documents of other files (271 passages), beside the nearest
    sentence's cosine and the share of words that the document has:

        all kinds it was trained on            0.985   (cosine 0.812, words 0.756)
        negation / exchanged subject           0.990 / 0.990
        number / name / opposite               0.985 / 0.964 / 0.961
        of two, one wrong                      0.982
        supported ones in the passive          0.935
        never trained on: a clause added       0.982   (0.834, 0.964)
        never trained on: may for must         0.881   (0.656, 0.574)
        never trained on: some for all         0.810   (0.591, 0.694)

    All of these errors are made by rule, on technical English: what people and models get wrong
    elsewhere may be harder. It reads no inference, only what is said; and it takes many a sentence
    that is turned into the passive or the plural for an unsupported one.
    """

    task, needs = "consistent", ("document", "summary")

    def __init__(
        self,
        encoder: SentenceEncoder | None = None,
        *,
        weights: str | Path = WEIGHTS,
        name: str = "entailment",
        batch_size: int = 64,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size)
        self.net = load(weights)
        self.encoder = minilm() if encoder is None else encoder

    def parts(self) -> Sequence[str]:
        """Encoder, weights, features."""
        return (self.encoder.fingerprint(), teacher_fingerprint(self.net), ",".join(FEATURES))

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """For each (document, summary) the probability of each of the summary's sentences."""
        return self._support(pairs)[0]

    def _support(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[float]], list[int]]:
        u, v, f, owners, tokens = inputs_of(self.encoder, pairs)
        with torch.no_grad():
            p = self.net(u, v, f).double().sigmoid().tolist()
        found: list[list[float]] = [[] for _ in pairs]
        for owner, value in zip(owners, p, strict=True):
            found[owner].append(value)
        return found, tokens

    def choose(self, given: Sequence[tuple[Mapping[str, str], str]]) -> list[Choice]:
        """`yes` and `no` for each prompt."""
        pairs = [(inputs["document"], inputs["summary"]) for inputs, _ in given]
        found = []
        for p, tokens in zip(*self._support(pairs), strict=True):
            yes = torch.tensor(min(p), dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
            answers = {"yes": float(yes.log()), "no": float((1 - yes).log())}
            found.append(Choice(answers=answers, tokens=tokens))
        return found


def load(weights: str | Path = WEIGHTS) -> EntailmentNet:
    """The trained network, in evaluation mode.

    Raises:
        CheckpointError: no such file, or of another network.
    """
    from safetensors.torch import load_file

    try:
        state = load_file(str(weights))
        net = EntailmentNet(hidden=state["first.bias"].shape[0])
        net.load_state_dict({k: v.float() for k, v in state.items()})
    except (OSError, KeyError, RuntimeError) as error:
        line = str(error).splitlines()[0][:160]
        raise CheckpointError(f"{weights} holds no entailment network: {line}") from None
    return net.eval()
