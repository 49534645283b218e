"""Figures of the tabular VAE, from eval/<split>.json and .npz alone: reconstruction, latent space, classes.

**Source:** spec tabular_vae 8. **Departs:** the latent map is by principal components, which need no extra package; of
many features those at even ranks of R2 are shown, so that the worst is always among them; counts of classes are on a
logarithmic axis only where they span a factor of 20.
"""

from typing import Callable

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxtrain.figures import INK, MUTED, RunData, clip_text, new_figure, number

MAX_FEATURES, MAX_COLORS, MAX_CLASSES = 12, 10, 30
FEW_ROWS = 1500  # up to here each row is a dot, above it rows are counted in hexagons
SIDE, PITCH = 1.72, (2.32, 2.42)  # inches: side of a reconstruction panel, distance between two across and down
ACTIVE_NATS = 0.01  # mean KL above which a latent dimension is in use
BLUE, GREY = "#1f6fb4", "#c3c9cf"
LABELLED, PREDICTED = "#4a5763", "#3aa99f"
DENSITY = LinearSegmentedColormap.from_list("density", ["#b5d2ec", "#1f6fb4", "#08264d"])
# Ten hues that stay apart for most kinds of colour blindness
HUES = ("#1f6fb4", "#d2580f", "#0b8a62", "#c9468f", "#e3ac00", "#58b7e6", "#6b4fb3", "#8c5a2b", "#8fae1b", "#22262b")


