"""Token signals on disk against plain fine-tuning, and against the live teacher.

    python benchmarks/token_store.py --out docs/results/token_store.json

(a) The same student learns from a store by KD, and from labels alone by cross-entropy: tokens a
second of whole epochs (reading the store, the loss and the update). (b) The same KD step with the
teacher, about ten times the student, live beside it; and the peak memory of each, above what the
process had before, in a process of its own. Same batches, in turns; fine-tuning runs twice a turn,
and its ratio to itself (A/A) shows the noise.
"""

import argparse
import copy
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

import understudy as us
from paired import in_turns, ratios, table, write
from understudy.algorithms import Plain, Scene
from understudy.data import Indexed, Order, Texts
from understudy.objectives import total
from understudy.signals import CausalLM
from understudy.students import load_model
from understudy.teachers import Frozen, Stored, Teacher, write_text_signals
from understudy.training.budget import Budget
from understudy.training.fit import Fit

MODES = ("sampled", "top-k", "hidden")


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def model(args: argparse.Namespace, name: str) -> torch.nn.Module:
    torch.manual_seed(len(name))
    made = load_model(
        getattr(args, name), classes=args.vocabulary, vocabulary=args.vocabulary, length=args.length
    )
    if name == "teacher":  # as peaked as a trained one: about twelve different ids in fifty draws
        with torch.no_grad():
            made.get_output_embeddings().weight.mul_(args.sharpness)
    return made


