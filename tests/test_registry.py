import copy
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro import registry
from repro.folders import default_claims
from repro.registry import load_claim, load_registry
from repro.spec import SpecError, is_name

TEMPLATE = (default_claims() / "TEMPLATE.toml").read_text(encoding="utf-8").replace("your-claim-id", "mine")


@pytest.fixture
def refused(tmp_path):
    def _refused(old: str, new: str) -> str:
        """Return what load_claim says of the template with one piece replaced."""
        assert old in TEMPLATE
        path = tmp_path / "mine.toml"
        path.write_text(TEMPLATE.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            load_claim(path)
        return str(caught.value).replace(f"{path}: ", "")

    return _refused


def test_the_template_is_a_claim(tmp_path):
    """The template loads as soon as it has an id, also with a byte order mark and Windows line ends."""
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TEMPLATE.replace("\n", "\r\n").encode())
    claim = load_claim(path)
    assert claim.id == "mine"
    assert claim.conditions["smoke"].arms["relu"].activation == "relu"


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("headline =", "headlin =", "headlin", "did you mean headline?"),
        ("section =", "sektion =", "source.sektion", "allowed: figure, section, table, text"),
        ("metric =", "metrik =", "expect[0].metrik", "did you mean metric?"),
        ("value = 1.0 }", "valeu = 1.0 }", "expect[0].published.valeu", "allowed: about, op, value, words"),
        ("effect =", "efect =", "deviations[0].efect", "allowed: effect, what"),
        ("max_epochs =", "max_epoch =", "conditions.smoke.max_epoch", "did you mean max_epochs?"),
        ("cpu = 1500", "gpu = 1500", "conditions.smoke.assumed_speed.gpu", "'cpu' or 'cuda'"),
        ("cpu = 1500", "cpu = -1", "conditions.smoke.assumed_speed.cpu", "greater than 0"),
        ("schema = 1", "schema = 2", "schema", "should be 1"),
        ("[15]", "[99]", "statements[0]", "less than or equal to 41"),
        ('headline = "smoke"', 'headline = "smok"', "headline", "did you mean smoke?"),
        ('"epochs-to" # how', '"epoch-to" # how', "experiment", "did you mean epochs-to?"),
        ('of = "tanh"', 'of = "tahn"', "expect[0].of", "did you mean tanh?"),
        ('over = "relu"', 'over = "tanh"', "expect[0]", "name two arms"),
        ("{ op = \">\", value = 1.0 }", '"six"', "expect[0].published", "a number, or a table"),
        ("{ op = \">\", value = 1.0 }", "nan", "expect[0].published.value", "finite"),
        ("{ op = \">\", value = 1.0 }", "0.5", "expect[0]", "misses the published value 0.5"),
        ("[1.0, inf]", "[0.1, 0.9]", "expect[0]", "misses the published value > 1"),
        ("[1.0, inf]", "[0.2, 1.0]", "expect[0]", "misses the published value > 1"),
        ("[1.0, inf]", "[0.5, 2.0]", "expect[0]", "holds null 1"),
        ("[1.0, inf]", "[nan, inf]", "expect[0]", "low < high"),
        ("null = 1.0", "null = nan", "expect[0].null", "finite"),
        ("null = 1.0 #", "#", "expect[0]", "needs 'null'"),
        ("null = 1.0", 'null = 1.0\nconditions = ["smoky"]', "expect[0].conditions[0]", "did you mean smoke?"),
        ("null = 1.0", 'null = 1.0\nconditions = ["smoky"]', "conditions.smoke", "no [[expect]] is for it"),
        ("seeds = [0, 1]", "seeds = []", "conditions.smoke.seeds", "at least 1 item"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "conditions.smoke.seeds", "stands twice"),
        ("seeds = [0, 1]", "seeds = [1000]", "conditions.smoke.seeds", "tuning seed"),
        ("seeds = [0, 1]", "seeds = [0.5]", "conditions.smoke.seeds[0]", "valid integer"),
        ("seeds = [0, 1]", 'seeds = "0"', "conditions.smoke.seeds", "a list"),
        ("max_epochs = 30.0", "max_epochs = inf", "conditions.smoke.max_epochs", "finite"),
        ('activation = "relu"', 'activation = "rleu"', "arms.relu.activation", "'relu', 'tanh' or 'sigmoid'"),
        ('activation = "relu"', 'activation = "relu"\nbatch = 64', "arms.relu.batch", "an arm may set only"),
        ('activation = "relu"', 'activation = "relu"\nnet = "18pct"', "conditions.smoke.net", "the arms set it too"),
        ('activation = "relu"', 'activation = "relu"\nnet = "18pct"', "arms", "differ in activation, net"),
        ('activation = "tanh"', 'activation = "relu"', "arms", "alike"),
        ("[arms.relu]", '[arms."../relu"]', 'arms."../relu"', "lower-case letters"),
        ('id = "mine"', 'id = "../mine"', "id", "lower-case letters"),
        ('id = "mine"', 'id = "yours"', "id", "the file's name, 'mine'"),
        ("headline =", 'confounds = ["nett"]\nheadline =', "confounds[0]", "did you mean net?"),
        ('title = "One line', 'title = "\\u001b[2J', "title", "can be printed"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_key_and_what_is_allowed(refused, old, new, key, said):
    """Each fault gives a line that starts with its key path and says what would be right."""
    lines = refused(old, new).splitlines()
    assert any(line.startswith(f"{key}: ") and said in line for line in lines), lines


@pytest.mark.parametrize(
    "content",
    [
        b"schema = = 1", b"schema = 1\nschema = 1", b"\0", b"title = '\xc6'", b"a = " + b"[" * 3000 + b"]" * 3000,
        b"a = " + b"9" * 5000, b"a" + b".a" * 3000 + b" = 1",
    ],
)  # fmt: skip
def test_what_is_not_toml_is_one_line(tmp_path, content):
    """A file that cannot be parsed gives a single line that names it."""
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_claim(path)
    assert str(caught.value).startswith(f"{path}: not TOML: ")
    assert len(str(caught.value).splitlines()) == 1


def test_every_fault_is_told_at_once(refused):
    """Faults of one stage come together, each once, though every arm repeats those of its condition."""
    lines = refused('net = "19pct"\nseeds = [0, 1]', 'net = "20pct"\nseeds = []').splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == ["conditions.smoke.net", "conditions.smoke.seeds"]


def test_several_lines_of_prose_become_one(tmp_path):
    """Line ends inside a text are folded, so that every text fits on a line of its own."""
    path = tmp_path / "mine.toml"
    path.write_text(TEMPLATE.replace('"One line a reader understands"', '"""\nTwo\n  lines"""'), encoding="utf-8")
    assert load_claim(path).title == "Two lines"


def test_a_registry_names_the_faults_of_every_file(tmp_path):
    """One bad file does not hide another."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text("schema = 1", encoding="utf-8")
    with pytest.raises(SpecError, match=r"(?s)one\.toml.*two\.toml"):
        load_registry(tmp_path)


@pytest.mark.parametrize("text", ["../x", "", "a/b", "A", "a.b", "-a", "a" * 65, "a\n", "ä"])
def test_an_id_stays_in_its_folder(text):
    """No id can leave the folder, hide in it, or make two plans share a file name."""
    assert not is_name(text)


def _paths(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*at, key))


RAW = tomllib.loads(TEMPLATE)
PATHS = [path for path in _paths(RAW) if path]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), value=VALUES, add=st.none() | st.text(max_size=8))
def test_any_change_loads_or_is_refused(monkeypatch, tmp_path, path, value, add):
    """Whatever stands where in a claim file, it loads or is a SpecError with a line a fault, nothing else."""
    raw = copy.deepcopy(RAW)
    *above, key = path
    table = raw
    for part in above:
        table = table[part]
    if add is not None and isinstance(table, dict):
        key = add
    if value is None and isinstance(table, dict):
        table.pop(key, None)
    else:
        table[key] = value
    file = tmp_path / "mine.toml"
    file.touch()
    monkeypatch.setattr(registry.tomllib, "loads", lambda _text: raw)
    said = ""
    try:
        load_claim(file)
    except SpecError as error:
        said = str(error)
    assert all(line.startswith(f"{file}: ") for line in said.split("\n") if said)


COUNTED = """
schema = 1
id = "mine"
title = "t"
experiment = "EXPERIMENT"
statements = []
headline = "c"
[source]
section = "1"
text = "t"
[arms.net]
[[expect]]
METRIC
of = "net"
published = 1
accept = [0.0, 2.0]
because = "b"
[conditions.c]
CONDITION
"""
STATIC = 'scale = "static"\nprotocol = "paper"'
PAPER = 'scale = "paper"\nprotocol = "code"\ndataset = "ilsvrc-2010"\nseeds = [0]\nepochs = 90.0'


@pytest.mark.parametrize(
    ("experiment", "metric", "condition", "said"),
    [
        (
            "final-error",
            'metric = "top1-error"\nstatistic = "value"',
            PAPER,
            "view: missing; top1-error is",
        ),
        (
            "final-error",
            'metric = "training-error"\nview = "ten"\nstatistic = "value"',
            PAPER,
            "is not taken of a view",
        ),
        ("final-error", 'metric = "top1-error"\nview = "five"\nstatistic = "value"', PAPER, "'centre' or 'ten'"),
        (
            "final-error",
            'metric = ["training-error", "generalisation-gap"]\nstatistic = "max"',
            PAPER,
            "not static",
        ),
        ("count", 'metric = ["parameters", "neurons"]\nstatistic = "value"', STATIC, "goes with statistic 'max'"),
        ("count", 'metric = "parameters"\nstatistic = "max"', STATIC, "goes with statistic 'max'"),
        ("count", 'metric = ["parameters", "nurons"]\nstatistic = "max"', STATIC, "did you mean neurons?"),
        ("count", 'metric = "parameters"\nstatistic = "proportion"', STATIC, "accept lies in 0 to 1"),
        ("count", 'metric = "parameters"\nstatistic = "value"', STATIC + "\nblocked = 3", "conditions.c.blocked"),
    ],
)
def test_what_an_expectation_may_ask(tmp_path, experiment, metric, condition, said):
    """A view, a maximum and a proportion are refused where they mean nothing, in words that say why."""
    path = tmp_path / "mine.toml"
    text = COUNTED.replace("EXPERIMENT", experiment).replace("METRIC", metric).replace("CONDITION", condition)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_claim(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(("null", "refused"), [(0.0, True), (1.0, True), (0.5, False)])
def test_no_effect_on_a_share_is_not_one_of_its_ends(tmp_path, null, refused):
    """Any success excludes a share of 0: a claim that one run of many bears out would say little."""
    path = tmp_path / "mine.toml"
    band = "[0.0, 1.0]" if refused else "[0.8, 1.0]"
    text = COUNTED.replace("EXPERIMENT", "probe").replace("CONDITION", PAPER).replace("[0.0, 2.0]", band)
    text = text.replace("METRIC", f'metric = "colours-apart"\nstatistic = "proportion"\nnull = {null}')
    path.write_text(text, encoding="utf-8")
    if not refused:
        load_claim(path)
        return
    with pytest.raises(SpecError, match="null lies between 0 and 1"):
        load_claim(path)


def test_arms_that_are_alike_through_a_default_are_refused(tmp_path):
    """One trial would count for both, and their difference would be 0."""
    path = tmp_path / "lrn-error.toml"
    text = (default_claims() / path.name).read_text(encoding="utf-8")
    path.write_text(text.replace('norm = "none"\n', ""), encoding="utf-8")
    with pytest.raises(SpecError, match=r"conditions.smoke: two of none, lrn are alike, as a key left out has its"):
        load_claim(path)


def test_support_names_a_claim_of_the_registry(tmp_path):
    """A claim that is to stand beside another must be there."""
    text = COUNTED.replace("EXPERIMENT", "count").replace("METRIC", 'metric = "parameters"\nstatistic = "value"')
    text = text.replace("CONDITION", STATIC).replace('headline = "c"', 'headline = "c"\nsupport = ["yours"]')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"support\[0\]: unknown name 'yours'"):
        load_registry(tmp_path)


@pytest.mark.parametrize("scale", ["reduced", "paper"])
def test_drawn_pictures_are_for_smoke(tmp_path, scale):
    """Synthetic pictures can neither reproduce nor refute, so no condition may let them."""
    text = (default_claims() / "lrn-error.toml").read_text()
    path = tmp_path / "lrn-error.toml"
    before, smoke = text.split("[conditions.smoke]")
    path.write_text(before + "[conditions.smoke]" + smoke.replace('scale = "smoke"', f'scale = "{scale}"', 1))
    with pytest.raises(SpecError, match=f"conditions.smoke.scale: '{scale}', and the pictures of 'embedded' are drawn"):
        load_claim(path)
