"""A sum that is exactly the sum, survives who may drop out, and shows nothing of any one site."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import chi2

from privacy import shamir
from privacy.accountant import calibrate, calibrate_sums, epsilon, epsilon_alone
from privacy.errors import MechanismRefused, SignatureRefused, SumRefused
from privacy.events import RandomisedResponse, SecureSummed
from privacy.masking import mask
from privacy.mechanism import Bounded
from privacy.secure_sum import STORY_TYPE, Arrived, Noisy, Revealed, Summand, Terms, _signed, noisy_sum, read_keys
from privacy.signing import SigningKey, sealed

NAMES = tuple(f"site-{letter}" for letter in "abcdefghij")
IDENTITIES = {name: SigningKey.generate() for name in NAMES}
ROSTER = {name: key.public for name, key in IDENTITIES.items()}


def terms(count: int, **changes: object) -> Terms:
    settings = {"sites": NAMES[:count], "context": "plan/decoder/1", "size": 400, "l2_bound": 1.0, "scale": 2.0**14,
                "noise_variance": 1e8, "most_patients": 1000, "dropped": 0, "colluding": 0}  # fmt: skip
    return Terms(**settings | changes)  # type: ignore[arg-type]  # a table of keywords


@dataclass
class Run:
    """All sites and everything that the server saw."""

    summands: dict[str, Summand]
    arrived: Arrived
    letters: dict[str, dict[str, bytes]]                     # sender -> receiver -> letter
    masked: dict[str, np.ndarray]


def run(
    agreed: Terms, values: Mapping[str, np.ndarray], silent: Collection[str] = (), late: Collection[str] = (), mute: int = 0
) -> Run:
    """`silent` sites stop before their letters, `late` ones before their numbers, and `mute` ones before they help."""
    summands = {name: Summand(name, agreed, ROSTER) for name in agreed.sites}
    advertised = {name: summand.advertise(IDENTITIES[name]) for name, summand in summands.items()}
    letters = {name: summand.share(advertised) for name, summand in summands.items() if name not in silent}
    for name in letters.keys() - set(late):
        summands[name].receive({other: sent[name] for other, sent in letters.items() if other != name})
    masked = {name: summands[name].masked(Noisy(values[name])) for name in letters if name not in late}
    stories = {name: summands[name].agree(set(masked), IDENTITIES[name]) for name in masked}
    helpers = sorted(masked)[mute:]
    revealed = {name: summands[name].reveal(stories) for name in helpers}
    sharing = {name: advertised[name] for name in letters}
    summed = np.add.reduce([*masked.values()], dtype=np.uint32)
    return Run(summands, Arrived(agreed, sharing, set(masked), summed, revealed), letters, masked)


def numbers(agreed: Terms, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-(2**26), 2**26, agreed.size) for name in agreed.sites}


@pytest.mark.parametrize(
    ("sites", "dropped", "colluding"), [(3, 0, 0), (3, 1, 0), (3, 0, 1), (5, 1, 2), (5, 2, 0), (10, 3, 3), (10, 4, 1)]
)
def test_the_sum_is_the_plain_sum_whoever_of_the_allowed_drops_out(sites: int, dropped: int, colluding: int) -> None:
    agreed = terms(sites, dropped=dropped, colluding=colluding)
    values = numbers(agreed)
    for gone in range(dropped + 1):
        for silent in {0, gone}:
            missing = NAMES[:gone]
            done = run(agreed, values, silent=missing[:silent], late=missing[silent:], mute=dropped - gone)
            plain = sum(values[name] for name in agreed.sites if name not in missing)
            assert np.array_equal(done.arrived.total(), plain)


@pytest.mark.parametrize(("sites", "dropped"), [(3, 1), (5, 2), (10, 3)])
def test_one_more_than_may_drop_out_ends_the_round(sites: int, dropped: int) -> None:
    agreed = terms(sites, dropped=dropped)
    missing = NAMES[: dropped + 1]
    with pytest.raises(MechanismRefused, match="drop the round"):
        run(agreed, numbers(agreed), silent=missing)
    with pytest.raises(MechanismRefused, match="drop the round"):
        run(agreed, numbers(agreed), late=missing)
    with pytest.raises(MechanismRefused, match="drop the round"):
        run(agreed, numbers(agreed), mute=dropped + 1).arrived.total()


@settings(deadline=None, max_examples=10)
@given(sites=st.integers(2, 6), size=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_any_number_of_sites_and_numbers_adds_up(sites: int, size: int, seed: int) -> None:
    agreed = terms(sites, size=size)
    values = numbers(agreed, seed)
    assert np.array_equal(run(agreed, values).arrived.total(), sum(values.values()))


def uniform_p(values: np.ndarray) -> float:
    """Of all four bytes being uniform, by chi-square."""
    counts = np.bincount(values.astype("<u4").view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255))


@pytest.mark.parametrize("secret", [0, 1, 2**26 - 1])
def test_a_masked_vector_is_uniform_whatever_is_in_it(secret: int) -> None:
    agreed = terms(3, size=50_000)
    values = numbers(agreed) | {"site-a": np.full(agreed.size, secret)}
    seen = run(agreed, values).masked["site-a"]
    assert uniform_p(seen) > 1e-6
    assert uniform_p(seen - np.roll(seen, 1)) > 1e-6, "a constant vector must not show as equal neighbours"
    assert uniform_p(seen ^ np.uint32(secret)) > 1e-6
    assert abs(np.corrcoef(seen, values["site-b"])[0, 1]) < 6 / math.sqrt(agreed.size)


def test_the_server_and_the_colluders_together_see_nothing_of_one_honest_site() -> None:
    """They know every letter and secret of the colluders, what was revealed, and the sum; one other honest site remains."""
    agreed = terms(5, size=50_000, dropped=1, colluding=2)
    values = {name: np.zeros(agreed.size, dtype=np.int64) for name in agreed.sites}
    done = run(agreed, values)
    victim, colluders = "site-a", ("site-d", "site-e")
    known = done.masked[victim].copy()
    seeds = {done.arrived._places[name]: found.seeds[victim] for name, found in done.arrived.revealed.items()}
    known -= mask(shamir.join(seeds, 32), agreed.size)       # the sum needs it, so the server has it
    for colluder in colluders:
        pair = done.summands[colluder]._pair(victim)
        known -= _signed(victim, colluder, mask(pair, agreed.size))
    assert uniform_p(known) > 1e-6
    for honest in ("site-b", "site-c"):                      # only with the secrets of both others is it bare
        known -= _signed(victim, honest, mask(done.summands[honest]._pair(victim), agreed.size))
    assert not known.any()


STORIES = {"site-a": "cd", "site-b": "de", "site-c": "de", "site-d": "ce", "site-e": "cd"}     # helper -> who is gone, it hears


def test_helpers_that_are_told_of_different_drop_outs_give_nothing() -> None:
    """Told apart, five helpers that may lose two would give the keys of three: the sum of two sites would lie open."""
    agreed = terms(5, size=1, dropped=2)
    summands = {name: Summand(name, agreed, ROSTER) for name in agreed.sites}
    advertised = {name: summand.advertise(IDENTITIES[name]) for name, summand in summands.items()}
    letters = {name: summand.share(advertised) for name, summand in summands.items()}
    for name, summand in summands.items():
        summand.receive({other: sent[name] for other, sent in letters.items() if other != name})
        summand.masked(Noisy(np.zeros(1, dtype=np.int64)))
    told = {name: set(agreed.sites) - {f"site-{letter}" for letter in gone} for name, gone in STORIES.items()}
    stories = {name: summands[name].agree(told[name], IDENTITIES[name]) for name in agreed.sites}
    for summand in summands.values():
        with pytest.raises(SumRefused, match="fewer than 3 sites"):
            summand.reveal(stories)


def test_a_site_that_was_kept_from_a_letter_signs_another_story_than_the_rest() -> None:
    """With few enough letters, those that may drop out are all that its numbers hide behind."""
    agreed = terms(3, size=1, dropped=1)
    summands = {name: Summand(name, agreed, ROSTER) for name in agreed.sites}
    advertised = {name: summand.advertise(IDENTITIES[name]) for name, summand in summands.items()}
    letters = {name: summand.share(advertised) for name, summand in summands.items()}
    for name, senders in {"site-a": "b", "site-b": "ac", "site-c": "ab"}.items():
        summands[name].receive({f"site-{sender}": letters[f"site-{sender}"][name] for sender in senders})
        summands[name].masked(Noisy(np.zeros(1, dtype=np.int64)))
    told = {"site-a": {"site-a", "site-b"}, "site-c": {"site-a", "site-c"}}
    stories = {name: summands[name].agree(arrived, IDENTITIES[name]) for name, arrived in told.items()}
    for name in told:
        with pytest.raises(SumRefused, match="fewer than 2 sites"):
            summands[name].reveal(stories)


def test_a_story_signed_by_another_hand_does_not_count() -> None:
    agreed = terms(3, size=1)
    done = run(agreed, numbers(agreed), mute=3)
    victim = done.summands["site-a"]
    forged = {name: sealed(STORY_TYPE, victim._story(name), [SigningKey.generate()]) for name in agreed.sites}
    with pytest.raises(SumRefused, match="fewer than 3 sites"):
        victim.reveal(forged)


@pytest.mark.parametrize(("sites", "dropped", "colluding"), [(3, 1, 0), (5, 1, 2), (5, 2, 0), (10, 3, 3)])
def test_no_two_stories_get_both_secrets_of_one_site(sites: int, dropped: int, colluding: int) -> None:
    """The server tells some honest sites that the victim arrived and the others that it dropped out; colluders give all."""
    agreed = terms(sites, size=1, dropped=dropped, colluding=colluding)
    victim, honest = agreed.sites[0], agreed.sites[: sites - colluding]
    done = run(agreed, numbers(agreed), mute=sites - agreed.threshold)
    held = {name: summand._held[victim] for name, summand in done.summands.items()}
    places = {name: place for place, name in enumerate(agreed.sites, start=1)}
    truth = (done.summands[victim]._seed, done.summands[victim]._masks.secret)
    for told_arrived in range(len(honest) + 1):
        groups = (set(honest[:told_arrived]), set(honest[told_arrived:]))
        found = []
        for kind, group in enumerate(groups):
            shares = {places[n]: held[n][kind] for n in agreed.sites if n in group or n not in honest}
            try:
                found.append(shamir.join(shares, 32) == truth[kind])
            except MechanismRefused:
                found.append(False)
        assert not all(found)


def test_a_site_gives_one_kind_of_share_for_each_site_and_only_once() -> None:
    agreed = terms(5, size=1, dropped=1, colluding=2)
    done = run(agreed, numbers(agreed), late=["site-e"])
    for given_away in done.arrived.revealed.values():
        assert set(given_away.seeds) == {"site-a", "site-b", "site-c", "site-d"}
        assert set(given_away.keys) == {"site-e"}
    with pytest.raises(MechanismRefused, match="once and in order"):
        done.summands["site-a"].reveal({})


@pytest.mark.parametrize("arrived", [{"site-a"}, {"site-a", "site-b", "site-x"}, {"site-b", "site-c"}, set(NAMES)])
def test_a_story_that_cannot_be_true_is_not_signed(arrived: set[str]) -> None:
    agreed = terms(3, size=1, dropped=1)
    summands = {name: Summand(name, agreed, ROSTER) for name in agreed.sites}
    advertised = {name: summand.advertise(IDENTITIES[name]) for name, summand in summands.items()}
    letters = {name: summand.share(advertised) for name, summand in summands.items()}
    summands["site-a"].receive({"site-b": letters["site-b"]["site-a"]})
    summands["site-a"].masked(Noisy(np.zeros(1, dtype=np.int64)))
    with pytest.raises(MechanismRefused):
        summands["site-a"].agree(arrived, IDENTITIES["site-a"])


def test_a_key_that_the_server_put_in_is_refused() -> None:
    agreed = terms(3)
    summand, other = (Summand(name, agreed, ROSTER) for name in NAMES[:2])
    forged = Summand("site-c", agreed, ROSTER).advertise(SigningKey.generate())
    honest = {name: one.advertise(IDENTITIES[name]) for name, one in zip(NAMES[:2], (summand, other), strict=True)}
    with pytest.raises(SignatureRefused):
        summand.share(honest | {"site-c": forged})
    replayed = Summand("site-c", replace(agreed, context="plan/decoder/0"), ROSTER).advertise(IDENTITIES["site-c"])
    with pytest.raises(MechanismRefused, match="another round"):
        other.share(honest | {"site-c": replayed})
    with pytest.raises(MechanismRefused, match="another round"):
        read_keys(honest["site-a"], "site-b", agreed, ROSTER["site-a"])


def test_a_letter_that_was_changed_or_sent_to_another_is_refused() -> None:
    agreed = terms(3)
    for crime in ("changed", "swapped"):
        summands = {name: Summand(name, agreed, ROSTER) for name in agreed.sites}
        advertised = {name: summand.advertise(IDENTITIES[name]) for name, summand in summands.items()}
        letters = {name: summand.share(advertised) for name, summand in summands.items()}
        inbox = {other: letters[other]["site-a"] for other in ("site-b", "site-c")}
        inbox["site-b"] = inbox["site-b"][:-1] + b"\0" if crime == "changed" else letters["site-b"]["site-c"]
        with pytest.raises(MechanismRefused, match="changed on the way"):
            summands["site-a"].receive(inbox)


@pytest.mark.parametrize(
    "wrong",
    [{"dropped": 1, "colluding": 1}, {"dropped": 2}, {"colluding": 2}, {"dropped": -1}, {"scale": 2.0**22},
     {"most_patients": 2**20}, {"noise_variance": 1e18}, {"noise_variance": math.nan}, {"sites": ("site-a",)},
     {"sites": ("site-a", "site-a", "site-b")}],
)  # fmt: skip
def test_terms_that_hide_nobody_or_overflow_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(MechanismRefused):
        terms(3, **wrong)


def patients(agreed: Terms, count: int, seed: int = 0) -> list[Bounded]:
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(agreed.size, generator=generator) for _ in range(count)]
    return [Bounded({"w": vector / vector.norm() * agreed.l2_bound}, agreed.l2_bound) for vector in vectors]


def test_the_noise_of_the_sum_is_what_is_accounted_even_when_sites_drop_out() -> None:
    agreed = terms(5, size=20_000, dropped=1, colluding=0, noise_variance=1e8)
    values = {name: noisy_sum([], agreed).values for name in agreed.sites}
    total = run(agreed, values, late=["site-e"]).arrived.total()
    spread = 6 * math.sqrt(2 / agreed.size)
    assert total.var() == pytest.approx(agreed.noise_variance, rel=spread)
    assert agreed.share_variance * 4 == pytest.approx(agreed.noise_variance)
    assert values["site-a"].var() == pytest.approx(agreed.share_variance, rel=spread)


def test_patients_of_all_sites_add_up_to_rounding() -> None:
    agreed = terms(3, size=300, noise_variance=4.0)
    people = {name: patients(agreed, 4, seed) for seed, name in enumerate(agreed.sites)}
    values = {name: noisy_sum(mine, agreed).values for name, mine in people.items()}
    total = run(agreed, values).arrived.total() / agreed.scale
    plain = sum(person.tensors["w"].double() for mine in people.values() for person in mine).numpy()
    assert np.abs(total - plain).max() < (12 * 0.5 + 8 * 2) / agreed.scale


@pytest.mark.parametrize("wrong", [2.0, 0.5])
def test_a_contribution_clipped_to_another_bound_is_refused(wrong: float) -> None:
    agreed = terms(3)
    with pytest.raises(MechanismRefused, match="another bound"):
        noisy_sum([Bounded({"w": torch.zeros(agreed.size)}, wrong)], agreed)
    with pytest.raises(MechanismRefused, match="another size"):
        noisy_sum([Bounded({"w": torch.zeros(3)}, 1.0)], agreed)


def test_a_site_that_nobody_knows_does_not_take_part() -> None:
    with pytest.raises(MechanismRefused):
        Summand("site-z", terms(3), ROSTER)
    with pytest.raises(MechanismRefused):
        Summand("site-a", terms(3), {"site-a": ROSTER["site-a"]})


def test_too_few_shares_of_one_secret_end_the_round() -> None:
    agreed = terms(3, size=1)
    done = run(agreed, numbers(agreed))
    lame = Revealed({name: share for name, share in done.arrived.revealed["site-a"].seeds.items() if name != "site-b"}, {})
    with pytest.raises(MechanismRefused, match="too few"):
        replace(done.arrived, revealed={**done.arrived.revealed, "site-a": lame}).total()


def deviations(sites: int, dropped: int, colluding: int, target: float) -> tuple[float, float]:
    """Noise of the sum over sites, in units of the bound, at equal epsilon: each for itself, and by secure sum."""
    rate, steps, delta = 0.1, 100, 1e-5
    (local,) = calibrate([(rate, steps, 1.0)], target, delta)

    def spent(deviation: float) -> float:
        agreed = terms(sites, noise_variance=(deviation * 2.0**14) ** 2, dropped=dropped, colluding=colluding)
        return epsilon([agreed.event("decoder", rate, steps)], delta) - target

    central = float(brentq(spent, 0.5, 50))
    together = central * math.sqrt(sites / (sites - dropped - colluding))    # everybody stays: more noise than is needed
    return local * math.sqrt(sites), together


@pytest.mark.parametrize(("sites", "dropped", "colluding"), [(3, 0, 0), (5, 0, 0), (10, 0, 0), (5, 1, 1), (10, 3, 3)])
@pytest.mark.parametrize("target", [1.0, 3.0])
def test_at_equal_epsilon_the_sum_has_root_n_less_noise_than_local(
    sites: int, dropped: int, colluding: int, target: float
) -> None:
    alone, together = deviations(sites, dropped, colluding, target)
    gain = math.sqrt(sites - dropped - colluding)
    assert 0.88 * gain < alone / together <= gain, "Renyi accounting of the sum costs up to an eighth"


def test_the_local_fallback_is_what_one_share_of_the_noise_is_worth() -> None:
    agreed = terms(5, noise_variance=(3.0 * 2.0**14) ** 2, dropped=1, colluding=1)
    whole, fallback = (epsilon([event("decoder", 0.1, 100)], 1e-5) for event in (agreed.event, agreed.local_event))
    assert whole < fallback < math.inf
    assert agreed.local_event("decoder", 0.1).noise_variance * 3 == pytest.approx(agreed.noise_variance)


def test_what_a_site_signs_holds_public_keys_alone() -> None:
    summand = Summand("site-a", terms(3), ROSTER)
    payload = json.loads(base64.b64decode(summand.advertise(IDENTITIES["site-a"])["payload"]))
    assert payload.keys() == {"site", "context", "letters", "masks"}
    secrets = [summand._masks.secret, summand._letters.secret, summand._seed]
    assert not any(secret.hex() in json.dumps(payload) for secret in secrets)


def through_disk(summand: Summand, name: str, agreed: Terms) -> Summand:
    return Summand.restored(json.loads(json.dumps(summand.saved())), name, agreed, ROSTER)


def test_a_site_that_is_another_process_at_each_step_is_the_same_site() -> None:
    agreed = terms(3, dropped=1)
    values = numbers(agreed)
    summands = {name: Summand(name, agreed, ROSTER) for name in agreed.sites}
    advertised = {name: summand.advertise(IDENTITIES[name]) for name, summand in summands.items()}
    summands = {name: through_disk(summand, name, agreed) for name, summand in summands.items()}
    letters = {name: summand.share(advertised) for name, summand in summands.items()}
    summands = {name: through_disk(summand, name, agreed) for name, summand in summands.items()}
    for name, summand in summands.items():
        summand.receive({other: sent[name] for other, sent in letters.items() if other != name})
    masked = {name: summands[name].masked(Noisy(values[name])) for name in NAMES[:2]}
    summands = {name: through_disk(summands[name], name, agreed) for name in masked}
    stories = {name: summand.agree(set(masked), IDENTITIES[name]) for name, summand in summands.items()}
    summands = {name: through_disk(summand, name, agreed) for name, summand in summands.items()}
    revealed = {name: summand.reveal(stories) for name, summand in summands.items()}
    total = Arrived(agreed, advertised, set(masked), masked["site-a"] + masked["site-b"], revealed).total()
    assert np.array_equal(total, values["site-a"] + values["site-b"])
    for name, summand in summands.items():
        with pytest.raises(SumRefused, match="once and in order"):
            through_disk(summand, name, agreed).reveal(stories)


@pytest.mark.parametrize("targets", [(1.0, 1e-5), (6.0, 1e-4)])
def test_noise_for_sums_of_several_stages_spends_the_target_and_no_more(targets: tuple[float, float]) -> None:
    target, delta = targets
    stages, numbers_of = [(0.25, 4, 0.3), (0.5, 20, 0.7)], [(2.0**14 + 20, 1000), (2.0**14 + 300, 300_000)]
    variances = calibrate_sums(stages, numbers_of, target, delta)
    events = [
        SecureSummed("s", variance, bound, size, rate, steps, 3)
        for variance, (bound, size), (rate, steps, _) in zip(variances, numbers_of, stages, strict=True)
    ]
    assert 0.99 * target <= epsilon(events, delta) <= target
    assert epsilon_alone(events, delta) == epsilon([event.alone for event in events], delta) > target
    assert epsilon_alone([RandomisedResponse("copies", 0.5)], delta) == epsilon([RandomisedResponse("copies", 0.5)], delta)
