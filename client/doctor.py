"""`braing3n-site doctor`: one table that says whether this hospital can take part, and how to fix what is in the way."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from braing3n_core.data.cache import Cache
from braing3n_core.data.scans import Found, find_bids
from braing3n_core.errors import DataRefused
from braing3n_core.plan import TrainingPlan
from client.data_checks import check_data
from client.findings import Finding
from client.init import CA, FILE, KEY
from client.reach import check_server
from privacy.errors import KeyRefused
from privacy.signing import SigningKey

_PACKAGES = ("braing3n", "torch", "flwr", "opacus", "monai", "nibabel", "SimpleITK")
_SCAN_BYTES = 8 * 2**20                                      # of one scan in the cache, its page included
_SPARE_BYTES = 2**30
_MEMORY_BYTES = 4 * 2**30                                    # two processes that prepare, and training


def examine(site: Path, data: Path | None, plan: TrainingPlan | None) -> list[Finding]:
    """Every check, in the order in which to mend things. Changes nothing but the cache's index of digests."""
    settings, about = _settings(site)
    findings = [about, _key(site, settings), *_server(site, settings)]
    folder = data or _data(site, settings)
    if folder is None:
        missing = Finding("data", "refused", "no data folder is named", f"set data in {FILE} or give --data")
        return [*findings, missing, *_machine(site, 0)]
    try:
        found = find_bids(folder)
    except DataRefused as error:
        why, _, fix = str(error).rpartition("; ")
        return [*findings, Finding("data", "refused", why, fix), *_machine(site, 0)]
    cache = Cache(site / "cache")
    findings += check_data(folder, found, cache, plan)
    cache.close()
    return [*findings, _cohort(found, settings, plan), *_machine(site, len(found.scans))]


def _settings(site: Path) -> tuple[Mapping[str, Any], Finding]:
    try:
        found = tomllib.loads((site / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, Finding("settings", "look", f"no {FILE} in {site}", f"make one: braing3n-site init {site}")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, Finding("settings", "refused", f"{FILE} is not readable as TOML ({error})", "correct it")
    return found, Finding("settings", "ok", f"{FILE} is readable")


def _key(site: Path, settings: Mapping[str, Any]) -> Finding:
    path = site / str(_value(settings, "site", "key", KEY))
    if not path.exists():
        return Finding("key", "look", f"no key at {path}", f"make one: braing3n-site init {site}")
    open_to_others = [part.name for part in (path, path.parent) if stat.S_IMODE(part.stat().st_mode) & 0o077]
    if open_to_others:
        return Finding("key", "refused", f"others may read {' and '.join(open_to_others)}", "make a new key; chmod go= on both")
    try:
        fingerprint = SigningKey.load(path).public.fingerprint
    except KeyRefused as error:
        if "encrypted" in str(error):
            return Finding("key", "ok", "readable by its owner alone, under a passphrase")
        return Finding("key", "refused", str(error), "restore it from your records or make a new one")
    return Finding("key", "ok", f"readable by its owner alone, fingerprint {fingerprint[:16]}")


def _server(site: Path, settings: Mapping[str, Any]) -> Iterator[Finding]:
    ca = site / Path(str(_value(settings, "site", "ca", CA))).expanduser()
    return check_server(str(_value(settings, "site", "server", "")), ca)


def _data(site: Path, settings: Mapping[str, Any]) -> Path | None:
    named = str(_value(settings, "site", "data", ""))
    return (site / Path(named).expanduser()) if named else None


def _cohort(found: Found, settings: Mapping[str, Any], plan: TrainingPlan | None) -> Finding:
    patients = len({scan.participant for scan in found.scans})
    least = _value(settings, "policy", "smallest_cohort", 0)
    if not (isinstance(least, int) and patients >= least):
        return Finding("cohort", "refused", f"{patients} patients, the policy asks for {least}", f"see [policy] in {FILE}")
    name = _value(settings, "site", "name", "")
    declared = next((site.patients for site in plan.sites if site.name == name), None) if plan else None
    if declared is not None and patients < declared:
        words = f"{patients} patients, the plan declares {declared} of {name}"
        return Finding("cohort", "look", words, "declare no more than there are")
    return Finding("cohort", "ok", f"{patients} patients")


def _value(settings: Mapping[str, Any], table: str, key: str, otherwise: object) -> object:
    tables = settings.get(table, {})
    return tables.get(key, otherwise) if isinstance(tables, dict) else otherwise


def _machine(site: Path, scans: int) -> Iterator[Finding]:
    home = next(folder for folder in (site.absolute(), *site.absolute().parents) if folder.exists())
    free, need = shutil.disk_usage(home).free, _SPARE_BYTES + scans * _SCAN_BYTES
    words = f"{free / 2**30:.1f} GiB free"
    full = Finding("disk", "refused", words, f"{need / 2**30:.1f} GiB are needed")
    yield Finding("disk", "ok", words) if free >= need else full
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = f"{len(os.sched_getaffinity(0))} cores, {memory / 2**30:.1f} GiB memory"
    few = Finding("machine", "look", words, "give prepare --jobs 1")
    yield Finding("machine", "ok", words) if memory >= _MEMORY_BYTES else few
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; the tiny preset trains without"
    yield Finding("GPU", "ok", gpu)
    yield Finding("versions", "ok", f"Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in _PACKAGES))
