"""Bad inputs to training and predicting: each answered in one line that names the file, column, row or flag; exit 2."""

import os
import sqlite3
import time

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import child
import forked

GOOD = "well,a,b,rock\n" + "".join(f"w{i % 5},{i},{0.5 * i * i - 2},{('clay', 'sand')[i % 2]}\n" for i in range(40))
LINES = GOOD.splitlines()


def with_line(number, text):
  """The good file with another line of that number, 1-based."""
  return "\n".join([*LINES[:number - 1], text, *LINES[number:]]) + "\n"


TEXTS = {
    "good.csv": GOOD,
    "text.csv": with_line(7, "w0,5,n.d.,clay"),
    "comma.csv": with_line(4, 'w0,"1,5",2,clay'),
    "nan.csv": "".join(f"{i},\n" if i else "a,b\n" for i in range(9)),
    "constant.csv": "".join(f"{i},5\n" if i else "a,b\n" for i in range(9)),
    "none_complete.csv": "a,b\n1,\n,2\n3,\n,4\n",
    "one_class.csv": GOOD.replace("sand", "clay"),
    "no_class.csv": GOOD.replace("sand", "").replace("clay", "NA"),
    "no_group.csv": with_line(9, " ,5,2,clay"),
    "short_row.csv": with_line(12, "w0,5,2"),
    "long_row.csv": with_line(12, "w0,5,2,clay,7"),
    "twice.csv": GOOD.replace("well,a,b", "well,a,a", 1),
    "empty.csv": "",
    "header.csv": "well,a,b,rock\n",
    "semicolons.csv": GOOD.replace(",", ";"),
    "tabs.csv": GOOD.replace(",", "\t"),
    "infinite.csv": with_line(20, "w0,5,inf,clay"),
    "huge.csv": with_line(21, "w0,1e999,2,clay"),
    "two_groups.csv": GOOD.replace("w2", "w0").replace("w3", "w1").replace("w4", "w1"),
    "three_rows.csv": "\n".join(LINES[:4]) + "\n",
    "quote.csv": GOOD + 'w1,5,"2,clay\n',
    "clash.csv": GOOD.replace("well", "emb_0", 1),
    "clash_recon.csv": GOOD.replace("well", "b_recon", 1),
    "other.csv": "x,y\n1,2\n",
    "negative.csv": with_line(3, "w0,-2,2,clay"),
    "notes.txt": "words\nand more\n",
}


