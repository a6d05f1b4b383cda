"""Records made up for the tests of the report: conditions that came out as asked, without training anything.

``python tests/made_up.py DIR N`` makes a store of N records of 1.2 kB, to time what reads them all.
"""

import sys
from pathlib import Path

from repro import experiments, files, registry, spec, store
from repro.store import Measurement, Trial

DIGEST = "md5:c58f30108f718f92721af3b95e74349a"
CLAIMS = Path(__file__).parents[1] / "claims"
REPORTS = Path(__file__).parents[1] / "reports"


def condition(root: Path, claim: spec.Claim, name: str, times: dict[str, list[float]], *, points: int = 1) -> None:
    """Write a finished condition to a store: a search that the middle rate wins, then one trial a time.

    Curves have ``points`` rows an epoch.
    """
    experiment = experiments.get(claim.experiment)
    found = claim.conditions[name]
    for arm, values in times.items():
        p = found.arms[arm]
        rates = sorted(p.rates)
        for rate in rates:
            won = rate == rates[1]
            trial_spec = experiment.spec(p, p.tuning_seed, rate)
            write(root, trial_spec, values[0] if won else None, limit=values[0], points=points)
        for seed, value in zip(found.seeds, values, strict=True):
            write(root, experiment.spec(p, seed, rates[1]), value, limit=p.max_epochs, points=points)


def write(root: Path, trial_spec: store.TrialSpec, at: float | None, *, limit: float, points: int = 1) -> None:
    """Write one trial, censored where it has no time, and its curve."""
    measurements = () if at is None else (Measurement(name="epochs-to", value=at, unit="epochs"),)
    environment = {"device": "cpu", "torch": "2.11", "commit": "0" * 40, "dirty": False, "code_digest": "0" * 16}
    trial = Trial(
        spec=trial_spec, data_digest=DIGEST, status="censored" if at is None else "completed", limit=limit,
        measurements=measurements, environment=environment, message="" if at else "training error 0.4",
    )  # fmt: skip
    store.save(root, trial)
    rows = [
        {"epochs": i / points, "error": 0.1 + 0.8 * 0.9 ** (i / points), "loss": 2.0, "window": 390}
        for i in range(points, points * (int(at or limit) + 2))
    ]
    store.save_curve(root, trial.identity, rows)


def large(root: Path, claims: int, seeds: int) -> dict[str, spec.Claim]:
    """Write ``claims`` claims of five measured conditions, each with 2 x (3 + ``seeds``) trials, and return them."""
    pattern = registry.load_claim(CLAIMS / "relu-speedup.toml")
    names = [name for name in pattern.conditions if name != "smoke"][:5]
    made = {}
    for i in range(claims):
        conditions = {
            name: pattern.conditions[name].model_copy(
                update={
                    "seeds": tuple(range(seeds)),
                    "arms": {
                        arm: p.model_copy(update={"batch": 128 + i}) for arm, p in pattern.conditions[name].arms.items()
                    },
                }
            )
            for name in names
        }
        made[f"claim-{i}"] = pattern.model_copy(
            update={"id": f"claim-{i}", "title": f"{pattern.title} ({i})", "conditions": conditions}
        )
        for name in names:
            times = {"relu": [6 + s / 10 for s in range(seeds)], "tanh": [36 - s / 5 for s in range(seeds)]}
            condition(root, made[f"claim-{i}"], name, times, points=4)
    return made


def many(root: Path, count: int) -> None:
    """Write ``count`` records like those committed of relu-speedup, each with a seed of its own."""
    patterns = [trial for trial in store.load(REPORTS)[0] if trial.spec.experiment == "epochs-to"]
    for i in range(count):
        pattern = patterns[i % len(patterns)]
        trial = pattern.model_copy(update={"spec": pattern.spec.model_copy(update={"seed": 10_000 + i})})
        place = store.folder(root, trial.identity)
        place.mkdir(parents=True)
        # Not by store.save, which waits for the disk each time.
        (place / "record.json").write_bytes(files.sealed(trial.model_dump_json(indent=1, by_alias=True)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    many(Path(sys.argv[1]), int(sys.argv[2]))
