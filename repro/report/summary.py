"""The report as plain data: every claim of the registry, its conditions, verdicts and trials. Schema 1."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro import __version__, datasets, experiments, files, notes, release, store
from repro.experiments import Observed
from repro.judging import bands, paired, resolve
from repro.judging.judge import Judged, Records, Verdict, judge, judge_all, records
from repro.judging.rules import in_words, unit
from repro.outcomes import UNTESTED
from repro.report.tables import headline
from repro.source import code_digest
from repro.spec import (
    Claim,
    Condition,
    Expectation,
    band_text,
    corroboration_text,
    expectations,
    name_text,
    published_text,
)
from repro.store import Trial

SCHEMA = 1
SHOWN = (
    "commit", "dirty", "device", "cpu", "threads", "world", "torch", "python", "precision", "captured", "loader",
    "micro_batch", "code_digest",
)  # fmt: skip
"""Keys of a trial's environment that the report shows."""


def summarise(registry: Mapping[str, Claim], root: Path, *, ahead: bool = False) -> dict[str, Any]:
    """Return the whole report as JSON-ready data, from the records under ``root``; infinities are None.

    ``ahead`` adds what the planned seeds of each condition can resolve, which takes a second or two.
    Files of the store that cannot be used are listed in ``problems``: the rest is judged without them.
    """
    stored, plans = store.stored(root), notes.load_plans(root)
    trials, problems = stored.trials, [*stored.refused.values(), *plans.unusable.values()]
    found_once = records(*stored)
    claims = []
    for claim in registry.values():
        verdicts = judge_all(claim, found_once, plans.looks, plans.unusable)
        claims.append(_claim(claim, verdicts, root) | {"bands": _moved(root, claim, problems)})
    if ahead:
        for claim, told in zip(registry.values(), claims, strict=True):
            for c in told["conditions"]:
                looks = plans.looks.get((claim.id, c["name"]), ())
                c["resolves"] = _resolves(claim, claim.conditions[c["name"]], trials, c["seeds"], looks)
    found: dict[str, Any] = _finite(
        {
            "schema": SCHEMA,
            "version": __version__,
            "evidence_digest": store.evidence_digest(root),
            "code_digest": code_digest(),
            "counts": counts(claims),
            "problems": problems,
            "unused": _unused(trials, claims),
            "claims": claims,
            "errata": [claim["id"] for claim in claims if _erratum(claim)],
        }
    )
    return found


