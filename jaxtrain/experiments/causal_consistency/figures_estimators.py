"""Average effects by every estimator that treats missing treatments in its own way: the figure, and sentences, from the
scalars of an assessment alone.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.causal_consistency.figures_findings import WIDTH, contrasts, finite, scalars_of, with_ends
from jaxtrain.report.figures import HUES, INK, MUTED, new_figure
from jaxtrain.workdir.reading import RunData

BLUE, GREY = HUES[0], "#c3c9cf"
ASSUMES = {  # scalar -> (name, what it needs to be right, beyond the covariates' holding all that drives both)
    "ate_unadjusted": ("group means", "a randomised treatment, recorded at random"),
    "ate": ("the trained model", "its networks, and missing at random"),
    "ate_deletion": ("recorded rows alone (AIPW)", "recording that depends on nothing that matters"),
    "ate_ipo": ("recorded rows, weighted (AIPW)", "the recording model, and outcome or treatment"),
    "ate_mi_propensity": ("imputed from covariates", "always biased, towards 0"),
    "ate_mi_outcome": ("imputed from covariates and outcome", "outcome and treatment models"),
    "ate_plug_in": ("joint linear model", "outcome and treatment models"),
    "ate_ipw_ht": ("inverse weights (Horvitz-Thompson)", "recording and treatment models"),
    "ate_ipw_hajek": ("inverse weights (Hajek)", "recording and treatment models"),
    "ate_aipw_stacked": ("AIPW, cross-fitted", "the recording model, and outcome or treatment"),
    "ate_triply_robust": ("triply robust", "two of outcome, treatment and recording models"),
}
ESTIMATED = tuple(name for name in ASSUMES if name not in ("ate_unadjusted", "ate"))
MAX_PANELS = 3
CROWDED = 2  # rows of the smallest class for each feature
FAR = 1.0  # log odds beyond which a tipping point is far


def estimators(run: RunData) -> Figure | None:
  """Average effects by estimator, with the assumption that each needs."""
  scalars = scalars_of(run)
  panels = [one for one in contrasts(run) if any(finite(scalars, f"{name}{one[0]}") is not None for name in ESTIMATED)]
  if not panels:
    return None
  shown = panels[:MAX_PANELS]
  count = max(len(there(scalars, end)) for end, _ in shown)
  figure = new_figure(WIDTH, (0.8 + 0.42 * count) * len(shown))
  for ax, (end, title) in zip(np.ravel(figure.subplots(len(shown), 1)), shown):
    draw(ax, scalars, end)
    ax.set_title(title)
  text = ("Each line says what has to be right for its estimate to be right. Thick intervals account for the estimated "
          "models, thin ones take them for known. Estimates that differ by more than their intervals say that one of "
          "the assumptions fails.")
  rest = len(panels) - len(shown)
  figure.set_label(text + f" {rest} further effects are not drawn." * bool(rest))
  return figure


def there(scalars: dict, end: str) -> list[str]:
  """Names of the estimates that are finite."""
  return [name for name in ASSUMES if finite(scalars, f"{name}{end}") is not None]


def draw(ax, scalars: dict, end: str) -> None:
  """A dot and two intervals for each estimator, and a line at the truth where it is known."""
  names = there(scalars, end)
  for at, name in enumerate(names):
    color = BLUE if name in ESTIMATED else MUTED
    for part, width in (("_plain", 1.0), ("", 3.0)):
      low, high = (finite(scalars, f"{name}{part}_{side}{end}") for side in ("low", "high"))
      if low is not None and high is not None:
        ax.plot([low, high], [at, at], color=color, linewidth=width, solid_capstyle="butt")
    value = finite(scalars, f"{name}{end}")
    ax.plot(value, at, "o", color=color, markersize=4.5)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # a line at the truth stays behind the number
    ax.annotate(with_ends(scalars, name, end), (value, at), (0, 4), textcoords="offset points", ha="center",
                fontsize=6.5, color=INK, bbox=box)
  truth = finite(scalars, f"ate_truth{end}")
  if truth is not None:
    ax.axvline(truth, color=HUES[2], linewidth=1.3)
  ax.axvline(0, color=GREY, linewidth=1, zorder=0)
  ax.set_yticks(range(len(names)), ["{}\n({})".format(*ASSUMES[name]) for name in names], color=INK, fontsize=6.5)
  known = "" if truth is None else f" (green: truth {truth:.3g})"
  ax.set(ylim=(len(names) - 0.5, -0.5), xlabel=f"effect in units of the outcome{known}")
  ax.grid(axis="y", visible=False)


def reasons(run: RunData) -> list[str]:
  """Why estimators are missing, for each outcome that lacks some."""
  scalars = run.evals[run.split].get("scalars", {}) if run.split else {}
  found = {str(text) for name, text in scalars.items() if name.partition("/")[0] == "estimators_reason"}
  return sorted(found)


def findings(run: RunData) -> list[str]:
  """Whether the estimate that needs least agrees with the model, how far it is from tipping, and what is missing."""
  scalars, found = scalars_of(run), []
  value, low, high = (finite(scalars, f"ate_triply_robust{end}") for end in ("", "_low", "_high"))
  own = finite(scalars, "ate")
  if None not in (value, low, high, own):
    text = (f"The triply robust estimate, which needs two of the models of outcome, treatment and recording, is "
            f"{value:.3g} ({low:.3g} to {high:.3g})")
    found.append(text + (": it agrees with the model." if low <= own <= high else
                         ": the model's is outside; see the figure estimators."))
  tipping = scalars.get("mnar_tipping")
  if tipping is not None and np.isfinite(tipping) and tipping > 0:
    found.append(f"The interval would hold no effect if the odds of unrecorded treatments were off by a factor of "
                 f"{np.exp(tipping):.2g}" + (": little is needed." if tipping < FAR else "."))
  crowded = finite(scalars, "rows_per_feature")
  if crowded is not None and crowded < CROWDED:
    found.append(f"The smallest group has {crowded:.2g} recorded rows for each feature: intervals of the estimators "
                 "without the model are too short.")
  return found + reasons(run)
