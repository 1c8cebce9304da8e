"""Files over REST: uploads that come and go, and what sessions hand out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic.types.beta import BetaDeletedFile, BetaFileMetadata

from tests.support.cast import TOOLSET, Cast, told
from tests.support.judged import judged, refused
from tests.support.scenario import bash, call
from tests.support.served import BETA, Site, served

OUTPUTS = "/mnt/session/outputs"


@pytest.fixture(scope="module")
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client, tools=[TOOLSET])


def blobs(site: Site) -> list[Path]:
    """What lies in the server's folder of files."""
    return sorted((site.machine.folder / "files").glob("*"))


def outputs(cast: Cast, session_id: str) -> dict[str, BetaFileMetadata]:
    """The outputs of a session, by name."""
    listed = cast.client.beta.files.list(scope_id=session_id, betas=[BETA])
    return {file.filename: file for file in listed if file.downloadable}


# --- uploads ---------------------------------------------------------------------------------------------------------


def test_an_upload_is_kept_under_its_last_name_and_its_type(site: Site, cast: Cast) -> None:
    with site.http(anthropic_beta="") as http:
        answer = http.post("/v1/files", files={"file": ("..\\up/data.csv", b"x,y\n", "text/csv; charset=utf-8")})
    made = judged(BetaFileMetadata, answer.text)
    assert (made.filename, made.mime_type, made.size_bytes) == ("data.csv", "text/csv", 4)
    assert (made.downloadable, made.expires_at, made.scope) == (False, None, None)
    assert cast.client.beta.files.retrieve_metadata(made.id) == made


@pytest.mark.parametrize(
    ("given", "name", "mime_type"),
    [
        (("", b"x", "text/csv"), "unnamed.csv", "text/csv"),
        (("a/b/", b"x", "application/pdf"), "unnamed.pdf", "application/pdf"),
        (("notes.txt", b""), "notes.txt", "text/plain"),
        (("strange", b"x", "no type"), "strange", "application/octet-stream"),
    ],
)
def test_a_missing_name_or_type_is_made_up(
    site: Site, given: tuple[str, bytes, str], name: str, mime_type: str
) -> None:
    disposition = f'form-data; name="file"; filename="{given[0]}"'
    kind = f"Content-Type: {given[2]}\r\n" if len(given) > 2 else ""
    body = f"--b\r\nContent-Disposition: {disposition}\r\n{kind}\r\n{given[1].decode()}\r\n--b--\r\n"
    with site.http(content_type="multipart/form-data; boundary=b") as http:
        made = judged(BetaFileMetadata, http.post("/v1/files", content=body.encode()).text)
    assert (made.filename, made.mime_type) == (name, mime_type)


def test_a_large_upload_goes_through_the_disk_whole(cast: Cast) -> None:
    content = bytes(range(256)) * 40_000
    made = cast.client.beta.files.upload(file=("big.bin", content))
    assert made.size_bytes == len(content)
    session = cast.rested(
        call(bash("sha256sum < /mnt/session/uploads/big | tee /mnt/session/outputs/sum")),
        {"say": "ok"},
        resources=[{"type": "file", "file_id": made.id, "mount_path": "big"}],
    )
    import hashlib

    said = cast.client.beta.files.download(outputs(cast, session.id)["sum"].id).read()
    assert said.decode().split()[0] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("seconds", [3_599, 7_776_001, -1])
def test_an_expiry_outside_its_bounds_is_refused_and_leaves_nothing(site: Site, cast: Cast, seconds: int) -> None:
    before = blobs(site)
    refused(
        400, lambda: cast.client.beta.files.upload(file=("a", b"x"), expires_in_seconds=seconds), "expires_in_seconds"
    )
    assert blobs(site) == before


def test_an_expiry_is_shown(cast: Cast) -> None:
    made = cast.client.beta.files.upload(file=("a", b"x"), expires_in_seconds=3_600)
    assert made.expires_at is not None
    assert (made.expires_at - made.created_at).total_seconds() == 3_600


