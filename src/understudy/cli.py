"""The command line: `understudy distill | compare | run | methods | signals | export | report`."""

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.errors import UserError, unknown

EPILOG = """\
examples:
  understudy distill                      the built-in task digits, in a minute
  understudy distill --teacher DIR --student resnet8 --data images/ --epochs 30
  understudy compare digits --methods kd,dkd,./mine.py:my_loss --seeds 5
  understudy methods dkd                  a method's card
  understudy run mine.py --set epochs=5 --out runs/mine --resume
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0 well, 2 wrong input, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    given, extra = _parser().parse_known_args(arguments)
    if given.command is None:
        _parser().print_help()
        return 0
    given.line = "understudy " + shlex.join(arguments)
    try:
        given.extra = _options(extra, given)
        given = _resumed(given, arguments)
        return int(given.run(given) or 0)
    except UserError as e:
        if given.debug:
            raise
        print(f"understudy: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if given.debug:
            raise
        print("understudy: stopped at once; what was saved is whole", file=sys.stderr)
        return 130
    except Exception as e:
        from understudy.training.interrupt import Interrupted

        if not isinstance(e, Interrupted) or given.debug:
            raise
        again = f": understudy {given.command} --out {given.place} --resume"
        print(f"understudy: stopped after saving; go on with{again}", file=sys.stderr)
        return 130
    finally:
        if "understudy.training.distribution" in sys.modules:
            from understudy.training.distribution import leave

            leave()


_FREE = {"out", "resume", "overwrite", "quiet", "debug", "device", "threads", "seeds", "track",
         "budget", "controls", "strategy", "set", "ledger", "concurrency"}  # fmt: skip
"""What a continued run may be given otherwise than it was started with."""


def _resumed(given: Any, arguments: list[str]) -> Any:
    """With --resume, the arguments that the run was started with, and those given now over them."""
    place = _place(given)
    path = None if place is None else place / "config.json"
    if path is None or not path.is_file():
        return given
    try:
        line = json.loads(path.read_text(encoding="utf-8")).get("command") or ""
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({e}): the run cannot be continued") from None
    stored = shlex.split(line)[1:]
    if not stored:
        return given
    if stored[0] != given.command:
        raise UserError(f"{place} is a run of `understudy {stored[0]}`, not of {given.command}")
    before, extra = _parser().parse_known_args(stored)
    options = _options(extra, before) | given.extra
    for name, value in _explicit(arguments).items():
        old = getattr(before, name, None)
        if name not in _FREE and value != old:
            flag = name.replace("_", "-")
            was = f"with --{flag} {old}" if old not in (None, False) else f"without --{flag}"
            raise UserError(
                f"{place} was started {was}, and --{flag} {value} is given now; leave it out, or "
                "name another --out"
            )
        setattr(before, name, value)
    line = _amended(shlex.split(line), _explicit(arguments))
    before.extra, before.line, before.out = options, line, str(place)
    return before


def _amended(words: list[str], now: dict[str, Any]) -> str:
    """The command that a continued run now answers to: more seeds than it was started with."""
    for name in ("seeds", "jobs"):
        if name not in now:
            continue
        if (flag := f"--{name}") in words:
            del words[words.index(flag) : words.index(flag) + 2]
        words += [flag, str(now[name])]
    return shlex.join(words)


def _place(given: Any) -> Path | None:
    """The folder that --resume means: the one named, or the newest of the default's name."""
    if not getattr(given, "resume", False) or given.out is None:
        return None
    return Path(given.out)


