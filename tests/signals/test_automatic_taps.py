"""Automatic taps: stages before their last non-linearity, and the map that pooling averages."""

import pytest
import torch
from torch import Tensor, nn

from understudy.errors import SignalError
from understudy.signals import Batch, Taps, observe
from understudy.students import build

FAMILIES = {
    "cnn:width=4": ("stage1.0.relu:in", "stage2.1.relu:in", "stage3.1.relu:in"),
    "resnet8:width=4": ("stage1.0.relu:in", "stage2.0.relu:in", "stage3.0.relu:in"),
    "wrn:depth=10,width=1": ("stage2.0.relu1:in", "stage3.0.relu1:in", "relu:in"),
    "vgg8:width=4": ("stage2.1.relu:in", "stage3.1.relu:in", "stage4.0.relu:in"),
}
PREACT = ("preact.-3", "preact.-2", "preact.-1")


def images(n: int = 2, side: int = 16) -> Batch:
    return Batch(inputs=torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0)))


def tapped(model: nn.Module, *names: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    batch = images()
    taps = Taps(model, names, batch)
    return taps.paths, dict(observe(model.eval(), batch, taps).features)


@pytest.mark.parametrize("name", FAMILIES)
def test_before_the_last_non_linearity(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, classes=3)
    stages = ("stage.-3", "stage.-2", "stage.-1")
    paths, found = tapped(model, *PREACT, *stages)
    assert tuple(paths[p] for p in PREACT) == FAMILIES[name]
    for before, after in zip(PREACT, stages, strict=True):
        assert bool((found[before] < 0).any())
        assert found[before].shape == found[after].shape
        if name.startswith("wrn"):
            continue  # its stages end in the sum itself, the non-linearity is the next one's
        torch.testing.assert_close(found[before].relu(), found[after])


class InPlace(nn.Module):
    """A user's residual net that shares one non-linearity, works in place and has other names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict(
            {k: nn.Conv2d(3 if k == "a" else 4, 4, 3, 2, 1) for k in ("a", "b")}
        )
        self.act = nn.ReLU(inplace=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.body["a"](x))
        y = self.act(self.body["b"](x))
        return self.out(y.mean((2, 3)))


def test_what_is_overwritten_in_place_is_recorded_as_it_was() -> None:
    torch.manual_seed(0)
    model = InPlace()
    _, found = tapped(model, "act:in", "pooled")
    assert bool((found["act:in"] < 0).any())
    torch.testing.assert_close(found["act:in"].relu(), found["pooled"])


class Careless(nn.Module):
    """Batch norm and dropout, whose outputs are overwritten: once by a module, once by a `+=`."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.act, self.head, self.inplace = nn.ReLU(inplace), nn.Linear(6, 3), inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.act(self.norm(self.linear(x))))
        if self.inplace:
            y += x
        else:
            y = y + x
        return self.head(y)


def test_a_pass_that_shows_what_is_overwritten_is_taken_back() -> None:
    torch.manual_seed(0)
    model, plain = Careless(True), Careless(False)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(5, 6)
    found = []
    for each in (model, plain):
        torch.manual_seed(1)
        taps = Taps(each, ["norm", "dropout", "head:in"])
        passes = [observe(each.train(), Batch(inputs=x), taps) for _ in range(2)]
        passes[1].dense.sum().backward()
        found.append((passes, torch.rand(3)))
    for a, b in zip(*(f[0] for f in found), strict=True):
        assert torch.equal(a.dense, b.dense)
        assert all(torch.equal(v, b.features[k]) for k, v in a.features.items())
    assert torch.equal(found[0][1], found[1][1])  # the random numbers that come after
    assert int(model.norm.num_batches_tracked) == 2
    for k, v in model.state_dict().items():
        assert torch.equal(v, plain.state_dict()[k])
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("inference", [False, True])
def test_what_is_recorded_without_a_pass_before_is_right_too(inference: bool) -> None:
    torch.manual_seed(0)
    model, plain = Careless(True).eval(), Careless(False).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(5, 6)
    want = observe(plain, Batch(inputs=x), Taps(plain, ["norm", "dropout"])).features
    taps = Taps(model, ["norm", "dropout"])
    with torch.inference_mode(inference):
        with taps.recording(model) as found:  # as modules do that read taps themselves
            model(x)
        seen = observe(model, Batch(inputs=x), taps).features
    for name, value in want.items():
        assert torch.equal(found[name], value)
        assert torch.equal(seen[name], value)


def test_what_is_overwritten_later_on_is_said() -> None:
    model = Careless(False).eval()
    taps = Taps(model, ["dropout"])
    observe(model, Batch(inputs=torch.randn(2, 6)), taps)
    model.inplace = True
    with pytest.raises(SignalError, match=r"'dropout'.*overwritten in place"):
        observe(model, Batch(inputs=torch.randn(2, 6)), taps)


@pytest.mark.parametrize(
    ("name", "sizes", "path"),
    [
        ("resnet8:width=4", {}, "stage3"),
        ("wrn:depth=10,width=1", {}, "relu"),
        ("vit:width=16,depth=2,heads=2", {"image_size": 16}, "head:in"),
        ("mixer:width=16,depth=2", {"image_size": 16}, "norm"),
    ],
)
def test_the_map_that_is_averaged(name: str, sizes: dict[str, int], path: str) -> None:
    torch.manual_seed(0)
    paths, found = tapped(build(name, classes=3, **sizes), "pooled", "penultimate")
    assert paths["pooled"] == path
    average = found["pooled"]
    if average.ndim > 2:
        average = average.mean((2, 3) if average.ndim == 4 else 1)
    torch.testing.assert_close(average, found["penultimate"])


def test_a_transformer_block_has_no_last_non_linearity() -> None:
    model = build("vit:width=16,depth=2,heads=2", classes=3, image_size=16)
    paths, _ = tapped(model, "preact.0", "stage.0")
    assert paths["preact.0"] == paths["stage.0"]
