"""Names of metrics as a person says them."""

from typing import Any, Mapping

from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

# Parts of names of metrics, as a person says them
WORDS = {"train": "training", "val": "validation", "lr": "learning rate", "grad": "gradient", "kl": "KL",
         "recon": "reconstruction", "class": "classifier", "auc": "AUC", "auroc": "AUROC", "rmse": "RMSE", "mae": "MAE",
         "r2": "R²", "f1": "F1", "nll": "negative log-likelihood", "ece": "calibration error", "dims": "dimensions",
         "top5": "in the top 5", "prob": "probability", "e": "expected", "sd": "by deviation",
         "macro": "(mean of classes)", "ate": "ATE", "cate": "CATE", "aipw": "AIPW", "2sls": "2SLS"}


def words(name: str, said: Mapping[str, Any] = {}) -> str:
  """The name of a metric as a person says it, without the unit nats, which stands beside it where it is known.

  `said`: what its experiment says of it (`types.Metric`), which may have the name in words.
  """
  if said.get("words"):
    return said["words"]
  parts = name.split("_")
  parts = parts[:-1] if parts[-1] == "nats" and len(parts) > 1 else parts
  return " ".join(WORDS[part] if part in WORDS else part for part in parts)


def words_of(run: RunData, name: str) -> str:
  """The same of a metric of a run."""
  return words(name, reading.description(reading.described(run), name))
