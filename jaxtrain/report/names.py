"""Names of metrics as a person says them."""

# Parts of names of metrics, as a person says them
WORDS = {"train": "training", "val": "validation", "lr": "learning rate", "grad": "gradient", "kl": "KL",
         "recon": "reconstruction", "class": "classifier", "auc": "AUC", "auroc": "AUROC", "rmse": "RMSE", "mae": "MAE",
         "r2": "R²", "f1": "F1", "nll": "negative log-likelihood", "ece": "calibration error", "dims": "dimensions",
         "top5": "in the top 5", "prob": "probability", "e": "expected", "sd": "by deviation",
         "macro": "(mean of classes)", "ate": "ATE", "cate": "CATE", "aipw": "AIPW", "2sls": "2SLS"}
# Whole names whose parts say little
NAMES = {"y_xz": "−log p(y | x, z)", "x_yz": "−log p(x | y, z)", "consistency_y": "consistency of p(y | x, z)",
         "consistency_x": "consistency of p(x | y, z)", "tau": "temperature tau", "beta": "weight beta",
         "kl_nats": "total KL", "cont": "numbers of objects", "id": "types of objects",
         "exists": "presence of objects", "globals": "missing energy", "skill": "skill over the mean state"}


def words(name: str) -> str:
  """The name of a metric as a person says it, without the unit nats, which stands beside it where it is known."""
  if name in NAMES:
    return NAMES[name]
  parts = name.split("_")
  parts = parts[:-1] if parts[-1] == "nats" and len(parts) > 1 else parts
  return " ".join(WORDS[part] if part in WORDS else part for part in parts)
