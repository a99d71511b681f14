"""What pip is configured with, read as pip reads it and said in uv's words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dialsum.batch import pip_settings


@pytest.mark.parametrize(
    ("listing", "settings"),
    [
        ("", {}),
        ("no equals sign\nglobalindex-url='x'\n", {}),
        ("global.index-url='https://a/simple'\n", {"index-url": "https://a/simple"}),
        ("global.find-links='\\n/a\\n/b'\n", {"find-links": "\n/a\n/b"}),
        ("global.timeout='5'\ninstall.timeout='6'\n", {"timeout": "6"}),
        (
            "install.timeout='6'\nglobal.timeout='5'\n:env:.default-timeout='180'\n",
            {"timeout": "180"},
        ),
        ("download.timeout='7'\n", {}),
        ("global.index-url='https://u:p=q@a/s'\n", {"index-url": "https://u:p=q@a/s"}),
    ],
)
def test_listing_of_pip_is_read_in_its_own_order(listing: str, settings: dict[str, str]) -> None:
    assert pip_settings.parse_pip_config(listing) == settings


SYSTEM = {"UV_SYSTEM_CERTS": "1"}


@pytest.mark.parametrize(
    ("settings", "environment", "wanted"),
    [
        ({}, {}, SYSTEM),
        ({"disable-pip-version-check": "1"}, {}, SYSTEM),
        ({"index-url": "https://a/simple"}, {}, SYSTEM | {"UV_DEFAULT_INDEX": "https://a/simple"}),
        ({"index-url": "https://a/simple"}, {"UV_DEFAULT_INDEX": "https://mine"}, SYSTEM),
        (
            {"extra-index-url": "https://a\n https://b"},
            {},
            SYSTEM | {"UV_INDEX": "https://a https://b", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        (
            {"find-links": "wheels /opt/w https://a"},
            {},
            SYSTEM | {"UV_FIND_LINKS": "/here/wheels,/opt/w,https://a"},
        ),
        (
            {"cert": "ca.pem", "client-cert": "/me.pem"},
            {},
            {"SSL_CERT_FILE": "/here/ca.pem", "SSL_CLIENT_CERT": "/me.pem"},
        ),
        ({"trusted-host": "a b:80"}, {}, SYSTEM | {"UV_INSECURE_HOST": "a b:80"}),
        (
            {"no-index": "true", "no-cache-dir": "1", "pre": "yes"},
            {},
            SYSTEM | {"UV_NO_INDEX": "1", "UV_NO_CACHE": "1", "UV_PRERELEASE": "allow"},
        ),
        ({"no-index": "false", "no-cache-dir": "0", "pre": ""}, {}, SYSTEM),
        ({"timeout": "180"}, {}, SYSTEM | {"UV_HTTP_TIMEOUT": "180"}),
        ({"timeout": "0.2"}, {}, SYSTEM | {"UV_HTTP_TIMEOUT": "1"}),
        ({"timeout": "soon"}, {}, SYSTEM),
        (
            {"proxy": "http://p:1"},
            {"HTTPS_PROXY": "http://q:2"},
            SYSTEM | {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"},
        ),
        ({"constraint": "c.txt"}, {}, SYSTEM | {"UV_CONSTRAINT": "/here/c.txt"}),
        ({"keyring-provider": "import"}, {}, SYSTEM | {"UV_KEYRING_PROVIDER": "subprocess"}),
        ({"keyring-provider": "disabled"}, {}, SYSTEM | {"UV_KEYRING_PROVIDER": "disabled"}),
    ],
)
def test_settings_of_pip_are_said_in_the_words_of_uv(
    settings: dict[str, str], environment: dict[str, str], wanted: dict[str, str]
) -> None:
    assert (
        pip_settings.translate_pip_settings(settings, environment, folder=Path("/here")) == wanted
    )


def test_shell_can_evaluate_what_pip_is_told(repository: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(repository / "code"),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_EXTRA_INDEX_URL": "https://a/s?x=1&y='2' https://b $(exit 3)",
    }
    script = (
        'set -eu; lines="$("$0" -P -m dialsum.batch.pip_settings)"; eval "$lines"; '
        'printf "%s|%s|%s" "$UV_INDEX" "$UV_INDEX_STRATEGY" "$own_sources"'
    )
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", script, sys.executable],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout == "https://a/s?x=1&y='2' https://b $(exit 3)|unsafe-best-match|extra-index-url"
    )
