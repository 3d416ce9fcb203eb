"""One site's side of a round's secure sum, one step a message: keys, letters, numbers, story, shares (privacy/secure_sum.py).

A step may come to a process of its own, so what a site must remember is in <folder>/sums/, on disk before a word leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from braing3n_core.charges import terms
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.plan import Stage
from braing3n_core.protocol import Part, Request, at_stage
from client.local_round import noisy_numbers
from client.refusal import StaleRequest
from client.selftest import refuse_broken_sum
from privacy.accountant import epsilon_alone
from privacy.egress import Cleared, Egress, Masked, SumWords
from privacy.errors import BudgetExhausted, SignatureRefused, SumRefused
from privacy.events import SecureSummed
from privacy.ledger import Ledger
from privacy.secure_sum import Summand
from privacy.sum_words import (
    STEPS,
    gathered_in,
    keys_in,
    letters_in,
    letters_text,
    names_in,
    shares_text,
    signed_text,
    story_in,
)

if TYPE_CHECKING:
    from client.site import Site

Place = tuple[int, int, int]                                 # stage, round and attempt, in the order in which they come
_MOST_ATTEMPTS: Final = 1 << 20
_CHANGED: Final = "what this site keeps of its secure sum was changed; restore the site's folder"


@dataclass
class OpenSum:
    """The newest sum of a plan at this site. There is one: an older one is stale, and its secrets are gone."""

    place: Place
    summand: Summand
    asked: dict[str, str] = field(default_factory=dict)      # step that was taken -> SHA-256 of what the site was told
    said: dict[str, str] = field(default_factory=dict)       # -> its words or, of numbers, their SHA-256

    def write(self, path: Path) -> None:
        """On disk when it returns, readable by its owner alone: its folder is."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        kept = {"place": self.place, "summand": self.summand.saved(), "asked": self.asked, "said": self.said}
        write_atomically(path, json.dumps(kept).encode())


