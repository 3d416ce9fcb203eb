"""What a site reads out of a message of Flower's, and the form of every reply."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from braing3n_core.errors import ReplyRefused
from braing3n_core.protocol import Part, Request
from privacy.egress import ENDS, Cleared
from privacy.sum_words import STEPS


def request_of(message: Message) -> Request:
    """The round a message asks for, a step of its secure sum, or a fit. Raises ReplyRefused if it holds no single array."""
    config, arrays = message.content.config_records["request"], message.content.array_records["values"].to_numpy_ndarrays()
    if len(arrays) != 1:
        raise ReplyRefused("the request holds no single array; the sender runs another version")
    part = None
    if "step" in config:
        attempt, step = config["attempt"], str(config["step"])
        if not (isinstance(attempt, int) and step in STEPS):
            raise ReplyRefused("the request asks for no step of a secure sum that there is; the sender runs another version")
        part = Part(attempt, step, str(config["told"]))
    end = next((known for known in ENDS if known == config.get("end")), None)
    if end is None and "end" in config:
        raise ReplyRefused("the request asks for a fit at no end of a stage that there is; the sender runs another version")
    number = config["round"]
    return Request(str(config["plan"]), str(config["stage"]), number if isinstance(number, int) else -1, arrays[0], part, end)


def reply(message: Message, answers: Iterable[Cleared]) -> Message:
    """The only place where a site's reply is made, and it is made of what the egress cleared."""
    content = RecordDict()
    for cleared in answers:
        site = cleared.header["site"]
        content[f"{site}.header"] = ConfigRecord(dict(cleared.header))
        if cleared.values is not None:
            content[f"{site}.values"] = ArrayRecord([cleared.values])
    return Message(content, reply_to=message)
