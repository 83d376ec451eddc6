# SPDX-License-Identifier: Apache-2.0
"""Bad networks between sites and coordinator: the same bits as a simulation, through all of them.

Streams are troubled by a proxy on loopback; packets by a tunnel device in a network namespace of its own, which loses, repeats and
reorders them."""
import fcntl
import json
import os
import random
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import unittest

import federation_network_test
import federation_test
import support

MODEL = support.SHARED / "models/stories260K"


class Proxy:
    """Between sites and a port; `fault` names what it does to them.

    slow: little is read at a time, late. cut: the first connections end in the middle of an upload. cut_back: in the middle of a
    download. reset: the first connections end as they begin. twice: every byte of a site goes over a second connection, too."""

    def __init__(self, fault, port):
        self.fault, self.port = fault, port
        self.count = 0
        self.bytes = 0
        self.faults = 0
        self.sockets = []
        self.listener = socket.socket()
        if fault == "slow":
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.own_port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        for one in [self.listener, *self.sockets]:
            one.close()

    def accept(self):
        while True:
            try:
                site, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            self.sockets.append(site)
            if self.fault == "reset" and self.count <= 3:
                self.faults += 1
                reset(site)
                continue
            hub = socket.create_connection(("127.0.0.1", self.port))
            self.sockets.append(hub)
            again = socket.create_connection(("127.0.0.1", self.port)) if self.fault == "twice" else None
            if again is not None:
                self.faults += 1
                self.sockets.append(again)
                threading.Thread(target=drain, args=(again,), daemon=True).start()
            budget = {"cut": 300_000, "cut_back": 300_000}.get(self.fault) if self.count <= 3 else None
            for source, sink, twin, limit in ((site, hub, again, budget if self.fault == "cut" else None),
                                              (hub, site, None, budget if self.fault == "cut_back" else None)):
                threading.Thread(target=self.pump, args=(source, sink, twin, limit), daemon=True).start()

    def pump(self, source, sink, twin, limit):
        passed = 0
        try:
            while True:
                if self.fault == "slow":
                    time.sleep(0.004)
                data = source.recv(4096 if self.fault == "slow" else 65536)
                if not data:
                    break
                if limit is not None and passed + len(data) > limit:
                    sink.sendall(data[:limit - passed])
                    self.faults += 1
                    reset(source)
                    reset(sink)
                    return
                passed += len(data)
                self.bytes += len(data)
                sink.sendall(data)
                if twin is not None:
                    try:
                        twin.sendall(data)
                    except OSError:
                        twin = None  # the coordinator has seen through it
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for one in (source, sink):
                one.close()


