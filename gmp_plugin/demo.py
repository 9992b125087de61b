"""A page to try a recogniser: upload or record, and see the emotions and how they change. On this machine alone.

What a visitor sends is kept in one temporary folder and removed. The page answers what it needs and nothing else: no
file of the machine outside that folder, no fetching of addresses, no other host name than the loopback's.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .corpora.audio import BadRecording
from .errors import UserError
from .extras import need
from .recognizer import Recognition, Recognizer
from .recording import Recording
from .timeline import Windows
from .timeline_plot import timeline_figure

HOST = "127.0.0.1"
MAX_SECONDS, MAX_MEGABYTES = 300, 30
KEEP_SECONDS = 900  # uploads are removed after that
# What the page of gradio 6 asks for. Not: its proxy, remote addresses as files, its API for programs, histories.
SERVED = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/(upload|upload_progress|app_id|info|startup-events|queue/join|queue/data|reset|cancel)/?"
    r"|/gradio_api/(heartbeat/\w+|run/predict)/?"  # the last one is what a click on an example asks for
    r"|/gradio_api/file=(?!\w+:).*"
)
STYLE = "footer { display: none !important } .gradio-container { max-width: 62rem !important; margin: auto }"
# Speakers and emotions of the toy corpus, for examples that need no recordings.
EXAMPLES = {
    "calm, then angry (computed voice).wav": ("Ses01M", ("neu", "neu", "ang", "ang")),
    "happy (computed voice).wav": ("Ses02F", ("hap", "exc")),
    "sad (computed voice).wav": ("Ses03F", ("sad", "sad")),
}


class Gate:
    """ASGI middleware: what is not `SERVED` is not found, and pages of other origins may ask for nothing."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = dict(scope.get("headers", ()))
        if headers.get(b"origin") not in (None, b"http://" + headers.get(b"host", b"")):
            return await _refuse(send, 403, b"not from another page")
        if not SERVED.fullmatch(scope["path"]):
            return await _refuse(send, 404, b"not found")
        await self.app(scope, receive, send)