def write_inputs(folder):
  """The files of all cases."""
  x = np.random.RandomState(0).normal(size=(40, 2))
  for name, text in TEXTS.items():
    (folder / name).write_text(text, encoding="utf-8")
  (folder / "latin.csv").write_bytes("a,b\n1,é\n".encode("latin-1"))
  os.mkdir(folder / "folder.csv")
  np.savez(folder / "good.npz", a=x[:, 0], b=x[:, 1])
  np.savez_compressed(folder / "packed.npz", a=x[:, 0], b=x[:, 1])
  np.savez(folder / "lengths.npz", a=x[:, 0], b=x[:30, 1])
  np.savez(folder / "parts.npz", a=x, a_0=x[:, 0])
  with open(folder / "objects.npz", "wb") as file:
    np.savez(file, a=np.array([1, "x", None], object), b=x[:3, 0])
  with open(folder / "array.npz", "wb") as file:
    np.save(file, x)
  (folder / "empty.npz").write_bytes(b"")
  table = {"a": x[:, 0], "b": x[:, 1], "day": np.arange(40).astype("M8[D]"), "list": [[1]] * 40}
  pyarrow.parquet.write_table(pyarrow.table(table), folder / "good.parquet")
  for name, keep in (("good.npz", 300), ("good.parquet", 900)):
    (folder / f"cut_{name}").write_bytes((folder / name).read_bytes()[:keep])
  packed = bytearray((folder / "packed.npz").read_bytes())
  packed[80:90] = b"\xff" * 10
  (folder / "zlib.npz").write_bytes(packed)
  with h5py.File(folder / "good.h5", "w") as file:
    file.update({"a": x[:, 0], "b": x[:, 1], "c": np.full(40, 3.0), "x": x})
    file["i"] = np.where(np.arange(40) == 17, np.inf, 1)
    file["rock"] = np.array(["clay", "sand"] * 20).astype(h5py.string_dtype())
    file["x"].attrs["columns"] = ["p", "q"]
  with h5py.File(folder / "lengths.h5", "w") as file:
    file.update({"a": x[:, 0], "b": x[:30, 1]})
  with h5py.File(folder / "names.h5", "w") as file:
    file["x"] = x
    file["x"].attrs["columns"] = ["p", "q", "r"]
  with h5py.File(folder / "empty.h5", "w"):
    pass
  (folder / "cut_good.h5").write_bytes((folder / "good.h5").read_bytes()[:2000])
  (folder / "not.db").write_bytes(b"SQLite? No: " + bytes(range(200)))
  for name, tables_of in (("one.db", ("cores",)), ("two.db", ("cores", "wells")), ("none.db", ())):
    database = sqlite3.connect(folder / name)
    for table in tables_of:
      database.execute(f"create table {table} (a, b)")
      database.executemany(f"insert into {table} values (?, ?)", [(1, 2), (2.5, 3), ("three", 4), (4, b"x")])
    database.commit()
    database.close()


