"""Figures of a codebook: how evenly codes are used, which types of objects they stand for, and where they lie."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jaxtrain.experiments.autoencoder.figures_findings import verdict
from jaxtrain.experiments.autoencoder.figures_recon import type_names
from jaxtrain.report.figures import GREY, HUES, INK, MUTED, clip_text, draw_panels, new_figure
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

CURVES = ("perplexity_pooled", "codes_used", "commitment")
MAX_STAGES = 6


def perplexity(use: np.ndarray) -> float:
  """Number of equally frequent codes with the entropy of these counts [K]; 0 where none was used."""
  share = use[use > 0] / max(use.sum(), 1e-300)
  return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


def code_types(run: RunData, num_codes: int) -> tuple[np.ndarray, list[str]] | None:
  """(counts [types, K] of the first codebook by type of object, names), types without counts left out."""
  if "type_use" not in run.arrays or run.arrays["type_use"].shape[-1] != num_codes:
    return None
  table = np.asarray(run.arrays["type_use"], float)
  names = [*type_names(run, len(table) - 1), "event"]
  there = np.flatnonzero(table.sum(axis=1))
  return (table[there], [names[k] for k in there]) if len(there) else None


def codebook(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a curve of use that falls early: codes that stand for nothing. Look for bright rows that share no column:
  such codes stand for one type of object each. In the map each code is a disc of the area of its use, in the colour of
  the type that it stands for most often; crosses are dead codes.
  """
  if "use" not in run.arrays or not run.arrays["use"].sum():
    names = [name for name in CURVES if any(reading.curve(run, part, name) for part in ("train", "val"))]
    return draw_panels(run, [names], 3 * len(names) + 1.5, 2.6, narrow) if names else None
  use = np.atleast_2d(np.asarray(run.arrays["use"], float))
  found = code_types(run, use.shape[1])
  lies = "codes" in run.arrays and run.arrays["codes"].ndim == 3 and run.arrays["codes"].shape[2] >= 2
  panels = [["use"]] + [["map"]] * lies if narrow else [["use"] + ["map"] * lies]
  panels += [["types"] if narrow else ["types"] * len(panels[0])] * (found is not None)
  types = (1.6 if narrow else 1.0) + 0.22 * (len(found[1]) if found else 0)
  ratios = [types if row[0] == "types" else 3.0 for row in panels]
  figure = new_figure(4.4 if narrow else 8.6 if lies else 5.6, sum(ratios))
  axes = figure.subplot_mosaic(panels, height_ratios=ratios)
  draw_use(axes["use"], use)
  if lies:
    draw_map(axes["map"], np.asarray(run.arrays["codes"][0], float), use[0], found)
  if found is not None:
    draw_code_types(figure, axes["types"], use[0], *found, narrow)
  return figure


def draw_use(ax, use: np.ndarray) -> None:
  """Share of each code, the most frequent first, on a logarithmic axis; a line a stage."""
  K = use.shape[1]
  lines = []
  for k, counts in enumerate(use[:MAX_STAGES]):
    share = np.sort(counts)[::-1] / max(counts.sum(), 1e-300)
    used = int((share > 0).sum())
    ax.step(np.arange(1, used + 1), share[:used], color=HUES[k], where="mid", label=f"stage {k + 1}")
    lines.append(f"{f'stage {k + 1}: ' * (len(use) > 1)}{used} of {K} used, {100 * (1 - used / K):.0f} % dead,\n"
                 f"perplexity {perplexity(counts):.0f} ({100 * perplexity(counts) / K:.0f} % of {K})")
  if len(use) > 1:
    ax.legend(loc="upper right")
  ax.axhline(1 / K, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
  ax.annotate("all alike", (1.0, 1 / K), xycoords=("axes fraction", "data"), xytext=(-2, 3), ha="right", fontsize=7,
              textcoords="offset points", color=MUTED)
  ax.set_yscale("log")
  ax.set(xlim=(0, K + 1), ylabel="share of slots")
  ax.set_xlabel("codes, the most frequent first\n" + "\n".join(lines[:3]))
  ax.set_title(f"use of the codes: {verdict(float((use > 0).mean()))}")


def plane(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """First two principal components of codes [K, L], and the share of variance of each."""
  centred = codes - codes.mean(axis=0)
  _, singular, directions = np.linalg.svd(centred, full_matrices=False)
  return centred @ directions[:2].T, np.square(singular[:2]) / max(np.square(singular).sum(), 1e-300)


def draw_map(ax, codes: np.ndarray, use: np.ndarray, found: tuple[np.ndarray, list[str]] | None) -> None:
  """The codes in the plane of their first two principal components."""
  at, share = plane(codes)
  dead, size = use <= 0, 4 + 220 * use / max(use.max(), 1e-300)
  ax.plot(*at[dead].T, "x", color=GREY, markersize=3.5, markeredgewidth=0.8)
  if found is None:
    ax.scatter(*at[~dead].T, s=size[~dead], color=HUES[0], alpha=0.65, linewidths=0)
  else:
    table, names = found
    most = (table / table.sum(axis=1, keepdims=True)).argmax(axis=0)
    for k, name in enumerate(names):
      own = ~dead & (most == k)
      if own.any():
        ax.scatter(*at[own].T, s=size[own], color=HUES[k % len(HUES)], alpha=0.7, linewidths=0,
                   label=clip_text(name, 12))
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), handletextpad=0.1, borderaxespad=0.2)
    for handle in legend.legend_handles:
      handle.set_sizes([24])
  ax.set(title="where the codes lie", xlabel=f"component 1 ({100 * share[0]:.0f} %)",
         ylabel=f"component 2 ({100 * share[1]:.0f} %)")


def draw_code_types(figure: Figure, ax, use: np.ndarray, table: np.ndarray, names: list[str], narrow: bool) -> None:
  """Share of the slots of each type that a code takes; codes stand by the type they serve most, then by use."""
  share = table / table.sum(axis=1, keepdims=True)
  used = np.flatnonzero(use > 0)
  order = used[np.lexsort((-use[used], share[:, used].argmax(axis=0)))]
  shown = share[:, order]
  low = max(shown[shown > 0].min(), 1e-4) if (shown > 0).any() else 1e-4
  image = ax.imshow(np.where(shown > 0, shown, np.nan), cmap="viridis", aspect="auto", interpolation="nearest",
                    norm=LogNorm(low, max(float(shown.max()), 1.01 * low)))
  ax.set_facecolor("#f2f4f6")
  ax.set_yticks(range(len(names)), [clip_text(name, 12) for name in names], color=INK)
  ax.set(title="codes by type of object", xlabel="codes in use, by the type that they serve most")
  ax.grid(visible=False)
  figure.colorbar(image, ax=ax, label="share of the type", pad=0.01, **({"location": "bottom"} if narrow else {}))