def texts(args: argparse.Namespace) -> Texts:
    """Texts of three quarters of the length to all of it, of which all tokens are scored."""
    g = torch.Generator().manual_seed(0)
    sizes = torch.randint(3 * args.length // 4, args.length + 1, (args.texts,), generator=g) + 1
    return Texts([torch.randint(args.vocabulary, (int(n),), generator=g) for n in sizes])


class Run:
    """One epoch at a time, from the same weights, over the same batches."""

    def __init__(self, args: argparse.Namespace, source: Texts, teacher: Teacher | None) -> None:
        self.args, self.source, self.teacher = args, source, teacher
        self.student = model(args, "student")
        self.end = torch.empty(0)

    def epoch(self) -> float:
        learner = copy.deepcopy(self.student)
        size = self.args.batch_size
        loader = Indexed(self.source, Order(size=len(self.source), batch_size=size, seed=1))
        scene = Scene(
            learners={"student": learner},
            teacher=self.teacher,
            objective=total(us.lm_ce() if self.teacher is None else us.lm_kd()),
            example=loader.example(),
            call=CausalLM(),
        )
        fit = Fit(Plain(), scene, loader, Budget(epochs=1, batch_size=size))
        clock = {"wall": time.perf_counter, "cpu": time.process_time}[self.args.clock]
        began = clock()
        fit.run()
        seconds = clock() - began
        self.end = torch.cat([p.detach().flatten() for p in learner.parameters()])
        return seconds


def resident(field: str) -> int:
    """Bytes of this process: VmRSS (now) or VmHWM (the most)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) * 1024


def memory(args: argparse.Namespace, name: str, path: Path | None) -> int:
    """The most bytes that an epoch takes beyond data and student, in a process of its own."""
    # a server that has imported all and done nothing: what it forks has a heap without gaps
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [__name__, "transformers.models.llama.modeling_llama", "understudy.students.families.llama"]
    )
    here, there = context.Pipe()
    process = context.Process(target=_memory, args=(args, name, path, there))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        raise SystemExit(f"measuring the memory of {name} failed") from None
    finally:
        process.join()
    return found


def _memory(args: argparse.Namespace, name: str, path: Path | None, pipe: Any) -> None:
    torch.set_num_threads(args.threads)
    few = texts(args).subset(torch.arange(min(args.texts, 4 * args.batch_size)))
    Run(args, few, None).epoch()  # what any training takes is there already
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here
    run = Run(args, few, _teacher(args, name, path))
    run.epoch()
    pipe.send(resident("VmHWM") - before)


def _teacher(args: argparse.Namespace, name: str, path: Path | None) -> Teacher | None:
    if name == "labels":
        return None
    return Frozen(model(args, "teacher"), CausalLM()) if path is None else Stored(path)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--student", default="llama:width=128,depth=4,heads=4")
    parser.add_argument("--teacher", default="llama:width=384,depth=9,heads=6,tied=false")
    parser.add_argument("--k", type=int, default=12)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--sharpness", type=float, default=13.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the process's own seconds, where a machine is busy with other things",
    )
    parser.add_argument("--quick", action="store_true", help="only whether it runs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON as well")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    args = parser.parse_args(argv)
    if args.quick:
        args.pairs, args.texts, args.batch_size, args.length = 2, 8, 4, 16
        args.vocabulary, args.student = 64, "llama:width=8,depth=1,heads=2"
        args.teacher = "llama:width=48,depth=1,heads=2,tied=false"
    torch.set_num_threads(args.threads)
    source = texts(args)
    tokens = int(source.scored.sum())
    live = Frozen(model(args, "teacher"), CausalLM())
    with tempfile.TemporaryDirectory() as folder:
        stores, written = {}, {}
        for mode in MODES:
            began = time.perf_counter()
            write_text_signals(
                live, source, Path(folder) / mode, mode=mode, k=args.k, draws=args.draws,
                dtype="fp16",
            )  # fmt: skip
            written[mode] = time.perf_counter() - began
            stores[mode] = Stored(Path(folder) / mode, teacher=live, data=source)
        runs = {
            "labels": Run(args, source, None),
            **{mode: Run(args, source, store) for mode, store in stores.items()},
            "labels again": Run(args, source, None),
            "live": Run(args, source, live),
        }
        things: dict[str, Callable[[], float]] = {name: run.epoch for name, run in runs.items()}
        for name, thing in things.items():
            if name != "labels again":
                thing()
        # half-precision states move the student as the live teacher does
        moved = (runs["live"].end - parameters_of(runs["live"].student)).norm()
        off = (runs["hidden"].end - runs["live"].end).norm()
        if not off < 0.05 * moved:
            raise SystemExit(f"learning from the store ends elsewhere: {off:.3g} of {moved:.3g}")
        times = in_turns(things, args.pairs)
        places = {"labels": None, "live": None, **{mode: Path(folder) / mode for mode in MODES}}
        measured = [] if args.quick else list(places)  # processes of their own take a while
        peaks = {name: memory(args, name, places[name]) for name in measured}
        manifests = {mode: store.store.manifest for mode, store in stores.items()}
    steps = -(-args.texts // args.batch_size)
    heard = stores["sampled"].store
    found = {
        "tokens_a_second": {n: tokens / median(t) for n, t in times.items()},
        "ms_a_step": {n: 1000 * median(t) / steps for n, t in times.items()},
        "speed_over_fine_tuning": {
            n: ratios(times, "labels", n) for n in (*MODES, "labels again", "live")
        },
        "time_over_live": {n: ratios(times, n, "live") for n in MODES},
        "peak_bytes": peaks,
        "bytes_a_token": {n: m["bytes_per_token"] for n, m in manifests.items()},
        "seconds_to_write": written,
        "drawn_ids_a_token": float(
            sum(p["drawn.unique"].float().sum() for p in _shards(heard)) / tokens
        ),
        "tokens": tokens,
        "clock": args.clock,
        "parameters": {
            "teacher": parameters(live.module),
            "student": parameters(runs["live"].student),
        },
    }
    show(found, args)
    if args.json:
        print(json.dumps(found, indent=1))
    write(args.out, found)
    return found


def parameters_of(student: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in student.parameters()])


def _shards(store: Any) -> list[dict[str, torch.Tensor]]:
    return [store._shard(s) for s in range(store._shard_count)]


def show(found: dict[str, Any], args: argparse.Namespace) -> None:
    names = {
        "labels": "labels alone (fine-tuning)",
        "labels again": "labels again (A/A)",
        "live": "live teacher",
        **{m: f"store, {m}" for m in MODES},
    }
    rows = []
    for name, said in names.items():
        speed = found["speed_over_fine_tuning"].get(name)
        over = found["time_over_live"].get(name)
        peak = found["peak_bytes"].get(name)
        size = found["bytes_a_token"].get(name)
        rows.append([
            said,
            f"{found['ms_a_step'][name]:.1f}",
            f"{found['tokens_a_second'][name]:.0f}",
            "" if speed is None else f"{speed['median']:.3f}",
            "" if speed is None else f"{speed['low']:.3f}-{speed['high']:.3f}",
            "" if over is None else f"{over['median']:.3f}",
            "" if peak is None else f"{peak / 2**20:.0f}",
            "" if size is None else f"{size:.1f}",
        ])  # fmt: skip
    head = ["in turns", "ms a step", "tokens/s", "speed / labels", "25-75 %", "time / live",
            "peak MiB", "bytes/token"]  # fmt: skip
    print(table(head, rows))
    print(
        f"{args.pairs} turns of {found['tokens']} tokens, {args.clock} clock; teacher "
        f"{found['parameters']['teacher'] / 1e6:.2f}M, student "
        f"{found['parameters']['student'] / 1e6:.2f}M parameters, vocabulary {args.vocabulary}; "
        f"{found['drawn_ids_a_token']:.1f} different ids in {args.draws} draws; peak is above "
        "what fine-tuning takes"
    )


if __name__ == "__main__":
    main()
