"""Figures of a run, drawn from its files alone: choosing families, drawing them, and those that all runs share.

A family is a function of `RunData` that returns a matplotlib Figure, or None where there is nothing to draw; its
docstring is the caption in the report. An experiment adds its own in `FAMILIES` of the module `figures` in its folder,
and those that only the preset `full` draws in `FULL_FAMILIES`.
Files that a killed run left short are read as far as they go. No JAX here, nor in anything that this module imports.
"""

import errno
import inspect
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
from jaxtrain.workdir import atomic, reading
from jaxtrain.workdir.reading import RunData

PRESETS = ("none", "minimal", "standard", "full")
SCHEDULES = ("beta", "temperature")  # metrics that a schedule sets
MAX_PANELS = 24
COLORS = {"train": "#1f6fb4", "val": "#d2580f", "test": "#0b8a62"}
INK, MUTED, FAINT = "#22262b", "#667079", "#e3e7eb"
STYLE = {"font.size": 8.5, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "text.color": INK,
         "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": "#9aa3ab",
         "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
         "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True, "lines.linewidth": 1.6,
         "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.formatter.useoffset": False,
         "legend.frameon": False, "figure.facecolor": "white", "axes.facecolor": "white", "savefig.dpi": 150}


def clip_text(text: Any, width: int) -> str:
  """Text for a figure: one line, no longer than `width` (the middle is left out), never read as mathematics."""
  text, tail = " ".join(str(text).split()), width // 3
  return (text if len(text) <= width else f"{text[:width - tail - 1]}…{text[-tail:]}").replace("$", r"\$")


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
  """A figure of so many inches with the Agg canvas; no global state."""
  return FigureCanvasAgg(Figure(figsize=(width, height), layout=layout)).figure


def draw_curves(ax, run: RunData, name: str) -> None:
  """A metric of train and val against time, the test value of the best state, and a line where that state was."""
  (label, per_unit), (monitor, value, best_step) = reading.time_axis(run), reading.best_of(run)
  unit = reading.description(reading.described(run), name).get("unit", "")
  found = {split: reading.curve(run, split, name) for split in ("train", "val")}
  for split, points in found.items():
    if points:
      ax.plot(*points, color=COLORS[split], label=split, marker="o" if len(points[1]) <= 30 else "", markersize=3)
  values = np.concatenate([points[1] for points in found.values() if points])
  if best_step is not None:
    at, shown = best_step / per_unit, "" if value is None else f" {value:.4g}"
    after = run.config.get("train", {}).get("monitor_from_epoch") or 0
    text = f"best {monitor}{shown} ({label} {at:,.6g}{f', compared after {after}' if 0 < after < at else ''})"
    ax.axvline(at, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=1, label=text)
    if test := reading.curve(run, "test", name):
      ax.plot(at, test[1][-1], "D", color=COLORS["test"], markersize=5, label="test, best state")
  end = max(row["step"] for row in run.rows) / per_unit
  ax.set(title=clip_text(name, 30), xlabel=label, ylabel=clip_text(unit, 20), xlim=(0, end * 1.02))
  ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
  low, middle, high = np.nanmin(values), np.nanmedian(values), np.nanmax(values)
  if low > 0 and high > 8 * middle:  # a fall or a spike that would flatten the rest
    ax.set(yscale="log", title=f"{clip_text(name, 24)} (log)")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0), numticks=9))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
  elif low > 0 and high - low < 1e-5 * high:  # constant but for rounding
    ax.set_ylim(0, 2 * high)


def draw_panels(run: RunData, mosaic: list[list[str]], width: float, height: float) -> Figure:
  """A panel of curves for each metric of a mosaic, and one legend above them."""
  figure = new_figure(width, height)
  axes = figure.subplot_mosaic(mosaic)
  for name, ax in axes.items():
    draw_curves(ax, run, name)
  handles = {label: handle for ax in axes.values() for handle, label in zip(*ax.get_legend_handles_labels())}
  figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, handlelength=1.8)
  return figure


def rows_of(names: list[str], columns: int) -> list[list[str]]:
  """Names in rows of so many, the last filled up with empty places."""
  return [(names[k:k + columns] + ["."] * columns)[:columns] for k in range(0, len(names), columns)]


def curve_names(run: RunData) -> tuple[list[str], list[str]]:
  """Metrics with a finite value in train or val: the loss and its weighted terms, and the others."""
  columns = dict.fromkeys(name[len("metric_"):] for row in run.rows for name in row if name.startswith("metric_"))
  there = [name for name in {"loss": None} | columns
           if any(reading.curve(run, split, name) for split in ("train", "val"))]
  terms = [name for name in ("loss", *run.config.get("loss", {}).get("weights", {})) if name in there]
  return terms, [name for name in there if name not in terms and name not in SCHEDULES]


