"""What pip is configured with, in uv's words, so that both installers look in the same places.

uv reads neither pip.conf nor PIP_*. Standard library only: it runs in an environment that is
still empty. Must not install anything, nor show a value: an index address may hold a password.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dialsum.errors import EXIT_OK, run_script

SOURCES = frozenset({"index-url", "extra-index-url", "find-links", "no-index"})
"""pip's settings that say where packages come from: the user is told that there are such."""

_SECTIONS = ("global", "install", ":env:")
"""pip's own order: a later section wins."""
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_SWITCHES = {
    "no-index": ("UV_NO_INDEX", "1"),
    "no-cache-dir": ("UV_NO_CACHE", "1"),
    "pre": ("UV_PRERELEASE", "allow"),
}
_FILES = {"cert": "SSL_CERT_FILE", "client-cert": "SSL_CLIENT_CERT"}


def parse_pip_config(listing: str) -> dict[str, str]:
    """Read what `pip config list` prints: one value per setting, as `pip install` sees them."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        key, separator, shown = line.partition("=")
        section, dot, name = key.strip().rpartition(".")
        if not separator or not dot or section not in found:
            continue
        try:
            value = ast.literal_eval(shown)
        except (SyntaxError, ValueError):
            value = shown
        found[section][_setting(name)] = str(value)
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def read_pip_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what PIP_* variables say, for an interpreter that has no pip to ask."""
    return {
        _setting(name[4:]): value
        for name, value in environment.items()
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE" and value
    }


def _setting(name: str) -> str:
    setting = name.lower().replace("_", "-")
    return "timeout" if setting == "default-timeout" else setting


def translate_pip_settings(
    settings: Mapping[str, str], environment: Mapping[str, str], *, folder: Path
) -> dict[str, str]:
    """Return the environment variables that make uv do what pip's settings ask.

    A variable that the user has set already is left alone. Relative paths lie below folder.
    """
    wanted = _where_to_look(settings, folder=folder) | _how_to_connect(settings, folder=folder)
    for name, (variable, value) in _SWITCHES.items():
        if settings.get(name, "").strip().lower() in _TRUE:
            wanted[variable] = value
    return {name: value for name, value in wanted.items() if not environment.get(name)}


def _where_to_look(settings: Mapping[str, str], *, folder: Path) -> dict[str, str]:
    wanted: dict[str, str] = {}
    if index := settings.get("index-url", "").strip():
        wanted["UV_DEFAULT_INDEX"] = index
    if extra := settings.get("extra-index-url", "").split():
        wanted["UV_INDEX"] = " ".join(extra)
        # pip takes the best version of all indexes; uv stops at the first that knows the name.
        wanted["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := settings.get("find-links", "").split():
        wanted["UV_FIND_LINKS"] = ",".join(_absolute(link, folder) for link in links)
    if constraints := settings.get("constraint", "").split():
        wanted["UV_CONSTRAINT"] = " ".join(_absolute(path, folder) for path in constraints)
    return wanted


def _how_to_connect(settings: Mapping[str, str], *, folder: Path) -> dict[str, str]:
    # pip trusts the system's certificates, a company's own among them; uv asks to be told.
    wanted = {} if settings.get("cert") else {"UV_SYSTEM_CERTS": "1"}
    for name, variable in _FILES.items():
        if path := settings.get(name, "").strip():
            wanted[variable] = _absolute(path, folder)
    if hosts := settings.get("trusted-host", "").split():
        wanted["UV_INSECURE_HOST"] = " ".join(hosts)
    if proxy := settings.get("proxy", "").strip():
        wanted |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy}
    seconds = settings.get("timeout", "").strip()
    if seconds.replace(".", "", 1).isdigit():
        wanted["UV_HTTP_TIMEOUT"] = str(max(1, round(float(seconds))))
    if keyring := settings.get("keyring-provider", "").strip():
        wanted["UV_KEYRING_PROVIDER"] = "disabled" if keyring == "disabled" else "subprocess"
    return wanted


def _absolute(location: str, folder: Path) -> str:
    return location if "://" in location else str(folder / Path(location).expanduser())


def read_pip_settings(python: str) -> dict[str, str]:
    """Return that interpreter's pip settings: files and PIP_*; PIP_* alone where it has no pip."""
    command = [python, "-m", "pip", "config", "list"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    listed = parse_pip_config(asked.stdout) if asked.returncode == 0 else {}
    return listed | read_pip_environment(os.environ)


def main(argv: Sequence[str] | None) -> int:
    """Print lines for a shell to evaluate: `export NAME=VALUE`, last own_sources=NAMES."""
    del argv
    settings = read_pip_settings(sys.executable)
    wanted = translate_pip_settings(settings, os.environ, folder=Path.cwd())
    for name, value in wanted.items():
        print(f"export {name}={shlex.quote(value)}")
    print("own_sources=" + shlex.quote(", ".join(sorted(settings.keys() & SOURCES))))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
