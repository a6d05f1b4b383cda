"""How often the judge is wrong, as a page: ``python tests/error_rates.py [REPETITIONS] > docs/error-rates.md``."""

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from scipy.stats import binomtest
from worlds import (
    SHARES,
    World,
    difference_worlds,
    failed_worlds,
    most,
    other_worlds,
    reduced_worlds,
    simulate,
    stopped,
    wrong,
)  # fmt: skip

from repro.judging.power import chances

REPETITIONS = 2000


def _told(count: int, repetitions: int, mark: bool = False) -> str:
    text = f"{100 * count / repetitions:.1f}"
    return f"**{text}**" if mark else text


def _row(world: World, repetitions: int) -> str:
    rates, bad = simulate(world, repetitions), wrong(world)
    e = world.claim.expect[0]
    cells = [
        _told(rates.outcomes[o], repetitions, o in bad)
        for o in ("REPRODUCED", "DIRECTION", "INCONCLUSIVE", "NOT_REPRODUCED", "ERROR")
    ]
    computed = ""
    if not world.note:
        expected = chances(e, world.truth, world.sds, world.n)
        computed = f"{100 * expected.reproduced:.1f}, {100 * expected.not_reproduced:.1f}"
    return f"| {world.label} | {' | '.join(cells)} | {_told(rates.covered, repetitions)} | {computed} |"


def _reduced_row(world: World, repetitions: int) -> str:
    found = simulate(world, repetitions).outcomes
    bad = {"TREND_CONSISTENT": world.truth <= 1, "TREND_UNRESOLVED": False, "TREND_CONTRARY": world.truth >= 1}
    cells = [_told(found[o], repetitions, mark) for o, mark in bad.items()]
    return f"| {len(world.claim.expect)} | {world.truth:g} | {world.n} | {' | '.join(cells)} |"


def page(repetitions: int) -> Iterator[str]:
    """Yield the lines of docs/error-rates.md."""
    worlds = [*difference_worlds(), *other_worlds(), *failed_worlds()]
    at_five = binomtest(round(0.05 * repetitions), repetitions).proportion_ci(0.95)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "scipy", "pydantic"))
    yield PROSE.format(
        worlds=len(worlds), repetitions=f"{repetitions:,}", low=100 * at_five.low, high=100 * at_five.high,
        most=100 * most(repetitions) / repetitions, versions=f"Python {platform.python_version()}, {versions}",
        command="python tests/error_rates.py" + ("" if repetitions == REPETITIONS else f" {repetitions}"),
    )  # fmt: skip
    yield HEAD
    for world in worlds:
        yield _row(world, repetitions)
    yield LOOKED
    for truth, sd in ((0.7, 0.35), (1.4, 0.35), (0.0, 0.35)):
        for name, share in SHARES.items():
            told = stopped(truth, sd, repetitions, share)
            cells = [_told(told[o], repetitions) for o in ("REPRODUCED", "NOT_REPRODUCED")]
            other = repetitions - told["REPRODUCED"] - told["NOT_REPRODUCED"]
            yield f"| {truth:g} | {name} | {' | '.join(cells)} | {_told(other, repetitions)} |"
    yield REDUCED
    for world in reduced_worlds():
        yield _reduced_row(world, repetitions)