# name -> (fields of config.data, words of the line); {} in a word stands for the folder
TRAIN = {
    "missing file": ({"path": "{}/absent.csv"}, "config.data.path: cannot read '{}/absent.csv' as csv: there is no"),
    "no path": ({"path": ""}, "config.data.path: got ''"),
    "a folder": ({"path": "{}/folder.csv"}, "folder.csv' as csv: it is a folder"),
    "missing feature": ({"features": "a,weight"},
                        "config.data.features: {}/good.csv has no column 'weight'; it has well"),
    "missing label": ({"label": "lithology"}, "config.data.label: {}/good.csv has no column 'lithology'"),
    "missing group column": ({"group": "hole"}, "config.data.group: {}/good.csv has no column 'hole'"),
    "no features": ({"features": ""}, "config.data.features: got ()"),
    "feature twice": ({"features": "a,b,a"}, "config.data.features: 'a' is named twice"),
    "label as feature": ({"features": "a,rock", "label": "rock"}, "'rock' is named as a feature and as the label"),
    "text in a number column": ({"path": "{}/text.csv"}, "text.csv: column 'b', row 7: 'n.d.' is not a number"),
    "decimal comma": ({"path": "{}/comma.csv"}, "comma.csv: column 'a', row 4: '1,5' is not a number"),
    "all empty": ({"path": "{}/nan.csv"}, "nan.csv: column 'b' is empty in every row"),
    "constant": ({"path": "{}/constant.csv"}, "constant.csv: column 'b' is constant (5)"),
    "empty after filtering": ({"path": "{}/none_complete.csv"},
                              "none_complete.csv: of 4 rows none has a number in every"),
    "one class": ({"path": "{}/one_class.csv", "label": "rock"}, "one_class.csv: label column 'rock' has 1 classes"),
    "no class": ({"path": "{}/no_class.csv", "label": "rock"}, "no_class.csv: label column 'rock' has 0 classes"),
    "missing group": ({"path": "{}/no_group.csv", "group": "well"},
                      "no_group.csv: group column 'well', row 9: no group"),
    "short row": ({"path": "{}/short_row.csv"}, "short_row.csv: row 12 has 3 cells, the header has 4"),
    "long row": ({"path": "{}/long_row.csv"}, "long_row.csv: row 12 has 5 cells, the header has 4"),
    "unclosed quote": ({"path": "{}/quote.csv"}, "quote.csv: the quote that opens in line 42 does not close"),
    "name twice": ({"path": "{}/twice.csv"}, "twice.csv: column names must differ; 'a' stands more than once"),
    "empty file": ({"path": "{}/empty.csv"}, "empty.csv: the file is empty"),
    "header alone": ({"path": "{}/header.csv"}, "header.csv: the file has no rows"),
    "semicolons": ({"path": "{}/semicolons.csv"}, "semicolons.csv: the header is one cell"),
    "tabs": ({"path": "{}/tabs.csv"}, "tabs.csv: the header is one cell"),
    "not UTF-8": ({"path": "{}/latin.csv"}, "cannot read '{}/latin.csv' as csv"),
    "infinite": ({"path": "{}/infinite.csv"}, "infinite.csv: column 'b', row 20: infinite value"),
    "too large": ({"path": "{}/huge.csv"}, "huge.csv: column 'a', row 21: infinite value"),
    "unknown transform": ({"transforms": "log1p,sqrt"}, "config.data.transforms: got 'sqrt'"),
    "number of transforms": ({"transforms": "log1p"}, "config.data.transforms: got 1 names for 2 features"),
    "log1p of -2": ({"transforms": "identity,log1p"},
                    "data column 'b': transform 'log1p' does not take its smallest value -2"),
    "out of core csv": ({"out_of_core": True},
                        "config.data.out_of_core: got True, allowed with config.data.source=hdf5"),
    "out of core row limit": ({"source": "hdf5", "path": "{}/good.h5", "out_of_core": True, "row_limit": 5},
                              "config.data.row_limit: got 5"),
    "table of a csv": ({"table": "cores"}, "config.data.table: got 'cores', allowed '' with config.data.source=csv"),
    "wrong table": ({"source": "sqlite", "path": "{}/two.db", "table": "core"},
                    "config.data.table: got 'core', allowed a table of {}/two.db: cores, wells"),
    "which table": ({"source": "sqlite", "path": "{}/two.db"}, "config.data.table: got '', allowed a table of"),
    "no table": ({"source": "sqlite", "path": "{}/none.db"}, "none.db: it has none"),
    "no database": ({"source": "sqlite", "path": "{}/not.db"}, "cannot read '{}/not.db' as sqlite"),
    "text in a database": ({"source": "sqlite", "path": "{}/one.db"},
                           "one.db: column 'a', row 3: 'three' is not a number"),
    "bytes in a database": ({"source": "sqlite", "path": "{}/one.db", "features": "b"},
                            "one.db: column 'b', row 4: 'x' is not a number"),
    "cut parquet": ({"source": "parquet", "path": "{}/cut_good.parquet"},
                    "cannot read '{}/cut_good.parquet' as parquet"),
    "csv as parquet": ({"source": "parquet"}, "cannot read '{}/good.csv' as parquet"),
    "dates": ({"source": "parquet", "path": "{}/good.parquet", "features": "a,day"},
              "good.parquet: column 'day', row 1: "),
    "lists": ({"source": "parquet", "path": "{}/good.parquet", "features": "a,list"},
              "good.parquet: column 'list', row 1"),
    "cut npz": ({"source": "npz", "path": "{}/cut_good.npz"}, "cannot read '{}/cut_good.npz' as npz"),
    "npz of no bytes": ({"source": "npz", "path": "{}/empty.npz"}, "cannot read '{}/empty.npz' as npz"),
    "damaged npz": ({"source": "npz", "path": "{}/zlib.npz"}, "cannot read '{}/zlib.npz' as npz"),
    "objects": ({"source": "npz", "path": "{}/objects.npz"}, "cannot read '{}/objects.npz' as npz: Object arrays"),
    "a single array": ({"source": "npz", "path": "{}/array.npz"}, "array.npz: a single array has no column names"),
    "lengths of an npz": ({"source": "npz", "path": "{}/lengths.npz"}, "lengths.npz: 'b' has 30 rows, 'a' has 40"),
    "parts that clash": ({"source": "npz", "path": "{}/parts.npz", "features": "a"},
                         "parts.npz: column names must differ; 'a_0'"),
    "cut hdf5": ({"source": "hdf5", "path": "{}/cut_good.h5"}, "cannot read '{}/cut_good.h5' as hdf5"),
    "cut hdf5 out of core": ({"source": "hdf5", "path": "{}/cut_good.h5", "out_of_core": True},
                             "cannot read '{}/cut_good.h5' as hdf5"),
    "lengths of an hdf5": ({"source": "hdf5", "path": "{}/lengths.h5"}, "lengths.h5: 'b' has 30 rows, 'a' has 40"),
    "lengths out of core": ({"source": "hdf5", "path": "{}/lengths.h5", "out_of_core": True}, "'b' has 30 rows"),
    "names of parts": ({"source": "hdf5", "path": "{}/names.h5", "features": "x"},
                       "'x' is 2 wide, its attribute columns"),
    "no datasets": ({"source": "hdf5", "path": "{}/empty.h5"}, "empty.h5: the file is empty"),
    "no datasets out of core": ({"source": "hdf5", "path": "{}/empty.h5", "out_of_core": True}, "{}/empty.h5"),
    "text out of core": ({"source": "hdf5", "path": "{}/good.h5", "out_of_core": True, "features": "a,rock"},
                         "good.h5: column 'rock' holds object, allowed numbers"),
    "infinite out of core": ({"source": "hdf5", "path": "{}/good.h5", "out_of_core": True, "features": "a,i"},
                             "good.h5: column 'i', row 18: infinite value"),
    "constant out of core": ({"source": "hdf5", "path": "{}/good.h5", "out_of_core": True, "features": "a,c"},
                             "good.h5: column 'c' is constant (3)"),
    "missing dataset": ({"source": "hdf5", "path": "{}/good.h5", "out_of_core": True, "features": "p,z"},
                        "good.h5 has no column 'z'; it has"),
    "unknown TFDS": ({"source": "tfds", "path": "no_such_dataset"},
                     "config.data.path: TFDS has no dataset 'no_such_dataset'"),
    "TFDS of a folder": ({"source": "tfds", "path": "{}"}, "config.data.path: TFDS has no dataset '{}'"),
    "sklearn": ({"source": "sklearn", "path": "boston"}, "config.data.path: got 'boston'"),
    "sklearn label": ({"source": "sklearn", "path": "iris", "label": "rock"},
                      "config.data.label: got 'rock', allowed ''"),
    "unknown source": ({"source": "excel"}, "config.data.source: got 'excel'"),
    "no such loader": ({"source": "nowhere.read"}, "nowhere"),
    "negative row limit": ({"row_limit": -1}, "config.data.row_limit: got -1"),
    "negative workers": ({"num_workers": -1}, "config.data.num_workers: got -1"),
    "split without group": ({"split.kind": "group"}, "config.data.split.kind=group needs config.data.group"),
    "two groups": ({"path": "{}/two_groups.csv", "split.kind": "group", "group": "well"},
                   "got 2 groups, allowed at least 3"),
    "fractions": ({"split.fractions": "0.5,0.2,0.2"}, "config.data.split.fractions: got (0.5, 0.2, 0.2)"),
    "three rows": ({"path": "{}/three_rows.csv"}, "config.data.split.fractions"),
    "folds": ({"split.kind": "leave_out", "group": "well", "split.num_folds": 9}, "config.data.split.num_folds: got 9"),
    "fold": ({"split.kind": "leave_out", "group": "well", "split.fold": 7},
             "config.data.split.fold: got 7, allowed 0 to 4"),
    "balance without labels": ({"split.kind": "entropy_balanced", "group": "well"},
                               "needs labels; set config.data.label"),
}

