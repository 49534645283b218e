"""Report of a run: its figures, and one self-contained HTML page written from the files of its folder alone.

Also a command: `python -m jaxtrain.report RUN_FOLDER` draws both again. The page holds no script and fetches nothing; all
text from the run is escaped, because `Html` marks the only strings that are not.
"""

import argparse
import base64
import html
import json
import math
import os
import shlex
import statistics
import sys
from typing import Any, Iterable

from jaxtrain import __version__, figures
from jaxtrain.figures import RunData, best_of, newest_event, number, time_axis, value_of

MEASURES = {"r2_raw": "R² raw", "rmse_raw": "RMSE raw", "mae_raw": "MAE raw", "r2_scaled": "R² scaled"}
LEFT_OUT = ("rmse_scaled", "mae_scaled")  # say nothing beside the others
STYLE = """
:root{color-scheme:light dark;--ink:#1d2329;--soft:#5b6670;--line:#dde2e7;--page:#f6f7f9;--card:#fff;--link:#1f6fb4;
--bar:#cfe2f3;--good:#0b7a57;--bad:#b3261e;--warn:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa6b1;--line:#333b44;--page:#14181c;--card:#1c2127;
--link:#7ab5ea;--bar:#24415c;--good:#4cc79b;--bad:#f0817a;--warn:#e0ad55}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:70rem;margin:0 auto;padding:2rem 1.25rem 4rem}
a{color:var(--link)}h1{font-size:1.9rem;line-height:1.2;margin:.15rem 0 .5rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.75rem 0 .75rem;padding-bottom:.35rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .5rem}p{margin:.4rem 0;max-width:46rem}.soft,.eyebrow{color:var(--soft)}
.eyebrow{font-size:.8rem;letter-spacing:.06em;text-transform:uppercase}
.badge{display:inline-block;padding:.05rem .6rem;border:1px solid;border-radius:1rem;font-size:.85rem;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:1rem 0 0;font-size:.92rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 .9rem}
.tiles>div{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem}
.tiles b{display:block;font-size:1.4rem;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles span{display:block;font-size:.82rem;color:var(--soft)}
.scroll{overflow:auto;max-height:34rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem;margin:.6rem 0}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.36rem .8rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}thead th{position:sticky;top:0;background:var(--card);font-weight:600;color:var(--soft)}
th:first-child,td:first-child,.text td,.text th{text-align:left}.text td{white-space:normal;overflow-wrap:anywhere;min-width:8rem}
td.bar{background:linear-gradient(90deg,var(--bar) var(--v),transparent var(--v)) no-repeat 0 50%/100% 72%}
figure{margin:1.5rem 0 2rem}figcaption{font-size:.92rem;color:var(--soft);margin-top:.45rem;max-width:46rem}
figcaption b{color:var(--ink)}
.zoom{display:block;overflow:auto;background:#fff;border:1px solid var(--line);border-radius:.6rem;padding:.6rem;cursor:zoom-in}
.zoom input{position:absolute;opacity:0}.zoom img{display:block;max-width:100%;height:auto;margin:0 auto}
.zoom:has(:checked){cursor:zoom-out}.zoom :checked+img{max-width:none;margin:0}.zoom:focus-within{outline:2px solid var(--link)}
code,pre{font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem;white-space:pre-wrap;margin:.6rem 0}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--link)}.note{border-left:3px solid var(--warn);padding-left:.8rem}
@media(max-width:40rem){main{padding:1.2rem .9rem 3rem}h1{font-size:1.5rem}.tiles{grid-template-columns:1fr 1fr}
th,td{padding:.34rem .55rem}}
@media print{.scroll{max-height:none;overflow:visible}nav{display:none}figure,.tiles{break-inside:avoid}}
"""


class Html(str):
  """Text that is HTML already."""


def text(value: Any) -> Html:
  """Anything as HTML: escaped, unless it is HTML already."""
  return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, *content: Any, **attributes: str) -> Html:
  """An element."""
  given = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
  return Html(f"<{name}{given}>{''.join(map(text, content))}</{name}>")


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], class_: str = "") -> Html:
  """A table in a box of its own that scrolls; a cell is text, HTML, or a finished td."""
  cell = lambda value: value if isinstance(value, Html) and value.startswith("<td") else tag("td", value)
  body = [tag("tr", *map(cell, row)) for row in rows]
  top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
  return tag("div", tag("table", top, tag("tbody", *body), class_=class_), class_="scroll", tabindex="0")


def fmt(value: Any) -> str:
  """A number with 4 significant digits and thousands separators; a dash for unknown; other values as Python writes them."""
  if value is None:
    return "–"
  if isinstance(value, (list, tuple)):
    return f"({', '.join(fmt_exact(entry) for entry in value)}{',' * (len(value) == 1)})"
  given = number(value)
  if given is None or isinstance(value, str) and math.isfinite(given):
    return str(value)
  if not math.isfinite(given):
    return str(given)
  if given == int(given) and abs(given) < 1e15:
    return f"{int(given):,}".replace("-", "−")
  return (f"{given:,.0f}" if 1e4 <= abs(given) < 1e9 else f"{given:.4g}").replace("-", "−")


