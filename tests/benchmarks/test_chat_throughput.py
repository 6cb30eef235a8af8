"""The benchmark of chat runs, and its figures have the form that the results are made from."""

import importlib
import json
from pathlib import Path


def test_chat_throughput(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    path = tmp_path / "it.json"
    found = importlib.import_module("chat_throughput").main(["--quick", "--out", str(path)])
    written = json.loads(path.read_text())
    assert written.pop("machine")["cores"] > 0
    assert written == found
    assert set(found["throughput"]) == {
        "with ledger", "without ledger", "openai", "openai over aiohttp", "aiohttp"
    }  # fmt: skip
    for row in found["throughput"].values():
        assert 0 < row["rate_of_ideal"] <= row["best_rate_of_ideal"] <= 1
        assert 0 < row["least_cpu_ms"] <= row["cpu_ms"]
    # a bound for any machine, far from the one that is measured: the client alone takes 2 ms or more
    assert (
        found["throughput"]["with ledger"]["least_cpu_ms"] < found["throughput"]["openai"]["cpu_ms"]
    )
    assert found["lookup"]["median_ms"] < 1
    assert found["restart"]["seconds"] < 5
    assert "CPU ms a request" in capsys.readouterr().out
