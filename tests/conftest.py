"""What several test modules share."""

import signal
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--part``, by which gpu_checks.py runs the tests of a file side by side."""
    parser.addoption(
        "--part", default="1/1", metavar="I/N", help="run the I-th of N parts of the tests, in their order"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave those that ``--part`` names: neighbours stay together, as they compile the same kernels."""
    part, parts = map(int, config.getoption("--part").split("/"))
    items[:] = items[len(items) * (part - 1) // parts : len(items) * part // parts]


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they need to be, whatever the terminal that the suite is started from has."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small tensors gain nothing from more, and sums keep one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