def fmt_exact(value: Any) -> str:
  """A config value as it is typed: lists of JSON as tuples."""
  return fmt(value) if isinstance(value, (list, tuple)) else repr(value)


def fmt_seconds(seconds: float | None) -> str:
  """A duration."""
  if seconds is None or seconds < 60:
    return "–" if seconds is None else f"{seconds:.3g} s"
  minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
  return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {int(seconds) % 60:02d} s"


def position(run: RunData, step: float | None) -> str:
  """Where a step lies: the epoch, or the step of a stream."""
  label, per_unit = time_axis(run)
  return "–" if step is None else f"{label} {step / per_unit:,.6g}"


def status(run: RunData) -> tuple[str, str, str]:
  """The state of a run: a word, its colour, and a sentence."""
  ended, failed = newest_event(run, "on_train_end"), newest_event(run, "on_exception")
  if failed and (not ended or run.events.index(failed) > run.events.index(ended)):
    return "failed", "bad", f"{failed.get('error', '')}: {failed.get('message', '')}"
  if not ended:
    return "incomplete", "warn", "Stopped, or still going: the same command goes on from the last checkpoint."
  early = ended.get("stopped_early")
  return "done", "good", "Stopped early: the monitored metric no longer improved." if early else ""


def command_lines(run: RunData) -> list[str]:
  """Commands that repeat the run, one for each way it was started that is known; the workdir is left to the default."""
  lines = []
  for start in (run.process, run.process.get("latest", {})):
    argv = [str(part) for part in start.get("argv", ())]
    if not argv:
      continue
    ours = argv[0].replace(os.sep, "/").endswith("jaxtrain/main.py")
    keep = [part for i, part in enumerate(argv[1:], start=1) if not ours or not (
        part.lstrip("-").startswith("workdir=") or part.lstrip("-") == "workdir" or argv[i - 1].lstrip("-") == "workdir")]
    flat = dict(flatten(run.config))
    environment = [f"{key.upper().replace('.', '__')}={shlex.quote(env_text(flat.get(key)))}"
                   for key, origin in sorted(run.origins.items()) if origin == "environment"]
    line = " ".join([*environment, "python -m jaxtrain.main" if ours else f"python {shlex.quote(argv[0])}", shlex.join(keep)])
    lines += [line] if line not in lines else []
  return lines


def env_text(value: Any) -> str:
  """A config value as an environment variable."""
  return value if isinstance(value, str) else fmt_exact(value)


def flatten(record: dict, prefix: str = "") -> Iterable[tuple[str, Any]]:
  """Dotted keys and values of nested dicts, in order."""
  for key, value in record.items():
    if isinstance(value, dict) and value:
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def header(run: RunData) -> Html:
  """What ran, how it ended, and the key numbers."""
  word, color, sentence = status(run)
  source = next((part.split("=", 1)[1] for part in run.process.get("argv", ()) if part.lstrip("-").startswith("config=")), "")
  names = " · ".join(part for part in (run.config.get("experiment", ""), source) if part)
  ended, start = newest_event(run, "on_train_end"), newest_event(run, "on_start")
  parts = [tag("div", "jaxtrain run report", class_="eyebrow"), tag("h1", os.path.basename(os.path.abspath(run.folder))),
           tag("p", tag("span", word, class_=f"badge {color}"), " ", sentence), tag("p", names, class_="soft")]
  parts.append(tiles(run, start, ended))
  if ended.get("digest"):
    parts.append(tag("p", "Digest of the final state: ", tag("code", f"sha256:{ended['digest']} step={ended.get('step')}"),
                     class_="soft"))
  return tag("header", *parts)


def tiles(run: RunData, start: dict, ended: dict) -> Html:
  """The key numbers: best value, test, length, parameters, rows, time."""
  monitor, value, best_step = best_of(run)
  last = run.rows[-1]["step"] if run.rows else number(start.get("step")) or 0
  total, per_unit = number(start.get("num_steps")), time_axis(run)[1]
  entries = [(f"best {monitor}", fmt(value), f"at {position(run, best_step)}" if best_step else "nothing evaluated")]
  tests = [row for row in run.rows if row["split"] == "test"]
  if tests and value_of(tests[-1], "loss") is not None:
    entries.append(("test loss", fmt(value_of(tests[-1], "loss")), "of the best state"))
  done = f"{last / per_unit:,.4g} of {total / per_unit:,.4g}" if total else f"{last / per_unit:,.4g}"
  entries.append((f"{time_axis(run)[0]}s", done, f"{int(last):,} steps of {fmt(start.get('batch_size'))} rows"))
  entries.append(("parameters", fmt(start.get("parameters")), f"seed {run.config.get('seed', '–')}"))
  speeds = [row["throughput"] for row in run.rows if row.get("throughput")]
  took = number(ended.get("total_time_s"))
  entries.append(("total time", fmt_seconds(took), f"{statistics.median(speeds):,.0f} samples/s" if speeds else ""))
  return tag("div", *(tag("div", tag("span", name), tag("b", shown), tag("span", note)) for name, shown, note in entries),
             class_="tiles")
