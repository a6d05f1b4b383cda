"""Parts of the page that set several claims side by side: networks called AlexNet, speed beside arithmetic, counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from repro.outcomes import BROKEN, DECIDED, ORDER, OUTCOMES, UNTESTED
from repro.report import tables

EVIDENCE = ("measured", "computed", "recorded")
RECIPES = {"code": "the released recipe", "paper": "the recipe of the text", "modern": "today’s recipe"}
"""Protocols in words."""

OTHERS = "other-alexnets"
"""The claim whose arms are the networks that others call AlexNet."""

COMPARED = {"parameters": "parameters", "multiply-adds": "multiply-adds an image", "input-dimension": "input values"}


def counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many of all claims were tested, and how many have each outcome, by the kind of evidence."""
    found = Counter(
        (claim["outcome"], "" if claim["outcome"] in UNTESTED else tables.headline(claim)["evidence"])
        for claim in summary["claims"]
    )
    by_outcome = Counter(claim["outcome"] for claim in summary["claims"])
    rows: list[dict[str, Any]] = [  # what speaks for the paper first, what says nothing last
        {"outcome": outcome, "tone": OUTCOMES[outcome].tone if outcome != "SMOKE_OK" else "quiet",
         "all": by_outcome[outcome], "by": {kind: found[outcome, kind] for kind in EVIDENCE}}
        for outcome in sorted(ORDER, key=lambda outcome: (outcome in UNTESTED, -ORDER.index(outcome)))
        if by_outcome[outcome]
    ]  # fmt: skip
    tested = {kind: sum(row["by"][kind] for row in rows) for kind in EVIDENCE}
    return {
        "rows": rows,
        "evidence": EVIDENCE,
        "tested": sum(tested.values()),
        "by": tested,
        "all": len(summary["claims"]),
    }


ARITHMETIC = {"computed": "computed", "recorded": "read in the released source"}
"""Kinds of evidence that need no training, in words."""

ERROR_RATES = (
    "The rules of judgement were tried on simulated claims whose truth is known. Mistakes are likeliest where the true "
    "value lies on the very edge of its band. There, with one look and seeds that scatter normally, a measured claim "
    "comes out as REPRODUCED at most about 5 times in 100, and as NOT_REPRODUCED likewise. The exceptions: 5.4 where "
    "one arm scatters six times as much as the other and has 3 seeds; at most 7.5 after two looks and 9.2 after three, "
    "where the later ones were not planned; and for an absolute value whose seeds are strongly skewed, the interval "
    "misses at one end three times as often as it says. The interval covers the scatter of the seeds, not what was "
    "chosen before them, such as learning rates. The project’s `docs/error-rates.md` lists every simulated world."
)
"""How often a verdict is wrong, according to docs/error-rates.md; tests/test_report.py checks that they agree."""


def tested(summary: Mapping[str, Any]) -> str:
    """Return how many claims were tested and what the answers rest on: ``25 of 52 claims tested, none by training``."""
    found = counts(summary)
    by = found["by"]
    line = f"{found['tested']} of {found['all']} claims tested"
    if not found["tested"]:
        return line
    rest = [f"{by[kind]} {said}" for kind, said in ARITHMETIC.items() if by[kind]]
    if by["measured"]:
        return f"{line}: {', '.join([str(by['measured']) + ' trained or timed', *rest])}"
    return f"{line}, none by training: {', '.join(rest)}"


def chance(summary: Mapping[str, Any]) -> str:
    """Return how often a measured verdict may be wrong: alpha for the first look, and a share for each further one."""
    looks = max(
        (c["looks"] for claim in summary["claims"] for c in claim["conditions"] if c["outcome"] in DECIDED
         and c["evidence"] == "measured"),
        default=1,
    )  # fmt: skip
    line = "a measured verdict of REPRODUCED or NOT_REPRODUCED may be wrong by chance, at most about 5 times in 100"
    if looks < 2:
        return line
    share = 5 * sum(1 / look for look in range(1, looks + 1))
    return f"{line} after one look at the data; those here had up to {looks} looks, which makes it {share:.1f}"


def hollow(summary: Mapping[str, Any]) -> int:
    """Return how many claims came out REPRODUCED that could hardly have come out otherwise."""
    return sum(bool(c["by_construction"]) and c["outcome"] == "REPRODUCED" for c in summary["claims"])


def by_reading(summary: Mapping[str, Any]) -> int:
    """Return how many of the errata depend on how the text is read."""
    errata = [claim for claim in summary["claims"] if claim["id"] in summary["errata"]]
    return sum(bool(claim["known"] and claim["known"]["by_reading"]) for claim in errata)


