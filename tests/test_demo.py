"""The demo page: what it answers, in headless Chromium too, and what it keeps to itself."""

import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlparse

import numpy as np
import pytest
import soundfile
from conftest import REPO
from serving import NAMES, STAGE1, save_stage, voice

from gmp_plugin.demo import SERVED, describe, limited, recognise, temporary_folder, write_examples
from gmp_plugin.errors import UserError
from gmp_plugin.recognizer import Recognizer
from gmp_plugin.recording import Recording
from gmp_plugin.timeline import Windows

MAX_SECONDS, MAX_MEGABYTES = 20, 2
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a page that runs as a user starts it, and the folder that it was started in."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("demo")
    (folder / "home").mkdir()
    (folder / "secret.wav").write_text("secret")
    model = save_stage(folder / "model.pt", STAGE1)
    env = {**os.environ, "PYTHONPATH": str(REPO), "HOME": str(folder / "home"), "TMPDIR": str(folder)}
    env["http_proxy"] = "http://127.0.0.1:9"  # where there is none: its own page is not asked for by one
    (folder / "matplotlib").mkdir()  # keeps a list of fonts wherever it runs
    env["MPLCONFIGDIR"] = str(folder / "matplotlib")
    command = [sys.executable, "-m", "gmp_plugin.cli", "demo", "--model", model, "--port", str(free_port()),
               "--max-seconds", str(MAX_SECONDS), "--max-megabytes", str(MAX_MEGABYTES)]  # fmt: skip
    before = set(folder.rglob("*"))
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().split(" ")[0]
    assert address.startswith("http://127.0.0.1:"), address
    yield address, folder
    process.send_signal(signal.SIGHUP)  # as when its terminal is closed
    assert process.wait(30) == 0
    # Nothing was written but in its own folder, and that is gone.
    left = {path for path in folder.rglob("*") if path.parent.name != "matplotlib"} - before
    assert not left


def get(address, path, **headers):
    """Status and content; the path as it stands, dots and all."""
    connection = http.client.HTTPConnection(urlparse(address).netloc, timeout=300)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def test_no_file_of_the_machine_is_served(served):
    address, folder = served
    places = [
        "/etc/passwd",
        str(folder / "secret.wav"),
        "secret.wav",
        "model.pt",
        str(folder / "model.pt"),
        str(REPO / "setup.py"),
    ]
    for place in places:
        for form in ("/gradio_api/file={}", "/file={}", "/gradio_api/file/{}", "/gradio_api/file=..%2f..%2f{}",
                     "/static/..%2f..%2f..%2f..{}", "/assets/..%2f..%2f..{}", "/svelte/../../../..{}"):  # fmt: skip
            for name in (place, quote(place, safe="")):
                status, content = get(address, form.format(name))
                assert status in (403, 404), (form, name)
                assert b"root:" not in content and b"secret\n" not in content and b"setuptools" not in content


def test_a_path_instead_of_an_upload_is_refused(served):
    """As a program would send it, past the page."""
    address, folder = served
    config = json.loads(get(address, "/config")[1])
    for place in ("/etc/passwd", str(folder / "secret.wav"), "http://127.0.0.1:1/a.wav"):
        data = {"path": place, "meta": {"_type": "gradio.FileData"}}
        for number in range(len(config["dependencies"])):
            connection = http.client.HTTPConnection(urlparse(address).netloc, timeout=300)
            body = json.dumps({"data": [data], "fn_index": number, "session_hash": "abc", "trigger_id": 1})
            connection.request("POST", "/gradio_api/queue/join", body, {"Content-Type": "application/json"})
            content = connection.getresponse().read()
            if b"event_id" in content:
                connection.request("GET", "/gradio_api/queue/data?session_hash=abc")
                content = connection.getresponse().read()
            assert b"root:" not in content and b"secure" not in content and str(folder).encode() not in content
            assert b'"success":true' not in content.replace(b" ", b""), content


def test_it_is_no_proxy_and_has_no_other_name(served):
    address, _ = served
    paths = ["/monitoring", *(f"/gradio_api/{name}" for name in ("run/answer", "call/answer", "deep_link", "runs"))]
    for path in (*paths, "/gradio_api/file=http://example.com/a.wav", "/gradio_api/proxy=http://example.com/"):
        assert get(address, path)[0] == 404, path
    assert get(address, "/", Host="127.0.0.1")[0] == 200
    assert get(address, "/", Host="evil.example")[0] == 400  # a foreign name that leads here


def test_other_pages_may_ask_for_nothing(served):
    """A browser lets any page send an upload to the loopback, and says whose it is."""
    address, _ = served
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        connection = http.client.HTTPConnection(urlparse(address).netloc, timeout=300)
        connection.request("POST", "/gradio_api/upload", b"", {"Origin": origin})
        assert connection.getresponse().status == 403
    assert get(address, "/config", Origin=address.rstrip("/"))[0] == 200


def test_only_the_loopback_listens(served):
    address, _ = served
    listening = Path("/proc/net/tcp")
    if not listening.is_file():
        pytest.skip("no /proc")
    port = f"{urlparse(address).port:04X}"
    local = {line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"}
    assert {place for place in local if place.endswith(f":{port}")} == {f"0100007F:{port}"}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as running:
        media = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        yield running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *media])


