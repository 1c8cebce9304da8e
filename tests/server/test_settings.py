"""Settings: where they come from, in which order, and what is said about wrong ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from server.errors import InvalidRequest
from server.settings import Settings, config_file, load


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("SKIFF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))


def test_every_setting_has_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert (field.description or "").endswith("."), name


def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "skiff.toml").write_text('model = "file"\nport = 1\nretries = 1\nimages = ["a"]\n')
    monkeypatch.setenv("SKIFF_MODEL", "environment")
    monkeypatch.setenv("SKIFF_PORT", "2")
    found = load(data_dir=tmp_path, port=3, retries=None)
    assert (found.model, found.port, found.retries, found.images) == ("environment", 3, 1, ["a"])


def test_the_environment_names_the_data_folder_whose_file_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "skiff.toml").write_text('model = "file"\n')
    monkeypatch.setenv("SKIFF_DATA_DIR", str(tmp_path))
    assert (load().data_dir, load().model) == (tmp_path, "file")


def test_the_environment_may_name_the_file_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("pool = 0\n")
    monkeypatch.setenv("SKIFF_CONFIG", str(tmp_path / "other.toml"))
    assert load().pool == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [('modle = "x"\n', "modle"), ("port = 70000\n", "port"), ("not toml", "TOML"), ('sandbox = "vm"\n', "sandbox")],
)
def test_a_wrong_file_is_refused_with_the_name_of_what_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "skiff.toml").write_text(text)
    with pytest.raises(InvalidRequest, match=words):
        load(data_dir=tmp_path)


@pytest.mark.parametrize(("name", "value"), [("SKIFF_PORT", "many"), ("SKIFF_IMAGES", "a, b")])
def test_a_wrong_variable_is_refused_with_its_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match=name.removeprefix("SKIFF_").lower()):
        load(data_dir=tmp_path)


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="surprise"):
        load(data_dir=tmp_path, surprise=1)


def test_a_file_that_is_named_but_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKIFF_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(InvalidRequest):
        load(data_dir=tmp_path)


def test_relative_paths_are_settled_where_they_were_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.toml").write_text('prices = "prices.json"\n')
    monkeypatch.setenv("SKIFF_CONFIG", "other.toml")
    monkeypatch.setenv("XDG_DATA_HOME", "share")
    found = load(data_dir="here/../data")
    assert (found.data_dir, found.prices) == (tmp_path / "data", tmp_path / "prices.json")
    assert config_file() == tmp_path / "other.toml"
    assert load().data_dir.is_absolute()


def test_a_path_that_leads_in_a_circle_is_refused_or_kept_but_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with suppress(InvalidRequest):  # newer Pythons resolve it as far as it goes
        load(data_dir=tmp_path / "a" / "data")
