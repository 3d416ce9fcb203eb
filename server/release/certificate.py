"""The privacy certificate: what a release promises, site by site, with the events that the promise can be recomputed from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from braing3n_core.budget import Mechanism
from braing3n_core.errors import IntegrityError
from braing3n_core.plan import Frozen, TrainingPlan
from server.release.accounts import Account, refuse_untrue, worst_fallback
from server.release.certificate_words import ARTIFICIAL, EVIDENCE, SECTIONS, Known, statements, worst

FILE = "docs/privacy_certificate.json"
PAGE = "docs/privacy_certificate.html"
COUNT = 47
_AVOIDED = re.compile(r"\banonymous|\banonymi[sz]ed|GDPR.compliant|no privacy risk|cannot be re-?identified", re.IGNORECASE)
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Said(Frozen):
    """One numbered statement."""

    number: Annotated[int, Field(ge=1, le=COUNT)]
    section: Literal["A", "B", "C", "D", "E", "F", "G", "H"]
    title: str
    text: str

    @model_validator(mode="after")
    def _says_nothing_that_is_not_known(self) -> Self:
        if _AVOIDED.search(self.text) or not self.text.strip():
            raise ValueError(f"statement {self.number} uses a forbidden word, or is empty: {self.text[:60]!r}")
        return self


class Certificate(Frozen):
    """Everything that is stated. `statements` are all 47, in order; `sites` are those of the plan."""

    kind: Literal["braing3n privacy certificate"] = "braing3n privacy certificate"
    version: Literal[1] = 1
    release: str
    issued: str                                              # ISO date
    review_by: str
    plan: _Digest
    policy: _Digest
    images: NonNegativeInt
    unit: Literal["one patient with all scans"] = "one patient with all scans"
    neighbours: Literal["add or remove one patient"] = "add or remove one patient"
    mechanism: Mechanism
    generator: bool = False                                  # whether the trained networks are in the release
    epsilon: float | Literal["infinite"]                     # of the site whose patients spent most
    fallback: float | Literal["infinite"] | None = None      # the same against the server and all other sites; of secure sums
    delta: float
    sites: tuple[Account, ...]
    statements: tuple[Said, ...]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if [said.number for said in self.statements] != list(range(1, COUNT + 1)):
            raise ValueError(f"a certificate has statements 1 to {COUNT}, in order")
        if not {ARTIFICIAL, EVIDENCE} <= {said.text for said in self.statements}:
            raise ValueError("a certificate says that the images are artificial and what it is not")
        if not date.fromisoformat(self.issued) <= date.fromisoformat(self.review_by):
            raise ValueError("a certificate is issued before it has to be reviewed")
        return self

    def as_json(self) -> bytes:
        """The file. Law: read(as_json()) == self."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()

    @classmethod
    def read(cls, raw: bytes) -> Certificate:
        """Raises IntegrityError with the first fault in words."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "certificate"
            raise IntegrityError(f"the certificate is not one: {where}: {fault['msg'][:120]}; get the release again") from error


def certificate(known: Known) -> Certificate:
    """Issue a certificate for what is known."""
    said = (
        Said(number=number, section=section, title=title, text=text)     # type: ignore[arg-type]  # a literal, checked by the model
        for number, (section, title, text) in enumerate(statements(known), start=1)
    )
    _, epsilon = worst(known.accounts)
    return Certificate(
        release=known.edition.name,
        issued=known.edition.issued.isoformat(),
        review_by=known.edition.review_by.isoformat(),
        plan=known.plan.digest,
        policy=known.policy,
        images=known.images,
        mechanism=known.plan.privacy.mechanism,
        generator=known.generator,
        epsilon=epsilon if epsilon < float("inf") else "infinite",
        fallback=worst_fallback(known.accounts),
        delta=known.plan.privacy.delta,
        sites=tuple(known.accounts),
        statements=tuple(said),
    )


def refuse_false(plan: TrainingPlan, stated: Certificate) -> None:
    """Recompute every issued number from the events inside. Raises IntegrityError on the first that is not so.

    Sites sign their ledgers with keys that the certificate names; whether a key is a site's own is for the recipient to ask.
    """
    if not stated.plan == plan.digest:
        raise IntegrityError("the certificate is about another plan than docs/plan.json")
    names, expected = [row.site for row in stated.sites], [site.name for site in plan.sites]
    if missing := [name for name in expected if name not in names]:
        raise IntegrityError(f"{', '.join(missing)} of the plan is missing in the certificate")
    if not names == expected:
        raise IntegrityError("the certificate's sites are not the plan's, in the plan's order")
    keys = [row.public_key for row in stated.sites if row.public_key is not None]
    if len(set(keys)) < len(keys):
        raise IntegrityError("two sites sign with one key, so one of them did not sign for itself")
    for row in stated.sites:
        refuse_untrue(plan, row)
    _, epsilon = worst(stated.sites)
    claimed = float("inf") if stated.epsilon == "infinite" else stated.epsilon
    if not (claimed == epsilon and stated.delta == plan.privacy.delta and stated.mechanism == plan.privacy.mechanism):
        raise IntegrityError(f"the certificate states epsilon {claimed:.4g}; its worst site spent {epsilon:.4g}")
    if not stated.fallback == worst_fallback(stated.sites):
        raise IntegrityError("the certificate states another fallback epsilon than its worst site")


def page(stated: Certificate) -> str:
    """The certificate for people: one HTML file without script or address."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    sections = [(name, [said for said in stated.statements if said.section == letter]) for letter, name in SECTIONS.items()]
    return environment.get_template("certificate.html.j2").render(certificate=stated, sections=sections)


def schema() -> bytes:
    """JSON Schema of the certificate, for programs."""
    return (json.dumps(Certificate.model_json_schema(), indent=1) + "\n").encode()


__all__: Sequence[str] = ("Account", "Certificate", "Known", "certificate", "page", "refuse_false", "schema")
