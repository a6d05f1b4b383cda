"""What README.md and docs/bench.md will say of speed once there are records of a GPU, of made-up ones."""

import json

import pytest
import speed

from repro.bench import results
from repro.bench.results import Ran, Run
from repro.bench.timing import AGAIN, OURS

CARD = {"device": "NVIDIA H200", "cuda": "13.0", "cudnn": 91300, "cpu": "EPIC", "cores": 16, "threads": 16}


def on_a_gpu(*cases, device="NVIDIA H200", **settings):
    """Return a run of twelve rounds there."""
    cpu = speed.records()["alexnet"]
    settings = {"net": "alexnet", "batch": 128, "precision": "bf16", "workers": 16} | settings
    return cpu.model_copy(
        update={"settings": settings, "environment": {**cpu.environment, **CARD, "device": device}, "cases": cases,
                "rounds": 12, "command": "repro bench there"}
    )  # fmt: skip


def ran(name="step", floor=80_000.0, missing=None, also=(), **peers):
    rates = {OURS: (40_000.0,) * 12, AGAIN: (40_000.0,) * 12, **{peer: (v,) * 12 for peer, v in peers.items()}}
    return Ran(name=name, what="a training step of alexnet", unit="images", rates=rates, floor=floor,
               missing=missing or {}, foreign=tuple(peer for peer in peers if peer != "own"), also=also)  # fmt: skip


def put(folder, *runs):
    """Write runs where they belong, as `speed.py` does, beside the committed ones of a CPU."""
    for path in speed.RECORDS.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    for run in runs:
        path = folder / speed.place(run)
        path.parent.mkdir(exist_ok=True)
        path.write_text(results.dumped(run))
    return speed.records(folder)


def test_records_of_a_gpu_lie_in_a_folder_of_its_name(tmp_path):
    made = on_a_gpu(ran(plain=20_000.0))
    found = put(tmp_path, made, on_a_gpu(ran(plain=1.0), device="NVIDIA GH200 (480GB)", precision="fp32"))
    assert [*found] == [
        *speed.records(), "nvidia-gh200-480gb/alexnet-step-fp32-128", "nvidia-h200/alexnet-step-bf16-128",
    ]  # fmt: skip
    assert found["nvidia-h200/alexnet-step-bf16-128"] == made
    (tmp_path / "nvidia-h200" / "alexnet-step-bf16-128.json").rename(tmp_path / "alexnet.json")
    with pytest.raises(AssertionError, match="alexnet is a record of NVIDIA H200"):
        speed.records(tmp_path)


def test_a_record_of_a_cpu_among_those_of_a_gpu_is_refused(tmp_path):
    put(tmp_path, on_a_gpu(ran(plain=20_000.0)))
    (tmp_path / "18pct.json").rename(tmp_path / "nvidia-h200" / "18pct.json")
    with pytest.raises(AssertionError, match="nvidia-h200/18pct is a record of a CPU"):
        speed.records(tmp_path)


def test_both_pages_name_the_gpu_and_the_share_of_the_roofline(tmp_path):
    before = speed.records()
    fed = ran("loader-and-step", None, {"DALI": "not there"}, (("own", "script"),), own=20_000.0, script=5_000.0)
    found = put(tmp_path, on_a_gpu(ran(plain=20_000.0)), on_a_gpu(fed, ran("judge", None), precision="fp32"))
    table, quoted = speed.table(found), speed.quoted(found)
    cpus, gpus = table.split("On an NVIDIA H200:\n")
    assert cpus.strip() == speed.table(before).split("\n\n- ")[0].strip()  # what was said of the CPU stays
    assert "| case | ours | of the roofline | ours over itself | peer | ours over it | |" in gpus
    step = "| step: a training step of alexnet, bf16, batch 128 | 40,000 images/s | 50% | 1.00 [1.00, 1.00] | plain |"
    assert f"{step} 2.00 [2.00, 2.00] | faster (noise 1.00) |" in gpus
    assert "|  |  |  |  | own over script | 4.00 [4.00, 4.00] | faster (interval alone) |" in gpus
    assert gpus.count("NVIDIA H200, CUDA 13.0, cuDNN 91300, EPIC, 16 cores, 16 threads, 16 workers, Python ") == 2
    assert "reports/bench/nvidia-h200/alexnet-loader-and-step-judge-fp32-128.json" in gpus
    assert "; loader-and-step: DALI not measured: not there" in gpus
    rows = {len(line.split("|")) for line in gpus.splitlines() if line.startswith("|")}
    assert rows == {9}

    assert speed.quoted(before).split("\n\n")[0] == quoted.split("\n\n")[0]
    assert "| on an NVIDIA H200 | a second | of the serial roofline | over |" in quoted
    assert "| a training step of alexnet, bf16, batch 128 | 40,000 images | 50% | 2.00 [2.00, 2.00] plain |" in quoted
    assert "| 40,000 images |  | 8.00 [8.00, 8.00] script; 4.00 [4.00, 4.00] own over script |" in quoted
    assert "judge" not in quoted
    told = " ".join(quoted.split())
    assert "Nothing of this was measured on a GPU" not in told
    assert (
        "On the GPU n is 12, and ours over itself 1.00 to 1.00 (NVIDIA H200, CUDA 13.0, cuDNN 91300, EPIC, 16 cores"
        in told
    )
    assert "Nothing of this was measured on a GPU" in " ".join(speed.quoted(before).split())


def test_the_readme_names_every_peer_of_other_code_and_says_where_ours_is_not_faster():
    """Of the two records that it quotes, and of those of a GPU."""
    runs = speed.records()
    quoted = " ".join(speed.quoted(runs).split())
    peers = [(case, peer) for name in ("alexnet", "18pct") for case in runs[name].cases for peer in case.foreign]
    assert len(peers) > 8
    for case, peer in peers:
        found = results.ratio(case, peer)
        said = speed.ratio(case, peer) + f", {found.judged}" * (found.word != "faster")
        assert said in quoted, (case.name, peer)
    half = ran(also=(("own", "plain"),), own=40_000.0, plain=80_000.0)
    slow = speed.quoted(runs | {"there": on_a_gpu(half)})
    assert "| 0.50 [0.50, 0.50], slower (noise 1.00) plain; " in slow
    assert "; 0.50 [0.50, 0.50], slower (interval alone) own over plain |" in slow


def test_files_that_are_named_are_put_where_they_belong_and_written_of(tmp_path, monkeypatch):
    reports, pages = tmp_path / "reports" / "bench", ("README.md", "docs/bench.md")
    reports.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for page in pages:
        (tmp_path / page).write_bytes((speed.ROOT / page).read_bytes())
    put(reports)
    made = on_a_gpu(ran(plain=20_000.0))
    (tmp_path / "bench-step.json").write_text(results.dumped(made))
    monkeypatch.setattr(speed, "ROOT", tmp_path)
    monkeypatch.setattr(speed, "RECORDS", reports)
    monkeypatch.setattr(speed, "records", lambda folder=reports, real=speed.records: real(folder))
    monkeypatch.setattr("sys.argv", ["speed.py", str(tmp_path / "bench-step.json")])
    speed.main()
    assert json.loads((reports / "nvidia-h200" / "alexnet-step-bf16-128.json").read_text()) == json.loads(
        results.dumped(made)
    )
    for page in pages:
        assert "NVIDIA H200" in (tmp_path / page).read_text()
    cpus = Run.model_validate(made.model_dump(by_alias=True) | {"environment": {"device": "cpu"}})
    with pytest.raises(AssertionError, match="make record"):
        speed.place(cpus)
