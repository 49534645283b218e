"""Report of a run: its figures and one self-contained HTML page, made from the files of its folder alone.

`python -m jaxtrain.report RUN_FOLDER` draws both again; of a sweep, or of several folders, the command writes the page
that compares them (`sweep_page`). A run's page holds no script and fetches nothing.
"""

import base64
import inspect
import io
import os
import pathlib
import shlex
import statistics
import time
from typing import Any

from jaxtrain.config import meanings
from jaxtrain.jsonable import exact, flatten, number
from jaxtrain.report import figures, page, results
from jaxtrain.report.page import Html, duration, fmt, table, tag
from jaxtrain.workdir import quality, reading, records
from jaxtrain.workdir.reading import RunData, best_of, newest_event, status, time_axis


NARROW = 640  # pixels up to which a figure can be read on a phone without scrolling


def tiles(run: RunData) -> Html:
  """What training was: best value, length, parameters, time."""
  start, (monitor, value, best_step), (unit, per_unit) = newest_event(run, "on_start"), best_of(run), time_axis(run)
  plan = run.config.get("train", {})  # not that of on_start: a run may grow
  step = max((row["step"] for row in run.rows), default=0)
  total = plan.get("num_steps") or plan.get("num_epochs", 0) * (number(start.get("steps_per_epoch")) or 0)
  total = total or number(start.get("num_steps"))
  place = lambda step: f"{step / per_unit:,.6g}"
  ended = newest_event(run, "on_train_end")
  length = f"{place(step)} of {place(total)}" if total else place(step)
  if best_step:
    here = f", {'stopped ' * bool(ended)}at {length}"
    length = f"best {place(best_step)}{f' of {place(total)}' if total and step >= total else here}"
  seconds = reading.step_seconds(run)
  whole = "since it was resumed" if any(start.get("resume_step") for start in run.starts) else "in all"
  whole = f"{duration(number(ended['total_time_s']))} {whole}" if number(ended.get("total_time_s")) else ""
  speeds = [row["throughput"] for row in run.rows if row.get("throughput")]
  speed = f"{statistics.median(speeds):,.0f} rows/s" if speeds else ""
  entries = [(f"best {monitor}", fmt(value), f"{unit} {place(best_step)}" if best_step else "nothing evaluated yet"),
             (f"{unit}s", length, f"{step:,.0f} steps"),
             ("parameters", fmt(start.get("parameters")), f"seed {run.config.get('seed', '–')}"),
             ("time in steps", duration(seconds), " · ".join(part for part in (speed, whole) if part) or "not known")]
  shown = (tag("div", tag("span", name), tag("b", value), tag("span", note)) for name, value, note in entries)
  return tag("div", *shown, class_="tiles")


def header(run: RunData) -> list[Html]:
  """What ran and how it ended, its key results, what to look at, and what training was."""
  word, color, sentence = status(run)
  argv = [str(part).lstrip("-") for part in run.process.get("argv", ())]
  names = [run.config.get("experiment", "")] + [part[len("config="):] for part in argv if part.startswith("config=")]
  return [tag("h1", os.path.basename(os.path.abspath(run.folder))), tag("p", " · ".join(names), class_="soft"),
          tag("p", tag("span", word, class_=f"badge {color}"), sentence), *results.headline(run),
          *results.look_section(run), tag("h3", "Training"), tiles(run)]


def png_source(data: bytes) -> str:
  """The bytes of a picture as an address that holds them."""
  return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def stacked(run: RunData, drawn: list[tuple[str, str, str]]) -> dict[str, bytes]:
  """Pictures for narrow screens, with panels one below the other, of the families drawn that take `narrow`; where one
  fails, the page has the wide picture.
  """
  found, known = {}, figures.select(run.config, "end", asked=True)
  for name, _, _ in drawn:
    if "narrow" in inspect.signature(known[name]).parameters:
      with figures.attempted(run, name, "drawn for phones"):
        buffer = io.BytesIO()
        known[name](run, narrow=True).savefig(buffer, format="png", metadata={"Software": None})
        found[name] = buffer.getvalue()
  return found


