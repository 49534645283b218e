"""Configs: what was asked for, checked once before any device work, with all names that are allowed. No JAX.

A config file builds an `ml_collections.ConfigDict` from `common()`; `resolve` checks it, so that `make` of an
experiment may be called under a trace with tracers in the fields that its module lists as TRACEABLE.
"""

from jaxtrain.config.checks import HOW, LENGTHS, MAY_CHANGE, allows, cleared, resolve, stage_config
from jaxtrain.config.defaults import common
from jaxtrain.config.fields import TRACEABLE, assign, check_field, is_traceable, lookup, parse_like, substitute
from jaxtrain.config.fields import suggestion, with_values
from jaxtrain.config.modules import load_experiment, load_function
from jaxtrain.config.records import as_json, check_same, differences, digest, from_record, from_workdir, to_record
from jaxtrain.config.sources import from_environment, list_variants, pick_variant, read_file, read_sweep

__all__ = ["HOW", "LENGTHS", "MAY_CHANGE", "TRACEABLE", "allows", "as_json", "assign", "check_field", "check_same",
           "cleared", "common", "differences", "digest", "from_environment", "from_record", "from_workdir",
           "is_traceable", "list_variants", "load_experiment", "load_function", "lookup", "parse_like", "pick_variant",
           "read_file", "read_sweep", "resolve", "stage_config", "substitute", "suggestion", "to_record",
           "with_values"]
