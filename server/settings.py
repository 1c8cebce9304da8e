"""Every setting, typed, with a sentence each: from flags, the environment (SKIFF_*) and one TOML file, in this order.

The TOML file is `skiff.toml` in the data folder, or the one that SKIFF_CONFIG names; an unknown key in it is refused.
`ANTHROPIC_API_KEY`, `ANTHROPIC_AUTH_TOKEN` and `ANTHROPIC_BASE_URL` are the SDK's own and honoured as it honours them.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from server.errors import InvalidRequest

DEFAULT_MODEL = "claude-sonnet-5-5"
"""The newest Sonnet of the installed SDK's list of models."""
OTHERS = ("SKIFF_ENGINE_", "SKIFF_REQUIRE_")
"""Variables of `make engine` and of the tests, not of the program."""
SCRIPTED = "scripted"
"""The model name that stands for the built-in scripted model."""
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
"""Variables of which the SDK needs one to ask the Claude API."""


def default_data_dir() -> Path:
    """Where the platform keeps an application's data."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "skiff"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "skiff"


class Settings(BaseSettings):
    """What an operator can set."""

    model_config = SettingsConfigDict(env_prefix="SKIFF_", extra="forbid", frozen=True)

    data_dir: Path = Field(
        default_factory=default_data_dir,
        validate_default=True,  # XDG_DATA_HOME may be relative
        description="Folder for the database, keys and sandboxes.",
    )
    sandbox: Literal["auto", "docker", "local"] = Field(
        "auto", description="Where tools run: a container engine, bubblewrap, or the engine if one answers."
    )
    model: str = Field("", description="Model for agents that name none; `scripted` needs no key.")
    platform: Literal["api", "bedrock", "vertex", "foundry"] = Field(
        "api", description="Which service of the SDK answers model requests."
    )
    api_key: str = Field("", description="Fixes the bearer token of the HTTP door (default: made at first start).")
    host: str = Field("127.0.0.1", description="Address that `skiff serve` binds.")
    port: int = Field(8400, ge=0, le=65535, description="Port that `skiff serve` binds; 0 takes a free one.")
    allowed_hosts: list[str] = Field(
        [], description="Further Host headers that the HTTP door accepts (name or name:port)."
    )
    stall_seconds: float = Field(
        30.0, gt=0, description="A stream of events whose reader takes nothing for so many seconds is dropped."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "WARNING", description="What goes to standard error."
    )

    images: list[str] = Field([], description="Images that a caller may choose by name, besides the default one.")
    max_cpus: float = Field(2.0, gt=0, description="The most processors one sandbox may ask for.")
    max_memory_mb: int = Field(4096, ge=64, description="The most memory one sandbox may ask for, in MiB.")
    sandbox_cpus: float = Field(1.0, gt=0, description="Processors of a sandbox that asks for none in particular.")
    sandbox_memory_mb: int = Field(1024, ge=64, description="Memory of a sandbox, in MiB, likewise.")
    sandbox_disk_mb: int = Field(
        2048, ge=16, description="Soft bound on a workspace, in MiB; over it, work is stopped."
    )
    sandbox_pids: int = Field(512, ge=16, description="Processes and threads in a sandbox.")
    package_build_seconds: float = Field(
        900.0, ge=10, description="Seconds for installing an environment's packages; its first session waits for it."
    )
    package_hosts: list[str] = Field(
        [], description="Hosts that `allow_package_managers` of an environment opens; without any it is refused."
    )
    packages_from_mcp: bool = Field(
        False, description="Whether callers of the MCP door may have packages installed, as those of the API may."
    )
    pool: int = Field(1, ge=0, le=20, description="Warm containers kept ready (docker).")
    pause_after: float = Field(60.0, ge=0, description="Seconds of idleness before a container is frozen; 0 = never.")
    stop_after: float = Field(900.0, ge=1, description="Seconds of idleness before a sandbox is stopped; files stay.")
    checkpoint_after: float = Field(
        86_400.0,
        ge=0,
        description="Seconds of idleness before a sandbox is put away: its files packed, all else removed; 0 = never.",
    )
    background_grace: float = Field(
        600.0, ge=0, description="Seconds for which busy background processes put the freezing of a container off."
    )

    max_sessions_at_work: int = Field(
        32, ge=1, description="Sessions that work at the same time; more wait their turn."
    )
    max_sandboxes: int = Field(32, ge=1, description="Sandboxes that exist as live processes at the same time.")
    max_model_requests: int = Field(
        32, ge=1, description="Model requests under way at the same time; more wait in line."
    )
    max_tokens: int = Field(32_000, ge=256, description="Tokens that the model may write in one answer.")
    retries: int = Field(6, ge=0, le=20, description="Failed model requests in a row before a turn is given up.")
    retry_patience: float = Field(
        600.0,
        ge=0,
        description="The longest wait, in seconds, that a provider may ask for before another try; more ends the turn.",
    )
    requests_per_turn: int = Field(200, ge=1, description="Model requests in one turn.")
    silence_seconds: float = Field(120.0, ge=1, description="A model stream that says nothing for so long is cut.")
    max_usd_per_day: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="List price, in US dollars, of all model requests of one day (UTC); 0 = no cap.",
    )
    max_tokens_per_day: int = Field(
        0, ge=0, description="Tokens of all model requests of one day (UTC), cached ones included; 0 = no cap."
    )
    context_window: int = Field(
        128_000, ge=4_000, description="Tokens of context of a model that no table of windows knows."
    )
    context_windows: dict[str, int] = Field(
        {}, description="Tokens of context by model name, before the built-in table (a JSON object)."
    )
    clear_at: float = Field(
        0.5, gt=0, le=1, description="Share of the context window at which old tool results are cleared."
    )
    compact_at: float = Field(
        0.8, gt=0, le=0.95, description="Share of the context window at which the conversation is summarized."
    )
    compaction: Literal["own", "server"] = Field(
        "own", description="Who summarizes: the agent's model by a request of ours, or its API where it can (beta)."
    )
    prices: Path | None = Field(None, description="Price table to use instead of the built-in one (same format).")

    max_file_mb: int = Field(500, ge=1, description="The largest file that can be uploaded, in MB.")
    max_inputs_mb: int = Field(2_000, ge=1, description="All files that one session may be given, in MB.")
    git_hosts: dict[str, str] = Field(
        {"github.com": "https://github.com"},
        description="Hosts of repositories that a session may be given, each with the address that it is fetched from.",
    )
    git_seconds: float = Field(300.0, ge=1, description="Seconds for fetching one repository.")
    git_mb: int = Field(1_000, ge=1, description="The largest repository that is fetched, in MB with its history.")

    min_free_mb: int = Field(
        256,
        ge=0,
        description="MB that must be free where the data folder is: below, new sessions, messages and files are"
        " refused, and turns end; 0 = never.",
    )
    retention_days: int = Field(
        0, ge=0, description="Sessions in which nothing has happened for so many days are deleted; 0 keeps all of them."
    )

    @field_validator("context_windows")
    @classmethod
    def _roomy(cls, windows: dict[str, int]) -> dict[str, int]:
        """A window that holds hardly a prompt would be compacted without end."""
        for name, tokens in windows.items():
            if tokens < 4_000:
                raise ValueError(f"{name}: a context window has at least 4,000 tokens")
        return windows

    @field_validator("git_hosts")
    @classmethod
    def _reachable(cls, hosts: dict[str, str]) -> dict[str, str]:
        """Fetched with a credential: an address that is none must be noticed before it is used."""
        for host, address in hosts.items():
            if host != host.lower() or not address.startswith(("https://", "http://", "file:///")):
                raise ValueError(f"{host}: give a lower-case host name, and an https://, http:// or file:/// address")
        return hosts

    @field_validator("data_dir", "prices")
    @classmethod
    def _settled(cls, path: Path | None) -> Path | None:
        """Independent of the working folder, which a successor does not share; `~` works where no shell expands it."""
        if path is None:
            return None
        try:
            return path.expanduser().resolve()
        except (OSError, RuntimeError) as error:  # no home folder, links in a circle
            raise ValueError(str(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = init_settings()
        folder = given.get("data_dir") or os.environ.get("SKIFF_DATA_DIR") or default_data_dir()
        named = config_file()
        toml = named or Path(folder).expanduser() / "skiff.toml"
        if named and not toml.is_file():
            raise InvalidRequest(f"Settings: SKIFF_CONFIG names {toml}, and there is no such file.")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=toml)


def config_file() -> Path | None:
    """The TOML file that SKIFF_CONFIG names, as an absolute path; None when it names none."""
    named = os.environ.get("SKIFF_CONFIG")
    return Path(named).expanduser().resolve() if named else None


def load(**flags: object) -> Settings:
    """The settings in force; flags that are None were not given. Raises InvalidRequest naming what is wrong."""
    _refuse_unknown_variables()
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InvalidRequest(f"Settings: {problems}") from None
    except SettingsError as error:
        raise InvalidRequest(f'Settings: {error}. A list is written as JSON, such as ["a", "b"].') from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"Settings: the TOML file cannot be read: {error}.") from None


def _refuse_unknown_variables() -> None:
    """A misspelt variable would be a setting that is ignored."""
    known = {f"SKIFF_{name.upper()}" for name in Settings.model_fields} | {"SKIFF_CONFIG"}
    unknown = [name for name in os.environ if name.startswith("SKIFF_") and name not in known]
    strange = sorted(name for name in unknown if not name.startswith(OTHERS))
    if strange:
        raise InvalidRequest(f"Settings: there is no {', '.join(strange)}. README.md lists every setting.")
