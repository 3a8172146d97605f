"""A browser shows the page as it is meant: passages as text, no program of theirs run, nothing asked of anybody."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.searching import run, write_texts

from weft.recipes.searching.index import SearchIndex
from weft.recipes.searching.serve import SearchServer

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
HOSTILE = "An otter <script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> swims."

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed ({', '.join(BROWSERS)})")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SearchServer]:
    run("build", write_texts(tmp_path / "texts", {"a.txt": HOSTILE}), tmp_path / "index")
    with SearchServer(SearchIndex(tmp_path / "index"), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def browse(profile: Path, *words: str) -> str:
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_passages_are_text_to_a_browser(server: SearchServer, tmp_path: Path) -> None:
    page = browse(tmp_path / "profile", "--dump-dom", f"http://127.0.0.1:{server.server_port}/?q=otter")
    assert "<title>Search in index</title>" in page
    assert "<mark>otter</mark> &lt;script&gt;document.title = 'taken'&lt;/script&gt;&lt;img" in page
    assert "<script" not in page and "<img" not in page


def test_the_page_has_its_style(server: SearchServer, tmp_path: Path) -> None:
    """A style that the policy refused would leave an empty ground in the browser's own colour."""
    from PIL import Image

    picture = tmp_path / "page.png"
    place = f"http://127.0.0.1:{server.server_port}/?q=otter"
    browse(tmp_path / "profile", f"--screenshot={picture}", "--window-size=900,700", "--hide-scrollbars", place)
    colours = Image.open(picture).convert("RGB").getcolors(1 << 20)
    assert {colour for _, colour in colours} >= {(0xF6, 0xF7, 0xFA), (0xFF, 0xE9, 0xA8), (0x2F, 0x5F, 0xD0)}