def figures_section(drawn: list[tuple[str, str, str]], narrow: dict[str, bytes]) -> list[Html]:
  """The figures with their captions; a click or a tap shows one at full size. Narrow screens take those of `narrow`."""
  parts = []
  for family, path, caption in drawn:
    data = pathlib.Path(path).read_bytes()
    width = int.from_bytes(data[16:20], "big") * 4 // 5  # of what its header says: text is of one size in all
    wide = f"--w:{0 if width <= NARROW or family in narrow else width}px"  # else it scrolls sideways on a phone
    source = png_source(data)
    image = tag("img", src=source, width=str(width), style=wide, alt=f"{family}: {caption}")
    if family in narrow:
      image = tag("picture", tag("source", media="(max-width:40rem)", srcset=png_source(narrow[family])), image)
    image = tag("label", tag("input", type="checkbox", aria_label=f"{family} at full size"), image)
    parts.append(tag("figure", image, tag("figcaption", tag("b", family.replace("_", " ")), ". ", caption)))
  return parts or [tag("p", "None were drawn.")]


def data_section(run: RunData) -> list[Html]:
  """Rows per part, facts of the table, scaling of each feature, classes."""
  meta = run.meta
  facts, scaler, names = meta.get("table", {}), meta.get("scaler", {}), meta.get("class_names", ())
  source = str(facts.get("source") or run.config.get("data", {}).get("source", "not known"))
  warning = "Synthetic data: generated by jaxtrain, not measured. No result here is a finding about the world."
  parts = [tag("p", warning, class_="warn")] if source.startswith(("synthetic", "simulated")) else []
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
  parts += [tag("p", "Note: ", words, class_="warn") for words in quality.data_warnings(meta)]
  pairs = counted(names, facts.get("class_rows")) or [(str(name), "") for name in names]
  classes = ", ".join(f"{name} {n}".strip() for name, n in pairs)
  return parts + [tag("details", tag("summary", "Classes and their rows"), tag("p", classes))] * bool(names)


def counted(names: Any, counts: Any) -> list[tuple[str, str]]:
  """Names with their counts as text; [] where a run did not note one count for each."""
  if not isinstance(names, (list, tuple)) or not isinstance(counts, list) or len(names) != len(counts):
    return []
  return [(str(name), fmt(n)) for name, n in zip(names, counts)]


def config_section(run: RunData) -> list[Html]:
  """Changed values with their origin, then every field, each with what it means where that is known."""
  flat, origins = dict(flatten(run.config)), run.origins
  said = meanings.explain([*flat, *origins], meanings.of_run(run.process))
  field = lambda key: tag("td", key, *([tag("small", said[key])] if key in said else []))
  changed = [(field(key), exact(flat.get(key)), origin) for key, origin in origins.items()]
  first = table(["changed field", "value", "set by"], changed, "text") if changed else tag("p", "As the file has it.")
  rows = [(field(key), exact(value)) for key, value in flat.items() if key not in origins]
  others = table(["field", "value"], rows, "text", most=len(rows))  # folded away already
  rest = f"The other {len(flat) - len(changed)} fields" if changed else f"All {len(flat)} fields"
  return [first, tag("details", tag("summary", rest), others)]


def repeated(argvs: list[list[str]], settings: list[str]) -> list[str]:
  """The command lines that do again what processes of a run did, in a new folder, in their order.

  Those of main lose their folder and stand behind the settings of the environment; one that went on with a run by its
  folder alone has the flags of the first before its own.
  """
  lines, before = [], []
  for argv in argvs:
    if argv and argv[0].replace(os.sep, "/").endswith("jaxtrain/main.py"):
      names = [part.lstrip("-").split("=")[0] for part in argv]
      keep = [argv[i] for i in range(1, len(argv)) if not {names[i], argv[i - 1].lstrip("-")} & {"workdir", "resume"}]
      keep = keep if "config" in names else [*before, *keep]
      before = before or keep
      lines.append(" ".join([*settings, "python -m jaxtrain.main", shlex.join(keep)]))
    elif argv:
      lines.append(f"python {shlex.join(argv)}")
  return list(dict.fromkeys(lines))


def time_table(run: RunData, drawing: float) -> Html:
  """What the time of the run's processes went into; `drawing` is what its figures took, in seconds."""
  total = lambda name: sum(number(start.get(name)) or 0.0 for start in run.starts)
  spent = lambda name: sum(number(start.get("seconds", {}).get(name)) or 0.0 for start in run.starts)
  compiling = total("compile_seconds")
  parts = {"reading data and setting up": max(total("setup_seconds") - compiling, 0.0), "compiling": compiling,
           "training steps": reading.step_seconds(run), "evaluation during training": spent("report"),
           "evaluation of the best state": spent("assess"), "saving": spent("save"), "drawing figures": drawing}
  parts = {name: seconds for name, seconds in parts.items() if seconds > 0}
  whole = sum(parts.values())
  share = lambda seconds: tag("td", f"{seconds / whole:.0%}", style=f"--v:{100 * seconds / whole:.1f}%")
  return table(["time of this run", "", "share"], [[name, duration(seconds), share(seconds)]
                                                   for name, seconds in parts.items()])


