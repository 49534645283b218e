"""Figures of a run, drawn from its files alone: choosing families, drawing them, and those that all runs share.

A family is a function of `RunData` that returns a matplotlib Figure, or None where there is nothing to draw; its
docstring is the caption in the report, unless the figure has a label (`set_label`) that speaks of what is there. One
that takes `narrow` draws its panels one below the other where that is True, for phones. An experiment adds its own in
`FAMILIES` of the module `figures` in its folder, and those that only the preset `full` draws in `FULL_FAMILIES`.
Files that a killed run left short are read as far as they go. No JAX here, nor in anything that this module imports.
"""

import contextlib
import errno
import os
import warnings
from typing import Any, Callable

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from jaxtrain import jsonable, streams
from jaxtrain.config import modules
from jaxtrain.errors import UserError
from jaxtrain.report import pictures
from jaxtrain.report.names import words, words_of
from jaxtrain.workdir import atomic, reading
from jaxtrain.workdir.reading import RunData

PRESETS = ("none", "minimal", "standard", "full")
SCHEDULES = ("beta", "temperature")  # metrics that a schedule sets
MAX_PANELS = 24
COLORS = {"train": "#1f6fb4", "val": "#d2580f", "test": "#0b8a62"}
LEGEND = {"train": "training", "val": "validation"}
# Ten hues that stay apart for most kinds of colour blindness
HUES = ("#1f6fb4", "#d2580f", "#0b8a62", "#c9468f", "#e3ac00", "#58b7e6", "#6b4fb3", "#8c5a2b", "#8fae1b", "#7a8796")
INK, MUTED, GREY, FAINT = "#22262b", "#667079", "#c3c9cf", "#e3e7eb"
RC_PARAMS = {"font.size": 8.5, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "text.color": INK,
             "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": "#9aa3ab",
             "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True, "lines.linewidth": 1.6,
             "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.formatter.useoffset": False,
             "legend.frameon": False, "figure.facecolor": "white", "axes.facecolor": "white", "savefig.dpi": 150}


@contextlib.contextmanager
def styled():
  """The style of all figures; glyphs that a font lacks and the like are no reason to lose one."""
  with matplotlib.rc_context(RC_PARAMS), np.errstate(all="ignore"), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield


