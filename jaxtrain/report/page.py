"""Pages of HTML that hold all they show: elements, tables, numbers as text, and one file without links to elsewhere.

All strings that are not `Html` are escaped. What a page may load is nothing, and what it may run is the one script that
it is written with, by its hash (Content-Security-Policy).
"""

import base64
import datetime
import hashlib
import html
import json
import math
from typing import Any, Iterable, Sequence

from jaxtrain.jsonable import number
from jaxtrain.workdir import atomic, quality

MAX_ROWS = 40  # of a table at first
TINY = 1e-4  # of a value: half an interval below that does not decide about its digits
CSS = """:root{color-scheme:light dark;--ink:#1d2329;--soft:#59646e;--line:#dde2e7;--page:#f6f7f9;--card:#fff;
--link:#1f6fb4;--bar:#8dbbe3;--edge:#59646e66;--good:#0b7a57;--bad:#b3261e;--warn:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa6b1;--line:#333b44;--page:#14181c;--card:#1c2127;
--link:#7ab5ea;--bar:#3b6f9e;--good:#4cc79b;--bad:#f0817a;--warn:#e0ad55}}
*{box-sizing:border-box}main{max-width:70rem;margin:auto;padding:2rem 1.25rem}a,summary{color:var(--link)}
.soft,figcaption,.tiles span,th{color:var(--soft)}.row{display:flex;flex-wrap:wrap;gap:1.4rem 2.5rem}.row *{min-width:0}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;overflow-wrap:anywhere}h3{font-size:1rem;margin:1.4rem 0 .4rem}
h2{font-size:1.25rem;margin:2.75rem 0 .9rem;padding-bottom:.35rem;border-bottom:1px solid var(--line)}
p{margin:.4rem 0;max-width:46rem;overflow-wrap:anywhere}nav a{display:inline-block;margin:.7rem 1rem 0 0}
.badge{padding:.05rem .6rem;border:1px solid;border-radius:1rem;font-size:.85rem;font-weight:600;margin-right:.4rem}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}details{margin:.8rem 0}.row h3{margin-top:0}
.tiles>div,.scroll,pre,figure label{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:.7rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 .9rem}
.tiles b{display:block;font-size:1.4rem;line-height:1.3}.tiles span{display:block;font-size:.82rem}
.scroll{background:linear-gradient(90deg,var(--card) 40%,#0000) 0/2rem 100% no-repeat local,
linear-gradient(270deg,var(--card) 40%,#0000) 100%/2rem 100% no-repeat local,linear-gradient(90deg,var(--edge),#0000) 0/
.8rem 100% no-repeat,linear-gradient(270deg,var(--edge),#0000) 100%/.8rem 100% no-repeat,var(--card);overflow:auto;
width:fit-content;max-width:100%;padding:0}summary{cursor:pointer}small{display:block;color:var(--soft);
font-size:.82rem;line-height:1.35;white-space:normal;max-width:34rem}.keys b{font-size:1.7rem}
em{display:block;font-size:.62em;line-height:1.3;font-style:normal;color:var(--soft)}.keys>div{
border-top:3px solid var(--link)}ul{margin:.4rem 0;padding-left:1.2rem;max-width:46rem}li{margin:.25rem 0;
overflow-wrap:anywhere}.note{font-size:.88rem;color:var(--soft);max-width:60rem}td.soft{font-style:italic}
table{border-collapse:collapse;font-size:.9rem}table,b{font-variant-numeric:tabular-nums}
th,td{padding:.36rem .9rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{position:sticky;top:0;background:var(--card);font-weight:600}tr:last-child td{border-bottom:0}
th:first-child,td:first-child,.text *{text-align:left}.text td+td{white-space:normal;overflow-wrap:anywhere}
td[style]{background:linear-gradient(90deg,var(--bar) var(--v),#0000 0) .5rem 100%/calc(100% - 1rem) 3px no-repeat}
figure{margin:0 0 2.2rem;break-inside:avoid}figcaption{font-size:.92rem;margin-top:.45rem;max-width:46rem}
figure label{display:block;overflow:auto;background:#fff;cursor:zoom-in}figure label:focus-within{
border-color:var(--link)}figure input{position:absolute;opacity:0}
img{display:block;max-width:100%;height:auto;margin:auto}
@media(prefers-color-scheme:dark){figure label{filter:brightness(.9);border-color:#0000}}
code,pre{font:.86rem/1.5 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:40rem){main{padding:1.2rem .9rem}h1{font-size:1.5rem}.tiles{grid-template-columns:minmax(0,1fr)
minmax(0,1fr)}
figure img{max-width:none;width:max(100%,min(44rem,var(--w)))}
th,td:first-child{white-space:normal}th,td{padding:.36rem .6rem}}:checked+img,:checked+picture img{max-width:none;
width:auto}"""


