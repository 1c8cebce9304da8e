"""The composition root: the only file that names concrete classes and puts them together.

`running(settings)` opens the store, takes this process's role on the data folder and gives the use-cases; leaving it
closes everything in the reverse order. Doors get a `Service` and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from server import garbage
from server.backends import choose
from server.backup import ARCHIVES, FILES
from server.catalog.environments import Bounds
from server.catalog.service import Catalog, Offer
from server.engine.role import Engine, OpenEngine, Role
from server.engine.upkeep import Upkeep
from server.errors import SkiffError, StoreError
from server.files.blobs import Blobs
from server.files.collecting import sweep
from server.files.repositories import Repositories
from server.files.service import FileRules, Files
from server.ids import new_id
from server.keys import Keys
from server.providers import ModelProvider
from server.providers.anthropic import AnthropicProvider
from server.providers.pricing import Prices, list_prices
from server.providers.scripted.provider import ScriptedProvider
from server.providers.summary import How
from server.providers.windows import Windows
from server.room import Free, Room, free_bytes
from server.sessions.conversation.context import Window
from server.sessions.decide import Limits
from server.sessions.line import Line
from server.sessions.log import Log
from server.sessions.means import REAL_TIME, Means, Pace
from server.sessions.money.budget import Caps
from server.sessions.money.spending import Spending
from server.sessions.sandboxing.archives import Archives
from server.sessions.sandboxing.mounting import Mounting
from server.sessions.sandboxing.sandboxes import Sandboxes
from server.sessions.sandboxing.tending import IdleRules
from server.sessions.sandboxing.workspace import Workspaces
from server.sessions.service import Defaults, Service
from server.sessions.supervisor import Supervisor
from server.settings import DEFAULT_MODEL, SCRIPTED, Settings
from server.store.answers import AnswerStore
from server.store.catalog import CatalogStore
from server.store.files import FileTable
from server.store.keys import KeyStore
from server.store.resources import ResourceTable
from server.store.sqlite import SqliteDatabase
from server.store.store import Store
from server.usecases import UseCases
from server.watch import Watch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class App:
    """A running Skiff."""

    settings: Settings
    service: Service
    uses: UseCases
    keys: Keys
    answers: AnswerStore
    watch: Watch
    role: Role
    secret: bytes
    """Of this installation, for signing what doors hand out."""


@asynccontextmanager
async def running(
    settings: Settings, *, lead: bool = True, pace: Pace = REAL_TIME, free: Free = free_bytes
) -> AsyncIterator[App]:
    """Everything that a door needs, for as long as the block lasts. Raises StoreError for an unusable data folder.

    Without `lead` this process never becomes the engine: enough to look at sessions.
    """
    garbage.look_seldom()
    prepare_data_dir(settings.data_dir)
    database = SqliteDatabase(settings.data_dir / "skiff.db")
    await database.open()
    store = Store(database)
    try:
        await store.open()
        installation = await store.meta("installation", new_id("inst"))
        secret = await store.meta("secret", secrets.token_hex(32))
        log = Log(store)
        models = Models(settings)
        room = Room(settings.data_dir, settings.min_free_mb * 10**6, free)
        opener = _engine_opener(settings, installation, store, log, models, database, room, pace)
        role = Role(settings.data_dir, store, log, opener if lead else None)
        catalog = Catalog(CatalogStore(database), _offer(settings, models))
        files = _files(settings, store, database, role, room)
        defaults = Defaults(settings.max_tokens, models.has_web_tools, partial(_is_priced, settings))
        service = Service(store, log, role, catalog, files, defaults, room)
        keys = Keys(KeyStore(database))
        task = asyncio.create_task(_hold(role), name="role")
        try:
            uses = UseCases(service, catalog, files, settings.stall_seconds)
            watch = Watch(store, role, room)
            yield App(settings, service, uses, keys, AnswerStore(database), watch, role, secret.encode())
        finally:
            await keys.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await models.close()
    finally:
        await store.close()


async def _hold(role: Role) -> None:
    """Run the role; a failure of it must not end the doors, which can still read, and say what is wrong."""
    while True:
        try:
            await role.run()
        except Exception:
            logger.exception("the engine of this data folder failed; trying again")
            await asyncio.sleep(5)


def prepare_data_dir(folder: Path) -> None:
    """Make the data folder, closed to others. Raises StoreError when it is somebody else's or cannot be made."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise StoreError(f"{folder} belongs to another user. Choose another folder with --data-dir.")
        folder.chmod(0o700)
    except OSError as error:
        raise StoreError(
            f"The data folder {folder} cannot be used: {error.strerror}. Choose another: --data-dir."
        ) from None


