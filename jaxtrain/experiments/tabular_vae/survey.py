"""A simulated survey of households: numbers, whole numbers and categories, a spike at zero, heavy tails, missing cells.

Nothing in it is about real people. What a column depends on is written below and nowhere else, so that a model of the
table can be held against it: age and region are drawn first; sector and wealth follow from them; income, savings,
rooms and whether the home is owned follow from wealth, children from age.
"""

import numpy as np

from jaxtrain.data.tables import Table

ROWS = 12_000
MISSING = 0.04  # share of the cells of `income`, `sector` and `children` that nobody answered
REGIONS = ("coast", "hills", "lakes", "plain", "city")
SECTORS = ("farming", "crafts", "trade", "care", "office", "study", "retired")
COLUMNS = ("age", "region", "sector", "children", "rooms", "owner", "income", "savings", "commute")
SHARES = (0.14, 0.11, 0.09, 0.26, 0.40)
# log-odds of the sectors by region: farms on the plain, offices in the city, trade at the coast
PULL = np.array([[0.4, 0.3, 1.2, 0.3, 0.4, 0, 0], [0.9, 0.8, 0.2, 0.3, -0.2, 0, 0], [0.6, 0.5, 0.6, 0.4, 0.0, 0, 0],
                 [1.6, 0.6, 0.3, 0.3, -0.3, 0, 0], [-2.0, 0.1, 0.6, 0.5, 1.4, 0, 0]])
WEALTH = np.array([-0.5, -0.1, 0.2, -0.2, 0.6, -0.8, 0.1])  # mean by sector


def columns(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
  """The columns [N] by name: float64 with NaN where missing, whole numbers among them, and objects with None."""
  random = np.random.default_rng([seed, 21])
  age = np.clip(np.rint(18 + 70 * random.beta(1.6, 2.2, num_rows)), 18, 95)
  region = random.choice(len(REGIONS), num_rows, p=SHARES)
  odds = PULL[region].copy()
  odds[:, 5] += np.where(age < 28, 1.5, -4.0)
  odds[:, 6] += np.clip((age - 62) / 2, -6, 6)
  sector = (odds + random.gumbel(size=odds.shape)).argmax(axis=1)
  wealth = WEALTH[sector] + 0.25 * (region == 4) + 0.5 * random.normal(size=num_rows)
  children = random.poisson(np.where((age > 24) & (age < 60), 1.4, 0.15) * np.exp(-0.3 * wealth))
  rooms = 1 + random.poisson(np.exp(0.9 + 0.35 * wealth + 0.12 * children - 0.35 * (region == 4)))
  owner = random.random(num_rows) < 1 / (1 + np.exp(-(0.05 * (age - 45) + 1.2 * wealth - 0.8 * (region == 4))))
  income = np.exp(7.4 + 0.8 * wealth + 0.25 * random.standard_t(4, num_rows))
  saves = random.random(num_rows) < 1 / (1 + np.exp(-(0.3 + 1.5 * wealth)))
  savings = np.where(saves, np.exp(8.0 + 1.1 * wealth + 0.02 * (age - 45) + 0.8 * random.normal(size=num_rows)), 0.0)
  commute = np.where(sector < 5, random.gamma(2.0, 10 + 8 * (region != 4), num_rows), random.gamma(1.5, 3.0, num_rows))
  made = {"age": age, "region": np.asarray(REGIONS, object)[region], "sector": np.asarray(SECTORS, object)[sector],
          "children": children.astype(float), "rooms": rooms.astype(float),
          "owner": np.where(owner, "yes", "no").astype(object), "income": income.round(2), "savings": savings.round(2),
          "commute": commute.round(1)}
  for name in ("income", "sector", "children"):
    gap = random.random(num_rows) < MISSING
    made[name] = np.where(gap, None if made[name].dtype == object else np.nan, made[name])
  return made


def table(num_rows: int) -> Table:
  """The survey as a table."""
  made, categories, x = columns(num_rows), {}, []
  for name in COLUMNS:
    column = made[name]
    if column.dtype == object:
      categories[name] = tuple(sorted({cell for cell in column.tolist() if cell is not None}))
      code = {cell: float(k) for k, cell in enumerate(categories[name])} | {None: np.nan}
      column = np.asarray([code[cell] for cell in column.tolist()])
    x.append(column)
  features = np.stack(x, axis=1)
  facts = {"source": "simulated survey", "rows": num_rows}
  return Table(features, COLUMNS, None, (), None, facts, categories=categories)
