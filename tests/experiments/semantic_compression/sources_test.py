"""Where states come from: a user's table, simulations, and fields that do not fit a source."""

import csv

import numpy as np
import pytest

import codec_cases as cases
import made_simulations
from jaxtrain import config as config_lib
from jaxtrain.data import files
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import generators, schema, sources

SET = {"num_states": 5000, "blocks": ("goals",), "step_std": 2.0, "num_steps": 20, "correlation": 0.5, "num_dims": 4,
       "path": "a.csv", "simulation_id": "s1", "role": "defending", "row_limit": 5, "table": "t", "group": "g",
       "quantiles": (0.1, 0.9), "separator": ";", "decimal": ",", "thousands": ".", "encoding": "latin-1",
       "missing": ("none",), "continuous": ("a",), "integer": ("a",), "binary": ("a",), "categorical": ("a",)}


def configured(**fields):
  """A config with other values in its section data."""
  return config_lib.resolve(cases.configured(**{f"data.{key}": value for key, value in fields.items()}))


def of_table(path, **fields):
  """Splits of a file with columns x, n, flag and kind."""
  return sources.load(configured(**{"source": "csv", "path": str(path), "num_states": 10000, "continuous": ("x",),
                                    "integer": ("n",), "binary": ("flag",), "categorical": ("kind",)} | fields))


