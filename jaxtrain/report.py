"""Report of a run: its figures and one self-contained HTML page, made from the files of its folder alone.

`python -m jaxtrain.report RUN_FOLDER` draws both again. The page holds no script and fetches nothing. A run's text is
escaped, as all strings are that are not `Html`.
"""

import argparse
import base64
import datetime
import html
import math
import os
import pathlib
import shlex
import statistics
import sys
from typing import Any, Iterable

from jaxtrain import figures
from jaxtrain.figures import RunData, best_of, newest_event, number, time_axis, value_of

STYLE = """:root{color-scheme:light dark;--ink:#1d2329;--soft:#59646e;--line:#dde2e7;--page:#f6f7f9;--card:#fff;
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
.tiles>div,.scroll,pre,label{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 .9rem}
.tiles b{display:block;font-size:1.4rem;line-height:1.3}.tiles span{display:block;font-size:.82rem}
.scroll{background:linear-gradient(90deg,var(--card) 40%,#0000) 0/2rem 100% no-repeat local,
linear-gradient(270deg,var(--card) 40%,#0000) 100%/2rem 100% no-repeat local,linear-gradient(90deg,var(--edge),#0000) 0/
.8rem 100% no-repeat,linear-gradient(270deg,var(--edge),#0000) 100%/.8rem 100% no-repeat,var(--card);overflow:auto;
max-height:34rem;width:fit-content;max-width:100%;padding:0}summary{cursor:pointer}
table{border-collapse:collapse;font-size:.9rem}table,b{font-variant-numeric:tabular-nums}
th,td{padding:.36rem .9rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{position:sticky;top:0;background:var(--card);font-weight:600}tr:last-child td{border-bottom:0}
th:first-child,td:first-child,.text *{text-align:left}.text td+td{white-space:normal;overflow-wrap:anywhere}
td[style]{background:linear-gradient(90deg,var(--bar) var(--v),#0000 0) .5rem 100%/calc(100% - 1rem) 3px no-repeat}
figure{margin:0 0 2.2rem;break-inside:avoid}figcaption{font-size:.92rem;margin-top:.45rem;max-width:46rem}
label{display:block;overflow:auto;background:#fff;cursor:zoom-in}label:focus-within{border-color:var(--link)}
input{position:absolute;opacity:0}img{display:block;max-width:100%;height:auto;margin:auto}
code,pre{font:.86rem/1.5 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:40rem){main{padding:1.2rem .9rem}h1{font-size:1.5rem}.tiles{grid-template-columns:1fr 1fr}
th,td:first-child{white-space:normal}th,td{padding:.36rem .6rem}}:checked+img{max-width:none;width:auto}"""


class Html(str):
  """Text that is HTML already."""


def tag(name: str, /, *content: Any, **attributes: str) -> Html:
  """An element; content that is not HTML already is escaped."""
  given = "".join(f' {key.strip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
  inner = "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in content)
  return Html(f"<{name}{given}>" if name in ("img", "input", "meta") else f"<{name}{given}>{inner}</{name}>")


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], kind: str = "numbers") -> Html:
  """A table in a box of its own that scrolls. A cell is text, HTML, or a finished td."""
  cell = lambda value: value if isinstance(value, Html) and value.startswith("<td") else tag("td", value)
  body = tag("tbody", *(tag("tr", *map(cell, row)) for row in rows))
  top = [tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))] if any(head) else []
  return tag("div", tag("table", *top, body, class_=kind), class_="scroll", tabindex="0")


def fmt(value: Any) -> str:
  """A number with 4 significant digits and thousands separators, a dash for unknown, other values as they are."""
  given = None if isinstance(value, str) else number(value)
  if given is None or not math.isfinite(given):
    return "–" if value is None else str(value)
  whole = isinstance(value, int) or 1e3 <= abs(given) < 1e9
  return (f"{given:,.0f}" if whole else f"{given:#.4g}").replace("-", "−")


def exact(value: Any) -> str:
  """A value as it is typed in a config, where the lists of JSON are tuples."""
  return f"({', '.join(map(exact, value))}{',' * (len(value) == 1)})" if isinstance(value, list) else repr(value)


def flatten(record: dict, prefix: str = "") -> Iterable[tuple[str, Any]]:
  """Dotted keys and values of nested dicts, in order."""
  for key, value in record.items():
    yield from flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]


def status(run: RunData) -> tuple[str, str, str]:
  """How a run ended: a word, its colour, and a sentence."""
  last = next((e for e in reversed(run.events) if e.get("moment") in ("on_train_end", "on_exception")), {})
  if last.get("moment") == "on_exception":
    return "failed", "bad", f"{last.get('error', '')}: {last.get('message', '')}"
  if not last:
    return "incomplete", "warn", "Stopped, or still going: the same command goes on from the newest checkpoint."
  return "done", "good", "Stopped early: the monitored metric no longer improved." if last.get("stopped_early") else ""


