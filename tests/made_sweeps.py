"""Sweep folders like the command's, written by hand, and their pages taken apart."""

import json
import os
import re
import sys

from jaxtrain.report import __main__, sweep_page
from pages import Page

VAE = "jaxtrain.experiments.tabular_vae.vae"


def write_lines(path, lines):
  """A text file, with its folder."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w", encoding="utf-8") as file:
    file.writelines(line + "\n" for line in lines)


def make_run(folder, loss, *, config=None, end="on_train_end", num_epochs=4, scalars=None, said=None):
  """A run folder whose validation loss falls to `loss` at the last epoch but one; the test loss is `loss` + 1.
  `said`: the better direction of metrics, as the experiment declares it.
  """
  record = {"experiment": VAE, "seed": 0, "train": {"monitor": "val_loss", "monitor_mode": "min"}, "origins": {}}
  write_lines(os.path.join(folder, "config.json"), [json.dumps(record | (config or {}))])
  best = num_epochs - 1
  metrics = {metric: {"unit": "", "meaning": "", "direction": direction, "chance": None}
             for metric, direction in (said or {}).items()}
  events = [{"moment": "on_start", "steps_per_epoch": 10, "metrics": metrics},
            {"moment": "on_eval", "is_best": True, "step": 10 * best}]
  rows = ["epoch,split,step,train_loss,val_loss,epoch_time_s,metric_accuracy,metric_loss"]
  for k in range(1, num_epochs + 1):
    value = loss + abs(best - k)
    rows += [f"{k},train,{10 * k},{value},,0.5,{0.1 * k},{value}", f"{k},val,{10 * k},,{value},,{0.1 * k},{value}"]
  if end:
    events.append({"moment": end, "best_step": 10 * best, "error": "NonFinite", "message": "loss is not finite"})
  if end == "on_train_end":
    rows.append(f"{num_epochs},test,{10 * best},,,,0.75,{loss + 1}")
    record = {"split": "test", "scalars": scalars or {"rows": 9, "r2": 0.5, "r2_raw/a": 0.1}}
    write_lines(os.path.join(folder, "eval", "test.json"), [json.dumps(record)])
    write_lines(os.path.join(folder, "eval", "test.npz"), ["no archive"])  # the comparison does not read it
    write_lines(os.path.join(folder, "report.html"), ["x"])
  write_lines(os.path.join(folder, "facts", "scalars.csv"), rows)
  write_lines(os.path.join(folder, "facts", "events.jsonl"), map(json.dumps, events))


def make_sweep(folder, *, rates=(0.1, 0.01), seeds=(0, 1, 2, 3), ends=None, name="", loss=None, num_epochs=4):
  """A sweep of rate and seed. The first rate is better by about 1; `ends` gives members another end than done."""
  folder, ends, lines, member = os.fspath(folder), ends or {}, [], 0
  loss = loss or (lambda k, rate, seed: k + 0.2 * seed + 0.01 * ((seed * (k + 1)) % 3))
  base = {"experiment": VAE, "seed": 0, "optim": {"rate": 1.0}, "train": {"monitor": "val_loss"}}
  write_lines(os.path.join(folder, "sweep.json"), [json.dumps({"version": 1, "config": "configs/a.py", "base": base})])
  for k, rate in enumerate(rates):
    for seed in seeds:
      values = {"optim.rate": rate, "seed": seed}
      run, end = f"runs/{member:03d}{name}", ends.get(member, "done")
      lines += [{"event": "added", "member": member, "digest": "ab", "values": values, "folder": run}]
      if end != "pending":
        lines += [{"event": "started", "member": member}, {"event": "something new", "member": member}]
        moment = {"done": "on_train_end", "failed": "on_exception"}.get(end)
        make_run(os.path.join(folder, run), loss(k, rate, seed), end=moment, num_epochs=num_epochs,
                 config={"seed": seed, "optim": {"rate": rate}})
        if end in ("done", "failed"):
          lines.append({"event": end, "member": member, "code": 3, "reason": "step 7: loss is not finite"})
      member += 1
  write_lines(os.path.join(folder, "journal.jsonl"), map(json.dumps, lines))
  with open(os.path.join(folder, "journal.jsonl"), "a", encoding="utf-8") as file:
    file.write('{"event": "failed", "member": 0, "rea')  # half a line
  return folder


def page_of(*paths, output):
  """The page of some folders, and its data."""
  assert sweep_page.write([os.fspath(path) for path in paths], os.fspath(output)) == os.fspath(output)
  page = Page(output)
  return page, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.source, re.S)[1])


def metric_of(data, name):
  """The record of a metric."""
  return next(metric for metric in data["metrics"] if metric["name"] == name)


def row_of(page, name):
  """The cells of a run, by column."""
  head = next(row for row in page.rows if row[:1] == ["run"])
  return dict(zip(head, next(row for row in page.rows if row[:1] == [name])))


def run_main(monkeypatch, *arguments):
  """The exit code of the command."""
  monkeypatch.setattr(sys, "argv", ["report", *map(os.fspath, arguments)])
  return __main__.main()