class Turn:
    """One request for one step.

    Rules
    * What a sum is, the site works out from the plan that it approved; a request only names it.
    * A step is taken once. Asked again in the same words it is answered as before; in other words it is refused: two stories of
      who arrived would open this site's or another's numbers.
    * A later sum ends an earlier one. Nothing of an earlier one is answered then.
    * Numbers are paid for in the ledger, whole, before a gradient is taken, as if the sum will be opened. New keys mean new
      numbers, newly paid: two sums with one vector in both could differ by one site.
    """

    def __init__(self, site: Site, ledger: Ledger, egress: Egress, request: Request, stage: Stage) -> None:
        self._site, self._ledger, self._egress, self._request, self._stage = site, ledger, egress, request, stage
        self._part = _checked(request.part)
        self._terms = terms(site.plan, site.sizes, stage, request.round, self._part.attempt)
        self._event = self._terms.event(stage.name, stage.sample_rate)
        self._path = site.folder / "sums" / f"{site.plan.digest}.json"

    def answer(self) -> Cleared:
        """The site's word or numbers for this step."""
        # 1. Is the sum the newest, or a newer one?
        kept, place, step = self._kept(), self._place(), self._part.step
        newest = kept["place"] if kept else (0, 0, 0)
        if place < newest:
            raise StaleRequest("this site is in a later sum already; resume the run from its newest checkpoint")
        if place > newest and step != "keys":
            raise SumRefused("this site is in no such sum; begin it with fresh keys")
        if place > newest:
            return self._begin(place)
        # 2. Was the step taken before?
        sums = self._restored(kept)
        if step in sums.asked:
            return self._again(sums)
        # 3. Take it; write down that it is taken; speak.
        try:
            return self._numbers(sums) if step == "numbers" else self._words(sums)
        except SignatureRefused as error:
            raise SumRefused("a site's keys are not signed by the key that the plan names; somebody stands between") from error

    def _begin(self, place: Place) -> Cleared:
        """Whoever joins a sum can pay for it and has patients to add: a site that leaves later costs the others a round."""
        self._refuse_passed()
        refuse_broken_sum()
        site = self._site
        _ = site.cohort
        if self._ledger.standing(self._event, self._terms.context) is None:
            self._afford()
        sums = OpenSum(place, Summand(site.name, self._terms, site.enrolled.roster()))
        text = signed_text(sums.summand.advertise(site.enrolled.own()))
        return self._said(sums, text)

    def _words(self, sums: OpenSum) -> Cleared:
        told, summand = self._part.told, sums.summand
        match self._part.step:
            case "letters":
                return self._said(sums, letters_text(summand.share(gathered_in(told, keys_in))))
            case "story":
                return self._said(sums, signed_text(summand.agree(names_in(told), self._site.enrolled.own())))
            case _:
                return self._said(sums, shares_text(summand.reveal(gathered_in(told, story_in))))

    def _numbers(self, sums: OpenSum) -> Cleared:
        site, request, terms = self._site, self._request, self._terms
        sums.summand.receive(letters_in(self._part.told))
        model = site.model()
        at_stage(model, site.plan, self._stage.name, request.values)
        reservation = self._ledger.standing(self._event, terms.context)
        if reservation is None:
            refuse_broken_sum()                             # maybe another process than the one that joined
            self._afford()
            reservation = self._ledger.reserve(self._event, terms.context, site.limit)
        # What fails from here on was seen by nobody but may depend on patients: it stays paid.
        try:
            patients = site.patients_at(model, self._stage, request.values)
            masked = sums.summand.masked(noisy_numbers(model, self._stage, patients, terms))
            write_atomically(site.kept(reservation, "u32"), request.digest.encode() + masked.astype("<u4").tobytes())
            self._take(sums, hashlib.sha256(masked.astype("<u4").tobytes()).hexdigest())
            return self._sent(sums)
        except Exception:
            self._ledger.abandon(reservation)
            raise

    def _again(self, sums: OpenSum) -> Cleared:
        if sums.asked[self._part.step] != _digest(self._part.told):
            raise SumRefused("this step was taken on another story; a site tells one, once")
        return self._sent(sums) if self._part.step == "numbers" else self._spoken(sums.said[self._part.step])

    def _sent(self, sums: OpenSum) -> Cleared:
        """The numbers that were masked for this sum, from the site's own folder: the first time, and each time again."""
        site, reservation = self._site, self._ledger.standing(self._event, self._terms.context)
        try:
            kept = site.kept(reservation, "u32").read_bytes() if reservation else b""
        except OSError as error:
            raise IntegrityError("the answer to this round is gone; restore the site's folder, or skip the round") from error
        start, values = kept[:64].decode("ascii", "replace"), np.frombuffer(kept[64 : len(kept) // 4 * 4], dtype="<u4")
        if reservation is None or hashlib.sha256(values.tobytes()).hexdigest() != sums.said["numbers"]:
            raise SumRefused("the numbers of this sum are not kept here any more; begin another sum")
        asked = self._request
        masked = Masked(site.name, asked.plan, asked.stage, asked.round, self._part.attempt, start, reservation, values)
        return self._egress.send(masked, self._terms.size)

    def _said(self, sums: OpenSum, text: str) -> Cleared:
        self._take(sums, text)
        return self._spoken(text)

    def _take(self, sums: OpenSum, said: str) -> None:
        sums.asked[self._part.step], sums.said[self._part.step] = _digest(self._part.told), said
        sums.write(self._path)

    def _spoken(self, text: str) -> Cleared:
        asked, part = self._request, self._part
        words = SumWords(self._site.name, asked.plan, asked.stage, asked.round, part.attempt, part.step, text)
        return self._egress.send(words)

    def _afford(self) -> None:
        """Raise BudgetExhausted unless the round is within both limits: against the server and some, and against all."""
        self._ledger.afford(self._event, self._site.limit)
        refuse_beyond_fallback(self._ledger, self._event, self._site.fallback_limit)

    def _place(self) -> Place:
        return self._site.plan.stages.index(self._stage), self._request.round, self._part.attempt

    def _refuse_passed(self) -> None:
        """The ledger remembers rounds and sums whatever became of the file of the newest: no sum is begun twice."""
        order, answered = self._site.order, [r for r in self._ledger.reservations if self._ledger.released(r)]
        if any(reservation.purpose == self._terms.context for reservation in answered):
            raise SumRefused("this site gave its numbers to this sum and no longer knows it; begin another sum")
        places = [order[round_] for r in answered if (round_ := _round_of(r.purpose)) in order]
        if not order[_round_of(self._terms.context)] >= max(places, default=-1):
            raise StaleRequest("this site already answered a later round; resume the run from its newest checkpoint")

    def _kept(self) -> dict[str, Any]:
        """What the file of the newest sum holds; empty if there was none."""
        try:
            kept: dict[str, Any] = json.loads(self._path.read_bytes())
            return {**kept, "place": tuple(int(number) for number in kept["place"])}
        except FileNotFoundError:
            return {}
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(_CHANGED) from error

    def _restored(self, kept: Mapping[str, Any]) -> OpenSum:
        try:
            summand = Summand.restored(kept["summand"], self._site.name, self._terms, self._site.enrolled.roster())
            return OpenSum(kept["place"], summand, kept["asked"], kept["said"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(_CHANGED) from error


def refuse_beyond_fallback(ledger: Ledger, event: SecureSummed, limit: float) -> None:
    """Raise BudgetExhausted unless `event`, on top of the whole ledger, keeps to the local fallback."""
    if not (alone := epsilon_alone([*ledger.events, event], ledger.delta)) <= limit:
        raise BudgetExhausted(
            f"against the server and all other sites together a patient would come to epsilon={alone:.4g} of {limit:.4g}; "
            "ask the data steward for a new agreement or plan fewer rounds"
        )


def _checked(part: Part | None) -> Part:
    if part is None:
        raise PlanRefused("the plan takes secure sums, and the request asks for an update; the sender runs another version")
    fits = type(part.attempt) is int and 1 <= part.attempt <= _MOST_ATTEMPTS and part.step in STEPS and type(part.told) is str
    if not fits:
        raise PlanRefused("a secure sum has five steps and attempts from 1; the sender runs another version")
    return part


def _round_of(purpose: str) -> str:
    """A round's purpose without the attempt."""
    return "/".join(purpose.split("/")[:3])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