def environment_section(run: RunData, drawing: float) -> list[Html]:
  """What its time went into, where the run was made, its digest, and the commands that repeat it, in a new folder, from
  the same commit.
  """
  starts = [start for start in (run.process, run.process.get("latest", {})) if start]
  both = lambda key: " then ".join(dict.fromkeys(str(start[key]).strip("[]").replace("'", "") for start in starts
                                                 if start.get(key)))
  versions = run.process.get("versions", {}) | {"python": both("python")}
  digest = newest_event(run, "on_train_end").get("digest")
  rows = [("digest of the final state", digest and tag("code", f"sha256:{digest}")),
          ("folder", os.path.abspath(run.folder)), ("started", both("time")), ("commit", both("git_commit")),
          ("platform", both("platform")), ("CPUs", both("cpu_count")), ("devices", both("devices")),
          ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
          ("resumed at step", ", ".join(fmt(start["resume_step"]) for start in run.starts if start.get("resume_step")))]
  commit, _, changes = str(run.process.get("git_commit") or "").partition("+")
  lines = [f"git checkout {commit}{'  # and what was not committed' if changes else ''}"] * bool(commit)
  typed = lambda value: value if isinstance(value, str) else exact(value)
  settings = [f"{key.upper().replace('.', '__')}={shlex.quote(typed(dict(flatten(run.config)).get(key)))}"
              for key, origin in run.origins.items() if origin == "environment"]
  lines += repeated([[str(part) for part in start.get("argv", ())] for start in starts], settings)
  return [time_table(run, drawing), tag("h3", "Where it was made"),
          table(["", ""], [row for row in rows if row[1]], "text"), tag("h3", "Do it again"),
          tag("pre", "\n".join(lines) or "Not known: no run.json.")]


def stages_section(run: RunData, stages: list[tuple[RunData, list, dict]]) -> list[Html]:
  """Each stage's settings, key numbers and loss curves, with a link to its own page."""
  parts = []
  for stage, drawn, narrow in stages:
    name = os.path.basename(stage.folder)
    word, color, sentence = status(stage)
    settings = {str(k): given for k, given in enumerate(run.config.get("stages", ()))}.get(name, {})
    changes = ", ".join(f"{key} = {exact(value)}" for key, value in flatten(settings))
    parts += [tag("h3", f"Stage {name} ", tag("span", word, class_=f"badge {color}"), sentence),
              tag("p", changes, class_="soft"), tiles(stage), *figures_section(drawn[:1], narrow),
              tag("p", tag("a", f"Report of stage {name}", href=f"stages/{name}/report.html"))]
  return parts


def write_page(run: RunData, pictures: list[Html], configured: RunData, drawing: float) -> str:
  """Writes report.html into the run's folder and returns its path; `configured` has the config that the page shows."""
  sections = {"Figures" if configured is run else "Stages": pictures, "Metrics": results.metrics_section(run),
              "Data": data_section(run), "Configuration": config_section(configured),
              "Environment": environment_section(run, drawing)}
  parts = [tag("section", tag("h2", title), *content, id=title) for title, content in sections.items()]
  nav = tag("nav", *(tag("a", title, href=f"#{title}") for title in sections))
  name = os.path.basename(os.path.abspath(run.folder))
  return page.write(os.path.join(run.folder, "report.html"), name, [*header(run), nav, *parts])


def write_run(workdir: str, moment: str, asked: bool = False) -> str | None:
  """Draws a run's figures and writes its report, whose path it returns; with stages, one of each and one of all.

  At the moment `train` only curves are drawn, and no page. `asked`: figures are drawn even if the config asks for none.
  Raises UserError as `read_run` and `figures.select` do.
  """
  run, stages = reading.read_run(workdir), [reading.read_run(path) for path in records.stage_folders(workdir)]
  began = time.perf_counter()
  drawn = [(each, figures.draw(each, moment, asked)) for each in stages or [run]]
  if moment == "train":
    return None
  drawing = time.perf_counter() - began
  drawn = [(each, pictures, stacked(each, pictures)) for each, pictures in drawn]
  paths = [write_page(each, figures_section(pictures, narrow), each, drawing / len(drawn))
           for each, pictures, narrow in drawn]
  if not stages:
    return paths[0]
  note = f"the numbers above and under Metrics are of stage {os.path.basename(stages[-1].folder)}, the newest"
  last = reading.of_stage(run, stages[-1])._replace(folder=workdir, problems=[note, *run.problems])
  return write_page(last, stages_section(run, drawn), run, drawing)
