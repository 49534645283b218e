"""From instrument files to the table: against plain Python in float64, and what is refused."""

import collections
import csv
import fractions
import math
import statistics
import sys

import numpy as np
import pytest

from jaxtrain.data import cells, files
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import __main__ as command, instruments

HEADERS = {"gra": ["Bulk density (GRA)", "Principal"], "ms": ["Magnetic susceptibility (instr. units)"],
           "ngr": ["NGR total counts (cps)"], "rgb": ["R", "G", "B"]}
WHERE = ["Exp", "Site", "Hole", "Depth CSF-A (m)"]
NAMES = instruments.Names()


def made(folder, num_rows=400, seed=0):
  """(paths, rows by kind) of instrument files with rows at random depths of two holes, gaps and odd values."""
  random = np.random.default_rng(seed)
  paths, rows = {}, {}
  for kind, columns in HEADERS.items():
    rows[kind] = []
    for _ in range(num_rows):
      place = ["346", random.choice(["U1", "U2"]), "A", f"{random.uniform(0, 12):.2f}"]
      values = [f"{random.normal(1.7, 1.2) if kind == 'gra' else random.uniform(0, 260):.4f}"
                for _ in columns if _ != "Principal"]
      values += [str(random.choice(["clay", "ooze", ""]))] if kind == "gra" else []
      values = [random.choice(["", "NaN"]) if random.random() < 0.05 else value for value in values]
      rows[kind].append([*place, *values])
    paths[kind] = str(folder / f"{kind}.csv")
    with open(paths[kind], "w", newline="", encoding="utf-8") as file:
      csv.writer(file).writerows([["Core", *WHERE, *columns], *(["1", *row] for row in rows[kind])])
  return paths, rows


def expected(rows):
  """The table in plain Python: {(hole, bin): values} of bins that a core can have."""
  bins = {kind: collections.defaultdict(list) for kind in (*rows, "lithology")}
  for kind, some in rows.items():
    for exp, site, hole, depth, *values in some:
      at = (f"{exp}-{site}-{hole}", round(float(depth) * 5))
      measured = values[:1] if kind == "gra" else values
      numbers = [math.nan if value in ("", "NaN") else float(value) for value in measured]
      if not any(map(math.isnan, numbers)):
        bins[kind][at].append(numbers)
      if kind == "gra" and values[1] not in ("", "NaN"):
        bins["lithology"][at].append(values[1])
  found = {}
  for at in sorted(set.intersection(*(set(some) for some in bins.values()))):
    mean = lambda kind: [statistics.fmean(column) for column in zip(*bins[kind][at])]
    counts = collections.Counter(bins["lithology"][at])
    name = min(name for name, count in counts.items() if count == max(counts.values()))
    gra, rgb = mean("gra")[0], mean("rgb")
    if 0.3 <= gra <= 4.0 and all(0 <= value <= 255 for value in rgb):
      found[at] = [gra, name, *mean("ms"), *mean("ngr"), *rgb]
  return found


def test_the_table_is_that_of_plain_python(tmp_path):
  paths, rows = made(tmp_path)
  table, said = instruments.make_table(paths | {"lithology": paths["gra"]}, NAMES, cells.PLAIN)
  want = expected(rows)
  assert list(table) == ["Borehole_ID", "Depth_Bin", "Bulk density (GRA)", "Principal",
                         "Magnetic susceptibility (instr. units)", "NGR total counts (cps)", "R", "G", "B"]
  got = list(zip(table["Borehole_ID"], table["Depth_Bin"]))
  assert got == [(hole, number / 5) for hole, number in want] and len({hole for hole, _ in want}) == 2
  assert table["Principal"].tolist() == [row[1] for row in want.values()]
  for d, name in enumerate(list(table)[2:]):
    if name != "Principal":
      np.testing.assert_allclose(table[name], [row[d] for row in want.values()], rtol=1e-13)
  unfit = sum(bins in said[-1] for bins in ("with a density outside 0.3 to 4", "with a colour outside 0 to 255"))
  assert unfit == 2 and said[0].startswith("gra: 400 rows") and "0 with a density" not in said[-1]