class Models:
    """The model providers, each made when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._windows = Windows(settings.context_windows, settings.context_window)
        self._made: dict[str, ModelProvider] = {}

    @property
    def default(self) -> str:
        """The model of agents that name none. Raises SkiffError where there is neither a setting nor a key."""
        return self._settings.model or DEFAULT_MODEL

    def provider(self, model: str) -> ModelProvider:
        """The provider that serves this model."""
        kind = SCRIPTED if model == SCRIPTED else "anthropic"
        if kind not in self._made:
            settings = self._settings
            self._made[kind] = (
                ScriptedProvider(window=self._windows.tokens(model))
                if kind == SCRIPTED
                else AnthropicProvider(platform=settings.platform, silence_seconds=settings.silence_seconds)
            )
        return self._made[kind]

    def window(self, model: str) -> Window:
        """How much this model can take in, and when something is done about it."""
        return Window(self._windows.tokens(model), self._settings.clear_at, self._settings.compact_at)

    def summaries(self, model: str) -> How:
        """How this model is asked for a summary: by its API's own means where that is wanted and can be had."""
        wanted = self._settings.compaction == "server" and self._settings.platform != "bedrock"
        return "server" if wanted and self._windows.summarizes(model) else "own"

    def has_web_tools(self, model: str) -> bool:
        """Whether this model's provider has web tools of its own: the Claude API does."""
        return model != SCRIPTED and self._settings.platform in ("api", "foundry")

    async def close(self) -> None:
        for provider in self._made.values():
            await provider.close()


def _files(settings: Settings, store: Store, database: SqliteDatabase, role: Role, room: Room) -> Files:
    rules = FileRules(settings.max_file_mb * 10**6, settings.max_inputs_mb * 10**6, settings.git_hosts)
    return Files(store, FileTable(database), ResourceTable(database), _blobs(settings), role, rules, room)


def _offer(settings: Settings, models: Models) -> Offer:
    bounds = Bounds(
        images=tuple(settings.images),
        max_cpus=settings.max_cpus,
        max_memory_mb=settings.max_memory_mb,
        cpus=settings.sandbox_cpus,
        memory_mb=settings.sandbox_memory_mb,
        disk_mb=settings.sandbox_disk_mb,
        pids=settings.sandbox_pids,
        package_hosts=tuple(settings.package_hosts),
        packages_from_mcp=settings.packages_from_mcp,
    )
    return Offer(models.default, bounds, models.has_web_tools)


def _blobs(settings: Settings) -> Blobs:
    return Blobs(settings.data_dir / FILES)


def _mounting(settings: Settings, store: Store, log: Log, database: SqliteDatabase) -> Mounting:
    fetching = settings.data_dir / "fetching"
    repositories = Repositories(settings.git_hosts, settings.git_seconds, settings.git_mb * 10**6, fetching)
    repositories.sweep()  # this process has just become the engine
    return Mounting(store, ResourceTable(database), FileTable(database), _blobs(settings), repositories, log)


def prices_of(settings: Settings) -> Prices:
    """The operator's price list, or the built-in one. Raises InvalidRequest for a file that cannot be used."""
    return Prices.load(settings.prices) if settings.prices else list_prices()


def _is_priced(settings: Settings, model: str) -> bool:
    return prices_of(settings).rates(model) is not None


def _caps(settings: Settings) -> Caps:
    usd = Decimal(str(settings.max_usd_per_day)) if settings.max_usd_per_day else None
    return Caps(usd, settings.max_tokens_per_day or None)


def _engine_opener(
    settings: Settings,
    installation: str,
    store: Store,
    log: Log,
    models: Models,
    database: SqliteDatabase,
    room: Room,
    pace: Pace,
) -> OpenEngine:
    @asynccontextmanager
    async def open_engine(deposed: Callable[[], None]) -> AsyncIterator[Engine]:
        rules = IdleRules(settings.stop_after, settings.checkpoint_after, settings.max_sandboxes)
        spending = Spending(store, _caps(settings))
        limits = Limits(settings.retries, settings.retry_patience, settings.requests_per_turn)
        async with _beside(_warm_up(models), "warm up"), await choose(settings, installation) as backend:
            await sweep(FileTable(database), _blobs(settings))
            archives = Archives(store, backend, Blobs(settings.data_dir / ARCHIVES), room.check)
            sandboxes = Sandboxes(store, backend, rules, _mounting(settings, store, log, database), archives)
            means = Means(
                log,
                models.provider,
                sandboxes,
                prices_of(settings),
                limits,
                spending,
                room,
                Line(settings.max_sessions_at_work),
                Line(settings.max_model_requests),
                models.window,
                models.summaries,
                pace,
            )
            async with Supervisor(store, means, deposed) as supervisor:
                files = (FileTable(database), _blobs(settings))
                upkeep = Upkeep(store, log, files, supervisor.forget, settings.retention_days)
                async with _beside(upkeep.run(), "upkeep"), _beside(room.watch(), "room"):
                    yield Engine(supervisor, Workspaces(store, sandboxes), backend.name, sandboxes.collect)

    return open_engine


async def _warm_up(models: Models) -> None:
    """Import the model's SDK (seconds of CPU) beside everything else. Problems show up at the first request."""
    with suppress(SkiffError), garbage.kept():
        await models.provider(models.default).warm_up()


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Do this in a task, for as long as the block lasts."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
