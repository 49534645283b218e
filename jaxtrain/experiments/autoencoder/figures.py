"""Figures of the family, from a run's facts and eval/<split>.json and .npz alone; losses and metrics are those that all
runs have.

`figures_recon` draws what comes back, `figures_events` whole events, `figures_codes` the codebook, `figures_compare`
several runs, and `figures_findings` says it in words.
"""

from jaxtrain.experiments.autoencoder.figures_codes import codebook
from jaxtrain.experiments.autoencoder.figures_compare import (
    anomaly as anomaly_of_runs, codebook_quality, compare_globals, compare_latents)
from jaxtrain.experiments.autoencoder.figures_events import anomaly, bits, event_display, latency
from jaxtrain.experiments.autoencoder.figures_findings import findings
from jaxtrain.experiments.autoencoder.figures_recon import confusion, images, recon, residuals

FAMILIES = {"event_display": event_display, "residuals": residuals, "confusion": confusion,
            "images": images, "codebook": codebook, "bits": bits, "anomaly": anomaly, "latency": latency}
FULL_FAMILIES = {"recon": recon}
FINDINGS = {"autoencoder": findings}
COMPARISONS = {"compare_latents": compare_latents, "compare_globals": compare_globals, "anomaly": anomaly_of_runs,
               "codebook_quality": codebook_quality}