def _explicit(arguments: list[str]) -> dict[str, Any]:
    """What was said on the command line, without defaults."""
    parser = _parser()
    choices = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
    for sub in choices.values():
        sub._defaults = {}
        for action in sub._actions:
            action.default = argparse.SUPPRESS
    found = vars(parser.parse_known_args(arguments)[0])
    return {k: v for k, v in found.items() if k not in ("command", "run")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="understudy",
        description="Teacher-student learning: the small student that does the teacher's job.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"understudy {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    # no abbreviations: --temp is a method's setting, not a part of some option
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    common.add_argument("--quiet", action="store_true", help="no progress bars")
    play = argparse.ArgumentParser(add_help=False)
    play.add_argument("--out", metavar="DIR", help="run folder (default: runs/NAME, numbered)")
    play.add_argument("--seeds", type=int, metavar="N", help="how many seeds")
    play.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a setting of the method, the pair or the budget",
    )
    play.add_argument("--resume", action="store_true", help="continue the run folder, or start it")
    play.add_argument("--overwrite", action="store_true", help="replace the run folder")
    play.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:N, mps (default: a GPU if any)"
    )
    play.add_argument("--threads", type=int, metavar="N", help="CPU threads")

    d = commands.add_parser(
        "distill",
        allow_abbrev=False,
        parents=[common, play],
        help="teach a student",
        description="Teach a student. Any further --name value is a setting of "
        "the method or the budget: --temperature 4 --epochs 30 --lr 0.01",
    )
    d.add_argument("--task", metavar="NAME", help="a built-in setting (default: digits)")
    d.add_argument(
        "--teacher",
        metavar="MODEL",
        action="append",
        help="a folder (Hugging Face, a run, stored signals), weights@file.py:function, "
        "a hub name; a family (cnn:width=32) is trained on the labels first, and "
        "--set teachers.teacher.epochs=5 says how long. Several for an ensemble",
    )
    d.add_argument(
        "--student",
        metavar="MODEL",
        help="a family with sizes (cnn:width=8), a folder, file.py:function, a hub name",
    )
    d.add_argument(
        "--new-head",
        action="store_true",
        help="give a Hugging Face student a new head for the data's classes",
    )
    d.add_argument(
        "--data",
        metavar="DATA",
        help="image folder, NPZ, CSV, Parquet, datasets folder or hub name",
    )
    d.add_argument("--data-dir", metavar="DIR", help="where a built-in task's files lie")
    d.add_argument("--target", metavar="COLUMN", help="label column (default: found by name)")
    d.add_argument("--text", metavar="COLUMN", help="text column")
    d.add_argument(
        "--labels",
        metavar="A,B,...",
        help="class names in the order of the teacher's outputs (default: as it says)",
    )
    d.add_argument(
        "--kind", choices=("single", "multi", "regression", "language"), help="kind of task"
    )
    d.add_argument("--image-size", type=int, metavar="N", help="resize images")
    d.add_argument("--class-weights", metavar="W", help="balanced, or one number a class: 1,2,1")
    d.add_argument("--metric", metavar="NAME", help="headline metric (accuracy, f1, auroc, ...)")
    d.add_argument("--method", metavar="NAME", help="a recipe, or file.py:function (default: kd)")
    d.add_argument(
        "--plan", action="store_true", help="time a few updates and print the cost; train nothing"
    )
    d.add_argument(
        "--controls",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="train the student alone and plain KD as well",
    )
    d.add_argument(
        "--budget", metavar="TIME", help="2h: spend it on controls and seeds after the pair"
    )
    d.add_argument(
        "--track", choices=("tensorboard", "mlflow", "wandb"), help="send events to a tracker"
    )
    d.add_argument("--warm-start", metavar="DIR", help="weights that the student starts from")
    d.add_argument(
        "--strategy", choices=("ddp", "fully_shard"), default="ddp", help="under torchrun"
    )
    lm = d.add_argument_group("language models (a causal LM as teacher or student, or --kind)")
    lm.add_argument(
        "--columns",
        metavar="A=B,...",
        help="what columns are called: text=body, prompt=q,completion=a or messages=chat",
    )
    lm.add_argument(
        "--chat", action="store_true", help="prompt and completion as turns in the chat template"
    )
    lm.add_argument("--tokenizer", metavar="DIR", help="folder or hub name (default: the models')")
    lm.add_argument("--max-length", type=int, metavar="N", help="cut texts to N tokens")
    lm.add_argument("--pack", type=int, metavar="N", help="lay texts into rows of N tokens")
    lm.add_argument(
        "--lora",
        metavar="SETTINGS",
        nargs="?",
        const="",
        help="learn adapters alone: r=8,alpha=16,targets=q_proj+v_proj,dropout=0",
    )
    lm.add_argument("--merge", action="store_true", help="save adapters as a whole model")
    lm.add_argument(
        "--show-example", action="store_true", help="print one sample, scored tokens marked; stop"
    )
    d.set_defaults(run=_distill)

    c = commands.add_parser(
        "compare",
        allow_abbrev=False,
        parents=[common, play],
        help="a league of methods on one setting",
        description="Every method with the same teacher, data, views and budget; the "
        "student alone and plain KD are always in. Any further --name value is an "
        "option of the task, the setting or the budget.",
    )
    c.add_argument(
        "setting", nargs="?", default="digits", help="a built-in setting or task (default: digits)"
    )
    c.add_argument("--metric", metavar="NAME", help="headline metric, in place of the task's own")
    c.add_argument(
        "--methods", default=None, metavar="A,B", help="recipes, or file.py:function; 'all'"
    )
    c.add_argument("--wing", metavar="NAME", help="all methods of a wing")
    c.add_argument(
        "--budget", metavar="F=V,...", help="the same for all: epochs=30,lr=0.01; or a time, 2h"
    )
    c.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, one thread each")
    c.add_argument(
        "--shard", default="0/1", metavar="I/N", help="this call's part of the runs, on one folder"
    )
    c.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="trials of each method's settings on validation",
    )
    c.add_argument(
        "--protocol", default="validation", metavar="NAME", help="validation, or published"
    )
    c.add_argument("--data-dir", metavar="DIR", help="where a built-in task's files lie")
    c.set_defaults(run=_compare)

    k = commands.add_parser(
        "check",
        allow_abbrev=False,
        parents=[common],
        help="what an objective has to keep, on your own",
    )
    k.add_argument("objective", help="file.py:function, or the name of an objective")
    k.add_argument("--json", action="store_true", help="as JSON")
    k.set_defaults(run=_check)

    r = commands.add_parser(
        "run", allow_abbrev=False, parents=[common, play], help="run a recipe by name or file"
    )
    r.add_argument("recipe", help="a recipe's name, file.py or file.py:function")
    r.add_argument("--smoke", action="store_true", help="a few updates only")
    r.set_defaults(run=_run)

    m = commands.add_parser(
        "methods", allow_abbrev=False, parents=[common], help="list methods, or show one's card"
    )
    m.add_argument("name", nargs="?", help="a method")
    m.add_argument("--json", action="store_true", help="as JSON")
    m.add_argument("--wing", metavar="NAME", help="only this wing")
    m.set_defaults(run=_methods)

    s = commands.add_parser("signals", allow_abbrev=False, help="teacher signals on disk")
    kinds = s.add_subparsers(dest="action", metavar="ACTION", required=True)
    w = kinds.add_parser(
        "write",
        allow_abbrev=False,
        parents=[common],
        help="run a teacher once and keep what it says",
    )
    w.add_argument(
        "--teacher",
        metavar="MODEL",
        help="a folder, weights@file.py:function, a hub name, a setting's name (its teacher); with "
        "--engine openai the model's name there",
    )
    w.add_argument("--data", metavar="DATA", help="as for distill, or a built-in setting's name")
    w.add_argument("--out", required=True, metavar="DIR", help="the store's folder")
    w.add_argument("--target", metavar="COLUMN", help="label column or array")
    w.add_argument("--text", metavar="COLUMN", help="text column")
    w.add_argument("--image-size", type=int, metavar="N", help="resize images")
    w.add_argument("--classes", type=int, metavar="N", help="where not all occur in the data")
    w.add_argument("--taps", default="", metavar="A,B", help="features to keep beside the logits")
    w.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        help="of what is stored (default: fp32; of texts fp16)",
    )
    w.add_argument("--top-k", type=int, metavar="K", help="keep the K largest only")
    w.add_argument(
        "--batch-size", type=int, metavar="N", help="samples a pass (default: 256, or 32 texts)"
    )
    w.add_argument("--shard", default="0/1", metavar="I/N", help="this worker's part")
    w.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)")
    t = w.add_argument_group("texts (a causal language model as teacher)")
    t.add_argument(
        "--mode",
        choices=("top-k", "sampled", "hidden"),
        help="what is kept of each scored token: the k likeliest tokens (default), drawn tokens, "
        "or the last hidden state, with the head once",
    )
    t.add_argument("--k", type=int, metavar="K", help="tokens that are listed (default: 12)")
    t.add_argument(
        "--tail",
        choices=("uniform", "renormalise", "bucket"),
        help="how those that are not listed are read (default: uniform)",
    )
    t.add_argument(
        "--draws", type=int, metavar="N", help="tokens drawn (default: 50, about 12 different)"
    )
    t.add_argument(
        "--proposal", type=float, metavar="T", help="temperature of what is drawn from (default: 1)"
    )
    t.add_argument("--temperature", type=float, metavar="T", help="of the teacher (default: 1)")
    t.add_argument("--seed", type=int, metavar="N", help="of the draws (default: 0)")
    t.add_argument("--columns", metavar="A=B,...", help="what columns are called, as for distill")
    t.add_argument("--chat", action="store_true", help="as for distill")
    t.add_argument("--tokenizer", metavar="DIR", help="folder or hub name (default: the teacher's)")
    t.add_argument("--max-length", type=int, metavar="N", help="cut texts to N tokens")
    t.add_argument(
        "--engine",
        choices=("transformers", "openai"),
        help="a local model (default), or an OpenAI-compatible endpoint that returns "
        "log-probabilities of a prompt, such as vLLM",
    )
    t.add_argument("--base-url", metavar="URL", help="of the endpoint: http://localhost:8000/v1")
    t.add_argument("--key-env", metavar="NAME", help="environment variable that holds the key")
    t.add_argument("--vocabulary", type=int, metavar="N", help="token ids of the endpoint's model")
    t.add_argument("--load-in-4bit", action="store_true", help="by bitsandbytes, on a GPU")
    t.add_argument("--device-map", metavar="MAP", help="auto: layers over several GPUs")
    w.set_defaults(run=_signals)

    e = commands.add_parser(
        "export", allow_abbrev=False, parents=[common], help="a finished run's student, to deploy"
    )
    e.add_argument("folder", metavar="RUN", help="a run folder")
    e.add_argument(
        "--format", default="onnx", choices=("onnx", "torch-export"), help="default: onnx"
    )
    e.add_argument("--int8", action="store_true", help="quantise to 8 bits")
    e.add_argument("--out", metavar="FILE", help="default: RUN/export/")
    e.add_argument(
        "--data", metavar="DATA", help="data to judge on, where the run does not know it"
    )
    e.add_argument("--target", metavar="COLUMN", help="label column or array")
    e.add_argument("--text", metavar="COLUMN", help="text column")
    e.add_argument(
        "--factory",
        metavar="file.py:function",
        help="what makes the student, where it is of your own code",
    )
    e.add_argument("--max-drop", type=float, metavar="X", help="fail where quality falls by more")
    e.set_defaults(run=_export)

    _add_label(commands, common)
    p = commands.add_parser(
        "report", allow_abbrev=False, parents=[common], help="write a run's report.html again"
    )
    p.add_argument("folder", metavar="RUN", help="a run folder")
    p.set_defaults(run=_report)
    _serve_parser(commands, common)
    _ledger_parser(commands, common)
    return parser


