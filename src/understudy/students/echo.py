"""A Llama in which groups of layers attend alike: followers use their leader's attention weights.

Followers have no query and key projections. Weights have to be there to be shared, so attention is
the eager kind. `save_student` keeps such a model, `load_student` gives it back.
"""

import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import CheckpointError, MethodRefused, UserError
from understudy.signals import Batch
from understudy.signals.generation import speaking
from understudy.signals.taps import plain

MODEL_TYPE = "echo_llama"


class Held:
    """A leader's attention weights [N, H, Q, K], from its forward pass to its last follower's."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None


@cache
def _classes() -> tuple[Any, Any]:
    """Configuration and model, made when they are first needed: transformers is slow to import."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import (
        LlamaAttention,
        apply_rotary_pos_emb,
        eager_attention_forward,
        repeat_kv,
    )

    class Leader(LlamaAttention):
        """Attends, and leaves its weights."""

        def __init__(self, config: Any, layer_idx: int, held: Held) -> None:
            super().__init__(config, layer_idx)
            self.held = held

        def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
            self,
            hidden_states: Tensor,
            position_embeddings: Any = None,
            attention_mask: Tensor | None = None,
            past_key_values: Any = None,
            **kwargs: Any,
        ) -> tuple[Tensor, Tensor]:
            """As LlamaAttention's eager one."""
            shape = hidden_states.shape[:-1]
            q, k, v = (
                p(hidden_states).view(*shape, -1, self.head_dim).transpose(1, 2)
                for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
            if past_key_values is not None:
                k, v = past_key_values.update(k, v, self.layer_idx)
            dropout = float(self.attention_dropout or 0.0) if self.training else 0.0
            out, weights = eager_attention_forward(
                self, q, k, v, attention_mask, scaling=self.scaling, dropout=dropout
            )
            self.held.weights = weights
            return self.o_proj(out.reshape(*shape, -1).contiguous()), weights

    class Follower(nn.Module):
        """Values and output of its own, under its leader's weights."""

        def __init__(self, config: Any, layer_idx: int, held: Held, last: bool) -> None:
            super().__init__()
            self.layer_idx, self.held, self.last = layer_idx, held, last
            heads, width = config.num_attention_heads, config.hidden_size
            self.head_dim = getattr(config, "head_dim", None) or width // heads
            self.groups = heads // config.num_key_value_heads
            bias = config.attention_bias
            size = config.num_key_value_heads * self.head_dim
            self.v_proj = nn.Linear(width, size, bias=bias)
            self.o_proj = nn.Linear(heads * self.head_dim, width, bias=bias)

        def forward(
            self, hidden_states: Tensor, past_key_values: Any = None, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            """The leader's weights on this layer's values."""
            weights = self.held.weights
            if weights is None:
                raise RuntimeError("a follower runs after its leader, in one forward pass")
            shape = hidden_states.shape[:-1]
            v = self.v_proj(hidden_states).view(*shape, -1, self.head_dim).transpose(1, 2)
            if past_key_values is not None:
                # keys are the leader's; a cache counts them, and so one number of each stands here
                _, v = past_key_values.update(v[..., :1], v, self.layer_idx)
            out = torch.matmul(weights, repeat_kv(v, self.groups))
            if self.last:
                self.held.weights = None  # with its graph
            out = out.transpose(1, 2).reshape(*shape, -1).contiguous()
            return self.o_proj(out), weights

    class EchoConfig(LlamaConfig):
        model_type = MODEL_TYPE

        def __init__(self, echo: Any = (), **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.echo = [list(group) for group in echo]

    class EchoForCausalLM(LlamaForCausalLM):
        config_class = EchoConfig

        def __init__(self, config: Any) -> None:
            config._attn_implementation = "eager"
            super().__init__(config)
            layers: Any = self.model.layers
            for leader, *followers in config.echo:
                held = Held()
                layers[leader].self_attn = Leader(config, leader, held)
                for n in followers:
                    layers[n].self_attn = Follower(config, n, held, n == followers[-1])
            self.post_init()

    return EchoConfig, EchoForCausalLM


def echo_of(model: nn.Module, groups: Sequence[Sequence[int]]) -> nn.Module:
    """A copy of a Llama whose layers share attention within groups: (leader, followers ...).

    All weights are inherited but the followers' queries and keys, which are not there any more.
    """
    config = _llama_config(model)
    depth = config.num_hidden_layers
    checked = [sorted({int(n) for n in group}) for group in groups]
    every = [n for group in checked for n in group]
    if not checked or min(map(len, checked)) < 2 or len(set(every)) < len(every):
        raise UserError("shared attention takes groups of two or more layers, each layer in one")
    if min(every) < 0 or max(every) >= depth:
        raise UserError(f"layers are 0 to {depth - 1}, not {min(every)} to {max(every)}")
    kind, make = _classes()
    known = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}
    known.pop("dtype", None)
    made = make(kind(**known, echo=checked))
    missing, left = made.load_state_dict(plain(model).state_dict(), strict=False)
    # a tied head may be listed or not
    missing = [m for m in missing if m != "lm_head.weight"]
    gone = tuple(f"layers.{n}.self_attn.{p}_proj." for g in checked for n in g[1:] for p in "qk")
    odd = [name for name in left if not any(part in name for part in gone)]
    if missing or odd:
        raise MethodRefused(
            f"{type(plain(model)).__name__} does not fit a Llama: {(missing + odd)[0]} has no place"
        )
    parameter = next(model.parameters())
    return made.to(parameter.device, parameter.dtype).train(model.training)


def is_echo(folder: str | Path) -> bool:
    """Whether a folder holds such a model."""
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False  # another kind of model, or none: that is said elsewhere


def load_echo(folder: str | Path) -> nn.Module:
    """The model of a folder that `save_pretrained` wrote, in evaluation mode."""
    _, make = _classes()
    try:
        found, report = make.from_pretrained(str(folder), output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from None
    lost = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if lost:
        raise CheckpointError(f"{folder}: {lost[0]} is not as the configuration says")
    return found.float().eval()


@torch.no_grad()
def attention_similarity(model: nn.Module, batch: Batch) -> Tensor:
    """[D, D] mean cosine, over texts and heads, of layers' attention matrices on real positions."""
    config = _llama_config(model)
    inner: Any = plain(model)
    before = config._attn_implementation
    inputs = {k: batch.inputs[k] for k in ("input_ids", "attention_mask")}
    try:
        inner.set_attn_implementation("eager")
        with speaking(inner):
            said = inner(**inputs, output_attentions=True, use_cache=False)
    finally:
        inner.set_attn_implementation(before)
    real = inputs["attention_mask"].bool()
    both = (real[:, None, :, None] & real[:, None, None, :]).float()
    maps = torch.stack([a.float() * both for a in said.attentions]).flatten(-2)  # [D, N, H, L L]
    maps = torch.nn.functional.normalize(maps, dim=-1)
    return torch.einsum("anhl,bnhl->abnh", maps, maps).mean((-2, -1))


def similar_groups(
    similarity: Tensor, followers: int, *, skip: int = 1, threshold: float = 0.0
) -> list[list[int]]:
    """Runs of inner layers that attend alike, `followers` layers in them following a first one.

    Neighbouring runs are joined, those first whose least similarity to the joint leader is largest,
    until there are as many followers or that falls below `threshold`. The first and last `skip`
    layers stay by themselves.
    """
    depth = len(similarity)
    runs = [[n] for n in range(skip, depth - skip)]
    made = 0
    while made < followers and len(runs) > 1:
        scores = [min(float(similarity[a[0], n]) for n in b) for a, b in pairwise(runs)]
        best = max(range(len(scores)), key=scores.__getitem__)
        if scores[best] < threshold:
            break
        joined = runs[best] + runs[best + 1]
        runs[best : best + 2] = [joined]
        made = sum(len(r) - 1 for r in runs)
    return [run for run in runs if len(run) > 1]


def _llama_config(model: nn.Module) -> Any:
    config = getattr(plain(model), "config", None)
    if getattr(config, "model_type", None) != "llama":
        raise MethodRefused(
            f"attention is shared between the layers of a Llama, and {type(plain(model)).__name__} "
            "is none; use a teacher of that family, or another way to make the student"
        )
    return config