@contextlib.contextmanager
def attempted(run: RunData, figure: str, how: str = "drawn"):
  """What draws a figure of a run: a failure is noted and said, and what comes after goes on, but for a full disk."""
  try:
    with styled():
      yield
  except Exception as error:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise
    run.problems.append(f"figure {figure} was not {how}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    streams.say(f"jaxtrain: {run.problems[-1]}", error=True)


def clip_text(text: Any, width: int) -> str:
  """Text for a figure: one line, no longer than `width` (the middle is left out), never read as mathematics."""
  text, tail = " ".join(str(text).split()), width // 3
  return (text if len(text) <= width else f"{text[:width - tail - 1]}…{text[-tail:]}").replace("$", r"\$")


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
  """A figure of so many inches with the Agg canvas; no global state."""
  return FigureCanvasAgg(Figure(figsize=(width, height), layout=layout)).figure


def axis_label(run: RunData, name: str) -> str:
  """The name of a metric in words with its unit."""
  unit = reading.description(reading.described(run), name).get("unit", "")
  return clip_text(words_of(run, name), 28) + (f"\n({clip_text(unit, 28)})" if unit else "")


def annealed(run: RunData) -> tuple[float, str] | None:
  """From when on no schedule of the loss changes, and that in words; None where none does."""
  for name in SCHEDULES:
    points = reading.curve(run, "train", name)
    changing = np.flatnonzero(points[1] != points[1][-1]) if points else []
    if len(changing):
      end = float(points[0][min(changing[-1] + 1, len(points[0]) - 1)])
      return end, f"{name} changes before {reading.time_axis(run)[0]} {end:,.6g}"
  return None


def set_scale(ax, series: list[np.ndarray]) -> None:
  """The y axis of some curves: logarithmic for falls and spikes, and not stretched by the first tenth of a curve."""
  values = np.concatenate(series)
  later = np.concatenate([one[len(one) // 10:] for one in series])
  later = later if np.isfinite(later).any() else values
  low, middle, high = np.nanmin(later), np.nanmedian(later), np.nanmax(later)
  if np.nanmin(values) > 0 and high > 8 * middle:
    set_log(ax, np.nanmin(values), np.nanmax(values))
  elif low > 0 and high - low < 1e-5 * high:  # constant but for rounding
    ax.set_ylim(0, 2 * high)
  elif max(np.nanmax(values) - high, low - np.nanmin(values)) > 0.5 * (high - low):
    room = 0.08 * (high - low)
    ax.set_ylim(low - room, high + room)
    ax.annotate(f"starts at {next(v for v in series[0] if np.isfinite(v)):.3g}", (0.0, 1.01), xycoords="axes fraction",
                ha="left", va="bottom", fontsize=7, color=MUTED)  # between the axes and the title


def set_log(ax, low: float, high: float) -> None:
  """A logarithmic y axis with ticks that can be read."""
  ax.set_yscale("log")
  ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0), numticks=9))
  ax.yaxis.set_minor_locator(NullLocator())
  ax.yaxis.set_major_formatter("{x:g}")


def draw_curves(ax, run: RunData, name: str) -> None:
  """A metric of train and val against time, the test value of the best state, and a line where that state was."""
  (label, per_unit), (monitor, value, best_step) = reading.time_axis(run), reading.best_of(run)
  found = {split: points for split in ("train", "val") if (points := reading.curve(run, split, name))}
  for split, points in found.items():
    ax.plot(*points, color=COLORS[split], label=LEGEND[split], marker="o" if len(points[1]) <= 30 else "", markersize=3)
  if best_step is not None:
    at, shown = best_step / per_unit, "" if value is None else f" {value:.4g}"
    after = run.config.get("train", {}).get("monitor_from_epoch") or 0
    since = f", compared from {after + 1:,.6g}" if 0 < after < at else ""
    text = f"best {words(monitor)}{shown} ({label} {at:,.6g}{since})"
    ax.axvline(at, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=1, label=text)
    if test := reading.curve(run, "test", name):
      ax.plot(at, test[1][-1], "D", color=COLORS["test"], markersize=5, label="test, best state")
  set_scale(ax, [points[1] for points in found.values()])
  finish_axis(ax, run, words_of(run, name), axis_label(run, name))


def finish_axis(ax, run: RunData, title: str, label: str) -> None:
  """Title, labels and the time axis of a panel of curves."""
  unit, per_unit = reading.time_axis(run)
  ax.set_title(clip_text(title, 28) + " (log)" * (ax.get_yscale() == "log"), pad=15 if ax.texts else None)
  ax.set(xlabel=unit, ylabel=label, xlim=(0, max(row["step"] for row in run.rows) / per_unit * 1.02))
  ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))


def draw_terms(ax, run: RunData, names: list[str]) -> None:
  """The terms of the loss in one panel: a colour each, solid in training and dashed in validation."""
  series = []
  for hue, name in zip(HUES, names):
    for split, style in (("train", "-"), ("val", (0, (3, 1.5)))):
      if points := reading.curve(run, split, name):
        text = words_of(run, name) if name not in [line.get_gid() for line in ax.get_lines()] else None
        ax.plot(*points, color=hue, linestyle=style, linewidth=1.3, label=text, gid=name)
        series.append(points[1])
  values = np.concatenate(series)
  middles = [np.nanmedian(np.abs(one)) for one in series]
  if np.nanmin(values) > 0 and max(middles) > 20 * min(middles):
    set_log(ax, np.nanmin(values), np.nanmax(values))
  else:
    set_scale(ax, series)
  units = {reading.description(reading.described(run), name).get("unit", "") for name in names}
  finish_axis(ax, run, "terms, before weighting", clip_text(units.pop(), 30) if len(units) == 1 else "each in its unit")
  ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6)


def draw_panels(run: RunData, mosaic: list[list[str]], width: float, height: float, narrow: bool,
                drawing: Callable[[Any, RunData, str], None] = draw_curves) -> Figure:
  """A panel of curves for each metric of a mosaic, and one legend above them; `narrow`: one below the other."""
  if narrow:
    mosaic = [[name] for row in mosaic for name in row if name != "."]
    width, height = 4.2, 0.9 + 2.3 * len(mosaic)
  figure = new_figure(width, height)
  axes = figure.subplot_mosaic(mosaic)
  for name, ax in axes.items():
    drawing(ax, run, name)
  handles = {label: handle for ax in axes.values() for handle, label in zip(*ax.get_legend_handles_labels())
             if ax.get_legend() is None}
  columns = 1 if narrow else 4 if len(mosaic[0]) > 1 else 2  # one panel is not as wide as four labels
  figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=columns, handlelength=1.8)
  return figure


