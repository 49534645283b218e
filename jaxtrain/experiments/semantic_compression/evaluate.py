"""The assessment of a codec: real bits, what came back, what of its meaning, and what others make of the same states.

Bits are those of the file's blocks, without its head: the rate that grows with the number of states. Errors are shares
of ranges. `excess_bits` compares both with an ideal scalar quantiser of each column at the errors of this run
(`oracle`).
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import losses, rng, statistics
from jaxtrain.data import blocks
from jaxtrain.experiments.semantic_compression import (apply, baselines, behaviour, coding, freeze,
                                                       generators, lossless, objective, oracle, preservation,
                                                       probes, schema as schema_lib)
from jaxtrain.types import Metric

PERCENT = "% of the range"
SHOWN = 1000  # states whose vectors are kept for figures
METRICS = {
    "bits_per_state": Metric("bits", "real rate: bits of the blocks of a file, of a state", "lower", key=True),
    "excess_bits": Metric("bits", "rate above that of ideal scalar quantisers at this run's errors; below 0 is better "
                          "than those. Of a trajectory these know the state before, but of each agent's first", "lower",
                          key=True),
    "rmse_percent": Metric(PERCENT, "root mean squared error, mean over numeric columns", "lower", key=True),
    "skill": Metric("", "preservation where the mean of the training states has 0 and the states themselves have 1",
                    "higher", 0.0, key=True, words="skill over the mean state"),
    "action_agreement": Metric("", "share of states in which a rule policy does the same", "higher", key=True,
                               limits=(0, 1)),
    "meaning_score": Metric("", "preservation and agreement of actions by their weights, 2 to 1", "higher"),
    "preservation": Metric("", "similarity of the features that carry meaning, weighted mean", "higher"),
    "preservation_*": Metric("", "the same of a group of features", "higher"),
    "similarity_*": Metric("", "1 / (1 + root of the loss) of a feature", "higher"),
    "fidelity": Metric("", "share of right answers, or exp(-RMSE), mean over features", "higher", limits=(0, 1)),
    "fidelity_*": Metric("", "the same of a group of features", "higher"),
    "drift": Metric("", "1 less preservation: what of the meaning is lost", "lower"),
    "drift/*": Metric("", "the same of a group of features", "lower"),
    "equivalence": Metric("", "similarity of features, by weights for whether two agents are alike", "higher"),
    "rmse_percent_max": Metric(PERCENT, "root mean squared error of the worst column", "lower"),
    "wrong": Metric("", "share of wrong values of a discrete column", "lower", limits=(0, 1)),
    "elbo_bits": Metric("bits", "evidence lower bound of a state, of a sample of the latent and with all weights 1; "
                        "numbers are in ranges, and Normal with the level's deviation", "higher"),
    "lossless_bits": Metric("bits", "real rate of the blocks of a lossless file, of a state", "lower",
                            key=True),
    "lossless_file_bits": Metric("bits", "the same with the tables that such a file holds, which count less with more "
                                 "states: what stands beside gzip", "lower"),
    "f1": Metric("", "F1 of a binary feature", "higher", limits=(0, 1)),
    "modelled_bits": Metric("bits", "rate by the tables that states are coded with", "lower"),
    "bits": Metric("bits", "rate of the symbols of a group of columns, by the tables"),
    "shannon_gap": Metric("bits", "rate above Shannon's lower bound at this run's errors", "lower"),
    "gap_per_dimension": Metric("bits", "rate above R(D) of the Gaussian source, of a dimension", "lower"),
    "codes_used_share": Metric("", "share of the codes that these states use", "higher", limits=(0, 1)),
    "code_information": Metric("bits", "mutual information of a code and the first categorical column", "higher"),
    "rows": Metric("rows", "states that were assessed"),
} | baselines.METRICS | probes.METRICS


def error_scalars(schema: schema_lib.Schema, rmse: dict, wrong: dict) -> dict[str, float]:
  """Scalars of `preservation.errors`, those of numbers as per cent of their ranges."""
  share = {name: 100 * value / (schema.column[name].high - schema.column[name].low) for name, value in rmse.items()}
  found = {f"rmse_percent/{name}": value for name, value in share.items()} | {
      f"wrong/{name}": value for name, value in wrong.items()}
  if share:
    found |= {"rmse_percent": float(np.mean(list(share.values()))), "rmse_percent_max": max(share.values())}
  return found


def rate_scalars(p: objective.Problem, symbols: np.ndarray, code: Any) -> tuple[dict[str, float], np.ndarray]:
  """(real and modelled bits with the interval of the modelled ones, and those of groups; modelled bits [N, S] of each
  symbol).
  """
  coded = coding.encode(code, symbols, apply.BLOCK_SIZE)
  bits = coding.bits(code, symbols, apply.BLOCK_SIZE)
  per_state = bits.sum(axis=1)
  found = {"bits_per_state": 8 * sum(map(len, coded)) / len(bits), "modelled_bits": float(per_state.mean()),
           "bits_per_state_ci95": statistics.t_half_width(per_state)}
  groups = np.array([group for _, group in apply.slots(p)])
  for group in dict.fromkeys(groups.tolist()):
    found[f"bits/{group}"] = float(bits[:, groups == group].sum(axis=1).mean())
  return found, bits


def entropies_of(meta: dict, rmse: dict) -> list[tuple[float, oracle.Entropies]]:
  """(share of the states, their entropies) of a source at errors of the decoded states, physical units.

  Of a trajectory these are of an agent's first state, and of one given the state before as it was decoded, whether the
  codec reads that or not: the excess of a codec that codes each state alone has what it forgoes.
  """
  if "dynamics" not in meta["table"]:
    return [(1.0, oracle.Entropies(**meta["entropies"]))]
  added, dynamics = tuple(meta["table"]["blocks"]), meta["table"]["dynamics"]
  first = 1 / dynamics["num_steps"]
  return [(first, generators.start_entropies(added, **dynamics)),
          (1 - first, of_trajectory(added, tuple(dynamics.items()), tuple(rmse.items())))]


@functools.lru_cache(maxsize=64)
def of_trajectory(blocks: tuple[str, ...], dynamics: tuple, rmse: tuple) -> oracle.Entropies:
  """The entropy rate of a trajectory, kept: the parts of an assessment ask for the same errors."""
  return generators.entropies("trajectory", blocks, decoder_rmse=dict(rmse), **dict(dynamics))


def line_scalars(meta: dict, bits: float, rmse: dict, wrong: dict) -> dict[str, float]:
  """Bits above the lines of a source whose entropies are known (`entropies_of`); nothing for others."""
  if meta["entropies"] is not None:
    known = entropies_of(meta, rmse)
    return {"excess_bits": sum(share * oracle.excess_bits(bits, part, rmse, wrong) for share, part in known),
            "shannon_gap": bits - sum(share * oracle.shannon_bits(part, rmse, wrong) for share, part in known)}
  if "eigenvalues" not in meta["table"]:
    return {}
  bound, scalar = oracle.gaussian_lines(np.asarray(meta["table"]["eigenvalues"]),
                                        float(np.mean(np.square(list(rmse.values())))))
  return {"gap_per_dimension": (bits - bound) / len(rmse), "excess_bits": bits - scalar}


def line_arrays(meta: dict, schema: schema_lib.Schema) -> dict[str, np.ndarray]:
  """The lines of a source whose entropies are known, over errors that are the same share of each range; of a Gaussian
  source R(D), and that of scalar quantisers of its components, at equal errors of all dimensions.
  """
  if "eigenvalues" in meta["table"]:
    percent = np.geomspace(0.2, 20, 41)
    at = [np.mean(np.square(list(oracle.rmse_of_shares(schema, share / 100).values()))) for share in percent]
    lines = np.array([oracle.gaussian_lines(np.asarray(meta["table"]["eigenvalues"]), float(D)) for D in at])
    return {"line_rmse_percent": percent, "line_scalar_bits": lines[:, 1], "line_shannon_bits": lines[:, 0]}
  if meta["entropies"] is None:
    return {}
  percent = np.geomspace(0.2, 20, 9 if "dynamics" in meta["table"] else 41)  # each is a quadrature of a trajectory
  at = [oracle.rmse_of_shares(schema, share / 100) for share in percent]
  known = [entropies_of(meta, rmse) for rmse in at]
  line = lambda bits: np.array([sum(share * bits(part, rmse) for share, part in parts)
                                for parts, rmse in zip(known, at)])
  return {"line_rmse_percent": percent, "line_scalar_bits": line(oracle.scalar_bits),
          "line_shannon_bits": line(oracle.shannon_bits)}


def code_scalars(p: objective.Problem, symbols: np.ndarray, given: schema_lib.Record) -> dict[str, float]:
  """How many codes of a codebook are used, and what one says of the first categorical column."""
  if p.plan.kind != "vq":
    return {}
  found = {"codes_used_share": float(np.mean([len(np.unique(of_slot)) / p.plan.num_codes for of_slot in symbols.T]))}
  named = [column.name for column in p.schema.columns if column.kind == "categorical"]
  return found | ({"code_information": baselines.mutual_information(symbols[:, 0], given[named[0]])} if named else {})


def assess_rate(coder: apply.Coder, meta: dict, state: Any, x: np.ndarray, train: np.ndarray) -> tuple[dict, dict]:
  """(scalars, arrays) of the rate, the errors, and the meaning that is kept, of states x [N, D]; `train` are vectors
  whose mean a skill is measured against.
  """
  p = coder.problem
  given = schema_lib.decode(p.schema, x)
  scalars, arrays = {"rows": len(x)}, {}
  if p.plan.coded:
    symbols = apply.to_symbols(coder, state, x)
    found, bits = rate_scalars(p, symbols, freeze.freeze(p, state))
    r = apply.to_output(coder, state, symbols)
    scalars |= found | code_scalars(p, symbols, given)
    arrays = {"bits_of_slot": bits.mean(axis=0)} | line_arrays(meta, p.schema)
  else:
    r = apply.straight(coder, state, x)
  back = schema_lib.decode(p.schema, r)
  rmse, wrong = preservation.errors(p.schema, given, back)
  kept = preservation.scores(p.schema, given, back)
  mean = preservation.mean_prediction(p.schema, schema_lib.decode(p.schema, train), len(x))
  scalars |= error_scalars(p.schema, rmse, wrong) | preservation.flat(kept) | {
      "drift": 1 - kept.overall,
      "skill": preservation.skill(kept.overall, preservation.scores(p.schema, given, mean).overall)}
  if p.plan.coded:
    scalars |= line_scalars(meta, scalars["bits_per_state"], rmse, wrong)
  if behaviour.applies(p.schema):
    scalars["action_agreement"], arrays["actions"] = behaviour.agreement(p.schema, given, back)
    scalars["meaning_score"] = behaviour.unified_score({"preservation": kept.overall,
                                                        "agreement": scalars["action_agreement"]})
  for name, found in preservation.details(p.schema, given, back).items():
    scalars |= {f"f1/{name}": found["f1"]} if "f1" in found else {}
    arrays |= {f"confusion_{name}": np.asarray(found["confusion"])} if "confusion" in found else {}
  return scalars, arrays | {"sample_x": x[:SHOWN], "sample_r": r[:SHOWN]}


def make_evidence(p: objective.Problem) -> Callable:
  """`(variables, rows [B, D + L]: states, and standard normal numbers) -> [B]`, the evidence lower bound of a
  variational autoencoder in bits, of a sample of the latent; for `blocks.in_blocks`.

  log2 p(x | y) - KL(q(y | x) || Normal) / ln 2, all weights 1. A number in shares of its range is Normal about what
  comes back, with the deviation that the level says: level / 100 times the factor of its group. Bits and classes are as
  probable as their logits say. With numbers it is a density's, and may be above 0. **Source:** Kingma & Welling 2014
  (Auto-Encoding Variational Bayes), eq. 3.
  """
  D, weight = p.schema.width, p.column_weight[p.column_weight > 0]  # 1 / factor^2 of numbers

  def evidence(given, rows):
    bound, x, deviation = p.model.bind({"params": given["params"]}), rows[:, :D], given["level"] / 100
    y, log_var = bound.analyse(x, given["level"])
    r = bound.synthesise(y + jnp.exp(0.5 * log_var) * rows[:, D:], given["level"])
    bits = objective.column_losses(p, x, r)
    exponent = bits.pop("recon") / (2 * objective.NATS * jnp.square(deviation))
    unit = len(weight) * jnp.log2(deviation * np.sqrt(2 * np.pi)) - 0.5 * np.log2(weight).sum()
    kl = jnp.sum(losses.gaussian_kl_nats(y, log_var), axis=1) / objective.NATS
    return -(exponent + unit + sum(bits.values()) + kl)
  return evidence


def evidence_scalars(p: objective.Problem, evidence: Callable, state: Any, x: np.ndarray, key: jax.Array
                     ) -> dict[str, float]:
  """The mean of the evidence lower bound of states x [N, D], and its interval."""
  normal = np.asarray(rng.normal(key, (len(x), p.model.layout.size)))
  bits = blocks.in_blocks(evidence, apply.variables(p, state), np.concatenate([x, normal], axis=1)).astype(np.float64)
  return {"elbo_bits": float(bits.mean()), "elbo_bits_ci95": statistics.t_half_width(bits)}


def lossless_scalars(coder: apply.Coder, state: Any, x: np.ndarray) -> dict[str, float]:
  """Real bits of states x [N, D] that come back bit for bit: of a file's blocks, and with the tables that it holds."""
  p, names = coder.problem, tuple(name for name, _ in apply.slots(coder.problem))
  symbols, code, residuals = lossless.extend(p.schema, names, apply.to_symbols(coder, state, x),
                                             schema_lib.decode(p.schema, x), freeze.freeze(p, state))
  size = sum(map(len, coding.encode(code, symbols, apply.BLOCK_SIZE)))
  tables = len(lossless.to_bytes(code, residuals))
  return {"lossless_bits": 8 * size / len(x), "lossless_file_bits": 8 * (size + tables) / len(x)}


