"""A consortium of two hospitals with real keys in real folders, as their people would make them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braing3n_core.agreement import Agreement, write_envelope
from braing3n_core.plan import TrainingPlan
from client.approvals import approve
from client.site_file import SiteFile
from privacy.signing import SigningKey
from tests.client.studies import study

BUNDLE = "b" * 64                                            # stands for the app bundle's digest


@dataclass
class Study:
    """Keys and folders; `north` is the hospital whose side is tested."""

    place: Path
    plan: TrainingPlan
    admin: SigningKey
    keys: dict[str, SigningKey]

    @property
    def site(self) -> SiteFile:
        return SiteFile.load(self.place / "north")

    def agreement(self, plan: TrainingPlan | None = None, **changes: Any) -> Agreement:
        from importlib.metadata import version

        parts: dict[str, Any] = {
            "plan": plan or self.plan,
            "bundle": BUNDLE,
            "version": version("braing3n"),
            "keys": {name: key.public.pem.decode() for name, key in self.keys.items()},
        }
        return Agreement(**parts | changes)

    def sent(self, agreement: Agreement | None = None, by: SigningKey | None = None) -> Path:
        """The signed plan as a file, as it comes by mail."""
        path = self.place / "plan.signed.json"
        write_envelope(path, (agreement or self.agreement()).signed(by or self.admin))
        return path

    def approve(self, path: Path | None = None) -> Path:
        return approve(self.site, path or self.sent(), self.keys["north"], BUNDLE)


def begun(place: Path, plan: TrainingPlan | None = None, **policy: Any) -> Study:
    """Folders for the consortium and for `north`, whose policy allows the small study."""
    plan = plan or study()
    admin = SigningKey.generate()
    keys = {site.name: SigningKey.generate() for site in plan.sites}
    folder = place / "north"
    (folder / "keys").mkdir(parents=True)
    keys["north"].write(folder / "keys" / "site.pem")
    (folder / "keys" / "admin.pub").write_bytes(admin.public.pem)
    write_site_file(folder, {"epsilon": 8.0, "smallest_cohort": 8} | policy)
    return Study(place, plan, admin, keys)


def write_site_file(folder: Path, policy: dict[str, Any]) -> None:
    rows = [f"{key} = {json.dumps(value)}" for key, value in policy.items()]
    (folder / "site.toml").write_text("\n".join(['[site]\nname = "north"\ndata = "bids"', "[policy]", *rows]) + "\n")


