"""The benchmarks: their statistics, their report from given results, and that their machinery runs; no rates."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import contenders  # noqa: E402
import harness  # noqa: E402
import quick  # noqa: E402
import report  # noqa: E402


def result(contender, scenario, number, **figures):
    return {"contender": contender, "scenario": scenario, "round": number, "run": "now", "figures": figures}


def about(title, **more):
    return {
        "title": title,
        "peer": title,
        "keeps": "nothing",
        "settings": {},
        "skipped": {},
        "versions": {},
        **more,
    }


@pytest.fixture
def results():
    """Three rounds, in the last of which the machine is half as fast; a peer that fails in one of them."""
    names = {"pytask": 20_000, "pytask-2": 30_000, "floor": 40_000, "quick-peer": 8_000, "celery-results": 1_000}
    records = []
    for name, rate in names.items():
        for number, part in enumerate((1, 1, 0.5), 1):
            records.append(result(name, "drain", number, rate=rate * part, worker_us=1, server_us=1, others=0))
    records += [result("pytask", "latency", n, samples=[1.0, 2.0, 9.0]) for n in (1, 2, 3)]
    records.append(result("pytask", "io", 1, rate=4_000, ideal=5_000, at_once=500, others=0))
    records.append({**result("quick-peer", "io", 1), "figures": None})
    records[-1] = {"contender": "quick-peer", "scenario": "io", "round": 1, "run": "now", "error": "it hung | up"}
    run = {
        "began": "now",
        "rounds": 3,
        "scale": 1,
        "server": {"kind": "valkey", "version": "9"},
        "machine": harness.machine(),
    }
    known = {name: about(name) for name in names}
    known["quick-peer"]["skipped"] = {"memory": "one task at a time"}
    return {"runs": [run], "contenders": known, "records": records}


def test_a_summary_holds_the_median_and_how_far_apart_the_rounds_are():
    found = harness.summarize([3.0, 1.0, 2.0])
    assert (found.median, found.least, found.most, found.rounds) == (2.0, 1.0, 3.0, 3)
    assert found.spread == 1.0
    with pytest.raises(harness.BenchmarkError):
        harness.summarize([])


@pytest.mark.parametrize(("part", "value"), [(0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1, 100)])
def test_a_percentile_is_one_of_the_values(part, value):
    assert harness.percentile(range(100, 0, -1), part) == value


def test_ratios_are_those_of_a_round_so_that_a_slow_round_hits_both(results):
    figures = report.Figures(results)
    assert figures.ratio(("pytask", "drain", "rate"), ("floor", "drain", "rate")) == 0.5
    assert figures.median("pytask", "drain", "rate") == 20_000


def test_figures_of_different_runs_give_no_ratio(results):
    for row in results["records"]:
        row["run"] = row["contender"]
    assert report.Figures(results).ratio(("pytask", "drain", "rate"), ("floor", "drain", "rate")) is None


def test_targets_say_whether_they_are_reached_and_by_how_much_they_are_missed(results):
    verdicts = {target.what: target.verdict for target in report.targets(report.Figures(results))}
    assert verdicts["drain against the fastest peer (quick-peer)"] == "reached"
    assert verdicts["drain against the fastest with results (celery-results)"] == "reached"
    assert verdicts["drain against the bare floor"] == "missed by 17%"
    assert verdicts["start on an idle node, p50"] == "missed by 67%"
    assert verdicts["enqueue in bulk against the bare floor"] == "not measured"


def test_the_page_names_what_failed_and_what_was_left_out_with_the_reason(results):
    page = report.page(results)
    assert "| quick-peer | io | it hung / up |" in page
    assert "| quick-peer | memory | one task at a time |" in page


def test_every_table_of_the_page_has_as_many_cells_in_each_row(results):
    for group in re.findall(r"(?:^\|.*\n)+", report.page(results), re.M):
        assert len({row.count("|") for row in group.splitlines()}) == 1, group


def test_the_overview_begins_with_the_fastest_and_shows_percentiles(results):
    rows = report.overview(report.Figures(results)).splitlines()[2:]
    assert [row.split("|")[1].strip("* ") for row in rows][:2] == ["floor", "pytask-2"]
    assert "| 2.0 / 9.0 |" in next(row for row in rows if "**pytask**" in row)


def test_charts_hold_a_bar_for_each_contender_that_was_measured(results):
    charts = {chart["name"]: chart["rows"] for chart in report.charts(results)}
    assert [row[0] for row in charts["drain"]] == ["floor", "pytask-2", "pytask", "quick-peer", "celery-results"]
    assert charts["latency"] == [["pytask", 2.0, 2.0, 9.0, "own"]]


def test_quick_tells_which_ratio_moved(results):
    rows = quick.rows(report.Figures(results), {"drain": 0.6, "io": 0.75})
    drain, io = (quick.describe(row) for row in rows[:2])
    assert drain.endswith("WORSE by 17%")
    assert not io.endswith("%")


def test_every_peer_pins_its_packages_and_says_what_it_keeps_and_why_it_is_set_so():
    for path in contenders.PEERS.glob("*/peer.toml"):
        content = tomllib.loads(path.read_text())
        for one in contenders.load(path):
            assert one.keeps
            assert set(one.scenarios) <= set(contenders.SCENARIOS)
        if content.get("home"):
            continue
        assert content["settings"], path
        lines = (path.parent / "requirements.txt").read_text().split()
        assert lines, path
        assert all("==" in line for line in lines), path


def test_a_worker_that_ends_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]
    with harness.Worker(command, tmp_path / "log") as worker, pytest.raises(harness.BenchmarkError) as caught:
        harness.wait_for(lambda: False, "it works", 20, worker)
    assert "status 3: no such table" in str(caught.value)


def test_a_program_that_hangs_is_ended():
    with pytest.raises(harness.BenchmarkError, match=r"not within 0\.5 s"):
        harness.run_program([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)


def test_the_quick_benchmark_measures_everything_with_tiny_counts(tmp_path):
    baseline = tmp_path / "baseline.json"
    command = [sys.executable, str(BENCHMARKS / "quick.py"), "--rounds", "1", "--scale", "0.02"]
    command += ["--json", "--save", "--baseline", str(baseline)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not told["errors"]
    assert [row["name"] for row in told["rows"] if row["ratio"]] == [row["name"] for row in told["rows"]]
    assert json.loads(baseline.read_text())["ratios"].keys() == {row["name"] for row in told["rows"]}


def test_bench_measures_stores_and_reports_without_other_environments(tmp_path):
    stored, page = tmp_path / "results.json", tmp_path / "page.md"
    command = [
        sys.executable,
        str(BENCHMARKS / "bench.py"),
        "--only",
        "pytask,floor",
        "--scenarios",
        "drain,memory",
    ]
    command += ["--rounds", "1", "--scale", "0.02", "--no-plots", "--server", "valkey"]
    command += ["--results", str(stored), "--page", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    records = json.loads(stored.read_text())["records"]
    assert [(row["contender"], row["scenario"], "figures" in row) for row in records] == [
        ("pytask", "drain", True),
        ("floor", "drain", True),
        ("pytask", "memory", True),
    ]
    written = page.read_text()
    page.unlink()
    again = subprocess.run([*command, "--report"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    assert page.read_text() == written
