"""Page that compares runs: table, curves, fields against metrics, groups of seeds with tests, made from files alone.

The page holds its data as JSON and draws it with one script, that of SCRIPTS; what needs no script (the conclusion, the
table of runs) stands in the HTML. Text of runs is escaped as in all pages, and the script sets text, never HTML.
"""

import math
import os
import pathlib
import urllib.parse
from typing import Any, Iterable, NamedTuple

import numpy as np

from jaxtrain import statistics
from jaxtrain.report import collection, comparisons, figures, judging, page, sweep_notes
from jaxtrain.report.collection import Fields, Member
from jaxtrain.report.page import Html, fmt, table, tag
from jaxtrain.workdir import journal

MAX_ALL_PAIRS = 40  # groups up to which each can be the reference
CURVE_POINTS = 300_000  # of all curves together: about 2 MB
MIN_POINTS, MAX_POINTS = 40, 200  # of one curve
SCRIPTS = ("plots.js", "scatter.js", "comparison.js")  # beside this file, run as one
BADGES = {"done": "good", "incomplete": "warn", "failed": "bad", "pending": "soft"}
MAX_COLUMNS = 6  # metrics in the table of runs; the others stand in a second one
DATA = ("data.source", "data.path", "data.table", "data.features", "data.row_limit")  # fields that say which data
CSS = """
main{max-width:88rem}.runs td,.runs th{height:2.5rem}.scroll:has(.runs){max-height:calc(2.5rem*21 + 2px)}
.controls{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:end;margin:.7rem 0}.controls label{display:flex;
gap:.1rem;flex-direction:column;font-size:.82rem;color:var(--soft);max-width:100%}.controls .check{flex-direction:row;
gap:.4rem;align-items:center;padding:.35rem 0}select,.controls input,.controls button,.legend button{font:inherit;
font-size:.9rem;color:var(--ink);background:var(--card);border:1px solid var(--line);border-radius:.4rem;
padding:.3rem .5rem;max-width:100%}.legend{display:flex;flex-wrap:wrap;gap:.35rem;max-height:8.6rem;overflow:auto;
margin:.6rem 0}.legend button{font-size:.8rem;padding:.1rem .5rem;cursor:pointer;text-align:left;
overflow-wrap:anywhere}.legend button[aria-pressed=false]{opacity:.4}.legend i,.ramp i{display:inline-block;
width:.75rem;height:.75rem;border-radius:.2rem;margin-right:.35rem;vertical-align:-.06rem}.controls button{
cursor:pointer}.plot{background:var(--card);border:1px solid var(--line);border-radius:.6rem;overflow-x:auto}
.plot svg{display:block;touch-action:pan-x pan-y}svg text{fill:var(--soft);font-size:12px}svg .name{fill:var(--ink);
font-weight:600}svg .cell{font-size:11px}svg .grid{stroke:var(--line)}svg path{fill:none}th button{all:unset;
cursor:pointer}th button:hover{color:var(--ink)}th button::after{content:"↕";opacity:.35;margin-left:.3rem}
th[aria-sort=ascending] button::after{content:"↑";opacity:1}th[aria-sort=descending] button::after{content:"↓";
opacity:1}:focus-visible{outline:2px solid var(--link);outline-offset:1px}#tip{position:fixed;z-index:9;
pointer-events:none;max-width:min(22rem,90vw);background:var(--ink);color:var(--page);border-radius:.4rem;
font-size:.82rem;line-height:1.4;padding:.35rem .6rem;white-space:pre-line;overflow-wrap:anywhere}[hidden]{
display:none!important}.sum{max-width:60rem;font-size:1.05rem}td .badge{margin:0}.badge{display:inline-block;
white-space:nowrap}.runs th{white-space:nowrap}
.runs td:first-child>*{display:block;max-width:min(15rem,38vw);overflow:hidden;text-overflow:ellipsis;
white-space:nowrap}.groups td:first-child,.groups td:nth-child(2){white-space:normal;text-align:left;
min-width:min(10rem,52vw);max-width:22rem;overflow-wrap:break-word}.groups th,.groups td,.runs th,.runs td{
padding:.36rem .5rem;font-size:.86rem}
.groups th:nth-child(2){text-align:left}"""


class Compared(NamedTuple):
  """A metric over groups: its name, direction and that in words, values of runs, moments and interval of each group
  [G], the best group, and `pairs` against `references`.
  """
  name: str
  higher: bool
  words: str
  values: list[float]
  count: np.ndarray
  mean: np.ndarray
  deviation: np.ndarray
  low: np.ndarray
  high: np.ndarray
  best: int | None
  references: list[int]
  pairs: statistics.Pairs


