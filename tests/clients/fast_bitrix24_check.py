"""A client that we did not write works against the emulator.

Usage: fast_bitrix24_check.py B24_BINARY, with the package fast_bitrix24
installed. Creates, lists, batches, updates and deletes over real HTTP, also
under the limits of a cloud portal, and compares with what the emulator says
that it did.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from fast_bitrix24 import Bitrix

LEADS = 120


def serve(binary, data, *options):
    server = subprocess.Popen(
        [binary, "emulator", "serve", "--data", data, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    json.loads(server.stdout.readline())
    return server, Path(data, "webhook-url").read_text().strip()


def changes(binary, data):
    log = subprocess.run([binary, "emulator", "log", "--data", data], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in log.stdout.splitlines()]


def check(binary, *options):
    with tempfile.TemporaryDirectory() as data:
        server, webhook = serve(binary, data, *options)
        try:
            portal = Bitrix(webhook, verbose=False)
            ids = portal.call("crm.lead.add", [{"fields": {"TITLE": f"Lead {n}", "OPPORTUNITY": n}} for n in range(LEADS)])
            assert len(set(ids)) == LEADS, ids
            rows = portal.get_all("crm.lead.list", {"select": ["ID", "TITLE"], "filter": {"<OPPORTUNITY": 100}})
            assert len(rows) == 100, len(rows)
            found = portal.get_by_ID("crm.lead.get", list(ids)[:60])
            assert len(found) == 60, found
            portal.call("crm.lead.update", [{"ID": i, "fields": {"TITLE": "changed"}} for i in list(ids)[:5]])
            portal.call("crm.lead.delete", [{"ID": i} for i in list(ids)[:5]])
            assert len(portal.get_all("crm.lead.list", {"select": ["ID"]})) == LEADS - 5
        finally:
            server.terminate()
            server.wait()
        kinds = [change["kind"] for change in changes(binary, data)]
        counts = {kind: kinds.count(kind) for kind in ("add", "update", "delete")}
        assert counts == {"add": LEADS, "update": 5, "delete": 5}, counts
        print(f"fast_bitrix24 {' '.join(options) or 'without limits'}: {counts}")


def application(data):
    access = json.loads(Path(data, "oauth.json").read_text())

    async def token():
        return access["access_token"]

    return Bitrix(access["client_endpoint"], token_func=token, verbose=False)


def check_events(binary):
    with tempfile.TemporaryDirectory() as data:
        server, webhook = serve(binary, data)
        try:
            portal, app = Bitrix(webhook, verbose=False), application(data)
            for event in ("ONCRMLEADADD", "ONCRMLEADUPDATE"):
                app.call("event.bind", {"event": event, "event_type": "offline"})
            assert {row["event"] for row in app.get_all("event.get")} == {"ONCRMLEADADD", "ONCRMLEADUPDATE"}
            ids = portal.call("crm.lead.add", [{"fields": {"TITLE": f"Lead {n}"}} for n in range(LEADS)])
            # A thousand changes of one object are one row.
            portal.call("crm.lead.update", [{"ID": list(ids)[0], "fields": {"TITLE": str(n)}} for n in range(20)])
            queued = app.get_all("event.offline.list")
            assert len(queued) == LEADS + 1, len(queued)
            seen = set()
            while True:
                taken = app.call("event.offline.get", {"clear": 0, "limit": 50}, raw=True)["result"]
                if not taken["events"]:
                    break
                rows = [row["ID"] for row in taken["events"]]
                assert not seen & set(rows)
                seen |= set(rows)
                again = app.call("event.offline.get", {"clear": 0, "process_id": taken["process_id"]}, raw=True)["result"]
                assert [row["ID"] for row in again["events"]] == rows
                app.call("event.offline.clear", {"process_id": taken["process_id"], "id": rows}, raw=True)
            assert len(seen) == LEADS + 1, len(seen)
            assert app.get_all("event.offline.list") == []
        finally:
            server.terminate()
            server.wait()
        print(f"fast_bitrix24 offline events: {len(seen)}")


if __name__ == "__main__":
    check(sys.argv[1])
    check_events(sys.argv[1])
    check(sys.argv[1], "--limits")
