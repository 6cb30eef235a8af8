"""`understudy synthesize | label | serve | ledger`."""

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from understudy.cli.shared import Bars, prices_of, run_folder, set_threads, show, show_text
from understudy.errors import UserError


def add_ledger(commands: Any, common: Any) -> None:
    """`understudy ledger`."""
    a = commands.add_parser(
        "ledger",
        allow_abbrev=False,
        parents=[common],
        help="answers of an endpoint: cost, tokens, rates, failures",
        description="Answers that were paid for: stats (default), failures, export to .jsonl or "
        ".parquet, or prune (--older-than, --model, --failures).",
    )
    a.add_argument("path", metavar="FILE", help="the ledger's file")
    a.add_argument(
        "action", nargs="?", default="stats", choices=("stats", "failures", "export", "prune")
    )
    a.add_argument("--out", metavar="FILE", help="export: a .jsonl or .parquet file")
    a.add_argument("--older-than", metavar="TIME", help="prune: written before, such as 30d")
    a.add_argument("--model", metavar="NAME", help="prune: of this model alone")
    a.add_argument("--failures", action="store_true", help="prune: failures, not answers")
    a.add_argument("--limit", type=int, default=20, metavar="N", help="failures: how many (20)")
    a.add_argument("--json", action="store_true", help="as JSON")
    a.set_defaults(run=ledger)


def add_serve(commands: Any, common: Any) -> None:
    """`understudy serve`."""
    v = commands.add_parser(
        "serve",
        allow_abbrev=False,
        parents=[common],
        help="answer as an OpenAI-compatible server",
        description="Answer /v1/chat/completions, /v1/completions and /v1/models for a student, any "
        "local causal language model, or a built-in teacher, until Ctrl-C.",
    )
    v.add_argument(
        "target",
        metavar="MODEL",
        help="a run folder, a folder of a causal language model, or school, zero-shot, entailment",
    )
    v.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    v.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    v.add_argument(
        "--key-env", metavar="NAME", help="environment variable of the key that callers must bear"
    )
    v.add_argument(
        "--open", action="store_true", help="no key, though other machines can call (--host)"
    )
    v.add_argument("--name", metavar="NAME", help="the model's name (default: the folder's)")
    v.add_argument("--batch-size", type=int, default=64, metavar="N", help="answers at a time")
    v.add_argument("--device", metavar="NAME", help="cpu, cuda, mps (default: a GPU if any)")
    v.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    v.set_defaults(run=serve)