def rows_of(names: list[str], columns: int) -> list[list[str]]:
  """Names in rows of so many, the last filled up with empty places."""
  return [(names[k:k + columns] + ["."] * columns)[:columns] for k in range(0, len(names), columns)]


def curve_names(run: RunData) -> tuple[list[str], list[str]]:
  """Metrics with a finite value in train or val: the loss and its weighted terms, and the others."""
  there = [name for name in reading.metric_names(run)
           if any(reading.curve(run, split, name) for split in ("train", "val"))]
  terms = [name for name in ("loss", *run.config.get("loss", {}).get("weights", {})) if name in there]
  return terms, [name for name in there if name not in terms and name not in SCHEDULES]


def worth_drawing(run: RunData, names: list[str], beside: list[str]) -> tuple[list[str], list[str]]:
  """Metrics that say something of their own, and what was left out in words.

  Left out are those that do not change, and those in proportion to one of them or of `beside`.
  """
  kept, left = [], []
  for name in names:
    curves = [reading.curve(run, split, name) for split in ("train", "val")]
    values = np.concatenate([points[1] for points in curves if points])
    if all(points is None or len(points[1]) > 1 and np.ptp(points[1]) == 0 for points in curves):
      left.append(f"{words_of(run, name)} ({values[0]:.4g} throughout)")
    elif same := next((other for other in (*beside, *kept) if in_proportion(run, name, other)), None):
      left.append(f"{words_of(run, name)} (in proportion to {words_of(run, same)})")
    else:
      kept.append(name)
  return kept, left


def in_proportion(run: RunData, name: str, other: str) -> bool:
  """Whether a metric is a multiple of another wherever either has a value, and there are some of both."""
  pairs = [(reading.curve(run, split, name), reading.curve(run, split, other)) for split in ("train", "val")]
  if any((one is None) != (two is None) or one and len(one[1]) != len(two[1]) for one, two in pairs):
    return False
  one, two = (np.concatenate([pair[k][1] for pair in pairs if pair[k]]) for k in (0, 1))
  if len(one) < 3 or not np.isfinite([one, two]).all() or not np.all(two):
    return False
  return bool(np.ptp(one / two) < 1e-4 * np.abs(one / two).max())


