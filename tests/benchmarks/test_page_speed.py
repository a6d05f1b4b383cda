"""How long the page takes, and how large it is: today's registry, and 10,000 trials of 100 claims."""

import os
import resource

import made_up
import pytest

from repro import registry
from repro.report import page, summary

ROUNDS = int(os.environ.get("REPRO_BENCHMARK_ROUNDS", "3"))


def cpu_seconds():
    """CPU time of this process and of the workers it waited for: on a busy machine it says more than the clock."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(t.ru_utime + t.ru_stime for t in times)


@pytest.mark.parametrize("size", ["today", "large"])
def test_page(benchmark, tmp_path, size):
    """Judge every record and make the page. The aim: 15 s and 3 MB today, 60 s and 10 MB large, on 2 cores."""
    root = made_up.REPORTS if size == "today" else tmp_path
    known = registry.load_registry(made_up.CLAIMS) if size == "today" else made_up.large(root, claims=100, seeds=7)
    made, spent = [], []

    def make():
        before = cpu_seconds()
        found = summary.summarise(known, root)
        made.append((found, page.render(found, root)))
        spent.append(cpu_seconds() - before)

    benchmark.pedantic(make, rounds=ROUNDS if size == "today" else 1)
    found, text = made[-1]
    benchmark.extra_info.update(
        {
            "claims": len(found["claims"]),
            "trials": sum(len(c["trials"]) for claim in found["claims"] for c in claim["conditions"]),
            "megabytes": round(len(text.encode()) / 1e6, 2),
            "cpu_seconds": round(min(spent), 1),
            "cores": os.cpu_count(),
        }
    )