def serve(given: Any) -> int:
    """Answer as a server until Ctrl-C."""
    from understudy.serving import serve, teacher_of

    set_threads(given)
    if not 0 <= given.port <= 65535:
        raise UserError(f"--port lies in 0 ... 65535, not {given.port}")
    name, teacher = teacher_of(given.target, device=given.device, batch_size=given.batch_size)
    name = given.name or name

    def ready(url: str) -> None:
        print(f"{name} answers at {url}", flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        serve(
            teacher,
            name=name,
            host=given.host,
            port=given.port,
            key_env=given.key_env,
            open_to_all=given.open,
            most=given.batch_size,
            ready=ready,
        )
    print("stopped", flush=True)
    return 0


def add_data(commands: Any, common: argparse.ArgumentParser) -> None:
    """`understudy synthesize` and `understudy label`."""
    y = commands.add_parser(
        "synthesize",
        allow_abbrev=False,
        parents=[common],
        help="one stage of synthetic data, from a file of rows to the next",
        description="Rows are .jsonl or .parquet. Stages: generate, verify, filter, deduplicate, "
        "decontaminate, balance, split; what is dropped stands in NAME.dropped.jsonl, with why.",
    )
    y.add_argument("stage", metavar="STAGE")
    y.add_argument("source", metavar="IN", help="rows")
    y.add_argument("out", metavar="OUT", help="rows; of split a folder")
    y.add_argument("--endpoint", metavar="URL", help="generate: OpenAI-compatible; or school")
    y.add_argument("--model", metavar="NAME", help="generate: the endpoint's model")
    y.add_argument("--key-env", metavar="VAR", help="environment variable that holds the key")
    y.add_argument("--ledger", metavar="FILE", help="kept answers (default: OUT.ledger.sqlite)")
    y.add_argument("--budget", type=float, metavar="MONEY", help="spend at most this")
    y.add_argument("--prices", metavar="IN,OUT", help="of a million tokens read and written")
    y.add_argument("--prompt", default="solve", help="solve, explained, program, rephrase, write")
    y.add_argument("--n", type=int, default=1, metavar="N", help="answers a row")
    y.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the answers")
    y.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn")
    y.add_argument(
        "--by", metavar="WHAT", help="verify: answer, program, consistency; balance: a column"
    )
    y.add_argument("--field", default="question", metavar="COLUMN", help="what is looked at")
    y.add_argument("--truth", default="answer", metavar="COLUMN", help="the known answer")
    y.add_argument("--sandbox", action="store_true", help="verify: run any Python, shut in")
    y.add_argument("--least", type=float, metavar="X", help="words, or the share of a majority")
    y.add_argument("--most", type=int, metavar="N", help="words, or rows of a value")
    y.add_argument("--threshold", type=float, metavar="P", help="near duplicates from here (0.8)")
    y.add_argument("--tests", metavar="FILE", help="decontaminate: the test's rows")
    y.add_argument("--longest", type=int, default=13, metavar="N", help="words of a run that match")
    y.add_argument("--shares", default="train=0.9,validation=0.05,test=0.05", metavar="A=P,...")
    y.set_defaults(run=synthesize)

    b = commands.add_parser(
        "label",
        allow_abbrev=False,
        parents=[common],
        help="from texts without labels and a list of labels to a student",
        description="A teacher that one can talk to labels texts; a student learns from it. Any "
        "further --name value is a setting of the student's budget: --epochs 30 --lr 0.01",
    )
    b.add_argument("--labels", required=True, metavar="JSON", help="names with definitions")
    b.add_argument("--data", required=True, metavar="FILE", help="texts: CSV, Parquet, JSONL, text")
    b.add_argument("--text", metavar="COLUMN", help="text column")
    b.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible; or zero-shot, built in")
    b.add_argument("--model", metavar="NAME", help="the endpoint's model")
    b.add_argument("--key-env", metavar="VAR", help="environment variable that holds the key")
    b.add_argument("--budget", type=float, metavar="MONEY", help="spend at most this")
    b.add_argument("--prices", metavar="IN,OUT", help="of a million tokens read and written")
    b.add_argument("--ledger", metavar="FILE", help="kept answers (default: beside the run folder)")
    b.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests at a time")
    b.add_argument("--plan", action="store_true", help="show prompts, estimate the cost; then stop")
    b.add_argument(
        "--soft",
        nargs="?",
        const="auto",
        choices=("auto", "logprobs", "votes"),
        help="learn probabilities: of the answer's tokens, else of repeated answers",
    )
    b.add_argument("--votes", type=int, metavar="N", help="answers a text (with --soft: 5)")
    b.add_argument("--least", type=float, default=0.0, metavar="P", help="drop less confident rows")
    b.add_argument(
        "--gold", metavar="N", help="draw a sheet of N texts for people to label, or their CSV"
    )
    b.add_argument("--first", type=int, default=100, metavar="N", help="texts of the first round")
    b.add_argument("--every", action="store_true", help="label every text, whatever it gains")
    b.add_argument(
        "--student", metavar="MODEL", help="a family, or a Hugging Face encoder's folder"
    )
    b.add_argument("--max-length", type=int, default=128, metavar="N", help="tokens of a text")
    b.add_argument("--seed", type=int, default=0, metavar="N", help="of the division and training")
    b.add_argument("--out", metavar="DIR", help="run folder (default: runs/label-NAME, numbered)")
    b.add_argument("--resume", action="store_true", help="continue the run folder, or start it")
    b.add_argument("--overwrite", action="store_true", help="replace the run folder")
    b.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)")
    b.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    b.set_defaults(run=label)