def losses(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a loss that no longer falls."""
  names = curve_names(run)[0]
  if not names:
    return None
  terms = worth_drawing(run, names[1:], names[:1])[0][:len(HUES)]
  drawing = lambda ax, run, name: draw_terms(ax, run, terms) if name == "terms" else draw_curves(ax, run, name)
  figure = draw_panels(run, [names[:1] + ["terms"] * bool(terms)], 9 if terms else 6, 3.6, narrow, drawing)
  validated, shade = reading.curve(run, "val", names[0]), annealed(run)
  text = ("Look for a validation loss that flattens or turns up while training still falls: from there on the model "
          "only memorises. Training is measured as it trains, with any masking and dropout, and validation without, so "
          "their levels differ." if validated else
          "Look for a loss that still falls at the end: longer training would help. There is no validation loss, so "
          "these curves cannot tell learning from memorising.")
  text += " The terms of the loss are in one panel" * bool(terms)
  text += ", solid in training and dashed in validation." if terms and validated else "." * bool(terms)
  if shade:
    for ax in figure.axes:
      ax.axvspan(0, shade[0], color=FAINT, alpha=0.6, zorder=0, linewidth=0)
      ax.annotate(shade[1], (0, 0), xycoords="axes fraction", xytext=(3, 3), textcoords="offset points", fontsize=6.5,
                  color=MUTED, bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.6})
    text += f" In the shaded part {shade[1].partition(' ')[0]} changes: training losses there are of other objectives."
  figure.set_label(text)
  return figure


def metrics(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for metrics that stop improving before the loss does."""
  terms, names = curve_names(run)
  names, left = worth_drawing(run, names, terms)
  names, more = names[:MAX_PANELS], names[MAX_PANELS:]
  if not names:
    return None
  height = 0.5 + 2.1 * -(-len(names) // 3)
  figure = draw_panels(run, rows_of(names, min(3, len(names))), min(9, 1.6 + 3.2 * len(names)), height,
                       narrow)
  gap = any(reading.curve(run, "val", name) and reading.curve(run, "train", name) for name in names)
  left += [f"{len(more)} more"] * bool(more)
  figure.set_label("Look for metrics that stop improving before the loss does" + ", and for a gap between training and "
                   "validation" * gap + "." + f" Not drawn: {', '.join(left)}." * bool(left))
  return figure


def learning_rate(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a learning rate cut too early, and for a gradient norm that grows or jumps: the loss is unstable there."""
  there = [name for name in ("lr", *SCHEDULES, "grad_norm") if reading.curve(run, "train", name)]
  names, left = worth_drawing(run, there, [])
  if not names:
    return None
  figure = draw_panels(run, [names], 3 * max(len(names), 1.7), 2.6, narrow)
  by_name = dict(zip(names, figure.axes))
  rate = reading.curve(run, "train", "lr")
  if "lr" in names and np.nanmin(rate[1]) > 0:
    set_log(by_name["lr"], np.nanmin(rate[1]), np.nanmax(rate[1]))
    by_name["lr"].set_title("learning rate (log)")
  clip = jsonable.number(run.config.get("optim", {}).get("clip_norm"))
  if "grad_norm" in names and clip:
    low, high = by_name["grad_norm"].get_ylim()
    dotted = "dotted: " if low <= clip <= high else ""
    if dotted:
      by_name["grad_norm"].axhline(clip, color=INK, linewidth=0.9, linestyle=":")
    by_name["grad_norm"].set_ylabel(f"gradient norm\n({dotted}clipped at {clip:g})")
  texts = {"lr": "a learning rate cut too early", "grad_norm": "a gradient norm that grows or jumps, because the loss "
           "is unstable there", "beta": "a weight that rises too fast for the other terms to follow"}
  figure.set_label("Look for " + ", and for ".join(texts[name] for name in names if name in texts) + "." +
                   f" Not drawn: {', '.join(left)}." * bool(left))
  return figure


FAMILIES = {"losses": losses, "metrics": metrics, "learning_rate": learning_rate}


def experiment_families(experiment: str, attribute: str = "FAMILIES") -> dict[str, Callable[[RunData], Any]]:
  """`FAMILIES`, `FULL_FAMILIES`, `FINDINGS` (sentences for the head of the page) or `COMPARISONS` (figures of several
  runs, see `comparisons`) of the module beside an experiment; only modules of ours are imported: a run folder is data.
  """
  module = modules.load_companion(experiment, "figures")
  return dict(getattr(module, attribute, {}))


def select(config: dict, moment: str, asked: bool = False) -> dict[str, Callable[[RunData], Figure | None]]:
  """The families that a config asks for, during training only curves; `asked`: the standard ones if it asks for none.

  Raises UserError for names not known.
  """
  log = config.get("log", {})
  preset, names = log.get("figures", "standard"), log.get("families", ())
  if preset not in PRESETS:
    raise UserError(f"config.log.figures: got {preset!r}, allowed {' | '.join(PRESETS)}")
  experiment = config.get("experiment", "")
  preset = "standard" if asked and preset == "none" else preset
  standard = FAMILIES | experiment_families(experiment)
  known = standard | experiment_families(experiment, "FULL_FAMILIES")
  for name in names:
    if name not in known:
      raise UserError(f"config.log.families: got {name!r}, allowed {', '.join(known)}")
  chosen = () if preset == "none" else names or {"minimal": ("losses",), "standard": standard, "full": known}[preset]
  return {name: known[name] for name in chosen if moment != "train" or name in FAMILIES}


def draw(run: RunData, moment: str, asked: bool = False) -> list[tuple[str, str, str]]:
  """Draws a run's families into figures/<family>-<moment>-<when>.png; returns (family, path, caption) of each.

  One that fails is noted in `run.problems` and on stderr, and the others go on. Raises UserError as `select` does.
  """
  epoch, step = (int(run.rows[-1][name]) for name in ("epoch", "step")) if run.rows else (None, None)
  when = "eNA" if epoch is None else f"e{epoch:03d}" if epoch >= 0 else f"s{step:06d}"
  drawn = []
  for name, family in select(run.config, moment, asked).items():
    path = os.path.join(run.folder, "figures", f"{name}-{moment}-{when}.png")
    with attempted(run, name):
      figure = family(run)
      if figure is not None:
        if not os.path.isdir(os.path.dirname(path)):
          os.mkdir(os.path.dirname(path))  # a run that is gone stays so
        with atomic.replacing(path) as fresh:
          figure.savefig(fresh, format="png", metadata={"Software": None})
        if moment == "end":  # those of a run that has gone on are of an older state
          pictures.remove_older(path, f"{name}-{moment}-")
        drawn.append((name, path, pictures.caption_of(family, figure)))
  return drawn
