"""Figures of the family, from a run's facts and eval/<split>.json and .npz alone; losses and metrics are those that all
runs have.

`figures_recon` draws what comes back, `figures_events` whole events, `figures_codes` the codebook, `figures_generated`
generated events beside real ones, `figures_adversarial` and `figures_diffusion` how they are learned, `figures_compare`
several runs, and `figures_findings` says it in words.
"""

from jaxtrain.experiments.autoencoder.figures_adversarial import adversarial, findings as adversarial_findings
from jaxtrain.experiments.autoencoder.figures_codes import codebook
from jaxtrain.experiments.autoencoder.figures_compare import (
    anomaly as anomaly_of_runs, codebook_quality, compare_globals, compare_latents)
from jaxtrain.experiments.autoencoder.figures_diffusion import denoising, diffusion
from jaxtrain.experiments.autoencoder.figures_events import anomaly, bits, event_display, latency
from jaxtrain.experiments.autoencoder.figures_findings import findings
from jaxtrain.experiments.autoencoder.figures_generated import (
    findings as generated_findings, generated, generated_events, generated_peak)
from jaxtrain.experiments.autoencoder.figures_recon import confusion, images, recon, residuals

FAMILIES = {"event_display": event_display, "residuals": residuals, "confusion": confusion,
            "images": images, "codebook": codebook, "bits": bits, "anomaly": anomaly, "generated": generated,
            "generated_peak": generated_peak, "generated_events": generated_events, "adversarial": adversarial,
            "diffusion": diffusion, "denoising": denoising, "latency": latency}
FULL_FAMILIES = {"recon": recon}
FINDINGS = {"autoencoder": findings, "generated": generated_findings, "adversarial": adversarial_findings}
COMPARISONS = {"compare_latents": compare_latents, "compare_globals": compare_globals, "anomaly": anomaly_of_runs,
               "codebook_quality": codebook_quality}
