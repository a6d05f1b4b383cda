"""The report as CSV: a row for each number that the paper leads us to expect, under each condition."""

import csv
import io
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "claim", "section", "condition", "headline", "scale", "protocol", "dataset", "evidence", "outcome", "name", "unit",
    "published", "accept_low", "accept_high", "value", "low", "high", "n", "confidence", "number_outcome", "reason",
)  # fmt: skip


def render(summary: Mapping[str, Any]) -> str:
    """Return the whole report; an open end or unknown value is an empty cell, and n has a plus between arms."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for claim in summary["claims"]:
        for c in claim["conditions"]:
            shared = {key: c[key] for key in ("scale", "protocol", "dataset", "evidence", "outcome", "reason")} | {
                "claim": claim["id"], "section": claim["section"], "condition": c["name"],
                "headline": int(c["name"] == claim["headline"]),
            }  # fmt: skip
            if c["outcome"] == "NOT_TESTED":
                shared["evidence"] = ""
            for e in c["estimates"] or c["expected"]:
                writer.writerow(shared | _number(e))
    return buffer.getvalue()


def _number(e: Mapping[str, Any]) -> dict[str, Any]:
    low, high = e["accept"]
    return {
        "name": e["name"], "unit": e["unit"],
        "published": e["published_text"] if e["published"] is None else e["published"],
        "accept_low": low, "accept_high": high, "value": e.get("value"), "low": e.get("low"), "high": e.get("high"),
        "n": "+".join(map(str, e.get("n", ()))), "confidence": e.get("confidence"), "number_outcome": e.get("outcome"),
    }  # fmt: skip