def written(folder, **columns):
  """A CSV file of 60 rows, the columns as text."""
  random = np.random.RandomState(0)
  columns = {"x": random.normal(10, 3, 60).round(6).tolist(), "n": random.randint(0, 9, 60).tolist(),
             "flag": random.randint(0, 2, 60).tolist(), "kind": [("red", "green", " blue ")[k % 3] for k in range(60)],
             "who": [f"w{k // 6}" for k in range(60)]} | columns
  with open(folder / "a.csv", "w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows([columns, *zip(*columns.values())])
  return folder / "a.csv", columns


def vectors(splits, part):
  """Vectors [N, D] of a part."""
  source = getattr(splits, part)
  return source.rows(np.arange(source.num_rows))["x"]


@pytest.mark.parametrize("field", sources.DIALS)
def test_a_field_is_refused_where_it_is_not_read(field):
  """By name, with the sources that it is for; as it stands by itself it is no matter."""
  named, unset = sources.DIALS[field]
  assert set(SET) == set(sources.DIALS) and SET[field] != unset
  for source in {*sources.SIMULATED, "simulation_db", *files.KINDS}:
    data = configured(source=source).data
    with data.unlocked():
      for other, (_, value) in sources.DIALS.items():
        data[other] = value
      sources.check_dials(data)
      data[field] = SET[field]
    if source in named:
      sources.check_dials(data)
    else:
      with pytest.raises(UserError) as error:
        sources.check_dials(data)
      assert str(error.value).startswith(f"config.data.{field}: got ") and named[0] in str(error.value)


def test_every_field_of_the_section_is_a_dial_or_for_all_sources():
  assert set(configured().data) - set(sources.DIALS) == {"source", "seed", "split", "shuffle"}


def test_a_table_has_the_columns_that_are_named(tmp_path):
  """Text classes without the space around them; the states come back from the vectors."""
  path, columns = written(tmp_path)
  splits = of_table(path, **{"split.kind": "none"})
  states = schema.from_json(splits.meta["schema"])
  assert [(column.name, column.kind, column.group) for column in states.columns] == [
      ("x", "continuous", "x"), ("n", "integer", "n"), ("flag", "binary", "flag"), ("kind", "categorical", "kind")]
  assert states.column["kind"].classes == ("blue", "green", "red")
  assert splits.val is None and splits.test is None and splits.meta["rows"] == {"train": 60, "val": 0, "test": 0}
  record = schema.decode(states, vectors(splits, "train"))
  np.testing.assert_allclose(record["x"], columns["x"], rtol=1e-6)
  np.testing.assert_array_equal(record["n"], columns["n"])
  np.testing.assert_array_equal(record["flag"], np.array(columns["flag"]) == 1)
  assert record["kind"].tolist() == [name.strip() for name in columns["kind"]]
  assert splits.meta["entropies"] is None and len(splits.meta["table"]["sha256"]) == 64


def test_ranges_are_those_of_the_training_rows(tmp_path):
  """Held-out rows a thousand times as large do not widen them; quantiles leave out outliers of the training rows."""
  path, columns = written(tmp_path)
  first = of_table(path)
  rows = sources.splits.split_rows(configured().data.split, 60, None)
  x = np.array(columns["x"])
  column = schema.from_json(first.meta["schema"]).column["x"]
  assert (column.low, column.high) == (x[rows["train"]].min(), x[rows["train"]].max())
  x[np.concatenate([rows["val"], rows["test"]])] *= 1000
  again = of_table(written(tmp_path, x=x.tolist())[0])
  assert again.meta["schema"] == first.meta["schema"]
  assert np.abs(vectors(again, "test")[:, 0]).max() > 100 and np.abs(vectors(again, "train")[:, 0]).max() <= 0.5
  inner = schema.from_json(of_table(path, quantiles=(0.1, 0.9)).meta["schema"]).column["x"]
  np.testing.assert_allclose((inner.low, inner.high), np.quantile(x[rows["train"]], (0.1, 0.9)))


def test_rows_with_a_missing_cell_are_left_out_and_counted(tmp_path):
  """A row that lacks several cells counts once; columns that are not named do not matter."""
  path, columns = written(tmp_path)
  rows = [list(row) for row in zip(*columns.values())]
  rows[3][0], rows[3][1], rows[7][3], rows[9][2], rows[11][4] = "", "NA", "", "nan", ""
  with open(path, "w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows([columns, *rows])
  splits = of_table(path, **{"split.kind": "none"})
  assert splits.meta["table"]["rows_dropped"] == 3 and splits.meta["rows"]["train"] == 57
  record = schema.decode(schema.from_json(splits.meta["schema"]), vectors(splits, "train"))
  keep = [k for k in range(60) if k not in (3, 7, 9)]
  np.testing.assert_allclose(record["x"], np.array(columns["x"])[keep], rtol=1e-6)


def test_groups_stay_together(tmp_path):
  path, columns = written(tmp_path)
  splits = of_table(path, group="who", **{"split.kind": "group", "split.fractions": (0.6, 0.2, 0.2)})
  assert splits.meta["groups"] == {"train": 6, "val": 2, "test": 2}
  record = schema.decode(schema.from_json(splits.meta["schema"]), vectors(splits, "val"))
  who = {columns["who"][int(np.argmin(np.abs(np.array(columns["x"]) - x)))] for x in record["x"]}
  assert len(who) == 2 and len(record["x"]) == 12


def test_a_limit_takes_the_first_rows_that_are_whole(tmp_path):
  path, columns = written(tmp_path)
  splits = of_table(path, row_limit=20, group="who", **{"split.kind": "none"})
  record = schema.decode(schema.from_json(splits.meta["schema"]), vectors(splits, "train"))
  np.testing.assert_allclose(record["x"], columns["x"][:20], rtol=1e-6)


@pytest.mark.parametrize("fields,words", [
    ({"continuous": (), "integer": (), "binary": (), "categorical": ()}, "config.data.continuous: got"),
    ({"continuous": ("y",)}, "'y'"), ({"continuous": ("kind",)}, "column 'kind'"),
    ({"continuous": ("x", "n")}, "is named twice"),
    ({"integer": ("x",), "continuous": ()}, "a.csv: column 'x', row 2: got 15.2922, allowed whole numbers"),
    ({"binary": ("n",), "integer": ()}, "a.csv: column 'n', row 2: got 7, allowed 0 or 1")])
def test_columns_that_do_not_fit_are_named(fields, words, tmp_path):
  path, _ = written(tmp_path)
  with pytest.raises(UserError) as error:
    of_table(path, **fields)
  assert words in str(error.value) and "\n" not in str(error.value)


def test_a_row_that_does_not_fit_is_that_of_the_file(tmp_path):
  """Also where rows before it are left out."""
  path, columns = written(tmp_path)
  columns = columns | {"x": ["", "", *columns["x"][2:]], "flag": [0, 1, 0, 7, *columns["flag"][4:]]}
  path, _ = written(tmp_path, **columns)
  with pytest.raises(UserError, match="a.csv: column 'flag', row 5: got 7, allowed 0 or 1$"):  # the header is row 1
    of_table(path)


def test_a_table_without_a_whole_row_is_refused(tmp_path):
  path, _ = written(tmp_path, x=[""] * 60)
  with pytest.raises(UserError, match="a.csv: no row has all of the named columns$"):
    of_table(path)


@pytest.mark.parametrize("source", ["independent", "correlated", "trajectory"])
def test_simulated_states_are_those_of_the_generator(source):
  """Of the section's own seed, whatever the run's; -1 takes the run's. Agents of trajectories stay together."""
  more = {"split.kind": "group"} if source == "trajectory" else {}
  config = configured(source=source, num_states=300, **{"split.fractions": (0.6, 0.2, 0.2)} | more)
  splits = sources.load(config)
  record = generators.draw(source, 300, 0, **({"step_std": 3.0} if source == "trajectory" else {}))
  found = np.concatenate([vectors(splits, part) for part in ("train", "val", "test")])
  want = schema.encode(schema.AGENT15, record)
  np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(want, axis=0))
  assert set(splits.meta["entropies"]) == {"continuous", "integer", "discrete", "num_classes", "parts"}
  config.seed, before = 7, vectors(splits, "train")
  np.testing.assert_array_equal(vectors(sources.load(config), "train"), before)
  with config.unlocked():
    config.data.seed = -1
  assert np.abs(vectors(sources.load(config), "train")[:50] - before[:50]).max() > 0.1


def test_blocks_are_further_columns():
  splits = sources.load(configured(blocks=("inventory", "goals"), num_states=100))
  assert splits.meta["num_features"] == 15 + 6 + 8
  assert schema.from_json(splits.meta["schema"]) == schema.with_blocks(schema.AGENT15, ("inventory", "goals"))
  with pytest.raises(UserError, match="allowed inventory, goals"):
    sources.load(configured(blocks=("tools",), num_states=100))


def test_a_gaussian_source_has_the_covariance_that_it_says():
  """Deviations of 1, correlations of .8 to the power of the distance: within five standard errors of 20,000 states."""
  splits = sources.load(configured(source="gaussian", num_states=20_000, num_dims=3, correlation=0.8,
                                   **{"split.kind": "none"}))
  x = 8 * vectors(splits, "train").astype(np.float64)
  index = np.arange(3)
  want = 0.8**np.abs(index[:, None] - index[None])
  np.testing.assert_allclose(x.T @ x / len(x), want, atol=5 * 2**0.5 / len(x)**0.5)
  np.testing.assert_allclose(splits.meta["table"]["eigenvalues"], np.linalg.eigvalsh(want))


def test_a_database_keeps_agents_together(tmp_path):
  path = made_simulations.write(tmp_path / "a.db")
  splits = sources.load(configured(source="simulation_db", path=str(path), num_states=10000,
                                   **{"split.kind": "group", "split.fractions": (0.4, 0.3, 0.3)}))
  assert splits.meta["groups"] == {"train": 12, "val": 9, "test": 9}  # 30 agents
  assert splits.meta["table"]["source"] == str(path)


def test_an_outlier_and_alike_classes_are_warned_of(tmp_path):
  """A range that one row widens; with quantiles, that the row lies far outside; classes that differ in case."""
  random = np.random.RandomState(1)
  x = random.normal(10, 3, 60).round(6).tolist()
  path, _ = written(tmp_path, x=[*x[:-1], 1e6], kind=["red", "Red", "green"] * 20)
  fields = {"split.kind": "none"}
  said = of_table(path, **fields).meta["table"]["warnings"]
  assert any("column 'x': its range" in words and "times that of the middle half" in words for words in said)
  assert any("'Red'" in words and "case" in words for words in said)
  said = of_table(path, quantiles=(0.05, 0.95), **fields).meta["table"]["warnings"]
  assert any("column 'x': 1 row more than a range outside" in words for words in said)
