"""Looking into a trained network: colour by tower, and neighbours."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from repro.experiments import probe
from repro.experiments.probe import colour_shares
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task, measure
from repro.measure import probe as module
from repro.measure.probe import Hidden, Nearest, agreement
from repro.store import folder


def test_colour_shares_by_hand() -> None:
    """Kernels alike in all channels hold no colour, those whose channels add up to nothing hold only colour."""
    draw = np.random.default_rng(0)
    grey = draw.random((4, 1, 5, 5)).repeat(3, axis=1)
    colour = draw.random((4, 1, 5, 5)) * np.array([1.0, -0.5, -0.5])[:, None, None]
    assert colour_shares(np.concatenate([grey, colour]), towers=2) == pytest.approx([0.0, 1.0], abs=1e-6)
    red = np.zeros((2, 3, 1, 1), np.float16)
    red[:, 0] = 3.0
    assert colour_shares(red, towers=1) == pytest.approx([2 / 3])  # (3, 0, 0) is grey (1, 1, 1) and colour (2, -1, -1)


def test_agreement_by_hand() -> None:
    """Of twelve points on a line, the six nearest to 0 are the ones of its class but one."""
    base = torch.arange(1.0, 13.0)[:, None]
    labels = torch.tensor([0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    found = Nearest(torch.zeros(1, 1))
    found.see(base)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert agreement(found.rows, torch.tensor([0]), labels) == pytest.approx(5 / 6)


def test_the_nearest_are_the_same_in_parts() -> None:
    """Rows seen in uneven parts, the first smaller than the neighbours wanted, against all at once."""
    draw = torch.Generator().manual_seed(0)
    queries, base = (torch.randn(n, 5, generator=draw) for n in (20, 300))
    found = Nearest(queries)
    for part in base.split([3, 100, 1, 196]):
        found.see(part)
    assert (found.rows == torch.cdist(queries, base).topk(6, largest=False).indices).all()


def test_queries_are_a_spread_sample_with_those_shown_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 24 test images 16 are compared; places go by the whole test set."""
    monkeypatch.setattr(module, "EXAMINED", 16)
    run = SimpleNamespace(data=SimpleNamespace(count=lambda _split: 24))
    compared, shown = module.Probe._compared(run), module.Probe._shown(run, 8)
    assert len(compared) == 16
    assert compared[0] == 0
    assert compared[-1] == 22
    assert set(shown) <= set(compared)


@pytest.mark.parametrize("batch", [1, 5, 24, 100])
def test_the_rows_compared_are_taken_from_whatever_batches_they_are_in(batch: int) -> None:
    """Of 100 test images whose features are their places; some batches hold none of those wanted."""
    wanted = [0, 3, 4, 23, 24, 60, 98]
    whole = torch.arange(100)

    def hidden(_split: str) -> Iterator[Hidden]:
        return (Hidden(part[:, None].float(), -part[:, None].float(), part) for part in whole.split(batch))

    data = SimpleNamespace(device=torch.device("cpu"))
    found = module.Probe._queries(SimpleNamespace(_compared=lambda: wanted, _hidden=hidden, data=data))
    assert found.labels.tolist() == wanted
    assert found.features[:, 0].tolist() == wanted
    assert found.pixels[:, 0].tolist() == [-place for place in wanted]


def test_a_probe_trains_and_looks(tmp_path: Path) -> None:
    """The trial ends with what was found, and with nothing that a test would say."""
    pictures = Pictures.drawn(96, 24, "sha256:made-up")
    halves = pictures.halves
    assert halves is not None
    p = probe.Parameters(
        dataset="embedded", protocol="modern", net="alexnet-32", stored=32, crop=28, batch=32, epochs=1.0, rate=0.02
    )
    trial = measure(Task(probe.spec(p, 0), "scoring", 1.0, Setting(tmp_path, torch.device("cpu"))), pictures, Monitor())
    assert {m.name for m in trial.measurements} == {"colours-apart", "neighbour-gain", "epochs-trained"}
    assert trial.value("colours-apart") in (0.0, 1.0)
    assert -100 <= trial.value("neighbour-gain") <= 100
    kept = [np.load(folder(tmp_path, trial.identity) / f"{name}.npz") for name in ("looked", "pictures")]
    looked, seen = (dict(file) for file in kept)
    assert looked["kernels"].shape[1:] == (3, 5, 5)
    assert looked["answers"].shape == looked["probabilities"].shape == (8, 5)
    assert (np.diff(looked["probabilities"]) <= 0).all()
    images, labels = halves["val"]
    assert looked["shown"].tolist() == [0, 3, 6, 9, 12, 15, 18, 21]  # evenly spread over the 24
    assert looked["truth"].tolist() == labels[looked["shown"]].tolist()
    assert (seen["queries"] == images[looked["shown"]].numpy()).all()
    near = looked["neighbours"]
    assert near.shape == (5, 6)
    assert (seen["neighbours"] == halves["train"][0][torch.from_numpy(near)].numpy()).all()
    assert looked["neighbour_labels"].tolist() == halves["train"][1][torch.from_numpy(near)].tolist()
