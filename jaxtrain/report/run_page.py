"""Report of a run: its figures and one self-contained HTML page, made from the files of its folder alone.

`python -m jaxtrain.report RUN_FOLDER` draws both again; of a sweep, or of several folders, the command writes the page
that compares them (`sweep_page`). A run's page holds no script and fetches nothing.
"""

import base64
import os
import pathlib
import shlex
import statistics
from typing import Any

from jaxtrain.jsonable import exact, flatten, number
from jaxtrain.report import figures, page
from jaxtrain.report.page import Html, duration, fmt, table, tag
from jaxtrain.workdir import reading, records
from jaxtrain.workdir.reading import RunData, best_of, newest_event, status, time_axis, value_of


def tiles(run: RunData) -> Html:
  """The key numbers: best value, test loss, length, parameters, time."""
  start, (monitor, value, best_step), (unit, per_unit) = newest_event(run, "on_start"), best_of(run), time_axis(run)
  length = run.config.get("train", {})  # not that of on_start: a run may grow
  step = run.rows[-1]["step"] if run.rows else 0
  total = length.get("num_steps") or length.get("num_epochs", 0) * (number(start.get("steps_per_epoch")) or 0)
  total = total or number(start.get("num_steps"))
  place = lambda step: f"{step / per_unit:,.6g}"
  seconds = reading.step_seconds(run)
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
  (unit, per_unit), best_step, columns = time_axis(run), best_of(run).step, {}
  for split in ("train", "val", "test"):
    rows = [row for row in run.rows if row["split"] == split]
    best = [row for row in rows if row["step"] == best_step and split != "test"]
    for row in best + [row for row in rows[-1:] if row not in best]:
      where = f"{'best' if row in best else 'last'} ({unit} {row['step'] / per_unit:,.6g})"
      columns[f"{split}, {'best state' if split == 'test' else where}"] = row
  names = ["loss"] + [key[len("metric_"):] for key in dict(*run.rows[:1]) if key.startswith("metric_")] + ["lr"]
  values = {name: [value_of(row, name) for row in columns.values()] for name in names}
  parts = [tag("div", tag("h3", "Training"), metric_table(run, ["metric", *columns], values)) if columns
           else tag("p", "None yet.")]
  scalars = {split: record.get("scalars", {}) for split, record in run.evals.items()}
  plain = dict.fromkeys(name for measured in scalars.values() for name in measured if "/" not in name)
  if plain:
    values = {name: [measured.get(name) for measured in scalars.values()] for name in plain}
    shown = metric_table(run, ["measure", *scalars], values)
    parts.append(tag("div", tag("h3", "Evaluation of the best state"), shown))
  return [tag("div", *parts, class_="row"), *items_table(run)]


def metric_table(run: RunData, head: list[str], values: dict[str, list[Any]]) -> Html:
  """A row per metric, with its unit, direction and chance level where the experiment says what it is."""
  said = {name: reading.description(reading.described(run), name) for name in values}
  words = {name: explained(said[name]) for name in values}
  more = [""] * any(words.values())
  rows = [[tag("td", name, **({"title": said[name]["meaning"]} if said[name].get("meaning") else {})),
           *(words[name] for _ in more), *map(fmt, row)] for name, row in values.items()]
  return table([head[0], *more, *head[1:]], rows)


def explained(said: dict) -> str:
  """Unit, better direction and chance level of a metric in words; empty where nothing is said."""
  parts = [said.get("unit"), f"{said['direction']} is better" if said.get("direction") else "",
           f"chance {fmt(said['chance'])}" if said.get("chance") is not None else ""]
  return ", ".join(part for part in parts if part)


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
  word = "feature" if items.keys() <= set(run.meta.get("features", ())) else "item"
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
  meta = run.meta
  facts, scaler, names = meta.get("table", {}), meta.get("scaler", {}), meta.get("class_names", ())
  source = str(facts.get("source") or run.config.get("data", {}).get("source", "not known"))
  warning = "Synthetic data: generated by jaxtrain, not measured. No result here is a finding about the world."
  parts = [tag("p", warning, class_="warn")] if source.startswith("synthetic") else []
  rows = [("source", source)] + [(k.replace(".", " of "), fmt(n)) for k, n in flatten({"rows": meta.get("rows")}) if n]
  groups = {part: n for part, n in (meta.get("groups") or {}).items() if n}
  rows += [("groups per part", ", ".join(f"{part} {fmt(n)}" for part, n in groups.items()))] if groups else []
  listed = ("source", "rows", "missing", "class_rows", "warnings", "label_warnings")
  rows += [(key.replace("_", " "), fmt(value)) for key, value in flatten(facts) if key.partition(".")[0] not in listed]
  missing = facts["missing"] if isinstance(facts.get("missing"), dict) else {}
  gaps = counted(missing.get("columns"), missing.get("cells"))
  rows += [("missing cells", ", ".join(f"{name} {n}" for name, n in gaps))] * bool(gaps)
  rows += [(word, fmt(len(some))) for word, some in (("features", meta.get("features")), ("classes", names)) if some]
  parts.append(table(["", ""], rows, "text"))
  if {"transforms", "mean", "std"} <= scaler.keys():
    scaling = zip(meta["features"], scaler["transforms"], map(fmt, scaler["mean"]), map(fmt, scaler["std"]))
    parts += [tag("h3", "Features as the model sees them"),
              table(["feature", "transform", "mean, transformed", "std, transformed"], scaling)]
  parts += [tag("p", "Note: ", words, class_="warn")
            for key in ("warnings", "label_warnings") if isinstance(facts.get(key), list) for words in facts[key]]
  pairs = counted(names, facts.get("class_rows")) or [(str(name), "") for name in names]
  classes = ", ".join(f"{name} {n}".strip() for name, n in pairs)
  return parts + [tag("details", tag("summary", "Classes and their rows"), tag("p", classes))] * bool(names)


def counted(names: Any, counts: Any) -> list[tuple[str, str]]:
  """Names with their counts as text; [] where a run did not note one count for each."""
  if not isinstance(names, (list, tuple)) or not isinstance(counts, list) or len(names) != len(counts):
    return []
  return [(str(name), fmt(n)) for name, n in zip(names, counts)]


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
  sections = {"Metrics": metrics_section(run), "Figures" if configured is run else "Stages": pictures, "Data":
              data_section(run), "Configuration": config_section(configured), "Environment": environment_section(run)}
  parts = [tag("section", tag("h2", title), *content, id=title) for title, content in sections.items()]
  nav = tag("nav", *(tag("a", title, href=f"#{title}") for title in sections))
  name = os.path.basename(os.path.abspath(run.folder))
  return page.write(os.path.join(run.folder, "report.html"), name, [*header(run), nav, *parts])


def write_run(workdir: str, moment: str) -> str | None:
  """Draws a run's figures and writes its report, whose path it returns; with stages, one of each and one of all.

  At the moment `train` only curves are drawn, and no page. Raises UserError as `read_run` and `figures.select` do.
  """
  run, stages = reading.read_run(workdir), [reading.read_run(path) for path in records.stage_folders(workdir)]
  drawn = [(each, figures.draw(each, moment)) for each in stages or [run]]
  if moment == "train":
    return None
  paths = [write_page(each, figures_section(pictures), each) for each, pictures in drawn]
  if not stages:
    return paths[0]
  note = f"the numbers above and under Metrics are of stage {os.path.basename(stages[-1].folder)}, the newest"
  last = reading.of_stage(run, stages[-1])._replace(folder=workdir, problems=[note, *run.problems])
  return write_page(last, stages_section(run, drawn), run)
