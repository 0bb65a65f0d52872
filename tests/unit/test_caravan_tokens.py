"""Bearer tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from caravan.errors import BadInput
from caravan.tokens import ANYONE, Tokens, TokenSettings

TWO = Tokens.parse(["phone:phone-secret", "camera:camera-secret"])


def test_a_door_without_tokens_is_open() -> None:
    assert Tokens({}).holder(None) == ANYONE
    assert Tokens({}).holder("Bearer whatever") == ANYONE


@pytest.mark.parametrize(
    ("header", "name"), [("Bearer phone-secret", "phone"), ("bearer camera-secret ", "camera")]
)
def test_each_token_names_its_holder(header: str, name: str) -> None:
    assert TWO.holder(header) == name


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no-token"),
        ("", "no-token"),
        ("Bearer ", "no-token"),
        ("Basic phone-secret", "no-token"),
        ("Bearer phone-secre", "wrong-token"),
        ("Bearer phone-secret2", "wrong-token"),
        ("Bearer \udcff\xe9", "wrong-token"),
    ],
)
def test_anything_else_is_a_401_with_its_reason(header: str | None, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        TWO.holder(header)
    assert (caught.value.status, caught.value.reason) == (401, reason)


@pytest.mark.parametrize("entries", ["secret-without-name", "phone:short", "a:secret-one a:secret-two"])
def test_settings_refuse_what_are_no_tokens_without_showing_them(
    entries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENS", entries)
    with pytest.raises(ValidationError) as caught:
        TokenSettings()
    faults = [fault["msg"] for fault in caught.value.errors(include_input=False)]
    assert faults
    assert not any("secret" in fault or "short" in fault for fault in faults)


def test_tokens_come_from_the_environment_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens"
    file.write_text("# of the till\ntill:till-secret\n\n")
    monkeypatch.setenv("TOKENS", "phone:phone-secret, camera:camera-secret")
    monkeypatch.setenv("TOKENS_FILE", str(file))
    settings = TokenSettings()
    assert settings.door.holder("Bearer till-secret") == "till"
    assert settings.door.holder("Bearer camera-secret") == "camera"
    assert settings.token_to_show == "phone-secret"
    assert "secret" not in repr(settings)


def test_a_client_shows_its_own_token_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENS", "phone:phone-secret")
    monkeypatch.setenv("TFSERVING_TOKEN", "servings-own")
    assert TokenSettings().token_to_show == "servings-own"
