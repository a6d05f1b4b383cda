"""The report as JUnit XML, for the dashboards of continuous integration: one test case a claim.

A failure is a refuted headline that is not listed as known: it ends ``repro report`` with exit code 1. An error is a
headline without a verdict, say because a trial failed or is missing. What decides nothing (not tested, inconclusive,
smoke) is skipped, never passed.
"""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from repro.outcomes import BROKEN, DECIDED
from repro.report.summary import refuted


def render(summary: Mapping[str, Any]) -> str:
    """Return the whole report as XML."""
    failed = set(refuted(summary["claims"]))
    suite = ET.Element("testsuite", name="repro", tests=str(len(summary["claims"])))
    totals = {"failures": 0, "errors": 0, "skipped": 0}
    for claim in summary["claims"]:
        case = ET.SubElement(suite, "testcase", classname=f"repro.{claim['experiment']}", name=claim["id"])
        said = _printable(f"{claim['outcome']}: {claim['reason']}")
        for tag, total, applies in (
            ("failure", "failures", claim["id"] in failed),
            ("error", "errors", claim["outcome"] in BROKEN),
            ("skipped", "skipped", claim["outcome"] not in (*BROKEN, *DECIDED)),
        ):
            if applies:
                ET.SubElement(case, tag, message=said)
                totals[total] += 1
        out = ET.SubElement(case, "system-out")
        out.text = _printable(f"{claim['title']}\n{said}\n")
    for name, count in totals.items():
        suite.set(name, str(count))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Return the text without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)
