"""The sections that all experiments share, with their defaults."""

import copy
from typing import Any

from ml_collections import ConfigDict


DEFAULTS: dict[str, Any] = {
    "experiment": "",  # dotted module with load(config) and make(config, meta)
    "seed": 0,  # root of all randomness of training
    "stages": (),  # override dicts, one a stage; each stage starts from the best state of the one before
    "model": {},
    "loss": {},
    "optim": {
        "name": "adam",  # adam | adamw | sgd | lamb | lion
        "learning_rate": 1e-3,  # peak
        "weight_decay": 0.0,  # L2 in the gradient for adam and sgd, decoupled for the others
        "betas": (0.9, 0.999),  # decay of the moments; sgd: momentum is the first
        "eps": 1e-8,  # added to the root of the second moment
        "clip_norm": 0.0,  # global norm of the gradient; 0 = off
        "schedule": "constant",  # constant | cosine | step | warmup_cosine
        "warmup_steps": 0,  # linear warm-up from 0
        "decay_steps": 0,  # horizon of the schedule; 0 = the run's length when first started
        "end_value": 0.0,  # fraction of the peak at the horizon
        "frozen": (),  # patterns of parameter paths that do not train, such as ('encoder/*',)
        "ema_decay": 0.0,  # moving average of the parameters; 0 = off
        "plateau": {
            "factor": 0.0,  # learning rate times this on a plateau; 0 = off
            "patience": 10,  # values without progress before a cut, counted as PyTorch does
            "threshold": 1e-4,  # relative progress that counts
            "monitor": "train_loss",  # train_loss (decided inside the step) or an evaluated metric
        },
    },
    "train": {
        "batch_size": 256,  # rows per step, over all devices
        "num_epochs": 0,  # exactly one of num_epochs and num_steps is above 0
        "num_steps": 0,
        "precision": "float32",  # float32 | bfloat16 (compute; parameters and losses stay float32)
        "monitor": "val_loss",  # decides best and patience; train_loss where there is no validation part
        "monitor_mode": "min",  # min | max
        "monitor_from_epoch": 0,  # up to here the newest counts as best: its loss is still being annealed
        "patience": 0,  # evaluations without progress before stopping; 0 = off
        "min_delta": 0.0,  # progress smaller than this does not count
        "on_nonfinite": "halt",  # halt | skip
        "time_budget_minutes": 0.0,  # save and exit 85 after so long; 0 = no budget
        "num_members": 1,  # members of an ensemble trained as one run
        "microbatch": 0,  # rows per chunk (gradient accumulation); 0 = the whole batch, -1 = the largest that fits
    },
    "eval": {
        "every_epochs": 1,  # evaluation cadence
        "every_steps": 0,  # instead of every_epochs where above 0
        "assess_every_epochs": 0,  # cadence of the assessment; 0 = at the end of the run alone
        "assess_every_steps": 0,  # instead of assess_every_epochs where above 0
        "batch_size": 0,  # 0 = as train
    },
    "checkpoint": {
        "every_epochs": 10,  # saving cadence
        "every_steps": 0,  # instead of every_epochs where above 0
        "keep_last": 2,  # newest checkpoints kept
        "keep_best": 1,  # best checkpoints kept
        "asynchronous": True,  # write in the background
        "init": "params",  # what --init_from takes over: params (parameters and model state) | all (but step and key)
        "init_paths": (),  # patterns of paths to take over, such as ('tokeniser/*',); () = all of those
    },
    "log": {
        "every_steps": 0,  # interval of plain progress lines; 0 = once an epoch
        "figures": "standard",  # none | minimal | standard | full
        "families": (),  # figure families to draw; () = those of the preset
        "save_artifacts": True,  # arrays behind the figures (eval/*.npz)
        "progress": True,  # progress bar or lines
        "tensorboard": False,  # event files for TensorBoard (extra tensorboard)
    },
    "parallel": {
        "mode": "jit",  # jit | pmap | canonical
        "chunks": 4,  # fixed number of chunks of canonical
        "platform": "auto",  # auto | cpu | gpu | tpu
        "cpu_threads": 0,  # XLA's threads on a CPU; 0 = chosen from the work per step
        "deterministic": False,  # flags that make a GPU repeat its bits
        "watchdog_seconds": 0.0,  # exit 4 when no step completes for so long; 0 = off
    },
}

# The section `data` of experiments that read tables from files.
TABLES: dict[str, Any] = {
    "source": "",  # where the rows come from; the experiment lists what it reads
    "path": "",  # file; name of a scikit-learn table; name or folder of a TFDS dataset
    "table": "",  # table of an SQLite file, split of a TFDS dataset; empty = the only one
    "features": (),  # names or patterns ('pixel_*') of the feature columns, in the model's order; () = the source's own
    "leave_out": (),  # names or patterns of columns that are no features, of those that a pattern or () names
    "label": "",  # name of the label column; empty = none
    "group": "",  # name of the column whose values stay in one part of a split; empty = none
    "missing": (),  # further words and numbers that mean missing, such as (-999.25, '-')
    "incomplete": "drop",  # drop | mask: rows with missing features are left out | used by what they have
    "separator": ",",  # of the cells of a CSV file: a character, or tab
    "decimal": ".",  # . | , in numbers that are text
    "thousands": "",  # what sets thousands apart in numbers that are text; empty = nothing does
    "encoding": "utf-8",  # of a CSV file, such as cp1252, latin-1, utf-16
    "transforms": (),  # identity | standardise | min_max | log1p | signed_log1p per feature; () = standardise
    "out_of_core": False,  # features stay in the file and batches are read as training goes: hdf5, tfds
    "num_workers": 0,  # processes that read then; 0 = threads
    "shuffle": True,  # rows in a new order each epoch
    "resample": 0,  # k: train on the k-th bootstrap resample of the training rows; 0 = on the rows themselves
    "row_limit": 0,  # use the first rows only (a generator makes so many); 0 = all
    "split": {
        "kind": "none",  # none | random | group | entropy_balanced | leave_out
        "fractions": (0.7, 0.15, 0.15),  # train, val, test
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