def reconstruction(run: RunData) -> Figure | None:
  """Look for points off the dashed line of equality: a flat cloud is a feature that the latent space does not carry, a
  bend is a range that it gets wrong.
  """
  if not {"sample_x", "sample_x_mean"} <= run.arrays.keys():
    return None
  x, x_mean, record = run.arrays["sample_x"], run.arrays["sample_x_mean"], run.evals[run.split]
  names = record["meta"]["features"]
  r2, scaled = ([number(record["scalars"].get(f"r2_{unit}/{name}")) for name in names] for unit in ("raw", "scaled"))
  shown = pick_features(r2)
  columns = 3 if len(shown) in (5, 6, 9) else min(4, len(shown))
  rows = -(-len(shown) // columns)
  width, height = 0.5 + PITCH[0] * max(columns, 2), 0.25 + PITCH[1] * rows
  figure = new_figure(width, height, layout=None)
  for k, d in enumerate(shown):
    left, top = 0.75 + PITCH[0] * (k % columns), 0.45 + PITCH[1] * (k // columns)
    ax = figure.add_axes((left / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height))
    draw_feature(ax, x[:, d], x_mean[:, d], record["meta"]["scaler"]["transforms"][d].endswith("log1p"))
    ax.set_title(clip_text(names[d], 27), fontsize=8, pad=17)
    ax.annotate(r2_text(r2[d], scaled[d]), (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8)
  chosen = "" if len(shown) == len(names) else f"; {len(shown)} of {len(names)} features, from the best R² to the worst"
  text = f"measured: {len(x):,} of {run.split}'s {record['scalars']['rows']:,} rows, R² over all{chosen}"
  figure.text(0.75 / width, 0.08 / height, text, fontsize=8.5, color=MUTED)
  figure.text(0.1 / width, 0.5, "reconstructed", fontsize=8.5, color=MUTED, rotation=90, va="center")
  return figure


def r2_text(raw: float | None, scaled: float | None) -> str:
  """R2 in raw units, and in standardised units where a transform makes them differ."""
  if raw is None or not np.isfinite(raw):
    return "constant here, no R²"
  more = scaled is not None and abs(scaled - raw) > 5e-4
  return (f"R² {raw:.3f}" + (f"   (scaled {scaled:.3f})" if more else "")).replace("-", "−")


def pick_features(r2: list[float | None]) -> list[int]:
  """Up to 12 features: all in their order, or of more those at even ranks from the best R2 to the worst."""
  if len(r2) <= MAX_FEATURES:
    return list(range(len(r2)))
  ranked = sorted((d for d in range(len(r2)) if r2[d] is not None and np.isfinite(r2[d])), key=lambda d: -r2[d])
  ranked = ranked if len(ranked) >= MAX_FEATURES else list(range(len(r2)))
  return [ranked[i] for i in np.linspace(0, len(ranked) - 1, MAX_FEATURES).round().astype(int)]


def draw_feature(ax, x: np.ndarray, x_mean: np.ndarray, logarithmic: bool) -> None:
  """Measured against reconstructed on equal axes that hold every measurement; what is off them is counted."""
  forward = (lambda v: np.sign(v) * np.log1p(np.abs(v))) if logarithmic else (lambda v: np.asarray(v, float))
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
      ticks = round_values(forward, low, high)
      axis.set_ticks(forward(ticks), [f"{tick:,.12g}".replace("-", "−") for tick in ticks])
    else:
      axis.set_major_locator(MaxNLocator(nbins=5))
  if len(x) > inside.sum():
    text = f"{len(x) - inside.sum():,} outside"
    ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", fontsize=7, color=MUTED)


def round_values(forward: Callable, low: float, high: float) -> np.ndarray:
  """Round values whose positions `forward(value)` lie in [low, high] and keep apart: 0, powers of ten, then others."""
  accepted: list[float] = []
  for step in (1, 3, 2, 5):
    for size in [0.0] * (step == 1) + [step * 10.0 ** k for k in range(-2 if high < 1 else 0, 16)]:
      for value in (size, -size):
        at = float(forward(np.float64(value)))
        if low <= at <= high and all(abs(at - float(forward(np.float64(v)))) > (high - low) / 6.5 for v in accepted):
          accepted.append(value)
  return np.array(sorted(accepted))


def latent(run: RunData) -> Figure | None:
  """Look for classes that keep apart in the map, and for dimensions without a bar: their posterior has collapsed to the
  prior, and they carry nothing.
  """
  points, kl_nats = run.arrays.get("sample_components"), run.arrays.get("kl_nats_per_dim")
  if points is None or kl_nats is None:
    return None
  figure = new_figure(9, 4.4)
  left, right = figure.subplots(1, 2, width_ratios=(1.75, 1))
  draw_map(left, run, points)
  order = np.argsort(-kl_nats)
  active = kl_nats[order] > ACTIVE_NATS
  right.bar(range(len(order)), kl_nats[order], color=np.where(active, BLUE, GREY), width=0.8)
  right.set_xticks(range(len(order)), order, fontsize=8 if len(order) <= 16 else 5.5) if len(order) <= 40 else None
  right.set(xlabel="latent dimension" if len(order) <= 40 else "rank of latent dimension", ylabel="KL (nats)")
  right.set_title(f"{active.sum()} of {len(order)} active (> {ACTIVE_NATS:g} nats)", fontsize=8.5)
  right.grid(axis="x", visible=False)
  return figure


def draw_map(ax, run: RunData, points: np.ndarray) -> None:
  """Posterior means along their first two principal components, coloured by the most frequent classes."""
  share, names = run.arrays["component_share"], run.evals[run.split]["meta"]["class_names"]
  ax.set_title(f"posterior means, principal components ({run.split}, {len(points):,} rows)", fontsize=8.5)
  ax.set_xlabel(f"PC 1 ({share[0]:.0%} of variance)")
  if points.shape[1] < 2:
    ax.hist(points[:, 0], bins=50, color=BLUE)
    return
  ax.set_ylabel(f"PC 2 ({share[1]:.0%})")
  size, label = float(np.clip(6e4 / len(points), 5, 20)), run.arrays.get("sample_label")
  if label is None or not names:
    ax.scatter(*points.T, s=size, color=BLUE, alpha=0.4, linewidths=0)
    return
  count = run.arrays["class_count"]
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
  ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, handletextpad=0.3, borderaxespad=0.2)


def classes(run: RunData) -> Figure | None:
  """Look for classes too rare to learn from, and, where there is a classifier, for those whose predicted count is far
  below the true one: it gives them up.
  """
  count, predicted = run.arrays.get("class_count"), run.arrays.get("predicted_count")
  if count is None or not count.sum():
    return None
  names = run.evals[run.split]["meta"]["class_names"]
  order = [int(k) for k in np.argsort(-count, kind="stable")[:MAX_CLASSES] if count[k] > 0]
  figure = new_figure(8.2, 1.0 + (0.26 if predicted is not None else 0.2) * len(order))
  ax = figure.subplots()
  series = [(count, LABELLED, "labelled")]
  if predicted is not None:
    series.append((predicted, PREDICTED, f"predicted, {predicted.sum():,} rows"))
  height = 0.78 / len(series)
  uneven = count.max() > 20 * count[order[-1]]
  first = 0.7 if uneven else 0.0  # where bars begin
  for j, (values, color, text) in enumerate(series):
    where = np.arange(len(order)) + (j - (len(series) - 1) / 2) * height
    ax.barh(where, np.maximum(values[order], first) - first, height, first, color=color, label=text)
    for y, k in zip(where, order):
      ax.annotate(f"{values[k]:,}", (max(values[k], first), y), (3, 0), textcoords="offset points", va="center",
                  fontsize=6.5, color=MUTED)
  ax.set_yticks(range(len(order)), [clip_text(names[k], 34) for k in order], color=INK)
  longest = max(values[order].max() for values, _, _ in series)
  ax.set(xscale="log" if uneven else "linear", ylim=(len(order) - 0.4, -0.6),
         xlim=(first, longest * (2 if uneven else 1.08)))
  ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.12g}")
  ax.grid(axis="y", visible=False)
  ax.tick_params(axis="y", length=0)
  rest = int((count > 0).sum()) - len(order)
  left = f"; {rest} smaller classes with {count.sum() - count[order].sum():,} rows are not shown" if rest else ""
  ax.set(title=f"{run.split}: {int((count > 0).sum())} classes, {count.sum():,} labelled rows",
         xlabel=f"rows{', logarithmic' if uneven else ''}{left}")
  if predicted is not None:
    figure.legend(loc="outside upper left", ncols=2)
  return figure


FAMILIES = {"reconstruction": reconstruction, "latent": latent, "classes": classes}