def label(given: Any) -> int:
    """From texts and a list of labels to a student."""
    from understudy import api

    set_threads(given)
    out = run_folder(given, f"label-{Path(given.data).stem}")
    common: dict[str, Any] = {
        "endpoint": given.endpoint, "model": given.model, "key_env": given.key_env,
        "budget": given.budget, "prices": prices_of(given.prices), "ledger": given.ledger,
        "text": given.text, "soft": given.soft or False, "votes": given.votes, "out": out,
        "seed": given.seed,
    }  # fmt: skip
    if given.plan:
        from understudy.reporting.labels import plan_text

        kept = "://" in (given.endpoint or "")
        show_text(plan_text(api.label_plan(given.data, given.labels, **common), kept))
        return 0
    if given.student is not None:
        common["student"] = given.student
    gold = given.gold
    with Bars(given) as progress:
        run = api.label(
            given.data,
            given.labels,
            **common,
            concurrency=given.concurrency,
            gold=int(gold) if gold is not None and gold.isdigit() else gold,
            first=given.first,
            every=given.every,
            least=given.least,
            max_length=given.max_length,
            resume=given.resume,
            overwrite=given.overwrite,
            device=given.device,
            callbacks=[progress],
            progress=progress.count,
            command=given.line,
            **given.extra,
        )
    show_text(run.table())
    show(f"run folder: {out}   report: {out / 'report.html'}")
    return 0


def ledger(given: Any) -> int:
    """Show, export or prune a ledger."""
    from dataclasses import asdict

    from understudy.reporting.ledger import failures_table, ledger_table, seconds_of
    from understudy.store.ledger import Ledger

    if (given.action == "export") != (given.out is not None):
        raise UserError("export, and it alone, takes --out FILE (.jsonl or .parquet)")
    older = None if given.older_than is None else seconds_of(given.older_than)
    if given.action != "prune" and (older is not None or given.model or given.failures):
        raise UserError("--older-than, --model and --failures say what to prune")
    with Ledger(given.path, make=False) as ledger:
        if given.action == "export":
            found = {"answers": ledger.export(given.out), "file": given.out}
            said = f"{found['answers']:,} answers: {given.out}"
        elif given.action == "prune":
            found = ledger.prune(older_than=older, model=given.model, failures=given.failures)
            what = "failures" if given.failures else "answers"
            said = f"forgotten: {found[what]:,} {what}; {found['bytes'] / 1e6:.1f} MB freed"
        elif given.action == "failures":
            listed = ledger.failures(given.limit)
            found = [asdict(f) for f in listed]
            said = failures_table(listed) if listed else "no failures"
        else:
            found = ledger.stats()
            size = Path(given.path).stat().st_size
            said = ledger_table(found, size) if found else "no answers yet"
        show(json.dumps(found, indent=2) if given.json else said)
    return 0


def synthesize(given: Any) -> int:
    """Run one stage over a file of rows."""
    from understudy.api.synthesizing import synthesize

    teacher = None
    if given.stage == "generate" and given.endpoint == "school":
        from understudy.tasks.school.talking import school_chat

        teacher = school_chat()
    elif given.stage == "generate" and given.endpoint is not None:
        from understudy.teachers.chat import ChatEndpoint, Spending

        if given.model is None:
            raise UserError("--endpoint needs the model's name there: --model NAME")
        spending = None if given.budget is None else Spending(money=given.budget)
        ledger = given.ledger or f"{given.out}.ledger.sqlite"
        teacher = ChatEndpoint(
            given.endpoint, given.model, key_env=given.key_env, ledger=ledger, spending=spending,
            prices=prices_of(given.prices),
        )  # fmt: skip
    names = ("prompt", "n", "temperature", "seed", "by", "field", "truth", "sandbox", "least",
             "most", "threshold", "tests", "longest", "shares")  # fmt: skip
    options = {n: getattr(given, n) for n in names}
    for found in synthesize(given.stage, given.source, given.out, teacher=teacher, **options):
        show(f"{len(found.rows)} rows kept; {found.dropped}")
        for drop in found.dropped.rows if given.stage == "decontaminate" else ():
            show(f"  {drop.id}: {drop.evidence}")
        if found.spent.requests:
            cost = "" if found.spent.cost is None else f", {found.spent.cost:.4f} spent"
            show(f"{found.spent.requests} answers, {found.spent.tokens} tokens{cost}")
        if not found.spent.complete:
            show("the budget is spent; the same command goes on where there is more")
    show(f"rows: {given.out}")
    return 0
