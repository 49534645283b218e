"""What a run of an autoencoder says in words, at the head of its page: how faithful it is, what an event costs, how
well the codebook is used, and which corruptions its error sees. All is read from the scalars of an assessment.
"""

import numpy as np

from jaxtrain.jsonable import flatten, number
from jaxtrain.report.page import fmt, with_interval
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

VERDICTS = ((0.8, "excellent"), (0.5, "good"), (0.2, "fair"), (0.0, "poor"))  # share of codes in use, above which
SEEN = 0.7  # AUROC from which a corruption is said to be seen; one whose interval holds 0.5 is not
SAME = ("token_shuffle",)  # corruptions that networks which treat slots alike cannot see
CODED = ("vq", "fsq", "rvq")  # kinds of latent space that are symbols
LOST = 0.05  # share of objects of another type, and of slots that are wrong about an object, worth a sentence
ERRORS = {"error_pt_gev": "{} GeV in pT", "error_e_gev": "{} GeV in energy", "error_eta": "{} in eta",
          "error_phi_rad": "{} rad in phi", "error_met_gev": "{} GeV in missing transverse energy"}


def scalars_of(run: RunData) -> dict:
  """The scalars of the part that is shown, else of the first that was held out; {} where there is none."""
  split = run.split or next((part for part in ("test", "val") if part in run.evals), "")
  return reading.scalars(run.evals[split]) if split else {}


def finite(scalars: dict, name: str) -> float | None:
  """A scalar; None where it is absent or not finite."""
  value = number(scalars[name]) if name in scalars else None
  return value if value is not None and np.isfinite(value) else None


def setting(run: RunData, key: str):
  """A field of the run's config by its dotted key; None where it has none."""
  found = dict(flatten(run.config))
  return found[key] if key in found else None


def corruptions(scalars: dict) -> list[str]:
  """Names of the corruptions whose AUROC is known."""
  return [name.removeprefix("auroc_") for name in scalars
          if name.startswith("auroc_") and not name.endswith("_ci95") and finite(scalars, name) is not None]


def num_codes(scalars: dict) -> int | None:
  """Codes of a stage, of the number that is used and the share that is dead; None where nothing counts them."""
  used, dead = finite(scalars, "codes_used"), finite(scalars, "codes_dead")
  return None if used is None or dead is None or not used or dead >= 1 else round(used / (1 - dead))


def verdict(share: float) -> str:
  """How good a share of codes in use is, in a word."""
  return next((word for least, word in VERDICTS if share > least), VERDICTS[-1][1])


def faithful(scalars: dict) -> list[str]:
  """How much of the variance is lost, and how large errors are in physical units."""
  lost = finite(scalars, "unexplained_variance")
  if lost is None:
    return []
  half = finite(scalars, "unexplained_variance_ci95")
  value = with_interval(100 * lost, None if half is None else 100 * half)
  text = f"The reconstruction leaves {value} % of the variance of held-out features unexplained."
  errors = [words.format(fmt(value)) for name, words in ERRORS.items() if (value := finite(scalars, name)) is not None]
  return [text + f" Errors are {', '.join(errors)}." * bool(errors)]


def cost(run: RunData, scalars: dict) -> list[str]:
  """Bits of an event, or that the latent space is no code."""
  bits, of_slot = finite(scalars, "bits_per_event"), finite(scalars, "bits_per_slot")
  kind = setting(run, "model.latent.kind")
  if bits is None:
    return []
  if kind in ("none", "linear"):
    return [f"The latent space is not quantised (kind {kind}): as numbers of 32 bits an event takes {fmt(bits)} bits."]
  text = f"An event costs {fmt(bits)} bits" + (f", {fmt(of_slot)} a slot" if of_slot is not None else "")
  return [text + (" in the mean divergence from the prior." if kind == "vae" else
                  ", by the frequencies of the codes.")]


def codebook_use(run: RunData, scalars: dict) -> list[str]:
  """A verdict on the use of the codes."""
  total, pooled = num_codes(scalars), finite(scalars, "perplexity_pooled")
  if total is None or setting(run, "model.latent.kind") not in (*CODED, None):
    return []
  used = finite(scalars, "codes_used")
  word = verdict(used / total)
  # codes of a model that has learned little are used too
  share = f"{used:,.0f} of {total:,} ({100 * used / total:.0f} %)"
  text = f"Use of the codes, whatever they keep of an event, is {word}: {share} occur in held-out events"
  text += f", which are used as {pooled:,.0f} equally frequent ones would be (perplexity)." if pooled else "."
  if word in ("fair", "poor"):
    text += " Fewer codes, a larger model.latent.revive_below or longer training would use them better."
  return [text]


def types_lost(scalars: dict) -> list[str]:
  """How many objects come back as another type, where these are many."""
  right = finite(scalars, "id_accuracy")
  if right is None or 1 - right < LOST:
    return []
  return [f"{100 * (1 - right):.0f} % of the objects come back as another type: see the figure confusion; a larger "
          "loss.weights.id keeps more of them."]


def slots_lost(scalars: dict) -> list[str]:
  """How many slots come back wrong about whether they hold an object, where these are many."""
  right = finite(scalars, "exists_accuracy")
  if right is None or 1 - right <= LOST:
    return []
  return [f"{100 * (1 - right):.0f} % of the slots come back wrong about whether they hold an object: objects "
          "come back absent (in the figure confusion the column absent), or empty slots as objects; a larger "
          "loss.weights.exists makes it fewer."]


def seen(run: RunData, scalars: dict) -> list[str]:
  """Which corruptions the error of an event tells from the event itself."""
  # These may tell slots apart, and decoders that are given types and places do.
  tells = setting(run, "model.encoder.own") or setting(run, "model.decoder.own") or (
      setting(run, "model.latent.per_object") is False)
  found = {name: finite(scalars, f"auroc_{name}") for name in corruptions(scalars) if name != "tttt"}
  if not found:
    return []
  said = lambda names: ", ".join(f"{name.replace('_', ' ')} ({found[name]:.2f})" for name in names)
  ranked = sorted(found, key=found.get, reverse=True)
  clear = [name for name in ranked if found[name] >= SEEN]
  alike = [name for name in ranked if name not in clear and name in SAME and not tells]
  weak = [name for name in ranked if name not in (*clear, *alike)]
  text = f"The error of an event tells these corruptions from sound events (AUROC): {said(clear)}." if clear else (
      "The error of an event tells no corruption clearly from sound events.")
  text += f" It hardly sees {said(weak)}; 0.5 is chance." * bool(weak)
  text += f" That {said(alike)} is not seen is by construction: the networks treat all slots alike." * bool(alike)
  return [text]


def findings(run: RunData) -> list[str]:
  """Sentences about the part that is shown; [] where nothing was assessed."""
  scalars = scalars_of(run)
  return [*faithful(scalars), *cost(run, scalars), *codebook_use(run, scalars), *types_lost(scalars),
          *slots_lost(scalars), *seen(run, scalars)]
