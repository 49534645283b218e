"""Figures of a codec, from its facts and eval/<split>.json and .npz alone: how it trained, what it costs and keeps,
which symbol carries what, and sentences for the head of the page.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxtrain.experiments.semantic_compression.figures_states import drop, probes, states, width_of
from jaxtrain.report.figures import COLORS, GREY, HUES, INK, MUTED, clip_text, draw_panels, new_figure
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

BLUE = COLORS["train"]
MAX_COLUMNS = 30
EVEN = 0.15  # bits between rates that are said to be the same


def scalars_of(run: RunData) -> dict:
  """The scalars of the part that is shown."""
  return reading.scalars(run.evals[run.split]) if run.split else {}


def there(run: RunData, names: tuple[str, ...]) -> list[str]:
  """Those of some metrics that have a curve."""
  return [name for name in names if any(reading.curve(run, split, name) for split in ("train", "val"))]


def training_curves(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a rate that falls while the error stays: the codec learns what there is to gain. Rounding takes the place
  of noise in validation.
  """
  names = there(run, ("loss", "recon", "rate", "kl", "semantic"))[:4]
  if not names:
    return None
  return draw_panels(run, [names[:2], (names[2:] + ["."])[:2]] if len(names) > 2 else [names], 8, 5.4, narrow)


def fallen(preserved: np.ndarray) -> dict[str, np.ndarray]:
  """Drift of a curve of preservation against its first value, and against the best so far."""
  best = np.maximum.accumulate(preserved)
  return {"from the first epoch": np.maximum(preserved[0] - preserved, 0), "from the best so far": best - preserved}