EMBED = {"verb": "embed", "input": "{}/good.csv", "output": "{}/out.csv"}
SAMPLE = {"verb": "sample", "num": 5, "output": "{}/out.csv"}
PREDICT = {
    "wrong verb": (EMBED | {"verb": "embedd"}, "--verb: got 'embedd', allowed embed | impute | reconstruct | sample"),
    "classify without classes": (EMBED | {"verb": "classify"}, "--verb: got 'classify', allowed embed"),
    "no workdir": (EMBED | {"workdir": "{}/absent"}, "--workdir: '{}/absent' holds no run"),
    "no such step": (EMBED | {"checkpoint": "7"}, "'{}/run' holds no checkpoint of step 7, allowed 5"),
    "no such checkpoint": (EMBED | {"checkpoint": "newest"}, "--checkpoint: got 'newest', allowed best | last | STEP"),
    "sample without num": (SAMPLE | {"num": 0}, "--num: got 0, allowed 1 or more with --verb=sample"),
    "negative num": (SAMPLE | {"num": -3}, "--num: got -3, allowed 1 or more"),
    "num no number": (SAMPLE | {"num": "many"}, "--num"),
    "num of no use": (EMBED | {"num": 4}, "--num: got 4, allowed nothing with --verb=embed"),
    "input of no use": (SAMPLE | {"input": "{}/good.csv"}, "--input: got '{}/good.csv', allowed nothing"),
    "no input": (EMBED | {"input": ""}, "--input: got '', allowed a file with --verb=embed"),
    "absent input": (EMBED | {"input": "{}/absent.csv"},
                     "--input: cannot read '{}/absent.csv' as csv: there is no such"),
    "input is a folder": (EMBED | {"input": "{}/folder.csv"}, "folder.csv' as csv: it is a folder"),
    "input suffix": (EMBED | {"input": "{}/notes.txt"}, "notes.txt has no column 'a'; the run needs a, b"),
    "damaged input": (EMBED | {"input": "{}/cut_good.parquet"},
                      "--input: cannot read '{}/cut_good.parquet' as parquet"),
    "empty input": (EMBED | {"input": "{}/header.csv"}, "header.csv: the file has no rows"),
    "ragged input": (EMBED | {"input": "{}/short_row.csv"}, "short_row.csv: row 12 has 3 cells"),
    "wrong columns": (EMBED | {"input": "{}/other.csv"}, "other.csv has no column 'a'; the run needs a, b"),
    "text in the input": (EMBED | {"input": "{}/text.csv"}, "text.csv: column 'b', row 7: 'n.d.' is not a number"),
    "infinite input": (EMBED | {"input": "{}/infinite.csv"}, "infinite.csv: column 'b', row 20: infinite value"),
    "outside the transform": (EMBED | {"input": "{}/negative.csv"}, "column 'a': transform 'log1p' does not take"),
    "outside it when imputing": (EMBED | {"verb": "impute", "input": "{}/negative.csv"},
                                 "column 'a': transform 'log1p'"),
    "clash": (EMBED | {"input": "{}/clash.csv"}, "clash.csv already has a column 'emb_0'"),
    "clash of reconstructions": (EMBED | {"verb": "reconstruct", "input": "{}/clash_recon.csv"}, "a column 'b_recon'"),
    "no output": (EMBED | {"output": ""}, "--output: required"),
    "output suffix": (EMBED | {"output": "{}/out.xlsx"}, "out.xlsx: the suffix '.xlsx' is not one of"),
    "output database": (EMBED | {"output": "{}/out.db"}, "--output: got '{}/out.db', allowed .csv .parquet .npz .h5"),
    "output nowhere": (EMBED | {"output": "{}/absent/out.csv"}, "--output: cannot write into '{}/absent'"),
    "output into proc": (EMBED | {"output": "/proc/out.csv"}, "--output: cannot write '/proc/out.csv': No such file"),
    "output is a folder": (EMBED | {"output": "{}/folder.csv"},
                           "--output: cannot write '{}/folder.csv': it is a folder"),
    "export and input": (EMBED | {"output": "", "export": "{}/out.bin"},
                         "--input: got '{}/good.csv', allowed nothing with"),
    "export nowhere": ({"verb": "embed", "export": "{}/absent/out.bin"}, "--export: cannot write"),
    "misspelt flag": (EMBED | {"inptu": "x"}, "--inptu"),
    "missing flag": ({"verb": "embed", "workdir": None}, "--workdir"),
    "someone's experiment": (EMBED | {"workdir": "{}/foreign"},
                             "was trained by 'outside', which is not part of jaxtrain"),
}


