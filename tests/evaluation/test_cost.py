"""Costs against counts made by hand, and what measuring must leave alone."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from understudy import evaluation as ev
from understudy.errors import UserError


def test_parameters_count_shared_ones_once():
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    model = nn.Sequential(first, second, nn.BatchNorm1d(3)).half()
    got = ev.parameters(model)
    assert (got.count, got.trainable) == (12 + 3 + 3 + 6, 12 + 3 + 6)
    assert got.bytes == 2 * (24 + 6) + 8  # running mean and variance; the int64 batch counter


LINEAR = 2 * 8 * 16
CONV = 2 * 3 * 8 * 3 * 3 * 10 * 10
LSTM = 2 * 5 * (4 * 16) * (8 + 16)
HEADS = 2 * 2 * 2 * 5 * 5 * 8  # heads x (scores, values) x T x T x width
TRANSFORMER = 2 * 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + HEADS


@pytest.mark.parametrize(
    ("model", "shape", "by_hand"),
    [
        (nn.Linear(8, 16), (8,), LINEAR),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), CONV),
        (nn.LSTM(8, 16, batch_first=True), (5, 8), LSTM),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (5, 16), TRANSFORMER),
    ],
)
def test_flops_by_hand(model, shape, by_hand):
    for batch in (1, 4):
        got = ev.flops(model, lambda m, n=batch: m(torch.randn(n, *shape)), samples=batch)
        assert got == by_hand


class Restless(nn.Module):
    """Draws random numbers, counts its calls and replaces a buffer."""

    count: torch.Tensor
    last: torch.Tensor

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2, 4))

    def forward(self, x):
        self.count += 1
        self.last = self.inner(x + torch.rand(()))
        return self.last


def test_flops_leave_everything_as_found():
    model = Restless().train()
    model.inner[1].eval()  # a mode of its own
    last, random = model.last, torch.get_rng_state()

    def flags():
        onednn = torch.backends.mkldnn.enabled  # type: ignore
        return torch.backends.mha.get_fastpath_enabled(), onednn

    before = flags()
    ev.flops(model, lambda m: m(torch.ones(2, 4)), samples=2)

    def fail(m):
        m(torch.ones(2, 4))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        ev.flops(model, fail)
    assert (model.training, model.inner.training, model.inner[1].training) == (True, True, False)
    assert model.count == 0
    assert model.last is last
    assert not last.any()
    assert torch.equal(torch.get_rng_state(), random)
    assert flags() == before
    with pytest.raises(UserError, match="samples"):
        ev.flops(model, lambda m: None, samples=0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to, so that no busy machine can fail these tests."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def pass_time(milliseconds):
        now[0] += milliseconds / 1e3

    pass_time.now = lambda: now[0]  # type: ignore
    return pass_time


def test_latency_times_the_call_and_not_the_preparation(clock):
    made, calls = [], []

    def prepare(size):
        made.append(size)
        clock(500)
        return lambda: (calls.append(size), clock(2 * size))

    rows = ev.latency(prepare, (1, 3), warmup=2, runs=5)
    assert made == [1, 3] == [r.batch_size for r in rows]
    assert calls == [1] * 7 + [3] * 7
    for row in rows:
        assert row.p50 == pytest.approx(2 * row.batch_size) == pytest.approx(row.p95)
        assert row.runs == 5
        assert row.threads == torch.get_num_threads()


def test_percentiles_are_numpys(clock):
    times = [5.0, 1.0, 4.0, 2.0]
    left = iter(times)
    (row,) = ev.latency(lambda n: lambda: clock(next(left)), (1,), warmup=0, runs=4)
    assert row.p50 == pytest.approx(np.median(times))
    assert row.p95 == pytest.approx(np.quantile(times, 0.95))
    with pytest.raises(UserError, match="batch sizes"):
        ev.latency(lambda n: lambda: None, ())


def test_quick_latency_is_quick_and_without_gradients(clock):
    grad = []
    call = lambda: (clock(10), grad.append(torch.is_grad_enabled()))  # noqa: E731
    rows = ev.latency(lambda n: call, (1, 8), runs=10_000, quick=True)
    assert 0.5 < clock.now() < 0.7
    assert grad
    assert not any(grad)
    assert all(20 < r.runs < 40 for r in rows)
    (slow,) = ev.latency(lambda n: lambda: clock(3000), (1,), quick=True)
    assert slow.runs == 1
    assert slow.p50 == pytest.approx(3000)


def test_latency_runs_for_real():
    model = torch.nn.Linear(8, 8)

    def prepare(size):
        x = torch.ones(size, 8)
        return lambda: model(x)

    (row,) = ev.latency(prepare, (4,), runs=3)
    assert 0 < row.p50 <= row.p95
    assert row.runs == 3


GONE_AT_THE_END = """
import time, torch
from understudy import evaluation as ev
with ev.peak_memory() as memory:
    x = torch.ones(2**24)
    time.sleep(0.05)
    del x
print(memory.source, memory.bytes, memory.peak, sep="\\n")
"""


def test_peak_memory_sees_what_is_gone_at_the_end():
    """In a fresh process: one that has freed as much before may use that again, unseen."""
    said = subprocess.run(
        [sys.executable, "-c", GONE_AT_THE_END], capture_output=True, text=True, check=True
    )
    source, more, peak = said.stdout.split("\n")[:3]
    size = 4 * 2**24
    assert source == "resident memory, sampled"
    assert 0.9 * size < int(more) < 2 * size
    assert int(peak) > int(more)
