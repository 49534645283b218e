"""Configs: what was asked for, checked once before any device work, with all names that are allowed. No JAX.

A config file builds an `ml_collections.ConfigDict` from `common()`; `resolve` checks it, so that `make` of an
experiment may be called under a trace with tracers in the fields that its module lists as TRACEABLE.
"""

from jaxtrain.config.checks import HOW, LENGTHS, MAY_CHANGE, cleared, resolve, stage_config
from jaxtrain.config.defaults import common, optimiser, tables
from jaxtrain.config.fields import assign, check_field, is_traceable, lookup, nearest, optimisers, parse_like
from jaxtrain.config.fields import substitute, suggestion, with_values
from jaxtrain.config.modules import declared, load_companion, load_experiment, load_function, named_code
from jaxtrain.config.modules import strangers
from jaxtrain.config.records import as_json, check_same, differences, digest, from_record, from_workdir, must_fit
from jaxtrain.config.records import to_record, upgraded
from jaxtrain.config.sources import from_environment, list_variants, pick_variant, read_file, read_sweep

__all__ = ["HOW", "LENGTHS", "MAY_CHANGE", "as_json", "assign", "check_field", "check_same", "cleared",
           "common", "declared", "differences", "digest", "from_environment", "from_record", "from_workdir",
           "is_traceable", "list_variants", "load_companion", "load_experiment", "load_function", "lookup", "must_fit",
           "named_code", "nearest", "optimiser", "optimisers", "parse_like", "pick_variant", "read_file", "read_sweep",
           "resolve", "stage_config", "strangers", "substitute", "suggestion", "tables", "to_record", "upgraded",
           "with_values"]
