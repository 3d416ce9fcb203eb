"""The last mile of a rehearsal: phantom sites vote, sign their ledgers and approve; a rehearsal's own key signs the release.

Each site's key lies in the site's own folder and is used by code of `client/` alone, as in a hospital.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from braing3n_core.census import Shares, pooled
from braing3n_core.data.cohort import Cohort
from braing3n_core.errors import GateBlocked
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.settings import Settings
from client.attest import NOBODY_LOOKED, approve, ledger_statement
from client.enrolled import KEY, phantom_key
from client.site import Site
from client.vote import Ballot
from privacy.ledger import Ledger
from privacy.signing import SigningKey
from server.release.accounts import Sealed
from server.release.gates import Votes
from server.release.inputs import SitePrivacy, site_privacy
from server.release.seal import seal

PUBLIC_KEY = "release.pub"


@dataclass(frozen=True)
class PhantomConsortium:
    """The sites of one run, reached by plain calls after the federation is over."""

    settings: Settings
    cohorts: Mapping[str, Cohort]
    say: Say
    votes: bool = True

    def vote(self, volumes: Tensor, threshold: float) -> Votes:
        """Every site's noisy bits. Raises GateBlocked if a site refuses; its own log says why."""
        plan, bits = self.settings.plan, {}
        ballot = Ballot(plan.digest, 1, volumes, threshold)
        for name, cohort in self.cohorts.items():
            self.say(f"{name} holds {len(volumes)} candidates against its {len(cohort.patients)} patients")
            header = self._site(name, cohort).vote(ballot).header
            if header.get("kind") != "vote":
                raise GateBlocked(f"{name} does not vote ({header.get('code')}); read site.log in its folder, then run again")
            bits[name] = str(header["bits"])
        return Votes(bits, plan.privacy.vote_epsilon, threshold)

    def census(self) -> Shares | None:
        """What the sites tell of their patients; None if the plan takes no census. Raises GateBlocked if a site refuses."""
        plan, told = self.settings.plan, {}
        if plan.census is None:
            return None
        for name, cohort in self.cohorts.items():
            self.say(f"{name} tells the census of its {len(cohort.patients)} patients")
            header = self._site(name, cohort).census().header
            if header.get("kind") != "census":
                raise GateBlocked(f"{name} tells no census ({header.get('code')}); read site.log in its folder, then run again")
            told[name] = tuple(int(count) for count in str(header["counts"]).split())
        return pooled(plan, told)

    def privacy(self) -> Sequence[SitePrivacy]:
        """What each site's own ledger says was spent, over everything that ever used these patients."""
        terms, rows = self.settings.plan.privacy, []
        for name in self.cohorts:
            with Ledger(self.settings.folder(name) / "ledger.jsonl", terms.delta) as ledger:
                rows.append(site_privacy(name, ledger.events, terms.epsilon, terms.delta))
        return rows

    def ledgers(self) -> Mapping[str, Sealed]:
        """Each site's whole ledger under its own key."""
        digest, found = self.settings.plan.digest, {}
        for name in self.cohorts:
            key = self._key(name)
            found[name] = Sealed(key.public, ledger_statement(self.settings.folder(name), name, digest, key))
        return found

    def sign(self, release: Path) -> None:
        """Every site approves the finished folder, then it is signed; the public key is put beside it."""
        approvals = [
            approve(release, self.settings.folder(name), name, self._key(name), NOBODY_LOOKED) for name in self.cohorts
        ]
        key = phantom_key(self.settings.out / "keys" / "release")
        seal(release, key, approvals)
        write_atomically(self.settings.out / PUBLIC_KEY, key.public.pem)

    def _site(self, name: str, cohort: Cohort) -> Site:
        settings = self.settings
        return Site(name, settings.plan, settings.folder(name), settings.bids(name), cohort_source=lambda *_: cohort)

    def _key(self, name: str) -> SigningKey:
        return phantom_key(self.settings.folder(name) / KEY)