def duration(seconds: float) -> str:
  """Seconds, or hours, minutes and seconds where they are many."""
  return f"{fmt(float(seconds))} s" if seconds < 100 else str(datetime.timedelta(seconds=round(seconds)))


def tiles(run: RunData) -> Html:
  """The key numbers: best value, test loss, length, parameters, time."""
  start, (monitor, value, best_step), (unit, per_unit) = newest_event(run, "on_start"), best_of(run), time_axis(run)
  length = run.config.get("train", {})  # not that of on_start: a run may grow
  step = run.rows[-1]["step"] if run.rows else 0
  total = length.get("num_steps") or length.get("num_epochs", 0) * (number(start.get("steps_per_epoch")) or 0)
  total = total or number(start.get("num_steps"))
  place = lambda step: f"{step / per_unit:,.6g}"
  seconds = sum(row.get("epoch_time_s") or 0.0 for row in run.rows)
  ended = newest_event(run, "on_train_end")
  whole = "since it was resumed" if any(start.get("resume_step") for start in run.starts) else "in all"
  whole = f"{duration(number(ended['total_time_s']))} {whole}" if number(ended.get("total_time_s")) else ""
  speeds = [row["throughput"] for row in run.rows if row.get("throughput")]
  speed = f"{statistics.median(speeds):,.0f} rows/s" if speeds else ""
  tests = [fmt(value_of(row, "loss")) for row in run.rows if row["split"] == "test"]
  entries = [(f"best {monitor}", fmt(value), f"{unit} {place(best_step)}" if best_step else "nothing evaluated yet"),
             *(("test loss", shown, "of the best state") for shown in tests[-1:]),
             (f"{unit}s", f"{place(step)} of {place(total)}" if total else place(step), f"{step:,.0f} steps"),
             ("parameters", fmt(start.get("parameters")), f"seed {run.config.get('seed', '–')}"),
             ("time in steps", duration(seconds), " · ".join(part for part in (speed, whole) if part) or "not known")]
  shown = (tag("div", tag("span", name), tag("b", value), tag("span", note)) for name, value, note in entries)
  return tag("div", *shown, class_="tiles")


def header(run: RunData) -> list[Html]:
  """What ran, how it ended, its key numbers, and what went wrong."""
  word, color, sentence = status(run)
  argv = [str(part).lstrip("-") for part in run.process.get("argv", ())]
  names = [run.config.get("experiment", "")] + [part[len("config="):] for part in argv if part.startswith("config=")]
  digest = newest_event(run, "on_train_end").get("digest")
  notes = run.problems + [alarm for event in run.events for alarm in event.get("alarms", ())][-1:]
  notes += [f"passed over {reason}" for start in run.starts for reason in start.get("skipped_checkpoints", ())]
  return [tag("h1", os.path.basename(os.path.abspath(run.folder))), tag("p", " · ".join(names), class_="soft"),
          tag("p", tag("span", word, class_=f"badge {color}"), sentence), tiles(run),
          *[tag("p", "Digest of the final state ", tag("code", f"sha256:{digest}"), class_="soft")] * bool(digest),
          *(tag("p", "Note: ", note, class_="warn") for note in notes)]


def metrics_section(run: RunData) -> list[Html]:
  """Training metrics at the best and the last step by split, then the end-of-run evaluation, plain and per item."""
  (unit, per_unit), best_step, columns = time_axis(run), best_of(run)[2], {}
  for split in ("train", "val", "test"):
    rows = [row for row in run.rows if row["split"] == split]
    best = [row for row in rows if row["step"] == best_step and split != "test"]
    for row in best + [row for row in rows[-1:] if row not in best]:
      where = f"{'best' if row in best else 'last'} ({unit} {row['step'] / per_unit:,.6g})"
      columns[f"{split}, {'best state' if split == 'test' else where}"] = row
  names = ["loss"] + [key[len("metric_"):] for key in dict(*run.rows[:1]) if key.startswith("metric_")] + ["lr"]
  values = [[name] + [fmt(value_of(row, name)) for row in columns.values()] for name in dict.fromkeys(names)]
  parts = [tag("div", tag("h3", "Training"), table(["metric", *columns], values)) if columns else tag("p", "None yet.")]
  scalars = {split: record.get("scalars", {}) for split, record in run.evals.items()}
  plain = dict.fromkeys(name for measured in scalars.values() for name in measured if "/" not in name)
  if plain:
    values = [[name] + [fmt(measured.get(name)) for measured in scalars.values()] for name in plain]
    parts.append(tag("div", tag("h3", "Evaluation of the best state"), table(["measure", *scalars], values)))
  return [tag("div", *parts, class_="row"), *items_table(run)]


