"""Reports as blocks: one list of headings, tables and pictures that becomes an HTML page or Markdown.

Texts may hold `code` and **strong** words. A page is one file that needs nothing else, light or dark as the
reader's system is. Pictures are matplotlib figures; as SVG they take the page's colours.
"""

import base64
import io
import re
from dataclasses import dataclass, field
from functools import cached_property
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --paper: #fbfbfa; --soft: #5b6472; --line: #d9dce1;
  --good: #00795a; --bad: #b34700; --shade: 0 114 178; --blue: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16191d; --soft: #a3abb8; --line: #363c45; --good: #2fc79c; --bad: #ff9147;
    --shade: 64 150 220; --blue: #3391d4 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 2.5rem } h3 { font-size: 1rem; margin-bottom: .3rem }
p, li { max-width: 46rem } .soft { color: var(--soft) } code { overflow-wrap: anywhere; font-size: .9em }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums;
  font-size: .93rem; line-height: 1.35 }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600; vertical-align: bottom; white-space: normal } tr.best td:not(.soft) { font-weight: 700 }
th:first-child, td:first-child { text-align: left; white-space: normal } td:first-child { min-width: 4rem }
caption { text-align: left; color: var(--soft) }
td.shade { background: rgb(var(--shade) / calc(var(--share) * .6)) }
img { width: 100%; background: #fff; border-radius: 8px; border: 1px solid var(--line) }
svg { display: block; width: 100%; height: auto; margin: 1rem 0 }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: 8px; font-size: .85rem }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--soft) }
nav { color: var(--soft) } nav a { color: inherit; margin-right: 1rem; white-space: nowrap }
.box { border: 1px solid var(--line); border-left: .4rem solid var(--soft); border-radius: 8px; padding: .1rem 1rem;
  margin: 1rem 0 } .box.good { border-left-color: var(--good) } .box.bad { border-left-color: var(--bad) }
"""

# matplotlib's own colours, and the page's that take their place.
COLOURS = {
    "#000000": "var(--ink)", "#ffffff": "var(--paper)", "#696969": "var(--soft)", "#808080": "var(--soft)",
    "#cccccc": "var(--line)", "#b0b0b0": "var(--line)", "#0072b2": "var(--blue)",
}  # fmt: skip
LONG_NUMBER = re.compile(r"\d+\.\d{3,}")  # a tenth of a point is enough


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str
    soft: bool = False


@dataclass(frozen=True)
class Bullets:
    items: list[str]


@dataclass(frozen=True)
class Table:
    """`bold` numbers the rows to stand out, `soft` the columns to stand back; `shades` `(rows, columns)` are 0 to 1 for
    a shaded cell, or None."""

    head: list[str]
    rows: list[list[str]]
    bold: tuple[int, ...] = ()
    caption: str = ""
    soft: tuple[int, ...] = ()
    shades: list[list[float | None]] | None = None


@dataclass(frozen=True)
class Picture:
    """`name` of its file beside a Markdown report, `alt` what it shows."""

    name: str
    figure: object
    alt: str

    @cached_property
    def drawing(self) -> tuple[str, str]:
        """View box and content of an `<svg>`, in the page's colours."""
        return _draw(self.figure)


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Box:
    """Framed blocks; `kind` is good, bad or note."""

    kind: str
    blocks: list


@dataclass(frozen=True)
class Details:
    """Blocks behind a line to click on."""

    title: str
    blocks: list = field(default_factory=list)


def html_page(title: str, blocks: list) -> str:
    """A page with a line of links to its sections."""
    headings = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<a href="#{_anchor(text)}">{escape(text)}</a> ' for text in headings)
    return html_document(title, [f"<nav>{links}</nav>" if links else "", *map(to_html, blocks)])


