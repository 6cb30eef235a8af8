"""Trains the entailment expert on Python's own documentation, measures it, writes its weights.

    python benchmarks/entailment_expert.py --out runs/entailment

Writes OUT/entailment.safetensors and OUT/measured.json; `--measure` measures the shipped one alone.
What it learns from depends on the version of Python, whose documentation it is.
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from entailment_pairs import HELD_OUT, Pair, make, passages
from understudy.teachers.experts.encoder import minilm
from understudy.teachers.experts.entailment import WEIGHTS, Entailment, EntailmentNet, inputs_of
from understudy.teachers.experts.overlap import FEATURES

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/entailment"))
    parser.add_argument("--seeds", type=int, default=2, help="draws of training pairs")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="measure the shipped one alone")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    texts = passages()
    test = make(texts, "test")
    if given.measure:
        print(json.dumps(measured(WEIGHTS, test), indent=2))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    train_pairs = [p for seed in range(given.seeds) for p in make(texts, "train", seed)]
    start = time.time()
    train, validate = read(train_pairs), read(make(texts, "validate"))
    print(f"{len(train_pairs)} pairs read in {time.time() - start:.0f} s", flush=True)
    net, best = learned(train, validate, given.epochs, given.hidden)
    path = given.out / "entailment.safetensors"
    # half precision: what is lost is far below what the net gets wrong
    halved = {
        k: v.half() if k.endswith("weight") else v.float() for k, v in net.state_dict().items()
    }
    save_file({k: v.contiguous() for k, v in halved.items()}, str(path))
    found = measured(path, test)
    found["train"] = {
        "pairs": len(train_pairs), "validate_auc": best, "python": platform.python_version(),
        "passages": {k: sum(t.part == k for t in texts) for k in ("train", "validate", "test")},
        "bytes": path.stat().st_size,
    }  # fmt: skip
    (given.out / "measured.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def read(pairs: Sequence[Pair]) -> Inputs:
    """u, v, f and whether each sentence is supported."""
    u, v, f, _, _ = inputs_of(minilm(), [(p.document, p.sentence) for p in pairs], whole=True)
    return u, v, f, torch.tensor([float(p.supported) for p in pairs])


def learned(
    train: Inputs, validate: Inputs, epochs: int, hidden: int
) -> tuple[EntailmentNet, float]:
    """The net of the epoch that is best on the validation documents."""
    torch.manual_seed(0)
    u, v, f, truth = train
    net = EntailmentNet(hidden=hidden, dropout=0.3)
    net.mean.copy_(f.mean(0))
    net.std.copy_(f.std(0).clamp_min(1e-3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1.5e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    # both answers weigh the same
    weight = (1 - truth).sum() / truth.sum()
    best, kept = -1.0, {}
    for epoch in range(epochs):
        net.train()
        for part in torch.randperm(len(truth)).split(128):
            said = net(u[part], v[part], f[part])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                said, truth[part], pos_weight=weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        net.eval()
        with torch.no_grad():
            auc = roc_auc_score(validate[3], net(*validate[:3]))
        print(f"epoch {epoch}: loss {loss.item():.4f}, validation AUC {auc:.4f}", flush=True)
        if auc > best:
            best, kept = auc, {k: x.clone() for k, x in net.state_dict().items()}
    net.load_state_dict(kept)
    return net.eval(), float(best)


def measured(weights: Path, pairs: Sequence[Pair]) -> dict[str, object]:
    """ROC-AUC on held-out documents: all trained kinds, each kind, kinds never trained on; and of
    two plain scores, the nearest sentence's cosine and the share of words that the document has.
    """
    expert = Entailment(weights=weights)
    said = [min(p) for p in expert.support([(p.document, p.sentence) for p in pairs])]
    f = inputs_of(expert.encoder, [(p.document, p.sentence) for p in pairs], whole=True)[2]
    scores = {
        "expert": said,
        "cosine": f[:, FEATURES.index("nearest")].tolist(),
        "words": f[:, FEATURES.index("words_all")].tolist(),
    }
    never = {kind.__name__ for kind in HELD_OUT}
    by: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        by[pair.made].append(place)
    right = [*by["supported"], *by["fused"], *by["passive"]]
    wrong = [k for k in by if not pairs[by[k][0]].supported]
    trained = [i for k in wrong if k not in never for i in by[k]]
    sets = {"trained kinds": (right, trained)} | {k: (right, by[k]) for k in wrong}
    sets["fused"] = (by["fused"], by["fused with a wrong one"])
    sets["passive"] = (by["passive"], trained)
    sets["clause"] = (by["clause"], trained)
    never |= {"clause"}
    found: dict[str, object] = {}
    for name, (good, bad) in sets.items():
        truth = [1] * len(good) + [0] * len(bad)
        found[name] = {
            "count": len(truth), "never trained on": name in never,
            **{k: round(roc_auc_score(truth, [s[i] for i in (*good, *bad)]), 4) for k, s in scores.items()},
        }  # fmt: skip
    good, bad = sets["trained kinds"]
    hits = sum(said[i] > 0.5 for i in good) / len(good), sum(said[i] <= 0.5 for i in bad) / len(bad)
    found["balanced accuracy"] = round(sum(hits) / 2, 4)
    return found


if __name__ == "__main__":
    main()