def items_table(run: RunData) -> list[Html]:
  """Measures named `measure/item`, such as those of each feature, as a table; R2 with a bar under it."""
  record = run.evals.get(run.split, {})
  values = {tuple(name.split("/", 1)): v for name, v in record.get("scalars", {}).items() if "/" in name}
  measures = [m for m in dict.fromkeys(measure for measure, _ in values) if m not in ("rmse_scaled", "mae_scaled")]
  titles = [m.replace("r2", "R²").replace("rmse", "RMSE").replace("mae", "MAE").replace("_", " ") for m in measures]

  def cell(measure, item):
    value = number(values.get((measure, item)))
    bar = {"style": f"--v:{100 * value:.1f}%"} if measure.startswith("r2") and value and 0 < value <= 1 else {}
    return tag("td", fmt(values.get((measure, item))), **bar)

  items = dict.fromkeys(item for _, item in values)
  word = "feature" if items.keys() <= set(record.get("meta", {}).get("features", ())) else "item"
  rows = [[item, *(cell(measure, item) for measure in measures)] for item in items]
  return [tag("h3", f"By {word}, {run.split}"), table([word, *titles], rows)] if rows else []


def figures_section(drawn: list[tuple[str, str, str]]) -> list[Html]:
  """The figures with their captions; a click or a tap shows one at full size."""
  parts = []
  for family, path, caption in drawn:
    data = pathlib.Path(path).read_bytes()
    width = str(int.from_bytes(data[16:20], "big") * 4 // 5)  # of what its header says: text is of one size in all
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    image = tag("img", src=source, width=width, alt=f"{family}: {caption}")
    image = tag("label", tag("input", type="checkbox", aria_label=f"{family} at full size"), image)
    parts.append(tag("figure", image, tag("figcaption", tag("b", family.replace("_", " ")), ". ", caption)))
  return parts or [tag("p", "None were drawn.")]


def data_section(run: RunData) -> list[Html]:
  """Rows per part, facts of the table, scaling of each feature, classes."""
  meta = run.evals.get(run.split, {}).get("meta", {})
  facts, scaler, names = meta.get("table", {}), meta.get("scaler", {}), meta.get("class_names", ())
  source = str(facts.get("source") or run.config.get("data", {}).get("source", "not known"))
  warning = "Synthetic data: generated by jaxtrain, not measured. No result here is a finding about the world."
  parts = [tag("p", warning, class_="warn")] if source.startswith("synthetic") else []
  rows = [("source", source)] + [(k.replace(".", " of "), fmt(n)) for k, n in flatten({"rows": meta.get("rows")}) if n]
  groups = {part: n for part, n in (meta.get("groups") or {}).items() if n}
  rows += [("groups per part", ", ".join(f"{part} {fmt(n)}" for part, n in groups.items()))] if groups else []
  rows += [(key.replace("_", " "), fmt(value)) for key, value in flatten(facts) if key not in ("source", "rows")]
  rows += [(word, fmt(len(some))) for word, some in (("features", meta.get("features")), ("classes", names)) if some]
  parts.append(table(["", ""], rows, "text"))
  if {"transforms", "mean", "std"} <= scaler.keys():
    scaling = zip(meta["features"], scaler["transforms"], map(fmt, scaler["mean"]), map(fmt, scaler["std"]))
    parts += [tag("h3", "Features as the model sees them"),
              table(["feature", "transform", "mean, transformed", "std, transformed"], scaling)]
  listed = tag("summary", "Names of the classes"), tag("p", ", ".join(map(str, names)))
  return parts + [tag("details", *listed)] * bool(names)


def config_section(run: RunData) -> list[Html]:
  """Changed values with their origin, then every field."""
  flat, origins = dict(flatten(run.config)), run.origins
  changed = [(key, exact(flat.get(key)), origin) for key, origin in origins.items()]
  first = table(["changed field", "value", "set by"], changed, "text") if changed else tag("p", "As the file has it.")
  others = table(["field", "value"], [(key, exact(value)) for key, value in flat.items() if key not in origins], "text")
  rest = f"The other {len(flat) - len(changed)} fields" if changed else f"All {len(flat)} fields"
  return [first, tag("details", tag("summary", rest), others)]


def environment_section(run: RunData) -> list[Html]:
  """Where the run was made, and the commands that repeat it, in a new folder, from the same commit."""
  starts = [start for start in (run.process, run.process.get("latest", {})) if start]
  both = lambda key: " then ".join(dict.fromkeys(str(start[key]).strip("[]").replace("'", "") for start in starts
                                                 if start.get(key)))
  versions = run.process.get("versions", {}) | {"python": both("python")}
  rows = [("folder", os.path.abspath(run.folder)), ("started", both("time")), ("commit", both("git_commit")),
          ("platform", both("platform")), ("CPUs", both("cpu_count")), ("devices", both("devices")),
          ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
          ("resumed at step", ", ".join(fmt(start["resume_step"]) for start in run.starts if start.get("resume_step")))]
  commit, _, changes = str(run.process.get("git_commit") or "").partition("+")
  lines = {f"git checkout {commit}{'  # and what was not committed' if changes else ''}": None} if commit else {}
  typed = lambda value: value if isinstance(value, str) else exact(value)
  settings = [f"{key.upper().replace('.', '__')}={shlex.quote(typed(dict(flatten(run.config)).get(key)))}"
              for key, origin in run.origins.items() if origin == "environment"]
  for argv in ([str(part) for part in start.get("argv", ())] for start in starts):
    if argv and argv[0].replace(os.sep, "/").endswith("jaxtrain/main.py"):
      fields = [part.lstrip("-").split("=")[0] for part in argv]
      keep = [argv[i] for i in range(1, len(argv)) if not {fields[i], argv[i - 1].lstrip("-")} & {"workdir", "resume"}]
      lines[" ".join([*settings, "python -m jaxtrain.main", shlex.join(keep)])] = None
    elif argv:
      lines[f"python {shlex.join(argv)}"] = None
  return [table(["", ""], [row for row in rows if row[1]], "text"), tag("h3", "Do it again"),
          tag("pre", "\n".join(lines) or "Not known: no run.json.")]


def stages_section(run: RunData, stages: list[tuple[RunData, list]]) -> list[Html]:
  """Each stage's settings, key numbers and loss curves, with a link to its own page."""
  parts = []
  for stage, drawn in stages:
    name = os.path.basename(stage.folder)
    word, color, sentence = status(stage)
    settings = {str(k): given for k, given in enumerate(run.config.get("stages", ()))}.get(name, {})
    changes = ", ".join(f"{key} = {exact(value)}" for key, value in flatten(settings))
    parts += [tag("h3", f"Stage {name} ", tag("span", word, class_=f"badge {color}"), sentence),
              tag("p", changes, class_="soft"), tiles(stage), *figures_section(drawn[:1]),
              tag("p", tag("a", f"Report of stage {name}", href=f"stages/{name}/report.html"))]
  return parts


def write_page(run: RunData, pictures: list[Html], configured: RunData) -> str:
  """Writes report.html into the run's folder and returns its path; `configured` has the config that the page shows."""
  name, path = os.path.basename(os.path.abspath(run.folder)), os.path.join(run.folder, "report.html")
  sections = {"Metrics": metrics_section(run), "Figures" if configured is run else "Stages": pictures, "Data":
              data_section(run), "Configuration": config_section(configured), "Environment": environment_section(run)}
  parts = [tag("section", tag("h2", title), *content, id=title) for title, content in sections.items()]
  policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
  head = tag("head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy),
             tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
             tag("title", f"{name} · jaxtrain"), tag("style", Html(STYLE)))
  nav = tag("nav", *(tag("a", title, href=f"#{title}") for title in sections))
  page = tag("html", head, tag("body", tag("main", *header(run), nav, *parts)), lang="en")
  pathlib.Path(path + ".new").write_text(f"<!doctype html>\n{page}\n", encoding="utf-8")
  os.replace(path + ".new", path)
  return path


def write_run(workdir: str, moment: str) -> str | None:
  """Draws a run's figures and writes its report, whose path it returns; with stages, one of each and one of all.

  At the moment `train` only curves are drawn, and no page. Raises FigureError as `figures.read_run` and `select` do.
  """
  run, found = figures.read_run(workdir), pathlib.Path(workdir).glob("stages/[0-9]*/config.json")
  stages = [figures.read_run(str(path.parent)) for path in sorted(found, key=lambda path: (len(str(path)), path))]
  drawn = [(each, figures.draw(each, moment)) for each in stages or [run]]
  if moment == "train":
    return None
  paths = [write_page(each, figures_section(pictures), each) for each, pictures in drawn]
  if not stages:
    return paths[0]
  whole = len(stages) >= len(run.config.get("stages", ()))
  note = f"the numbers above and under Metrics are of stage {os.path.basename(stages[-1].folder)}, the newest"
  last = stages[-1]._replace(folder=workdir, problems=[note, *run.problems],
                             events=[e for e in stages[-1].events if whole or e.get("moment") != "on_train_end"])
  return write_page(last, stages_section(run, drawn), run)


def main() -> int:
  """Runs the command and returns its exit code."""
  parser = argparse.ArgumentParser(prog="python -m jaxtrain.report", description="Draws figures and report again.")
  parser.add_argument("run_folder")
  try:
    print(write_run(parser.parse_args().run_folder, "end"))
    return 0
  except figures.FigureError as error:
    print(f"jaxtrain: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
  sys.exit(main())
