"""Shares of n keystores make one key: wrong ones are found and named, splits never mix, every failure has a reason."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from collections.abc import Callable

import pytest

from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    CredentialRefusedError,
    IntegrityError,
    MdmfsError,
    PeerTimedOutError,
    TooFewSharesError,
    WrongKeyError,
)
from mdmfs.sealing.header import FileKey
from mdmfs.sharing.shamir import Share
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.messages.keystores import Outcome
from tests.twins.keystores import random_guid, shares_of

GUID = random_guid()
SECRET = bytes(range(32))
NAMES = ("k1", "k2", "k3")


class Told:
    """Remembers who was named."""

    def __init__(self) -> None:
        self.lies: list[str] = []

    def __call__(self, keystore: str, _guid: object, _reason: str) -> None:
        """See ``OnLie``."""
        self.lies.append(keystore)


def prove(key: FileKey) -> None:
    """Check as the commitment of an object that was sealed with SECRET would."""
    if bytes(key.octets) != SECRET:
        message = "the commitment is another's"
        raise WrongKeyError(message)


def wrong(share: Share) -> Share:
    """Flip a bit of a share's value."""
    return dataclasses.replace(share, y=bytes([share.y[0] ^ 1]) + share.y[1:])


def answers_of(told: Told, *shares: Share | None, names: tuple[str, ...] = NAMES) -> Answers:
    """Answer for k1, k2, ... in turn; None: nothing yet."""
    answers = Answers(GUID, names, told)
    for name, share in zip(names, shares, strict=False):
        if share is not None:
            answers.take(name, Outcome.DONE, share.encode())
    return answers


def key_of(answers: Answers) -> bytes | None:
    """Give the bytes of the key found."""
    key = answers.find_key(prove)
    return None if key is None else bytes(key.octets)


@pytest.mark.parametrize("chosen", list(itertools.permutations(range(3), 2)))
def test_any_two_of_three_in_any_order_make_the_key(chosen: tuple[int, int]) -> None:
    """A share carries its own index: Hydra took the server's position in a list for it."""
    shares = shares_of(GUID, SECRET)
    answers = Answers(GUID, NAMES, Told())
    for position, index in enumerate(chosen):
        assert key_of(answers) is None
        answers.take(NAMES[position], Outcome.DONE, shares[index].encode())
    assert key_of(answers) == SECRET


@pytest.mark.parametrize("liar", range(3))
def test_a_wrong_share_is_found_by_the_commitment_and_its_keystore_named(liar: int) -> None:
    """The other subset is tried; the honest two are not named."""
    told = Told()
    shares = shares_of(GUID, SECRET)
    shares[liar] = wrong(shares[liar])
    answers = answers_of(told, *shares)
    assert key_of(answers) == SECRET
    assert key_of(answers) == SECRET
    assert told.lies == [NAMES[liar]]


def test_with_one_lie_among_two_there_is_no_key_yet_and_with_the_third_there_is() -> None:
    """Nothing is returned that the commitment does not prove."""
    told = Told()
    shares = shares_of(GUID, SECRET)
    answers = answers_of(told, shares[0], wrong(shares[1]))
    assert key_of(answers) is None
    assert not answers.is_settled(2)
    answers.take("k3", Outcome.DONE, shares[2].encode())
    assert key_of(answers) == SECRET
    assert told.lies == ["k2"]


def test_a_keystore_that_has_yet_to_hear_from_the_hospital_may_still_help() -> None:
    """Two that lie prove nothing while the third may have the share that does: whoever waits asks again."""
    answers = answers_of(Told(), *map(wrong, shares_of(GUID, SECRET)[:2]))
    answers.take("k3", Outcome.STALE, b"")
    assert answers.is_settled(2)
    assert isinstance(answers.failure(2), TooFewSharesError)
    answers = answers_of(Told(), *map(wrong, shares_of(GUID, SECRET)))
    assert isinstance(answers.failure(2), IntegrityError)


def test_no_key_stays_that_nobody_could_verify() -> None:
    """Whatever went wrong; nor one that is another's."""
    made: list[FileKey] = []

    def fail(key: FileKey) -> None:
        made.append(key)
        raise ZeroDivisionError

    answers = answers_of(Told(), *shares_of(GUID, SECRET))
    with pytest.raises(ZeroDivisionError):
        answers.find_key(fail)
    with pytest.raises(ValueError, match="closed"):
        bytes(made[0].octets)