def make_assess(p: objective.Problem, meta: dict, exact: bool) -> dict[str, Callable]:
  """Parts of the assessment: rate and errors, other methods, and what can be read from the symbols; `exact`: the rate
  of files that lose nothing too.
  """
  coder, evidence = apply.make_coder(p), make_evidence(p)

  def vectors(splits, name):
    source = getattr(splits, name)
    return source.rows(np.arange(source.num_rows))["x"]

  def rate(name, state, splits, key):
    x = vectors(splits, name)
    scalars, arrays = assess_rate(coder, meta, state, x, vectors(splits, "train"))
    if not p.plan.coded:
      scalars |= evidence_scalars(p, evidence, state, x, key)
    return scalars | (lossless_scalars(coder, state, x) if exact and p.plan.coded else {}), arrays

  def others(name, state, splits, key):
    x = vectors(splits, name)
    return baselines.compare(p.schema, vectors(splits, "train"), x, apply.straight(coder, state, x)), {}

  def read(name, state, splits, key):
    return probes.assess(coder, state, vectors(splits, "train"), vectors(splits, name))

  found = {"train": functools.partial(rate, "train"), "val": functools.partial(rate, "val"),
           "test-rate": functools.partial(rate, "test"), "test-others": functools.partial(others, "test")}
  return found | ({"test-probes": functools.partial(read, "test")} if p.plan.coded else {})
