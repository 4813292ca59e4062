"""What an offline W&B run wrote: the records of its .wandb file, a log in LevelDB's format."""

import json
import struct
import time
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path):
    """The records of a .wandb file, in order."""
    content, at, parts = path.read_bytes(), FILE_HEADER, b""
    assert content[:4] == b":W&B"
    while at + HEADER <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # the end of a block is padded
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)  # behind the checksum
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


class OfflineRun:
    """The offline run of a run folder's first start (number 0), or of a later one."""

    def __init__(self, folder: Path, *, number: int) -> None:
        self.folder = sorted(folder.glob("wandb/offline-run-*"))[number]
        (file,) = self.folder.glob("*.wandb")
        for _ in range(100):  # W&B's own process may write the end a moment after finish()
            self.records = list(records(file))
            if self.of("exit"):
                break
            time.sleep(0.1)

    def of(self, kind):
        return [getattr(r, kind) for r in self.records if r.WhichOneof("record_type") == kind]

    @property
    def history(self):
        """Logged rows; keys inside media are joined by dots."""
        return [
            {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row.item}
            for row in self.of("history")
        ]

    @property
    def artifacts(self):
        """Files by type of artifact."""
        return {a.type: sorted(entry.path for entry in a.manifest.contents) for a in self.of("artifact")}
