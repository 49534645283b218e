"""The sections that all experiments share, with their defaults."""

import copy
from typing import Any

from ml_collections import ConfigDict


DEFAULTS: dict[str, Any] = {
    "experiment": "",  # module with load(config) and make(config, meta), by its dotted name
    "seed": 0,  # root of all randomness of training
    "stages": (),  # override dicts, one a stage; each stage starts from the best state of the one before
    "model": {},
    "loss": {},
    "optim": {
        "name": "adam",  # optimiser: adam | adamw | sgd | lamb | lion
        "learning_rate": 1e-3,  # at the peak of its schedule
        "weight_decay": 0.0,  # pulls weights to 0: L2 in the gradient for adam and sgd, decoupled for the others
        "betas": (0.9, 0.999),  # decay of the moments; sgd: momentum is the first
        "eps": 1e-8,  # number that is added to the root of the second moment
        "clip_norm": 0.0,  # largest global norm of the gradient; longer ones are shortened; 0 = off
        "schedule": "constant",  # of the learning rate: constant | cosine | step | warmup_cosine
        "warmup_steps": 0,  # steps of the linear warm-up from 0
        "decay_steps": 0,  # steps of the schedule (its horizon); 0 = the run's length when first started
        "end_value": 0.0,  # learning rate at the horizon, as a fraction of the peak
        "frozen": (),  # patterns of parameter paths that do not train, such as ('encoder/*',)
        "ema_decay": 0.0,  # decay of a moving average of the parameters; 0 = off
        "plateau": {
            "factor": 0.0,  # learning rate times this on a plateau; 0 = off
            "patience": 10,  # values without progress before a cut, counted as PyTorch does
            "threshold": 1e-4,  # relative progress that counts
            "monitor": "train_loss",  # metric that is watched: train_loss (judged inside the step) or an evaluated one
        },
    },
    "train": {
        "batch_size": 256,  # rows per step, over all devices
        "num_epochs": 0,  # passes over the training rows; exactly one of num_epochs and num_steps is above 0
        "num_steps": 0,  # steps, in the place of num_epochs
        "precision": "float32",  # of the computation: float32 | bfloat16; parameters and losses stay float32
        "monitor": "val_loss",  # metric that decides best and patience; train_loss where there is no validation part
        "monitor_mode": "min",  # whether the lowest or the highest is the best: min | max
        "monitor_from_epoch": 0,  # up to here the newest state counts as the best: the loss is still being annealed
        "patience": 0,  # evaluations without progress before stopping; 0 = off
        "min_delta": 0.0,  # progress smaller than this does not count
        "on_nonfinite": "halt",  # what happens at a loss or gradient that is not finite: halt | skip the step
        "time_budget_minutes": 0.0,  # save and exit 85 after so long; 0 = no budget
        "num_members": 1,  # members of an ensemble trained as one run
        "microbatch": 0,  # rows per chunk (gradient accumulation); 0 = the whole batch, -1 = the largest that fits
    },
    "eval": {
        "every_epochs": 1,  # epochs between evaluations
        "every_steps": 0,  # steps between evaluations, instead of every_epochs, where above 0
        "assess_every_epochs": 0,  # epochs between assessments; 0 = at the end of the run alone
        "assess_every_steps": 0,  # steps between assessments, instead of assess_every_epochs, where above 0
        "batch_size": 0,  # rows per evaluation step; 0 = as train
    },
    "checkpoint": {
        "every_epochs": 10,  # epochs between checkpoints
        "every_steps": 0,  # steps between checkpoints, instead of every_epochs, where above 0
        "keep_last": 2,  # newest checkpoints kept
        "keep_best": 1,  # best checkpoints kept
        "asynchronous": True,  # writes in the background
        "init": "params",  # what --init_from takes over: params (parameters and model state) | all (but step and key)
        "init_paths": (),  # patterns of paths that --init_from takes over, such as ('tokeniser/*',); () = all
    },
    "log": {
        "every_steps": 0,  # interval of plain progress lines; 0 = once an epoch
        "figures": "standard",  # which figures are drawn: none | minimal | standard | full
        "families": (),  # figure families to draw; () = those of the preset
        "save_artifacts": True,  # keeps the arrays behind the figures (eval/*.npz)
        "progress": True,  # shows a progress bar, or lines where there is no terminal
        "verbose": False,  # a line for every step with the terms of its loss: slow
        "tensorboard": False,  # writes event files for TensorBoard (extra tensorboard)
    },
    "parallel": {
        "mode": "jit",  # how a batch is shared among devices: jit | pmap | canonical
        "chunks": 4,  # pieces that a batch is cut into in the mode canonical
        "platform": "auto",  # kind of device: auto | cpu | gpu | tpu
        "cpu_threads": 0,  # XLA's threads on a CPU; 0 = chosen from the work per step
        "deterministic": False,  # sets flags of XLA with which a GPU repeats its bits
        "watchdog_seconds": 0.0,  # exit 4 when no step completes for so long; 0 = off
    },
}

