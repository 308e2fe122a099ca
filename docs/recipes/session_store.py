#!/usr/bin/env python3
"""Sessions of a web application: they live as long as they are used, and all servers see the same.

    id=$(python3 session_store.py 127.0.0.1:6379 create '{"user": "alice"}')
    python3 session_store.py 127.0.0.1:6379 get $id
    python3 session_store.py 127.0.0.1:6379 end $id
"""

import argparse
import json
import secrets
import sys

import redis

from leader import connect, transaction


class SessionStore:
    """A session is a dictionary, kept as JSON under a name that nobody can guess."""

    def __init__(self, client, idle_s):
        self._client, self._idle_ms = client, int(idle_s * 1000)

    def create(self, session):
        session_id = secrets.token_urlsafe(24)
        self._client.set(_key(session_id), json.dumps(session), px=self._idle_ms)
        return session_id

    def get(self, session_id):
        """The session, which lives on from now; None if there is none (any more)."""
        data = self._client.getex(_key(session_id), px=self._idle_ms)
        return None if data is None else json.loads(data)

    def update(self, session_id, change):
        """Calls `change(session)` and keeps the result; False if there is no such session.

        What others do to the session meanwhile is not lost: then this begins anew.
        """
        while True:
            try:
                with transaction(self._client) as commands:
                    commands.watch(_key(session_id))
                    data = commands.get(_key(session_id))
                    if data is None:
                        return False
                    session = json.loads(data)
                    change(session)
                    commands.multi()
                    commands.set(_key(session_id), json.dumps(session), px=self._idle_ms)
                    commands.execute()
                    return True
            except redis.WatchError:
                continue

    def renew(self, session_id):
        """Another name for the session, for the moment of a login; None if there is no session.

        Who knew the old name (and may have planted it) has nothing then.
        """
        renewed = secrets.token_urlsafe(24)
        try:
            self._client.rename(_key(session_id), _key(renewed))
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        return renewed

    def end(self, session_id):
        """The session as it was; for exactly one caller, however many ask."""
        data = self._client.getdel(_key(session_id))
        return None if data is None else json.loads(data)


def _key(session_id):
    return f"session:{session_id}"


def main():
    parser = argparse.ArgumentParser(description="Sessions that end when nobody uses them.")
    parser.add_argument("address", help="host:port, or those of all nodes with commas")
    parser.add_argument("action", choices=["create", "get", "renew", "end"])
    parser.add_argument("argument", help="JSON for create, a session's id for the others")
    parser.add_argument("--idle", type=float, default=1800, help="seconds of life without use (1800)")
    options = parser.parse_args()
    store = SessionStore(connect(options.address), options.idle)
    if options.action == "create":
        print(store.create(json.loads(options.argument)))
        return 0
    found = getattr(store, options.action)(options.argument)
    if found is None:
        print("there is no such session", file=sys.stderr)
        return 1
    print(found if options.action == "renew" else json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