def test_shares_of_different_splits_never_combine_and_are_no_lie() -> None:
    """A share of yesterday's split beside two of today's: the two make the key; alone with one it makes none."""
    told = Told()
    today, yesterday = shares_of(GUID, SECRET), shares_of(GUID, SECRET)
    assert key_of(answers_of(told, yesterday[0], today[1])) is None
    assert key_of(answers_of(told, yesterday[0], today[1], today[2])) == SECRET
    assert told.lies == []


@pytest.mark.parametrize(
    "field", [{"split_id": bytes(16)}, {"generation": 9}, {"threshold": 1}, {"threshold": 3}, {"total": 5}]
)
def test_a_share_that_lies_about_its_split_does_no_harm(field: dict[str, int]) -> None:
    """It combines with nothing, and a threshold of 1 makes of it no key that passes."""
    shares = shares_of(GUID, SECRET)
    shares[0] = dataclasses.replace(shares[0], **field)
    assert key_of(answers_of(Told(), *shares)) == SECRET
    answers = answers_of(Told(), *shares[:2])
    assert key_of(answers) is None
    assert not answers.has(2)


@pytest.mark.parametrize(
    "forge",
    [
        lambda share: share.encode()[:-1],
        lambda share: b"\x02" + share.encode()[1:],
        lambda _: b"",
        lambda share: dataclasses.replace(share, guid=random_guid()).encode(),
    ],
)
def test_a_malformed_or_foreign_share_is_its_keystores_lie(forge: Callable[[Share], bytes]) -> None:
    """Cut, of an unknown version, empty with DONE, or of another file: named at once, and the others suffice."""
    told = Told()
    shares = shares_of(GUID, SECRET)
    answers = answers_of(told, None, *shares[1:])
    answers.take("k1", Outcome.DONE, forge(shares[0]))
    assert told.lies == ["k1"]
    assert key_of(answers) == SECRET


def test_two_keystores_with_the_same_share_do_not_make_a_key_alone() -> None:
    """One share twice is one share."""
    shares = shares_of(GUID, SECRET)
    answers = answers_of(Told(), shares[0], shares[0])
    assert key_of(answers) is None
    assert not answers.is_settled(2)
    answers.take("k3", Outcome.DONE, shares[2].encode())
    assert key_of(answers) == SECRET


def test_an_error_of_the_check_that_is_not_about_the_key_comes_through() -> None:
    """A bug or a broken header must not look like a wrong share."""

    def fail(_: FileKey) -> None:
        message = "the header is broken"
        raise IntegrityError(message)

    with pytest.raises(IntegrityError, match="header is broken"):
        answers_of(Told(), *shares_of(GUID, SECRET)).find_key(fail)


def test_wrong_candidates_are_closed_and_the_right_key_is_the_callers() -> None:
    """Keys that were tried in vain are overwritten."""
    tried: list[FileKey] = []

    def remember(key: FileKey) -> None:
        tried.append(key)
        prove(key)

    shares = shares_of(GUID, SECRET)
    key = answers_of(Told(), wrong(shares[0]), *shares[1:]).find_key(remember)
    assert key is tried[-1]
    assert len(tried) == 3
    for rejected in tried[:-1]:
        with pytest.raises(ValueError, match="closed"):
            _ = rejected.octets


REFUSED = CredentialRefusedError("no")
EXPIRED = CredentialExpiredError("over")
SILENT = PeerTimedOutError("nothing came in 5 s")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((Outcome.DENIED, Outcome.DENIED, "right"), AccessDeniedError),
        ((Outcome.DENIED, Outcome.DENIED, SILENT), AccessDeniedError),
        ((Outcome.DENIED, Outcome.DENIED, None), AccessDeniedError),
        ((Outcome.DESTROYED, Outcome.DESTROYED, Outcome.UNKNOWN), AccessDeniedError),
        ((Outcome.DENIED, EXPIRED, "right"), AccessDeniedError),
        ((EXPIRED, EXPIRED, "right"), CredentialExpiredError),
        ((REFUSED, REFUSED, SILENT), CredentialRefusedError),
        ((Outcome.DENIED, SILENT, "right"), TooFewSharesError),
        ((SILENT, SILENT, "right"), TooFewSharesError),
        ((SILENT, SILENT, Outcome.DENIED), TooFewSharesError),
        ((None, SILENT, "right"), TooFewSharesError),
        ((Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.UNKNOWN), TooFewSharesError),
        ((Outcome.UNKNOWN, Outcome.UNKNOWN, "right"), TooFewSharesError),
        (("wrong", "right", SILENT), TooFewSharesError),
        (("wrong", "right", None), TooFewSharesError),
        (("wrong", "wrong", "right"), IntegrityError),
        (("wrong", "right", Outcome.UNKNOWN), IntegrityError),
    ],
)
def test_a_failure_says_whether_it_is_a_decision_an_outage_or_a_lie(
    said: tuple[object, ...], expected: type[MdmfsError]
) -> None:
    """EACCES only for decisions received; what may be better in a moment is never called broken."""
    shares = shares_of(GUID, SECRET)
    answers = Answers(GUID, NAMES, Told())
    for name, share, one in zip(NAMES, shares, said, strict=True):
        if isinstance(one, Outcome):
            answers.take(name, one, b"")
        elif isinstance(one, MdmfsError):
            answers.take_failure(name, one)
        elif one is not None:
            octets = dataclasses.replace(share, y=secrets.token_bytes(32)) if one == "wrong" else share
            answers.take(name, Outcome.DONE, octets.encode())
    with pytest.raises(expected) as caught:
        answers.key(prove, threshold=2)
    assert type(caught.value) is expected
    assert str(GUID) in str(caught.value) or isinstance(caught.value, (CredentialRefusedError, CredentialExpiredError))


