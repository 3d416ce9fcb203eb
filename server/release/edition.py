"""Which release this is, and who answers for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

NOT_RECORDED = "not recorded"
_REVIEW_DAYS = 730                                           # attacks get better: what is true today is looked at again


@dataclass(frozen=True)
class Edition:
    """One release of one study."""

    study: str
    issued: date
    version: str = "1.0.0"
    issuer: str = NOT_RECORDED
    contact: str = NOT_RECORDED
    changes: tuple[str, ...] = ("First release.",)

    @classmethod
    def today(cls, study: str) -> Edition:
        """The first release of a study, issued now."""
        return cls(study, datetime.now(UTC).date())

    @property
    def name(self) -> str:
        """What the release is called everywhere."""
        return f"{self.study}-{self.version}"

    @property
    def review_by(self) -> date:
        """When what the certificate says has to be looked at again."""
        return self.issued + timedelta(days=_REVIEW_DAYS)
