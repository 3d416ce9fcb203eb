"""Pages as a person sees them: a dot leads to its scan, a press shows what was there before. In a real browser, offline."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from braing3n_core.data.cache import Cache
from braing3n_core.data.phantom import phantoms
from braing3n_core.data.prepared import compute_and_keep
from braing3n_core.data.preprocess import Method
from braing3n_core.data.scans import Excluded
from braing3n_core.data.template import template
from braing3n_core.data.volume import write_volume
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from client.index_page import index_page, picture_of
from client.scan_page import write_excluded, write_page
from tests.accessibility import faults, focus_faults
from tests.chrome import CHROMIUM, browser, chrome

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def qc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("qc")
    path, page = root / "sub-1_T1w.nii.gz", root / "scans" / "sub-1_T1w-0123.html"
    write_volume(path, next(phantoms(TINY, 1, 1, Hospital(name="x")))[0][0].numpy(), template(TINY).affine)
    method = Method(TINY, registration="none")
    made = compute_and_keep(path, method, Cache(root / "cache"), "k", lambda one: write_page(page, path.name, method, one))
    picture = base64.b64encode(picture_of(page).read_bytes()).decode()
    points = [{"file": path.name, "modality": "T1w", "page": page.name, "picture": picture, "volumes": made.record["volumes"]}]
    left_out = [Excluded("sub-2_T1w.nii.gz", "it is <b>bold</b>; look at it")]
    write_excluded(root / "scans" / "sub-2.html", "sub-2_T1w.nii.gz", left_out[0].reason, path)
    html = index_page(points, left_out, {"sub-2_T1w.nii.gz": root / "scans" / "sub-2.html"})
    (root / "index.html").write_text(html, encoding="utf-8")
    return root


def seen(page: Path, script: str = "") -> str:
    """The page's document after its own scripts, and one more, ran in a browser without a network."""
    text = page.read_text(encoding="utf-8").replace("default-src 'none'; style", "script-src 'unsafe-inline'; style")
    copy = page.with_name(f"seen-{page.name}")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]
    shown = subprocess.run([str(CHROMIUM), *flags, copy.as_uri()], check=True, capture_output=True, text=True, timeout=300)
    return shown.stdout


def test_what_a_file_is_called_is_never_markup(qc: Path) -> None:
    index = (qc / "index.html").read_text()
    assert "<b>bold</b>" not in index
    assert "&lt;b&gt;bold" in index
    assert "Left out" in (qc / "scans" / "sub-2.html").read_text()


@browser
@pytest.mark.slow
def test_a_dot_leads_to_the_page_of_its_scan(qc: Path) -> None:
    script = 'document.title = document.querySelector("svg a circle").parentNode.href.baseVal'
    document = seen(qc / "index.html", script)
    target = document.split("<title>")[1].split("</title>")[0]
    assert (qc / target).is_file()
    assert document.count("<circle") == 6                    # a dot in the strip of each measure


@browser
@pytest.mark.slow
def test_a_press_shows_what_was_there_before(qc: Path) -> None:
    page = next((qc / "scans").glob("sub-1*.html"))
    assert 'id="shown">after<' in seen(page)
    document = seen(page, 'document.getElementById("view").click(); document.getElementById("edges").click()')
    assert 'id="shown">before<' in document
    assert document.count('class="hidden"') == 2             # the picture of after, and the outline
    sizes = seen(page, 'document.title = [...document.images].map(i => i.naturalWidth).join(" ")')
    assert sizes.split("<title>")[1].split("</title>")[0] == " ".join(3 * [str(7 * 96)])


@browser
@pytest.mark.slow
def test_the_pages_of_scans_serve_everybody(qc: Path, tmp_path: Path) -> None:
    """Wide and on a telephone, by light and in the dark, with keys alone."""
    pages = [qc / "index.html", *sorted(page for page in (qc / "scans").glob("*.html") if not page.name.startswith("seen-"))]
    assert len(pages) == 3
    with chrome(tmp_path / "profile") as tab:
        for page in pages:
            for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light")):
                tab.open(page, width, scheme=scheme)
                assert faults(tab) == [], (page.name, width, scheme)
            assert focus_faults(tab, 40) == [], page.name
        assert tab.said == []
