"""The bytes of one event file as TensorBoard itself writes them, for tests/server/test_monitor.py.

    python -m venv tb && tb/bin/pip install tensorboard && tb/bin/python tests/golden/tensorboard_events.py
"""

from __future__ import annotations

import io
import sys

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Kept(io.BytesIO):
    """RecordWriter closes what it wrote to."""

    def close(self) -> None:
        """Stay readable."""


file = Kept()
writer = RecordWriter(file)
writer.write(Event(wall_time=1.5, file_version="brain.Event:2").SerializeToString())
values = [Summary.Value(tag=tag, simple_value=value) for tag, value in (("epsilon/north", 1.25), ("epsilon/east", 0.1))]
writer.write(Event(wall_time=1.5, step=300, summary=Summary(value=values)).SerializeToString())
writer.flush()
sys.stdout.write(file.getvalue().hex() + "\n")
