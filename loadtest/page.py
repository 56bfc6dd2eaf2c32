"""One HTML page that needs nothing but itself: the shell, the tables and the figures of the reports.

Laws: every word is escaped here and nowhere else (what is already markup is `Markup`); no script, no outside
address, and a content policy that says so; readable from 320 px up, in light and dark, and on paper. It does not know
what it reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from loadtest import charts
from loadtest.charts import Chart

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#5c6672;--line:#d9dee4;--paper:#fff;--soft:#f4f6f8;
--edge:#0003;--pass:#14724d;--fail:#b3202f;--unknown:#8a5a00}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf1;--faint:#9aa5b1;--line:#303841;--paper:#14181d;--soft:#1c2229;
--edge:#fff4;--pass:#4fd1a1;--fail:#ff7b86;--unknown:#f0b84a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.5;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1060px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:15px;font-weight:600;color:var(--faint);margin:0 0 14px}
h2{font-size:19px;margin:38px 0 10px}h3{font-size:15px;margin:22px 0 6px}p{margin:6px 0;max-width:75ch}
.verdict{border-left:6px solid var(--tone);padding:4px 0 4px 18px;margin:0 0 22px}
.verdict strong{display:block;font-size:44px;line-height:1.1;color:var(--tone)}
.verdict p{font-size:18px;margin:6px 0 0}.verdict.pass{--tone:var(--pass)}.verdict.fail{--tone:var(--fail)}
.verdict.unknown{--tone:var(--unknown)}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;background:var(--line);
border:1px solid var(--line);margin:0 0 8px;padding:0}
.tiles div{background:var(--paper);padding:10px 12px}.tiles dt{color:var(--faint);font-size:13px}
.tiles dd{margin:0;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:26px 28px}
figure{margin:0;max-width:560px;break-inside:avoid}figure svg{display:block;width:100%;height:auto}
figcaption{color:var(--faint);font-size:13px;margin-top:2px}
.scroll{overflow-x:auto;margin:18px 0 8px;background:linear-gradient(90deg,var(--paper) 30%,transparent) 0/36px 100%
no-repeat local,linear-gradient(270deg,var(--paper) 30%,transparent) 100%/36px 100% no-repeat local,
linear-gradient(90deg,var(--edge),transparent) 0/14px 100% no-repeat scroll,
linear-gradient(270deg,var(--edge),transparent) 100%/14px 100% no-repeat scroll}.words{margin-top:14px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px;min-width:min(100%,420px)}
caption{text-align:left;color:var(--faint);padding-bottom:4px}
caption span{display:inline-block;position:sticky;left:0;max-width:min(100%,calc(100vw - 28px))}
th,td{text-align:right;padding:4px 0 4px 14px;border-bottom:1px solid var(--line);vertical-align:top}
td{white-space:nowrap}td.long{white-space:normal;text-align:left;min-width:24ch}
th:first-child,td:first-child{text-align:left;padding-left:0}thead th{color:var(--faint);font-weight:600}
tbody th{font-weight:400}.words td{text-align:left;white-space:normal}.words td,.words th{overflow-wrap:anywhere}
.words{min-width:0;width:100%;max-width:780px}.words tbody th{width:30%;padding-right:8px}.words td.long{min-width:0}
tr.wrong td,tr.wrong th{color:var(--fail);font-weight:600}
ul{padding-left:20px;margin:6px 0;max-width:75ch}li{overflow-wrap:anywhere}
pre{background:var(--soft);padding:10px 12px;white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;margin:8px 0}
.faint{color:var(--faint)}footer{margin-top:44px;color:var(--faint);font-size:13px}
@media (max-width:640px){main{padding:16px 14px 32px}.verdict strong{font-size:34px}.verdict p{font-size:16px}
.tiles{grid-template-columns:1fr 1fr}th,td{padding-left:12px}}
@media print{:root{--ink:#000;--faint:#444;--line:#ccc;--paper:#fff;--soft:#f4f4f4;--pass:#14724d;--fail:#b00020;
--unknown:#7a5000}body{font-size:11px}table,pre{font-size:10px}h2{font-size:15px}.verdict strong{font-size:32px}
.verdict p{font-size:13px}main{max-width:none;padding:0}h2{break-after:avoid}
.charts{grid-template-columns:1fr 1fr}.scroll{overflow:visible;background:none}tr{break-inside:avoid}}
""".strip()


