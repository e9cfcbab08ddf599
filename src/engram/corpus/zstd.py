"""Reads zstd files, also those that refer far back (`zstd --long=31`)."""

import io
from pathlib import Path
from typing import Any

LONGEST_WINDOW_BYTES = 1 << 31
"""How far back data may refer: what `--long=31` allows. Memory is taken only as far as a file does."""
_CHUNK_BYTES = 1 << 14


def open_zstd(path: Path) -> io.BufferedReader:
    """The decompressed bytes of a file, of all its frames; reading raises OSError for damaged data and for a file that was cut off."""
    try:
        import zstandard
    except ModuleNotFoundError:
        return io.BufferedReader(_ArrowReader(path), buffer_size=1 << 20)
    return io.BufferedReader(_Reader(path, zstandard), buffer_size=1 << 20)


class _Reader(io.RawIOBase):
    """Frame by frame: the package's own reader does not notice a file that was cut off."""

    def __init__(self, path: Path, zstandard: Any) -> None:
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW_BYTES)
        self._frame: Any = None
        """The frame that has begun and not ended."""
        self._left, self._ready = b"", memoryview(b"")
        self._file = path.open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._left or self._file.read(_CHUNK_BYTES)
            if not data:
                if self._frame is not None:
                    raise OSError("its zstd data was cut off")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except self._error as problem:
                raise OSError(f"its zstd data is damaged ({problem})") from None
            self._left = b""
            if self._frame.eof:
                self._left, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _ArrowReader(io.RawIOBase):
    """Without the package zstandard; Arrow limits how far back data may refer."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._stream = pa.input_stream(str(path), compression="zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except OSError as problem:
            if "too much memory" in str(problem):
                raise OSError("it was made with zstd --long; pip install zstandard, or compress it again without --long") from None
            raise
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
