"""Reading of images by index, and the list of bad images.

Convention: a bad image is returned as zeros with the flag False; it is logged once and
counted.
"""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import csv
import io
import pathlib
import threading

from absl import logging
import numpy as np

from deeprank_jax import errors, files, logs
from deeprank_jax.data import decode
from deeprank_jax.data.records import Records

_MIB = 2**20
# More pieces than threads, so that one thread with large files holds up less.
_PIECES_PER_WORKER = 4


class TooManyBadImagesError(errors.DataError):
    """More records are bad than `config.data.max_bad_share` allows."""


class BadImages:
    """Bad records of a run, each listed once in a log and a CSV file.

    Attributes:
      first: The first bad record and its reason; empty without one.
    """

    def __init__(
        self, path: str | pathlib.Path | None, num_records: int, max_share: float
    ):
        """Creates the list; an existing file is continued.

        Args:
          path: CSV file with the columns `split,record,reason`, or None for no file.
          num_records: Number of records of all splits.
          max_share: Largest share of bad records, in [0, 1].
        """
        self._path = pathlib.Path(path) if path is not None else None
        self._num_records = num_records
        self._max_share = max_share
        self._seen: set[tuple[str, str]] = set()
        self._listed = self._read_listed()
        self._lock = threading.Lock()
        self.first = ""

    @property
    def num_bad(self) -> int:
        """Returns the number of bad records so far."""
        return len(self._seen)

    def add(self, split: str, record: str, reason: str) -> None:
        """Adds a bad record, unless it is listed already.

        Args:
          split: Name of its records.
          record: Description of the record.
          reason: Reason why it cannot be used.

        Raises:
          TooManyBadImagesError: More than `max_share` of the records are bad.
        """
        # Names that are not UTF-8 must not stop the run.
        record = record.encode("utf-8", "backslashreplace").decode("utf-8")
        with self._lock:
            if (split, record) in self._seen:
                return
            self._seen.add((split, record))
            self.first = self.first or f"{record}: {reason}"
            num_bad = len(self._seen)
            logging.warning(
                "%s: %s; skipped, %s of %s so far",
                logs.escaped(record),
                logs.escaped(reason),
                f"{num_bad:,}",
                f"{self._num_records:,}",
            )
            self._write(split, record, reason)
        if num_bad > self._max_share * self._num_records:
            raise TooManyBadImagesError(
                f"{num_bad:,} of {self._num_records:,} records cannot be read, more "
                f"than config.data.max_bad_share={self._max_share:g} allows; repair "
                f"or remove those listed in {self._path or 'the log'}, or raise the "
                "share."
            )

    def _read_listed(self) -> set[tuple[str, str]]:
        """Returns split and record of each row, and mends a file that is damaged.

        A process that was killed may have left half a row, to which the next would be
        joined.
        """
        if self._path is None or not self._path.exists():
            return set()
        text = files.read_text(self._path, errors="replace")
        rows = [row for row in _whole_rows(text) if len(row) == 3]
        mended = io.StringIO(newline="")
        csv.writer(mended).writerows(rows)
        if mended.getvalue().replace("\r\n", "\n") != text:
            files.write_text(self._path, mended.getvalue())
        return {(row[0], row[1]) for row in rows}

    def _write(self, split: str, record: str, reason: str) -> None:
        row = [files.defused(text) for text in (split, record, reason)]
        if self._path is None or (row[0], row[1]) in self._listed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(("split", "record", "reason"))
            writer.writerow(row)


def _whole_rows(text: str) -> Iterator[list[str]]:
    """Yields the rows of a CSV, up to one that cannot be read.

    A quote that is never closed makes a cell of all that follows, which may be longer
    than the module `csv` allows.
    """
    with contextlib.suppress(csv.Error):
        yield from csv.reader(io.StringIO(text))


