"""The assessment of an autoencoder: what comes back, in its own units and in GeV; what it costs in bits; how its codes
are used; and whether strange events have larger errors.

All is over slots that hold an object, by event weights. Bits of an event are those of its latents by the shares of
their codes in training (of a vae the divergence, of a latent that is not coded 32 bits a number), and log2(T + 1) for
how many objects there are.
"""

import functools
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.autoencoder import (apply, corruptions, generate, generated, latents, noise_levels, objective,
                                              ranking)
from jaxtrain.experiments.autoencoder.events import FEATURES, Events, wrap
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.nn import quantisers
from jaxtrain.types import Metric

SIGNAL = 1  # the process whose events are told from the others: tttt
SHOWN, MANY = 32, 20000  # events, and objects, that are kept for figures
TINY = 1e-30  # so that no division is by 0
COLLAPSED = 0.02  # of the codes, fewer of which are in use
UNITS = {"e": "GeV", "pt": "GeV", "eta": "", "phi": "rad"}
NAMES = {"e": "error_e_gev", "pt": "error_pt_gev", "eta": "error_eta", "phi": "error_phi_rad"}
METRICS = {
    "unexplained_variance": Metric("", "squared error of objects' normalised numbers, as a share of their variance: 0 "
                                   "is perfect, 1 is the mean", "lower", 1.0, key=True),
    "bits_per_event": Metric("bits", "cost of an event's latents and of how many objects it has", "lower", key=True),
    "perplexity_pooled": Metric("codes", "effective number of codes over all events, mean over stages", "higher",
                                key=True),
    "codes_used": Metric("codes", "codes that are used at all, mean over stages", "higher", key=True),
    "codes_dead": Metric("", "share of codes that are never used", "lower", limits=(0, 1)),
    "id_accuracy": Metric("", "share of objects whose type comes back", "higher", key=True, limits=(0, 1)),
    "exists_accuracy": Metric("", "share of slots of which it comes back whether they hold an object", "higher",
                              key=True, limits=(0, 1)),
    "error_pt_gev": Metric("GeV", "mean absolute error of an object's transverse momentum", "lower", key=True),
    "error_e_gev": Metric("GeV", "mean absolute error of an object's energy", "lower"),
    "error_eta": Metric("", "mean absolute error of an object's pseudorapidity", "lower"),
    "error_phi_rad": Metric("rad", "mean absolute error of an object's azimuth, around the circle", "lower"),
    "error_met_gev": Metric("GeV", "mean absolute error of missing transverse energy", "lower"),
    "error_met_phi_rad": Metric("rad", "mean absolute error of its azimuth, around the circle", "lower"),
    "unexplained/*": Metric("", "share of the variance of one normalised number that is not explained", "lower", 1.0),
    "bits_per_slot": Metric("bits", "cost of a latent", "lower"),
    "code_information": Metric("bits", "mutual information of an object's first code and its type", "higher"),
    "auroc_*": Metric("", "ranking of corrupted events above others by their error", "higher", 0.5, limits=(0, 1)),
    "image_error": Metric("", "root mean squared error of a pixel's brightness", "lower", key=True),
    "events": Metric("events", "events that were assessed"),
} | generated.METRICS


def ratio(over: np.ndarray, under: np.ndarray) -> tuple[float, float]:
  """(sum of over [N] by that of under [N], half width of its 95 % interval over rows, by linearisation)."""
  value = over.sum() / under.sum()
  return float(value), statistics.t_half_width((over - value * under) / under.mean())


def with_interval(name: str, over: np.ndarray, under: np.ndarray) -> dict[str, float]:
  """A scalar that is a ratio of sums over events, and its interval."""
  value, half = ratio(over, under)
  return {name: value, f"{name}_ci95": half}


def explained(meta: dict, given: dict, back: np.ndarray) -> dict[str, float]:
  """Shares of the variance of objects' normalised numbers that decoded numbers `back` [N, T, C] leave."""
  each = (given["ids"] > 0) * given["event_weight"][:, None]
  mean = np.einsum("nt,ntc->c", each, given["cont"].astype(np.float64)) / each.sum()
  square = np.einsum("nt,ntc->nc", each, np.square(back.astype(np.float64) - given["cont"]))
  spread = np.einsum("nt,ntc->nc", each, np.square(given["cont"] - mean))
  found = with_interval("unexplained_variance", square.sum(axis=1), spread.sum(axis=1))
  return found | {f"unexplained/{name}": float(square[:, c].sum() / max(spread[:, c].sum(), TINY))
                  for c, name in enumerate(meta["feature_names"])}