def _ledger_parser(commands: Any, common: Any) -> None:
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
    a.set_defaults(run=_ledger)


def _serve_parser(commands: Any, common: Any) -> None:
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
    v.set_defaults(run=_serve)


def _serve(given: Any) -> int:
    from understudy.serving import serve, teacher_of

    _threads(given)
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


def _add_label(commands: Any, common: argparse.ArgumentParser) -> None:
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
    y.set_defaults(run=_synthesize)

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
    b.set_defaults(run=_label)


def _label(given: Any) -> int:
    from understudy import api

    _threads(given)
    out = _out(given, f"label-{Path(given.data).stem}")
    common: dict[str, Any] = {
        "endpoint": given.endpoint, "model": given.model, "key_env": given.key_env,
        "budget": given.budget, "prices": _prices(given.prices), "ledger": given.ledger,
        "text": given.text, "soft": given.soft or False, "votes": given.votes, "out": out,
        "seed": given.seed,
    }  # fmt: skip
    if given.plan:
        from understudy.reporting.labels import plan_text

        kept = "://" in (given.endpoint or "")
        _print_text(plan_text(api.label_plan(given.data, given.labels, **common), kept))
        return 0
    if given.student is not None:
        common["student"] = given.student
    gold = given.gold
    with _progress(given) as progress:
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
    _print_text(run.table())
    _print(f"run folder: {out}   report: {out / 'report.html'}")
    return 0


