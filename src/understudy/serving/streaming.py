"""Answers in pieces, as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from understudy.serving.batching import Batcher
from understudy.serving.wire import Asked, as_bad, chat_logprobs, chat_usage, head


class _Text:
    """What may be sent of a text that is still being written: no half character, no half of a
    stop string.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops, self.tokens, self.sent = stops, [], ""

    def more(self, text: str) -> str:
        """What of a text was not sent before and is sure."""
        for stop in self.stops:
            if stop in text:
                text = text[: text.index(stop)]
        text = text.rstrip("�")
        for stop in self.stops:
            for length in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:length]):
                    text = text[:-length]
                    break
        if not text.startswith(self.sent):
            return ""
        new, self.sent = text[len(self.sent) :], text if len(text) > len(self.sent) else self.sent
        return new


async def streamed(batcher: Batcher, asked: Asked, model: str) -> AsyncIterator[str]:
    """Events of /v1/chat/completions with `stream`.

    Tokens come as they are drawn where the teacher is a language model here; a whole answer at once
    where it is not, or where a schema or log-probabilities are asked for.
    """
    request, local = asked.request, batcher.local
    top = head("chat.completion.chunk", model, "chatcmpl")
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def hear(index: int, token: int) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, (index, token))

    early = local is batcher.teacher and local is not None
    early = early and request.schema is None and request.sampling.logprobs is None
    answer = asyncio.wrap_future(batcher.chat(request, hear if early else None))
    answer.add_done_callback(lambda _: heard.put_nowait(None))
    texts = [_Text(request.sampling.stop) for _ in range(request.n)]
    begun = False

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**top, 'choices': choices, **more})}\n\n"

    def piece(
        index: int, delta: dict[str, Any], finish: str | None = None, said: Any = None
    ) -> str:
        return event([{"index": index, "delta": delta, "logprobs": said, "finish_reason": finish}])

    try:
        while (token := await heard.get()) is not None:
            assert local is not None
            index, drawn = token
            if not begun:
                begun = True
                for i in range(request.n):
                    yield piece(i, {"role": "assistant", "content": ""})
            text = texts[index]
            if drawn not in local.stops:
                text.tokens.append(drawn)
                if new := text.more(local.names.text(text.tokens)):
                    yield piece(index, {"content": new})
        try:
            replies = answer.result()
        except Exception as error:
            if not begun:
                raise
            yield f"data: {json.dumps(as_bad(error).dump())}\n\n"
            return
        for index, reply in enumerate(replies):
            if not begun:
                yield piece(index, {"role": "assistant", "content": ""})
            rest = reply.text[len(texts[index].sent) :]
            if rest or reply.logprobs:
                yield piece(index, {"content": rest}, said=chat_logprobs(reply))
            yield piece(index, {}, reply.finish)
        if asked.usage:
            yield event([], usage=chat_usage(replies))
        yield "data: [DONE]\n\n"
    finally:
        answer.cancel()  # nobody reads any more: not begun, it is not written at all
