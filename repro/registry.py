"""The registry: read claim files, check them against what their experiment can say, put them in the paper's order."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from repro import experiments
from repro.datasets import DRAWN
from repro.folders import claim_files
from repro.frozen import faults_in, key_path
from repro.problem import suggest
from repro.spec import STATEMENTS, Claim, ClaimFile, ClaimKeys, Condition, ConditionKeys, SpecError


def load_claim(path: Path) -> Claim:
    """Return the claim in one file. Raises SpecError with the faults of the file, one per line."""
    try:
        raw = _tuples(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not TOML: {error}") from error
    faults: list[str] = []
    file = _valid(ClaimFile, raw, faults)
    _refuse(path, faults)
    faults += _reference_faults(file, path.stem)
    _refuse(path, faults)
    conditions = {name: _condition(name, file, faults) for name in file.conditions}
    _refuse(path, faults)
    return Claim(**{name: getattr(file, name) for name in ClaimKeys.model_fields}, conditions=conditions)


def _tuples(value: Any) -> Any:
    """Return what tomllib read, with tuples in place of lists, since a claim is immutable."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _refuse(path: Path, faults: list[str]) -> None:
    """Raise SpecError where there are faults, naming each of them once."""
    if faults:
        raise SpecError("\n".join(f"{path}: {fault}" for fault in dict.fromkeys(faults)))


def _condition(name: str, file: ClaimFile, faults: list[str]) -> Any:
    """Return one condition with every arm's parameters, or None with what is wrong added to ``faults``."""
    experiment = experiments.get(file.experiment)
    common = {key: value for key, value in file.conditions[name].items() if key in ConditionKeys.model_fields}
    rest = {key: value for key, value in file.conditions[name].items() if key not in common}
    if common.get("scale") == "static":
        common.setdefault("seeds", (0,))  # a computation draws no random numbers
    own = _valid(ConditionKeys, common, faults, {}, ("conditions", name))
    arms = {
        arm: _valid(
            experiment.Parameters, rest | factors, faults, dict.fromkeys(factors, ("arms", arm)), ("conditions", name),
            ConditionKeys.model_fields,
        )
        for arm, factors in file.arms.items()
    }  # fmt: skip
    if own is None or None in arms.values():
        return None
    found = list(arms.values())
    if any(p in found[:i] for i, p in enumerate(found)) and len({repr(t) for t in file.arms.values()}) == len(found):
        faults.append(f"conditions.{name}: two of {', '.join(arms)} are alike, as a key left out has its default")
    if DRAWN in {parameters.dataset for parameters in arms.values()} and own.scale != "smoke":
        faults.append(
            f"conditions.{name}.scale: {own.scale!r}, and the pictures of {DRAWN!r} are drawn: they are for 'smoke'"
        )
    condition = Condition(name=name, arms=arms, **{key: getattr(own, key) for key in ConditionKeys.model_fields})
    faults += [f"conditions.{name}.{fault}" for fault in experiment.faults(condition.any_arm, condition.seeds)]
    return condition


def _reference_faults(file: ClaimFile, stem: str) -> list[str]:
    """Return faults in the references of a claim: unknown names, conditions without expectations, unfit arms."""
    if file.experiment not in experiments.names():
        return [f"experiment: {_unknown(file.experiment, experiments.names())}"]
    experiment = experiments.get(file.experiment)
    used: list[tuple[str, str, Collection[str]]] = [("headline", file.headline, file.conditions)]
    used += [(f"confounds[{i}]", name, experiment.FACTORS) for i, name in enumerate(file.confounds)]
    for i, e in enumerate(file.expect):
        used += [(f"expect[{i}].metric", metric, experiment.UNITS) for metric in e.metrics]
        used += [(f"expect[{i}].of", e.of, file.arms)]
        used += [(f"expect[{i}].over", e.over, file.arms)] if e.over is not None else []
        used += [(f"expect[{i}].conditions[{j}]", name, file.conditions) for j, name in enumerate(e.conditions)]
    faults = [f"id: {file.id!r} must be the file's name, {stem!r}"] if file.id != stem else []
    faults += [f"{key}: {_unknown(name, known)}" for key, name, known in used if name not in known]
    faults += [
        f"conditions.{name}: no [[expect]] is for it"
        for name in file.conditions
        if all(e.conditions and name not in e.conditions for e in file.expect)
    ]
    faults += list(_expectation_faults(file, experiment.VIEWED))
    return faults + list(_arm_faults(file, experiment.FACTORS))


