"""Brokers that speak no MQTT, badly, or not at all any more."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest
from attempts import Hostile
from cameras import Said, result

from edgeeff import Unreachable
from edgeeff.camera import sinks
from edgeeff.camera.sinks import MqttPublisher

CONNECTED = b"\x20\x02\x00\x00"


@contextlib.contextmanager
def broker(*answers: bytes) -> Iterator[str]:
    """The address of one that sends this to each client, reads nothing, and keeps the connection open."""
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    clients.append(listening.accept()[0])
                    with contextlib.suppress(OSError):
                        clients[-1].sendall(b"".join(answers))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}/labels"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    for client in clients:
        client.close()


@pytest.mark.slow
def test_what_speaks_no_mqtt_is_no_broker(hostile: Hostile, capfd: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(5)
    for answer in (
        *(
            b"",
            b"HTTP/1.1 400 x\r\n\r\n",
            b"\x20",
            b"\x20\x00",
            b"\x20\x01\x00",
            b"\x20\xff\xff\xff\xff\xff",
            b"\x20\xff\xff\xff\x7f",
        ),
        *(
            b"\x00\x00",
            b"\xf0\x00",
            b"\xd0\x00",
            b"\x30\x02\xff\xff",
            b"\x90\x01\x00",
            b"\x20\x02\x00\x63",
            b"\x20\x02\x00\x05",
            b"\xff" * 5000,
        ),
        *(generator.randbytes(200).replace(CONNECTED, b"") for _ in range(5)),
    ):
        said = Said()
        with broker(answer) as address, hostile.raises(Unreachable, answer[:20]), MqttPublisher(address, said, connect_timeout=0.3):
            pass
    assert "Traceback" not in capfd.readouterr().err


def test_labels_do_not_pile_up_for_a_broker_that_does_not_read(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "MAX_WAITING", 50)
    label = result(0.5)
    with broker(CONNECTED) as address, hostile.harmless("a broker that does not read"), MqttPublisher(address) as send:
        send.client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for _ in range(20_000):
            send(label)
        assert send.unsent > 0
        assert len(send.client._out_packet) <= 51