def test_an_expired_upload_says_so_and_its_bytes_are_gone(site: Site, cast: Cast) -> None:
    import sqlite3

    before = len(blobs(site))
    made = cast.client.beta.files.upload(file=("a", b"x"), expires_in_seconds=3_600)
    with sqlite3.connect(site.machine.folder / "skiff.db") as database:
        database.execute("UPDATE files SET expires_at = '2020-01-01T00:00:00.000000Z' WHERE id = ?", (made.id,))
    with pytest.raises(anthropic.NotFoundError) as caught:
        cast.client.beta.files.download(made.id)
    assert caught.value.body["error"]["details"]["error_code"] == "file_expired"  # type: ignore[index]
    given = [{"type": "file", "file_id": made.id}]
    assert refused(404, lambda: cast.session(resources=given), "expired", kind="not_found_error")["details"]
    cast.client.beta.files.delete(cast.client.beta.files.upload(file=("b", b"y")).id)
    assert len(blobs(site)) == before


def test_an_upload_cannot_be_downloaded(cast: Cast) -> None:
    made = cast.client.beta.files.upload(file=("a", b"x"))
    error = refused(400, lambda: cast.client.beta.files.download(made.id), "uploaded")
    assert error["details"] == {"error_code": "file_not_downloadable"}


def test_a_deleted_file_is_gone_with_its_bytes(site: Site, cast: Cast) -> None:
    before = blobs(site)
    made = cast.client.beta.files.upload(file=("a", b"x"))
    (blob,) = set(blobs(site)) - set(before)
    assert blob.stat().st_mode & 0o777 == 0o600 and blob.parent.stat().st_mode & 0o777 == 0o700
    with site.http() as http:
        judged(BetaDeletedFile, http.delete(f"/v1/files/{made.id}").text)
    for act in (
        cast.client.beta.files.retrieve_metadata,
        cast.client.beta.files.download,
        cast.client.beta.files.delete,
    ):
        refused(404, lambda act=act: act(made.id), made.id, kind="not_found_error")
    assert blobs(site) == before


def test_files_are_listed_newest_first_page_by_page_and_by_id(site: Site, cast: Cast) -> None:
    ids = [cast.client.beta.files.upload(file=(f"{n}", b"x")).id for n in range(5)]
    listed = [file.id for file in cast.client.beta.files.list(limit=2)]
    assert listed[:5] == ids[::-1] and len(listed) == len(set(listed))
    with site.http(anthropic_beta="") as http:
        first = http.get("/v1/files", params={"limit": 2}).json()
        assert first["next_page"].startswith("page_")
        for limit in ("0", "1001", "x"):
            assert http.get("/v1/files", params={"limit": limit}).status_code == 400
    named = cast.client.beta.files.list(ids=[ids[1], "file_none", ids[0], ids[1]])
    assert [file.id for file in named.data] == [ids[1], ids[0]] and named.next_page is None
    refused(400, lambda: cast.client.beta.files.list(ids=[ids[0]], limit=3), "limit")
    refused(400, lambda: cast.client.beta.files.list(ids=[f"file_{n}" for n in range(101)]), "100")
    refused(400, lambda: cast.client.beta.files.list(scope_id="sesn_x"), "scope_id")
    assert cast.client.beta.files.list(scope_id="sesn_x", betas=[BETA]).data == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        b"--b\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ntorn',
        b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n' * 2 + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + b"y" * 70_000 + b"\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: " + b"x" * 5_000 + b"\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 20 + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nx\r\n--b--\r\n',
    ],
)
def test_a_broken_form_is_refused_and_leaves_nothing(site: Site, body: bytes) -> None:
    before = blobs(site)
    with site.http(content_type="multipart/form-data; boundary=b") as http:
        answer = http.post("/v1/files", content=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), answer.text
    assert blobs(site) == before


def test_what_is_no_form_is_refused(site: Site) -> None:
    with site.http() as http:
        assert http.post("/v1/files", json={"file": "x"}).status_code == 400