def compare_metric(name: str, members: list[Member], groups: list[list[int]], ranks: bool = True) -> Compared:
  """Compares the groups by a metric: with each other where they are few, else with the best; not at all unless `ranks`.
  """
  values, (higher, words) = collection.matrix(members, groups, name), collection.direction(name, members)
  best = statistics.best_group(values, higher) if ranks else None
  references = [] if best is None else [best]
  if ranks and len(groups) <= MAX_ALL_PAIRS:
    references = list(range(len(groups)))
  words = words if ranks else "values of different settings do not compare"
  limits = collection.description(name, members).get("limits") or (-math.inf, math.inf)
  return Compared(name, higher, words, [member.metrics.get(name, math.nan) for member in members],
                  *statistics.moments(values), *np.clip(statistics.mean_intervals(values), *limits), best, references,
                  statistics.against(values, references, higher))


def numbers(values: Iterable[float], digits: int = 6) -> list[float | None]:
  """Finite values with so many significant digits, None for others."""
  return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in map(float, values)]


def metric_record(compared: Compared, members: list[Member]) -> dict[str, Any]:
  """JSON of a metric: values by run, [n, mean, deviation, low, high] by group, and by reference and group [shared,
  difference, low, high, p, verdict, more].
  """
  pairs = compared.pairs._replace(more=np.minimum(compared.pairs.more, statistics.MAX_REPLICATES + 1))
  by_group = zip(compared.count, compared.mean, compared.deviation, compared.low, compared.high)
  lost = sum(member.is_final and not math.isfinite(value) for member, value in zip(members, compared.values))
  return {"name": compared.name, "higher": compared.higher, "words": compared.words, "best": compared.best,
          "values": numbers(compared.values), "groups": [numbers(row) for row in by_group], "lost": lost,
          "pairs": {reference: [numbers(row, 4) for row in zip(*(part[k] for part in pairs))]
                    for k, reference in enumerate(compared.references)}}


def curve_records(members: list[Member]) -> dict[str, Any]:
  """JSON of the curves, thinned: per split and metric the runs, the index of their positions, and their values."""
  found, positions = {}, {}
  in_epochs = all(member.steps_per_epoch for member in members if member.curves)
  limit = CURVE_POINTS // max(1, sum(len(member.curves) for member in members))
  limit = min(MAX_POINTS, max(MIN_POINTS, limit))
  for index, member in enumerate(members):
    for key, (steps, values) in member.curves.items():
      if np.isfinite(values).any():
        kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), limit)).round().astype(int))
        x = tuple(numbers(steps[kept] / (member.steps_per_epoch if in_epochs else 1)))
        found.setdefault(key, []).append((index, positions.setdefault(x, len(positions)), numbers(values[kept], 4)))
  curves = [{"split": split, "name": name, **dict(zip(("runs", "x", "y"), zip(*entries)))}
            for (split, name), entries in sorted(found.items(), key=lambda item: (item[0][1] != "loss", item[0][1]))]
  return {"unit": "epoch" if in_epochs else "step", "positions": list(positions), "curves": curves}


def color_records(members: list[Member], of_group: dict[int, int], num_groups: int) -> dict[str, Any]:
  """JSON of the colours, and which of them each group has: as in figures, which know groups that have begun alone."""
  begun = [of_group[index] for index, member in enumerate(members) if member.curves]
  order = list(dict.fromkeys([*begun, *range(num_groups)]))
  return {"hues": figures.HUES, "places": [order.index(g) % len(figures.HUES) for g in range(num_groups)]}


def field_records(members: list[Member], fields: Fields) -> list[dict[str, Any]]:
  """JSON of the fields that differ: their values by run, numbers where all are; `leads` for those that make groups."""
  found = []
  for key, name in fields.names.items():
    values = [collection.value_of(member, key) for member in members]
    numeric = all(type(value) in (int, float) and math.isfinite(value) for value in values if value is not None)
    shown = values if numeric else [None if value is None else collection.text_of(value) for value in values]
    found.append({"key": key, "name": name, "numeric": numeric, "leads": key in fields.leading, "values": shown})
  return found


