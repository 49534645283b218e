"""Average effects by every estimator that treats missing treatments in its own way: the figure, and sentences, from the
scalars of an assessment alone.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.causal_consistency.figures_findings import WIDTH, contrasts, finite, scalars_of
from jaxtrain.experiments.causal_consistency.figures_forest import forest, names_of
from jaxtrain.report.figures import new_figure
from jaxtrain.workdir.reading import RunData

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
  labels = {name: "{}\n({})".format(*words) for name, words in ASSUMES.items()}
  count = max(len(names_of(scalars, end, labels)) for end, _ in shown)
  figure = new_figure(WIDTH, (0.8 + 0.42 * count) * len(shown))
  for ax, (end, title) in zip(np.ravel(figure.subplots(len(shown), 1)), shown):
    forest(ax, scalars, end, labels, ("ate_unadjusted", "ate"), 6.5, {"_plain": 1.0, "": 3.0})
    ax.tick_params(axis="y", labelsize=6.5)
    ax.set_title(title)
  text = ("Each line says what has to be right for its estimate to be right. Thick intervals account for the estimated "
          "models, thin ones take them for known. Estimates that differ by more than their intervals say that one of "
          "the assumptions fails.")
  rest = len(panels) - len(shown)
  figure.set_label(text + f" {rest} further effects are not drawn." * bool(rest))
  return figure


def reasons(run: RunData) -> list[str]:
  """Why estimators are missing, for each outcome that lacks some."""
  record = run.evals[run.split] if run.split else {}
  scalars = record["scalars"] if "scalars" in record else {}
  found = {str(text) for name, text in scalars.items() if name.partition("/")[0] == "estimators_reason"}
  return sorted(found)


def findings(run: RunData) -> list[str]:
  """Whether the estimate that needs least agrees with the model, how far it is from tipping, and what is missing."""
  scalars, found = scalars_of(run), []
  value, low, high = (finite(scalars, f"ate_triply_robust{end}") for end in ("", "_low", "_high"))
  own = finite(scalars, "ate")
  if None not in (value, low, high, own):
    text = "The triply robust estimate needs two of the models of outcome, treatment and recording to be right. "
    found.append(text + ("Its interval holds what the model says." if low <= own <= high else
                         "What the model says is outside of its interval: see the figure estimators."))
  tipping = finite(scalars, "mnar_tipping")
  if tipping:
    found.append(f"The interval would include zero if the odds of unrecorded treatments were off by a factor of "
                 f"{np.exp(tipping):.2g}" + (": little is needed." if tipping < FAR else "."))
  crowded = finite(scalars, "rows_per_feature")
  if crowded is not None and crowded < CROWDED:
    found.append(f"The smallest group has {crowded:.2g} recorded rows for each feature: intervals of the estimators "
                 "without the model are too short.")
  return found + reasons(run)