def errors(given: dict, back: dict) -> dict[str, float]:
  """Mean absolute errors in GeV and radians."""
  each, weight = (given["ids"] > 0) * given["event_weight"][:, None], given["event_weight"].astype(np.float64)
  gap = np.abs(back["momenta"].astype(np.float64) - given["momenta"])
  gap[..., 3] = np.abs(wrap(back["momenta"][..., 3].astype(np.float64) - given["momenta"][..., 3]))
  found = {}
  for k, name in enumerate(FEATURES):
    found |= with_interval(NAMES[name], (each * gap[..., k]).sum(axis=1), each.sum(axis=1))
  met = np.abs(back["met"].astype(np.float64) - given["met"])
  met[:, 1] = np.abs(wrap(back["met"][:, 1].astype(np.float64) - given["met"][:, 1]))
  return found | with_interval("error_met_gev", weight * met[:, 0], weight) | with_interval(
      "error_met_phi_rad", weight * met[:, 1], weight)


def type_scalars(p: Problem, given: dict, back: dict) -> tuple[dict, dict]:
  """(how often types and slots come back, [K, K] counts of true and decoded types).

  Counts are by event weights; those of a true type add up to its effective number of objects, so that intervals of
  shares hold.
  """
  if not p.decodes_types:
    return {}, {}
  K, there, weight = p.meta["num_types"], given["ids"] > 0, given["event_weight"].astype(np.float64)
  exists = back["exists"] > 0.5
  counts, squares = np.zeros((K, K)), np.zeros((K, 1))
  of_slots = np.broadcast_to(weight[:, None], there.shape)
  np.add.at(counts, (given["ids"], np.where(exists, back["ids"], 0)), of_slots)
  np.add.at(squares[:, 0], given["ids"], np.square(of_slots))
  each = there * weight[:, None]
  right = with_interval("id_accuracy", (each * (back["ids"] == given["ids"])).sum(axis=1), each.sum(axis=1))
  right |= with_interval("exists_accuracy", weight * (exists == there).sum(axis=1), weight * there.shape[1])
  return right, {"confusion": counts * counts.sum(axis=1, keepdims=True) / np.maximum(squares, TINY)}


def code_scalars(p: Problem, given: dict, back: dict) -> tuple[dict, dict]:
  """(how codes are used by held-out latents, counts of codes by event weights, also by type of object)."""
  if "index" not in back or not p.plan.num_codes:
    return {}, {}
  index, K = back["index"], p.plan.num_codes
  there = index[..., 0] >= 0
  weight = np.broadcast_to(given["event_weight"].astype(np.float64)[:, None], there.shape)[there]
  use = np.stack([np.bincount(index[..., q][there], weight, K) for q in range(index.shape[2])])
  found = {"perplexity_pooled": float(np.mean(quantisers.perplexity(use.astype(np.float32)))),
           "codes_used": float(np.mean((use > 0).sum(axis=1))), "codes_dead": float(np.mean(use == 0))}
  if p.of_images:
    return found, {"use": use}
  types = p.meta["num_types"] + 1  # the last is the event itself
  objects = given["ids"][:, :p.num_latents - p.has_event]
  kind = np.concatenate([objects, np.full((len(index), int(p.has_event)), types - 1)], axis=1)
  by_type = np.zeros((types, K))
  np.add.at(by_type, (kind[there], index[..., 0][there]), weight)
  return found | {"code_information": information(by_type[1:-1])}, {"use": use, "type_use": by_type}


def information(counts: np.ndarray) -> float:
  """Mutual information in bits of the two indices of counts [A, B]."""
  joint = counts / max(counts.sum(), TINY)
  chance = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
  return float(np.sum(joint[joint > 0] * np.log2(joint[joint > 0] / chance[joint > 0])))


def rate_scalars(p: Problem, given: dict, back: dict) -> tuple[dict, np.ndarray]:
  """(bits of an event and of a latent, bits [N] of each event)."""
  of_latents, weight = back["bits"].sum(axis=1).astype(np.float64), given["event_weight"].astype(np.float64)
  bits = of_latents + np.asarray(objective.side_bits(p, given))
  there = np.full(len(bits), p.num_latents) if p.of_images or p.legacy or p.has_prior else (
      (given["ids"] > 0).sum(axis=1) + p.has_event)
  return with_interval("bits_per_event", weight * bits, weight) | {
      "bits_per_slot": float((weight * of_latents).sum() / (weight * there).sum())}, bits


def kept(given: dict, back: dict) -> dict[str, np.ndarray]:
  """Events and objects for figures."""
  there = given["ids"] > 0
  decoded = np.where(back["exists"] > 0.5, back["ids"], 0)
  pick = lambda values: values[there][:MANY]
  first = lambda values: np.asarray(values[:SHOWN])
  return {"slots_true": pick(given["momenta"]), "slots_recon": pick(back["momenta"]), "slots_type": pick(given["ids"]),
          "slots_type_recon": pick(decoded),
          "slots_weight": pick(np.broadcast_to(given["event_weight"][:, None], there.shape)),
          "shown_true": first(given["momenta"]), "shown_recon": first(back["momenta"] * (decoded > 0)[..., None]),
          "shown_ids": first(given["ids"]), "shown_ids_recon": first(decoded), "shown_met": first(given["met"]),
          "shown_met_recon": first(back["met"]), "met_true": given["met"], "met_recon": back["met"],
          "event_error": back["error"], "event_label": given["label"], "event_weight": given["event_weight"]}


