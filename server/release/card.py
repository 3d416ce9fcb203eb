"""The words around the data: README with a dataset card, LICENSE, CHANGES, and what BIDS tools should not look at."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from braing3n_core.data.template import SPACE
from braing3n_core.manifest import ATTESTATIONS, SIGNATURE, SUMS
from braing3n_core.plan import TrainingPlan
from server.release.cohort import Person, in_words
from server.release.edition import NOT_RECORDED, Edition
from server.release.shown import listed, modalities, white
from server.release.tables import BidsType, licence

CROISSANT = "croissant.json"
IGNORED = (SUMS, ATTESTATIONS, CROISSANT, SIGNATURE)         # at the root and not of BIDS

_DEDICATION = """CC0 1.0 Universal, Public Domain Dedication

To the extent possible under law, whoever made these synthetic images has waived all copyright and related or neighbouring
rights to them. Full text: https://creativecommons.org/publicdomain/zero/1.0/legalcode

The space of the images is that of ICBM152 2009a nonlinear asymmetric, (c) McConnell Brain Imaging Centre, McGill University.
"""
_USES = (
    "developing, teaching and rehearsing methods and pipelines",
    "checking that software reads, resamples and displays what it should",
)
_MISUSES = (
    "diagnosis, treatment, or any decision about a person",
    "trying to find out whether somebody was a patient, or who",
    "claims about any one patient, or about how common something is: the mix of people was asked for, not observed",
)


_VISITS = """
- `sub-*/sub-*_sessions.tsv` holds the years of each visit. All visits of one synthetic person are one course of events."""


def documents(plan: TrainingPlan, edition: Edition, people: Sequence[Person], kind: BidsType) -> dict[str, bytes]:
    """The files by name. A function of its arguments alone."""
    return {
        "README.md": readme(plan, edition, people, kind).encode(),
        "LICENSE": _license(plan).encode(),
        "CHANGES": _changes(edition).encode(),
        ".bidsignore": bidsignore(),
    }


def bidsignore(*more: str) -> bytes:
    """What BIDS tools should not look at, and `more` of it."""
    return "".join(f"{name}\n" for name in sorted((*IGNORED, *more))).encode()


def readme(plan: TrainingPlan, edition: Edition, people: Sequence[Person], kind: BidsType) -> str:
    """README.md, which dataset hubs read as a card; what is not known is there as "not recorded"."""
    load = {
        "derivative": 'layout = BIDSLayout(".", is_derivative=True, config=["bids", "derivatives"])\n'
                      'images = layout.get(desc="synthetic", extension=".nii.gz")',
        "raw": 'layout = BIDSLayout(".")\nimages = layout.get(reconstruction="synthetic", extension=".nii.gz")',
    }[kind]  # fmt: skip
    shown = modalities(people)
    return f"""{_yaml(plan, edition, len(people))}
# {edition.name}: {in_words(people)}

Every image here was made by a generator. None is a scan of a person, and none may be used for diagnosis or treatment.
Each image says so itself: in its name, its JSON file (`SyntheticData`) and its NIfTI header (`descrip`).

- Open `docs/report.html` in a browser. It needs no network.
- `docs/privacy_certificate.html` says what is promised to the patients behind the generator, and what is not.
- `participants.tsv` holds what was REQUESTED of the generator for each image, drawn from the plan (`docs/plan.json`), never
  from a table of patients.{_VISITS if plan.longitudinal else ""}{_both(shown)}
- Images are skull-stripped, in the space {SPACE}, axes right-anterior-superior, intensities without unit (white matter is
  near {white(shown)}, background is 0).

## Load

```python
from bids import BIDSLayout
{load}{_suffix(shown, kind)}
```

```python
import nibabel
volume = nibabel.load("sub-syn0001/anat/...nii.gz").get_fdata()    # already float32; header in mm, RAS
```

## Use

{_list("For", _USES)}

{_list("Not for", _MISUSES)}

## Verify

With coreutils: `sha256sum -c {SUMS}`. With the publisher's public key, `release.pub`, which you should get by another road:

```
braing3n-admin verify . --key release.pub
model_signing verify key . --signature {SIGNATURE} --public_key release.pub
```

The second program is not ours (PyPI: `model-signing`; 1.1.1 also needs `pyOpenSSL`, and later versions spell the option
`--public-key`). Plan digest: `{plan.digest}`.

{_about(plan, edition, shown)}"""


def _both(shown: Sequence[str]) -> str:
    """What several modalities are to each other; nothing where there is one."""
    if len(shown) == 1:
        return ""
    others = listed(shown[1:])
    return f"""
- {listed(shown)} of one person and visit lie side by side and show one anatomy, voxel by voxel: {others} is made from what
  the T1w was made from. The column `modality` of `participants.tsv` says who has which. What is measured is measured on the
  T1w alone."""


def _suffix(shown: Sequence[str], kind: BidsType) -> str:
    """One modality alone with pybids."""
    named = {"derivative": 'desc="synthetic"', "raw": 'reconstruction="synthetic"'}[kind]
    return "".join(f'\n{name.lower()} = layout.get({named}, suffix="{name}", extension=".nii.gz")' for name in shown[1:])


def _about(plan: TrainingPlan, edition: Edition, shown: Sequence[str]) -> str:
    limits = "one sequence (T1w)" if len(shown) == 1 else f"{listed(shown)} alone, tissues measured on T1w only"
    return f"""## About

| | |
|---|---|
| Version | {edition.version}, {edition.issued}; to be reviewed by {edition.review_by} |
| Custodian and contact | {edition.issuer}; {edition.contact} |
| Licence | {licence(plan)} |
| Source | {len(plan.sites)} {"phantom hospitals" if plan.rehearsal else "hospitals"}, declared sizes in `docs/plan.json` |
| Ethics and legal basis | {NOT_RECORDED} |
| Purposes to avoid | see above |
| Known limits | smoother than scans; {limits}; the people are those the plan asked for |
| Maintenance | new versions replace this one; a withdrawn release is named in the publisher's signed revocation list |
"""


def _yaml(plan: TrainingPlan, edition: Edition, count: int) -> str:
    size = next(name for most, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (math.inf, "10K<n<100K")) if count < most)
    tags = ["synthetic", "medical", "mri", "brain", "bids"]
    tags += ["differential-privacy"] if plan.privacy.private else []
    return "\n".join(
        [
            "---",
            f"pretty_name: {json.dumps(edition.name)}",
            f"license: {'cc0-1.0' if plan.rehearsal else 'other'}",
            f"tags: {json.dumps(tags)}",
            f"size_categories: [{json.dumps(size)}]",
            "annotations_creators: [machine-generated]",
            "source_datasets: [original]",
            "extra_gated_prompt: These images are synthetic and not for diagnosis.",
            "extra_gated_fields:",
            "  I will not try to find out who took part: checkbox",
            "---",
        ]
    )


def _list(title: str, items: tuple[str, ...]) -> str:
    return f"{title}:\n" + "\n".join(f"- {item}" for item in items)


def _license(plan: TrainingPlan) -> str:
    if plan.rehearsal is not None:
        return _DEDICATION
    return f"{licence(plan)}. Until they decide, these files may be verified and looked at, not passed on.\n"


def _changes(edition: Edition) -> str:
    """In the form that BIDS asks for, which is that of CPAN."""
    return f"{edition.version} {edition.issued.isoformat()}\n" + "".join(f"  - {change}\n" for change in edition.changes)
