import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from understudy.errors import UnknownName, UserError
from understudy.signals import Batch, Taps, observe
from understudy.students import build, families, from_config, input_sizes, parse, to_config

# Parameters with 100 classes of the public implementation behind the published CIFAR-100 tables
# (github.com/HobbitLong/RepDistiller, models/), counted from its modules.
PUBLISHED = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet50": 23_705_252,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "mobilenet_v2": 812_836,
    "shufflenet_v1": 949_258,
    "shufflenet_v2": 1_355_528,
}

# A small member of every family, a batch of two for it, and its stages' shapes.
SMALL = {
    "resnet:depth=8": ((3, 32, 32), [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
    "resnet8x4": ((3, 32, 32), [(64, 32, 32), (128, 16, 16), (256, 8, 8)]),
    "resnet18:width=8": ((3, 32, 32), [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]),
    "resnet50:width=8": ((3, 32, 32), [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]),
    "wrn:depth=10,width=1": ((3, 32, 32), [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
    "vgg8:width=8": ((3, 32, 32), [(16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 4, 4)]),
    "mobilenet_v2": ((3, 32, 32), [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)]),
    "shufflenet_v1": ((3, 32, 32), [(240, 16, 16), (480, 8, 8), (960, 4, 4)]),
    "shufflenet_v2:width=0.2": ((3, 32, 32), [(40, 16, 16), (80, 8, 8), (160, 4, 4)]),
    "cnn": ((1, 8, 8), [(16, 8, 8), (32, 4, 4), (64, 2, 2)]),
    "vit:image_size=8,patch=2,width=24,depth=4": ((1, 8, 8), [(17, 24)] * 4),
    "mixer:image_size=8,patch=2,width=24,depth=2": ((1, 8, 8), [(16, 24)] * 2),
    "mamba:image_size=8,patch=2,width=16,depth=3": ((1, 8, 8), [(16, 16)] * 3),
    "mlp:width=16,depth=3": ((30,), [(16,)] * 3),
    "text:width=16,depth=2": ((12,), [(12, 16)] * 2),
    "speech": ((1600,), [(13, 51, 26), (13, 26, 13)]),
}
POST_ACTIVATION = ("resnet", "vgg", "shufflenet_v1", "cnn", "mlp", "speech")


def small(spec: str, classes: int = 5) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    shape = SMALL[spec][0]
    name = parse(spec)[0]
    sizes = input_sizes(name, shape, vocabulary=50)
    sizes = {key: value for key, value in sizes.items() if key not in parse(spec)[1]}
    model = build(spec, classes=classes, **sizes)
    if name == "text":
        return model, torch.randint(1, 50, (2, *shape))
    return model, torch.randn(2, *shape)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    with torch.device("meta"):
        model = build(name, classes=100)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]


def test_every_family_is_covered():
    bases = {families()[parse(spec)[0]].make for spec in SMALL}
    # language models have a test of their own (test_llama.py)
    others = {"resnet34", "llama"}
    assert {f.make for f in families().values() if f.name not in others} == bases
    assert all(f.card and "\n" not in f.card for f in families().values())


@pytest.mark.parametrize("spec", SMALL)
def test_stages_are_tappable_and_taps_see_what_was_overwritten(spec):
    model, x = small(spec)
    plain = copy.deepcopy(model.eval())
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    seen: dict[str, torch.Tensor] = {}
    inputs: dict[str, torch.Tensor] = {}

    def hook(name):
        def record(module, args, output):
            inputs[name], seen[name] = args[0].clone(), output.clone()

        return record

    for name, module in plain.named_modules():
        module.register_forward_hook(hook(name))
    kept = x.clone()
    logits = plain(x)
    assert logits.shape == (2, 5)
    names = [name for name in seen if name]
    found = observe(model, Batch(inputs=x), Taps(model, [*names, *(f"{n}:in" for n in names)]))
    assert torch.equal(x, kept)
    assert torch.equal(found.dense, logits)
    for name in names:
        assert torch.equal(found.features[name], seen[name]), name
        assert torch.equal(found.features[f"{name}:in"], inputs[name]), name

    expected = SMALL[spec][1]
    stages = [name for name, _ in model.named_children() if name.startswith("stage")]
    assert stages == [f"stage{i + 1}" for i in range(len(expected))]
    for stage, shape in zip(stages, expected, strict=True):
        assert seen[stage].shape == (2, *shape)
        if spec.startswith(POST_ACTIVATION):
            last = [n for n, _ in model.get_submodule(stage).named_children()][-1]
            relu = f"{stage}.{last}.relu"
            assert inputs[relu].min() < 0  # the pre-activation, within reach
            assert torch.equal(inputs[relu].clamp(min=0), seen[stage])

    last_linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    assert last_linear == "head"
    assert inputs["head"].dim() == 2
    head = plain.get_submodule("head")
    assert torch.equal(head(inputs["head"]), logits)


@pytest.mark.parametrize("spec", SMALL)
def test_config_rebuilds_the_model_and_gradients_reach_everything(spec):
    import json

    model, x = small(spec)
    config = json.loads(json.dumps(to_config(model)))
    again = from_config(config)
    again.load_state_dict(model.state_dict())
    assert to_config(again) == to_config(model)
    assert torch.equal(again.eval()(x), model.eval()(x))

    model.train()
    model(torch.cat([x, x + 1 if x.is_floating_point() else x.flip(0)])).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("spec", [s for s in SMALL if len(SMALL[s][0]) == 3])
def test_channels_last_gives_the_same_logits(spec):
    model, x = small(spec)
    model.eval()
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "spec", [s for s in SMALL if s[:3] in ("cnn", "mlp", "tex", "vit", "mix", "mam")]
)
def test_small_families_learn(spec):
    model, x = small(spec, classes=2)
    label = torch.tensor([0, 1])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    model.eval()  # dropout and batch statistics out of the way
    loss = nn.functional.cross_entropy(model(x), label)
    first = loss.item()
    for _ in range(15):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = nn.functional.cross_entropy(model(x), label)
    assert loss.item() < 0.2 * first


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "mobilenet_v2", "resnet50"])
def test_convolutions_start_with_the_reference_variance(name):
    torch.manual_seed(0)
    for module in build(name, classes=10).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            kernel, out = math.prod(module.kernel_size), module.out_channels
            assert module.weight.std().item() == pytest.approx(
                math.sqrt(2 / (kernel * out)), rel=0.03
            )
            assert module.bias is None or not module.bias.any()