def test_an_outage_names_who_did_not_answer_and_shows_no_share() -> None:
    """The message is what an operator reads first."""
    shares = shares_of(GUID, SECRET)
    answers = answers_of(Told(), shares[0])
    answers.take_failure("k2", SILENT)
    told = str(answers.failure(2))
    assert "k1: gave share 1 of 3" in told
    assert "k2: nothing came in 5 s" in told
    assert "k3: no answer yet" in told
    assert answers.waiting_for == ["k3"]
    assert shares[0].y.hex() not in told + repr(answers.shares)


@pytest.mark.parametrize(
    ("said", "settled"),
    [
        ((None, None, None), False),
        ((Outcome.DENIED, None, None), False),
        ((Outcome.DENIED, Outcome.UNKNOWN, None), True),
        ((SILENT, SILENT, None), True),
        (("share", SILENT, None), False),
        (("share", "share", None), False),
        (("share", "share", SILENT), True),
    ],
)
def test_waiting_ends_when_nothing_that_may_come_can_help(said: tuple[object, ...], *, settled: bool) -> None:
    """Two that are down are told at once, not at the deadline."""
    assert having_heard(said).is_settled(2) is settled


@pytest.mark.parametrize(
    ("said", "is_awaited"),
    [
        ((Outcome.STALE, Outcome.STALE, None), True),
        ((Outcome.STALE, Outcome.STALE, SILENT), True),
        ((Outcome.STALE, "share", SILENT), True),
        ((Outcome.STALE, SILENT, None), True),
        ((Outcome.STALE, SILENT, SILENT), False),
        ((Outcome.STALE, Outcome.DENIED, Outcome.DENIED), False),
        ((Outcome.STALE, "share", "share"), False),
        (("share", SILENT, None), False),
    ],
)
def test_the_hospital_is_awaited_where_nothing_but_that_keystores_hear_from_it_may_be_needed(
    said: tuple[object, ...], *, is_awaited: bool
) -> None:
    """Also where one is down, and who is asked last has not been waited for."""
    assert having_heard(said).await_hospital(2) is is_awaited


def having_heard(said: tuple[object, ...]) -> Answers:
    """Answer for all: an outcome, an error, or a share; None: nothing yet."""
    answers = Answers(GUID, NAMES, Told())
    for name, share, one in zip(NAMES, shares_of(GUID, SECRET), said, strict=True):
        if isinstance(one, Outcome):
            answers.take(name, one, b"")
        elif isinstance(one, MdmfsError):
            answers.take_failure(name, one)
        elif one is not None:
            answers.take(name, Outcome.DONE, share.encode())
    return answers


@pytest.mark.parametrize(("threshold", "total"), [(1, 1), (1, 3), (2, 2), (3, 5), (5, 9)])
def test_any_threshold_works(threshold: int, total: int) -> None:
    """Hydra's was fixed."""
    names = tuple(f"k{number}" for number in range(total))
    shares = shares_of(GUID, SECRET, threshold=threshold, total=total)
    answers = answers_of(Told(), *shares[-threshold:], names=names)
    assert answers.has(threshold)
    assert not answers.has(threshold + 1)
    assert key_of(answers) == SECRET


def test_what_is_forgotten_has_no_share_and_takes_none() -> None:
    """Not those that come late, either."""
    first, second, _ = shares_of(GUID, SECRET)
    answers = answers_of(Told(), first)
    answers.forget()
    answers.take("k2", Outcome.DONE, second.encode())
    assert answers.shares == []
    assert key_of(answers) is None
