"""What may be said on the command line."""

import argparse

from understudy import __version__
from understudy.cli.artefacts import export, methods, report, signals
from understudy.cli.talking import add_data, add_ledger, add_serve
from understudy.cli.training import check, compare, distill, run

EPILOG = """\
examples:
  understudy distill                      the built-in task digits, in a minute
  understudy distill --teacher DIR --student resnet8 --data images/ --epochs 30
  understudy compare digits --methods kd,dkd,./mine.py:my_loss --seeds 5
  understudy methods dkd                  a method's card
  understudy run mine.py --set epochs=5 --out runs/mine --resume
"""


def new_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
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
    d.set_defaults(run=distill)

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
    c.set_defaults(run=compare)

    k = commands.add_parser(
        "check",
        allow_abbrev=False,
        parents=[common],
        help="what an objective has to keep, on your own",
    )
    k.add_argument("objective", help="file.py:function, or the name of an objective")
    k.add_argument("--json", action="store_true", help="as JSON")
    k.set_defaults(run=check)

    r = commands.add_parser(
        "run", allow_abbrev=False, parents=[common, play], help="run a recipe by name or file"
    )
    r.add_argument("recipe", help="a recipe's name, file.py or file.py:function")
    r.add_argument("--smoke", action="store_true", help="a few updates only")
    r.set_defaults(run=run)

    m = commands.add_parser(
        "methods", allow_abbrev=False, parents=[common], help="list methods, or show one's card"
    )
    m.add_argument("name", nargs="?", help="a method")
    m.add_argument("--json", action="store_true", help="as JSON")
    m.add_argument("--wing", metavar="NAME", help="only this wing")
    m.set_defaults(run=methods)

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
    w.set_defaults(run=signals)

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
    e.set_defaults(run=export)

    add_data(commands, common)
    p = commands.add_parser(
        "report", allow_abbrev=False, parents=[common], help="write a run's report.html again"
    )
    p.add_argument("folder", metavar="RUN", help="a run folder")
    p.set_defaults(run=report)
    add_serve(commands, common)
    add_ledger(commands, common)
    return parser
