"""A session's files as one stream, and back: a tar under gzip, which any tar can read.

    python3 -I -S .../runner --pack      writes the archive to stdout
    python3 -I -S .../runner --unpack    reads it from stdin, as `wire.PORTION` says, into empty folders

Above: a backend, which runs it in a sandbox of its own, with nobody beside it, on the folders of one that was stopped.
Below: tarfile's headers, the kernel. Packing only reads, and may be run with more rights than the agent has: an agent
can make files that it cannot read itself. Unpacking runs as the agent: an archive can do no more than it.

Kept: names of any bytes, contents with their holes, modes, times, symbolic and hard links, empty folders, FIFOs. Left
out: sockets, for nobody listens any more. Not kept: extended attributes. Both walk by `chdir`, one folder at a time: a
tree may be deeper than a path can be long.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tarfile
import zlib
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from sandbox import wire

ROOTS = {"workspace": "/workspace", "outputs": wire.OUTPUTS}
"""The first component of every name in the archive, and the folder that it stands for."""
LEVEL = 1
"""Of zlib, which every Python has: a tree of Python packages to a third of its size; level 6 took twice as long for a
seventh less, `xz -0` eight times as long for a quarter less. zstd, five times as fast, is in no old Python."""
PORTION = 1 << 20
MAX_LINK = 3000
"""Bytes of a path that a hard link may point to; the kernel takes 4,096. What lies deeper is packed as a file again."""
MAX_SPARSE = 8 << 30
"""Bytes of data in a file whose holes are kept: above, tar's size field and its map of holes exclude each other."""
OWNER = stat.S_IRWXU


class Broken(Exception):
    """The archive is no whole one. The text says why."""


def main(verb: str) -> int:
    """Run as a program: the exit code."""
    try:
        if verb == "--pack":
            pack(ROOTS, 1)
        else:
            unpack(ROOTS, 0)
    except (Broken, OSError, MemoryError, tarfile.TarError, zlib.error) as error:
        sys.stderr.write(f"{verb[2:]}: {type(error).__name__}: {error}\n")
        return 1
    return 0


# --- packing ---------------------------------------------------------------------------------------------------------


def pack(roots: Dict[str, str], target: int) -> None:
    """Write everything below `roots` to the descriptor `target`."""
    out = _Deflated(target)
    links: Dict[Tuple[int, int], str] = {}
    for label, folder in roots.items():
        os.chdir(folder)
        _add(out, ".", label, os.lstat("."), links)
        _pack_folder(out, label, links)
    out.finish()


def _pack_folder(out: _Deflated, label: str, links: Dict[Tuple[int, int], str]) -> None:
    """Add what is below the working folder, whose name in the archive is `label`. Comes back to it."""
    path, left = [label], [_names()]
    while left:
        if not left[-1]:
            left.pop()
            path.pop()
            if left:
                os.chdir("..")
            continue
        name = left[-1].pop()
        info = os.lstat(name)
        full = "/".join((*path, name.decode("utf-8", "surrogateescape")))
        _add(out, name, full, info, links)
        if stat.S_ISDIR(info.st_mode):
            os.chdir(name)
            path.append(name.decode("utf-8", "surrogateescape"))
            left.append(_names())


def _names() -> List[bytes]:
    """The names in the working folder, the first at the end."""
    return sorted(os.listdir(b"."), reverse=True)