def test_an_upload_over_the_bound_is_refused_and_leaves_nothing() -> None:
    with served("local", max_file_mb=1) as site, site.client() as client:
        refused(413, lambda: client.beta.files.upload(file=("a", bytes(1_000_001))), kind="request_too_large")
        refused(413, lambda: client.beta.files.upload(file=("a", bytes(3_000_000))), kind="request_too_large")
        assert client.beta.files.upload(file=("a", bytes(1_000_000))).size_bytes == 1_000_000
        assert len(blobs(site)) == 1


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_what_a_session_writes_to_its_outputs_is_listed_and_downloaded(cast: Cast) -> None:
    write = f"mkdir -p {OUTPUTS}/charts && printf 'a,b' > {OUTPUTS}/r.csv && printf hello > {OUTPUTS}/charts/c.txt"
    session = cast.rested(call(bash(write)), {"say": "done"})
    found = outputs(cast, session.id)
    assert {name: file.size_bytes for name, file in found.items()} == {"r.csv": 3, "charts/c.txt": 5}
    assert found["r.csv"].mime_type == "text/csv" and found["r.csv"].scope is not None
    assert found["r.csv"].scope.id == session.id
    assert cast.client.beta.files.download(found["r.csv"].id).read() == b"a,b"
    assert cast.client.beta.files.download(found["charts/c.txt"].id).read() == b"hello"


def test_an_output_keeps_its_id_when_it_is_overwritten_and_loses_it_when_it_goes(cast: Cast) -> None:
    session = cast.rested(call(bash(f"echo one > {OUTPUTS}/f; echo x > {OUTPUTS}/g")), {"say": "done"})
    before = outputs(cast, session.id)
    cast.turn(session.id, told(call(bash(f"echo longer > {OUTPUTS}/f; rm {OUTPUTS}/g")), {"say": "done"}))
    now = cast.client.beta.files.retrieve_metadata(before["f"].id)
    assert (now.size_bytes, now.created_at > before["f"].created_at) == (7, True)
    assert cast.client.beta.files.download(now.id).read() == b"longer\n"
    assert outputs(cast, session.id) == {"f": now}
    refused(404, lambda: cast.client.beta.files.retrieve_metadata(before["g"].id), kind="not_found_error")


def test_an_output_larger_than_a_portion_arrives_whole(cast: Cast) -> None:
    session = cast.rested(call(bash(f"seq 1 500000 > {OUTPUTS}/numbers")), {"say": "done"})
    (file,) = outputs(cast, session.id).values()
    content = cast.client.beta.files.download(file.id).read()
    assert content == b"".join(b"%d\n" % n for n in range(1, 500_001))


def test_an_output_can_be_deleted_and_links_are_none(cast: Cast) -> None:
    session = cast.rested(call(bash(f"echo x > {OUTPUTS}/f; ln -s /etc/passwd {OUTPUTS}/p")), {"say": "done"})
    (file,) = outputs(cast, session.id).values()
    cast.client.beta.files.delete(file.id)
    assert outputs(cast, session.id) == {}
    cast.turn(session.id, told(call(bash(f"ls {OUTPUTS}")), {"say": "done"}))
    (result,) = [e for e in list(cast.events.list(session.id))[-12:] if e.type == "agent.tool_result"]
    assert result.content[0].text.split() == ["p"]


def test_a_session_without_a_sandbox_has_no_outputs_and_a_deleted_one_no_files(cast: Cast) -> None:
    assert outputs(cast, cast.session().id) == {}
    session = cast.rested(call(bash(f"echo x > {OUTPUTS}/f")), {"say": "done"})
    (file,) = outputs(cast, session.id).values()
    cast.client.beta.sessions.delete(session.id)
    refused(404, lambda: cast.client.beta.files.download(file.id), kind="not_found_error")
    assert cast.client.beta.files.list(scope_id=session.id, betas=[BETA]).data == []


def test_outputs_survive_a_restart_of_the_server() -> None:
    with served("local") as site:
        with site.client() as client:
            cast = Cast(client, tools=[TOOLSET])
            session = cast.rested(call(bash(f"echo kept > {OUTPUTS}/f")), {"say": "done"})
            (file,) = outputs(cast, session.id).values()
        site.kill()
        site.restart()
        with site.client() as client:
            assert client.beta.files.download(file.id).read() == b"kept\n"