def reset(one):
    """Ends a connection as a crash would: no goodbye."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
    except OSError:
        pass
    one.close()


def drain(one):
    try:
        while one.recv(65536):
            pass
    except OSError:
        pass


class Troubled(federation_network_test.Members):
    """Real weights, so that an update is a megabyte in several pieces."""

    def setUp(self):
        if not MODEL.exists():
            self.skipTest("KAMERTON_SHARED has no models/stories260K")
        super().setUp()
        text = (self.folder / "run.yaml").read_text()
        text = text.replace("{path: configs/debug/tiny-model, random_init: true, dtype: fp32}", f"{{path: {MODEL}, dtype: fp32}}")
        (self.folder / "run.yaml").write_text(text)
        for site in "abc":  # the model has no chat template
            path = self.folder / f"{site}.jsonl"
            records = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps({"text": " ".join(turn["content"] for turn in turns)}) + "\n" for turns in records))
        self.proxies = []

    def tearDown(self):
        for proxy in self.proxies:
            proxy.close()
        super().tearDown()

    def through(self, faults, *settings):
        """A run whose sites are each behind a proxy of its own."""
        coordinator, port = self.coordinator(*settings)
        sites = []
        for site, fault in zip("abc", faults, strict=True):
            proxy = Proxy(fault, port)
            self.proxies.append(proxy)
            sites.append(self.site(site, proxy.own_port, *settings))
        for process in (*sites, coordinator):
            self.finish(process)
        for proxy in self.proxies:
            if proxy.fault != "slow":
                self.assertGreater(proxy.faults, 0, proxy.fault)
            self.assertGreater(proxy.bytes, 4_000_000, proxy.fault)
        return self.model()


class Streams(Troubled):
    def test_slow_cut_and_refused_connections_change_nothing(self):
        self.assertEqual(self.through(("slow", "cut", "reset")), self.simulated())

    def test_masked_updates_pass_repeated_and_cut_connections(self):
        settings = ["federation.update.encoding=ring32", "federation.weights=uniform", "federation.cohort.min_sites=3",
                    "federation.privacy.secure_aggregation=true"]
        self.assertEqual(self.through(("twice", "cut_back", "cut"), *settings), self.simulated(*settings))


METHODS = ("Join", "Task", "Download", "Received", "Upload", "Submit", "Secure", "Status", "None")
BODIES = (b"", b"\x08\x01\x12\x03net", b"\x0a\x06\x08\x00\x10\x00\x18\x01\x10\x00\x1a\x04abcd", b"\x0a\x03net\x12\x02{}",
          b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\x04\x1a\x02zz", b"\x0a\xff\xff\xff\x7f")


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def call(stream, method, body, length):
    """A gRPC call as HTTP/2 frames; `length` is what the message says of its own size."""
    def text(value):
        return bytes((len(value),)) + value.encode()
    headers = b"".join(b"\x00" + text(name) + text(value) for name, value in (
        (":method", "POST"), (":scheme", "https"), (":path", f"/kamerton.federation.Federation/{method}"), (":authority", "hub"),
        ("content-type", "application/grpc"), ("te", "trailers")))
    return frame(1, 4, stream, headers) + frame(0, 1, stream, b"\x00" + struct.pack(">I", length) + body)


class Rubbish(federation_network_test.Members):
    def speak(self, dice, port, secured):
        """One connection of a member that means harm, or of nobody."""
        data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
        for stream in range(1, 20, 2):
            body = bytearray(dice.choice(BODIES))
            for _ in range(dice.randrange(4)):
                body.insert(dice.randrange(len(body) + 1), dice.randrange(256))
            length = len(body) if dice.random() < 0.8 else dice.choice((0, 1, len(body) + 1, 2**31, 2**32 - 1))
            data += call(stream, dice.choice(METHODS), bytes(body), length)
        if dice.random() < 0.3:
            data = dice.randbytes(dice.randrange(2000))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with self.tls.wrap_socket(plain) if secured else plain as stream:
                try:
                    stream.sendall(data)
                    stream.settimeout(0.15)
                    while stream.recv(65536):
                        pass
                except OSError:
                    pass

    def test_rubbish_on_the_port_changes_nothing(self):
        self.member("d")
        self.tls = ssl.create_default_context(cafile=self.folder / "d/authority.pem")
        self.tls.check_hostname = False
        self.tls.load_cert_chain(self.folder / "d/member.pem", self.folder / "d/member.key")
        self.tls.set_alpn_protocols(["h2"])
        coordinator, port = self.coordinator()
        dice = random.Random(11)
        sites = [self.site(name, port) for name in "abc"]
        for number in range(int(os.environ.get("KAMERTON_FUZZ_CASES", "40"))):
            if coordinator.poll() is not None:
                break
            try:
                self.speak(dice, port, number % 4 != 0)
            except OSError:
                pass  # refused, or the run is over
        for process in (*sites, coordinator):
            self.finish(process)
        self.assertEqual(self.model(), self.simulated())
        refusals = (self.folder / "runs/net/coordinator/audit.jsonl").read_text()
        self.assertIn('"refusal"', refusals, "rubbish has reached the calls")


class Tunnel:
    """10.9.0.2 is this machine again, through a device whose packets are read here, troubled and sent back with both addresses
    exchanged (which leaves every checksum right)."""

    def __init__(self):
        self.device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.device, 0x400454CA, struct.pack("16sH", b"troubled", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        for command in ("ip link set lo up", "ip addr add 10.9.0.1/24 dev troubled", "ip link set troubled up"):
            subprocess.run(command.split(), check=True)
        self.random = random.Random(7)
        self.counts = {"lost": 0, "repeated": 0, "reordered": 0, "all": 0}
        self.held = []
        self.open = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.open = False
        self.thread.join()
        os.close(self.device)

    def run(self):
        while self.open:
            if not select.select([self.device], [], [], 0.005)[0]:
                self.release()
                continue
            packet = os.read(self.device, 65536)
            if packet[0] >> 4 == 4:
                self.trouble(packet[:12] + packet[16:20] + packet[12:16] + packet[20:])

    def trouble(self, packet):
        self.counts["all"] += 1
        dice = self.random.random()
        if dice < 0.01:
            self.counts["lost"] += 1
            return
        if dice < 0.04:
            self.counts["reordered"] += 1
            self.held.append(packet)
            return
        os.write(self.device, packet)
        if dice < 0.07:
            self.counts["repeated"] += 1
            os.write(self.device, packet)
        if len(self.held) > 2:
            self.release()

    def release(self):
        for packet in self.held:
            os.write(self.device, packet)
        self.held = []


@unittest.skipUnless(os.environ.get("KAMERTON_OWN_NAMESPACE"), "started by Namespace, in a network of its own")
class Packets(Troubled):
    def test_lost_repeated_and_reordered_packets_change_nothing(self):
        tunnel = Tunnel()
        try:
            coordinator, port = self.coordinator(listen="0.0.0.0:0")
            sites = [self.site(name, port, host="10.9.0.2") for name in "abc"]
            for process in (*sites, coordinator):
                self.finish(process)
        finally:
            tunnel.close()
        self.assertEqual(self.model(), self.simulated())
        self.assertGreater(tunnel.counts["all"], 3000, tunnel.counts)
        for trouble in ("lost", "repeated", "reordered"):
            self.assertGreater(tunnel.counts[trouble], 10, tunnel.counts)


class Namespace(unittest.TestCase):
    def test_packets(self):
        probe = ["unshare", "-n", "sh", "-c", "ip link set lo up && test -w /dev/net/tun"]
        try:
            allowed = subprocess.run(probe, capture_output=True).returncode == 0
        except OSError:
            allowed = False
        if not allowed:
            self.skipTest("this machine allows no network namespace or no tunnel device")
        done = subprocess.run(["unshare", "-n", sys.executable, "-B", __file__, "Packets"], capture_output=True, text=True, timeout=200,
                              env={**os.environ, "KAMERTON_OWN_NAMESPACE": "1"})
        self.assertEqual(done.returncode, 0, done.stderr[-4000:])
        self.assertIn("Ran 1 test", done.stderr)
        if "skipped" in done.stderr:
            self.skipTest(done.stderr.strip().splitlines()[-1])


if __name__ == "__main__":
    support.main()