def test_bins_are_whole_numbers_and_halves_go_to_the_even_one(tmp_path):
  path = tmp_path / "ms.csv"
  depths = [0.1, 0.3, 0.5, 0.7, 0.6, 0.60000001, 3276.7, -0.04]
  path.write_text("Exp,Site,Hole,Depth CSF-A (m),Magnetic susceptibility (instr. units)\n"
                  + "".join(f"1,U1,A,{depth},1\n" for depth in depths))
  bins = instruments.read_bins(str(path), "--ms", NAMES, NAMES.ms, cells.PLAIN, {})
  assert (bins.key - instruments.SPAN // 2).tolist() == sorted({round(depth * 5) for depth in depths})


def test_of_equally_frequent_lithologies_the_first_in_the_alphabet():
  key, names = instruments.most_frequent(np.array([7, 3, 3, 3, 7, 7, 7]), np.array(
      ["ooze", "sand", "clay ", "clay", "clay", "clay", "ooze"], object))
  assert key.tolist() == [3, 7] and names.tolist() == ["clay", "clay"]


INTERVALS = NAMES._replace(top="Top", bottom="Bottom")
HEADER = "Exp,Site,Hole,Top,Bottom,Principal\n"


def longest(intervals):
  """{(hole, bin): name} in plain Python with fractions: bin k has the depths from (k - 1/2) / 5 to (k + 1/2) / 5."""
  lengths = collections.defaultdict(collections.Counter)
  for hole, top, bottom, name in intervals:
    top, bottom = fractions.Fraction(top), fractions.Fraction(bottom)
    for k in range(-10, 80):
      part = min(bottom, fractions.Fraction(2 * k + 1, 10)) - max(top, fractions.Fraction(2 * k - 1, 10))
      if part > 0:
        lengths[f"1-{hole}-A", k][name] += part
  return {at: min(name for name, one in some.items() if one == max(some.values())) for at, some in lengths.items()}


def test_of_intervals_a_bin_has_the_lithology_with_the_longest_part(tmp_path):
  """Beds thinner than a bin, a gap, a bed in another one, equal parts, ends on the edges of bins, two holes."""
  beds = [("U1", "0", "1.1", "ooze"), ("U1", "1.1", "1.14", "ash"), ("U1", "1.14", "1.29", "clay"),
          ("U1", "2.07", "3.0", "sand"), ("U1", "2.2", "2.6", "marl"), ("U1", "3.0", "3.2", "mud"),
          ("U2", "-0.3", "12.05", "chalk"), ("U1", "3.2", "3.3", "zeolite")]
  path = tmp_path / "lithology.csv"
  gaps = ["1,U1,A,5,6,", "1,U1,A,,6,clay", "1,U1,A,7,7,clay", "1,,A,7,8,clay"]
  rows = [f"1,{hole},A,{top},{bottom},{name}" for hole, top, bottom, name in beds]
  path.write_text(HEADER + "\n".join([*rows, *gaps]))
  holes = {}
  bins, overlaps = instruments.read_intervals(str(path), "--lithology", INTERVALS, cells.PLAIN, holes)
  hole, at = np.divmod(bins.key, instruments.SPAN)
  got = dict(zip(zip(np.array(list(holes))[hole].tolist(), (at - instruments.SPAN // 2).tolist()), bins.values))
  assert got == longest(beds) and {"ash", "marl"} & set(got.values()) == {"marl"}
  assert (bins.rows, bins.dropped, overlaps) == (12, 4, 1)


@pytest.mark.parametrize(("rows", "said"), [
    ("1,U1,A,0,1,clay\n1,U1,A,3,2,clay\n", "row 3: the interval from 3 to 2 is reversed: 'Bottom' is above 'Top'"),
    ("1,U1,A,1,1,clay\n", "no interval from 'Top' to 'Bottom' has a length"),
    ("1,U1,A,,1,clay\n", "none of its 1 rows has all of Exp, Site, Hole, Top, Bottom, Principal")])
def test_bad_intervals_are_refused(tmp_path, rows, said):
  path = tmp_path / "lithology.csv"
  path.write_text(HEADER + rows)
  with pytest.raises(UserError) as error:
    instruments.read_intervals(str(path), "--lithology", INTERVALS, cells.PLAIN, {})
  assert said in error.value.message and "\n" not in error.value.message


def test_a_table_has_the_lithologies_of_intervals(tmp_path, monkeypatch, capsys):
  paths, rows = made(tmp_path, 60)
  path, table = tmp_path / "lithology.csv", tmp_path / "table.npz"
  path.write_text(HEADER + "346,U1,A,0,6,clay\n346,U1,A,5,12.5,ooze\n346,U2,A,0,12.5,sand\n")
  given = [f"--{kind}={path}" for kind, path in paths.items()]
  assert run(monkeypatch, *given, f"--lithology={path}", "--top_column=Top", "--bottom_column=Bottom",
             f"--output={table}") == 0
  got = files.read("npz", str(table)).values
  # From 5 to 6 m both are as long; the bin of 6 m has 10 cm of clay and 20 cm of ooze.
  wanted = {"346-U1-A": lambda k: "clay" if k < 30 else "ooze", "346-U2-A": lambda k: "sand"}
  assert got["Principal"].tolist() == [wanted[hole](round(5 * depth))
                                       for hole, depth in zip(got["Borehole_ID"].tolist(), got["Depth_Bin"].tolist())]
  assert "lithology: 1 intervals overlap another one" in capsys.readouterr().out


def run(monkeypatch, *arguments):
  """The exit code of the command."""
  monkeypatch.setattr(sys, "argv", ["tabular_vae", *map(str, arguments)])
  return command.main()


def test_the_command_reads_files_of_another_form(tmp_path, monkeypatch, capsys):
  paths, rows = made(tmp_path, 60)
  for path in paths.values():
    with open(path, newline="", encoding="utf-8") as file:
      cells_of = list(csv.reader(file))
    cells_of[0] = [{"Exp": "expedition", "R": "red"}.get(name, name) for name in cells_of[0]]
    text = "\n".join(";".join(cell.replace(".", ",") if k else cell for cell in row) for k, row in enumerate(cells_of))
    with open(path, "w", encoding="utf-8") as file:
      file.write(text + "\n")
  given = [f"--{kind}={path}" for kind, path in paths.items()]
  table = tmp_path / "table.npz"
  assert run(monkeypatch, *given, f"--output={table}", "--separator=;", "--decimal=,", "--exp_column=expedition",
             "--rgb_column=red,G,B") == 0
  want, got = expected(rows), files.read("npz", str(table)).values
  np.testing.assert_allclose(got["R"], [row[4] for row in want.values()], rtol=1e-13)
  assert f"{len(want)} rows in" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "said"), [
    (lambda text: text.replace("Depth CSF-A (m)", "Depth"), "ms.csv: has no column 'Depth CSF-A (m)'; its header is"),
    (lambda text: text.replace("1,U1", "1,U1,x", 1), "ms.csv: row 2 has 6 cells, the header has 5"),
    (lambda text: text.replace("5.5", "much"), "column 'Magnetic susceptibility (instr. units)', row 3: 'much' is not"),
    (lambda text: text.replace("5.5", "inf"), "row 3: infinite value"),
    (lambda text: text.replace("0.4", "99999"), "column 'Depth CSF-A (m)', row 3: 99999 is no depth in metres"),
    (lambda text: text.replace("5.5", "").replace("4.5", ""), "none of its 2 rows has all of Exp, Site"),
    (lambda text: None, "there is no such file")])
def test_bad_files_are_refused(tmp_path, change, said):
  path = tmp_path / "ms.csv"
  text = change(",".join([*WHERE, *HEADERS["ms"]]) + "\n1,U1,A,0.2,4.5\n1,U1,A,0.4,5.5\n")
  path.write_text(text) if text is not None else None
  with pytest.raises(UserError) as error:
    instruments.read_bins(str(path), "--ms", NAMES, NAMES.ms, cells.PLAIN, {})
  assert said in error.value.message and "\n" not in error.value.message


def test_files_without_a_bin_in_common_are_refused(tmp_path):
  paths, _ = made(tmp_path, 20)
  with open(paths["ms"], "w", encoding="utf-8") as file:
    file.write(",".join([*WHERE, *HEADERS["ms"]]) + "\n9,U9,A,0.2,4.5\n")
  with pytest.raises(UserError, match="no bin in common"):
    instruments.make_table(paths | {"lithology": paths["gra"]}, NAMES, cells.PLAIN)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--gra=a.csv", "--output=t.csv"], "allowed is one of --config; --gra --ms --ngr --rgb"),
    (["--classified=a.csv", "--hole=x", "--output=t.csv"], "--output: got 't.csv', allowed the path of a file .png"),
    (["--unsup=a.csv", "--semisup=b.csv", "--lithology=c.csv", "--output=t.csv"], "--lithology: got 'c.csv'"),
    ([*(f"--{kind}=a.csv" for kind in HEADERS), "--rgb_column=R", "--output=t.csv"], "allowed three columns"),
    ([*(f"--{kind}=a.csv" for kind in HEADERS), "--top_column=a", "--bottom_column=b", "--output=t.csv"],
     "got 'a', 'b', allowed two columns of --lithology, or none")])
def test_flags_that_do_not_fit_are_refused_in_one_line(monkeypatch, capsys, arguments, said):
  assert run(monkeypatch, *arguments) == 2
  assert said in capsys.readouterr().err
