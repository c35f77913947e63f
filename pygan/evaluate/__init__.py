"""Judging a generator by its samples.

* the Parzen-window log-likelihood of the 2014 paper, in nats: `ParzenWindow`, `reference_rows`;
* modes found: `gaussian_modes`, `stacked_digit_modes`, `class_modes`;
* nearest neighbours: `precision_recall`, `density_coverage`, `two_sample_test`, `nearest`;
* a classifier trained here: `train_classifier`, `classifier_distances`;
* features, by a linear classifier with few labels: `few_label_curve`, `few_label_curves`;
* FID and KID by torch-fidelity: `inception_distances`.

docs/evaluation.md and docs/evaluation_beyond_parzen.md say what each number means, and when it misleads.
"""

from importlib import import_module

from pygan.evaluate.classifier import Classifier, classifier_distances, train_classifier
from pygan.evaluate.distances import frechet_distance, kernel_distance
from pygan.evaluate.few_labels import FewLabels, few_label_curve, few_label_curves
from pygan.evaluate.modes import ModeCoverage, class_modes, gaussian_modes, stacked_digit_modes
from pygan.evaluate.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    TwoSampleTest,
    density_coverage,
    nearest,
    nearest_neighbour_accuracy,
    precision_recall,
    two_sample_test,
)
from pygan.evaluate.parzen import PAPER_SIGMAS, ParzenEstimate, ParzenWindow

__all__ = [
    "CAVEAT",
    "PAPER_SIGMAS",
    "Classifier",
    "DensityCoverage",
    "FewLabels",
    "InceptionDistances",
    "ModeCoverage",
    "ParzenEstimate",
    "ParzenWindow",
    "PrecisionRecall",
    "TwoSampleTest",
    "class_modes",
    "classifier_distances",
    "density_coverage",
    "few_label_curve",
    "few_label_curves",
    "frechet_distance",
    "gaussian_modes",
    "inception_distances",
    "kernel_distance",
    "nearest",
    "nearest_neighbour_accuracy",
    "precision_recall",
    "reference_rows",
    "stacked_digit_modes",
    "train_classifier",
    "two_sample_test",
]

_LATER = {  # slow to import, or needed by few
    "CAVEAT": "references",
    "reference_rows": "references",
    "InceptionDistances": "fidelity",
    "inception_distances": "fidelity",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(f"pygan.evaluate.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
