"""What a run says in words: which effect, how sure, what would change it. It stands at the head of the report.

Everything is read from the scalars of an assessment; no JAX.
"""

import numpy as np

from jaxtrain.jsonable import number
from jaxtrain.report.figures import clip_text
from jaxtrain.report.page import with_interval
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

WIDTH = 5.3  # inches of a figure: what a phone shows without scrolling sideways
WEAK_F, BALANCED = 10, 0.1
LITTLE_OVERLAP = 0.1  # share of rows with an improbable class
FEW_RECORDED = 30  # rows below which the intervals are known to be too short
APART = 0.1  # nats between the imputing head and Bayes' rule
COVERED = (0.85, 0.95)  # of intervals of 90 %


def scalars_of(run: RunData) -> dict:
  """The scalars of the part that is shown; {} where there is none."""
  return reading.scalars(run.evals[run.split]) if run.split else {}


def finite(scalars: dict, name: str) -> float | None:
  """A scalar; None where it is absent or not finite."""
  value = number(scalars.get(name))
  return value if value is not None and np.isfinite(value) else None


def contrasts(run: RunData) -> list[tuple[str, str]]:
  """(ending of the names of scalars, title) of each class against the control, of each outcome."""
  classes, outcomes = run.meta.get("class_names") or (), run.meta.get("outcomes") or ()
  found = []
  for k, outcome in enumerate(outcomes):
    for j in range(1, len(classes)):
      end = f"/{classes[j]}" * (j > 1) + f"/{outcome}" * (k > 0)
      found.append((end, clip_text(f"{classes[j]} against {classes[0]} on {outcome}", 60)))
  return found


def with_ends(scalars: dict, name: str, end: str) -> str:
  """An estimate with half of its interval, as text."""
  value, low, high = (finite(scalars, f"{name}{side}{end}") for side in ("", "_low", "_high"))
  return with_interval(value, None if low is None or high is None else (high - low) / 2)


def agrees(scalars: dict, end: str) -> bool | None:
  """Whether the interval of the estimate without the model holds that of the model; None where either is missing."""
  value, low, high = (finite(scalars, f"{name}{end}") for name in ("ate", "ate_aipw_low", "ate_aipw_high"))
  return None if value is None or low is None or high is None else low <= value <= high


def which_effect(scalars: dict, contrast: tuple[str, str]) -> str:
  """The effect of a contrast with its interval, by the estimator that needs least where there is one, beside the
  model's and the difference that is seen without adjusting; and whether to quote it.
  """
  end, title = contrast
  own, agree = with_ends(scalars, "ate", end), agrees(scalars, end)
  if finite(scalars, f"ate_triply_robust_low{end}") is None:
    text = f"The average effect of {title} is {own} (95 % interval, which leaves out the error of the model itself)."
  else:
    text = (f"The average effect of {title} is {with_ends(scalars, 'ate_triply_robust', end)} by the triply robust "
            f"estimate (95 % interval){': quote this one' * (agree is not False)}. The model says {own}, an interval "
            "that leaves out the error of the model itself.")
  if finite(scalars, f"ate_unadjusted{end}") is not None:
    text += (f" Without adjusting for covariates the groups differ by {with_ends(scalars, 'ate_unadjusted', end)}.")
  if agree is not None:
    other = with_ends(scalars, "ate_aipw", end)
    text += f" The doubly robust estimate, without the model, is {other}, and " + (
        "agrees with the model." if agree else
        "its interval does not hold the model's effect: trust none of these estimates until you know why.")
  return text


def what_changes_it(scalars: dict, end: str) -> list[str]:
  """What a hidden confounder would need, and which rows were recorded: the assumptions that data cannot check."""
  found = []
  strengths = {"the model's effect": finite(scalars, f"e_value{end}"),
               "the triply robust estimate": finite(scalars, f"e_value_triply_robust{end}")}
  if known := [(what, strength) for what, strength in strengths.items() if strength is not None]:
    what, strength = known[-1]  # of the estimate that `which_effect` opens with
    found.append("The effect assumes that the covariates hold all that drives both treatment and outcome. To explain "
                 f"{what} away, a hidden confounder would have to make both of them {strength:.2f} times as likely "
                 "(E-value).")
  rows, recorded = finite(scalars, "rows"), finite(scalars, "rows_recorded")
  if rows and recorded is not None and recorded < rows:
    found.append(f"The treatment is recorded in {100 * recorded / rows:.0f} % of these rows. The effect assumes that "
                 "whether it is recorded depends on covariates and outcomes alone, not on the treatment itself.")
  return found


def warnings(scalars: dict) -> list[str]:
  """What the diagnostics found wrong."""
  found = []
  outside, smd, gap = (finite(scalars, name) for name in ("overlap_outside", "smd_after_max", "consistency_gap"))
  recorded, covered, f = (finite(scalars, name) for name in ("rows_recorded", "coverage_90", "first_stage_f"))
  if outside is not None and outside > LITTLE_OVERLAP:
    found.append(f"{100 * outside:.0f} % of rows have a class with a propensity below 0.05: for them the effect "
                 "is a guess of the model, because almost no row like them had the other treatment.")
  if smd is not None and smd > BALANCED:
    found.append(f"A covariate still differs by {smd:.2f} standard deviations between the groups after weighting with "
                 "the model's propensity (0.1 or less is balanced): see the figure balance.")
  if recorded is not None and recorded < FEW_RECORDED:
    found.append(f"Only {recorded:.0f} rows have a recorded treatment: intervals without the model are too short.")
  if covered is not None and not COVERED[0] <= covered <= COVERED[1]:
    found.append(f"The model's 90 % intervals hold {100 * covered:.0f} % of outcomes: its deviations are off.")
  if gap is not None and gap > APART:
    found.append(f"The imputing head is {gap:.2f} nats from what Bayes' rule makes of the other networks: train "
                 "longer, or raise loss.weights.consistency_y.")
  if f is not None and f < WEAK_F:
    found.append(f"The instrument is weak (first-stage F {f:.3g}, below 10): do not trust its interval.")
  return found


def findings(run: RunData) -> list[str]:
  """Sentences about the first contrast of the part that is shown, and warnings; [] where nothing was assessed."""
  scalars = scalars_of(run)
  there = [one for one in contrasts(run) if finite(scalars, f"ate{one[0]}") is not None]
  if not there:
    return []
  return [which_effect(scalars, there[0]), *what_changes_it(scalars, there[0][0]), *warnings(scalars)]