def assess_events(coder: apply.Coder, state: Any, given: dict) -> tuple[dict, dict]:
  """(scalars, arrays) of held-out events, columns of their source."""
  p, back = coder.problem, apply.apply(coder, state, apply.rows_of(given))
  rate, bits = rate_scalars(p, given, back)
  codes, counts = code_scalars(p, given, back)
  types, confusion = type_scalars(p, given, back)
  book = objective.codes_of(state)
  arrays = {"codes": np.asarray(book.codes)} if p.plan.kind in latents.WITH_CODEBOOK else {}
  return ({"events": len(bits)} | explained(p.meta, given, back["cont"]) | rate | codes | types | errors(given, back),
          arrays | counts | confusion | kept(given, back) | {"event_bits": bits})


def assess_images(coder: apply.Coder, state: Any, given: dict) -> tuple[dict, dict]:
  """(scalars, arrays) of held-out images."""
  p, back = coder.problem, apply.apply(coder, state, apply.rows_of(given))
  rate, bits = rate_scalars(p, given, back)
  codes, counts = code_scalars(p, given, back)
  x = given["image"].astype(np.float64)
  spread = np.square(x - x.mean(axis=0)).mean(axis=(1, 2, 3))
  error = back["error"].astype(np.float64)
  return ({"events": len(bits), "image_error": float(np.sqrt(error.mean()))} | rate | codes
          | with_interval("unexplained_variance", error, spread),
          counts | {"shown_images": x[:SHOWN, ..., 0], "shown_images_recon": back["image"][:SHOWN, ..., 0],
                    "event_error": back["error"], "event_bits": bits})


def assess_anomaly(coder: apply.Coder, state: Any, given: dict, key: Any) -> tuple[dict, dict]:
  """(how well errors tell corrupted events, and those of one process, from others; their scores)."""
  p, weight, found, arrays = coder.problem, given["event_weight"], {}, {}
  events = {"ids": given["ids"], "momenta": given["momenta"], "globals": given["met"]}
  def score(some):
    whole = Events(**some, label=given["label"], weight=weight)
    return apply.apply(coder, state, apply.rows_of_events(p.meta["scaler"], whole))["error"]
  normal = score(events)
  for k, name in enumerate(corruptions.CORRUPTIONS):
    random = np.random.RandomState([*np.asarray(key).tolist(), k])
    strange = score(corruptions.corrupt(name, events, random))
    found[f"auroc_{name}"], found[f"auroc_{name}_ci95"] = ranking.auroc(normal, strange, (weight, weight), paired=True)
    arrays[f"anomaly_{name}"] = strange
  signal, other = given["label"] == SIGNAL, given["label"] > SIGNAL
  if signal.any() and other.any():
    both = weight[other], weight[signal]
    found["auroc_tttt"], found["auroc_tttt_ci95"] = ranking.auroc(normal[other], normal[signal], both, paired=False)
  return found, arrays | {"event_error": normal}


def make_assess(p: Problem) -> dict[str, Callable]:
  """Parts of the assessment: what comes back and its cost; of events, strange ones too."""
  coder, assess = apply.make_coder(p), assess_images if p.of_images else assess_events

  def columns(splits, name):
    source = getattr(splits, name)
    return source.rows(np.arange(source.num_rows))

  def part(name, state, splits, key):
    return assess(coder, state, columns(splits, name))

  def anomaly(state, splits, key):
    return assess_anomaly(coder, state, columns(splits, "test"), jax.random.key_data(key))

  found = {"val": functools.partial(part, "val"), "test-events": functools.partial(part, "test")}
  made = {"test-generated": generate.make_assess(p)} if p.has_prior else {}
  if p.denoising:
    made["test-levels"] = noise_levels.make_assess(p)
  return found if p.of_images else found | {"test-anomaly": anomaly} | made


def alarms(p: Problem, means: dict[str, float]) -> list[str]:
  """What has degenerated: a codebook that is hardly used, a decoder that gives the mean, a latent that says nothing."""
  found = []
  if "val_codes_used" in means and means["val_codes_used"] < max(2.0, COLLAPSED * p.plan.num_codes):
    found.append(f"the codebook has collapsed: {means['val_codes_used']:.0f} of {p.plan.num_codes} codes are used")
  # One latent of an event is meant for what events are like, not for each of their objects.
  if not p.has_prior and "val_unexplained_variance" in means and means["val_unexplained_variance"] > 0.95:
    found.append(f"events come back as their mean: {means['val_unexplained_variance']:.2f} of the variance is not "
                 "explained")
  if p.plan.kind == "vae" and "val_kl" in means and means["val_kl"] < 0.01:
    found.append(f"the latent says nothing: its divergence from the prior is {means['val_kl']:.4f} nats")
  return found
