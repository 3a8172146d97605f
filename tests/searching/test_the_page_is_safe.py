"""The page of an index shows what is found, escapes what texts hold, and answers to this machine's own names only."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.searching import ToyEmbedder, make_model, run, use_toy_model, write_texts

from weft.recipes.common.errors import RecipeError
from weft.recipes.searching import index as opening
from weft.recipes.searching.index import SearchIndex
from weft.recipes.searching.serve import SearchServer, is_loopback

HOSTILE = "An otter <script>document.title = 'taken'</script> & <img src=x onerror=alert(1)> \"swims\"."
TEXTS = {"a.txt": HOSTILE, "b<i>.txt": "A heron waits.", "c.txt": "Nothing else."}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SearchServer]:
    run("build", write_texts(tmp_path / "texts", TEXTS), tmp_path / "index")
    yield from serving(SearchIndex(tmp_path / "index"))


def serving(index: SearchIndex) -> Iterator[SearchServer]:
    with SearchServer(index, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: SearchServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        if value:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.headers), body


class Elements(HTMLParser):
    """The elements of a page, and the text inside of each kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text: dict[str, str] = {}
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in ("meta", "input"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside.remove(tag)

    def handle_data(self, data: str) -> None:
        for tag in {*self.inside}:
            self.text[tag] = self.text.get(tag, "") + data


def test_passages_are_shown_and_escaped(server: SearchServer) -> None:
    status, headers, page = get(server, "/?q=otter+%3Cb%3E")
    found = Elements(page)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert found.text["pre"] == HOSTILE and found.text["mark"] == "otter"
    assert not {"script", "img", "i"} & {*found.names} and found.names.count("li") == 1
    assert 'value="otter &lt;b&gt;"' in page
    assert "b<i>.txt, line 1" in Elements(get(server, "/?q=heron")[2]).text["li"]


def test_the_page_runs_no_program_and_asks_nobody(server: SearchServer) -> None:
    _, headers, page = get(server, "/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-") and "frame-ancestors 'none'" in policy
    assert policy.split("'nonce-")[1].split("'")[0] in page
    assert "script" not in Elements(page).names and "http:" not in page and "https:" not in page
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert "Access-Control-Allow-Origin" not in headers
    assert get(server, "/")[1]["Content-Security-Policy"] != policy  # a nonce is used once


def test_before_a_question_there_is_none(server: SearchServer) -> None:
    page = Elements(get(server, "/")[2])
    assert "li" not in page.names and "3 passages of 3 sources; by words alone" in page.text["p"]
    assert "Nothing was found" in get(server, "/?q=zebra")[2]


def test_programs_get_json(server: SearchServer) -> None:
    status, headers, body = get(server, "/search?q=otter&top=1")
    found = json.loads(body)
    assert status == 200 and headers["Content-Type"] == "application/json; charset=utf-8"
    assert found["question"] == "otter" and [hit["text"] for hit in found["hits"]] == [HOSTILE]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.1:80", "localhost:8000", "[::1]", "127.0.0.2"])
def test_it_answers_to_the_names_of_this_machine(server: SearchServer, name: str) -> None:
    assert get(server, "/?q=otter", Host=name)[0] == 200


def test_it_answers_to_the_name_it_was_given_in_any_case(server: SearchServer) -> None:
    server.host = "My.Machine"
    for name in ("My.Machine:8000", "my.machine"):
        assert get(server, "/?q=otter", Host=name)[0] == 200
    assert get(server, "/?q=otter", Host="other.machine")[0] == 403


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]",
        "",
        "x@localhost.",
        "[",
        "127.1",
    ],
)
def test_other_names_are_refused(server: SearchServer, name: str) -> None:
    """A page of somebody else may have its own name point here (DNS rebinding), and would then read the answers."""
    status, _, body = get(server, "/?q=otter", Host=name)
    assert status == 403 and "otter" not in body


