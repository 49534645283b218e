"""The parts of a tabular VAE's assessment: the rows of each split, and of the last split there is the parts that
`config.eval.parts` names. Models beside it are fitted on training rows.
"""

import functools
from typing import Callable, NamedTuple

import jax
import numpy as np

from jaxtrain.config import limits
from jaxtrain.data import blocks
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import (bound, clusters, evaluate, held_out, imputation, predict, probes,
                                              transfer)
from jaxtrain.experiments.tabular_vae.held_out import HeldOut
from jaxtrain.types import Metric

PARTS = ("clusters", "probes", "imputation", "transfer")
DENSITY = "the density of rows"  # which is no part of its own
OF_HELD_OUT = PARTS[1:]  # what says nothing of rows that models were fitted on
OF_NUMBERS = "imputation"  # what has no peers that fill categories
SPLITS = ("train", "val", "test")
LIMITS = {
    "eval.parts": limits.each(limits.one_of(*PARTS)),
    "eval.clusters": limits.each(limits.whole(2, 1000)),
    "eval.fit_rows": limits.whole(100),
    "eval.probe_rows": limits.whole(100),
    "eval.importance_samples": limits.whole(0, 4096),
    "eval.impute_blocks": limits.names(),
    "eval.transfer": limits.names(),
}
SINCE = {"eval.parts": (), "eval.clusters": (10, 12, 15, 18, 20), "eval.fit_rows": 20_000, "eval.probe_rows": 40_000,
         "eval.importance_samples": 64, "eval.impute_blocks": (), "eval.transfer": ()}
METRICS = {
    "iw_nll_nats": Metric("nats", "bound on minus the log-density of a row in standardised units, by importance "
                          "samples of the posterior", "lower"),
    "iw_rows": Metric("rows", "rows without holes that densities are of"),
    "gaussian_nll_nats": Metric("nats", "the same of one normal distribution with the covariance of training rows",
                                "lower"),
    "groups": Metric("groups", "groups that rows come in; from 5 on, intervals of held-out rows resample whole ones"),
    "parts_reason": Metric("", "which parts of the assessment were left out, and why"),
} | clusters.METRICS | probes.METRICS | imputation.METRICS | transfer.METRICS


class Plan(NamedTuple):
  """What is assessed.

  Attributes:
    parts: names of the parts beside the rows themselves.
    numbers: of clusters.
    fit_rows, probe_rows: training rows that models are fitted on, at most; probes have their own number.
    draws: from the posterior of a row, for its density; 0 = none.
    own_likelihoods: whether the decoder has other likelihoods than the squared error.
    blocks: features that are hidden together. columns: other measurements that are predicted.
    passes: of the model's imputation.
  """
  parts: tuple[str, ...]
  numbers: tuple[int, ...]
  fit_rows: int
  probe_rows: int
  draws: int
  own_likelihoods: bool
  blocks: tuple[str, ...]
  columns: tuple[str, ...]
  passes: int


def plan_of(config, meta: dict) -> Plan:
  """The plan of a config. Raises UserError for a block of features that cannot be hidden."""
  of, masked = config.eval, config.loss.mask_rate > 0 or config.data.incomplete == "mask"
  imputation.subsets(meta["features"], tuple(of.impute_blocks))
  if len(set(of.parts)) < len(of.parts):
    raise UserError(f"config.eval.parts: got {of.parts}, allowed each once")
  own = "kinds" in meta or config.model.noise == "learned"
  return Plan(tuple(of.parts), tuple(of.clusters), of.fit_rows, of.probe_rows, of.importance_samples, own,
              tuple(of.impute_blocks), tuple(of.transfer), 1 if masked else predict.NUM_IMPUTE)


def last_split(meta: dict) -> str:
  """The last split that has rows: what is held out, or train, also where nothing is known of the rows."""
  return [name for name in SPLITS if meta["rows"][name]][-1] if "rows" in meta else "train"


def left_out(plan: Plan, meta: dict) -> dict[str, str]:
  """Why parts are left out, by name."""
  found = {}
  if plan.draws and plan.own_likelihoods:
    found[DENSITY] = "it is of squared errors, and the decoder has other likelihoods"
  for part in plan.parts:
    if part == OF_NUMBERS and "kinds" in meta:
      found[part] = "the table has whole numbers, categories or spikes, which the methods beside the model do not fill"
    elif part in OF_HELD_OUT and last_split(meta) == "train":
      found[part] = "no rows are held out"
    elif part == "probes" and not meta["class_names"]:
      found[part] = "rows have no labels"
    elif part == "imputation" and not imputation.subsets(meta["features"], plan.blocks):
      found[part] = "no feature is named in config.eval.impute_blocks, and there are too many or too few to hide each"
    elif part == "transfer" and not plan.columns:
      found[part] = "config.eval.transfer names no column"
  return found


