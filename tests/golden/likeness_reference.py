"""Makes server/release/likeness_reference.json: `python tests/golden/likeness_reference.py`, some minutes on two cores."""

from __future__ import annotations

from server.release.calibrate import FILE, measured
from server.release.policy import Policy

PEOPLE, OTHERS, SEED = 200, 100, 20261124

if __name__ == "__main__":
    FILE.write_bytes(measured(Policy.load().rules.copies.threshold, PEOPLE, OTHERS, SEED).as_json())