def _add(out: _Deflated, name: Any, full: str, info: os.stat_result, links: Dict[Tuple[int, int], str]) -> None:
    entry = _entry(full, info)
    inode = (info.st_dev, info.st_ino)
    if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
        if inode in links:
            entry.type, entry.linkname = tarfile.LNKTYPE, links[inode]
            out.header(entry)
            return
        if len(os.fsencode(full)) < MAX_LINK:
            links[inode] = full
    if stat.S_ISREG(info.st_mode):
        _add_file(out, name, entry)
        return
    if stat.S_ISLNK(info.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name).decode("utf-8", "surrogateescape")
    elif stat.S_ISDIR(info.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISFIFO(info.st_mode):
        entry.type = tarfile.FIFOTYPE
    else:
        return
    out.header(entry)


def _entry(full: str, info: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(full)
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    entry.mtime = int(info.st_mtime)
    entry.pax_headers = {"mtime": "%d.%09d" % divmod(info.st_mtime_ns, 10**9)} if info.st_mtime_ns >= 0 else {}
    return entry


def _add_file(out: _Deflated, name: bytes, entry: tarfile.TarInfo) -> None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        size = os.fstat(file).st_size
        parts = list(_data(file, size))
        held = sum(length for _, length in parts)
        if held == size or held >= MAX_SPARSE:
            parts, entry.size, table = [(0, size)], size, b""
        else:
            parts.append((size, 0))  # GNU tar takes the end of the last part for the end of the file
            table = _table(parts)
            entry.size = len(table) + held
            entry.pax_headers = {
                **entry.pax_headers,
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": entry.name,
                "GNU.sparse.realsize": str(size),
            }
        out.header(entry)
        out.write(table)
        for offset, length in parts:
            _copy(out, file, offset, length)
        out.write(bytes(-entry.size % tarfile.BLOCKSIZE))
    finally:
        os.close(file)


def _data(file: int, size: int) -> Iterator[Tuple[int, int]]:
    """(offset, length) of what is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = min(size, os.lseek(file, start, os.SEEK_HOLE))
        yield start, end - start


def _table(parts: List[Tuple[int, int]]) -> bytes:
    """GNU tar's map of what is no hole, version 1.0: decimal lines, filled up to a block."""
    numbers = [len(parts), *(number for part in parts for number in part)]
    text = "".join("%d\n" % number for number in numbers).encode()
    return text + bytes(-len(text) % tarfile.BLOCKSIZE)


def _copy(out: _Deflated, file: int, offset: int, length: int) -> None:
    while length:
        portion = os.pread(file, min(PORTION, length), offset)
        if not portion:
            raise Broken("a file became shorter while it was read")
        out.write(portion)
        offset, length = offset + len(portion), length - len(portion)


class _Deflated:
    """The archive on its way out."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._gzip = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)

    def header(self, entry: tarfile.TarInfo) -> None:
        self.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def write(self, data: bytes) -> None:
        self._send(self._gzip.compress(data))

    def finish(self) -> None:
        self.write(bytes(2 * tarfile.BLOCKSIZE))
        self._send(self._gzip.flush())

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._target, left) :]


# --- unpacking -------------------------------------------------------------------------------------------------------


class _Folder(NamedTuple):
    """A folder that is being filled: it gets its mode and times when nothing more comes into it."""

    path: bytes
    mode: int
    times: Tuple[int, int]


def unpack(roots: Dict[str, str], source: int) -> None:
    """Fill the folders of `roots`, which are empty, from the descriptor `source`. Raises Broken for half an archive."""
    inflated: Any = _Inflated(source)
    way = _Way(roots)
    filling: List[_Folder] = []
    closed: List[_Folder] = []
    with tarfile.open(fileobj=inflated, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
        for entry in archive:
            vars(archive)["members"] = []  # or it would remember every one
            path = _path(entry.name, roots)
            while filling and not path.startswith(filling[-1].path + b"/"):
                _leave(filling.pop(), way, closed)
            if entry.isdir():
                if b"/" in path:
                    os.mkdir(way.beside(path), OWNER)
                filling.append(_Folder(path, entry.mode, _times(entry)))
            else:
                _make(archive, entry, way.beside(path), way)
    inflated.finish()
    while filling:
        _leave(filling.pop(), way, closed)
    for folder in closed:  # children before parents
        os.chmod(way.beside(folder.path), folder.mode)


def _path(name: str, roots: Dict[str, str]) -> bytes:
    label, *below = name.split("/")
    if label not in roots or not all(part not in ("", ".", "..") for part in below):
        raise Broken("%.200r is no name of ours" % name)
    return _raw(name)


def _leave(folder: _Folder, way: _Way, closed: List[_Folder]) -> None:
    """Nothing more comes into this folder. One that its owner may not enter stays open until the end: what lies in it
    may have more links."""
    name = way.beside(folder.path)
    if folder.mode & OWNER == OWNER:
        os.chmod(name, folder.mode)
    else:
        closed.append(folder)
    os.utime(name, ns=folder.times)


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, name: bytes, way: _Way) -> None:
    """Make what is no folder, in the working folder."""
    if entry.isreg():
        _make_file(archive, entry, name)
    elif entry.issym():
        os.symlink(_raw(entry.linkname), name)
        os.utime(name, ns=_times(entry), follow_symlinks=False)
    elif entry.islnk():
        label, _, below = entry.linkname.partition("/")
        os.link(_raw(below), name, src_dir_fd=way.top(label), follow_symlinks=False)
    elif entry.isfifo():
        os.mkfifo(name, 0o600)
        os.chmod(name, entry.mode)
        os.utime(name, ns=_times(entry))
    else:
        raise Broken(f"{entry.name!r:.200} is of a kind that is not kept")


def _make_file(archive: tarfile.TarFile, entry: tarfile.TarInfo, name: bytes) -> None:
    content = archive.fileobj
    assert content is not None
    sparse: Optional[List[Tuple[int, int]]] = getattr(entry, "sparse", None)
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        for offset, length in sparse if sparse is not None else [(0, entry.size)]:
            while length:
                portion = content.read(min(PORTION, length))
                if not portion:
                    raise Broken("it ends within a file")
                _write_at(file, portion, offset)
                offset, length = offset + len(portion), length - len(portion)
        os.ftruncate(file, entry.size)
        os.fchmod(file, entry.mode)
        os.utime(file, ns=_times(entry))
    finally:
        os.close(file)


def _write_at(file: int, portion: bytes, offset: int) -> None:
    left = memoryview(portion)
    while left:
        done = os.pwrite(file, left, offset)
        left, offset = left[done:], offset + done


def _times(entry: tarfile.TarInfo) -> Tuple[int, int]:
    seconds, _, fraction = str(entry.pax_headers.get("mtime", entry.mtime)).partition(".")
    at = int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0") or 0)
    return at, at


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


class _Way:
    """Where the program stands: it goes from folder to folder by single steps."""

    def __init__(self, roots: Dict[str, str]) -> None:
        self._tops = {label: os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for label, folder in roots.items()}
        self._at: List[bytes] = []

    def top(self, label: str) -> int:
        """The descriptor of a root."""
        if label not in self._tops:
            raise Broken("%.200r is no place for a link to lead to" % label)
        return self._tops[label]

    def beside(self, path: bytes) -> bytes:
        """Stand in the folder that holds what has this path, and return its name there; of a root, in it.

        Raises Broken for a way through something that is no folder.
        """
        parts = path.split(b"/")
        self._go(parts[:-1] or parts)
        return parts[-1] if len(parts) > 1 else b"."

    def _go(self, parts: List[bytes]) -> None:
        if self._at[:1] != parts[:1]:
            os.fchdir(self.top(parts[0].decode()))
            self._at = parts[:1]
        common = 0
        while common < min(len(self._at), len(parts)) and self._at[common] == parts[common]:
            common += 1
        for _ in self._at[common:]:
            os.chdir("..")
        for name in parts[common:]:
            if not stat.S_ISDIR(os.lstat(name).st_mode):
                raise Broken("%.200r is no folder" % name)
            os.chdir(name)
        self._at = parts


class _Inflated:
    """The archive on its way in, as the file that tarfile reads."""

    def __init__(self, source: int) -> None:
        self._source = source
        self._left = 0
        self._gzip = zlib.decompressobj(31)
        self._ready = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises Broken when the stream is cut."""
        while not self._ready and not self._gzip.eof:
            self._ready = self._gzip.decompress(self._gzip.unconsumed_tail or self._packed(), PORTION)
        portion, self._ready = self._ready[:size], self._ready[size:]
        return portion

    def _packed(self) -> bytes:
        if not self._left:
            head = b""
            while len(head) < wire.PORTION.size:
                head += self._take(wire.PORTION.size - len(head))
            (self._left,) = wire.PORTION.unpack(head)
        portion = self._take(min(self._left, PORTION)) if self._left else b""
        self._left -= len(portion)
        if not portion:
            raise Broken("it is cut off")
        return portion

    def _take(self, size: int) -> bytes:
        taken = os.read(self._source, size)
        if not taken:
            raise Broken("whoever sent it is gone")
        return taken

    def finish(self) -> None:
        """Read to the end, so that the checksum is looked at."""
        while self.read(PORTION):
            pass
