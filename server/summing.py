"""The server's side of one secure sum, step by step, without network, clock or disk. It holds one sum, not each site's numbers.

- keys: every site's signed public keys, given to all
- letters: each site's sealed letters to the others, each given to the site that it is for
- numbers: each site's masked numbers, added up as they come
- story: each site's signature under who took part, given to all
- shares: shares of the secrets that open the sum
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from braing3n_core.errors import ReplyRefused
from braing3n_core.protocol import Part, Request
from privacy.errors import PrivacyError
from privacy.secure_sum import Arrived, Revealed, Terms
from privacy.sum_words import (
    STEPS,
    Step,
    gathered_text,
    keys_in,
    letters_in,
    letters_text,
    names_text,
    shares_in,
    story_in,
)
from server.coordinator import Header

_NOTHING = np.empty(0, np.float32)


@dataclass
class Summing:
    """One attempt at one round.

    Rules
     * A site's word counts once, for the step that is open, and only from a site that took every step before.
     * A step closes with at least the threshold of sites; who said nothing until then is out of this sum.
     * From the step "numbers" on sites have paid, so what is known is worth keeping (`record`, `summed`).
    """

    terms: Terms
    request: Request                                         # of the round, without a part
    attempt: int
    step: Step = "keys"
    keys: dict[str, str] = field(default_factory=dict)       # site -> its signed keys, as it wrote them
    letters: dict[str, dict[str, bytes]] = field(default_factory=dict)               # from -> to -> letter
    arrived: set[str] = field(default_factory=set)
    summed: np.ndarray = field(default_factory=lambda: np.empty(0, "<u4"))
    stories: dict[str, str] = field(default_factory=dict)    # site -> its signed story, as it wrote it
    shares: dict[str, Revealed] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)              # sites that refuse, in this attempt
    done: bool = False                                       # every step is closed

    def __post_init__(self) -> None:
        if not len(self.summed):
            self.summed = np.zeros(self.terms.size, "<u4")

    @property
    def members(self) -> tuple[str, ...]:
        """Sites that may take the open step."""
        place = STEPS.index(self.step)
        before = self._took(STEPS[place - 1]) if place else set(self.terms.sites)
        return tuple(site for site in self.terms.sites if site in before - self.lost)

    @property
    def spoken(self) -> set[str]:
        """Sites that took the open step."""
        return self._took(self.step)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Sites that may still take it."""
        return tuple(site for site in self.members if site not in self.spoken)

    @property
    def hopeless(self) -> bool:
        """Whether too few sites are left, however long one waits."""
        return len(self.spoken | set(self.members)) < self.terms.threshold

    @property
    def enough(self) -> bool:
        """Whether the open step can close."""
        return len(self.spoken) >= self.terms.threshold

    def requests(self) -> dict[str, Request]:
        """What to ask of each site that is waited for. Values travel where they are needed, with the numbers."""
        asked = self.request if self.step == "numbers" else replace(self.request, values=_NOTHING)
        return {site: replace(asked, part=Part(self.attempt, self.step, self._told(site))) for site in self.waiting}

    def accept(self, site: str, header: Header, values: object) -> None:
        """Take a site's word for the open step. Raises ReplyRefused if it is not one.

        One for another step, round or attempt is dropped: it takes nothing from the site. One for this step that says
        something else than it must puts the site out of this sum.
        """
        if site not in self.waiting:
            raise ReplyRefused(f"{site} spoke in a secure sum when it was not asked; the reply was dropped")
        self._belongs(site, header)
        try:
            match self.step:
                case "keys":
                    keys_in(str(header.get("said")))
                    self.keys[site] = str(header.get("said"))
                case "letters":
                    self.letters[site] = self._letters(site, letters_in(str(header.get("said"))))
                case "numbers":
                    self.summed += self._numbers(site, header, values)
                    self.arrived.add(site)
                case "story":
                    story_in(str(header.get("said")))
                    self.stories[site] = str(header.get("said"))
                case "shares":
                    self.shares[site] = self._shares(site, shares_in(str(header.get("said"))))
        except PrivacyError as error:
            self.lost.add(site)
            raise ReplyRefused(f"{site} took step {self.step!r} wrongly; the secure sum goes on without it") from error
        except ReplyRefused:
            self.lost.add(site)
            raise

    def close_step(self) -> None:
        """Go on to the next step, or be done. Raises ReplyRefused below the threshold."""
        if not self.enough:
            raise ReplyRefused(f"{len(self.spoken)} of {self.terms.threshold} took step {self.step!r}; wait for the others")
        self.done = self.step == STEPS[-1]
        if not self.done:
            self.step = STEPS[STEPS.index(self.step) + 1]

    def total(self) -> np.ndarray:
        """(size,) int64: the noisy sum over the sites that arrived. Raises SumRefused if the shares do not open it."""
        signed = {site: keys_in(self.keys[site]) for site in self.letters}
        return Arrived(self.terms, signed, sorted(self.arrived), self.summed, self.shares).total()

    def record(self) -> str:
        """What must be known beside `summed` to go on, as JSON. Shares are left out: they are asked again."""
        letters = {site: letters_text(sent) for site, sent in self.letters.items()}
        return json.dumps({"attempt": self.attempt, "step": self.step, "keys": self.keys, "letters": letters,
                           "arrived": sorted(self.arrived), "stories": self.stories})  # fmt: skip

    @classmethod
    def resumed(cls, terms: Terms, request: Request, record: str, summed: np.ndarray) -> Summing:
        """The attempt as it was recorded."""
        known = json.loads(record)
        letters = {site: letters_in(sent) for site, sent in known["letters"].items()}
        found = cls(terms, request, known["attempt"], known["step"], known["keys"], letters, set(known["arrived"]), summed)
        found.stories = known["stories"]
        return found

    def _took(self, step: Step) -> set[str]:
        match step:
            case "keys":
                return set(self.keys)
            case "letters":
                return set(self.letters)
            case "numbers":
                return self.arrived
            case "story":
                return set(self.stories)
            case "shares":
                return set(self.shares)

    def _told(self, site: str) -> str:
        match self.step:
            case "keys":
                return ""
            case "letters":
                return gathered_text(self.keys)
            case "numbers":
                return letters_text({sender: sent[site] for sender, sent in self.letters.items() if sender != site})
            case "story":
                return names_text(self.arrived)
            case "shares":
                return gathered_text(self.stories)

    def _belongs(self, site: str, header: Header) -> None:
        asked = {"site": site, "plan": self.request.plan, "stage": self.request.stage, "round": self.request.round,
                 "attempt": self.attempt}  # fmt: skip
        if self.step == "numbers":
            asked |= {"kind": "masked", "start": self.request.digest}
        else:
            asked |= {"kind": "sum", "step": self.step}
        for key, value in asked.items():
            if header.get(key) != value:
                given = f"{key}={str(header.get(key))[:12]}, not {str(value)[:12]}"
                raise ReplyRefused(f"{site} replied for {given}: late or stale; the reply was dropped")

    def _letters(self, site: str, letters: Mapping[str, bytes]) -> dict[str, bytes]:
        if set(letters) != set(self.keys) - {site}:
            raise ReplyRefused(f"{site} wrote letters to others than it was asked to; the round goes on without it")
        return dict(letters)

    def _numbers(self, site: str, header: Header, values: object) -> np.ndarray:
        if not (isinstance(values, np.ndarray) and values.dtype == np.uint32 and values.shape == (self.terms.size,)):
            raise ReplyRefused(f"{site} sent no uint32 ({self.terms.size},) of masked numbers; the round goes on without it")
        return values

    def _shares(self, site: str, shares: Revealed) -> Revealed:
        if (set(shares.seeds), set(shares.keys)) != (self.arrived, set(self.letters) - self.arrived):
            raise ReplyRefused(f"{site} gave shares of other secrets than it was asked for; the round goes on without it")
        return shares