@pytest.fixture
def page(served, browser):
    context = browser.new_context(viewport={"width": 1100, "height": 1040}, permissions=["microphone"])
    page = context.new_page()
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.set_default_timeout(60_000)
    page.goto(served[0])
    page.wait_for_selector("#recognise")
    yield page
    foreign = [url for url in page.requested if not url.startswith((served[0], "data:", "blob:"))]
    assert not foreign
    context.close()


def upload(page, path):
    page.wait_for_selector("#speech input[type=file]", state="attached")
    page.set_input_files("#speech input[type=file]", str(path))


def test_an_upload_is_answered_with_classes_and_a_timeline(page, tmp_path):
    soundfile.write(tmp_path / "hello.wav", np.stack([voice(6.0, rate=44_100)] * 2, axis=1), 44_100)
    upload(page, tmp_path / "hello.wav")
    page.wait_for_selector("#timeline img")
    assert "sure, over 6.0 s" in page.inner_text("#answer") and "Voice: " in page.inner_text("#answer")
    assert all(name in page.inner_text("#emotions") for name in NAMES["emotion"])
    size = page.eval_on_selector("#timeline img", "image => [image.naturalWidth, image.clientHeight]")
    assert size[0] > 500 and size[1] > 200
    if os.environ.get("DEMO_SCREENSHOT"):
        page.screenshot(path=os.environ["DEMO_SCREENSHOT"])


def test_an_example_is_answered_too(page):
    page.get_by_text("calm, then angry").click()
    page.wait_for_selector("#timeline img")
    assert "sure" in page.inner_text("#answer")


def test_what_the_microphone_hears_is_answered(page):
    """Chromium's own beeping microphone."""
    page.get_by_label("Record audio").first.click()
    page.locator("#speech .record-button").click()
    time.sleep(2)
    page.locator("#speech .stop-button").first.click()
    page.wait_for_selector("#timeline img")
    assert "sure, over" in page.inner_text("#answer")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("long.wav", f"long.wav is longer than {MAX_SECONDS} s: cut it"),
        ("text.wav", "text.wav cannot be read as audio"),
        ("short.wav", "fewer than one frame"),
        ("letter.txt", "Invalid file type"),
        ("large.wav", "exceed"),
    ],
)
def test_what_cannot_be_answered_is_said_politely(page, served, tmp_path, name, message):
    for file, seconds in (("long.wav", 25), ("short.wav", 0.01), ("large.wav", 90)):
        soundfile.write(tmp_path / file, voice(seconds), 16_000)
    (tmp_path / "text.wav").write_text("Dear diary")
    (tmp_path / "letter.txt").write_text("Dear diary")
    upload(page, tmp_path / name)
    page.get_by_text(message).first.wait_for()
    assert page.locator("#timeline img").count() == 0
    assert str(served[1]) not in page.inner_text("body")


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return Recognizer.load(save_stage(tmp_path_factory.mktemp("model") / "a.pt", STAGE1))


def test_a_recording_may_be_as_long_as_the_limit_whatever_its_header_says(recognizer, tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(2.0), 16_000)
    assert recognise(recognizer, str(tmp_path / "a.wav"), Windows(), 2.0).seconds == 2.0
    with pytest.raises(UserError, match="^a.wav is longer than 1.9 s"):
        recognise(recognizer, str(tmp_path / "a.wav"), Windows(), 1.9)
    endless = Recording("endless", 16_000, 1, None, lambda: itertools.repeat(np.zeros((16_000, 1))))
    (answer,) = recognizer.stream([limited(endless, 5.0)])
    assert "longer than 5 s" in str(answer)


def test_the_answer_is_in_words(recognizer):
    text = describe(recognizer(np.zeros(4000), 16_000), calibrated=False)
    assert "sure, over 0.2 s. Voice: " in text and "not calibrated" in text and "silence" in text and "short" in text


def test_examples_are_computed_or_copied(tmp_path):
    computed = write_examples(tmp_path / "a")
    assert [soundfile.info(path).samplerate for path in computed] == [16_000] * 3
    (tmp_path / "c").mkdir()
    shutil.copy(computed[1], tmp_path / "c" / computed[0].name)  # another one of the same name
    chosen = [computed[0], tmp_path / "c" / computed[0].name]
    given = write_examples(tmp_path / "b", chosen)
    assert [path.name for path in given] == [path.name for path in chosen]
    assert all(path.is_relative_to(tmp_path / "b") for path in given)
    assert [path.read_bytes() for path in given] == [path.read_bytes() for path in chosen]


def test_the_temporary_folder_goes_and_the_environment_is_as_before(monkeypatch):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "example.org")
    before = dict(os.environ)
    with temporary_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"].startswith(str(folder))
        assert os.environ["no_proxy"] == "example.org,127.0.0.1,localhost"
        assert os.environ["NO_PROXY"] == "127.0.0.1,localhost"
    assert not folder.exists() and dict(os.environ) == before


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=https://a", "/gradio_api/file=ftp://a", "/docs", "/openapi.json", "/login"]
)
def test_the_gate_is_closed_by_default(path):
    assert not SERVED.fullmatch(path)


def test_a_port_that_is_none_ends_with_one_message(recognizer):
    pytest.importorskip("gradio")
    from gmp_plugin.demo import serve

    with (
        pytest.raises(UserError, match="the page cannot be served: .*; give another --port"),
        serve(recognizer, 99_999),
    ):
        pass


def test_without_gradio_the_message_says_what_to_install(recognizer, monkeypatch):
    from gmp_plugin.demo import serve

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install 'gradio"), serve(recognizer):
        pass