class Markup(str):
    """Text that is HTML already, because this module or `charts` made it."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any value as HTML: markup as it is, all else escaped."""
    return value if isinstance(value, Markup) else Markup(escape(str(value), quote=True))


def page(title: str, body: Iterable[Markup]) -> str:
    """The whole document."""
    # The policy is the proof of "self-contained": a browser would refuse whatever an address slipped in for.
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{STYLE}\n{charts.STYLE}</style></head>\n"
        f"<body><main><h1>{text(title)}</h1>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def verdict(kind: str, large: str, sentence: str, more: Sequence[str] = ()) -> Markup:
    """The verdict, large, in the colour of its kind, with the sentence that says why, and more below it."""
    return Markup(
        f'<section class="verdict {text(kind)}"><strong>{text(large)}</strong><p>{text(sentence)}</p>'
        f"{listed(more)}</section>"
    )


def tiles(figures: Mapping[str, str]) -> Markup:
    """The few figures that a reader looks for first."""
    pairs = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in figures.items())
    return Markup(f'<dl class="tiles">{pairs}</dl>')


def section(title: str, *parts: Markup) -> Markup:
    """A heading and what belongs under it; nothing at all when nothing does."""
    inside = "".join(parts)
    return Markup(f"<section><h2>{text(title)}</h2>{inside}</section>" if inside else "")


def figures(*shown: Chart) -> Markup:
    """Charts side by side where there is room; the words for those who do not see them are inside each."""
    drawn = "".join(f"<figure>{charts.svg(chart)}</figure>" for chart in shown)
    return Markup(f'<div class="charts">{drawn}</div>')


def table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    caption: str = "",
    *,
    wrong: frozenset[int] | set[int] = frozenset(),
) -> Markup:
    """A table of figures: names on the left, numbers on the right; the rows numbered in `wrong` stand out."""
    if not rows:
        return Markup("")
    named = f"<caption><span>{text(caption)}</span></caption>" if caption else ""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = "".join(_row(row, "wrong" if i in wrong else "") for i, row in enumerate(rows))
    return _scrolling(f"<table>{named}<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>", caption)


def words(pairs: Mapping[str, object]) -> Markup:
    """A table of names and what they are, in words."""
    lines = "".join(_row((name, value)) for name, value in pairs.items())
    return Markup(f'<table class="words"><tbody>{lines}</tbody></table>' if pairs else "")


def listed(sentences: Sequence[str]) -> Markup:
    """Sentences as a list."""
    return Markup(f"<ul>{''.join(f'<li>{text(s)}</li>' for s in sentences)}</ul>" if sentences else "")


def paragraph(sentence: object, css: str = "") -> Markup:
    """One paragraph."""
    return Markup(f'<p class="{css}">{text(sentence)}</p>' if css else f"<p>{text(sentence)}</p>")


def subtitle(title: str) -> Markup:
    """A small heading inside a section."""
    return Markup(f"<h3>{text(title)}</h3>")


def command(line: str) -> Markup:
    """A command as it was typed."""
    return Markup(f"<pre>{text(line)}</pre>")


def _row(cells: Sequence[object], css: str = "") -> str:
    mark = f' class="{css}"' if css else ""
    first, *rest = cells
    return f'<tr{mark}><th scope="row">{text(first)}</th>{"".join(map(_cell, rest))}</tr>'


def _cell(value: object) -> str:
    # Figures stay on one line; a sentence among them may wrap.
    css = ' class="long"' if len(str(value)) > 24 else ""
    return f"<td{css}>{text(value)}</td>"


def _scrolling(inside: str, name: str) -> Markup:
    """A wide table scrolls in its own box, and the box can be reached with the keyboard."""
    label = f' role="region" aria-label="{text(name)}"' if name else ""
    return Markup(f'<div class="scroll" tabindex="0"{label}>{inside}</div>')
