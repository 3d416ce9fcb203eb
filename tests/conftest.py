"""No law may fail because a machine was busy: hypothesis has no deadline anywhere."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("braing3n", deadline=None)
settings.load_profile("braing3n")
