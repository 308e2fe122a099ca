"""The programs of docs/recipes/, each by several processes at once, and what each promises."""

import collections
import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time

import redis
from check import FOLLOWERS, HOST, LEADER, NODES, check, contains, equal, kill, raises

sys.dont_write_bytecode = True
RECIPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "recipes")
sys.path.insert(0, RECIPES)

from counter import Counter  # noqa: E402
from job_lease import Jobs  # noqa: E402
from leader import connect as connect_to  # noqa: E402
from lock import Lock, delete_if_equal  # noqa: E402
from rate_limiter import RateLimiter  # noqa: E402
from session_store import SessionStore  # noqa: E402

PROCESSES = 4
LONG_MS = 20_000  # no process of a test stands still for that long
processes = multiprocessing.get_context("fork")


def connect():
    return redis.Redis(HOST, LEADER, socket_timeout=15)


client = connect()


def in_processes(work, *args, count=PROCESSES):
    """What `work(number, *args)` returned in each of `count` processes."""
    with processes.Pool(count) as pool:
        return pool.starmap(work, [(number, *args) for number in range(count)], chunksize=1)


def recipe(name, *args):
    """(exit code, stdout, stderr) of a recipe's main."""
    command = [sys.executable, "-B", os.path.join(RECIPES, name), f"{HOST}:{LEADER}", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout, done.stderr


def in_process(work, *args):
    """Runs in a process of its own, which ends without a word, as a crash would have it."""

    def run():
        work(*args)
        os._exit(0)

    process = processes.Process(target=run)
    process.start()
    process.join()
    equal(process.exitcode, 0)


def remove_jobs():
    for kind in ("job", "lease", "done"):
        for key in client.scan_iter(f"{kind}:*"):
            client.delete(key)


# ---- lock


class Register:
    """What a lock protects: it knows the largest fencing token, and refuses what is older."""

    def __init__(self):
        self.largest, self.value = 0, None

    def write(self, fence, value):
        if fence < self.largest:
            return False
        self.largest, self.value = fence, value
        return True


def locked_rounds(_, directory, rounds):
    """Adds 1 to the number in a file, without any other protection; the values with their tokens."""
    own, seen = connect(), []
    number, inside = os.path.join(directory, "number"), os.path.join(directory, "inside")
    for _ in range(rounds):
        lock = Lock(own, "py:sum", LONG_MS)
        fence = lock.acquire_within(30)
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is here
        with open(number) as file:
            value = int(file.read()) + 1
        time.sleep(0.001)
        with open(number, "w") as file:
            file.write(str(value))
        os.unlink(inside)
        seen.append((value, fence))
        if not lock.release():
            raise AssertionError("the lock was lost")
    return seen


@check("lock: one holder at a time, and tokens in the order of the holders")
def _():
    rounds = 15
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "number"), "w") as file:
            file.write("0")
        seen = sum(in_processes(locked_rounds, directory, rounds), [])
    values, fences = zip(*sorted(seen))
    equal(list(values), list(range(1, PROCESSES * rounds + 1)))
    equal(list(fences), sorted(set(fences)))


@check("lock: who lost it can neither release it nor write any more")
def _():
    slow, quick, register = Lock(client, "py:stale", 100), Lock(connect(), "py:stale", LONG_MS), Register()
    old = slow.acquire()
    assert register.write(old, "slow")
    new = quick.acquire_within(10)
    assert old < new, (old, new)
    assert register.write(new, "quick")
    assert not register.write(old, "slow again")
    assert not slow.release()
    equal(slow.acquire(), None)
    assert quick.release()
    assert not quick.release()


@check("lock: that of a process that died is free when its time is over, and not before")
def _():
    ttl_s = 0.5
    began = time.monotonic()
    in_process(lambda: Lock(connect(), "py:dead", int(ttl_s * 1000)).acquire())
    lock = Lock(client, "py:dead", LONG_MS)
    assert lock.acquire_within(10)
    waited = time.monotonic() - began
    assert ttl_s <= waited < 5, waited
    assert lock.release()


@check("lock: a value is deleted only if it is the expected one, without DELEX, too")
def _():
    class WithoutDelex(redis.Redis):
        def execute_command(self, *args, **options):
            if args[0] == "DELEX":
                raise redis.ResponseError("unknown command 'DELEX'")
            return super().execute_command(*args, **options)

    for server in (client, WithoutDelex(HOST, LEADER)):
        server.set("py:mine", "1")
        assert not delete_if_equal(server, "py:mine", "2")
        assert not delete_if_equal(server, "py:none", "1")
        equal(server.get("py:mine"), b"1")
        assert delete_if_equal(server, "py:mine", "1")
        equal(server.exists("py:mine"), 0)


