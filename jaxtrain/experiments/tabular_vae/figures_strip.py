"""A strip log: what a model says of a hole against depth, from a table that it has classified."""

import io

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from jaxtrain.report.figures import GREY, HUES, INK, MUTED, clip_text, new_figure, styled

OTHERS = "other classes"
UNUSUAL = 95  # percentile of novelty from which rows stand out
MIN_NAMED = 0.012  # share of the height from which a bed has its name beside it
PITCH = 0.02  # share of the height between two names


def png(log) -> bytes:
  """The strip log of a hole (`applied.StripLog`) as the bytes of a PNG file."""
  buffer = io.BytesIO()
  with styled():
    strip_log(log).savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def strip_log(log) -> Figure:
  """Look for beds where no class is likely, for true classes that differ from the most likely one, and for depths whose
  rows are unlike those of training (novelty near 100).
  """
  shown, colors = log.classes, dict(zip(log.classes, HUES))
  top, bottom = log.depth - log.step / 2, log.depth + log.step / 2
  widths = [2.6, 0.45] + [0.45] * (log.label is not None) + [1.1] * (log.novelty is not None)
  figure = new_figure(9.0, 8.6)
  axes = list(figure.subplots(1, len(widths), sharey=True, width_ratios=widths))
  stack, likely = axes[:2]
  draw_stack(stack, top, bottom, log.prob, [colors[name] for name in shown])
  stack.set(xlim=(0, 1), xlabel="probability of the classes", ylabel="depth, m")
  draw_column(likely, top, bottom, log.pred, colors)
  likely.set_xlabel("most likely")
  if log.label is not None:
    draw_column(axes[2], top, bottom, log.label, colors)
    axes[2].set_xlabel("true")
  if log.novelty is not None:
    draw_novelty(axes[-1], log)
  low, high = float(log.depth[0]), float(log.depth[-1])
  stack.set_ylim(bottom[-1], top[0])
  name_beds(axes[2 if log.label is not None else 1], top, bottom, log.label if log.label is not None else log.pred)
  for name in shown:
    stack.fill([], [], color=colors[name], label=clip_text(name, 30))
  stack.fill([], [], color=GREY, label=f"{log.others} {OTHERS}") if log.others else None
  figure.legend(*stack.get_legend_handles_labels(), loc="outside lower left", ncols=4)
  right = "" if log.label is None else f"; the most likely class is the true one in {log.agree:.0%} of labelled bins"
  figure.suptitle(f"{clip_text(log.hole, 40)}: {len(log.depth):,} bins, {low:,.1f} to {high:,.1f} m{right}", x=0.01,
                  ha="left", fontsize=9.5, fontweight="bold", color=INK)
  return figure


def rectangles(left: np.ndarray, right: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
  """Corners [n, 4, 2] of rectangles with such sides [n]."""
  return np.stack([np.stack([left, top], 1), np.stack([right, top], 1), np.stack([right, bottom], 1),
                   np.stack([left, bottom], 1)], axis=1)


def draw_stack(ax, top: np.ndarray, bottom: np.ndarray, prob: np.ndarray, colors: list[str]) -> None:
  """Probabilities [n, K] beside each other, and what is left of 1 in grey."""
  edges = np.concatenate([np.zeros((len(prob), 1)), np.cumsum(prob, axis=1), np.ones((len(prob), 1))], axis=1)
  for k, color in enumerate([*colors, GREY]):
    ax.add_collection(PolyCollection(rectangles(edges[:, k], edges[:, k + 1], top, bottom), facecolors=color,
                                     edgecolors="none", antialiaseds=False))
  ax.grid(visible=False)


def draw_column(ax, top: np.ndarray, bottom: np.ndarray, names: np.ndarray, colors: dict[str, str]) -> None:
  """The class of each bin by its colour; a bin without one stays white."""
  there = np.array([name is not None for name in names])
  shade = [colors[name] if name in colors else GREY for name in names[there]]
  ones = np.ones(there.sum())
  ax.add_collection(PolyCollection(rectangles(0 * ones, ones, top[there], bottom[there]), facecolors=shade,
                                   edgecolors="none", antialiaseds=False))
  ax.set(xlim=(0, 1), xticks=[])
  ax.grid(visible=False)


def name_beds(ax, top: np.ndarray, bottom: np.ndarray, names: np.ndarray) -> None:
  """The name of each class beside beds that are thick enough, none over another."""
  starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
  ends = np.append(starts[1:], len(names)) - 1
  height, free = bottom.max() - top.min(), -np.inf
  for start, end in zip(starts, ends):
    middle = (top[start] + bottom[end]) / 2
    if names[start] is not None and bottom[end] - top[start] >= MIN_NAMED * height and middle >= free:
      ax.annotate(clip_text(names[start], 22), (1, middle), (3, 0), textcoords="offset points", fontsize=6.5,
                  va="center", color=INK, annotation_clip=False)
      free = middle + PITCH * height


def draw_novelty(ax, log) -> None:
  """Novelty of each bin, with those that stand out."""
  unusual = log.novelty >= UNUSUAL
  ax.plot(log.novelty[~unusual], log.depth[~unusual], ".", color=MUTED, markersize=2)
  ax.plot(log.novelty[unusual], log.depth[unusual], ".", color=HUES[1], markersize=3)
  ax.axvline(UNUSUAL, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
  known = np.isfinite(log.novelty).sum()
  ax.set(xlim=(0, 100.5), xlabel=f"novelty, percentile\n({unusual.sum():,} of {known:,} at {UNUSUAL} or more)")
