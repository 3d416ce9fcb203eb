"""What a consortium sees of its runs, in words, for programs and on one page, is what the files say."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from braing3n_core.page import script_hash
from server import status as module
from server.conduct import claim
from server.consortium import Consortium
from server.lock import held
from server.status import in_words, status, write_page
from tests.accessibility import faults, focus_faults
from tests.chrome import Tab, browser, chrome
from tests.server.studies import study

PLAN = study()
BIN = Path(sys.executable).parent


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    made = Consortium.make(tmp_path / "c")
    claim(PLAN, made.run(PLAN.digest))
    return made


def row(number: int, stage: str = "decoder", **changes: object) -> dict[str, object]:
    spent = dict.fromkeys(("north", "east", "south"), 0.5 * number)
    return {"stage": stage, "round": number, "replied": ["east", "north"], "refused": {"south": "budget-exhausted"},
            "missing": [], "epsilon": spent, "numbers": 250_000} | changes  # fmt: skip


def wrote(consortium: Consortium, *rows: dict[str, object]) -> Path:
    out = consortium.run(PLAN.digest)
    (out / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return out


def test_a_run_nobody_works_on_is_waiting_and_says_what_to_do(consortium: Consortium) -> None:
    (run,) = status(consortium).runs
    assert (run.state, run.closed, run.rounds) == ("waiting", 0, 3)
    assert "braing3n-admin start" in run.why


def test_a_running_run_shows_round_sites_traffic_and_budgets(consortium: Consortium) -> None:
    out = wrote(consortium, row(1), row(2))
    (out / "checkpoints").mkdir()
    for number in (1, 2):
        path = out / "checkpoints" / f"stage-00-round-0000{number}.safetensors"
        path.touch()
        os.utime(path, (0, 600.0 * number))
    with held(out):
        (run,) = status(consortium).runs
    assert (run.state, run.stage, run.round, run.closed) == ("running", "decoder", 2, 2)
    assert (run.megabytes, run.minutes_left) == (1.0, 10.0)
    by = {site.site: site for site in run.sites}
    assert (by["north"].last, by["north"].replied, by["north"].spent, by["north"].part) == ("replied", 2, 1.0, 0.125)
    assert by["south"].last == "refused (budget-exhausted)"
    assert json.loads(status(consortium).as_json())["runs"][0]["minutes_left"] is None


@pytest.mark.parametrize(("code", "state"), [(0, "finished"), (7, "failed"), (5, "failed")])
def test_the_end_of_a_run_is_the_one_on_disk(consortium: Consortium, code: int, state: str) -> None:
    out = wrote(consortium, row(1))
    (out / "run.json").write_text(json.dumps({"exit_code": code, "error": "in words" if code else ""}))
    (run,) = status(consortium).runs
    assert (run.state, run.why) == (state, "in words" if code else "")


def test_a_round_that_a_crash_closed_twice_counts_once(consortium: Consortium) -> None:
    wrote(consortium, row(1), row(1), row(2))
    assert status(consortium).runs[0].closed == 2


def test_sums_that_were_paid_and_lost_are_told(consortium: Consortium) -> None:
    out = wrote(consortium, row(1))
    assert status(consortium).runs[0].lost == 0
    (out / "checkpoints").mkdir()
    lost = [{"stage": "decoder", "round": 1, "attempt": attempt, "paid": ["north"]} for attempt in (1, 2)]
    (out / "checkpoints" / "lost-sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lost))
    found = status(consortium)
    run = json.loads(found.as_json())["runs"][0]
    assert (run["lost"], run["spare"], run["spare_spent"]) == (2, 0, 0)
    told = "2 secure sums were paid and lost in decoder, round 1; 0 of 0 spare rounds spent in their place"
    assert told in "\n".join(in_words(found))
    assert told in write_page(consortium).read_text()


def test_how_well_the_model_fits_is_told_beside_its_noise(consortium: Consortium) -> None:
    out = wrote(consortium, row(1))
    assert status(consortium).runs[0].fits == ()
    assert "standard deviation" not in write_page(consortium).read_text()
    told = {"stage": "decoder", "end": "after", "sites": {"north": {"value": -0.1, "noise": 0.2}},
            "pooled": {"value": -0.1, "noise": 0.2}}         # fmt: skip
    (out / "fit.jsonl").write_text(json.dumps(told) + "\n")
    found, words = status(consortium), "decoder changed the loss by -0.1 +- 0.2: no more than noise may do (north -0.1 +- 0.2)"
    assert json.loads(found.as_json())["runs"][0]["fits"] == [words]
    assert words in "\n".join(in_words(found))
    assert f"<li>{words}</li>" in write_page(consortium).read_text()


def test_an_infinite_epsilon_is_told_as_such(consortium: Consortium) -> None:
    wrote(consortium, row(1, epsilon={"north": "infinite"}))
    found = status(consortium)
    assert json.loads(found.as_json())["runs"][0]["sites"][0]["spent"] == "infinite"
    assert "epsilon inf of 8" in "\n".join(in_words(found))


def until(tab: Tab, words: str) -> None:
    """Wait until the page says so; it may be reloading at any instant."""
    for _ in range(200):
        with contextlib.suppress(AssertionError):
            if words in tab.js("new Promise(done => setTimeout(() => done(document.body.innerText), 100))"):
                return
    raise AssertionError(f"the page never said {words!r}")


class Page(HTMLParser):
    """What a page loads, how often it reloads, and its budget bars."""

    def __init__(self) -> None:
        super().__init__()
        self.loads, self.reloads, self.bars = list[str](), "", list[float]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [str(given[name]) for name in ("src", "href", "data", "action") if name in given]
        if given.get("http-equiv") == "refresh":
            self.reloads = str(given["content"])
        if tag == "meter":
            self.bars.append(float(str(given["value"])))


def test_the_page_reloads_itself_loads_nothing_and_runs_only_its_own_script(consortium: Consortium) -> None:
    wrote(consortium, row(1, refused={"south": "<script>alert(1)</script>"}))
    text = write_page(consortium).read_text()
    page = Page()
    page.feed(text)
    assert (page.loads, page.reloads, page.bars) == ([], "5", [0.0625] * 3)
    assert text.count("<script>") == 1
    assert "alert(1)</script>" not in text
    assert "default-src 'none'" in text
    assert script_hash(text) in text, "its own script and no other"
    assert "1 of 3 rounds" in text


def test_watching_renews_page_and_words(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def sleep(seconds: float) -> None:
        if len(said) == 2:
            raise KeyboardInterrupt
        (consortium.folder / "status.html").unlink()

    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        module.watch(consortium, said.append)
    assert (consortium.folder / "status.html").exists()
    assert all("smoke" in text for text in said)


@browser
@pytest.mark.slow
def test_in_a_browser_the_page_follows_the_run_until_its_reader_says_stop(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BETWEEN_S", 1.0)
    wrote(consortium, row(1))
    page = write_page(consortium)
    with chrome(tmp_path / "profile") as tab:
        for width, scheme in ((1280, "light"), (390, "dark")):
            tab.open(page, width, scheme=scheme)
            assert faults(tab) == []
        assert focus_faults(tab, 20) == []
        wrote(consortium, row(1), row(2))
        write_page(consortium)
        until(tab, "2 of 3 rounds")                          # nobody reloaded it
        tab.js("document.getElementById('pause').click()")
        wrote(consortium, row(1), row(2), row(1, stage="generator"))
        write_page(consortium)
        assert tab.js("new Promise(done => setTimeout(() => done(document.body.innerText), 3000))").count("3 of 3 rounds") == 0
        tab.js("document.getElementById('pause').click()")
        until(tab, "3 of 3 rounds")
        assert tab.said == []
        assert all(address.startswith("file:") for address in tab.asked)


@pytest.mark.slow
def test_the_command_tells_the_same_to_programs(consortium: Consortium) -> None:
    words = [BIN / "braing3n-admin", "status", "--json", "--consortium", consortium.folder]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=True)
    told = json.loads(done.stdout)
    assert (told["serving"], told["runs"][0]["plan"]) == (False, PLAN.digest)