def _prices(text: str | None) -> tuple[float, float] | None:
    """`0.15,0.60` as numbers."""
    if text is None:
        return None
    try:
        read, written = (float(p) for p in text.split(","))
    except ValueError:
        raise UserError(
            f"--prices takes what a million tokens cost, read and written: 0.15,0.60, not {text!r}"
        ) from None
    return read, written


def _options(extra: list[str], given: Any) -> dict[str, Any]:
    """`--name value`, `--name=value` and `--set name=value` as a mapping."""
    found: dict[str, Any] = {}
    for pair in getattr(given, "set", []):
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes field=value, not {pair!r}")
        found[name.strip()] = value
    items = list(extra)
    if items and given.command not in ("distill", "compare", "run", "label"):
        raise UserError(f"unknown argument {items[0]!r}; see understudy {given.command} --help")
    while items:
        item = items.pop(0)
        if not item.startswith("--"):
            raise UserError(f"unexpected argument {item!r}; see understudy {given.command} --help")
        name, equals, value = item[2:].partition("=")
        if not equals:
            value = items.pop(0) if items and not items[0].startswith("--") else "true"
        found[name.replace("-", "_")] = value
    return found


def _threads(given: Any) -> None:
    if given.threads is not None:
        if given.threads < 1:
            raise UserError(f"--threads is at least 1, not {given.threads}")
        import torch

        torch.set_num_threads(given.threads)


