"""One secure sum: sites send masked whole numbers, the server learns their noisy sum and nothing else about any site.

The protocol of Bonawitz et al. (CCS 2017, eprint 2017/281) with two masks, for the few sites of a consortium, and Skellam noise
in shares (Agarwal, Kairouz, Liu, arXiv 2110.04995):
 1. Every site signs two fresh public keys, one for letters and one for masks.
 2. It sends each other site, in a sealed letter, a share of its mask key and of the seed of a mask of its own.
 3. It sends its whole numbers, with its share of the noise, plus its own mask, plus or minus a mask for each pair of sites.
    The pairs cancel in the sum.
 4. It signs whose letters it used and whose numbers it is told arrived: once, so one story.
 5. With as many signatures under its own story as the threshold says, it gives for each site whose numbers arrived a share of
    that site's SEED, and for each that dropped out a share of its mask KEY.

What a site gives for another one is one or the other, never both: with both, that site's vector would be bare. And all give it
under one story, because two groups that sign different ones are too small (`Terms`): a server that told each helper of other
drop-outs could otherwise collect the keys of more sites than may drop out, and open the sum of the few that are left.

No network here; a site's side can be kept on disk between two steps (`Summand.saved`), so that each step may be taken by a
process of its own.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from privacy import shamir
from privacy.errors import MechanismRefused, SignatureRefused, SumRefused
from privacy.events import SecureSummed
from privacy.integer_noise import rounded_bound, skellam, whole_numbers
from privacy.masking import KEY_BYTES, AgreementKey, mask, opened_letter, sealed_letter
from privacy.mechanism import Bounded
from privacy.randomness import SecretNoise
from privacy.signing import Envelope, PublicKey, SigningKey, opened, sealed, unverified

PAYLOAD_TYPE: Final = "application/vnd.braing3n.secure-sum-keys+json"
STORY_TYPE: Final = "application/vnd.braing3n.secure-sum-story+json"
_MODULUS: Final = 1 << 32


@dataclass(frozen=True)
class Terms:
    """What all sites of one secure sum agree on before it; each checks it for itself.

    Guarantee of the sum, for one patient with all scans, add or remove: `event`, against the server and up to `colluding`
    sites together, as long as the others are honest and at most `dropped` sites drop out. Noise is shared so that the other
    sites' shares alone are enough. That nothing but the sum of at least threshold - colluding honest sites is opened needs
    sites > 2 x dropped + colluding: two stories would need the threshold's signatures each, colluders sign both, and so many
    honest sites do not exist (proof: docs/privacy-claims.md).
    """

    sites: tuple[str, ...]
    context: str                                             # names plan, stage and round; never used twice
    size: int
    l2_bound: float
    scale: float                                             # units per 1; the larger, the less rounding costs
    noise_variance: float                                    # of the whole numbers, from honest sites that stay
    most_patients: int                                       # in one step, over all sites; more may wrap around
    dropped: int
    colluding: int

    def __post_init__(self) -> None:
        if not (len(set(self.sites)) == len(self.sites) and min(self.dropped, self.colluding) >= 0):
            raise MechanismRefused("sites are named once, and dropped and colluding sites are counted from 0")
        if not len(self.sites) > max(2 * self.dropped + self.colluding, 1 + self.colluding):
            raise MechanismRefused(
                f"{len(self.sites)} sites cannot hide one when {self.dropped} may drop out and {self.colluding} collude; "
                "a secure sum needs more than 2 x dropped + colluding sites, and two honest ones"
            )
        largest = self.most_patients * self.whole_l2_bound + 12 * math.sqrt(self.share_variance * len(self.sites))
        if not largest < _MODULUS / 2:
            raise MechanismRefused(f"sums up to {largest:.3g} do not fit into 32 bits; choose a smaller scale")

    @property
    def threshold(self) -> int:
        """Sites that must stay, and shares that make a secret."""
        return len(self.sites) - self.dropped

    @property
    def whole_l2_bound(self) -> float:
        """L2 norm of one patient's whole numbers."""
        return rounded_bound(self.l2_bound, self.scale, self.size)

    @property
    def share_variance(self) -> float:
        """Variance of one site's noise."""
        return self.noise_variance / (self.threshold - self.colluding)

    def event(self, stage: str, sample_rate: float, steps: int = 1) -> SecureSummed:
        """What the sum costs a patient of any site."""
        shares = self.threshold - self.colluding
        return SecureSummed(stage, self.noise_variance, self.whole_l2_bound, self.size, sample_rate, steps, shares)

    def local_event(self, stage: str, sample_rate: float, steps: int = 1) -> SecureSummed:
        """What it would cost a patient if every other site and the server worked together: the local fallback."""
        return self.event(stage, sample_rate, steps).alone


