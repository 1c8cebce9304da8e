"""What sessions are given, over REST: files, and repositories."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types.beta.sessions import (
    BetaManagedAgentsDeleteSessionResource,
    BetaManagedAgentsFileResource,
    BetaManagedAgentsGitHubRepositoryResource,
)

from sandbox.local import LocalBackend
from tests.support.cast import TOOLSET, Cast, told
from tests.support.git_host import TOKEN, GitHost, git_host
from tests.support.judged import judged, refused
from tests.support.sandboxes import require
from tests.support.scenario import bash, call
from tests.support.served import BETA, Site, served

UPLOADS = "/mnt/session/uploads"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHost]:
    with git_host(tmp_path_factory.mktemp("git")) as running:
        running.repository("o/public", {"README": "hello", "src/a.py": "print(1)"})
        running.repository("o/public", {"README": "other"}, branch="feature/x")
        running.repository("private/secret", {"README": "secret"})
        yield running


@pytest.fixture(scope="module")
def own(host: GitHost) -> Iterator[Site]:
    """A server that fetches from the host of the tests as if it were the real one."""
    hosts = {"github.com": host.url, "gone.example": "http://127.0.0.1:9"}
    with served("local", git_hosts=json.dumps(hosts)) as running:
        yield running


@pytest.fixture(scope="module")
def cast(own: Site) -> Iterator[Cast]:
    with own.client() as client:
        yield Cast(client, tools=[TOOLSET])


def upload(cast: Cast, content: bytes, name: str = "a.txt") -> str:
    return cast.client.beta.files.upload(file=(name, content)).id


def says(cast: Cast, session_id: str, command: str) -> str:
    """What a command of the agent's says."""
    events = cast.turn(session_id, told(call(bash(command)), {"say": "ok"}))
    (result,) = [event for event in events if event.type == "agent.tool_result"]
    return "".join(block.text for block in result.content if not block.text.startswith("[The sandbox")).strip()


def errors(cast: Cast, session_id: str) -> list[Any]:
    return [event.error for event in cast.events.list(session_id) if event.type == "session.error"]


def repository(url: str = "https://github.com/o/public", **more: Any) -> dict[str, Any]:
    return {"type": "github_repository", "url": url, **more}


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_mounted_read_only_as_a_copy_with_an_id_of_its_own(own: Site, cast: Cast) -> None:
    first, second = upload(cast, b"one"), upload(cast, b"two")
    given = [
        {"type": "file", "file_id": first},
        {"type": "file", "file_id": second, "mount_path": "/data/in.csv"},
        {"type": "file", "file_id": second, "mount_path": f"{UPLOADS}/same"},
    ]
    session = cast.session(resources=given)
    paths = [resource.mount_path for resource in session.resources if resource.type == "file"]
    assert paths == [f"{UPLOADS}/{first}", f"{UPLOADS}/data/in.csv", f"{UPLOADS}/same"]
    assert says(cast, session.id, f"cat {' '.join(paths)}; rm -f {paths[0]} || echo no").endswith("no")
    listed = cast.client.beta.files.list(scope_id=session.id, betas=[BETA]).data
    copies = {resource.file_id for resource in session.resources if resource.type == "file"}
    assert {file.id for file in listed} == copies and not copies & {first, second}
    with own.http() as http:
        shown = http.get(f"/v1/sessions/{session.id}/resources/{session.resources[0].id}")  # type: ignore[union-attr]
        judged(BetaManagedAgentsFileResource, shown.text)
    cast.client.beta.files.delete(first)
    assert says(cast, session.id, f"cat {paths[0]}") == "one"


def test_the_agent_is_told_what_it_was_given(own: Site, cast: Cast) -> None:
    session = cast.rested(resources=[{"type": "file", "file_id": upload(cast, b"x"), "mount_path": "in.csv"}])
    assert session.resources
    prompt = json.dumps(own.api.bodies[-1]["system"])
    assert f"{UPLOADS}/in.csv" in prompt and "/mnt/session/outputs" in prompt


def test_a_file_comes_into_a_live_sandbox_and_goes_again(cast: Cast) -> None:
    session = cast.rested(call(bash("true")), {"say": "ok"})
    resources = cast.client.beta.sessions.resources
    added = resources.add(session.id, type="file", file_id=upload(cast, b"late"), mount_path="/d/late.txt")
    assert says(cast, session.id, f"cat {UPLOADS}/d/late.txt") == "late"
    refused(400, lambda: cast.client.beta.files.delete(added.file_id), "resource")
    gone = resources.delete(added.id, session_id=session.id)
    assert judged(BetaManagedAgentsDeleteSessionResource, gone.to_json()).id == added.id
    assert says(cast, session.id, f"ls {UPLOADS}/d") != "late.txt"
    refused(404, lambda: resources.retrieve(added.id, session_id=session.id), kind="not_found_error")
    again = resources.add(session.id, type="file", file_id=upload(cast, b"again"), mount_path="/d")
    assert says(cast, session.id, f"cat {UPLOADS}/d") == "again"
    assert [str(resource.id) for resource in resources.list(session.id)] == [again.id]  # type: ignore[union-attr]