def train_flags(folder, name):
  fields = {"data.source": "csv", "data.path": "{}/good.csv", "data.features": "a,b", "data.split.kind": "random",
            "log.figures": "none", "log.progress": False} | {f"data.{key}": v for key, v in TRAIN[name][0].items()}
  if fields["data.source"] in ("sklearn", "tfds"):
    fields["data.features"] = ""
  return ["--config=configs/vae.py:csv", f"--workdir={folder}/runs/{name.replace(' ', '_')}",
          *(f"--config.{key}={str(value).replace('{}', folder)}" for key, value in fields.items())]


def predict_flags(folder, name):
  flags = {"workdir": "{}/run"} | PREDICT[name][0]
  return [f"--{key}={str(value).replace('{}', folder)}" for key, value in flags.items() if value not in ("", None)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
  """Answers to all, from one process that forks for each; the run that is applied is made first."""
  folder = tmp_path_factory.mktemp("bad")
  write_inputs(folder)
  for name in ("foreign", "runs"):
    os.mkdir(folder / name)
  (folder / "foreign" / "config.json").write_text('{"experiment": "outside"}', encoding="utf-8")
  made = child.run("--config=configs/vae.py:csv", f"--workdir={folder}/run", f"--config.data.path={folder}/good.csv",
                   "--config.data.features=a,b", "--config.data.transforms=log1p,identity",
                   "--config.train.batch_size=8", "--config.train.num_epochs=1", "--config.data.split.kind=none",
                   "--config.train.monitor=train_loss", "--config.optim.plateau.factor=0.0",
                   "--config.model.hidden_dims=4", "--config.eval.importance_samples=0",
                   "--config.log.figures=none", "--config.log.progress=False")
  assert made.returncode == 0, made.stderr
  before = sorted(os.listdir(folder))
  cases = [{"command": "main", "argv": train_flags(str(folder), name)} for name in TRAIN]
  cases += [{"command": "predict", "argv": predict_flags(str(folder), name)} for name in PREDICT]
  began = time.monotonic()
  found = dict(zip([*TRAIN, *PREDICT], forked.ask(cases)))
  print(f"{len(cases)} cases in {time.monotonic() - began:.1f} s")
  left = sorted(set(os.listdir(folder)) - set(before)) + os.listdir(folder / "runs")
  return found | {"folder": str(folder), "left": left}


@pytest.mark.parametrize("name", [*TRAIN, *PREDICT])
def test_a_bad_input_is_one_line_and_exit_2(name, answers):
  done, words = answers[name], (TRAIN | PREDICT)[name][1].replace("{}", answers["folder"])
  assert done["code"] == 2, done
  lines = done["err"].splitlines()
  assert len(lines) == 1 and lines[0].startswith("jaxtrain: ") and done["out"] == "", done
  assert words in lines[0]


def test_the_cases_are_distinct_and_leave_nothing(answers):
  said = [answers[name]["err"] for name in (*TRAIN, *PREDICT)]
  assert len(TRAIN) + len(PREDICT) >= 60 and len(set(said)) >= 100
  assert answers["left"] == []  # no output, nothing half-written, no workdir
