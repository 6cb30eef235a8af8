"""A language model behind an OpenAI-compatible endpoint, that says how likely our texts are."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.errors import DataError, SignalError, UserError
from understudy.objectives import Needs
from understudy.signals import Batch, Signals, Sparse, Tail
from understudy.store import describe
from understudy.store.signals import device_of
from understudy.teachers.base import Gives, combined
from understudy.teachers.server import Refused, Server

_NEVER = -9998.0
"""vLLM writes -9999 for a log-probability of minus infinity, which JSON does not have."""
_TOKEN_ID = "token_id:"

Top = list[tuple[float, int]]
"""Log-probability and id of the tokens listed at one position, the likeliest first."""


class Endpoint:
    """The k likeliest next tokens at every scored position, from a server's completions API.

    The text goes as token ids (one request a text), and comes back either with `prompt_logprobs`
    (vLLM and its kin) or, asked by `echo` and `logprobs`, with `logprobs.top_logprobs`. Every token
    that the server read is compared with ours.

    server:     where it is; a base URL will do where no key is needed
    model:      the model's name there
    vocabulary: token ids there are
    k:          how many to ask for; a server that gives fewer is an error
    form:       `prompt_logprobs` or `echo`; `auto` asks for the first, and for the second where
                the answer does not have it
    tokenizer:  turns the strings of an `echo` into ids where the server sends no ids
    tail:       how the tokens that are not listed are taken; see `Sparse`
    at_once:    requests that are under way at a time
    """

    def __init__(
        self,
        server: Server | str,
        model: str,
        *,
        vocabulary: int,
        k: int = 12,
        form: Literal["auto", "prompt_logprobs", "echo"] = "auto",
        tokenizer: Any = None,
        tail: Literal["uniform", "renormalise", "bucket"] = "uniform",
        at_once: int = 8,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.server = Server(base_url=server) if isinstance(server, str) else server
        self.model, self.vocabulary, self.k, self.form = model, vocabulary, k, form
        self.tokenizer, self.at_once = tokenizer, at_once
        self.tail: Tail = tail
        self.extra = dict(extra or {})
        if not 1 <= k <= vocabulary:
            raise UserError(f"k lies in 1 ... {vocabulary} (the vocabulary), not {k}")
        self.gives = Gives(k=k, features=(), graph=False, head=False, tail=tail)
        self._strings: dict[str, int | None] = {}
        self._enough = False  # whether it is known to list k beside a text's own token

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Refuse an objective that needs more than k log-probabilities."""
        self.gives.refuse(needs, f"{self.model} at {self.server.base_url}")

    def modules(self) -> Mapping[str, nn.Module]:
        """None: the model is elsewhere."""
        return {}

    def fingerprint(self) -> str:
        """Of the address and the model's name; what weights it has there is not known."""
        parts = [self.server.base_url.rstrip("/"), self.model, describe(self.extra)]
        return combined("Endpoint", parts)

    def signals(self, batch: Batch) -> Signals:
        """Sparse logits [N, L, k]; positions that are not scored are uniform."""
        if batch.mask is None or batch.labels is None:
            raise SignalError("an endpoint is asked about scored tokens: the batch has no mask")
        texts = _texts(batch)
        with ThreadPoolExecutor(max(1, min(self.at_once, len(texts)))) as pool:
            try:
                listed = list(pool.map(self.listed, texts))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # no request is begun that nobody reads
                raise
        mask = batch.mask.cpu()
        ids = torch.arange(self.k).repeat(*mask.shape, 1)
        values = torch.full(ids.shape, -math.log(self.vocabulary))
        for row, tops in enumerate(listed):
            for place in mask[row].nonzero().flatten().tolist():
                top = tops[place + 1]
                ids[row, place] = torch.tensor([i for _, i in top])
                values[row, place] = torch.tensor([v for v, _ in top])
        said = Sparse(ids=ids, values=values, size=self.vocabulary, tail=self.tail)
        return Signals(logits=said).to(device_of(batch.inputs))

    def listed(self, tokens: Sequence[int]) -> list[Top]:
        """For each token of a text what was likely in its place; nothing for the first."""
        form, refused = self.form, None
        if form != "echo":
            try:
                choice = self._asked(tokens, {"prompt_logprobs": self.k})
            except Refused as error:
                if form != "auto" or error.code not in (400, 422):
                    raise
                choice, refused = {}, error  # a server that knows no such field, perhaps
            said = choice.get("prompt_logprobs")
            if isinstance(said, list):
                return self._of_prompt(tokens, said)
            if form == "prompt_logprobs":
                raise DataError(f"{self._who} gives no prompt_logprobs; try form='echo'")
        asked = {"echo": True, "logprobs": self.k, "return_tokens_as_token_ids": True}
        try:
            said = self._asked(tokens, asked).get("logprobs")
        except Refused as error:
            raise refused or error from None
        if not isinstance(said, dict) or not isinstance(said.get("top_logprobs"), list):
            raise DataError(
                f"{self._who} gives no log-probabilities of a prompt, neither prompt_logprobs nor "
                "top_logprobs with echo; serve the model with vLLM, or write signals of a local one"
            )
        self.form = "echo"
        return self._of_echo(tokens, said)

    @property
    def _who(self) -> str:
        return f"{self.model} at {self.server.base_url}"

    def _asked(self, tokens: Sequence[int], what: Mapping[str, Any]) -> dict[str, Any]:
        request = {
            "model": self.model,
            "prompt": list(tokens),
            "max_tokens": 1,  # none at all is refused by some
            "temperature": 1.0,
            **what,
            **self.extra,
        }
        choices = self.server.post("completions", request).get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise DataError(f"{self._who} gave an answer without choices")
        return choices[0]

    def _of_prompt(self, tokens: Sequence[int], said: list[Any]) -> list[Top]:
        """`prompt_logprobs`: None, then per token {id: {"logprob": ...}} of it and of the top k."""
        if len(said) != len(tokens):
            raise self._other_tokens(len(said), len(tokens))
        listed, ranks = [], []
        for place in range(1, len(tokens)):
            entry = said[place] or {}
            there = {int(i): _number(v) for i, v in entry.items()}
            if tokens[place] not in there:
                raise self._other_token(place, tokens[place], f"none of {sorted(there)[:5]}")
            own = entry.get(str(tokens[place]))
            ranks.append(own.get("rank") if isinstance(own, Mapping) else None)
            listed.append(there)
        return [[], *self._tops(tokens, listed, ranks)]

    def _of_echo(self, tokens: Sequence[int], said: Mapping[str, Any]) -> list[Top]:
        """`tokens` and `top_logprobs` of prompt and completion, as strings or `token_id:17`."""
        names, tops = said.get("tokens") or [], said["top_logprobs"]
        if len(names) < len(tokens) or len(tops) < len(tokens):
            raise self._other_tokens(min(len(names), len(tops)), len(tokens))
        for place, token in enumerate(tokens):
            if self._id(str(names[place])) not in (token, None):
                raise self._other_token(place, token, repr(names[place]))
        if len(names) > len(tokens) + 1:
            raise self._other_tokens(len(names) - 1, len(tokens))
        listed = []
        for place in range(1, len(tokens)):
            there: dict[int, float] = {}
            for name, value in (tops[place] or {}).items():
                known = self._id(str(name))
                if known is None:
                    raise DataError(
                        f"{self._who} lists the token {name!r}, which is the text of several ids "
                        "or of none of our tokenizer; have it send ids "
                        "(return_tokens_as_token_ids), or serve it with prompt_logprobs"
                    )
                there[known] = _number(value)
            listed.append(there)
        return [[], *self._tops(tokens, listed, [None] * len(listed))]

    def _tops(
        self,
        tokens: Sequence[int],
        listed: Sequence[Mapping[int, float]],
        ranks: Sequence[int | None],
    ) -> list[Top]:
        """The k likeliest at every place, of those and perhaps the text's own token beside them.

        With k listed in all, the own token last among them, it may stand beside k - 1 of a server
        that gives no more. Its rank tells; or another place of the text does.
        """
        enough, most = self._enough, 0
        for token, there, rank in zip(tokens[1:], listed, ranks, strict=True):
            least = min(there, key=lambda i: (there[i], -i)) if there else token
            count = len(there) - (least == token)
            enough = enough or count >= self.k or len(there) == self.k == rank
            most = max(most, count)
        for place, there in enumerate(listed):
            if len(there) < self.k or (not enough and len(there) == self.k):
                raise self._too_few(most, place + 1)
        found = [self._top(there, place + 1) for place, there in enumerate(listed)]
        self._enough = enough
        return found

    def _top(self, there: Mapping[int, float], place: int) -> Top:
        wrong = next((i for i in there if not 0 <= i < self.vocabulary), None)
        if wrong is not None:
            raise DataError(
                f"{self._who} lists the token {wrong}, and the vocabulary has {self.vocabulary}: "
                "name the size of the model's own (with its padding)"
            )
        # the token itself may be listed beside the k likeliest
        ordered = sorted((-v, i) for i, v in there.items())[: self.k]
        top = [(-v, i) for v, i in ordered]
        if any(math.isnan(v) or v > 1e-3 for v, _ in top):
            raise DataError(f"{self._who} gave log-probabilities above 0 or NaN (token {place})")
        return top

    def _id(self, name: str) -> int | None:
        """The id that a token's string stands for; None where it is that of several or of none."""
        if name.startswith(_TOKEN_ID) and name.removeprefix(_TOKEN_ID).isdigit():
            return int(name.removeprefix(_TOKEN_ID))
        if self.tokenizer is None:
            raise DataError(
                f"{self._who} names tokens by their text ({name!r}): give the tokenizer"
            )
        if not self._strings:
            strings: dict[str, int | None] = {}
            for i in range(min(self.vocabulary, len(self.tokenizer))):
                text = self.tokenizer.decode([i])
                strings[text] = None if text in strings else i
            self._strings = strings
        return self._strings.get(name)

    def _too_few(self, count: int, place: int) -> DataError:
        return DataError(
            f"{self._who} gave {count} log-probabilities a token where {self.k} were asked for "
            f"(token {place}): ask for k={max(count, 1)}, or raise the server's limit (vLLM: "
            "--max-logprobs)"
        )

    def _other_tokens(self, there: int, here: int) -> DataError:
        return DataError(
            f"{self._who} read {there} tokens where we sent {here}: it has another tokenizer, or "
            "adds special tokens; send what it would read, or switch that off there"
        )

    def _other_token(self, place: int, token: int, found: str) -> DataError:
        return DataError(
            f"{self._who} read another token at place {place} of a text ({found} there, {token} "
            "here): its tokenizer is not ours"
        )


def _texts(batch: Batch) -> list[list[int]]:
    """The token ids of each text, the last label included where it is scored."""
    assert batch.mask is not None
    assert batch.labels is not None
    ids, read = batch.inputs["input_ids"].cpu(), batch.inputs["attention_mask"].bool().cpu()
    mask, labels = batch.mask.cpu(), batch.labels.cpu()
    found = []
    for row in range(len(ids)):
        length = int(read[row].sum())
        last: Tensor = mask[row, length - 1]
        tokens = ids[row, :length].tolist()
        found.append([*tokens, int(labels[row, length - 1])] if bool(last) else tokens)
    return found


def _number(said: Any) -> float:
    """A log-probability from a number or from {"logprob": number}."""
    value = said.get("logprob") if isinstance(said, Mapping) else said
    if not isinstance(value, int | float):
        raise DataError(f"an endpoint gave {value!r} as a log-probability")
    return -math.inf if value < _NEVER else float(value)
