"""What a run prints between its first and its last lines: few lines, aligned, the same metrics in the same order."""

from jaxtrain.run import console


def printed(capsys, num_reports, every=False, **changed):
  """The lines of a run of so many reports; from the second on the means are `changed`."""
  shown = console.Console(True, None, every=every)
  shown.start(0, num_reports * 10, 10)
  for k in range(1, num_reports + 1):
    means = {"loss": 2.0 / k, "val_loss": 3.0 / k, "val_accuracy": 0.01 * k}
    shown.report(f"epoch {k}/{num_reports}", k * 10, means if k == 1 or not changed else changed, 1e6 / k)
  shown.close()
  return capsys.readouterr().out.splitlines()


def test_a_long_run_prints_about_twenty_lines_and_its_last(capsys):
  lines = printed(capsys, 400)
  assert 19 <= len(lines) <= 22 and lines[0].startswith("epoch   1/400") and lines[-1].startswith("epoch 400/400")


def test_lines_are_equally_many_epochs_apart(capsys):
  for epochs, apart in ((30, 2), (70, 4), (300, 20), (8, 1)):
    numbers = [int(line.split()[1].partition("/")[0]) for line in printed(capsys, epochs)]
    assert numbers == sorted({1, *range(apart, epochs + 1, apart), epochs})


def test_a_short_run_prints_all_and_so_does_one_that_was_asked_to(capsys):
  assert len(printed(capsys, 7)) == 7 and len(printed(capsys, 60, every=True)) == 60


def test_lines_are_aligned_and_a_metric_that_is_not_there_leaves_its_place(capsys):
  lines = printed(capsys, 12, loss=0.123456, val_accuracy=0.5)
  assert len({line.index("val_accuracy") for line in lines}) == 1
  assert lines[1].split() == ["epoch", "2/12", "loss", "0.1235", "val_loss", "–", "val_accuracy", "0.5", "500,000",
                              "rows/s"]


def test_what_is_not_printed_is_in_the_log(tmp_path):
  shown = console.Console(True, str(tmp_path / "log.txt"))
  shown.start(0, 100)
  for k in range(1, 101):
    shown.report(f"epoch {k}/100", k, {"loss": 1.0}, None)
  shown.close()
  assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("loss 1") == 100