# The section `data` of experiments that read tables from files.
TABLES: dict[str, Any] = {
    "source": "",  # where the rows come from; the experiment lists what it reads
    "path": "",  # path of the file; name of a scikit-learn table; name or folder of a TFDS dataset
    "table": "",  # table of an SQLite file, split of a TFDS dataset; empty = the only one
    "features": (),  # names or patterns ('pixel_*') of the feature columns, in the model's order; () = the source's own
    "leave_out": (),  # names or patterns of columns that are no features, of those that a pattern or () names
    "label": "",  # name of the label column; empty = none
    "group": "",  # name of the column whose values stay in one part of a split; empty = none
    "missing": (),  # further words and numbers that mean missing, such as (-999.25, '-')
    "incomplete": "drop",  # rows with missing features: drop | mask, which trains on the features they have
    "separator": ",",  # what separates the cells of a CSV file: a character, or tab
    "decimal": ".",  # what stands before the decimals of numbers that are text: . | ,
    "thousands": "",  # what sets thousands apart in numbers that are text; empty = nothing does
    "encoding": "utf-8",  # text encoding of a CSV file, such as cp1252, latin-1, utf-16
    # per feature: identity | standardise | min_max | log1p | signed_log1p, or 'name=log1p' of some; () = standardise
    "transforms": (),
    "out_of_core": False,  # features stay in the file and batches are read as training goes: hdf5, tfds
    "num_workers": 0,  # processes that read with out_of_core; 0 = threads
    "shuffle": True,  # rows in a new order each epoch
    "resample": 0,  # k: train on the k-th bootstrap resample of the training rows; 0 = on the rows themselves
    # share of the labels of training rows that are used, drawn by seed; the other rows train as unlabelled ones
    "label_share": 1.0,
    "row_limit": 0,  # use the first rows only (a generator makes so many); 0 = all
    "split": {
        "kind": "none",  # how rows are split into parts: none | random | group | entropy_balanced | leave_out
        "fractions": (0.7, 0.15, 0.15),  # shares of the parts train, val and test
        "num_folds": 5,  # folds of cross-validation
        "fold": 0,  # the fold that is tested on
    },
}


def common() -> ConfigDict:
  """Sections and defaults that all experiments share; a config file sets what differs."""
  return ConfigDict(copy.deepcopy(DEFAULTS))


def tables() -> ConfigDict:
  """The section `data` of an experiment that reads tables from files: `config.data = tables()`."""
  return ConfigDict(copy.deepcopy(TABLES))


def optimiser() -> ConfigDict:
  """The section of one more optimiser: `config.optim_critic = optimiser()`.

  A section whose name is `optim` or begins with `optim_` has the limits of `optim`, a horizon that is filled in when
  the run starts, and a learning rate that may be swept as an argument of one program.
  """
  return ConfigDict(copy.deepcopy(DEFAULTS["optim"]))