def blocked(summary: Mapping[str, Any]) -> int:
    """Return how many claims nobody can test with what is public."""
    return sum(bool(tables.headline(claim)["blocked"]) for claim in summary["claims"])


def tested_first(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the claims that say something, then those not tested; each part in the paper's order."""
    return sorted(summary["claims"], key=lambda c: c["outcome"] in UNTESTED and c["outcome"] not in BROKEN)


def paper_and_readers(summary: Mapping[str, Any]) -> str:
    """Return separate counts of the paper's own claims and of its readers' questions; empty where one is missing."""
    parts = []
    for own, whose in ((True, "The paper’s own {} claims"), (False, "its readers’ {} questions")):
        claims = [claim for claim in summary["claims"] if bool(claim["statements"]) == own]
        found = Counter(claim["outcome"] for claim in claims if claim["outcome"] not in UNTESTED)
        if not claims:
            return ""
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(found.items())) or "none tested"
        parts.append(f"{whose.format(len(claims))}: {told}")
    return "; ".join(parts)


def measured(summary: Mapping[str, Any], *, headline: bool) -> list[dict[str, Any]]:
    """Return what was measured under headlines, or under conditions that decide nothing, but readers look for it."""
    return [
        {"claim": claim["id"], "title": claim["title"], "condition": c, "estimate": c["estimates"][0],
         "planned": planned(c), "where": where(c)}
        for claim in summary["claims"]
        for c in claim["conditions"]
        if (c["name"] == claim["headline"]) is headline and c["evidence"] == "measured" and c["outcome"] not in UNTESTED
        if c["estimates"] and c["estimates"][0]["value"] is not None
    ]  # fmt: skip


def where(condition: Mapping[str, Any]) -> str:
    """Return the processors that a condition's trials ran on: ``cpu (AMD EPYC)`` or a GPU's name."""
    return " and ".join(sorted({tables.processor(e) for e in condition["environments"]}))