def test_large_images_are_pooled_once_more_in_vgg():
    model = build("vgg8:width=4", classes=3).eval()
    shapes = []
    model.get_submodule("stage4").register_forward_hook(lambda m, a, out: shapes.append(out.shape))
    model(torch.zeros(1, 3, 32, 32)), model(torch.zeros(1, 3, 64, 64))
    assert [s[-1] for s in shapes] == [4, 4]


@pytest.mark.parametrize("name", ["cnn", "resnet8", "vgg8:width=4", "wrn_16_1", "mobilenet_v2"])
def test_digit_sized_images_pass(name):
    assert build(name, classes=10, in_channels=1).eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_attention_is_the_textbook_one_and_its_maps_are_tappable():
    model, x = small("vit:image_size=8,patch=2,width=24,depth=4")
    maps, ins, outs = [], [], []
    attention = model.get_submodule("stage1.0.attention")
    attention.get_submodule("softmax").register_forward_hook(lambda m, a, out: maps.append(out))
    attention.register_forward_pre_hook(lambda m, a: ins.append(a[0]))
    attention.register_forward_hook(lambda m, a, out: outs.append(out))
    model(x)
    assert maps[0].shape == (2, 3, 17, 17)
    z = ins[0].detach().double().numpy()
    weight = {k: v.double().numpy() for k, v in attention.state_dict().items()}
    q, k, v = np.split(z @ weight["qkv.weight"].T + weight["qkv.bias"], 3, -1)
    heads = []
    for h in range(3):
        part = slice(8 * h, 8 * h + 8)
        s = np.exp(q[..., part] @ k[..., part].transpose(0, 2, 1) / np.sqrt(8))
        heads.append(s / s.sum(-1, keepdims=True) @ v[..., part])
    expected = np.concatenate(heads, -1) @ weight["out.weight"].T + weight["out.bias"]
    np.testing.assert_allclose(outs[0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 2])