def test_what_was_added_while_no_sandbox_was_there_is_in_it_later(cast: Cast) -> None:
    session = cast.session()
    added = cast.client.beta.sessions.resources.add(session.id, type="file", file_id=upload(cast, b"first"))
    assert says(cast, session.id, f"cat {added.mount_path}") == "first"


def test_files_outlive_a_crash_of_the_server_and_the_loss_of_the_sandbox() -> None:
    with served("local") as site:
        with site.client() as client:
            cast = Cast(client, tools=[TOOLSET])
            given = [{"type": "file", "file_id": upload(cast, b"kept"), "mount_path": "f"}]
            session = cast.rested(call(bash("true")), {"say": "ok"}, resources=given)
        site.kill()
        site.restart()
        with site.client() as client:
            cast.client = client
            assert says(cast, session.id, f"cat {UPLOADS}/f") == "kept"
        site.stop()
        asyncio.run(lose_sandboxes(site))
        site.restart()
        with site.client() as client:
            cast.client = client
            assert says(cast, session.id, f"cat {UPLOADS}/f; ls /workspace").endswith("kept")


async def lose_sandboxes(site: Site) -> None:
    """Take every sandbox away behind the server's back."""
    async with LocalBackend(site.machine.folder) as backend:
        for ref in await backend.list():
            await backend.destroy(ref)


