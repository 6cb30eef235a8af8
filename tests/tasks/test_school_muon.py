"""The optimiser of the teacher against float64 NumPy and torch's Adam."""

import copy

import numpy as np
import pytest
import torch

from understudy.tasks.school.muon import MuonAdam, orthogonalise


def quintic(x):
    """Five steps of the published iteration on one matrix."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    g = torch.randn(3, *shape, dtype=torch.float64)
    found = orthogonalise(g)
    for one, x in zip(found.numpy(), g.numpy(), strict=True):
        np.testing.assert_allclose(one, quintic(x), rtol=1e-9, atol=1e-12)
        u, s, v = np.linalg.svd(x, full_matrices=False)
        values = np.diag(u.T @ one @ v.T)
        kept = s / np.linalg.norm(x) > 0.05
        assert np.all((values[kept] > 0.6) & (values[kept] < 1.3))
        off = u.T @ one @ v.T - np.diag(values)
        assert np.abs(off).max() < 1e-10


def test_steps_equal_the_equations():
    torch.manual_seed(1)
    inner = torch.nn.Parameter(torch.randn(12, 5, dtype=torch.float64))
    table = torch.nn.Parameter(torch.randn(7, 5, dtype=torch.float64))
    gain = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
    adams = [copy.deepcopy(table), copy.deepcopy(gain)]
    optimizer = MuonAdam(
        [{"params": [inner, table, gain]}], vocabulary=7, lr=0.1, momentum=0.9, adam_lr=0.01
    )
    reference = torch.optim.Adam(adams, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    w, m = inner.detach().numpy().copy(), np.zeros((12, 5))
    for _ in range(4):
        grads = [torch.randn_like(p) for p in (inner, table, gain)]
        for p, g in zip((inner, table, gain), grads, strict=True):
            p.grad = g.clone()
        for p, g in zip(adams, grads[1:], strict=True):
            p.grad = g.clone()
        optimizer.step()
        reference.step()
        g = grads[0].numpy()
        m = 0.9 * m + g
        w = w - 0.1 * np.sqrt(12 / 5) * quintic(g + 0.9 * m)
    np.testing.assert_allclose(inner.detach().numpy(), w, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(table.detach(), adams[0].detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gain.detach(), adams[1].detach(), rtol=1e-12, atol=1e-14)


def test_its_state_continues_it():
    torch.manual_seed(2)
    grads = [torch.randn(4, 4) for _ in range(6)]

    def run(p, o, some):
        for g in some:
            p.grad = g.clone()
            o.step()

    p = torch.nn.Parameter(torch.eye(4))
    run(p, o := MuonAdam([{"params": [p]}], vocabulary=9), grads[:3])
    q = torch.nn.Parameter(p.detach().clone())
    other = MuonAdam([{"params": [q]}], vocabulary=9)
    other.load_state_dict(copy.deepcopy(o.state_dict()))
    run(p, o, grads[3:])
    run(q, other, grads[3:])
    assert torch.equal(p, q)