def losses(run: RunData) -> Figure | None:
  """Look for a validation loss that flattens or turns up while training still falls: from there on the model only
  memorises. Training is measured as it trains, with any masking and dropout, and validation without, so their levels
  differ. The small panels are the terms of the loss before weighting.
  """
  names = curve_names(run)[0]
  big, terms = names[:1] * 2, names[1:MAX_PANELS]
  mosaic = [big + [term] * 2 for term in terms] or [big]
  if len(terms) > 2:
    mosaic = [big + pair for pair in rows_of(terms[:4], 2)] + rows_of(terms[4:], 4)
  return draw_panels(run, mosaic, 9 if terms else 6, 0.5 + 2 * max(2, len(mosaic))) if names else None


def metrics(run: RunData) -> Figure | None:
  """Look for metrics that stop improving before the loss does, and for a gap between training and validation."""
  names = curve_names(run)[1][:MAX_PANELS]
  height = 0.5 + 2.1 * -(-len(names) // 3)
  return draw_panels(run, rows_of(names, min(3, len(names))), 9 if names[1:] else 5, height) if names else None


def learning_rate(run: RunData) -> Figure | None:
  """Look for a learning rate cut too early, and for a gradient norm that grows or jumps: the loss is unstable there."""
  names = [name for name in ("lr", *SCHEDULES, "grad_norm") if reading.curve(run, "train", name)]
  figure = draw_panels(run, [names], 3 * max(len(names), 1.7), 2.6) if names else None
  clip = jsonable.number(run.config.get("optim", {}).get("clip_norm"))
  if names[-1:] == ["grad_norm"] and clip:
    figure.axes[-1].axhline(clip, color=INK, linewidth=0.9, linestyle=":")
    figure.axes[-1].set_title(f"grad_norm, clipped at {clip:g} (dotted)")
  return figure


FAMILIES = {"losses": losses, "metrics": metrics, "learning_rate": learning_rate}


def experiment_families(experiment: str, attribute: str = "FAMILIES") -> dict[str, Callable[[RunData], Figure | None]]:
  """`FAMILIES` or `FULL_FAMILIES` of the module beside an experiment; only modules of ours are imported, because a run
  folder is data.
  """
  module = modules.load_companion(experiment, "figures")
  return dict(getattr(module, attribute, {}))


def select(config: dict, moment: str) -> dict[str, Callable[[RunData], Figure | None]]:
  """The families that a config asks for, during training only curves. Raises UserError for names not known."""
  log = config.get("log", {})
  preset, names = log.get("figures", "standard"), log.get("families", ())
  if preset not in PRESETS:
    raise UserError(f"config.log.figures: got {preset!r}, allowed {' | '.join(PRESETS)}")
  experiment = config.get("experiment", "")
  standard = FAMILIES | experiment_families(experiment)
  known = standard | experiment_families(experiment, "FULL_FAMILIES")
  for name in names:
    if name not in known:
      raise UserError(f"config.log.families: got {name!r}, allowed {', '.join(known)}")
  chosen = () if preset == "none" else names or {"minimal": ("losses",), "standard": standard, "full": known}[preset]
  return {name: known[name] for name in chosen if moment != "train" or name in FAMILIES}


def draw(run: RunData, moment: str) -> list[tuple[str, str, str]]:
  """Draws a run's families into figures/<family>-<moment>-<when>.png; returns (family, path, caption) of each.

  One that fails is noted in `run.problems` and on stderr, and the others go on. Raises UserError as `select` does.
  """
  epoch, step = (int(run.rows[-1][name]) for name in ("epoch", "step")) if run.rows else (None, None)
  when = "eNA" if epoch is None else f"e{epoch:03d}" if epoch >= 0 else f"s{step:06d}"
  drawn = []
  for name, family in select(run.config, moment).items():
    path = os.path.join(run.folder, "figures", f"{name}-{moment}-{when}.png")
    try:
      with matplotlib.rc_context(STYLE), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that a font lacks and the like are no reason to lose a figure
        figure = family(run)
        if figure is not None:
          if not os.path.isdir(os.path.dirname(path)):
            os.mkdir(os.path.dirname(path))  # a run that is gone stays so
          with atomic.replacing(path) as fresh:
            figure.savefig(fresh, format="png", metadata={"Software": None})
          drawn.append((name, path, " ".join((inspect.getdoc(family) or "").split())))
    except Exception as error:
      if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise  # nor is there room for the others
      # whatever else it is, the other figures and the report still come
      run.problems.append(f"figure {name} was not drawn: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
      streams.say(f"jaxtrain: {run.problems[-1]}", error=True)
  return drawn
