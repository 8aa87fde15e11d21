"""Bundles that somebody else made: what a signature refuses, in one line, and what it leaves alone."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attempts import Hostile

from edgeeff import BadInput, Bundle
from edgeeff.bundle import publish, replaceable, seal
from edgeeff.job import CompileJob, EvaluateJob
from edgeeff.manifest import digest
from edgeeff.option import arguments


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours and theirs: a private and a public key each, as the documentation makes them; and keys of other kinds."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        openssl("genpkey", "-algorithm", "ed25519", "-out", folder / f"{name}.key")
        openssl("pkey", "-in", folder / f"{name}.key", "-pubout", "-out", folder / f"{name}.pem")
    openssl("genpkey", "-algorithm", "x25519", "-out", folder / "x25519.key")
    openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", folder / "ec.key")
    openssl("pkey", "-in", folder / "ours.key", "-aes256", "-passout", "pass:secret", "-out", folder / "password.key")
    for name in ("x25519", "ec"):
        openssl("pkey", "-in", folder / f"{name}.key", "-pubout", "-out", folder / f"{name}.pem")
    for name, contents in {
        "empty": b"",
        "text": b"hello",
        "cut": (folder / "ours.pem").read_bytes()[:60],
        "binary": bytes(99),
    }.items():
        (folder / name).write_bytes(contents)
    (folder / "large").write_bytes(bytes(1 << 17))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    return folder


@pytest.fixture
def signed(fitted, keys: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(fitted[0], tmp_path / "bundle"))
    Bundle.open(path).sign(keys / "ours.key")
    return path


def edited(folder: Path, **changes: object) -> None:
    """As anyone can change a manifest, with its digest."""
    data = {**json.loads((folder / "manifest.json").read_text()), **changes}
    (folder / "manifest.json").write_text(json.dumps({**data, "digest": digest(data)}))


def test_a_signed_bundle_is_told_from_any_other(hostile: Hostile, signed: Path, keys: Path, capsys) -> None:
    trusted = ("--trusted", keys / "theirs.pem", keys / "ours.pem")
    with hostile.harmless("signed by one of two trusted keys"):
        Bundle.open(signed, trusted=[keys / "theirs.pem", keys / "ours.pem"])
    hostile.refused("verify", signed, "--trusted", keys / "theirs.pem", words=("not trusted",))
    original = (signed / "manifest.json").read_bytes()
    for change in ({"verdict": "Ship it."}, {"threads": 1}, {"date": "2099-01-01T00:00:00+00:00"}, {"classes": 10}):
        edited(signed, **change)
        hostile.refused("verify", signed, *trusted, words=("signature does not match",), name=change)
    (signed / "manifest.json").write_bytes(original + b" ")
    hostile.refused("verify", signed, *trusted, words=("signature does not match",), name="a space more")
    (signed / "manifest.json").write_bytes(original)
    for name in sorted(json.loads(original)["files"]):
        before = (signed / name).read_bytes()
        (signed / name).write_bytes(before + b"x")
        hostile.refused("verify", signed, *trusted, words=("does not match its hash",), name=name)
        (signed / name).write_bytes(before)
    seal(signed, Bundle.open(signed).manifest)
    assert not (signed / "manifest.sig").exists()
    hostile.refused("verify", signed, *trusted, words=("is not signed",))
    with hostile.harmless("nobody asks for a signature"):
        Bundle.open(signed)


def test_broken_signatures(hostile: Hostile, signed: Path, keys: Path) -> None:
    file, draw = signed / "manifest.sig", random.Random(1)
    good = json.loads(file.read_text())

    def refuse(name: object) -> None:
        with hostile.raises(BadInput, name):
            Bundle.open(signed, trusted=[keys / "ours.pem"])
        with hostile.harmless((name, "not asked for")):
            Bundle.open(signed)

    raw = base64.b64decode(good["signature"])
    for signature in (b"", raw[:63], raw + b"\0", bytes(64), b"\xff" * 64, bytes([raw[0] ^ 1]) + raw[1:]):
        file.write_text(json.dumps({**good, "signature": base64.b64encode(signature).decode()}))
        refuse(signature)
    for values in (
        {"signature": 1},
        {"signature": "é"},
        {"signature": "=" * 9},
        {"key": ""},
        {"key": None},
        {"key": "a\nb"},
        {"key": "x" * 9999},
    ):
        file.write_text(json.dumps({**good, **values}))
        refuse(values)
    for contents in (b"", b"{", b"[]", b"{}", b"null", b"[" * 60_000, b"\xff", bytes(1 << 20), file.read_bytes()[:40]):
        file.write_bytes(contents)
        refuse(contents[:20])
    for make in (lambda: file.symlink_to("/dev/zero"), lambda: os.mkfifo(file), file.mkdir, lambda: file.symlink_to(keys / "text")):
        file.unlink()
        make()
        refuse(make)
        if file.is_dir():
            file.rmdir()
            file.touch()
    file.unlink()
    for _ in range(20):
        file.write_bytes(draw.randbytes(draw.randrange(200)))
        refuse(file.read_bytes()[:20])


def test_keys_that_cannot_be_used(hostile: Hostile, signed: Path, keys: Path) -> None:
    others = ("empty", "text", "cut", "binary", "large", "folder", "pipe", "zero", "nothing", "x25519.pem", "ec.pem")
    for name in (*others, "ours.key", "password.key"):
        words = ("private key",) if name.endswith(".key") else ()
        hostile.refused("verify", signed, "--trusted", keys / "ours.pem", keys / name, words=words, name=("trusted", name))
    for name in (*others, "x25519.key", "ec.key", "ours.pem", "password.key"):
        hostile.refused("sign", signed, "--key", keys / name, name=("signs", name))
    with hostile.raises(BadInput, "no trusted key"):
        Bundle.open(signed, trusted=[])


def test_an_older_bundle_is_refused(hostile: Hostile, signed: Path, keys: Path) -> None:
    """A signature stays valid; the date that was signed tells an older bundle from the one that should be here."""
    trusted, made = ("--trusted", keys / "ours.pem"), datetime.fromisoformat(Bundle.open(signed).manifest.date)
    later, earlier = made + timedelta(seconds=1), made - timedelta(seconds=1)
    for date in (later.isoformat(), "2099-01-01", "9999-12-31T23:59:59+00:00"):
        hostile.refused("verify", signed, *trusted, "--not-before", date, words=("expected", "or later"))
    hostile.refused("verify", signed, "--not-before", earlier.isoformat(), words=("--not-before",))
    for date in ("yesterday", "", "nan", "2026-13-01", "1e999", "2026-01-01T00:00:00+99:00", "-1"):
        hostile.refused("verify", signed, *trusted, f"--not-before={date}")
    for date in (earlier, made, earlier.replace(tzinfo=None), datetime(1, 1, 1)):
        with hostile.harmless(date):
            assert Bundle.open(signed, trusted=[keys / "ours.pem"], not_before=date).manifest
    for date in ("", "yesterday", "2099-01-01", "2026-01-01T00:00:00", "\x1b[2J"):
        edited(signed, date=date)
        Bundle.open(signed).sign(keys / "ours.key")
        with hostile.raises(BadInput, date):
            Bundle.open(signed, trusted=[keys / "ours.pem"], not_before=earlier)


def test_every_verb_that_uses_a_bundle_can_ask_for_a_signature(
    hostile: Hostile, signed: Path, keys: Path, few_digits: Path
) -> None:
    photo = next(few_digits.glob("val/*/*.png"))
    for words in (
        ("eval", signed, "--val", few_digits / "val"),
        ("bench", signed),
        ("requalify", signed),
        ("compile", signed),
        ("camera", signed, "--source", photo),
        ("eval", signed, "--val", few_digits / "val", "--on", "nobody@nowhere.invalid"),
        ("bench", signed, "--on", "nobody@nowhere.invalid"),
        ("requalify", signed, "--on", "nobody@nowhere.invalid"),
        ("compile", signed, "--on", "nobody@nowhere.invalid"),
        ("camera", signed, "--source", "0", "--on", "nobody@nowhere.invalid"),
    ):
        hostile.refused(*words, "--trusted", keys / "theirs.pem", words=("not trusted",))


def test_a_signature_can_be_checked_without_edgeeff(signed: Path, keys: Path, tmp_path: Path) -> None:
    made = json.loads((signed / "manifest.sig").read_text())
    (tmp_path / "raw").write_bytes(base64.b64decode(made["signature"]))
    openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", keys / "ours.pem", "-rawin"),
        *("-in", signed / "manifest.json", "-sigfile", tmp_path / "raw"),
    )
    command = f"openssl pkey -pubin -in {keys / 'ours.pem'} -outform DER | sha256sum"
    assert made["key"] == f"sha256:{subprocess.check_output(command, shell=True, text=True).split()[0]}"


def test_a_signed_bundle_is_still_a_bundle(signed: Path, keys: Path, tmp_path: Path) -> None:
    replaceable(signed)
    newer = Path(shutil.copytree(signed, tmp_path / "newer"))
    assert publish(newer, signed).path == signed
    Bundle.open(signed, trusted=[keys / "ours.pem"]).sign(keys / "theirs.key")  # the last who signs
    Bundle.open(signed, trusted=[keys / "theirs.pem"])


def test_other_machines_get_the_keys_and_check_again(keys: Path) -> None:
    from edgeeff.remote.verbs import _keys, _there

    job = CompileJob("my-model", trusted=(keys / "ours.pem", keys / "theirs.pem"), not_before=datetime(2026, 1, 31))
    assert list(_keys(job).values()) == list(job.trusted)
    words = "bundle --trusted trusted-0.pem trusted-1.pem --not-before 2026-01-31T00:00:00"
    assert arguments(_there(job)) == words.split()
    assert arguments(_there(EvaluateJob("my-model", "val"))) == ["bundle", "--val", "val"]
