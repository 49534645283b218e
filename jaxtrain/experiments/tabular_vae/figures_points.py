"""Rows as points, in a panel of a figure: measured against reconstructed, and maps of the latent space."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import MaxNLocator

from jaxtrain.experiments.tabular_vae.figures_data import BLUE, set_log_ticks, signed_log
from jaxtrain.report.figures import GREY, HUES, INK, MUTED, clip_text
from jaxtrain.workdir.reading import RunData

FEW_ROWS = 1500  # up to here each row is a dot, above it rows are counted in hexagons
MAX_COLORS = 10
DENSITY = LinearSegmentedColormap.from_list("density", ["#b5d2ec", "#1f6fb4", "#08264d"])


def draw_feature(ax, x: np.ndarray, x_mean: np.ndarray, logarithmic: bool) -> None:
  """Measured against reconstructed on equal axes that hold every measurement; what is off them is counted."""
  forward = signed_log if logarithmic else (lambda v: np.asarray(v, float))
  keep = np.isfinite(x) & np.isfinite(x_mean)
  u, v = forward(x[keep]), forward(x_mean[keep])
  low, high = (min(u.min(), np.quantile(v, 0.002)), max(u.max(), np.quantile(v, 0.998))) if len(u) else (0.0, 1.0)
  pad = 0.04 * (high - low) or 0.5
  low, high = low - pad, high + pad
  inside = (v >= low) & (v <= high)
  if len(u) <= FEW_ROWS:
    ax.scatter(u[inside], v[inside], s=7, color=BLUE, alpha=0.45, linewidths=0)
  else:
    ax.hexbin(u[inside], v[inside], gridsize=45, extent=(low, high, low, high), mincnt=1, cmap=DENSITY, norm=LogNorm(),
              linewidths=0.1)
  ax.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
  ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
  ax.tick_params(labelsize=7)
  for axis in (ax.xaxis, ax.yaxis):
    if logarithmic:
      set_log_ticks(axis, low, high)
    else:
      axis.set_major_locator(MaxNLocator(nbins=5))
  missing, outside = len(x) - len(u), len(u) - inside.sum()
  text = ", ".join([f"{missing:,} missing"] * bool(missing) + [f"{outside:,} outside"] * bool(outside))
  if text:
    ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", fontsize=7, color=MUTED)


def draw_map(ax, run: RunData, points: np.ndarray, narrow: bool) -> None:
  """Points [N, 2] of the rows that were sampled first, coloured by the most frequent classes, whose names stand beside
  them; `narrow`: below.
  """
  names = run.meta["class_names"]
  size, label = float(np.clip(6e4 / len(points), 5, 20)), run.arrays.get("sample_label")
  if label is None or not names:
    ax.scatter(*points.T, s=size, color=BLUE, alpha=0.4, linewidths=0)
    return
  count, label = run.arrays["class_count"], label[:len(points)]
  top = [int(k) for k in np.argsort(-count, kind="stable")[:MAX_COLORS] if count[k] > 0]
  rest, unlabelled = ~np.isin(label, top) & (label >= 0), label < 0
  others = int((count > 0).sum()) - len(top)
  color = np.full(len(label), "", object)
  for hue, k in zip(HUES, top):
    color[label == k] = hue
    ax.scatter([], [], s=24, color=hue, label=clip_text(names[k], 28))
  for mask, text in ((rest, f"{others} other classes"), (unlabelled, "unlabelled")):
    if mask.any():
      ax.scatter(*points[mask].T, s=size, color=GREY, alpha=0.6, linewidths=0)
      ax.scatter([], [], s=24, color=GREY, label=text)
  mixed = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(label, top)))  # no class always on top
  ax.scatter(*points[mixed].T, s=size, c=list(color[mixed]), alpha=0.7, linewidths=0)
  place = {"bbox_to_anchor": (0.0, -0.16), "ncols": 2} if narrow else {"bbox_to_anchor": (1.0, 1.0)}
  ax.legend(loc="upper left", fontsize=8, handletextpad=0.3, borderaxespad=0.2, **place)
