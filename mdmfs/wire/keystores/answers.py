"""What the keystores have answered about one GUID: whether it makes the key, who lied, and why it does not; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    CredentialRefusedError,
    IntegrityError,
    MalformedMessageError,
    MdmfsError,
    TooFewSharesError,
    WrongKeyError,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey
from mdmfs.sharing.shamir import Share, Split, candidates, lying_shares, split_of
from mdmfs.wire.messages.keystores import Outcome

Verify = Callable[[FileKey], object]
"""Raises ``WrongKeyError`` for a key that the commitment of the sealed object does not prove right."""
OnLie = Callable[[str, Guid, str], None]
"""Hears which keystore gave a wrong share of which file, and what was wrong with it."""

_CREDENTIAL_ERRORS: Final = (CredentialRefusedError, CredentialExpiredError)
_WRONG_SHARE: Final = "its share does not fit the others and the sealed object"


class Answers:
    """The answers of the keystores about one GUID, in the order they came. No repr shows a share."""

    def __init__(self, guid: Guid, keystores: Collection[str], on_lie: OnLie) -> None:
        self.guid = guid
        self._keystores = tuple(keystores)
        self._on_lie = on_lie
        self._shares: dict[str, Share] = {}
        self._counted: dict[Split, int] | None = None
        self._reasons: dict[str, str] = {}
        """Why a keystore gave no share that could be used."""
        self._refusals: dict[str, MdmfsError] = {}
        """Decisions received, and they were no."""
        self._silent: set[str] = set()
        self._empty: set[str] = set()
        """Who holds no share."""
        self._stale: set[str] = set()
        """Who has yet to hear from the hospital."""
        self._liars: set[str] = set()
        self._is_forgotten = False

    @property
    def shares(self) -> list[Share]:
        """Give the well-formed shares of this GUID."""
        return list(self._shares.values())

    @property
    def waiting_for(self) -> list[str]:
        """Name the keystores that have not answered yet."""
        return [name for name in self._keystores if name not in self._shares and name not in self._reasons]

    def take(self, keystore: str, outcome: Outcome, share: bytes) -> None:
        """Note what a keystore answered."""
        if self._is_forgotten:
            return
        match outcome:
            case Outcome.DONE:
                self._take_share(keystore, share)
            case Outcome.DENIED | Outcome.DESTROYED:
                self._reasons[keystore] = outcome.value
                message = f"the keystore {keystore} decided about {self.guid}: {outcome.value}"
                self._refusals[keystore] = AccessDeniedError(message)
            case Outcome.STALE:
                self._reasons[keystore] = "has yet to hear from the hospital what it decided lately"
                self._silent.add(keystore)
                self._stale.add(keystore)
            case Outcome.UNKNOWN | Outcome.CONFLICT:
                self._reasons[keystore] = "holds no share"
                self._empty.add(keystore)

    def forget(self) -> None:
        """Let the shares go, and take no more: whoever has asked for them may hold this longer."""
        self._is_forgotten, self._counted = True, None
        self._shares.clear()

    def take_failure(self, keystore: str, error: MdmfsError) -> None:
        """Note why a keystore gave no answer."""
        self._reasons[keystore] = str(error)
        if isinstance(error, (*_CREDENTIAL_ERRORS, AccessDeniedError)):
            self._refusals[keystore] = error
        else:
            self._silent.add(keystore)

    def has(self, threshold: int) -> bool:
        """Ask whether that many shares of one split are there."""
        return len(self._shares) >= threshold and max(self._splits().values(), default=0) >= threshold

    def is_settled(self, threshold: int) -> bool:
        """Ask whether no answer that may still come can change anything: too few can come, or none.

        A split of which shares are here says itself how many it needs: a file may have been split anew meanwhile.
        """
        waiting = len(self.waiting_for)
        if not waiting:
            return True
        needed = [split.threshold - count for split, count in self._splits().items()]
        return waiting < min([threshold, *needed])

    def await_hospital(self, threshold: int) -> bool:
        """Ask whether it may need nothing but that keystores hear from the hospital, as they do when it is back.

        Who has not answered may be one of those: nobody is waited for any more where too few shares can come as it is.
        """
        possible = len(self._shares) + len(self._stale) + len(self.waiting_for)
        return bool(self._stale) and not self.has(threshold) and possible >= threshold

    @property
    def are_torn(self) -> bool:
        """Ask whether shares of one split are here and others, or none, there.

        So a file looks while its key is split anew, to who asked some keystores before they changed over and some
        after: at every instant enough of them held shares of one split, and whoever asks again gets these.
        """
        splits = self._splits()
        return len(splits) > 1 or bool(splits and self._empty)

    def anew(self) -> Answers:
        """Give what nobody has answered yet, about the same GUID."""
        return Answers(self.guid, self._keystores, self._on_lie)

    def find_key(self, verify: Verify) -> FileKey | None:
        """Give the key that passes ``verify``, of shares of one split; the caller owns and closes it. None: not yet."""
        for chosen, secret in candidates(self.shares):
            key = FileKey(secret)
            try:
                verify(key)
            except WrongKeyError:
                key.close()
            except BaseException:
                key.close()
                raise
            else:
                if len(chosen) < len(self._shares):  # the right key cannot come of shares that lie
                    self._name_liars(secret)
                return key
        return None

    def key(self, verify: Verify, *, threshold: int) -> FileKey:
        """Give the key as ``find_key`` does, or raise the reason why there is none (``failure``)."""
        key = self.find_key(verify)
        if key is None:
            raise self.failure(threshold)
        return key

    def failure(self, threshold: int) -> MdmfsError:
        """Say why these answers make no key.

        ``AccessDeniedError``, or the error of a refused credential, where so many keystores *decided* no that the
        others would not suffice. ``TooFewSharesError`` where shares are missing or one that is silent could help.
        ``IntegrityError`` where all answered and no set of shares makes a right key.
        """
        if len(self._refusals) > len(self._keystores) - threshold:
            return self._refusal()
        told = f"{threshold} shares make the key of {self.guid}; " + self._told()
        if self._silent or self.waiting_for or not self.has(threshold):
            return TooFewSharesError(told)
        return IntegrityError(f"no set of shares makes a key that opens the sealed object; {told}")

    def _take_share(self, keystore: str, octets: bytes) -> None:
        try:
            share = Share.parse(octets)
        except MalformedMessageError as error:
            self._note_lie(keystore, str(error))
            return
        if share.guid != self.guid:
            self._note_lie(keystore, f"it gave a share of {share.guid}")
        else:
            self._shares[keystore] = share
            self._counted = None

    def _name_liars(self, secret: bytes) -> None:
        lies = lying_shares(secret, self.shares)
        for keystore, share in self._shares.items():
            if share in lies and keystore not in self._liars:
                self._liars.add(keystore)
                self._on_lie(keystore, self.guid, _WRONG_SHARE)

    def _note_lie(self, keystore: str, reason: str) -> None:
        self._reasons[keystore] = reason
        self._on_lie(keystore, self.guid, reason)

    def _splits(self) -> dict[Split, int]:
        """Count the shares of each split: it is asked for several times between two answers."""
        if self._counted is None:
            self._counted = {}
            for share in self._shares.values():
                split = split_of(share)
                self._counted[split] = self._counted.get(split, 0) + 1
        return self._counted

    def _refusal(self) -> MdmfsError:
        errors = list(self._refusals.values())
        if all(isinstance(error, _CREDENTIAL_ERRORS) for error in errors):
            return errors[0]
        return AccessDeniedError(f"the keystores refuse the key of {self.guid}; {self._told()}")

    def _told(self) -> str:
        told = {name: self._reasons.get(name, "no answer yet") for name in self._keystores}
        told |= {name: f"gave share {share.x} of {share.total}" for name, share in self._shares.items()}
        return "; ".join(f"{name}: {reason}" for name, reason in told.items())
