"""How bright each tissue is in each modality: share of white matter, which itself is brought to WHITE.

Ratios are those of common clinical sequences at 3 T, rounded; a hospital's own contrast is added to grey matter.
"""

from __future__ import annotations

from dataclasses import dataclass

WHITE = {"T1w": 0.85, "T1ce": 0.85, "FLAIR": 0.55, "T2w": 0.3}                             # leaves room for what is brighter


@dataclass(frozen=True)
class Contrast:
    """Brightness over white matter's."""

    fluid: float
    grey: float
    lesion: float
    oedema: float
    core: float                          # of a tumour, without blood supply
    rim: float                           # of a tumour, where contrast agent leaks


CONTRASTS = {
    "T1w": Contrast(fluid=0.14, grey=0.62, lesion=0.55, oedema=0.75, core=0.35, rim=0.6),
    "T1ce": Contrast(fluid=0.14, grey=0.62, lesion=0.55, oedema=0.75, core=0.35, rim=1.4),
    "FLAIR": Contrast(fluid=0.2, grey=1.2, lesion=1.8, oedema=1.7, core=0.7, rim=1.3),
    "T2w": Contrast(fluid=3.6, grey=1.6, lesion=2.1, oedema=2.3, core=2.9, rim=1.8),
}