def _seeds(given: Any, default: int) -> int:
    seeds = default if given.seeds is None else given.seeds
    if seeds < 1:
        raise UserError(f"--seeds is at least 1, not {seeds}")
    return seeds


def _setting(given: Any) -> Any:
    """The setting that the arguments of `distill` describe, and whether it is a user's own."""
    from understudy.api import Setting
    from understudy.settings import for_task, model_folder, own
    from understudy.settings import setting as named

    if given.data is None and given.teacher is None and given.task is None:
        if given.student is not None:
            return named("digits").but(student=model_folder(given.student)), False
        return named("digits"), False
    if given.data is None:
        base: Setting = for_task(given.task or "digits", data_dir=given.data_dir)
        changes = {k: v for k, v in (("student", given.student),) if v is not None}
        if given.teacher is not None:
            changes["teachers.teacher"] = given.teacher[0]
        return base.but(**changes), False
    if given.student is None:
        raise UserError("distill on your own data needs --student, such as --student cnn:width=16")
    weights: Any = given.class_weights
    if weights not in (None, "balanced"):
        try:
            weights = [float(w) for w in weights.split(",")]
        except ValueError:
            raise UserError(f"--class-weights is balanced or numbers, not {weights!r}") from None
    if given.task is not None:
        raise UserError(f"--task {given.task} and --data {given.data} are two tasks; give one")
    chosen = own(
        teacher=given.teacher,
        student=given.student,
        data=given.data,
        target=given.target,
        text=given.text,
        kind=given.kind,
        image_size=given.image_size,
        class_weights=weights,
        new_head=given.new_head,
        labels=given.labels.split(",") if given.labels else None,
        tokenizer=given.tokenizer,
        max_length=given.max_length,
        **_language(given),
    )
    return chosen, True


def _language(given: Any) -> dict[str, Any]:
    """What is said of texts and of adapters."""
    if given.merge and given.lora is None:
        raise UserError("--merge goes with --lora: there are no adapters to merge")
    if given.lora is None and given.columns is None:
        return {"chat": given.chat, "pack": given.pack}
    from understudy.students import LoRA

    adapters = None if given.lora is None else LoRA.parse(given.lora, merge=given.merge)
    return {
        "chat": given.chat,
        "pack": given.pack,
        "columns": _columns(given),
        "adapters": adapters,
    }


def _columns(given: Any) -> dict[str, str] | None:
    """`--columns prompt=q,completion=a` as a mapping."""
    columns = {}
    for pair in filter(None, (given.columns or "").split(",")):
        name, equals, column = pair.partition("=")
        if not equals or not column.strip():
            raise UserError(f"--columns takes name=column,... such as prompt=q, not {pair!r}")
        columns[name.strip()] = column.strip()
    return columns or None


