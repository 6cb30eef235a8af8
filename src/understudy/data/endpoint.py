"""A server that writes: any OpenAI-compatible endpoint of completions (vLLM and others)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.errors import DataError
from understudy.signals.authors import TEACHER
from understudy.signals.generation import Sampling
from understudy.teachers.server import Server


@dataclass(frozen=True, kw_only=True)
class EndpointWriter:
    """Texts from `base_url`/completions, where prompts go as token ids and ids come back.

    base_url:  such as http://localhost:8000/v1
    key_env:   name of the environment variable that holds the key; None where none is asked for
    tokenizer: what turns text into ids where the server sends no ids (`encode(text)`)
    extra:     further fields of the request
    tries:     times a request is sent before its failure is an error; waits double from `wait` s

    Ids are read from `token_ids` of a choice, or from `logprobs.tokens` as `token_id:17`; vLLM
    sends both when asked, as is done here. A server with fixed weights is a teacher, not the
    student that learns.
    """

    base_url: str
    model: str
    key_env: str | None = None
    tokenizer: Any = field(default=None, repr=False)
    author: int = TEACHER
    batch_size: int = 32
    timeout: float = 120.0
    tries: int = 4
    wait: float = 0.5
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def _server(self) -> Server:
        return Server(
            base_url=self.base_url,
            key_env=self.key_env,
            timeout=self.timeout,
            tries=self.tries,
            wait=self.wait,
        )

    def write(self, prompts: Sequence[Tensor], sampling: Sampling, seed: int) -> list[Tensor]:
        """As `Writer`."""
        found: list[Tensor] = []
        for start in range(0, len(prompts), self.batch_size):
            part = prompts[start : start + self.batch_size]
            request = {
                "model": self.model,
                "prompt": [p.tolist() for p in part],
                "max_tokens": sampling.max_new,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "n": 1,
                # a server draws for a whole request from one seed, and some take 32 bits only
                "seed": (seed + start) % 2**31,
                "logprobs": 1,
                "stop_token_ids": list(sampling.stop),
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
                **({"top_k": sampling.top_k} if sampling.top_k else {}),
                **self.extra,
            }
            choices = self._server.post("completions", request).get("choices")
            if not isinstance(choices, list) or len(choices) != len(part):
                count = len(choices) if isinstance(choices, list) else 0
                raise DataError(
                    f"{self.base_url} gave {count} completions for {len(part)} prompts; a smaller "
                    "batch_size may help"
                )
            ordered = sorted(choices, key=lambda c: c.get("index", 0))
            found += [self._ids(choice, sampling) for choice in ordered]
        return found

    def _ids(self, choice: dict[str, Any], sampling: Sampling) -> Tensor:
        ids = choice.get("token_ids")
        tokens = (choice.get("logprobs") or {}).get("tokens")
        if ids is None and tokens and all(str(t).startswith("token_id:") for t in tokens):
            ids = [int(str(t).removeprefix("token_id:")) for t in tokens]
        if ids is None and self.tokenizer is not None:
            ids = list(self.tokenizer.encode(choice.get("text") or ""))
        if ids is None:
            raise DataError(
                f"{self.base_url} sends text without token ids; give a tokenizer, or serve with "
                "a version that returns token ids"
            )
        ids = ids[: sampling.max_new]
        if choice.get("finish_reason") == "stop" and sampling.stop:
            ended = choice.get("stop_reason")
            last = ended if ended in sampling.stop else sampling.stop[0]
            if not ids or ids[-1] not in sampling.stop:
                ids = [*ids, last]
        if not ids:
            raise DataError(f"{self.base_url} gave an empty completion, which teaches nothing")
        return torch.tensor(ids, dtype=torch.long)