PROSE = """# How often a verdict is wrong

A verdict rests on a few seeds, so it can be wrong. How often is not a matter of opinion: in a simulated world the
truth is known, so one can draw the seeds, judge, and count. Every row below is such a world: {repetitions} claims,
each with fresh records of its own, judged by the same `judge` that judges real ones. Nothing here was trained.

What it says:

- With one look and seeds that scatter normally, each outcome that would be wrong comes out about 5 times in 100 at
  most, even with the truth on the edge of the band. Three things raise that: unlike spreads (to 5.4, below), skewed
  seeds of an absolute value (below), and [looking more than once](#looking-more-than-once).
- Noise makes a verdict weaker, not wrong. With the truth inside the band, more noise gives fewer `REPRODUCED`, not
  more; outside it, noise does not bring them past 5%, but for unlike spreads and skewed seeds. The verdict becomes
  `DIRECTION` or `INCONCLUSIVE` instead.
- A failed trial is an `ERROR` every time.
- Two arms with like spreads are judged a little more strictly than asked at 3 seeds (4% instead of 5%), as Welch's
  interval is wide there. Where one arm scatters six times as much as the other it is the other way: 5.4% at 3 seeds
  and 5.1% at 5, the most there can be (computed).
- An arm that is cut off at its limit (*censored*) leaves one side of the interval open. It can still show a direction
  or refute; the open side reproduces nothing.
- The rates hold for seeds that scatter normally. In a difference, *skewed* ones (exponential) and *long-tailed* ones
  (Laplace) do little harm. In an absolute value, nothing cancels a skew: exponential seeds make one end of its
  interval miss three times as often as it says. The error of a test set, a mean over many images, is near normal.

How to read it:

- *truth* is what the claim would come to with endless seeds. *SD* is the standard deviation over seeds, in points of
  error (for a ratio: of the logarithm, so 0.1 is about 10%). *n* is the number of seeds an arm.
- The claims are a *difference* of 1.4 points, accepted from 0.7 to 2.1; an absolute *value* of 37.5%, accepted from
  36.2 to 38.8, lower is better; and a *ratio* of 6, accepted from 4 to 9. No effect is a difference of 0, or a ratio
  of 1.
- Outcomes are in percent of the claims of a row. Those in **bold** would be wrong in that world. On the edge of the
  band (0.7, 2.1, 36.2, 38.8, 4, 9) both `REPRODUCED` and `NOT_REPRODUCED` are wrong; each is to come out at most 5
  times in 100.
- *covers* is how often the 90% interval held the truth. *computed* gives the chances of `REPRODUCED` and
  `NOT_REPRODUCED` by `repro.judging.power`, which simulates nothing; the two ways should agree.
- In {repetitions} claims, a rate of 5% shows as {low:.1f} to {high:.1f} in 19 rows of 20. The tests let it show as
  {most:.1f} at most, which chance alone passes once in a million rows.

`{command} > docs/error-rates.md` made this page with
{versions}; {worlds} worlds. The generators' seeds are fixed, so the same
versions give the same page. `tests/test_worlds.py` holds a part of it to these limits in each run of the suite, and all
of it in `make long`.

## One look
"""

HEAD = (
    "| claim | truth | SD | n | REPRODUCED | DIRECTION | INCONCLUSIVE | NOT_REPRODUCED | ERROR | covers | computed |\n"
    f"|{'---|' * 11}"
)

LOOKED = """
## Looking more than once

Whoever looks again has another chance to be wrong. By our rule two looks are wrong at most 7.5 times in 100, three
looks are wrong at most 9.2 times in 100, whatever the draws have in common; and what the first look said stands in
every later reason.

The example is someone who runs 3 seeds, looks, goes on to 5 where the size is not decided, and then to 10. The claim
is the difference of 1.4 points, SD 0.35. Our rule cannot know how many looks are still to come, so it charges each
one as the last of those so far: alpha, then a half of it, then a third. With the truth on the edge of the band (0.7),
that takes back most of the excess over 5%, not all of it. Three looks that are planned from the start, at a third of
alpha each, stay below 5%.

No rule takes back all of the excess for looks that nobody planned: the first one has spent alpha, so whatever a later
one adds comes on top. It adds at most its share, so the chance is at most alpha times 1 + 1/2 after two looks, and
times 1 + 1/2 + 1/3 after three.

| truth | rule | REPRODUCED | NOT_REPRODUCED | neither |
|---|---|---|---|---|"""


REDUCED = """
## Reduced data

Smaller data tell a direction only. Without an effect, `TREND_CONSISTENT` and `TREND_CONTRARY` come out about 5 times
in 100 at most, each. The claims are one ratio, or two over the same arm, SD 0.2, and all ratios of a claim have the
same truth: 1 is no effect, 1.5 the claimed direction, 0.67 the opposite one. One contrary ratio makes the claim
`TREND_CONTRARY`, so each of two is tested at half of alpha; `TREND_CONSISTENT` takes both, so it needs no share.

| ratios | truth | n | TREND_CONSISTENT | TREND_UNRESOLVED | TREND_CONTRARY |
|---|---|---|---|---|---|"""


if __name__ == "__main__":
    for line in page(int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS):
        print(line, flush=True)