def test_resources_are_listed_page_by_page(cast: Cast) -> None:
    given = [{"type": "file", "file_id": upload(cast, b"x"), "mount_path": f"{n}"} for n in range(5)]
    session = cast.session(resources=given)
    resources = cast.client.beta.sessions.resources
    everything = resources.list(session.id)
    assert len(everything.data) == 5 and everything.next_page is None
    paged = [resource.id for resource in resources.list(session.id, limit=2)]  # type: ignore[union-attr]
    assert paged == [resource.id for resource in everything.data]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ([{"type": "memory_store", "memory_store_id": "memstore_1"}], "memory_store"),
        ([{"type": "folder"}], "type"),
        ([{"type": "file"}], "file_id"),
        ([{"type": "file", "file_id": "x", "mount_path": "../x"}], "mount_path"),
        ([{"type": "file", "file_id": "x", "mount_path": "/"}], "mount_path"),
        ([{"type": "file", "file_id": "x", "mount_path": ".skiff/x"}], "mount_path"),
        ([{"type": "file", "file_id": "x", "color": "red"}], "color"),
        ([{"type": "file", "file_id": name, "mount_path": path} for name, path in (("x", "a"), ("y", "a/b"))], "a/b"),
        ([repository("https://github.com/o/r.git")], ".git"),
        ([repository("http://github.com/o/r")], "url"),
        ([repository("https://github.com/o")], "url"),
        ([repository("https://me:pw@github.com/o/r")], "url"),
        ([repository("https://elsewhere.example/o/r")], "elsewhere.example"),
        ([repository("https://github.com/o/..")], "url"),
        ([repository(mount_path="/etc/r")], "/workspace"),
        ([repository(mount_path="/workspace/../etc")], "mount_path"),
        ([repository(checkout={"type": "tag", "name": "x"})], "checkout"),
        ([repository(checkout={"type": "branch", "name": "--upload-pack=x"})], "checkout.name"),
        ([repository(checkout={"type": "commit", "sha": "abc"})], "checkout.sha"),
        ([repository(authorization_token="a b")], "authorization_token"),
        ([repository(), repository()], "same"),
        ("x", "resources"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_resource_is_said(cast: Cast, given: Any, word: str) -> None:
    error = refused(400, lambda: cast.session(resources=given), word)
    assert TOKEN not in error["message"]


def test_a_file_that_is_not_there_is_not_found(cast: Cast) -> None:
    given = [{"type": "file", "file_id": "file_none"}]
    refused(404, lambda: cast.session(resources=given), "file_none", kind="not_found_error")


def test_too_many_files_are_refused(cast: Cast) -> None:
    one = upload(cast, b"x")
    given = [{"type": "file", "file_id": one, "mount_path": f"{n}"} for n in range(501)]
    refused(400, lambda: cast.session(resources=given), "500")


def test_only_files_are_added_and_deleted_and_only_tokens_updated(cast: Cast) -> None:
    session = cast.session(resources=[repository(), {"type": "file", "file_id": upload(cast, b"x")}])
    resources = cast.client.beta.sessions.resources
    repo, file = (str(resource.id) for resource in session.resources)  # type: ignore[union-attr]
    added = {"extra_body": repository(mount_path="/workspace/b")}
    refused(400, lambda: resources.add(session.id, type="file", file_id="x", **added), "created")  # type: ignore[arg-type]
    refused(400, lambda: resources.delete(repo, session_id=session.id), "github_repository")
    refused(400, lambda: resources.update(file, session_id=session.id, authorization_token="t"), "github_repository")
    refused(400, lambda: resources.update(repo, session_id=session.id, authorization_token=""), "authorization_token")
    same = {"type": "file", "file_id": upload(cast, b"x"), "mount_path": "p"}
    resources.add(session.id, **same)  # type: ignore[arg-type]
    refused(400, lambda: resources.add(session.id, **same), "taken")  # type: ignore[arg-type]
    cast.client.beta.sessions.archive(session.id)
    refused(409, lambda: resources.add(session.id, **same), "archived", retry="false")  # type: ignore[arg-type]


# --- repositories ----------------------------------------------------------------------------------------------------


def test_a_repository_is_checked_out_with_its_history_and_belongs_to_the_agent(own: Site, cast: Cast) -> None:
    session = cast.session(resources=[repository()])
    with own.http() as http:
        shown = http.get(f"/v1/sessions/{session.id}/resources/{session.resources[0].id}")  # type: ignore[union-attr]
    assert judged(BetaManagedAgentsGitHubRepositoryResource, shown.text).mount_path == "/workspace/public"
    look = "cd public && cat README && git branch --show-current && git remote get-url origin && git status --short"
    assert says(cast, session.id, look) == "hello" + "main\nhttps://github.com/o/public"
    assert says(cast, session.id, "cd /workspace/public && echo x > new && git add new && ls -A") != ""
    assert says(cast, session.id, f"ls -A {UPLOADS}; ls -A /workspace").split() == [".home", "public"]
    assert errors(cast, session.id) == []


def test_a_branch_or_a_commit_can_be_asked_for(cast: Cast, host: GitHost) -> None:
    sha = host.repository("o/history", {"f": "first"})
    host.repository("o/history", {"f": "second"}, branch="next")
    url = "https://github.com/o/history"
    session = cast.session(
        resources=[
            repository(url, checkout={"type": "commit", "sha": sha}, mount_path="/workspace/old"),
            repository(url, checkout={"type": "branch", "name": "next"}, mount_path="/workspace/deep/new"),
            repository(checkout={"type": "branch", "name": "feature/x"}),
        ]
    )
    look = "cat old/f deep/new/f public/README; git -C old rev-parse HEAD; git -C public branch --show-current"
    assert says(cast, session.id, look) == f"firstsecondother{sha}\nfeature/x"


def test_the_credential_fetches_and_is_nowhere_else(own: Site, cast: Cast) -> None:
    url = "https://github.com/private/secret"
    session = cast.session(resources=[repository(url, authorization_token=TOKEN)])
    assert TOKEN not in session.to_json()
    hunt = f"cat secret/README; grep -rc -m1 '{TOKEN[:12]}[_]' /workspace /tmp /mnt /proc/*/environ /proc/*/cmdline"
    found = says(cast, session.id, f"{hunt} 2>/dev/null | grep -v ':0$'; env | grep -c '{TOKEN[:12]}[_]'; true")
    assert found == "secret0"
    with own.http() as http:
        everything = [
            http.get(f"/v1/sessions/{session.id}{path}", params={"limit": 1000}).text
            for path in ("/events", "/resources")
        ]
    assert not any(TOKEN in text for text in [*everything, *own.said])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (repository("https://github.com/private/secret"), "repository_authentication_error"),
        (repository("https://github.com/private/a", authorization_token="wrong"), "repository_authentication_error"),
        (repository("https://github.com/closed/r"), "repository_forbidden_error"),
        (repository("https://github.com/o/none"), "repository_not_found_error"),
        (repository(checkout={"type": "branch", "name": "none"}), "repository_checkout_error"),
        (repository(checkout={"type": "commit", "sha": "0" * 40}), "repository_checkout_error"),
        (repository("https://gone.example/o/r"), "repository_clone_error"),
    ],
)  # fmt: skip
def test_a_repository_that_cannot_be_fetched_is_said_and_the_session_goes_on(
    cast: Cast, given: dict[str, Any], kind: str
) -> None:
    session = cast.session(resources=[given])
    assert "wrong" not in says(cast, session.id, "ls -A; env")
    (error,) = errors(cast, session.id)
    assert (error.type, error.retry_status.type, error.repository_url) == (kind, "retrying", given["url"])
    assert "wrong" not in error.message
    assert cast.client.beta.sessions.retrieve(session.id).status == "idle"


