"""What a person at a site found on the images of a release: saved by a page that `look` writes, held by the signed approval.

Everything here is published, so it speaks of images alone, in fixed words. That one looks like a patient is never a rating:
it is a matter for the data steward, who does not approve then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from braing3n_core.errors import DataRefused
from braing3n_core.plan import Frozen
from braing3n_core.strict_json import parsed
from client.attest import Check

RATINGS = ("exclude", "poor", "acceptable", "excellent")
ARTEFACTS = ("outside", "fragments", "asymmetry", "cortex", "ventricles", "contrast", "blur", "other")
Rating = Literal["exclude", "poor", "acceptable", "excellent"]
Artefact = Literal["outside", "fragments", "asymmetry", "cortex", "ventricles", "contrast", "blur", "other"]


class ImageRating(Frozen):
    """One image."""

    image: Annotated[str, Field(pattern=r"^sub-syn\d{4,}(_ses-\d{2})?(_FLAIR)?$")]
    rating: Rating
    artefacts: tuple[Artefact, ...] = ()


class OutputCheck(Frozen):
    """The whole form."""

    kind: Literal["output-check"]
    release: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]     # digest of the content that was looked at
    role: Annotated[str, Field(min_length=3, max_length=80)]
    images: Annotated[tuple[ImageRating, ...], Field(min_length=1)]
    comment: Annotated[str, Field(max_length=2000)] = ""
    minutes: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _each_image_once(self) -> Self:
        if len({one.image for one in self.images}) < len(self.images):
            raise ValueError("an image is rated twice")
        return self

    @classmethod
    def read(cls, path: Path) -> OutputCheck:
        """From the file that the page saved. Raises DataRefused for anything else."""
        try:
            raw = path.read_bytes()
            parsed(raw, path.name)                           # pydantic takes a key that stands twice
            return cls.model_validate_json(raw)
        except OSError as error:
            raise DataRefused(f"no ratings can be read at {path}; save them from the page that `look` wrote") from error
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "the form"
            raise DataRefused(f"{path.name}, {where}: {fault['msg']}; save the ratings again from the page") from error

    def as_check(self, content: str) -> Check:
        """What is signed. Raises DataRefused if another release than the one with this content digest was looked at."""
        if self.release != content:
            raise DataRefused("the ratings are about another release than this folder; look at this one")
        bad = [one.image for one in self.images if one.rating in ("exclude", "poor")]
        verdict = "acceptable" if not bad else f"{len(bad)} of {len(self.images)} images are not acceptable, first {bad[0]}"
        rows = tuple(one.model_dump(mode="json") for one in self.images)
        return Check(self.role, len(self.images), verdict, self.comment, rows, self.minutes)