def _distill(given: Any) -> int:
    from understudy import api

    _threads(given)
    setting, own = _setting(given)
    if given.show_example:
        from understudy.reporting.marked import show_example

        _print_text(show_example(setting, colour=sys.stdout.isatty()))
        return 0
    method = given.method or (setting.method if setting.teachers else "alone")
    # a language model takes minutes where digits take seconds
    seeds = _seeds(given, 1 if own or setting.kind == "language" else 3)
    if given.plan:
        controls = (not own) if given.controls is None else given.controls
        if given.metric is not None:
            from understudy.settings import with_metric

            setting = with_metric(setting, given.metric)
        rows = api.plan(
            setting, method, seeds=seeds, controls=controls, device=given.device, **given.extra
        )
        _print(_plan_table(rows))
        return 0
    out = _out(given, f"{setting.name}-{Path(method.split(':')[0]).stem}")
    controls = given.controls
    if controls is None and own:
        controls = given.budget is not None
    with _progress(given) as progress:
        run = api.distill(
            setting=setting,
            method=method,
            out=out,
            seeds=seeds,
            controls=True if controls is None else controls,
            budget=given.budget,
            resume=given.resume,
            overwrite=given.overwrite,
            device=given.device,
            callbacks=[progress],
            track=given.track,
            warm_start=given.warm_start,
            metric=given.metric,
            strategy=given.strategy,
            command=given.line,
            **given.extra,
        )
    return _show(run)


def _compare(given: Any) -> int:
    from understudy import api
    from understudy.league.settings import for_league

    _threads(given)
    names = _league_methods(given)
    options, seconds = _league_budget(given)
    setting = for_league(
        given.setting, protocol=given.protocol, data_dir=given.data_dir, options=options
    )
    if given.metric is not None:
        from understudy.settings import with_metric

        setting = with_metric(setting, given.metric)
    out = _out(given, f"league-{setting.name}")
    shard = _shard(given.shard)
    with _progress(given) as progress:
        run = api.compare(
            setting,
            names,
            seeds=_seeds(given, 3),
            jobs=given.jobs,
            shard=shard,
            tune=given.tune,
            protocol=given.protocol,
            budget=seconds,
            out=out,
            # several calls on one folder go on with what is there
            resume=given.resume or shard[1] > 1,
            overwrite=given.overwrite,
            device=given.device,
            callbacks=[progress],
            command=given.line,
        )
    return _show(run)


def _league_methods(given: Any) -> list[str]:
    """The names that `--methods` and `--wing` come to."""
    from understudy.recipes import recipes
    from understudy.recipes.card import card

    names = [n.strip() for n in (given.methods or "").split(",") if n.strip()]
    if given.wing is not None or names == ["all"]:
        wings = {card(f).wing for f in recipes().values()}
        if given.wing is not None and given.wing not in wings:
            raise unknown("wing", given.wing, wings)
        found = [
            n
            for n, f in recipes().items()
            if card(f).kind == "method" and given.wing in (None, card(f).wing)
        ]
        return found + [n for n in names if n != "all" and n not in found]
    return names or ["kd"]


def _league_budget(given: Any) -> tuple[dict[str, Any], str | None]:
    """`--budget epochs=30,lr=0.01` as options beside the others; a time is a limit."""
    options, text = dict(given.extra), given.budget
    if text is None or "=" not in text:
        return options, text
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--budget takes field=value,... or a time, not {text!r}")
        options[name.strip()] = value.strip()
    return options, None


def _shard(text: str) -> tuple[int, int]:
    part, _, of = text.partition("/")
    if not (part.isdigit() and of.isdigit() and int(part) < int(of)):
        raise UserError(f"--shard is i/n with i from 0 to n - 1, not {text!r}")
    return int(part), int(of)


def _check(given: Any) -> int:
    from understudy.checking import check

    found = check(given.objective)
    if given.json:
        print(json.dumps(found.json(), indent=2))
    else:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, caption=found.summary, caption_justify="left")
        for column in ("row", "", "what was seen"):
            table.add_column(column)
        for row in found.rows:
            table.add_row(row.name, row.outcome, row.detail)
        _print(table)
    return 0 if found.passed else 2


def _run(given: Any) -> int:
    from understudy import api

    _threads(given)
    spec = given.recipe
    if spec.endswith(".py"):
        spec = f"{spec}:{_only_recipe(spec)}"
    name, function = api.method_of(spec)
    out = _out(given, name + ("-smoke" if given.smoke else ""))
    with _progress(given) as progress:
        run = api.play(
            function,
            name=name,
            out=out,
            seeds=_seeds(given, 1),
            resume=given.resume,
            overwrite=given.overwrite,
            device=given.device,
            callbacks=[progress],
            command=given.line,
            smoke=given.smoke,
            **given.extra,
        )
    return _show(run)


