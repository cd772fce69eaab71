"""What redis-py does out of the box, against a primary and its replica."""

import sys
import time

import redis

primary_port, replica_port = int(sys.argv[1]), int(sys.argv[2])


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: {found!r}, not {wanted!r}")


def expect_error(kind, call, what):
    try:
        found = call()
    except kind:
        return
    sys.exit(f"{what}: {found!r}, not {kind.__name__}")


for protocol in (2, 3):
    primary = redis.Redis(port=primary_port, protocol=protocol, decode_responses=True)
    expect(primary.ping(), True, "ping")
    expect(primary.set("py:a", "1"), True, "set")
    expect(primary.get("py:a"), "1", "get")
    expect(primary.set("py:a", "2", nx=True), None, "set nx")
    expect(primary.set("py:a", "2", xx=True, get=True), "1", "set xx get")
    expect(primary.incr("py:a", 5), 7, "incr")
    expect(primary.mset({"py:b": "x", "py:c": "y"}), True, "mset")
    expect(primary.mget("py:b", "py:c", "py:d"), ["x", "y", None], "mget")
    expect(primary.exists("py:b", "py:d"), 1, "exists")
    expect(primary.delete("py:b", "py:c"), 2, "del")
    expect(primary.set("py:e", "v", ex=100), True, "set ex")
    expect(90 < primary.ttl("py:e") <= 100, True, "ttl")
    expect(primary.set("py:f", "v", px=30), True, "set px")
    time.sleep(0.1)
    expect(primary.get("py:f"), None, "an expired key")
    with primary.pipeline() as pipe:
        pipe.set("py:g", "1").incr("py:g").get("py:g")
        expect(pipe.execute(), [True, 2, "2"], "pipeline in MULTI")
    with primary.pipeline(transaction=False) as pipe:
        for number in range(100):
            pipe.set(f"py:n{number}", number)
        expect(pipe.execute(), [True] * 100, "pipeline without MULTI")
    expect_error(redis.ResponseError, lambda: primary.execute_command("NONSENSE"), "unknown")
    expect_error(redis.ResponseError, lambda: primary.execute_command("GET"), "arity")
    primary.set("py:h", "text")
    expect_error(redis.ResponseError, lambda: primary.incr("py:h"), "incr of a text")
    expect(primary.wait(1, 5000), 1, "wait")
    replica = redis.Redis(port=replica_port, protocol=protocol, decode_responses=True)
    expect(replica.get("py:g"), "2", "get on the replica")
    expect_error(redis.ReadOnlyError, lambda: replica.set("py:a", "1"), "set on the replica")
    expect(primary.role()[0], "master", "role of the primary")
    expect(replica.role()[0], "slave", "role of the replica")
print("ok")