def semantic_drift(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a group whose drift stays: its meaning is lost. Drift is 1 less preservation, against the states
  themselves; beside it, how far preservation has fallen from its first value and from its best. The lowest panel has
  drift by group of features.
  """
  groups = dict.fromkeys(name[len("metric_"):] for row in run.rows for name in row if name.startswith("metric_drift/"))
  panels = {"drift": there(run, ("drift",)), "preservation and fidelity": there(run, ("preservation", "fidelity")),
            "drift by group of features": there(run, tuple(groups))}
  if not all(panels.values()):
    return None
  figure = new_figure(4.4 if narrow else 7.4, 7.2)
  axes = figure.subplots(3, 1, sharex=True)
  for ax, (title, names) in zip(axes, panels.items()):
    for hue, name in zip(HUES, names):
      points = reading.curve(run, "val", name) or reading.curve(run, "train", name)
      ax.plot(*points, color=hue, label=name.rpartition("/")[2], marker="o" if len(points[1]) <= 30 else "",
              markersize=3)
    if title == "drift":
      at, kept = reading.curve(run, "val", "preservation") or reading.curve(run, "train", "preservation")
      for hue, (name, values) in zip((MUTED, GREY), fallen(kept).items()):
        ax.plot(at, values, color=hue, linewidth=1, label=name)
    ax.set_title(title)
    if len(ax.get_lines()) > 1:
      ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6)
  axes[-1].set_xlabel(reading.time_axis(run)[0])
  axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
  return figure


def rate_distortion(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for the dot below the dashed line: the codec then costs fewer bits than ideal quantisers of each column at the
  same error. Nothing can be left of Shannon's line, which holds for small errors.
  """
  scalars = scalars_of(run)
  if scalars.get("bits_per_state") is None or scalars.get("rmse_percent") is None:
    return None
  figure = new_figure(width_of(narrow), 4.2)
  ax = figure.subplots()
  if "line_rmse_percent" in run.arrays:
    x = run.arrays["line_rmse_percent"]
    ax.plot(x, run.arrays["line_scalar_bits"], color=INK, linewidth=1, linestyle=(0, (4, 3)),
            label="ideal scalar quantisers")
    ax.plot(x, run.arrays["line_shannon_bits"], color=INK, linewidth=1.2, label="Shannon's lower bound")
  at = scalars["rmse_percent"]
  for name, text, color in (("baseline_scalar_bits", "a quantiser of each column", MUTED),
                            ("baseline_pca_bits", "principal components", HUES[2])):
    if scalars.get(name) is not None:
      ax.plot(at, scalars[name], "s", color=color, markersize=5, label=text)
  ax.plot(at, scalars["bits_per_state"], "o", color=HUES[1], markersize=7, label="this run")
  ax.set(xlabel="error, % of the range\n(mean of numeric columns)", ylabel="bits of a state", xscale="log")
  ax.xaxis.set_major_formatter("{x:g}")
  ax.set_ylim(bottom=0)
  ax.legend(loc="upper right")
  return figure


def columns(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a column whose error is far from the others', or that costs many bits: levels by group move bits between
  them. Bars are errors of numbers and shares of wrong values, in per cent.
  """
  scalars = scalars_of(run)
  errors = {name.partition("/")[2]: value for name, value in scalars.items()
            if name.startswith("rmse_percent/") and value is not None}
  wrong = {name.partition("/")[2]: 100 * value for name, value in scalars.items()
           if name.startswith("wrong/") and value is not None}
  names = [*errors, *wrong][:MAX_COLUMNS]
  if not names:
    return None
  figure = new_figure(width_of(narrow), 1.0 + 0.27 * len(names))
  ax = figure.subplots()
  values = [errors[name] if name in errors else wrong[name] for name in names]
  ax.barh(range(len(names)), values, color=[BLUE if name in errors else HUES[1] for name in names], height=0.62)
  for k, value in enumerate(values):
    ax.annotate(f"{value:.3g} %", (value, k), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
  ax.set_yticks(range(len(names)), [clip_text(name, 28) for name in names])
  ax.margins(x=0.14)
  ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="% of the range (blue),\n% of states that are wrong (orange)")
  ax.grid(axis="y", visible=False)
  return figure


def bits(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for slots that cost nothing: they carry nothing. Each bar is what the symbols of a group of columns cost."""
  scalars = scalars_of(run)
  found = {name.partition("/")[2]: value for name, value in scalars.items() if name.startswith("bits/") and value}
  if len(found) < 2:
    return None
  figure = new_figure(width_of(narrow), 0.9 + 0.3 * len(found))
  ax = figure.subplots()
  ax.barh(range(len(found)), list(found.values()), color=BLUE, height=0.6)
  for k, value in enumerate(found.values()):
    ax.annotate(f"{value:.1f}", (value, k), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
  ax.set_yticks(range(len(found)), [clip_text(name, 28) for name in found])
  ax.set(ylim=(len(found) - 0.4, -0.6), xlabel="bits of a state")
  ax.margins(x=0.1)
  ax.grid(axis="y", visible=False)
  return figure


def findings(run: RunData) -> list[str]:
  """What the code costs and keeps, in words."""
  scalars = scalars_of(run)
  cost, error, excess = (scalars.get(name) for name in ("bits_per_state", "rmse_percent", "excess_bits"))
  found = []
  if cost is not None and error is not None:
    text = f"A state costs {cost:.1f} bits at an error of {error:.2g} % of the range."
    if excess is not None:
      text += (f" That is {abs(excess):.1f} bits {'more' if excess > 0 else 'fewer'} than ideal scalar quantisers of "
               "its columns need at the same errors.")
    found.append(text)
  rival, own = scalars.get("baseline_scalar_bits"), scalars.get("modelled_bits")
  if own is not None and rival is not None:
    verdict = "as many as" if abs(own - rival) < EVEN else "fewer than" if rival < own else "more than"
    found.append(f"A quantiser of each column with an entropy coder needs {rival:.1f} bits at the same errors, "
                 f"{verdict} this codec ({own:.1f} without what blocks add).")
  exact, packed = scalars.get("lossless_file_bits"), scalars.get("baseline_gzip_float32_bits")
  if exact is not None and packed is not None:
    found.append(f"A lossless file of these states costs {exact:.1f} bits a state; gzip of float32 columns "
                 f"{packed:.1f}.")
  target = run.config.get("loss", {}).get("target_bits")
  if target and cost is not None and abs(cost - target) > 0.05 * target:
    found.append(f"{target:g} bits a state were asked for: longer training, or a larger loss.dual.rate, comes nearer.")
  wrong = {name.partition("/")[2]: value for name, value in scalars.items() if name.startswith("wrong/") and value}
  if wrong and max(wrong.values()) > 0.01:
    worst = max(wrong, key=wrong.get)
    found.append(f"{100 * wrong[worst]:.1f} % of the values of {clip_text(worst, 40)} come back wrong; a larger "
                 "loss.weights.binary or loss.weights.categorical keeps them.")
  return found


FAMILIES = {"training_curves": training_curves, "semantic_drift": semantic_drift, "rate_distortion": rate_distortion,
            "columns": columns, "bits": bits, "states": states, "drop": drop, "probes": probes}
FINDINGS = {"codec": findings}
