"""A real HTTP server on this machine that answers as an OpenAI-compatible one, from a tiny model."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from token_worlds import VOCABULARY, llama


class Letters:
    """A tokenizer of one letter an id; two ids are written alike where `twins` says so."""

    def __init__(self, twins=None):
        self.twins = twins or {}

    def __len__(self):
        return VOCABULARY

    def decode(self, ids):
        return "".join(chr(0x100 + self.twins.get(i, i)) for i in ids)


class Served:
    """How a server behaves, and what it was asked."""

    def __init__(self, *, form="vllm", limit=20, ids=True, prefix=(), refuses="limit", busy=0,
                 key=None, twins=None, swap=None, redirect=None, model=None):  # fmt: skip
        self.form, self.limit, self.ids, self.prefix = form, limit, ids, list(prefix)
        self.refuses, self.busy, self.key, self.swap = refuses, busy, key, swap
        self.redirect = redirect
        self.model = llama() if model is None else model
        self.letters, self.asked = Letters(twins), []
        self.lock = threading.Lock()

    def answer(self, headers, request):
        """(status, body, headers) of a request."""
        with self.lock:
            self.asked.append(request)
            if self.busy:
                self.busy -= 1
                return 503, {"error": {"message": "loading"}}, {"Retry-After": "0"}
        if self.redirect:
            return 302, {}, {"Location": self.redirect}
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": "invalid key"}}, {}
        tokens = [*self.prefix, *request["prompt"]]
        if self.swap is not None:
            tokens[self.swap] = (tokens[self.swap] + 1) % VOCABULARY
        if "prompt_logprobs" in request and self.form == "strict":
            return 400, {"error": {"message": "unknown field prompt_logprobs"}}, {}
        k = request.get("prompt_logprobs", request.get("logprobs"))
        if k > self.limit and self.refuses == "limit":
            return 400, {"message": f"{k} is greater than max allowed: {self.limit}"}, {}
        k = min(k, self.limit)
        with torch.no_grad():
            said = self.model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        if "prompt_logprobs" in request:
            if self.form != "vllm":
                return 200, {"choices": [{"text": "x"}]}, {}
            return (
                200,
                {"choices": [{"text": "x", "prompt_logprobs": self.vllm(tokens, said, k)}]},
                {},
            )
        if not request.get("echo") or self.form == "mute":
            return 200, {"choices": [{"text": "x", "logprobs": None}]}, {}
        return 200, {"choices": [{"text": "x", "logprobs": self.echo(tokens, said, k)}]}, {}

    def vllm(self, tokens, said, k):
        """Of each token its own entry beside the top k, keys as text, as JSON has them."""
        found = [None]
        for place in range(1, len(tokens)):
            row = said[place - 1]
            ids = {tokens[place], *row.topk(k).indices.tolist()}
            rank = {i: int((row >= row[i]).sum()) for i in ids}
            found.append({str(i): {"logprob": float(row[i]), "rank": rank[i]} for i in ids})
        return found

    def echo(self, tokens, said, k):
        """Prompt and one token more, tokens by their text or as token_id:7."""
        more = [*tokens, int(said[-1].argmax())]
        name = (lambda i: f"token_id:{i}") if self.ids else (lambda i: self.letters.decode([i]))
        tops = [None]
        for place in range(1, len(more)):
            row = said[place - 1]
            ids = {more[place], *row.topk(k).indices.tolist()}
            tops.append({name(i): float(row[i]) for i in ids})
        return {"tokens": [name(i) for i in more], "top_logprobs": tops}


@contextmanager
def serving(**behaviour):
    """(base URL, the server's record) of a server on this machine."""
    served = Served(**behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code, answer, more = served.answer(self.headers, json.loads(body))
            if self.path != "/v1/completions":
                code, answer = 404, {"error": "no such route"}
            content = json.dumps(answer).encode()
            self.send_response(code)
            for name, value in {"Content-Length": str(len(content)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
