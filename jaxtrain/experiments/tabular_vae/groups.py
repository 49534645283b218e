"""The group of lithologies that a classified row belongs to, one of 14, such as Carbonate."""

import numpy as np

from jaxtrain.experiments.tabular_vae import lithology_tables

GROUP_OF = {name: group for group, rows in lithology_tables.ROWS.items() for name in rows}


def groups_of(class_names: list[str]) -> list[str]:
  """The group of each class, case and spaces apart; [] unless each is one of the 139 lithologies: a table with another
  class has a vocabulary of its own.
  """
  names = [" ".join(name.lower().split()) for name in class_names]
  return [GROUP_OF[name] for name in names] if all(name in GROUP_OF for name in names) else []


def pick_group(class_names: list[str], columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """`pred_group`, the most probable group of each row, which need not be that of the most probable class, and its
  probability `pred_group_prob`: the sum over its classes. {} where classes are no lithologies; None where probabilities
  are missing.
  """
  groups = groups_of(class_names)
  if not groups:
    return {}
  names = sorted(set(groups))
  member = np.array([[group == name for name in names] for group in groups], np.float32)
  prob = np.stack([columns[f"prob_{name}"] for name in class_names], axis=1) @ member
  best = np.nan_to_num(prob).argmax(axis=1)
  pred = np.asarray(names, object)[best]
  pred[np.isnan(prob).any(axis=1)] = None
  return {"pred_group": pred, "pred_group_prob": prob[np.arange(len(best)), best]}