def _unused(trials: Sequence[Trial], claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the identities of trials that no claim of the registry asks for."""
    used = {t["digest"] for claim in claims for c in claim["conditions"] for t in c["trials"]}
    return [trial.identity for trial in trials if trial.identity not in used]


def _moved(root: Path, claim: Claim, problems: list[str]) -> list[str]:
    """Return what changed in a claim's bands since its first run; if that cannot be told, add why to ``problems``."""
    try:
        return bands.changed(root, claim)
    except files.StoreError as error:
        problems.append(str(error))
        return [f"whether a band was changed since the first run cannot be told: bands/{claim.id}.json cannot be used"]


def outcomes(registry: Mapping[str, Claim], found: Records, plans: notes.Plans) -> dict[str, str]:
    """Return each claim's outcome, by id: what a list needs, without the rest of the report."""
    told: dict[str, str] = {}
    for id_, claim in registry.items():
        at = (id_, claim.headline)
        looks, unknown = plans.looks.get(at, ()), plans.unusable.get(at, "")
        told[id_] = judge(claim, claim.conditions[claim.headline], found, looks, unknown).outcome
    return told


def _erratum(claim: Mapping[str, Any]) -> bool:
    """Whether what the paper states does not follow from its own text or source, by arithmetic or the release."""
    ours = headline(claim)["evidence"] in ("computed", "recorded")
    return bool(claim["statements"] and claim["outcome"] == "NOT_REPRODUCED" and ours)


def counts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many claims have each outcome under their headline condition."""
    return dict(Counter(claim["outcome"] for claim in claims))


def counts_line(claims: Sequence[Mapping[str, Any]]) -> str:
    """Return the counts as one line, outcomes with their evidence: ``1 claim: 1 REPRODUCED (1 measured)``."""
    found = Counter(str(claim["outcome"]) for claim in claims)
    kinds = Counter((claim["outcome"], headline(claim)["evidence"]) for claim in claims)
    parts = []
    for outcome, n in sorted(found.items()):
        evidence = ", ".join(f"{m} {kind}" for (o, kind), m in sorted(kinds.items()) if o == outcome)
        parts.append(f"{n} {outcome}" + (f" ({evidence})" if outcome not in UNTESTED else ""))
    total = sum(found.values())
    return f"{total} claim{'s' if total != 1 else ''}: {', '.join(parts)}"


def refuted(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of claims whose headline is NOT_REPRODUCED without being listed as known."""
    return [
        claim["id"]
        for claim in claims
        if claim["outcome"] == "NOT_REPRODUCED" and (claim["known"] or {}).get("outcome") != "NOT_REPRODUCED"
    ]


def _claim(claim: Claim, verdicts: Mapping[str, Verdict], root: Path) -> dict[str, Any]:
    deciding = verdicts[claim.headline]
    return {
        "id": claim.id,
        "title": claim.title,
        "section": claim.source.section,
        "figure": claim.source.figure,
        "table": claim.source.table,
        "text": claim.source.text,
        "statements": list(claim.statements),
        "experiment": claim.experiment,
        "headline": claim.headline,
        "outcome": deciding.outcome,
        "reason": deciding.reason,
        "support": list(claim.support),
        "corroboration": list(dict.fromkeys(filter(None, map(corroboration_text, claim.expect)))),
        "known": claim.known.model_dump() if claim.known else None,
        "by_construction": claim.by_construction,
        "published": [published_text(e) for e in expectations(claim, claim.headline)],
        "deviations": [d.model_dump() for d in claim.deviations],
        "conditions": [_condition(claim, name, v, root) for name, v in verdicts.items()],
    }


def _condition(claim: Claim, name: str, verdict: Verdict, root: Path) -> dict[str, Any]:
    condition, experiment = claim.conditions[name], experiments.get(claim.experiment)
    alone = len(condition.arms) == 1
    shared = condition.any_arm.model_dump(mode="json", exclude=set(experiment.FACTORS))
    return {
        "name": name,
        "headline": name == claim.headline,
        "scale": condition.scale,
        "dataset": condition.any_arm.dataset,
        "protocol": condition.any_arm.protocol,
        "evidence": "none" if condition.scale == "smoke" else experiment.EVIDENCE,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "note": condition.note,
        "blocked": condition.blocked,
        "parameters": shared | {"net": getattr(condition.any_arm, "net", None)},
        "expected": [_expected(e, claim, alone=alone) for e in expectations(claim, name)],
        "seeds": list(verdict.seeds),
        "seeds_in_claim": list(condition.seeds),
        "looks": verdict.looks,
        "command": _command(claim, name, verdict),
        "deviations": [d.model_dump() for d in condition.deviations],
        "resolves": [],
        "estimates": [_estimate(j, claim, verdict.observed, root, alone=alone) for j in verdict.judged],
        "trials": [_trial(arm, role, trial) for arm, role, trial in verdict.observed.trials],
        "stale": sum(t.environment.get("code_digest") != code_digest() for _, _, t in verdict.observed.trials),
        "environments": _environments([t for _, _, t in verdict.observed.trials]),
    }


def _resolves(
    claim: Claim, condition: Condition, trials: Sequence[Trial], seeds: Sequence[int], looks: Sequence[Sequence[int]]
) -> list[str]:  # fmt: skip
    """Return a sentence per expectation on what the planned seeds can say of it; empty where no seeds are needed."""
    if condition.scale == "static":
        return []
    return [resolve.sentence(r, condition.scale) for r in resolve.resolves(claim, condition, trials, seeds, looks)]


def _command(claim: Claim, name: str, verdict: Verdict) -> str:
    seeds = "" if verdict.seeds == claim.conditions[name].seeds else f" --seeds {len(verdict.seeds)}"
    data = " --data DIR" if datasets.folder(claim.conditions[name].any_arm.dataset) else ""
    return f"repro run claim {claim.id} --condition {name}{seeds}{data}"


def _expected(e: Expectation, claim: Claim, *, alone: bool) -> dict[str, Any]:
    """Return what the paper, or a question of its readers, leads us to expect before anything is run."""
    experiment = experiments.get(claim.experiment)
    return {
        "asked": not claim.statements,
        "name": name_text(e),
        "words": in_words(e, alone=alone),
        "published": e.published_value,
        "published_text": published_text(e),
        "accept": list(e.accept),
        "accept_text": band_text(e),
        "because": e.because,
        "null": e.null,
        "unit": unit(e, experiment.UNITS),
    }


def _estimate(
    judged: Judged, claim: Claim, observed: Observed, root: Path, *, alone: bool
) -> dict[str, Any]:  # fmt: skip
    e, i = judged.expectation, judged.estimate
    pair = paired.difference(e, observed, root)
    evidence = experiments.get(claim.experiment).EVIDENCE
    return _expected(e, claim, alone=alone) | {
        "value": i.value if i else None,
        "low": i.low if i else None,
        "high": i.high if i else None,
        "n": list(i.n) if i else [],
        "confidence": i.confidence if i else None,
        "per_seed": _per_seed(e, observed),
        "paired": paired.sentence(pair) if pair else None,
        "evidence": evidence,
        "files": release.files(e.metrics) if evidence == "recorded" else [],
        "outcome": judged.outcome,
        "reason": judged.reason,
    }


def _per_seed(e: Expectation, observed: Observed) -> list[list[float]]:
    """Return [seed, value] of every seed with an exact value, in both arms where two are compared; empty for a max."""
    arms = [arm for arm in (e.of, e.over) if arm is not None]
    found = [{o.seed: o.value for o in observed.values.get(e.observables[0], {}).get(a, ()) if o.exact} for a in arms]
    if e.statistic == "max":
        return []
    if not e.compares:
        return [[seed, value] for seed, value in found[0].items()]
    of, over = found
    both = [seed for seed in of if seed in over and (e.statistic != "ratio" or over[seed])]
    return [[s, of[s] / over[s] if e.statistic == "ratio" else of[s] - over[s]] for s in both]


def _trial(arm: str, role: str, trial: Trial) -> dict[str, Any]:
    return {
        "arm": arm,
        "role": role,
        "seed": trial.spec.seed,
        "status": trial.status,
        "digest": trial.identity,
        "rate": trial.spec.config.get("rate"),
        "limit": trial.limit,
        "message": trial.message,
        "measurements": {m.name: m.value for m in trial.measurements},
        "stale": trial.environment.get("code_digest") != code_digest(),
        "device": trial.environment.get("device"),
        "duration_s": trial.duration_s,
        "started": trial.started,
    }


def _environments(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return the distinct environments of the trials, each with the number of trials run in it."""
    plain = str | int | float | bool | None  # a record made elsewhere may hold anything

    def told(value: Any) -> Any:
        return value if isinstance(value, plain) else str(value)

    found = Counter(tuple((key, told(t.environment[key])) for key in SHOWN if key in t.environment) for t in trials)
    return [dict(environment) | {"trials": n} for environment, n in sorted(found.items(), key=lambda item: -item[1])]


def _finite(value: Any) -> Any:
    """Return JSON-ready data: infinities and NaN become None, which JSON can say."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
