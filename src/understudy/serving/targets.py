"""What `understudy serve` is told to serve."""

from pathlib import Path
from typing import Any

from understudy.errors import UserError, nearest
from understudy.teachers.chat import ChatTeacher
from understudy.teachers.chat.local import LocalChat

TARGETS = ("school", "zero-shot", "entailment")


def teacher_of(
    target: str, *, device: str | None = None, batch_size: int = 64
) -> tuple[str, ChatTeacher]:
    """(name, teacher) of a name in `TARGETS`, a run folder, or the folder of a model.

    Served are causal language models and classifiers of texts (`Labeller`). A model of the school
    world answers as `school_chat` does. A folder called like a target is
    written `./school`.
    """
    if target == "school":
        from understudy.tasks.school.talking import school_chat

        return "school", school_chat(batch_size=batch_size)
    if target in TARGETS:
        from understudy.teachers.experts import expert

        return target, expert(target)
    folder = Path(target)
    if not folder.is_dir():
        raise UserError(f"no folder {target!r} to serve{nearest(target, TARGETS)}")
    name = folder.resolve().name
    if (folder / "student").is_dir():
        folder = folder / "student"
    return name, _of_folder(folder, name, device, batch_size)


def _of_folder(folder: Path, name: str, device: str | None, batch_size: int) -> ChatTeacher:
    import torch

    from understudy.students import is_causal_lm, load_model, load_tokenizer

    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not is_causal_lm(str(folder)):
        from understudy.serving.labeller import Labeller

        return Labeller(folder, name=name, device=place, batch_size=batch_size)
    tokenizer = load_tokenizer(str(folder))
    if tokenizer is None:
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json); put the model's own there")
    model: Any = load_model(folder)
    # processors compute in single precision; half is slow there
    model = (model.float() if place == "cpu" else model).to(place).eval()
    from understudy.tasks.school.talking import SchoolChat
    from understudy.tasks.school.tokens import tokenizer as of_school

    same = getattr(tokenizer, "get_vocab", dict)() == of_school().get_vocab()
    if same and not getattr(tokenizer, "chat_template", None):
        return SchoolChat(model, name=name, batch_size=batch_size)
    return LocalChat(model, tokenizer, name=name, batch_size=batch_size)