def test_a_new_credential_fetches_what_could_not_be_fetched(cast: Cast) -> None:
    session = cast.session(resources=[repository("https://github.com/private/secret")])
    says(cast, session.id, "true")
    (error,) = errors(cast, session.id)
    assert error.type == "repository_authentication_error"
    (resource,) = session.resources
    rotated = cast.client.beta.sessions.resources.update(
        str(resource.id),  # type: ignore[union-attr]
        session_id=session.id,
        authorization_token=TOKEN,
    )
    assert TOKEN not in rotated.to_json()
    assert says(cast, session.id, "cat /workspace/secret/README") == "secret"
    assert len(errors(cast, session.id)) == 1


def test_a_repository_over_the_bound_is_said(host: GitHost) -> None:
    host.repository("o/big", {"f": "".join(f"{n * 7919 % 1_000_003}" for n in range(600_000))})
    with served("local", git_hosts=json.dumps({"github.com": host.url}), git_mb=1) as site, site.client() as client:
        cast = Cast(client, tools=[TOOLSET])
        session = cast.session(resources=[repository("https://github.com/o/big")])
        says(cast, session.id, "true")
        (error,) = errors(cast, session.id)
        assert error.type == "repository_clone_error" and "1 MB" in error.message


# --- everywhere ------------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_a_container_is_given_files_and_repositories_and_hands_out_what_it_makes(host: GitHost) -> None:
    require("docker")
    with served("docker", git_hosts=json.dumps({"github.com": host.url}), pool=0) as site, site.client() as client:
        cast = Cast(client, tools=[TOOLSET])
        given = [
            {"type": "file", "file_id": upload(cast, b"in"), "mount_path": "in.txt"},
            repository("https://github.com/private/secret", authorization_token=TOKEN),
        ]
        session = cast.session(resources=given)
        made = f"cat {UPLOADS}/in.txt secret/README | tee /mnt/session/outputs/out.txt; ls -A {UPLOADS}"
        assert says(cast, session.id, made) == "insecretin.txt"
        (file,) = (file for file in client.beta.files.list(scope_id=session.id, betas=[BETA]) if file.downloadable)
        assert client.beta.files.download(file.id).read() == b"insecret"
        client.beta.sessions.delete(session.id)


def test_a_door_beside_the_engine_gives_and_hands_out_too() -> None:
    with served("local") as engine:
        process, url = start_beside(engine)
        try:
            with engine.client() as client, engine.client(base_url=url) as beside:
                cast = Cast(client, tools=[TOOLSET])
                session = cast.rested(call(bash("echo made > /mnt/session/outputs/f")), {"say": "ok"})
                other = Cast(beside, tools=[TOOLSET])
                added = beside.beta.sessions.resources.add(session.id, type="file", file_id=upload(other, b"late"))
                (file,) = (f for f in beside.beta.files.list(scope_id=session.id, betas=[BETA]) if f.downloadable)
                assert beside.beta.files.download(file.id).read() == b"made\n"
                assert says(other, session.id, f"cat {added.mount_path}") == "late"
                beside.beta.files.delete(file.id)
                assert says(other, session.id, "ls /mnt/session/outputs | wc -l") == "0"
        finally:
            process.terminate()
            process.wait(60)


def start_beside(site: Site) -> tuple[subprocess.Popen[str], str]:
    """One more server on the folder of a running one, which stays the engine."""
    before = (site.process, site.url)
    site.restart()
    beside = (site.process, site.url)
    site.process, site.url = before
    return beside


# --- a sandbox that was put away -------------------------------------------------------------------------------------


def test_files_are_brought_again_with_a_sandbox_that_was_put_away_and_a_repository_comes_with_it(host: GitHost) -> None:
    settings: dict[str, Any] = {
        "git_hosts": json.dumps({"github.com": host.url}),
        "stop_after": 1,
        "checkpoint_after": 1,
    }
    with served("local", **settings) as site, site.client() as client:
        cast = Cast(client, tools=[TOOLSET])
        given = [{"type": "file", "file_id": upload(cast, b"given"), "mount_path": "in.txt"}, repository()]
        session = cast.session(resources=given)
        assert says(cast, session.id, "cd public && echo changed > README && git status --short") == "M README"
        fetched = len(host.asked)
        for _ in range(600):
            if [path for path in (site.machine.folder / "archives").glob("*") if not path.name.endswith(".part")]:
                break
            time.sleep(0.1)
        seen = says(cast, session.id, f"cat {UPLOADS}/in.txt; cd public && git status --short")
        assert seen == "given M README"
        assert errors(cast, session.id) == [] and len(host.asked) == fetched
        cast.client.beta.sessions.delete(session.id)