def can_impute(plan: Plan, meta: dict) -> bool:
  """Whether imputation is assessed where `eval.parts` names it."""
  return "imputation" not in left_out(plan._replace(parts=("imputation",)), meta)


def reason(plan: Plan, meta: dict) -> str:
  """What is left out, in a line; empty where nothing is."""
  why = left_out(plan, meta)
  return f"Left out of the assessment: {'; '.join(f'{part} ({words})' for part, words in why.items())}." if why else ""


def make_assess(model, meta: dict, plan: Plan, with_umap: bool) -> dict[str, Callable]:
  """All parts: `(state, splits, key) -> (scalars, arrays)` by name."""
  rows_of, last, why = evaluate.make_assess(model, meta, with_umap), last_split(meta), left_out(plan, meta)
  of_density = bound.make_bound(model, plan.draws) if plan.draws and DENSITY not in why else None
  impute = functools.partial(predict.impute, plan.passes, model)
  told = {"parts_reason": reason(plan, meta)} if why else {}

  def of_rows(name, state, splits, key):
    scalars, arrays = rows_of[name](state, splits, key)
    return scalars | density(of_density, name, state, splits, key) | (told if name == last else {}), arrays

  def of_part(part, state, splits, key):
    most = plan.probe_rows if part == "probes" else plan.fit_rows
    held = gather(model, meta, state, splits, last, most)
    if part == "clusters":
      return clusters.assess(held, plan.numbers)
    if part == "probes":
      return probes.assess(held)
    if part == "transfer":
      return transfer.assess(held, plan.columns)
    fill = lambda x: blocks.in_blocks(impute, predict.variables_of(state), x)
    return imputation.assess(held, plan.blocks, fill)

  more = [part for part in plan.parts if part not in why]
  own = {f"{name}-rows" if name == last and more else name: functools.partial(of_rows, name) for name in SPLITS}
  return own | {f"{last}-{part}": functools.partial(of_part, part) for part in more}


def density(assess: Callable | None, name: str, state, splits, key) -> dict[str, float]:
  """Scalars of the density of some rows of a split; {} where it is not wanted, or all rows have holes."""
  if assess is None:
    return {}
  train, rows = some_rows(splits.train, bound.MOST_ROWS), some_rows(getattr(splits, name), bound.MOST_ROWS)
  x = [part["x"] if "observed" not in part else part["x"][(part["observed"] > 0).all(axis=1)] for part in (train, rows)]
  if min(map(len, x)) < 2:
    return {}
  whole = (rows["observed"] > 0).all(axis=1) if "observed" in rows else np.ones(len(rows["x"]), bool)
  groups = held_out.groups_of({part: column[whole] for part, column in rows.items()})
  seed = np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), 2])  # 2: not that of prior samples
  return assess(state, x[0], x[1], groups, jax.random.key(seed.integers(2 ** 31)))


def some_rows(source, most: int, seed: int = held_out.FIT_SEED) -> dict[str, np.ndarray]:
  """Up to so many rows of a source, drawn at random."""
  return source.rows(held_out.some(source.num_rows, most, seed))


def gather(model, meta: dict, state, splits, last: str, fit_rows: int) -> HeldOut:
  """Training rows to fit on, and rows of a split to score."""
  train = some_rows(splits.train, fit_rows)
  rows = some_rows(getattr(splits, last), held_out.SCORED_ROWS, held_out.SCORE_SEED) if last != "train" else train
  out = evaluate.apply_model(model, state, rows["x"])
  as_plain = lambda named: named | {"x": held_out.plain(meta, named["x"])}
  fitted = held_out.rows_of(as_plain(train), evaluate.apply_model(model, state, train["x"]))
  scored = held_out.rows_of(as_plain(rows), out)
  log_prob = out["log_prob"] if "log_prob" in out else None
  return HeldOut(fitted, scored, held_out.groups_of(rows), log_prob, meta["features"], meta["class_names"])