def test_text_ignores_what_is_padded(depth):
    torch.manual_seed(0)
    model = build("text", classes=3, vocabulary=20, width=16, depth=depth).eval()
    ids = torch.randint(1, 20, (2, 6))
    longer = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], 1)
    torch.testing.assert_close(model(longer), model(ids))
    mask = (longer != 0).long()
    junk = torch.where(mask.bool(), longer, 7)
    torch.testing.assert_close(model(junk, attention_mask=mask), model(ids))
    assert not torch.allclose(model(junk), model(ids), atol=1e-4)  # without a mask it counts
    assert model(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()
    with pytest.raises(UserError, match="length=512"):
        build("text", classes=3, vocabulary=20)(torch.ones(1, 513, dtype=torch.long))


def test_specs_are_parsed_and_typed():
    assert parse("mlp:width=64, depth=2,norm=true,dropout=0.5") == (
        "mlp",
        {"width": 64, "depth": 2, "norm": True, "dropout": 0.5},
    )
    assert parse("resnet8x4") == ("resnet8x4", {})
    model = build("mlp:width=64", classes=2, in_features=4, depth=1)
    assert to_config(model) == {
        "family": "mlp", "classes": 2, "in_features": 4, "width": 64, "depth": 1,
        "norm": False, "dropout": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: build("resnet8x5", classes=10), UnknownName, "resnet8x4"),
        (lambda: build("mlp:widht=3", classes=2, in_features=1), UnknownName, "width"),
        (lambda: build("mlp", classes=2, in_features=4, widths=3), UnknownName, "width"),
        (lambda: build("mlp:width=wide", classes=2, in_features=1), UserError, "whole number"),
        (lambda: build("mlp:width=1.5", classes=2, in_features=1), UserError, "whole number"),
        (lambda: build("mlp", classes=2, in_features=4, width=2.5), UserError, "whole number"),
        (lambda: build("mlp:width", classes=2, in_features=1), UserError, "size=value"),
        (lambda: build("mlp:width=1,width=2", classes=2, in_features=1), UserError, "twice"),
        (lambda: build("mlp:width=1", classes=2, in_features=1, width=2), UserError, "width"),
        (lambda: build("mlp:dropout=nan", classes=2, in_features=1), UserError, "a number"),
        (lambda: build("mlp:norm=yes", classes=2, in_features=1), UserError, "true or false"),
        (lambda: build("mlp:depth=-1", classes=2, in_features=1), UserError, "at least 0"),
        (lambda: build("mlp", classes=2), UserError, "in_features"),
        (lambda: build("cnn", classes=0), UserError, "classes"),
        (lambda: build("resnet:depth=21", classes=2), UserError, "6n\\+2"),
        (lambda: build("wrn:depth=20", classes=2), UserError, "6n\\+4"),
        (lambda: build("vgg8:depth=9", classes=2), UserError, "8, 11"),
        (lambda: build("shufflenet_v1:width=100", classes=2), UserError, "multiple of 12"),
        (lambda: build("shufflenet_v2:width=0.7", classes=2), UserError, "0.5"),
        (lambda: build("vit:heads=5", classes=2), UserError, "multiple of heads"),
        (lambda: build("vit:patch=5", classes=2), UserError, "multiple of patch"),
        (lambda: build("vit:pool=max", classes=2), UserError, "'mean'"),
        (lambda: build("vit", classes=2)(torch.zeros(1, 3, 8, 8)), UserError, "image_size=32"),
        (lambda: build("mlp", classes=2, in_features=4)(torch.zeros(1, 5)), UserError, "5 values"),
        (lambda: build("speech", classes=2)(torch.zeros(1, 20)), UserError, "32 samples"),
        (lambda: input_sizes("resnet8", (30,)), UserError, "images"),
        (lambda: input_sizes("vit", (3, 8, 9)), UserError, "square"),
        (lambda: input_sizes("text", (9,)), UserError, "vocabulary"),
        (lambda: to_config(nn.Linear(1, 1)), UserError, "Linear"),
        (lambda: from_config({"sizes": 3}), UserError, "no family"),
    ],
)  # fmt: skip
def test_wrong_sizes_are_refused_in_one_line(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
