"""Every refusal of the privacy floor.

PrivacyError
├── BudgetExhausted      the next event would pass the agreed epsilon; nothing was spent
├── LedgerCorrupt        the ledger on disk is not the chain that was written
├── LedgerBusy           another process holds the ledger
├── EgressRefused        a message is not one that may leave
├── MechanismRefused     parameters or a model for which no guarantee can be given
│   └── SumRefused       a secure sum that cannot go on; another one, with fresh keys, may
├── KeyRefused           a key file that cannot be used, or may be known to others
└── SignatureRefused     bytes that the named key did not sign
"""

from __future__ import annotations


class PrivacyError(Exception):
    """A refusal of the privacy floor. The text is one line: what, why, what next; never a value taken from a patient."""


class BudgetExhausted(PrivacyError):
    """The next event would pass the agreed epsilon. Nothing was spent by asking."""


class LedgerCorrupt(PrivacyError):
    """The ledger on disk is not the hash chain that was written."""


class LedgerBusy(PrivacyError):
    """Another process holds the ledger; two processes cannot spend one budget."""


class EgressRefused(PrivacyError):
    """A message is not one that may leave the site."""


class MechanismRefused(PrivacyError):
    """No guarantee can be given for these parameters or this model."""


class SumRefused(MechanismRefused):
    """This secure sum cannot go on. Another one, with fresh keys, may."""


class KeyRefused(PrivacyError):
    """A key file cannot be used, or others may know it."""


class SignatureRefused(PrivacyError):
    """The named key did not sign these bytes."""