def html_document(title: str, sections: list[str]) -> str:
    """A page of sections that are HTML already."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(sections) + "</body></html>\n"
    )


def to_html(block) -> str:
    match block:
        case Heading(text, level):
            return f'<h{level} id="{_anchor(text)}">{escape(text)}</h{level}>\n'
        case Text(text, soft):
            return f"<p{' class=soft' if soft else ''}>{_inline(text)}</p>\n"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>\n" for item in items) + "</ul>\n"
        case Table():
            return html_table(block.head, block.rows, block.bold, block.caption, block.soft, block.shades)
        case Picture():
            return _svg(block)
        case Code(text):
            return f"<pre>{escape(text)}</pre>\n"
        case Box(kind, blocks):
            return f'<div class="box {kind}">{"".join(map(to_html, blocks))}</div>\n'
        case Details(title, blocks):
            inner = "".join(map(to_html, blocks))
            return f"<details><summary>{_inline(title)}</summary>\n{inner}</details>\n"
    raise TypeError(f"{block!r} is no block")


def markdown_page(title: str, blocks: list, folder: str) -> tuple[str, dict[str, str]]:
    """The report as Markdown, and its pictures: SVG by the file names that the text expects in `folder`."""
    pictures: dict[str, str] = {}
    parts = [_markdown(block, folder, pictures) for block in [Heading(title, 1), *blocks]]
    return "\n\n".join(parts) + "\n", pictures


def _markdown(block, folder: str, pictures: dict) -> str:
    def inside(blocks):
        return "\n\n".join(_markdown(inner, folder, pictures) for inner in blocks)

    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text, _):
            return _no_tags(text)
        case Bullets(items):
            return "\n".join(f"- {_no_tags(item)}" for item in items)
        case Table():
            rows = [block.head]
            for i, row in enumerate(block.rows):
                strong = [i in block.bold and j not in block.soft for j in range(len(row))]
                rows.append([f"**{text}**" if yes else text for text, yes in zip(row, strong, strict=True)])
            lines = ["| " + " | ".join(_no_tags(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
            lines.insert(1, "|" + "|".join(["---"] + ["--:"] * (len(block.head) - 1)) + "|")
            return "\n".join([f"{block.caption}\n"] * bool(block.caption) + lines)
        case Picture(name, _, alt):
            file = re.sub(r"[^\w.-]+", "-", name) + ".svg"
            pictures[file] = _svg(block, alone=True)
            return f"![{alt}]({folder}/{file})"
        case Code(text):
            return f"```\n{text.rstrip()}\n```"
        case Box(_, blocks):
            return "\n".join(f"> {line}".rstrip() for line in inside(blocks).split("\n"))
        case Details(title, blocks):
            return f"<details><summary>{_inline(title)}</summary>\n\n{inside(blocks)}\n\n</details>"
    raise TypeError(f"{block!r} is no block")


def html_table(head, rows, bold=(), caption: str = "", soft=(), shades=None) -> str:
    def cell(text: str, column: int, share: float | None) -> str:
        if share is not None:
            return f'<td class=shade style="--share:{share:.2f}">{escape(text)}</td>'
        return f"<td{' class=soft' if column in soft else ''}>{escape(text)}</td>"

    lines = []
    for i, row in enumerate(rows):
        shares = shades[i] if shades else [None] * len(row)
        cells = "".join(cell(text, j, share) for j, (text, share) in enumerate(zip(row, shares, strict=True)))
        lines.append(f"<tr{' class=best' if i in bold else ''}>{cells}</tr>")
    columns = "".join(f"<th{' class=soft' if j in soft else ''}>{escape(name)}</th>" for j, name in enumerate(head))
    columns = columns.replace(" %", "&nbsp;%")
    title = f"<caption>{_inline(caption)}</caption>" if caption else ""
    body = "\n".join(lines)
    return f"<div class=wide><table>{title}<thead><tr>{columns}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"


def png(figure, alt: str) -> str:
    """A figure as an `<img>` with a PNG inside."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=144, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">\n'


def _draw(figure) -> tuple[str, str]:
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(stream, format="svg", dpi=144, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    view = re.search(r'viewBox="([^"]*)"', text)[1]
    body = text[text.index(">") + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|\n\s*", " ", body, flags=re.S)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body).replace("xlink:href", "href")
    body = re.sub(r"<[^>]*>", lambda tag: LONG_NUMBER.sub(lambda n: f"{float(n[0]):.1f}", tag[0]), body)
    body = re.sub("|".join(COLOURS), lambda colour: COLOURS[colour[0]], body)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    return view, re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in used else "", body)


def _svg(picture: Picture, alone: bool = False) -> str:
    """An `<svg>` for the page; `alone`: as a file of its own, which brings the page's colours."""
    view, body = picture.drawing
    begin = f'<svg viewBox="{view}" role="img" aria-label="{escape(picture.alt)}" fill="var(--ink)"'
    if not alone:
        return f'{begin} stroke-linejoin="round">{body}</svg>\n'
    size = 'width="{2}" height="{3}"'.format(*view.split())
    colours = re.search(r":root.*?(?=\nbody)", STYLE, flags=re.S)[0]
    return (
        f'{begin} stroke-linejoin="round" {size} xmlns="http://www.w3.org/2000/svg"><style>{colours}</style>'
        f'<rect {size} fill="var(--paper)"/>{body}</svg>\n'
    )


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _no_tags(text: str) -> str:
    """Without what Markdown would take for HTML."""
    return re.sub(r"<(?=[a-zA-Z/!])", "&lt;", text)


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")