def _expectation_faults(file: ClaimFile, viewed: Collection[str]) -> Iterator[str]:
    """Yield a fault for each view that is missing or has no meaning, and each max over what is not computed."""
    for i, e in enumerate(file.expect):
        wanted = any(metric in viewed for metric in e.metrics)
        if wanted and e.view is None:
            yield f"expect[{i}].view: missing; {e.metrics[0]} is of the view 'centre' or 'ten'"
        if not wanted and e.view is not None:
            yield f"expect[{i}].view: {e.metrics[0]} is not taken of a view; leave it out"
        measured = [
            name
            for name, table in file.conditions.items()
            if table.get("scale") != "static" and (not e.conditions or name in e.conditions)
        ]
        if e.statistic == "max" and measured:
            yield f"expect[{i}].statistic: a max is for what is computed; {measured[0]} is not static"


def _arm_faults(file: ClaimFile, factors: Collection[str]) -> Iterator[str]:
    """Yield faults of the arms: a condition's key, two arms alike, a difference in more than one undeclared factor."""
    keys = sorted({key for table in file.arms.values() for key in table})
    for arm, table in file.arms.items():
        for key in table.keys() - set(factors):
            allowed = f"an arm may set only {', '.join(factors)}; everything else belongs in a condition"
            yield f"{key_path(('arms', arm, key))}: {allowed}"
    for name, table in file.conditions.items():
        for key in table.keys() & set(keys) & set(factors):
            yield f"conditions.{name}.{key}: the arms set it too; leave it to one of them"
    values = {key: {repr(table.get(key)) for table in file.arms.values()} for key in keys if key in factors}
    undeclared = [key for key, found in values.items() if len(found) > 1 and key not in file.confounds]
    if len(undeclared) > 1:
        yield f"arms: they differ in {', '.join(undeclared)}; keep one and list the others in 'confounds'"
    tables = list(file.arms.values())
    if any(table in tables[:i] for i, table in enumerate(tables)):
        yield f"arms: two of {', '.join(file.arms)} are alike; arms differ in one of {', '.join(factors)}"


def _unknown(name: str, known: Any) -> str:
    return f"unknown name {name!r}{suggest(name, known)}; known: {', '.join(sorted(known))}"


def _valid(
    model: Any, table: Mapping[str, Any], faults: list[str], homes: Mapping[str, tuple[str, ...]] = {},
    at: tuple[str, ...] = (), also: Collection[str] = (),
) -> Any:  # fmt: skip
    """Return ``table`` as a ``model``, or None with its faults added to ``faults``; see ``faults_in``."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        faults += faults_in(error, model, homes, at, also)
        return None


def unfilled(path: Path, template: Path) -> list[str]:
    """Return a line for each text in a claim file that is still the template's; the file must load without faults."""
    there = dict(_prose(tomllib.loads(template.read_text(encoding="utf-8"))))
    here = _prose(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    return [f"{path}: {key}: fill it in; it is still the template's {t!r}" for key, t in here if there.get(key) == t]


def _prose(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the text of everything in a claim file that is written for a reader."""
    yield "title", raw["title"]
    yield "source.text", raw["source"]["text"]
    for i, e in enumerate(raw["expect"]):
        yield f"expect[{i}].because", e["because"]
    for i, deviation in enumerate(raw.get("deviations", ())):
        yield from ((f"deviations[{i}].{key}", deviation[key]) for key in ("what", "effect"))


def load_registry(directory: Path) -> dict[str, Claim]:
    """Return all claims of a registry, by id, in the paper's order. Raises SpecError with the faults of every file."""
    claims, faults = {}, []
    files = claim_files(directory)
    stems = [path.stem for path in files]
    for path in files:
        try:
            claims[path.stem] = load_claim(path)
        except SpecError as error:
            faults.append(str(error))
        else:
            faults += [
                f"{path}: support[{i}]: {_unknown(id_, stems)}"
                for i, id_ in enumerate(claims[path.stem].support)
                if id_ not in stems
            ]
    if faults:
        raise SpecError("\n".join(faults))
    return dict(sorted(claims.items(), key=lambda item: (item[1].statements[:1] or (STATEMENTS + 1,), item[0])))