class ImageReader:
    """Reads, decodes and resizes images in threads; to be closed after use."""

    def __init__(
        self,
        records: Records,
        *,
        image_size: int,
        fit: str = "crop",
        cache_mib: float = 0,
        workers: int = 2,
        max_pixels: int = decode.MAX_PIXELS,
        bad_images: BadImages | None = None,
    ):
        """Creates the reader.

        Args:
          records: Records to read.
          image_size: Side of the square images in pixels.
          fit: Method to make an image square, see `decode.resize_image`.
          cache_mib: Memory for resized images; the first images read fill it and stay.
          workers: Number of threads; 0 reads in the caller's thread.
          max_pixels: Number of pixels above which an image is bad.
          bad_images: List of bad records; None to log them only.

        Raises:
          ValueError: `fit` is unknown.
        """
        decode.check_fit(fit)
        self._records = records
        self._image_size = image_size
        self._fit = fit
        self._max_pixels = max_pixels
        if bad_images is None:
            bad_images = BadImages(None, len(records), max_share=1.0)
        self._bad_images = bad_images
        self._workers = workers
        self._pool = futures.ThreadPoolExecutor(workers) if workers else None
        shape = (image_size, image_size, 3)
        capacity = min(len(records), int(cache_mib * _MIB) // int(np.prod(shape)))
        self._cache = np.empty((capacity, *shape), np.uint8)
        self._slots = np.full(len(records), -1, np.int64)
        self._num_cached = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "ImageReader":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the threads."""
        self.close()

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads some records, each distinct one once.

        Args:
          indices: `[n]` ints, indices in any order, with or without repetitions.

        Returns:
          Images `[n, size, size, 3]` uint8 in new memory, and `[n]` bool, False for
          bad images, which are zeros.

        Raises:
          TooManyBadImagesError: More records are bad than allowed.
        """
        indices = np.asarray(indices, np.int64)
        size = self._image_size
        images = np.empty((len(indices), size, size, 3), np.uint8)
        ok = np.ones(len(indices), bool)
        slots = self._slots[indices]
        cached = slots >= 0
        images[cached] = self._cache[slots[cached]]
        missing = np.flatnonzero(~cached)
        if not len(missing):
            return images, ok
        distinct, inverse = np.unique(indices[missing], return_inverse=True)
        decoded, reasons = self._read_all(distinct)
        images[missing] = decoded[inverse]
        ok[missing] = np.array([reason is None for reason in reasons])[inverse]
        for index, reason in zip(distinct.tolist(), reasons, strict=True):
            if reason is not None:
                describe = self._records.describe
                self._bad_images.add(self._records.name, describe(index), reason)
        return images, ok

    def batches(
        self, batch_size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields records in order, with the last batch padded.

        Args:
          batch_size: Number of records per batch.
          start: Index of the first record.
          stop: Index after the last record; None for the end.

        Yields:
          `images [B, size, size, 3]`, `indices [B]` int64 and `mask [B]`, which is
          False for bad images and padding.
        """
        stop = len(self._records) if stop is None else stop
        for first in range(start, stop, batch_size):
            indices = np.arange(first, min(first + batch_size, stop))
            images, ok = self.load(indices)
            padding = (0, batch_size - len(indices))
            yield {
                "images": np.pad(images, (padding, (0, 0), (0, 0), (0, 0))),
                "indices": np.pad(indices, padding),
                "mask": np.pad(ok, padding),
            }

    def _read_all(self, indices: np.ndarray) -> tuple[np.ndarray, list[str | None]]:
        """Returns the images and, for each, the reason why it is bad, or None."""
        images = np.zeros((len(indices), *self._cache.shape[1:]), np.uint8)
        if self._pool is None:
            return images, self._read_piece(indices, images)
        num_pieces = min(len(indices), self._workers * _PIECES_PER_WORKER)
        pieces = self._pool.map(
            self._read_piece,
            np.array_split(indices, num_pieces),
            np.array_split(images, num_pieces),
        )
        return images, [reason for piece in pieces for reason in piece]

    def _read_piece(self, indices: np.ndarray, images: np.ndarray) -> list[str | None]:
        """Fills `images` in place."""
        return [
            self._read_one(index, image)
            for index, image in zip(indices.tolist(), images, strict=True)
        ]

    def _read_one(self, index: int, out: np.ndarray) -> str | None:
        try:
            data = self._records.read(index)
            image = decode.decode_image(data, max_pixels=self._max_pixels)
        except decode.BadImageError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        out[...] = decode.resize_image(image, self._image_size, self._fit)
        self._store(index, out)
        return None

    def _store(self, index: int, image: np.ndarray) -> None:
        with self._lock:
            if self._num_cached == len(self._cache) or self._slots[index] >= 0:
                return
            self._cache[self._num_cached] = image
            # Last, so that no other thread reads a slot that is being filled.
            self._slots[index] = self._num_cached
            self._num_cached += 1