def synthetic(summary: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return the claims that were run on synthetic pictures, each with its smoke condition: they show the machinery."""
    found = ((claim, c) for claim in summary["claims"] for c in claim["conditions"])
    return [(claim, c) for claim, c in found if c["scale"] == "smoke" and c["trials"]]


def unfinished(summary: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return each claim with a condition that came out ERROR, and that condition: a run of it was begun."""
    return [(claim, c) for claim in summary["claims"] for c in claim["conditions"] if c["outcome"] == "ERROR"]


def only_the_recipe(group: Sequence[Mapping[str, Any]]) -> bool:
    """Whether conditions of a claim, as ``measured`` returns them, differ only in recipe, but also in their outcome."""
    conditions = [one["condition"] for one in group]
    alike = {(c["dataset"], c["parameters"]["net"]) for c in conditions}
    recipes, outcomes = {c["protocol"] for c in conditions}, {c["outcome"] for c in conditions}
    return len(alike) == 1 and len(recipes) == len(conditions) and len(outcomes) > 1


def days(summary: Mapping[str, Any]) -> str:
    """Return the days on which the trials shown were begun, the first and the last; empty where there is none."""
    found = sorted(t["started"][:10] for claim in summary["claims"] for c in claim["conditions"] for t in c["trials"])
    return "" if not found else found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def why(claim: Mapping[str, Any]) -> str:
    """Return what an overview says about an outcome beside the numbers.

    If it is measured or undecided, that is the judge's reason. If it is decided without chance (computed or recorded),
    it is why it came out so: the claim file's explanation, or else the band and its reason.
    """
    headline = tables.headline(claim)
    if claim["outcome"] not in DECIDED or headline["evidence"] not in ARITHMETIC:
        return str(claim["reason"])
    if claim["known"]:
        return str(claim["known"]["because"])
    if claim["by_construction"]:
        return f"it could hardly have come out otherwise: {claim['by_construction']}"
    shown = tables.overview(headline)[0][0]
    return f"the accepted band is {shown['accept_text']}: {shown['because']}"


def by_claim(found: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return what ``measured`` returned, grouped by claim."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        groups.setdefault(one["claim"], []).append(one)
    return list(groups.values())


def in_words(condition: Mapping[str, Any]) -> str:
    """Return in words how a condition measures: ``net 19pct, the released recipe (code), on cifar10``."""
    net, dataset, protocol = condition["parameters"]["net"], condition["dataset"], condition["protocol"]
    parts = [
        f"net {net}" if net else "",
        f"{RECIPES[protocol]} ({protocol})",
        f"on {dataset}" if dataset != "none" else "",
    ]
    return ", ".join(filter(None, parts))


def others_run(claim: Mapping[str, Any]) -> str:
    """Return that other conditions than an untested headline were run; empty where it was tested, or none was run."""
    ran = sum(c["name"] != claim["headline"] and c["outcome"] not in UNTESTED for c in claim["conditions"])
    if not ran or claim["outcome"] != "NOT_TESTED":
        return ""
    if ran == 1:
        return "One other condition, which does not decide, was run; see below."
    return f"{ran} other conditions, which do not decide, were run; see below."


def planned(condition: Mapping[str, Any]) -> str:
    """Return ``3 of the 5 planned seeds`` where a run had fewer, empty where it had all."""
    ran, plan = set(condition["seeds"]), set(condition["seeds_in_claim"])
    return f"{len(ran & plan)} of the {len(plan)} planned seeds" if condition["trials"] and ran < plan else ""


def untrained(summary: Mapping[str, Any]) -> str:
    """Return that nothing was trained on ImageNet, where that is so."""
    trained = {c["dataset"] for claim in summary["claims"] for c in claim["conditions"] if c["trials"]}
    return (
        ""
        if any(name.startswith(("ilsvrc", "imagenet-")) for name in trained)
        else "Nothing has been trained on ImageNet yet."
    )


def stale(summary: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many of the trials shown were made by another version of this program, and how many there are."""
    trials = {t["digest"]: t["stale"] for claim in summary["claims"] for c in claim["conditions"] for t in c["trials"]}
    return sum(trials.values()), len(trials)


def stale_text(summary: Mapping[str, Any]) -> str:
    """Return the note on stale evidence, empty where there is none."""
    old, whole = stale(summary)
    if not old:
        return ""
    which = "The trials shown were" if old == whole else f"{old} of the {whole} trials shown were"
    return (
        f"{which} run by a different version of this program from the one that made this report. "
        "This is a note, not a fault: what decides a trial is in its record, and its identity is checked."
    )


def alexnets(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each network called AlexNet that was counted, that of 2012 first; empty where none was."""
    claim = next((claim for claim in summary["claims"] if claim["id"] == OTHERS), None)
    counted = [] if claim is None else tables.headline(claim)["trials"]
    paper = _counted_2012(summary)
    if not counted or paper is None:
        return []
    rows = [("the network of 2012", paper), *((t["arm"], t["measurements"]) for t in counted)]
    return [
        {"name": name, "cells": [_beside(found[key], paper[key]) for key in COMPARED]}
        for name, found in rows
        if found.keys() >= COMPARED.keys()
    ]


def _beside(value: float, reference: float) -> str:
    change = 100 * (value / reference - 1)
    return f"{value:,.0f}" + (f" ({change:+.1f}%)" if value != reference else "")


def _counted_2012(summary: Mapping[str, Any]) -> Mapping[str, float] | None:
    """Return what was counted of the paper's own network, from the claim about its 60 million parameters, or None."""
    claim = next((claim for claim in summary["claims"] if claim["id"] == "parameters"), None)
    trials = [] if claim is None else tables.headline(claim)["trials"]
    found = trials[0]["measurements"] if trials else {}
    return found if found.keys() >= {*COMPARED, "images-per-second", "share-of-peak"} else None


def speed(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each training speed we have: the paper's, from its own numbers, and those we timed.

    The floor is the time that the multiply-adds alone take at the device's peak. Our records do not hold a peak, so it
    is given only for the GPUs of 2012.
    """
    rows = []
    if paper := _counted_2012(summary):
        per_s = paper["images-per-second"]
        rows.append({
            "what": "two towers on two GTX 580, from the paper’s epochs and days", "evidence": "computed",
            "time": f"{1000 / per_s:.3g} ms", "rate": f"{per_s:.3g} images/s",
            "floor": f"{1000 / per_s * paper['share-of-peak']:.3g} ms ({100 * paper['share-of-peak']:.0f}% of peak)",
            "where": "",
        })  # fmt: skip
    for claim in summary["claims"]:
        for condition in claim["conditions"]:
            rows += [] if claim["experiment"] != "throughput" else _timed(claim, condition)
    return rows


def _timed(claim: Mapping[str, Any], condition: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for trial in condition["trials"]:
        for name, value in trial["measurements"].items():
            metric, _, arm = name.partition("/")
            if metric == "time-per-image" and value > 0:
                rows.append({
                    "what": f"{claim['id']}, {condition['name']}: {arm}, seed {trial['seed']}",
                    "evidence": condition["evidence"],
                    "time": f"{1000 * value:.3g} ms", "rate": f"{1 / value:.3g} images/s",
                    "floor": "unknown: the peak of the device is not recorded", "where": str(trial["device"] or ""),
                })  # fmt: skip
    return rows
