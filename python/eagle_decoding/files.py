"""Files and folders that are whole or not there: written under another name, then renamed; logs without torn lines."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class DiskFullError(OSError):
    """A file that was not written because no space is left."""


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary path) and renames what it wrote to `path`; folders are made as needed.

    Raises DiskFullError when the disk is full; then, as after any other failure, nothing of the file stays.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with full_disk_named(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, of this process alone, to fill and then rename; what is left of it goes away.

    Raises DiskFullError when the disk is full.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with full_disk_named(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Raises DiskFullError, which names `path`, for any error that says that no space is left."""
    try:
        yield
    except BaseException as error:
        if is_disk_full(error):
            sentence = f"The disk is full: {path} was not written; make room and run the command again."
            raise DiskFullError(sentence) from None
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """A file of these bytes, whole or not there."""
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: str | Path, text: str) -> None:
    """A text file, whole or not there."""
    write_bytes(path, text.encode())


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that were written to their end; none of a file that is not there."""
    if not path.exists():
        return []
    return [line[:-1] for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def cut_torn_line(path: Path) -> None:
    """Takes away a last line that was not written to its end, so that the next one does not continue it."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def is_disk_full(error: BaseException) -> bool:
    """Whether an OSError, safetensors' own error around one, or ours says that no space is left."""
    said = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC).lower() in str(error).lower()
    return said or isinstance(error, DiskFullError)