def _only_recipe(path: str) -> str:
    """The name of the recipe in a file: the one that is called as the file, or the only one."""
    from understudy.recipes import _returns_recipe
    from understudy.students.load import functions_of

    found = [n for n, f in functions_of(path).items() if _returns_recipe(f)]
    stem = Path(path).stem
    if stem in found or len(found) == 1:
        return stem if stem in found else found[0]
    if not found:
        raise UserError(f"{path} has no recipe: a function (setting=None, *, ...) -> Recipe")
    raise UserError(f"{path} has several recipes; say which: {path}:{' or :'.join(found)}")


def _methods(given: Any) -> int:
    from understudy.recipes import recipe, recipes
    from understudy.recipes.card import card

    if given.name is not None:
        found = card(recipe(given.name))
        _print(json.dumps(found.json(), indent=2) if given.json else _card_text(found))
        return 0
    cards = [card(f) for f in recipes().values()]
    cards = [c for c in cards if given.wing in (None, c.wing)]
    if given.json:
        print(json.dumps([c.json() for c in cards], indent=2))
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "wing", "kind", "title"):
        table.add_column(column, no_wrap=column != "title")
    for c in cards:
        table.add_row(c.name, c.wing, c.kind, c.title)
    _print(table)
    return 0


_TEXTS = ("mode", "k", "tail", "draws", "proposal", "temperature", "seed", "engine", "base_url",
          "key_env", "vocabulary", "load_in_4bit", "device_map")  # fmt: skip
"""What is said of signals of texts."""


def _signals(given: Any) -> int:
    from understudy import api

    shard = _shard(given.shard)
    with _progress(given) as progress:
        text = api.write_signals(
            given.teacher,
            given.data,
            given.out,
            target=given.target,
            text=given.text,
            image_size=given.image_size,
            classes=given.classes,
            tokenizer=given.tokenizer,
            max_length=given.max_length,
            chat=given.chat or None,
            columns=_columns(given),
            texts={n: v for n in _TEXTS if (v := getattr(given, n)) is not None and v is not False},
            taps=tuple(t for t in given.taps.split(",") if t),
            dtype=given.dtype,
            top_k=given.top_k,
            batch_size=given.batch_size,
            shard=shard,
            device=given.device,
            progress=progress.count,
        )
    _print(text)
    return 0


def _export(given: Any) -> int:
    from understudy import api

    result = api.export_run(
        given.folder,
        format=given.format,
        int8=given.int8,
        out=given.out,
        data=given.data,
        target=given.target,
        text=given.text,
        max_drop=given.max_drop,
        factory=given.factory,
    )
    _print(result.table())
    if result.exceeded:
        print(f"understudy: quality fell by more than --max-drop {given.max_drop}", file=sys.stderr)
        return 1
    return 0


def _ledger(given: Any) -> int:
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
        _print(json.dumps(found, indent=2) if given.json else said)
    return 0


def _synthesize(given: Any) -> int:
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
            prices=_prices(given.prices),
        )  # fmt: skip
    names = ("prompt", "n", "temperature", "seed", "by", "field", "truth", "sandbox", "least",
             "most", "threshold", "tests", "longest", "shares")  # fmt: skip
    options = {n: getattr(given, n) for n in names}
    for found in synthesize(given.stage, given.source, given.out, teacher=teacher, **options):
        _print(f"{len(found.rows)} rows kept; {found.dropped}")
        for drop in found.dropped.rows if given.stage == "decontaminate" else ():
            _print(f"  {drop.id}: {drop.evidence}")
        if found.spent.requests:
            cost = "" if found.spent.cost is None else f", {found.spent.cost:.4f} spent"
            _print(f"{found.spent.requests} answers, {found.spent.tokens} tokens{cost}")
        if not found.spent.complete:
            _print("the budget is spent; the same command goes on where there is more")
    _print(f"rows: {given.out}")
    return 0


def _report(given: Any) -> int:
    from understudy.reporting import report

    _print(f"report: {report(Path(given.folder))}")
    return 0