def conclusion(compared: Compared, labels: list[str], word: str) -> str:
  """The best group by a metric and what became of the others, in one sentence."""
  name = f"{compared.name[5:]} in the best state" if compared.name.startswith("best ") else compared.name
  best, pairs = compared.best, compared.pairs
  if best is None:
    return f"No finished run has {name}."
  interval, n = "", int(compared.count[best])
  if not math.isnan(compared.low[best]):
    interval = f", 95 % interval {fmt(compared.low[best])} to {fmt(compared.high[best])}"
  found = f"{labels[best]} ({fmt(compared.mean[best])}{interval}, {n} {word}{'s' * (n != 1)})"
  few = (compared.count > 0) & (compared.count < statistics.MIN_SHARED)
  ahead = compared.mean > compared.mean[best] if compared.higher else compared.mean < compared.mean[best]
  name += f", among groups of at least {statistics.MIN_SHARED} {word}s" * bool((few & ahead).any())
  others = compared.count > 0
  others[best] = False
  if not others.any():
    return f"Mean {name}: {found}. There is no other group to compare with."
  row = compared.references.index(best)
  verdict, tested = pairs.verdict[row][others], ~np.isnan(pairs.p[row][others])
  counts = {"worse than the best": (verdict < 0).sum(), "better over what they share": (verdict > 0).sum(),
            "undecided against the best": (tested & (verdict == 0)).sum(),
            f"undecided for want of a test (it needs at least {statistics.MIN_SHARED} shared {word}s)": (~tested).sum()}
  told, num_others = {what: count for what, count in counts.items() if count}, others.sum()
  if len(told) > 1:
    each = (f"{count} {'is' if count == 1 else 'are'} {what}" for what, count in told.items())
    rest = f"Of the {num_others} other groups, {', '.join(each)}"
  else:
    who = {1: "The other group is", 2: "Both other groups are"}.get(int(num_others), f"All {num_others} others are")
    rest = f"{who} {next(iter(told))}"
  holds_0 = (pairs.low[row][others] < 0) & (pairs.high[row][others] > 0) & (verdict != 0)
  if holds_0.any():
    rest += (". One of these tests is a close call" if holds_0.sum() == 1 else ". Some of these tests are close calls")
    rest += ": the interval of its difference, which takes nothing for Normal, holds 0"
  return f"{'Highest' if compared.higher else 'Lowest'} mean {name}: {found}. {rest}."


def edges_of_grid(compared: Compared, members: list[Member], groups: list[list[int]], fields: Fields) -> list[str]:
  """Says of each field of numbers whether the best group has the smallest or the largest value that was tried. Of two
  values that is said only where some group differs from the best in this field alone.
  """
  found, by = [], "" if compared.name.startswith("best ") else f" by {compared.name}"
  for key in fields.leading if compared.best is not None else ():
    values = [collection.value_of(members[indices[0]], key) for indices in groups]
    if len(set(map(collection.identity, values))) < 2 or not all(type(value) in (int, float) for value in values):
      continue
    rest = [tuple(collection.identity(collection.value_of(members[indices[0]], other)) for other in fields.leading
                  if other != key) for indices in groups]
    if len(set(values)) == 2 and rest.count(rest[compared.best]) == 1:
      continue
    best = values[compared.best]
    for edge, word, more in ((min(values), "smallest", "smaller"), (max(values), "largest", "larger")):
      if best == edge:
        found.append(f"The best {fields.names[key]}{by}, {collection.text_of(best)}, is the {word} of the "
                     f"{len(set(values))} that were tried, so that {more} ones may be better still.")
  return found


def other_data(fields: Fields) -> list[str]:
  """Names of the fields in which the runs differ that say which data they are of."""
  return [fields.names[key] for key in (*fields.leading, *fields.following) if key.startswith(DATA)]


