"""`understudy distill | compare | check | run`."""

import json
import sys
from pathlib import Path
from typing import Any

from understudy.cli.shared import Bars, run_folder, seeds_of, set_threads, show, show_run, show_text
from understudy.errors import UserError, unknown


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


def distill(given: Any) -> int:
    """Teach a student."""
    from understudy import api

    set_threads(given)
    setting, own = _setting(given)
    if given.show_example:
        from understudy.reporting.marked import show_example

        show_text(show_example(setting, colour=sys.stdout.isatty()))
        return 0
    method = given.method or (setting.method if setting.teachers else "alone")
    # a language model takes minutes where digits take seconds
    seeds = seeds_of(given, 1 if own or setting.kind == "language" else 3)
    if given.plan:
        controls = (not own) if given.controls is None else given.controls
        if given.metric is not None:
            from understudy.settings import with_metric

            setting = with_metric(setting, given.metric)
        rows = api.plan(
            setting, method, seeds=seeds, controls=controls, device=given.device, **given.extra
        )
        show(_plan_table(rows))
        return 0
    out = run_folder(given, f"{setting.name}-{Path(method.split(':')[0]).stem}")
    controls = given.controls
    if controls is None and own:
        controls = given.budget is not None
    with Bars(given) as progress:
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
    return show_run(run)


def compare(given: Any) -> int:
    """Play a league."""
    from understudy import api
    from understudy.league.settings import for_league

    set_threads(given)
    names = _league_methods(given)
    options, seconds = _league_budget(given)
    setting = for_league(
        given.setting, protocol=given.protocol, data_dir=given.data_dir, options=options
    )
    if given.metric is not None:
        from understudy.settings import with_metric

        setting = with_metric(setting, given.metric)
    out = run_folder(given, f"league-{setting.name}")
    shard = _shard(given.shard)
    with Bars(given) as progress:
        run = api.compare(
            setting,
            names,
            seeds=seeds_of(given, 3),
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
    return show_run(run)


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


def check(given: Any) -> int:
    """Check an objective of one's own."""
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
        show(table)
    return 0 if found.passed else 2


def run(given: Any) -> int:
    """Run a recipe by name or file."""
    from understudy import api

    set_threads(given)
    spec = given.recipe
    if spec.endswith(".py"):
        spec = f"{spec}:{_only_recipe(spec)}"
    name, function = api.method_of(spec)
    out = run_folder(given, name + ("-smoke" if given.smoke else ""))
    with Bars(given) as progress:
        run = api.play(
            function,
            name=name,
            out=out,
            seeds=seeds_of(given, 1),
            resume=given.resume,
            overwrite=given.overwrite,
            device=given.device,
            callbacks=[progress],
            command=given.line,
            smoke=given.smoke,
            **given.extra,
        )
    return show_run(run)


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