async def _refuse(send, status: int, reason: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": reason})


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for all that the page writes, gone at the end; gradio is told by its variables, before its import."""
    with TemporaryDirectory(prefix="gmp-ser-demo-") as folder:
        told = {
            "GRADIO_TEMP_DIR": str(Path(folder) / "uploads"),
            "GRADIO_EXAMPLES_CACHE": str(Path(folder) / "examples_cache"),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        for name in ("no_proxy", "NO_PROXY"):  # gradio asks whether its page is there, which no proxy knows
            told[name] = ",".join(filter(None, [os.environ.get(name), HOST, "localhost"]))
        before = {name: os.environ.get(name) for name in told}
        os.environ.update(told)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def write_examples(folder: Path, given=()) -> list[Path]:
    """Copies of the recordings that were given, else a few computed voices."""
    folder.mkdir(parents=True, exist_ok=True)
    if given:
        copies = [folder / str(number) / Path(path).name for number, path in enumerate(given)]  # names may be the same
        for path, copy in zip(given, copies, strict=True):
            copy.parent.mkdir()
            shutil.copy(path, copy)
        return copies
    import soundfile

    from .corpora import toy
    from .frames import SAMPLE_RATE

    for name, (speaker, labels) in EXAMPLES.items():
        voice = toy.Voice.of(speaker, seed=1)
        parts = [toy.synthesise(voice, toy.STYLES[x], np.random.default_rng(k)) for k, x in enumerate(labels)]
        soundfile.write(folder / name, np.concatenate(parts), SAMPLE_RATE)
    return [folder / name for name in EXAMPLES]


def recognise(recognizer: Recognizer, path: str, windows: Windows, max_seconds: float) -> Recognition:
    """The answer to an upload; `UserError` in words for a visitor, without places of this machine."""
    name = Path(path).name
    recording = limited(Recording.open(path, name), max_seconds)
    (answer,) = recognizer.stream([recording], windows)
    if isinstance(answer, UserError):
        raise answer
    return answer


def limited(recording: Recording, max_seconds: float) -> Recording:
    """The recording; `BadRecording` if it is longer, by its header or when it goes on."""
    too_long = f"{recording.name} is longer than {max_seconds:g} s: cut it, or use gmp-ser predict, which takes hours"
    if recording.seconds > max_seconds:
        raise BadRecording(too_long)

    def blocks(read=recording.read):
        n = 0
        for block in read():
            n += len(block)
            if n > max_seconds * recording.rate:
                raise BadRecording(too_long)
            yield block

    recording.read = blocks
    return recording


def describe(answer: Recognition, calibrated: bool) -> str:
    """The answer in a few sentences of Markdown."""
    text = f"**{answer.emotion}**, {answer.confidence:.0%} sure, over {answer.seconds:.1f} s."
    if answer.gender is not None:
        text += f" Voice: {answer.gender}, {answer.gender_probabilities[answer.gender]:.0%}."
    if not calibrated:
        text += " (The probabilities are not calibrated.)"
    return "\n\n".join([text, *(f"⚠ {warning}" for warning in answer.warnings)])


def build_page(recognizer: Recognizer, examples: list[Path], windows: Windows, max_seconds: float, title: str):
    """The page, as gradio's `Blocks`."""
    gradio = need("gradio", "demo", "for the page")

    def answer(path):
        if not path:
            return "Upload or record something, or choose an example.", None, None
        try:
            found = recognise(recognizer, path, windows, max_seconds)
        except UserError as error:
            return f"⚠ {error}", None, None
        return describe(found, recognizer.calibrated), found.probabilities, timeline_figure(found.timeline)

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as page:
        gradio.Markdown(
            f"# {title}\nUpload or record speech of up to {max_seconds:g} s, and see which emotion it sounds like: "
            f"{', '.join(recognizer.names)}. These are estimates about sounds, not knowledge about people. Nothing "
            "leaves this machine."
        )
        with gradio.Row():
            with gradio.Column():
                audio = gradio.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Speech", elem_id="speech", buttons=[]
                )
                button = gradio.Button("Recognise", variant="primary", elem_id="recognise")
                gradio.Examples([[str(path)] for path in examples], audio, cache_examples=False)
            with gradio.Column():
                text = gradio.Markdown("", elem_id="answer")
                classes = gradio.Label(label="Emotions", elem_id="emotions", num_top_classes=8)
        timeline = gradio.Plot(label="Emotion over time", elem_id="timeline")
        for event in (button.click, audio.change):
            event(answer, audio, [text, classes, timeline], api_visibility="private", concurrency_limit=1)
    return page


@contextmanager
def serve(
    recognizer: Recognizer, port: int | None = None, examples=(), windows: Windows | None = None,
    max_seconds: float = MAX_SECONDS, max_megabytes: float = MAX_MEGABYTES, title: str = "Speech emotion recognition",
):  # fmt: skip
    """Serve the page on the loopback while the block runs; yields its address.

    Args:
        port: the first free one from 7860 on when left out.
        examples: recordings to offer; computed voices when left out.
    """
    with temporary_folder() as folder:
        need("gradio", "demo", "for the page")
        import httpx
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        page = build_page(
            recognizer, write_examples(folder / "examples", examples), windows or Windows(), max_seconds, title
        )
        page.queue(max_size=16)
        try:
            _, address, _ = page.launch(
                server_name=HOST, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
                max_file_size=int(max_megabytes * 1e6), allowed_paths=[], run_history=False, enable_monitoring=False,
                mcp_server=False, pwa=False, footer_links=[], show_error=False, css=STYLE, theme=_theme(),
                app_kwargs={
                    "middleware": [
                        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(Gate)
                    ]
                },
            )  # fmt: skip
        # httpx: gradio asks its own page; ValueError and OverflowError: no answer, and a port that is none.
        except (OSError, httpx.HTTPError, ValueError, OverflowError) as error:
            raise UserError(f"the page cannot be served: {error}; give another --port") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def _theme():
    import gradio

    fonts = ["system-ui", "sans-serif"]  # gradio's own would come from the net
    return gradio.themes.Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