@pytest.mark.parametrize(
    "path, status",
    [
        ("/?q=" + "a" * 2001, 400),
        ("/?q=a&by=meaning", 400),
        ("/?q=a&by=%3Cscript%3E", 400),
        ("/?q=a&top=0", 400),
        ("/?q=a&top=101", 400),
        ("/?q=a&top=00019999", 400),
        ("/?q=a&top=1e3", 400),
        ("/?q=a&top=" + "9" * 5000, 400),
        ("/?q=%ff", 400),
        ("/?" + "&".join(f"x{number}=1" for number in range(99)), 400),
        ("/index.json", 404),
        ("/../index/index.json", 404),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(server: SearchServer, path: str, status: int) -> None:
    answer = get(server, path)
    assert answer[0] == status and answer[1]["Content-Type"] == "text/plain; charset=utf-8" and answer[2]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(server: SearchServer, method: str) -> None:
    assert get(server, "/?q=otter", method=method)[0] == 501


def test_nothing_is_logged(server: SearchServer, capfd: pytest.CaptureFixture) -> None:
    get(server, "/?q=a+secret+question")
    assert capfd.readouterr() == ("", "")


def test_an_index_that_was_built_again_is_opened_again(server: SearchServer, tmp_path: Path) -> None:
    assert get(server, "/search?q=badger")[2].count("source") == 0
    (tmp_path / "texts" / "new.txt").write_text("A badger digs.")
    run("build", tmp_path / "index")
    assert json.loads(get(server, "/search?q=badger")[2])["hits"][0]["text"] == "A badger digs."


def test_an_index_that_was_built_again_while_the_model_was_loaded_is_opened_again(tmp_path: Path) -> None:
    run("build", write_texts(tmp_path / "texts", TEXTS), tmp_path / "index")
    opened = SearchIndex(tmp_path / "index")
    (tmp_path / "texts" / "new.txt").write_text("A badger digs.")
    run("build", tmp_path / "index")
    for server in serving(opened):
        assert json.loads(get(server, "/search?q=badger")[2])["hits"][0]["text"] == "A badger digs."


def test_an_index_that_is_gone_is_said_to_be(server: SearchServer, tmp_path: Path) -> None:
    (tmp_path / "index").rename(tmp_path / "away")
    status, headers, body = get(server, "/?q=otter")
    assert status == 503 and headers["Content-Type"].startswith("text/plain") and "cannot be read" in body
    shutil.move(tmp_path / "away", tmp_path / "index")
    assert get(server, "/?q=otter")[0] == 200


def test_a_browser_that_goes_away_leaves_no_trace(server: SearchServer, capfd: pytest.CaptureFixture) -> None:
    for error in (BrokenPipeError(), ConnectionResetError(), ValueError("a fault")):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
        printed = capfd.readouterr().err
        assert ("a fault" in printed) == isinstance(error, ValueError) == bool(printed)


def test_an_index_with_a_model_offers_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_toy_model(monkeypatch)
    make_model(tmp_path / "model")
    run("build", write_texts(tmp_path / "texts", TEXTS), tmp_path / "index", "--model", tmp_path / "model")
    for server in serving(SearchIndex(tmp_path / "index")):
        page = get(server, "/?q=otter")[2]
        assert Elements(page).names.count("option") == 3 and '<option value="both" selected>' in page
        for by in ("meaning", "words", "both"):
            assert json.loads(get(server, f"/search?q=otter&by={by}")[2])["hits"][0]["text"] == HOSTILE
        model = server.index.embedder
        (tmp_path / "texts" / "new.txt").write_text("A badger digs.")
        run("build", tmp_path / "index")
        assert json.loads(get(server, "/search?q=badger")[2])["hits"][0]["text"] == "A badger digs."
        assert server.index.embedder is model  # loading one takes seconds


def test_an_index_of_another_model_is_searched_on_the_same_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_toy_model(monkeypatch)
    devices = []

    class OnDevice(ToyEmbedder):
        def __init__(self, folder: str, device: str | None = None) -> None:
            devices.append(device)
            super().__init__(folder)

    monkeypatch.setattr(opening, "Embedder", OnDevice)
    texts, model = write_texts(tmp_path / "texts", TEXTS), make_model(tmp_path / "model")
    words = ("build", texts, tmp_path / "index", "--model", model)
    run(*words)
    opened = SearchIndex(tmp_path / "index")
    opened.load_model(device="cuda:1")
    for server in serving(opened):
        shutil.rmtree(tmp_path / "index")
        make_model(model, "two")
        run(*words)
        assert json.loads(get(server, "/search?q=otter&by=meaning")[2])["hits"]
    assert devices == ["cuda:1", "cuda:1"]


def test_a_place_that_is_taken_is_refused(server: SearchServer) -> None:
    with pytest.raises(RecipeError, match=r"cannot be listened on .*give another --port"):
        SearchServer(server.index, "127.0.0.1", server.server_port)


def test_who_reaches_an_address_is_known() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.168.1.2") and not is_loopback("my.machine")
