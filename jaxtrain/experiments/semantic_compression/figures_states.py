"""Figures of single states and of symbols: what comes back, which slot carries which feature, what probes read."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from jaxtrain.report.figures import COLORS, HUES, INK, clip_text, new_figure
from jaxtrain.report.panels import panel_grid
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

SHADE = LinearSegmentedColormap.from_list("lost", ["#ffffff", "#f6c59f", "#d2580f", "#5b2403"])
MAX_PANELS, MAX_SLOTS = 6, 40


def width_of(narrow: bool) -> float:
  """Inches of a figure of one panel: on paper, or for phones."""
  return 4.2 if narrow else 5.6


def numeric_columns(run: RunData) -> list[tuple[str, int]]:
  """(name, place in the vector) of the numeric columns of a run's states."""
  found, at = [], 0
  for column in run.meta["schema"]["columns"]:
    if column["kind"] in ("continuous", "integer"):
      found.append((column["name"], at))
    at += len(column["classes"]) if column["kind"] == "categorical" else 1
  return found


def states(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for dots off the diagonal: states whose number comes back wrong. Steps are those of the code, in shares of the
  range around its middle.
  """
  if not {"sample_x", "sample_r"} <= run.arrays.keys():
    return None
  shown = numeric_columns(run)[:MAX_PANELS]
  if not shown:
    return None
  figure, panels = panel_grid(len(shown), 1 if narrow else 3, 2.4, 2.3, (0.6, 0.6))
  for ax, (name, at) in zip(panels[:, 0], shown):
    x, r = run.arrays["sample_x"][:, at], run.arrays["sample_r"][:, at]
    low, high = min(x.min(), r.min()), max(x.max(), r.max())
    ax.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.plot(x, r, ".", color=COLORS["train"], markersize=2.5, alpha=0.6)
    ax.set(title=clip_text(name, 24), xlabel="original", ylabel="decoded")
  return figure


def drop(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for the slots that a feature hangs on: dark where it is lost when the slot's symbol is that of another
  state.
  """
  if "drop" not in run.arrays:
    return None
  lost = np.clip(run.arrays["drop"][:MAX_SLOTS], 0, None)
  scalars = reading.scalars(run.evals[run.split])
  slots = [name.partition("/")[2] for name in scalars if name.startswith("drop/")][:MAX_SLOTS]
  features = [feature["name"] for feature in run.meta["schema"]["features"]]
  figure = new_figure(4.2 if narrow else 1.9 + 0.34 * len(features), 1.5 + 0.24 * len(slots))
  ax = figure.subplots()
  image = ax.imshow(lost, cmap=SHADE, aspect="auto", vmin=0, vmax=max(float(lost.max()), 1e-6))
  ax.set_xticks(range(len(features)), [clip_text(name, 20) for name in features], rotation=60, ha="right",
                rotation_mode="anchor")
  ax.set_yticks(range(len(slots)), [clip_text(name, 22) for name in slots])
  ax.grid(visible=False)
  ax.set_ylabel("slot")
  beside = {"location": "top", "shrink": 0.9} if narrow else {"shrink": 0.8}
  figure.colorbar(image, ax=ax, label="similarity that is lost", **beside)
  return figure


def probes(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for features that probes cannot read from the symbols: their meaning is not in the code, or not in plain form.
  Numbers are judged by R2, others by the share that is right.
  """
  scalars = reading.scalars(run.evals[run.split]) if run.split else {}
  of = {kind: {name.partition("/")[2]: value for name, value in scalars.items()
               if name.startswith(f"probe_{kind}/") and value is not None} for kind in ("linear", "mlp")}
  names = list(of["linear"])
  if not names:
    return None
  figure = new_figure(width_of(narrow), 1.1 + 0.3 * len(names))
  ax = figure.subplots()
  for k, (kind, text) in enumerate((("linear", "linear model"), ("mlp", "network of 64 units"))):
    at = [place for place, name in enumerate(names) if name in of[kind]]
    values = [max(of[kind][names[place]], 0.0) for place in at]
    ax.barh(np.array(at) + 0.36 * k - 0.18, values, color=HUES[k], height=0.34, label=text)
  ax.set_yticks(range(len(names)), [clip_text(name, 26) for name in names])
  ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.02), xlabel="R2 of numbers,\nshare right of others")
  ax.grid(axis="y", visible=False)
  figure.legend(loc="outside upper left", ncols=2)
  return figure
