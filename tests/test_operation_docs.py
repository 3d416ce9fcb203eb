"""Every command in the two operation guides is one that works, in the order in which a reader types them."""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from privacy.ledger import Ledger
from privacy.signing import SigningKey

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
ELSEWHERE = {                                                # commands that other tests run as they stand
    "braing3n-site init": "makes a folder of its own",
    "braing3n-site join": "tests/end_to_end/test_consortium.py",
    "braing3n-admin serve": "tests/end_to_end/test_consortium.py",
    "braing3n-admin start": "tests/end_to_end/test_consortium.py",
}
_RUN = """
import json, sys
from client.cli import app as site
from server.cli import app as admin
for name, *words in json.loads(sys.argv[1]):
    code = {"braing3n-site": site, "braing3n-admin": admin}[name](words, standalone_mode=False)
    print("ran:", name, *words, flush=True)
    if code:
        sys.exit(code)
"""
SITE = '[site]\nname = "north"\ndata = "bids"\n[policy]\nepsilon = 8.0\nsmallest_cohort = 50\n'


def commands(document: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return [line[2:] for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]


def ran(lines: list[str], place: Path) -> None:
    """All of them in one process, each as its command would run it; a code other than 0 ends it."""
    words = [shlex.split(line.replace("/srv", str(place))) for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(words)], cwd=place, capture_output=True, text=True, timeout=850, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.count("ran: ") == len(lines)


@functools.cache
def help_of(*words: str) -> str:
    done = subprocess.run([BIN / words[0], *words[1:], "--help"], capture_output=True, text=True, timeout=200, check=True)
    return done.stdout


@pytest.mark.slow
def test_both_guides_can_be_followed(tmp_path: Path) -> None:
    folder = tmp_path / "north"
    (folder / "keys").mkdir(parents=True)
    for site, path in (("north", folder / "keys" / "site.pem"), ("south", tmp_path / "south.pem")):
        key = SigningKey.generate()
        key.write(path)
        (tmp_path / f"{site}.pub").write_bytes(key.public.pem)
    (folder / "site.toml").write_text(SITE)
    ours = [line for line in commands("consortium-admin.md") if not line.startswith(tuple(ELSEWHERE))]
    theirs = [line for line in commands("site-operator.md") if not line.startswith(tuple(ELSEWHERE))]
    assert (len(ours), len(theirs)) == (10, 4)
    last = ours.pop()                                        # removing a hospital comes when all is over
    ran(ours, tmp_path)
    (folder / "keys" / "admin.pub").write_bytes((tmp_path / "consortium" / "keys" / "admin.pem.pub").read_bytes())
    (tmp_path / "plan.signed.json").write_bytes((tmp_path / "consortium" / "plans" / "ageing.signed.json").read_bytes())
    Ledger(folder / "ledger.jsonl", 1e-5).close()            # there is one as soon as a round was asked for
    ran([*theirs, last], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("document", ["consortium-admin.md", "site-operator.md"])
def test_no_guide_names_an_option_that_its_command_does_not_have(document: str) -> None:
    for line in commands(document):
        words = shlex.split(line)
        if " ".join(words[:2]) == "braing3n-site init":
            continue
        told = help_of(*words[: 3 if words[1] == "plan" else 2])
        for option in (word for word in words if word.startswith("--")):
            assert option in told, line
