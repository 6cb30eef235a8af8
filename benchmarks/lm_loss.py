"""Divergences over a vocabulary from hidden states: time and memory against peers, in one run.

    python benchmarks/lm_loss.py --out docs/results/lm_loss.json
    python benchmarks/lm_loss.py --device cuda          # bf16, 8192 tokens, widths 4096, V 128256

Forward and backward to hidden states and head. Every variant runs in a fresh process, all of them
in turns, so that what else the machine does hits all alike; the first call of a process is not
timed (it is what is measured for memory: its peak above the inputs). `products` are the four matrix
products without which no exact gradient is made: two heads' logits, and the gradients of hidden
states and head. Peers, where they are installed: `pip install --no-deps trl liger-kernel` (with
`transformers`, `datasets` and `accelerate`, which trl imports).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from paired import table, write
from understudy.objectives import lm_ce, lm_kd
from understudy.objectives.divergences import KINDS
from understudy.signals import Batch, Factored, Signals, Sparse

BETA = 0.5
PEERS = ("torch", "trl", "liger", "liger-compiled")
TOKENS = (512, 2048, 8192)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is computed, and where."""

    device: str = "cpu"
    dtype: str = "float32"
    tokens: int = 2048
    student: int = 512
    teacher: int = 1024
    vocabulary: int = 32000
    threads: int = 2

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Student's hidden states and head (leaves), the teacher's, labels."""
        g = torch.Generator(self.device).manual_seed(0)
        kw: dict[str, Any] = {"device": self.device, "dtype": getattr(torch, self.dtype)}

        def draw(rows: int, width: int, scale: float) -> Tensor:
            return torch.empty(rows, width, **kw).normal_(0, scale, generator=g)

        n, v = self.tokens, self.vocabulary
        labels = torch.randint(v, (n,), generator=g, device=self.device)
        return (
            draw(n, self.student, 1).requires_grad_(),
            draw(v, self.student, 2 / self.student**0.5).requires_grad_(),
            draw(n, self.teacher, 1),
            draw(v, self.teacher, 2 / self.teacher**0.5),
            labels,
        )


def variant(name: str, size: Size) -> Callable[[], Tensor]:
    """One forward and backward pass; returns the value."""
    h, w, h_t, w_t, labels = size.inputs()

    def backward(loss: Tensor) -> Tensor:
        h.grad = w.grad = None
        loss.backward()
        return loss.detach()

    if name == "products":

        @torch.no_grad()
        def products() -> Tensor:
            z = h @ w.T
            _ = h_t @ w_t.T
            h.grad, w.grad = z @ w, z.T @ h
            return z[0, 0]

        return products
    if name.startswith("ours "):
        return _ours(name.removeprefix("ours "), h, w, h_t, w_t, labels, backward)
    if name == "torch":
        return lambda: backward(_plain(h @ w.T, (h_t @ w_t.T).detach()))
    if name == "trl":
        from trl.experimental.gkd import GKDTrainer

        def trl() -> Tensor:
            with torch.no_grad():
                z_t = h_t @ w_t.T
            z = (h @ w.T).unsqueeze(0)
            loss = GKDTrainer.generalized_jsd_loss(z, z_t.unsqueeze(0), beta=BETA, reduction="sum")
            return backward(loss / len(h))

        return trl
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    module = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=BETA, compiled=name == "liger-compiled"
    )
    return lambda: backward(module(h, w, h_t, w_t, labels))


def _ours(
    what: str,
    h: Tensor,
    w: Tensor,
    h_t: Tensor,
    w_t: Tensor,
    labels: Tensor,
    backward: Callable[[Tensor], Tensor],
) -> Callable[[], Tensor]:
    student = Signals(logits=Factored(hidden=h, weight=w))
    teacher = Signals(logits=Factored(hidden=h_t, weight=w_t))
    batch = Batch(inputs=labels.unsqueeze(-1), labels=labels)
    if what == "ce + 0.9 kl":
        both = lm_ce() + 0.9 * lm_kd()
        return lambda: backward(sum((t.value for t in both(student, teacher, batch)), 0 * h[0, 0]))
    if what == "ce":
        return lambda: backward(lm_ce()(student, teacher, batch).mean)
    kind, _, form = what.partition(" of ")
    if form:
        # listed before the clock: this is what a store gives
        g = torch.Generator(h.device).manual_seed(1)
        k = int(form.split()[0])
        ids = torch.rand(len(h), 4 * k, generator=g, device=h.device).argsort(-1)[:, :k]
        ids = ids * (len(w) // (4 * k))
        values = torch.randn(len(h), k, generator=g, device=h.device).log_softmax(-1) - 0.1
        listed = Sparse(ids=ids, values=values, size=len(w), tail="bucket")
        teacher = Signals(logits=listed)
    objective = lm_kd(kind, beta=BETA) if kind == "jsd" else lm_kd(kind)
    return lambda: backward(objective(student, teacher, batch).mean)


def _plain(z: Tensor, z_t: Tensor) -> Tensor:
    """The JSD as one writes it."""
    log_q, log_p = F.log_softmax(z.float(), -1), F.log_softmax(z_t.float(), -1)
    m = (BETA * log_p.exp() + (1 - BETA) * log_q.exp()).log()
    left = (log_p.exp() * (log_p - m)).sum(-1)
    right = (log_q.exp() * (log_q - m)).sum(-1)
    return (BETA * left + (1 - BETA) * right).mean()


def measured(name: str, size: Size, repeats: int, clock: str) -> dict[str, Any]:
    """Seconds of each call after the first, and the peak memory of the first above the inputs."""
    now = time.perf_counter if clock == "wall" else time.process_time
    torch.set_num_threads(size.threads)
    # libraries make their own buffers once, at the first call
    small = Size(**{**asdict(size), "tokens": 64, "vocabulary": 1024})
    variant(name, small)()
    run = variant(name, size)
    base = _memory(size.device, reset=True)
    value = float(run())
    peak = _memory(size.device) - base
    seconds = []
    for _ in range(repeats):
        _wait(size.device)
        start = now()
        run()
        _wait(size.device)
        seconds.append(now() - start)
    return {"seconds": seconds, "bytes": peak, "value": value}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _memory(device: str, *, reset: bool = False) -> int:
    """Bytes in use where `reset`, from when on the peak is counted; else that peak."""
    if device == "cuda":
        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    kept = next(x for x in lines if x.startswith("VmRSS:" if reset else "VmHWM:"))
    return int(kept.split()[1]) * 1024


def fresh(name: str, size: Size, repeats: int, clock: str) -> dict[str, Any] | None:
    """`measured` in a process of its own; None where it cannot run (a peer is not installed)."""
    order = json.dumps({"name": name, "size": asdict(size), "repeats": repeats, "clock": clock})
    done = subprocess.run(
        [sys.executable, __file__, "--one", order], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        took = ", ".join(f"{s:.3f}" for s in found["seconds"])
        said = f"{name} of {size.tokens}: {found['bytes'] / 2**20:.0f} MiB; seconds {took or '-'}"
        print(said, file=sys.stderr, flush=True)
        return found
    if name not in PEERS:
        raise RuntimeError(done.stderr)
    why = (done.stderr.strip().splitlines() or ["ended"])[-1]
    print(f"{name}: left out ({why[:120]})", file=sys.stderr, flush=True)
    return None


def names(kinds: Sequence[str]) -> list[str]:
    """Of all variants."""
    more = ["ours ce", "ours ce + 0.9 kl", "ours kl of 64 listed", "ours jsd of 64 listed"]
    return ["products", *(f"ours {kind}" for kind in kinds), *more, *PEERS]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each variant")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls in each process")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--no-sizes", action="store_true", help="not memory by number of tokens")
    parser.add_argument("--quick", action="store_true", help="only whether it runs")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall",
        help="cpu: seconds of the process, for a busy machine and one thread",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        order = json.loads(args.one)
        found = measured(order["name"], Size(**order["size"]), order["repeats"], order["clock"])
        print(json.dumps(found))
        return found
    size = Size(threads=args.threads, tokens=args.tokens or 2048)
    if args.device == "cuda":
        size = Size(
            device="cuda", dtype="bfloat16", tokens=args.tokens or 8192, student=4096, teacher=4096,
            vocabulary=128256, threads=args.threads,
        )  # fmt: skip
    if args.quick:
        size = Size(**{**asdict(size), "tokens": 64, "student": 16, "teacher": 32,
                       "vocabulary": 1000})  # fmt: skip
        args.rounds, args.repeats = 1, 1
    wanted = args.only or names(args.kinds)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    gone: set[str] = set()
    for k in range(args.rounds):
        for name in wanted[k % len(wanted) :] + wanted[: k % len(wanted)]:
            if name in gone:
                continue
            found = fresh(name, size, args.repeats, args.clock)
            if found is None:
                gone.add(name)
            else:
                runs[name].append(found)
    rows = compared({name: _row(many) for name, many in runs.items() if many})
    sizes: dict[str, dict[int, int]] = {}
    if not args.no_sizes and args.tokens is None and not args.quick:
        for name in ("ours jsd", "ours ce + 0.9 kl"):
            by = {n: Size(**{**asdict(size), "tokens": n}) for n in TOKENS}
            many = {n: fresh(name, one, 0, args.clock) for n, one in by.items()}
            sizes[name] = {n: run["bytes"] for n, run in many.items() if run}
    result = {"size": asdict(size), "clock": args.clock, "rows": rows, "bytes by tokens": sizes}
    write(args.out, result)
    print(json.dumps(result, indent=1) if args.json else _shown(size, rows, sizes))
    return result


def _row(many: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "seconds": median(s for run in many for s in run["seconds"]),
        "least": min(s for run in many for s in run["seconds"]),
        "bytes": median(run["bytes"] for run in many),
        "value": many[0]["value"],
    }


def compared(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each row with its ratios to the products and to the faster one of Liger's."""
    ligers = [rows[n] for n in ("liger", "liger-compiled") if n in rows]
    bases = {
        "products": rows.get("products"),
        "liger": min(ligers, key=lambda row: row["seconds"]) if ligers else None,
    }
    for row in rows.values():
        for name, base in bases.items():
            if base is not None:
                row[f"time / {name}"] = row["seconds"] / base["seconds"]
                row[f"memory / {name}"] = row["bytes"] / base["bytes"]
    return rows


def _shown(size: Size, rows: dict[str, Any], sizes: dict[str, dict[int, int]]) -> str:
    ratios = ("time / products", "time / liger", "memory / liger")

    def line(name: str, r: dict[str, float]) -> list[str]:
        over = [f"{r[k]:.2f}" if k in r else "-" for k in ratios]
        figures = [f"{r['seconds']:.3f}", f"{r['least']:.3f}", f"{r['bytes'] / 2**20:.0f}"]
        return [name, *figures, *over, f"{r['value']:.4f}"]

    body = [line(name, r) for name, r in rows.items()]
    head = ["variant", "s (median)", "s (least)", "MiB", *ratios, "value"]
    lines = [str(size), table(head, body)]
    for name, by in sizes.items():
        told = ", ".join(f"{n} tokens {b / 2**20:.0f} MiB" for n, b in by.items())
        lines.append(f"{name}: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