def header(title: str, members: list[Member], fields: Fields, said: list[str], judge: str) -> list[Html]:
  """What was compared, how the runs ended, the fields that vary, and the conclusion."""
  counts = {word: sum(member.status == word for member in members) for word in BADGES}
  badges = (tag("span", f"{count} {word}", class_=f"badge {BADGES[word]}") for word, count in counts.items() if count)
  lost = sum(not member.is_final for member in members)
  left = f"{lost} of {len(members)} runs have no final value and are left out of the comparison." if lost else ""
  count = lambda key: len({collection.identity(collection.value_of(member, key)) for member in members})
  shown = [f"{fields.names[key]} ({count(key)} values)" for key in (*fields.leading, *fields.replicates)]
  shown += [f"{len(fields.following)} more that follow from these"] if fields.following else []
  experiments = dict.fromkeys(str(member.fields.get("experiment", "")) for member in members)
  mixed = "Runs of several experiments: metrics of one name need not measure the same."
  sources = other_data(fields)
  apart = (f"The runs are of different data ({', '.join(sources)}): their metrics do not compare, so that no run is "
           "called the best.")
  objective = ", ".join(fields.names[key] for key in fields.objective)
  instead = (f"; settings are compared by {judge}" if judge else
             "; no other metric of held-out rows says which is best, so that none is called so") * (not sources)
  other = f"{objective} changes what the loss is: losses of different settings do not compare{instead}."
  return [tag("h1", title), tag("p", " · ".join(experiments), class_="soft"), tag("p", *badges, left),
          tag("p", f"Fields that vary: {', '.join(shown) or 'none'}."),
          *[tag("p", mixed, class_="warn")] * (len(experiments) > 1),
          *[tag("p", other, class_="warn")] * bool(objective), *[tag("p", apart, class_="warn")] * bool(sources),
          *sweep_notes.lengths(members), *sweep_notes.schedules(members),
          *(tag("p", sentence, class_="sum") for sentence in said),
          *sweep_notes.split(members, fields)]


def metric_name(name: str, members: list[Member]) -> Html | str:
  """The name of a metric, with what it means where its experiment says so."""
  meaning = collection.description(name, members).get("meaning")
  return tag("span", name, title=meaning) if meaning else name


def first_metrics(names: list[str], members: list[Member], judge: str) -> list[str]:
  """The metrics that have a column in the table of runs: what is monitored, what says which is best, the test loss, key
  results, time.
  """
  is_key = lambda name: bool(collection.description(name, members).get("key"))
  ranked = sorted(names, key=lambda name: (not name.startswith("best "), name != judge, name != "test_loss",
                                           name != collection.TIME, not is_key(name)))[:MAX_COLUMNS]
  return [name for name in names if name in ranked]


def member_name(member: Member, output: str) -> Html:
  """The name of a run, linked to its own page if there is one; of a member its number, as its fields stand beside."""
  target = os.path.join(member.folder, "report.html")
  link = urllib.parse.quote(os.fsencode(os.path.relpath(target, os.path.dirname(os.path.abspath(output)))))
  linked = {"href": link} if os.path.exists(target) else {}
  number, _, rest = member.name.partition("-")
  shown = number if number.isdigit() and "=" in rest else member.name
  return tag("a" if linked else "span", shown, title=member.name, **linked)


def pages_note(members: list[Member]) -> list[Html]:
  """How to make the pages of runs that have none."""
  has_page = lambda member: os.path.exists(os.path.join(member.folder, "report.html"))
  lack = [member for member in members if member.curves and not has_page(member)]
  if not lack:
    return []
  return [tag("p", f"{len(lack)} of {len(members)} runs have no page of their own yet. ", tag(
      "code", "python -m jaxtrain.report RUN"), " draws one with its figures; with ", tag("code", "--members"),
              " after the folder of a sweep it draws all, and links them here.", class_="note")]


def runs_table(members: list[Member], fields: Fields, metrics: list[str], judge: str, output: str) -> list[Html]:
  """A row per run, and reasons of those that are not done; `data-v` of a cell is what it sorts by."""
  def cell(value: Any, shown: str) -> Html:
    missing = value is None or isinstance(value, float) and math.isnan(value)
    return tag("td", shown, **({} if missing else {"data_v": str(value)}))

  rows, reasons, own = [], [], [*fields.leading, *fields.replicates]
  more, metrics = metrics, first_metrics(metrics, members, judge)
  more = [name for name in more if name not in metrics]
  for index, member in enumerate(members):
    name = member_name(member, output)
    badge = tag("span", member.status, class_=f"badge {BADGES[member.status]}")
    best_at = None if member.best_step is None else member.best_step / (member.steps_per_epoch or 1)
    given = {key: collection.value_of(member, key) for key in fields.names}
    row = [cell(given[key], collection.text_of(given[key])) for key in own]
    row += [cell(member.metrics.get(metric), fmt(member.metrics.get(metric))) for metric in metrics]
    row.insert(len(own) + 1, cell(best_at, "–" if best_at is None else f"{best_at:,.6g}"))
    row += [cell(given[key], collection.text_of(given[key])) for key in fields.following]
    rows.append([tag("td", name, data_v=str(index)), tag("td", badge, data_v=member.status), *row])
    reasons += [(member.name, member.status, member.reason)] if member.status != "done" else []
  names = lambda keys: [tag("span", fields.names[key], title=key) for key in keys]
  titled = [metric_name(name, members) for name in metrics]
  head = ["run", "status", *names(own), *titled[:1], "best at", *titled[1:], *names(fields.following)]
  many = tag("summary", f"Why {len(reasons)} of {len(members)} runs are not done")
  why = [tag("details", many, table(["run", "status", "reason"], reasons, "text"))] if reasons else []
  others = [[member_name(member, output), *(fmt(member.metrics.get(name)) for name in more)] for member in members]
  titles = ["run", *(metric_name(name, members) for name in more)]
  title = tag("summary", f"{len(more)} more metrics of each run")
  rest = [tag("details", title, table(titles, others))] if more else []
  return [table(head, rows, "runs", most=len(rows)), *pages_note(members), *rest, *why]