@check("lock.py runs a command with the lock, or says that another has it")
def _():
    code, out, err = recipe("lock.py", "py:main", "--", "sh", "-c", "echo $FENCE; exit 3")
    equal((code, int(out) > 0, err), (3, True, ""))
    held = Lock(client, "py:main", LONG_MS)
    assert held.acquire() > int(out)
    equal(recipe("lock.py", "py:main", "--", "true"), (75, "", "another holds py:main\n"))
    assert held.release()


# ---- rate limiter


def ask_for(_, limit, window_ms, seconds):
    limiter, counts, deadline = RateLimiter(connect(), limit, window_ms), [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        allowed, count, left_ms = limiter.ask("py:many")
        if allowed != (count <= limit) or not 0 <= left_ms <= window_ms:
            raise AssertionError((allowed, count, left_ms))
        if allowed:
            counts.append(count)
        time.sleep(0.001)
    return counts


@check("rate limiter: in each window exactly as many as allowed, over all processes")
def _():
    limit, window_ms, seconds = 10, 500, 2
    began = time.monotonic()
    counts = collections.Counter(sum(in_processes(ask_for, limit, window_ms, seconds), []))
    most = int((time.monotonic() - began) * 1000 / window_ms) + 1
    windows = counts[1]
    assert 2 <= windows <= most, (windows, most)
    equal(max(counts), limit)
    # Only the last window may have been cut off.
    for count in range(1, limit + 1):
        assert windows - 1 <= counts[count] <= windows, (count, counts)


@check("rate_limiter.py says yes, and then when")
def _():
    answers = [recipe("rate_limiter.py", "py:main", "2", "60") for _ in range(3)]
    equal([code for code, _, _ in answers], [0, 0, 1])
    equal(answers[1][1], "yes: 2 of 2\n")
    contains(answers[2][1], "no: again in 5")


# ---- session store

IDLE_S = 1.5


def use_sessions(number, seconds):
    """Two sessions, one of them in use: (used one, was there all the time, idle one, longest pause)."""
    store = SessionStore(connect(), IDLE_S)
    used, idle = store.create({"of": number}), store.create({"of": number})
    deadline, last, longest, there = time.monotonic() + seconds, time.monotonic(), 0, True
    while time.monotonic() < deadline:
        there = there and store.get(used) == {"of": number}
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        time.sleep(0.05)
    return used, there, idle, longest


@check("sessions: those in use stay, the others end")
def _():
    store = SessionStore(client, IDLE_S)
    for used, there, idle, longest in in_processes(use_sessions, 2 * IDLE_S):
        # A machine that stood still for longer than a session lives proves nothing.
        assert there or longest >= IDLE_S, "a session ended though it was used"
        equal(store.get(idle), None)
    time.sleep(1.2 * IDLE_S)
    equal(store.get(used), None)


def add_to_session(_, session_id, times):
    store = SessionStore(connect(), 60)
    for _ in range(times):
        if not store.update(session_id, lambda session: session.update(cart=session["cart"] + 1)):
            raise AssertionError("the session is gone")


@check("sessions: no change is lost, whoever makes another at the same time")
def _():
    times = 25
    store = SessionStore(client, 60)
    session_id = store.create({"user": "alice", "cart": 0})
    in_processes(add_to_session, session_id, times)
    equal(store.get(session_id), {"user": "alice", "cart": PROCESSES * times})


def end_session(_, session_id):
    return SessionStore(connect(), 60).end(session_id)


@check("sessions: renewed under another name with the time they have; ended by exactly one")
def _():
    store = SessionStore(client, 60)
    old = store.create({"user": "alice"})
    new = store.renew(old)
    equal((store.get(old), store.get(new)), (None, {"user": "alice"}))
    assert 0 < client.pttl(f"session:{new}") <= 60_000
    equal(store.renew(old), None)
    ended = in_processes(end_session, new)
    equal(sorted(ended, key=str), sorted([{"user": "alice"}] + [None] * (PROCESSES - 1), key=str))
    assert not store.update(new, lambda session: session)


@check("session_store.py creates, gets, renews and ends a session")
def _():
    code, out, _ = recipe("session_store.py", "create", '{"user": "bob"}')
    session_id = out.strip()
    equal(code, 0)
    equal(recipe("session_store.py", "get", session_id), (0, '{"user": "bob"}\n', ""))
    _, out, _ = recipe("session_store.py", "renew", session_id)
    equal(recipe("session_store.py", "get", session_id)[0], 1)
    equal(recipe("session_store.py", "end", out.strip()), (0, '{"user": "bob"}\n', ""))
    equal(recipe("session_store.py", "end", out.strip())[0], 1)


# ---- counter


def count_up(_, times):
    counter = Counter(connect(), "py:sum")
    return [counter.add() for _ in range(times)]


@check("counter: no increment is lost, and no value is returned twice")
def _():
    client.delete("counter:py:sum")
    times = 200
    values = sorted(sum(in_processes(count_up, times), []))
    equal(values, list(range(1, PROCESSES * times + 1)))


@contextlib.contextmanager
def broken_connections(every):
    """Each `every`-th EXEC is sent, and its reply never read: the connection breaks."""
    kind, executed = redis.client.Pipeline, [0]
    original = kind._execute_transaction

    def breaks(self, connection, commands, raise_on_error):
        executed[0] += 1
        if executed[0] % every:
            return original(self, connection, commands, raise_on_error)
        connection.send_packed_command(
            connection.pack_commands([("MULTI",), *(command[0] for command in commands), ("EXEC",)])
        )
        connection.can_read(timeout=0.05)
        connection.disconnect()
        raise redis.ConnectionError("broken by the test")

    kind._execute_transaction = breaks
    try:
        yield
    finally:
        kind._execute_transaction = original


def count_once(_, requests):
    counter = Counter(connect(), "py:once")
    with broken_connections(every=5):
        for request in range(requests):
            counter.add_once(f"request-{request}", 2)


@check("counter: a request counts once, by whomever it is sent, and if connections break")
def _():
    for key in client.scan_iter("counter:py:once*"):
        client.delete(key)
    requests = 60
    in_processes(count_once, requests)  # all send the same requests
    equal(int(client.get("counter:py:once")), 2 * requests)


@check("a broken connection is no WatchError: who finished a job or changed a session is told")
def _():
    remove_jobs()
    jobs, store = Jobs(connect(), LONG_MS), SessionStore(connect(), 60)
    session_id = store.create({"cart": 0})
    assert jobs.add("py:broken", "work")
    equal(jobs.lease(), ("py:broken", "work"))
    with broken_connections(every=1):
        with raises(redis.ConnectionError, "while keys were watched: broken"):
            jobs.finish("py:broken", "done")
        with raises(redis.ConnectionError, "while keys were watched: broken"):
            store.update(session_id, lambda session: session.update(cart=session["cart"] + 1))
    # Both were carried out, and none twice.
    equal((jobs.result("py:broken"), jobs.left()), (b"done", 0))
    equal(store.get(session_id), {"cart": 1})


def break_before_reads(times):
    """The next `times` reads under WATCH find their connection broken."""
    kind = redis.client.Pipeline
    original, left = kind.parse_response, [times]

    def breaks(self, connection, name, **options):
        if name != "EXISTS" or left[0] == 0:
            return original(self, connection, name, **options)
        left[0] -= 1
        raise redis.ConnectionError("broken by the test")

    kind.parse_response = breaks
    return left


@check("counter: a connection that breaks between WATCH and EXEC is another reason to try again")
def _():
    original, counter = redis.client.Pipeline.parse_response, Counter(connect(), "py:between")
    client.delete("counter:py:between", "counter:py:between:seen:r")
    left = break_before_reads(3)
    try:
        equal(counter.add_once("r"), 1)
    finally:
        redis.client.Pipeline.parse_response = original
    equal((left, counter.add_once("r")), ([0], 1))


@check("counter.py counts, and a request once")
def _():
    client.delete("counter:py:main", "counter:py:main:seen:r1")
    equal(recipe("counter.py", "py:main"), (0, "1\n", ""))
    for _ in range(2):
        equal(recipe("counter.py", "py:main", "--by", "3", "--request", "r1"), (0, "4\n", ""))


# ---- job lease


def work_off(number, directory):
    """Does jobs until there are none: a file says that one is at work. What it finished."""
    jobs, finished = Jobs(connect(), LONG_MS), []
    while jobs.left():
        leased = jobs.lease()
        if leased is None:
            time.sleep(0.005)
            continue
        name, payload = leased
        inside = os.path.join(directory, name)
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is at this job
        time.sleep(0.001)
        os.unlink(inside)
        if jobs.finish(name, f"{payload} by {number}"):
            finished.append(name)
    return finished


@check("jobs: each is done, once, and by one worker at a time")
def _():
    remove_jobs()
    jobs = Jobs(client, LONG_MS)
    names = [f"py{i}" for i in range(60)]
    for name in names:
        assert jobs.add(name, f"payload of {name}")
        assert not jobs.add(name, "another")
    with tempfile.TemporaryDirectory() as directory:
        finished = sum(in_processes(work_off, directory), [])
    equal(sorted(finished), sorted(names))
    for name in names:
        contains(jobs.result(name).decode(), f"payload of {name} by ")
    equal((jobs.left(), list(client.scan_iter("lease:*"))), (0, []))


def die_with(name, lease_ms):
    leased = Jobs(connect(), lease_ms).lease()
    assert leased == (name, "important"), leased


@check("jobs: another does what a dead worker had leased, when the lease is over and not before")
def _():
    remove_jobs()
    lease_s = 0.5
    jobs = Jobs(client, LONG_MS)
    assert jobs.add("py:dead", "important")
    began = time.monotonic()
    in_process(die_with, "py:dead", int(lease_s * 1000))
    leased = None
    while leased is None and time.monotonic() - began < 10:
        leased = jobs.lease()
    assert time.monotonic() - began >= lease_s
    equal(leased, ("py:dead", "important"))
    assert jobs.finish("py:dead", "done")
    equal((jobs.result("py:dead"), jobs.left()), (b"done", 0))


@check("jobs: a worker that outlived its lease cannot finish the job of another")
def _():
    remove_jobs()
    slow, quick = Jobs(client, 80), Jobs(connect(), LONG_MS)
    assert slow.add("py:slow", "work")
    equal(slow.lease(), ("py:slow", "work"))
    equal(quick.lease(), None)
    time.sleep(0.2)
    equal(quick.lease(), ("py:slow", "work"))
    assert not slow.finish("py:slow", "by slow")
    assert not slow.give_up("py:slow")
    equal((quick.result("py:slow"), quick.left()), (None, 1))
    assert quick.finish("py:slow", "by quick")
    assert not quick.finish("py:slow", "again")
    equal(quick.result("py:slow"), b"by quick")


@check("job_lease.py adds jobs and does them")
def _():
    remove_jobs()
    equal(recipe("job_lease.py", "add", "py:main", "echo hello"), (0, "", ""))
    equal(recipe("job_lease.py", "add", "py:main", "echo again"), (1, "", "there is a job py:main\n"))
    equal(recipe("job_lease.py", "work"), (0, "py:main is done\n", ""))
    equal(Jobs(client, 1).result("py:main"), b"hello\n")


# ---- the leader dies

ALL_NODES = ",".join(f"{HOST}:{port}" for port in NODES)
TAKEOVER_S = 10


def until_done(call):
    """Repeats what may be repeated, while there is no leader or a connection breaks."""
    deadline = time.monotonic() + TAKEOVER_S
    while True:
        try:
            return call()
        except (redis.ConnectionError, redis.TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def count_on(number, seconds):
    """How many requests of its own it has counted, by all nodes."""
    counter, sent = Counter(connect_to(ALL_NODES), "py:kill"), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        until_done(lambda: counter.add_once(f"{number}-{sent}"))
        sent += 1
    return sent


def lock_on(_, seconds, path):
    """Holds a lock again and again; (when it was taken, its token), one for each time."""
    own, seen, deadline = connect_to(ALL_NODES), [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        lock = Lock(own, "py:kill", 2000)
        try:
            fence = lock.acquire_within(0.1)
        except (redis.ConnectionError, redis.TimeoutError):
            time.sleep(0.02)  # if that attempt was granted, it ends by itself
            continue
        if fence is None:
            continue
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # fails if another is here
        seen.append((time.monotonic(), fence))
        os.unlink(path)
        until_done(lock.release)
    return seen


def count_or_lock(number, seconds, path):
    return lock_on(number, seconds, path) if number % 2 else count_on(number, seconds)


def through_a_kill(seconds):
    """What half of the processes counted and the other half locked while the leader was killed."""
    with processes.Pool(PROCESSES) as pool, tempfile.TemporaryDirectory() as directory:
        args = [(number, seconds, os.path.join(directory, "inside")) for number in range(PROCESSES)]
        results = pool.starmap_async(count_or_lock, args, chunksize=1)
        time.sleep(seconds / 4)
        killed = time.monotonic()
        kill(leader_now())
        results = results.get()
    return results[::2], sum(results[1::2], []), killed


def leader_now():
    pool = connect_to(ALL_NODES).connection_pool
    connection = until_done(lambda: pool.get_connection("PING"))
    pool.release(connection)
    return connection.port


if FOLLOWERS:  # a single server has nobody to take over
    counted, locked, killed = through_a_kill(seconds=4)

    @check("counter: each request counts once, though the leader is killed meanwhile")
    def _():
        assert min(counted) > 0, counted
        equal(int(until_done(lambda: connect_to(ALL_NODES).get("counter:py:kill"))), sum(counted))

    @check("lock: one holder at a time, and larger tokens, though the leader is killed meanwhile")
    def _():
        fences = [fence for _, fence in sorted(locked)]
        equal(fences, sorted(set(fences)))
        assert min(locked)[0] < killed < max(locked)[0], "nobody had it before, or nobody after"
