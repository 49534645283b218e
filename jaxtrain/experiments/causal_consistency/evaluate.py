from typing import NamedTuple
import numpy as np
from jaxtrain.types import Metric
METRICS = {"ate": Metric("", "effect", key=True)}
class Predicted(NamedTuple):
  mean: np.ndarray; sd: np.ndarray; log_prior: np.ndarray; log_lik: np.ndarray; log_posterior: np.ndarray; log_head: np.ndarray; log_x: np.ndarray | None; log_w: np.ndarray | None
def effect_name(name, meta, k, d): return name if (k, d) == (1, 0) else f"{name}/{k}/{d}"
def end_name(name, end): return f"{name}_{end}"
def assess_rows(rows, p, facts):
  y=rows["y"]; r=y>=0
  s={"ate": float((p.mean[:,1]-p.mean[:,0]).mean()), "rows": len(y)}
  s["log_likelihood"]=float(p.log_lik[np.flatnonzero(r), y[r]].mean()) if r.any() else float("nan")
  if "y_true" in rows:
    yt=rows["y_true"]; n=np.arange(len(yt))
    s["ll_true"]=float(p.log_lik[n,yt].mean())
    s["ate_truth"]=float((rows["mean_true"][:,1]-rows["mean_true"][:,0]).mean())
    s["cate_rmse"]=float(np.sqrt((((p.mean[:,1]-p.mean[:,0])-(rows["mean_true"][:,1]-rows["mean_true"][:,0]))**2).mean()))
    h=~r
    if h.any():
      s["hidden_ce"]=float(-p.log_head[n,yt][h].mean()); s["hidden_ce_bayes"]=float(-p.log_posterior[n,yt][h].mean())
      s["hidden_acc"]=float((p.log_head.argmax(1)==yt)[h].mean())
  return s, {}
