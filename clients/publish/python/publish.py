"""Publishes one booking over HTTP. Answer on standard output; exit 0 stored, 65 refused, 69 not reached."""
import json, os, sys, urllib.error, urllib.request
try:
    env = dict(line.strip().split("=", 1) for line in open(".roomcast/dev.env") if "=" in line and line[0] != "#")
    event = {"type": "booking:new", "room": "bookings", "audience": "staff",
             "data": {"id": f"bk-py-{os.getpid()}", "customer": "Elif Kaya", "country": "TR", "category": "tour",
                      "title": "Bosphorus cruise at sunset", "duration": "3 hours", "amount": 4250.50, "currency": "TRY"}}
    headers = {"Authorization": "Bearer " + env["ROOMCAST_TOKEN"], "Content-Type": "application/json"}
    request = urllib.request.Request(env["ROOMCAST_INGEST"] + "/v1/events", json.dumps(event).encode(), headers)
    print(urllib.request.urlopen(request, timeout=10).read().decode())
except urllib.error.HTTPError as refused:
    sys.exit(print(refused.read().decode()) or (69 if refused.code >= 500 or refused.code == 429 else 65))
except OSError as error:
    sys.exit(print(error, file=sys.stderr) or 69)
