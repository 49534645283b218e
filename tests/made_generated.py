"""What the assessment of generated events leaves, written by hand, for tests of the figures that read it."""

import numpy as np

import made_assessments

EDGES = np.arange(40.0, 141.0, 4.0)
NAMES = ("pt", "e", "eta", "phi", "multiplicity", "ht", "met", "m_jj", "m_bjj")
SCALARS = {"two_sample_auc": 0.71, "two_sample_auc_ci95": 0.02, "m_jj_peak_gev": 83.0, "m_jj_peak_gev_ci95": 1.5,
           "m_jj_peak_truth_gev": 81.0, "m_jj_peak_truth_gev_ci95": 0.4, "m_jj_window_share": 0.062,
           "m_jj_window_share_ci95": 0.011, "m_jj_window_share_truth": 0.124, "m_jj_window_share_truth_ci95": 0.006,
           **{f"w1_{name}_floors": 1.1 + 0.7 * k for k, name in enumerate(NAMES)}}


def values(random, shift: float, N: int) -> dict[str, np.ndarray]:
  """Values of all observables of N events whose energies are larger by a share."""
  pt = 20 + random.exponential(50 * (1 + shift), 6 * N)
  eta = np.clip(random.normal(0, 1.1, 6 * N), -2.5, 2.5)
  return {"pt": pt, "e": pt * np.cosh(eta), "eta": eta, "phi": random.uniform(-np.pi, np.pi, 6 * N),
          "multiplicity": random.poisson(6 + 3 * shift, N) + 3.0, "ht": 400 + random.exponential(300 * (1 + shift), N),
          "met": random.exponential(60, N), "m_jj": random.exponential(120 * (1 + shift), 8 * N),
          "m_bjj": 60 + random.exponential(200 * (1 + shift), 8 * N)}


def bins(random, fraction: float, mean: float) -> np.ndarray:
  """Pairs, mixed events and fit [3, n] of about 20,000 pairs with a peak."""
  middle = (EDGES[1:] + EDGES[:-1]) / 2
  background, gauss = np.exp(-middle / 90), np.exp(-np.square((middle - mean) / 6) / 2)
  background, gauss = 20_000 * (1 - fraction) * background / background.sum(), 20_000 * fraction * gauss / gauss.sum()
  return np.stack([random.poisson(background + gauss), background, background + gauss])


def arrays(seed: int = 0, N: int = 2000, T: int = 8) -> dict[str, np.ndarray]:
  """Arrays of the comparison: generated energies are 15 % too large, and the peak has half its height."""
  random, found = np.random.default_rng(seed), {"m_jj_edges": EDGES}
  for side, shift, fraction, mean in (("real", 0.0, 0.124, 81.0), ("generated", 0.15, 0.062, 83.0)):
    found |= {f"{side}_{name}": part for name, part in values(random, shift, N).items()}
    ids, momenta = made_assessments.momenta(random, 32, T)
    met = np.stack([np.exp(random.normal(4, 0.6, 32)), random.uniform(-np.pi, np.pi, 32)], axis=1)
    found |= {f"{side}_shown_ids": ids, f"{side}_shown_momenta": momenta, f"{side}_shown_met": met,
              f"{side}_m_jj_bins": bins(random, fraction, mean)}
  return found


def with_critic(run, accuracy: float = 0.7, start_step: int = 20):
  """The run with the metrics of an adversarial run at each row, whose critic becomes so good."""
  rows = []
  for row in run.rows:
    k = row["step"] / max(one["step"] for one in run.rows)
    gap = 2 * accuracy - 1
    found = {"real_logit": 2 * gap * k, "fake_logit": -1.8 * gap * k, "critic_accuracy": 0.5 + (accuracy - 0.5) * k,
             "critic_loss": 2 - gap * k, "adversarial": 0.5 * gap * k, "adversarial_weight": 0.01 * 50**k,
             "r1": 0.3 * k}
    rows.append(row | {f"metric_{name}": value + 0.01 * (row["split"] == "val") for name, value in found.items()})
  config = run.config | {"model": run.config["model"] | {"critic": {"start_step": start_step}}}
  return run._replace(rows=rows, config=config)


def diffusion_arrays(seed: int = 0, M: int = 25, J: int = 7, T: int = 8) -> dict[str, np.ndarray]:
  """Mean losses at levels of noise that are spread as in training, and events whose momenta come out of noise in even
  steps.
  """
  random = np.random.default_rng(seed)
  level = np.sort(random.normal(2.4, 2.4, M))[::-1]
  error = random.gamma(400.0, 0.0025, M) / (1 + np.exp(level))
  ids, last = made_assessments.momenta(random, 8, T)
  noise = random.normal(size=(8, T, 4)) * [300, 200, 4, 3] * (ids > 0)[..., None]
  mix = np.linspace(1, 0, J)[:, None, None, None]
  return {"level_log_snr": level, "level_loss": error * (1 + np.exp(level)), "level_error": error,
          "level_weight": np.minimum(np.exp(level), 5) / (np.exp(level) + 1), "trajectory_ids": ids,
          "trajectory": mix * noise + (1 - mix) * last}