@dataclass(frozen=True, eq=False)
class Noisy:
    """A site's whole numbers with its share of the noise, (size,) int64. Made by `noisy_sum` alone."""

    values: np.ndarray


def noisy_sum(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    """A site's sum over its patients of one step, each clipped to terms.l2_bound, with its share of the noise.

    No patients give pure noise. A contribution with another bound than the terms' is refused.
    """
    total = skellam(terms.size, terms.share_variance, SecretNoise())
    for contribution in contributions:
        numbers = whole_numbers(contribution, terms.scale)
        if not (contribution.l2_bound == terms.l2_bound and len(numbers) == terms.size):
            raise MechanismRefused("a contribution was clipped to another bound, or has another size, than was agreed")
        total += numbers
    return Noisy(total)


@dataclass(frozen=True)
class Revealed:
    """What one site gives of the others' secrets: for each, a share of the seed OR of the mask key."""

    seeds: Mapping[str, int]                                 # by site whose numbers arrived
    keys: Mapping[str, int]                                  # by site that dropped out


class Summand:
    """One site in one secure sum. Each step once and in order; a second call of a step is refused."""

    def __init__(self, name: str, terms: Terms, roster: Mapping[str, PublicKey]) -> None:
        if not (name in terms.sites and set(terms.sites) <= set(roster)):
            raise MechanismRefused("this site is not among the sites of the sum, or one of them has no known key")
        self._name, self._terms, self._roster = name, terms, roster
        self._letters, self._masks, self._seed = AgreementKey(), AgreementKey(), os.urandom(KEY_BYTES)
        self._keys: dict[str, tuple[bytes, bytes]] = {}      # site -> its public keys for letters and for masks
        self._held: dict[str, tuple[int, int]] = {}          # site -> shares of its seed and of its mask key
        self._arrived: list[str] = []
        self._step = 0

    def saved(self) -> dict[str, object]:
        """Everything but terms and roster, as JSON objects. Secrets are among it: for the site's own disk alone."""
        return {
            "step": self._step,
            "secrets": [self._letters.secret.hex(), self._masks.secret.hex(), self._seed.hex()],
            "keys": {site: [key.hex() for key in keys] for site, keys in self._keys.items()},
            "arrived": self._arrived,
            "held": {site: [hex(share) for share in shares] for site, shares in self._held.items()},
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], name: str, terms: Terms, roster: Mapping[str, PublicKey]) -> Summand:
        """The site as it was when it was saved, for the same terms. Law: what it does next is what it would have done."""
        summand = cls(name, terms, roster)
        letters, masks, summand._seed = (bytes.fromhex(text) for text in saved["secrets"])
        summand._letters, summand._masks = AgreementKey(letters), AgreementKey(masks)
        summand._keys = {site: (bytes.fromhex(one), bytes.fromhex(two)) for site, (one, two) in saved["keys"].items()}
        summand._held = {site: (int(one, 16), int(two, 16)) for site, (one, two) in saved["held"].items()}
        summand._arrived, summand._step = saved["arrived"], saved["step"]
        return summand

    def advertise(self, identity: SigningKey) -> Envelope:
        """Step 1: this round's public keys, signed with the site's own key."""
        self._take(0)
        keys = {"site": self._name, "context": self._terms.context, "letters": self._letters.public.hex()}
        return sealed(PAYLOAD_TYPE, json.dumps(keys | {"masks": self._masks.public.hex()}).encode(), [identity])

    def share(self, advertised: Mapping[str, Envelope]) -> dict[str, bytes]:
        """Step 2: a sealed letter for each other site that advertised. Refuses a key that its site did not sign."""
        self._take(1)
        self._enough(advertised)
        self._keys = {site: read_keys(advertised[site], site, self._terms, self._roster[site]) for site in sorted(advertised)}
        secrets = (self._seed, self._masks.secret)
        shares = zip(*(shamir.split(secret, len(self._terms.sites), self._terms.threshold) for secret in secrets), strict=True)
        held = dict(zip(self._terms.sites, shares, strict=True))
        self._held[self._name] = held[self._name]
        return {site: self._seal(site, held[site]) for site in self._keys if site != self._name}

    def receive(self, letters: Mapping[str, bytes]) -> None:
        """Step 3, before anything is paid for: the letters to this site, by the site that sent them."""
        self._take(2)
        self._enough({*letters, self._name})
        self._held |= {site: self._open(site, letter) for site, letter in letters.items()}

    def masked(self, numbers: Noisy) -> np.ndarray:
        """Step 3: (size,) uint32, uniform to everybody who lacks this site's masks."""
        self._take(3)
        if not numbers.values.shape == (self._terms.size,):
            raise SumRefused("the numbers have another size than was agreed")
        hidden = numbers.values.astype("<u4") + mask(self._seed, self._terms.size)      # wraps around, modulo 2^32
        for site in sorted(self._held.keys() - {self._name}):
            hidden += _signed(self._name, site, mask(self._pair(site), self._terms.size))
        return np.asarray(hidden)

    def agree(self, arrived: Collection[str], identity: SigningKey) -> Envelope:
        """Step 4: this site's signature under whose letters it used and whose numbers `arrived`."""
        self._take(4)
        self._enough(arrived)
        if not set(arrived) <= set(self._held):
            raise SumRefused("a site cannot have arrived that sent no letters; drop the round")
        self._arrived = sorted(arrived)
        return sealed(STORY_TYPE, self._story(self._name), [identity])

    def reveal(self, agreed: Mapping[str, Envelope]) -> Revealed:
        """Step 5: one share for each site that sent letters: of its seed if it arrived, of its mask key if not.

        `agreed` are signatures by site. Those of at least the threshold of arrived sites must be under this site's own story.
        """
        self._take(5)
        same = [site for site in sorted(set(agreed) & set(self._arrived)) if self._tells_the_same(agreed[site], site)]
        self._enough(same)
        seeds = {site: held[0] for site, held in self._held.items() if site in self._arrived}
        return Revealed(seeds, {site: held[1] for site, held in self._held.items() if site not in self._arrived})

    def _story(self, site: str) -> bytes:
        """What `site` signs if it was told what this one was told."""
        story = {"site": site, "context": self._terms.context, "letters": sorted(self._held), "arrived": self._arrived}
        return json.dumps(story).encode()

    def _tells_the_same(self, envelope: Envelope, site: str) -> bool:
        try:
            return opened(envelope, STORY_TYPE, [self._roster[site]]) == self._story(site)
        except SignatureRefused:
            return False

    def _take(self, step: int) -> None:
        if not self._step == step:
            raise SumRefused("a step of a secure sum is taken once and in order; start a new sum")
        self._step += 1

    def _enough(self, sites: Collection[str]) -> None:
        if not (set(sites) <= set(self._terms.sites) and self._name in sites and len(set(sites)) >= self._terms.threshold):
            raise SumRefused(f"fewer than {self._terms.threshold} sites are left; drop the round")

    def _pair(self, site: str) -> bytes:
        return self._masks.agreed(self._keys[site][1], pair_context(self._terms, self._name, site))

    def _seal(self, site: str, shares: tuple[int, int]) -> bytes:
        text = b"".join(share.to_bytes(shamir.SHARE_BYTES) for share in shares)
        return sealed_letter(self._channel(site), text, f"{self._name}>{site}")

    def _open(self, site: str, letter: bytes) -> tuple[int, int]:
        if site not in self._keys or site == self._name:
            raise SumRefused("a letter came from a site that advertised no key; drop the round")
        text = opened_letter(self._channel(site), letter, f"{site}>{self._name}")
        return int.from_bytes(text[: shamir.SHARE_BYTES]), int.from_bytes(text[shamir.SHARE_BYTES :])

    def _channel(self, site: str) -> bytes:
        return self._letters.agreed(self._keys[site][0], f"letters {pair_context(self._terms, self._name, site)}")