def write(paths: list[str], output: str, asked: bool = True) -> str:
  """Writes the page that compares all runs of run folders and sweep folders into the file `output`; returns its path.

  Unless `asked` for, figures of several runs are left out where all runs have `log.figures` none.
  Raises UserError for a path that is neither and where there is no run, and OSError where it cannot be written.
  """
  members = collection.gather(paths)
  fields, names = collection.varying(members), collection.metric_names(members)
  groups = collection.grouped(members, fields.leading)
  labels = collection.group_labels(members, groups, fields)
  word = "seed" if fields.replicates in ([], ["seed"]) else "replicate"
  ranks, judge = not other_data(fields), judging.judged_by(members, fields)
  metrics = [compare_metric(name, members, groups, ranks and judging.compares(name, fields)) for name in names]
  metrics = [compared for compared in metrics if np.isfinite(compared.values).any()]
  told = {judge, f"test_{judge.partition('_')[2]}"}
  heads = [compared for compared in metrics if judging.compares(compared.name, fields) and (
      compared.name.startswith("best ") or compared.name == "test_loss" or compared.name in told)]
  heads.sort(key=lambda compared: compared.name != judge)
  main = next((k for k, compared in enumerate(metrics) if compared.name == judge), 0)
  title = os.path.basename(os.path.abspath(paths[0])) if len(paths) == 1 else f"Comparison of {len(members)} runs"
  of_group = {index: g for g, indices in enumerate(groups) for index in indices}
  data = {"runs": [{"name": member.name, "status": member.status, "final": member.is_final, "group": of_group[index]}
                   for index, member in enumerate(members)],
          "groups": labels, "word": word, "main": main, "fields": field_records(members, fields),
          "metrics": [metric_record(compared, members) for compared in metrics], **curve_records(members),
          **color_records(members, of_group, len(groups)),
          "t": numbers(statistics.t_quantile(np.arange(1, 101)))}
  beside = os.path.realpath(os.path.dirname(output) or ".")
  own = len(paths) == 1 and journal.is_sweep(paths[0]) and beside == os.path.realpath(paths[0])
  if asked or comparisons.are_wanted(members):
    drawn = comparisons.draw(members, [labels[of_group[index]] for index in range(len(members))],
                             os.path.join(paths[0], "figures") if own else "")
  else:
    drawn = [tag("p", "None were drawn: log.figures is none. ", tag("code", "python -m jaxtrain.report"),
                 " with this folder draws them.")]
  sections = {
      "Groups": [tag("div", id="groups"), sweep_notes.method(word, len(groups), MAX_ALL_PAIRS)],
      **({"Figures": drawn} if drawn else {}),
      "Runs": runs_table(members, fields, [compared.name for compared in metrics], judge, output),
      "Curves": [tag("div", id="curves")], "Fields": [tag("div", id="fields")],
      "Parallel": [tag("div", id="parallel")]}
  titles = {"Groups": "Groups compared", "Fields": "Fields against metrics", "Parallel": "Parallel coordinates"}
  parts = [tag("section", tag("h2", titles.get(key, key)), *content) for key, content in sections.items()]
  said = [conclusion(compared, labels, word) for compared in heads[:3]] if ranks else []
  said += edges_of_grid(metrics[main], members, groups, fields) if metrics else []
  said += ["No run has come to its end yet."] * (not any(member.is_final for member in members))
  script = "".join(pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SCRIPTS)
  needs = tag("noscript", tag("p", "Groups, curves and plots are drawn by the script of this page, which is off."))
  extra = [tag("svg", hidden=""), tag("div", id="tip", hidden="")]
  top = header(title, members, fields, said, judge)
  return page.write(output, title, [*top, needs, *parts, *extra], CSS, data, script)
