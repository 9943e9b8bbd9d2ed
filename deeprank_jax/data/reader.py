"""How are images read by index, and what happens to those that cannot be read?

Convention: a bad image is zeros with its flag False; it is logged once and counted.
"""

from collections.abc import Iterator
from concurrent import futures
import csv
import pathlib
import threading

from absl import logging
import numpy as np

from deeprank_jax.data import decode
from deeprank_jax.data import records as records_lib

_MIB = 2**20
# More pieces than threads, so that one thread with large files holds up less.
_PIECES_PER_WORKER = 4


class TooManyBadImagesError(ValueError):
    """More of the records are bad than the config allows."""


class BadImages:
    """The bad records of a run, each once, in a log and a CSV."""

    def __init__(
        self, path: str | pathlib.Path | None, num_records: int, max_share: float
    ):
        """Creates the list, adding to the file if it is there.

        Args:
          path: the CSV with columns `split,record,reason`, or None for none.
          num_records: the records of all splits.
          max_share: in [0, 1], of the records; more are an error.
        """
        self._path = pathlib.Path(path) if path is not None else None
        self._num_records = num_records
        self._max_share = max_share
        self._seen: set[tuple[str, str]] = set()
        self._listed = self._read_listed()
        self._lock = threading.Lock()

    @property
    def num_bad(self) -> int:
        """Returns how many records were bad so far."""
        return len(self._seen)

    def add(self, split: str, record: str, reason: str) -> None:
        """Counts a bad record; the same one again is not counted.

        Args:
          split: the name of its records.
          record: its description.
          reason: why it cannot be used.

        Raises:
          TooManyBadImagesError: more than `max_share` of the records are bad.
        """
        # Names that are not UTF-8 must not stop the run.
        record = record.encode("utf-8", "backslashreplace").decode("utf-8")
        with self._lock:
            if (split, record) in self._seen:
                return
            self._seen.add((split, record))
            num_bad = len(self._seen)
            logging.warning(
                "%s: %s; skipped, %s of %s so far",
                record,
                reason,
                f"{num_bad:,}",
                f"{self._num_records:,}",
            )
            self._write(split, record, reason)
        if num_bad > self._max_share * self._num_records:
            raise TooManyBadImagesError(
                f"{num_bad:,} of {self._num_records:,} records cannot be read, more "
                f"than config.data.max_bad_share={self._max_share:g} allows; repair "
                f"or remove {self._where()}, or raise the share."
            )

    def _where(self) -> str:
        return f"those listed in {self._path}" if self._path else "those in the log"

    def _read_listed(self) -> set[tuple[str, str]]:
        if self._path is None or not self._path.exists():
            return set()
        with self._path.open(encoding="utf-8", newline="") as file:
            return {(row[0], row[1]) for row in csv.reader(file) if len(row) == 3}

    def _write(self, split: str, record: str, reason: str) -> None:
        if self._path is None or (split, record) in self._listed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(("split", "record", "reason"))
            writer.writerow((split, record, reason))


class ImageReader:
    """Reads, decodes and resizes records on threads; close it when done."""

    def __init__(
        self,
        records: records_lib.Records,
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
          records: what to read from.
          image_size: the side of the square images, in pixels.
          fit: how an image becomes a square, see `images.resize_image`.
          cache_mib: memory for resized images; the first to be read fill it and
            stay.
          workers: threads; 0 reads in the caller's.
          max_pixels: larger images are bad.
          bad_images: takes the bad records; None for the log only.
        """
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
          indices: `[n]` ints, in any order, repeated or not.

        Returns:
          Images `[n, size, size, 3]` uint8 in fresh memory, and `[n]` bool, False
          where the image is bad and zeros stand in its place.

        Raises:
          TooManyBadImagesError: more records are bad than allowed.
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
        """Yields records in order, the last batch padded.

        Args:
          batch_size: records a batch.
          start: the first record.
          stop: the one after the last; None for all to the end.

        Yields:
          `images [B, size, size, 3]`, `indices [B]` int64 and `mask [B]`, which is
          False on bad images and on the padding.
        """
        stop = len(self._records) if stop is None else stop
        for first in range(start, stop, batch_size):
            wanted = np.arange(first, min(first + batch_size, stop))
            images, ok = self.load(wanted)
            padding = (0, batch_size - len(wanted))
            yield {
                "images": np.pad(images, (padding, (0, 0), (0, 0), (0, 0))),
                "indices": np.pad(wanted, padding),
                "mask": np.pad(ok, padding),
            }

    def _read_all(self, indices: np.ndarray) -> tuple[np.ndarray, list[str | None]]:
        """Returns the images and, for each, why it is bad or None."""
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
            # Last, so that another thread never finds a slot that is being filled.
            self._slots[index] = self._num_cached
            self._num_cached += 1
