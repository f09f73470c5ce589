"""Publishes one booking over HTTP: publish.py [ID]. Answer on standard output; exit 0 stored, 65 refused, 69 not reached in five attempts."""
import http.client, json, os, sys, time, urllib.error, urllib.request

def attempt(request):
    """Status, the pause that is asked for, and what was said; status 0 is no answer."""
    try:
        try:
            answer = urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as refused:
            answer = refused
        after = answer.headers.get("Retry-After", "")
        return answer.status, int(after) if after.isdigit() else 0, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, 0, str(error)

try:
    env = dict(line.strip().split("=", 1) for line in open(".roomcast/dev.env") if "=" in line and line[0] != "#")
except OSError as error:
    sys.exit(print(error, file=sys.stderr) or 69)
# One id and the same bytes for every attempt: so it is stored once.
id = sys.argv[1] if len(sys.argv) > 1 else f"bk-py-{os.getpid()}-{time.time_ns()}"
event = {"id": id, "type": "booking:new", "room": "bookings", "audience": "staff",
         "data": {"id": id, "customer": "Elif Kaya", "country": "TR", "category": "tour",
                  "title": "Bosphorus cruise at sunset", "duration": "3 hours", "amount": 4250.50, "currency": "TRY"}}
headers = {"Authorization": "Bearer " + env["ROOMCAST_TOKEN"], "Content-Type": "application/json"}
request = urllib.request.Request(env["ROOMCAST_INGEST"] + "/v1/events", json.dumps(event).encode(), headers)
for pause in (1, 2, 4, 8, None):
    status, after, said = attempt(request)
    final = 0 < status < 500 and status not in (408, 429)
    # Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
    if final or pause is None or after > 15:
        break
    time.sleep(max(pause, after))
print(said, file=sys.stdout if status else sys.stderr)
sys.exit(0 if status == 200 else 65 if final else 69)