def _out(given: Any, name: str) -> Path:
    """The run folder: as named, or `runs/NAME`, numbered; --resume, --overwrite mean the last."""
    given.place = given.out
    if given.out is None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("several processes need one run folder: give --out")
        base = Path("runs") / "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name)
        number, path, last = 1, base, base
        while path.exists():
            number += 1
            last, path = path, base.with_name(f"{base.name}-{number}")
        given.place = last if number > 1 and (given.resume or given.overwrite) else path
    return Path(given.place)


def _show(run: Any) -> int:
    from understudy.training.distribution import rank

    if rank() != 0:
        return 0
    if run.summary.get("figures"):
        from understudy.reporting.study import figures_table

        _print_text(figures_table(run.summary["figures"]))
    if run.summary.get("arms"):
        _print_text(run.table())
    if run.folder is not None:
        pages = (("report", "report.html"), ("plots", "study.png"))
        where = "".join(f"   {n}: {run.folder / f}" for n, f in pages if (run.folder / f).is_file())
        _print(f"\nrun folder: {run.folder}{where}")
    return 0


def _print(thing: Any) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(thing, str)).print(
        thing, markup=False
    ) if isinstance(thing, str) else Console(highlight=False).print(thing)


def _print_text(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def _card_text(card: Any) -> str:
    import textwrap

    lines = [card.title, f"{card.name} · {card.kind} · wing {card.wing} · {card.recipe}", ""]
    lines += [*textwrap.wrap(card.summary, 96), ""]
    for name, value in card.fields.items():
        lines += textwrap.wrap(f"{name}: {value}", 96, subsequent_indent="    ")
    return "\n".join(lines)


def _plan_table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="plan: nothing was trained", title_justify="left")
    for column in (
        "arm",
        "stage",
        "updates",
        "ms/update",
        "time",
        "teacher",
        "memory MB",
        "disk MB",
        "money",
    ):
        table.add_column(column, justify="left" if column in ("arm", "stage") else "right")
    total = 0.0
    for row in rows:
        if "note" in row:
            table.add_row(row["arm"], row["note"])
            continue
        total += row["seconds"]
        table.add_row(
            row["arm"],
            row["stage"],
            str(row["updates"]),
            f"{row['step_ms']:.1f}",
            _duration(row["seconds"]),
            f"{100 * row['teacher_share']:.0f} %",
            f"{row['memory_mb']:.0f}",
            f"{row['disk_mb']:.1f}",
            "0",
        )
    table.add_section()
    table.add_row("all", "", "", "", _duration(total))
    return table


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


class _progress:  # noqa: N801
    """Bars while models train: one for the arm in hand, described by its last validation."""

    def __init__(self, given: Any) -> None:
        self.quiet = given.quiet
        self.bar: Any = None

    def __enter__(self) -> "_progress":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        if not self.quiet and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self.bar.start()
        self.tasks: dict[Any, Any] = {}
        self.updated = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if self.quiet:
            return
        if self.bar is None:
            if kind == "validate" and fields.get("last"):
                self._line(fields)
            return
        key = (fields["arm"], fields["seed"], fields["stage"])
        if key not in self.tasks:
            for old in self.tasks.values():
                self.bar.remove_task(old)
            name = (
                fields["arm"]
                if fields["arm"] == fields["stage"]
                else f"{fields['arm']} {fields['stage']}"
            )
            self.tasks = {
                key: self.bar.add_task(f"{name}, seed {fields['seed']}", note="", total=None)
            }
        if kind == "update":
            self.bar.update(self.tasks[key], completed=fields["step"], total=fields["total"])
        elif kind == "validate":
            shown = [f"{k} {v:.3f}" for k, v in fields["measures"].items() if k != "score"]
            self.bar.update(self.tasks[key], note=" ".join(shown))

    def _line(self, fields: dict[str, Any]) -> None:
        shown = " ".join(f"{k} {v:.4f}" for k, v in fields["measures"].items() if k != "score")
        print(f"{fields['arm']} seed {fields['seed']} {fields['stage']}: {shown}", file=sys.stderr)

    def count(self, done: int, total: int) -> None:
        """Progress of a job that is counted in samples."""
        if self.bar is None:
            return
        if "count" not in self.tasks:
            self.tasks["count"] = self.bar.add_task("samples", note="", total=total)
        self.bar.update(self.tasks["count"], completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
