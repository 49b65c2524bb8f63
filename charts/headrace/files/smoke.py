"""`helm test`: the API answers through its Service, keeps strangers out, and takes a task."""

import json
import os
import urllib.error
import urllib.request

API = os.environ["API"]
TOKENS = os.environ.get("TOKENS", "")


def ask(method, path, token="", body=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, sent, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def secret():
    """Of the first token that is written down itself, not as a hash."""
    for line in TOKENS.splitlines():
        _, _, rest = line.split(" ")[0].partition(":")
        if rest and not rest.startswith("sha256:"):
            return rest
    return ""


status, body = ask("GET", "/readyz")
assert status == 200, f"the API is not ready: {status} {body}"
print("The API is ready, and reaches Redis.")
if TOKENS:
    status, body = ask("GET", "/api/v1/stats")
    assert status == 401, f"a stranger was let in: {status}"
    print("Without a token nobody is let in.")
if TOKENS and not secret():
    print("All tokens are hashes, so no task was submitted.")
else:
    task = {"type": "headrace.smoke", "payload": {}, "delay": 86400}
    status, body = ask("POST", "/api/v1/tasks", secret(), task)
    if status == 201:
        status, body = ask("DELETE", f"/api/v1/tasks/{body['task_id']}", secret())
        assert status == 200, f"the task was not cancelled: {status} {body}"
        print("A task was taken, and cancelled.")
    else:
        assert status in {403, 422}, f"the API did not take a task: {status} {body}"
        print(f"This token may not submit such a task ({body.get('code', status)}); the API answers as it should.")