@dataclass(frozen=True)
class Arrived:
    """What the server has when it opens a sum: all that it needs of the sites, however many they are."""

    terms: Terms
    advertised: Mapping[str, Envelope]                       # of the sites that sent letters
    sites: Collection[str]                                   # whose numbers arrived
    summed: np.ndarray                                       # (size,) uint32: those numbers added up, modulo 2^32
    revealed: Mapping[str, Revealed]                         # by site that helped at the end

    def total(self) -> np.ndarray:
        """(size,) int64: the noisy sum over the sites that arrived.

        Law: equal to the plain sum of their `Noisy` values. Raises SumRefused if too few sites helped. Sites verify each
        other's keys; who opens the sum relies on none of them, a false one gives a false sum and no secret.
        """
        if not len(self.revealed) >= self.terms.threshold:
            raise SumRefused(f"{len(self.revealed)} of {self.terms.threshold} sites helped to unmask; drop the round")
        total = self.summed.astype("<u4")
        for site in self.sites:
            seed = self._joined({helper: found.seeds.get(site) for helper, found in self.revealed.items()})
            total -= mask(seed, self.terms.size)
        for gone in sorted(set(self.advertised) - set(self.sites)):
            secret = self._joined({helper: found.keys.get(gone) for helper, found in self.revealed.items()})
            for site in self.sites:
                total -= _signed(site, gone, self._pair_mask(secret, gone, site))
        return np.asarray(total.view("<i4").astype(np.int64))

    def _pair_mask(self, secret: bytes, gone: str, site: str) -> np.ndarray:
        public = keys_in(unverified(self.advertised[site]), site, self.terms)[1]
        return mask(AgreementKey(secret).agreed(public, pair_context(self.terms, gone, site)), self.terms.size)

    def _joined(self, shares: Mapping[str, int | None]) -> bytes:
        found = {self._places[helper]: share for helper, share in shares.items() if share is not None}
        if not len(found) >= self.terms.threshold:
            raise SumRefused("too few sites gave their share of one secret; drop the round")
        return shamir.join(found, KEY_BYTES)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {site: place for place, site in enumerate(self.terms.sites, start=1)}