class Html(str):
  """Text that is HTML already."""


def tag(name: str, /, *content: Any, **attributes: str) -> Html:
  """An element; content that is not HTML already is escaped."""
  given = "".join(f' {key.strip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
  inner = "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in content)
  return Html(f"<{name}{given}>" if name in ("img", "input", "meta", "source") else f"<{name}{given}>{inner}</{name}>")


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], kind: str = "numbers", most: int = MAX_ROWS) -> Html:
  """A table in a box of its own that scrolls sideways; of more rows than `most` the others are folded away.

  A cell is text, HTML, or a finished td.
  """
  cell = lambda value: value if isinstance(value, Html) and value.startswith("<td") else tag("td", value)
  head, rows = list(head), [tag("tr", *map(cell, row)) for row in rows]
  top = [tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))] if any(head) else []
  box = lambda some: tag("div", tag("table", *top, tag("tbody", *some), class_=kind), class_="scroll", tabindex="0")
  if len(rows) <= most + most // 4:  # a few more are not worth a click
    return box(rows)
  return Html(box(rows[:most]) + tag("details", tag("summary", f"The other {len(rows) - most} rows"), box(rows[most:])))


def fmt(value: Any) -> str:
  """A number with 4 significant digits and thousands separators, a dash for unknown, other values as they are."""
  given = None if isinstance(value, str) else number(value)
  if given is None or not math.isfinite(given):
    return "–" if value is None else str(value)
  whole = isinstance(value, int) or 1e3 <= abs(given) < 1e9
  return (f"{given:,.0f}" if whole else f"{given:#.4g}").replace("-", "−")


def with_interval(value: Any, half: Any, limits: Sequence[float] | None = None) -> str:
  """A number and half the width of its interval, `0.186 ± 0.061`, with as many digits as the interval allows; the ends
  of one that passes the limits, which is cut there: `0.990 (0.950 to 1)`.
  """
  given, width = number(value), number(half)
  if given is None or width is None or not (math.isfinite(given) and math.isfinite(width)) or width <= 0:
    return fmt(value)
  if width < TINY * abs(given):
    return f"{fmt(value)} ± {width:.0e}".replace("e-0", "e-").replace("-", "−")
  digits = min(max(1 - math.floor(math.log10(width)), 0), 8)
  if quality.is_cut(given, width, limits):
    ends = (f"{end:g}" if end in limits else f"{end:,.{digits}f}" for end in quality.cut(given, width, limits))
    return f"{given:,.{digits}f} ({' to '.join(ends)})".replace("-", "−")
  return f"{given:,.{digits}f} ± {width:,.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
  """Seconds, or hours, minutes and seconds where they are many."""
  return f"{fmt(float(seconds))} s" if seconds < 100 else str(datetime.timedelta(seconds=round(seconds)))


def write(path: str, title: str, content: Iterable[Html], style: str = "", data: Any = None, script: str = "") -> str:
  """Writes a page and returns its path. `data` is JSON for the script, which reads it from the element `data`.

  Raises OSError where it cannot be written, and ValueError for data with numbers that are not finite.
  """
  policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
  scripts = []
  if script:
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    policy += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    scripts = [tag("script", Html(text), type="application/json", id="data"), tag("script", Html(script))]
  head = tag("head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy),
             tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
             tag("title", f"{title} · jaxtrain"), tag("style", Html(CSS + style)))
  document = tag("html", head, tag("body", tag("main", *content), *scripts), lang="en")
  with atomic.replacing(path) as fresh, open(fresh, "w", encoding="utf-8", errors="replace") as file:
    file.write(f"<!doctype html>\n{document}\n")  # names may be no text
  return path
