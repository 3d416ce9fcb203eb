"""What is measured on every scan: names, units and how they are written. Light: the second run needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping

MEASURES = {                                                 # column of morphometry.tsv -> what a person reads
    "brain_ml": "whole brain",
    "gm_ml": "grey matter",
    "wm_ml": "white matter",
    "csf_ml": "CSF",
    "ventricles_ml": "lateral ventricles",
    "lesion_ml": "lesions",
}


def cell(value: float | None) -> str:
    """A volume as tables hold it."""
    return "n/a" if value is None else f"{value:.2f}"


def measures_of(volumes: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """What a person reads, with unit."""
    return [(name, "not measurable" if volumes[key] is None else f"{cell(volumes[key])} ml") for key, name in MEASURES.items()]