def read_keys(envelope: Envelope, site: str, terms: Terms, signer: PublicKey) -> tuple[bytes, bytes]:
    """Public keys for letters and for masks that `site` signed for these terms. Raises SignatureRefused or SumRefused."""
    return keys_in(opened(envelope, PAYLOAD_TYPE, [signer]), site, terms)


def keys_in(payload: bytes, site: str, terms: Terms) -> tuple[bytes, bytes]:
    """The two keys in what `site` signed for these terms. Raises SumRefused if it signed something else."""
    try:
        match json.loads(payload):
            case {"site": str(name), "context": str(context), "letters": str(letters), "masks": str(masks)}:
                if (name, context) == (site, terms.context):
                    return bytes.fromhex(letters), bytes.fromhex(masks)
    except ValueError as error:
        raise SumRefused("a site signed what are no keys; drop the round") from error
    raise SumRefused("a site signed its keys for another round; drop the round")


def pair_context(terms: Terms, one: str, other: str) -> str:
    """The same for both; different for every pair and every round."""
    return json.dumps([terms.context, *sorted((one, other))])


def _signed(mine: str, other: str, values: np.ndarray) -> np.ndarray:
    """Plus for the first of a pair by name, minus (modulo 2^32) for the second."""
    return values if mine < other else np.negative(values)
