"""A node's side of the line: Flower's own client, of which a test says whose key it shows and with whose it signs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from privacy.signing import SigningKey
from tests.end_to_end.hospitals import Consortium

if TYPE_CHECKING:
    from flwr.supernode.fleet_http_client import FleetHttpClient

IN, NOT_SIGNED, NOT_KNOWN = 200, 401, 412                    # Flower's own words for it


class Node:
    """Says what the server answers, as the status of HTTP. `number` is its own once it is in."""

    def __init__(self, line: FleetHttpClient, shown: SigningKey) -> None:
        self._line, self._shown, self.number = line, shown.public.pem, 0

    def joins(self) -> int:
        from flwr.proto.fleet_pb2 import ActivateNodeRequest

        def join() -> None:
            self.number = self._line.ActivateNode(ActivateNodeRequest(public_key=self._shown, heartbeat_interval=30.0)).node_id

        return _status(join)

    def enrols_itself(self) -> int:
        from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest

        return _status(lambda: self._line.RegisterNode(RegisterNodeFleetRequest(public_key=self._shown)))

    def asks_for_requests(self, number: int | None = None) -> int:
        """Its own requests, or those of the node with another number."""
        from flwr.proto.fleet_pb2 import PullMessagesRequest
        from flwr.proto.node_pb2 import Node as Named

        named = Named(node_id=self.number if number is None else number)
        return _status(lambda: self._line.PullMessages(PullMessagesRequest(node=named)))

    def replies(self, number: int | None = None) -> int:
        """With nothing, but as the node with that number."""
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.proto.node_pb2 import Node as Named

        named = Named(node_id=self.number if number is None else number)
        return _status(lambda: self._line.PushMessages(PushMessagesRequest(node=named)))

    def leaves(self) -> int:
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        return _status(lambda: self._line.DeactivateNode(DeactivateNodeRequest(node_id=self.number)))


@contextmanager
def node(at: Consortium, shown: SigningKey, signs: SigningKey | None = None) -> Iterator[Node]:
    """A node at the door of `at` that shows one key and signs with it, or with another's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's and Click's own
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
    keys = [load_ssh_private_key(key.openssh(), None) for key in (signs or shown, shown)]
    proof = NodeAuthHttpInterceptor(keys[0], keys[1].public_key())
    ca = (at.folder / "tls" / "ca.crt").read_bytes()
    with FleetHttpClient.from_server_address(f"localhost:{at.port}", False, ca, [proof]) as line:
        yield Node(line, shown)


def key_of(at: Consortium, name: str) -> SigningKey:
    return SigningKey.load(at.site(name) / "keys" / "site.pem")


def _status(call: Callable[[], object]) -> int:
    try:
        call()
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return IN
