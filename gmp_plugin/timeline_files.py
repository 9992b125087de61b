"""A timeline as the files that other programs open."""

from pathlib import Path

from .files import atomic_path, atomic_text
from .recognizer import Recognition
from .timeline import FORMATS, write_audacity, write_csv, write_textgrid
from .timeline_plot import timeline_figure

WRITERS = {"csv": write_csv, "textgrid": write_textgrid, "audacity": write_audacity}


def timeline_paths(folder, stem: str, formats) -> list[Path]:
    """The files of a recording, in the order of the formats."""
    return [Path(folder) / f"{stem}{FORMATS[name]}" for name in formats]


def write_timeline(answer: Recognition, folder, stem: str, formats=tuple(FORMATS)) -> None:
    """Write `folder/stem` in each of `formats`, names of `FORMATS`."""
    for name, path in zip(formats, timeline_paths(folder, stem, formats), strict=True):
        if name == "png":
            title = f"{Path(answer.name).name}: {answer.emotion}, {answer.confidence:.0%} over {answer.seconds:.1f} s"
            with atomic_path(path) as temporary:
                timeline_figure(answer.timeline, title).savefig(temporary, format="png", dpi=120)
        else:
            with atomic_text(path) as stream:
                WRITERS[name](answer.timeline, stream)
