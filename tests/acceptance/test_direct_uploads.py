"""The examples of docs/uploads.md, as its reader runs them: in a shell, and in a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from dream.storage import Storage
from tests.gateway import DREAM, auth, emptied, running, token
from tests.pictures import noise

PAGE = (Path(__file__).resolve().parents[2] / "docs/uploads.md").read_text("utf-8")


def blocks(language: str, *having: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [each for each in found if all(text in each for text in having)]


@pytest.mark.slow
def test_the_examples_of_the_page_upload(tmp_path: Path, servers: dict[str, str], browser: Browser) -> None:
    """The form and the direct upload in a shell; the function for browsers, once the bucket has the page's rule."""
    (tmp_path / "photo.jpg").write_bytes(noise())
    [rule] = blocks("json", "CORSRules")
    [function] = blocks("js", "uploadDirectly")
    with running(tmp_path, servers) as gateway:
        emptied(gateway)
        origin = f"http://127.0.0.1:{gateway.port}"
        variables = {**os.environ, "GATEWAY": origin, "TOKEN": token()}
        answers = []
        for block in blocks("sh", "curl"):
            script = f"set -euo pipefail\n{block.replace('/dreams/1/', f'/dreams/{DREAM}/')}"
            done = subprocess.run(
                ["bash", "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            answers.append(json.loads(done.stdout))

        storage, bucket = Storage(gateway.settings), gateway.settings.staging_bucket
        cors: Any = json.loads(rule.replace("https://app.example.com", origin))
        storage._client.put_bucket_cors(Bucket=bucket, CORSConfiguration=cors)
        # The gateway's own page may not send files to the store: its policy names its own origin only.
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(f"{origin}/healthz")
        call = f"""async (token) => {{ {function}
            const file = new File([new Uint8Array([255, 216, 255, 1])], "b.jpg", {{type: "image/jpeg"}});
            const text = new File(["x"], "c.txt", {{type: "text/plain"}});
            return uploadDirectly("{origin}", {DREAM}, token, [text, file]);
        }}"""
        answers.append(page.evaluate(call, token()))
        context.close()
        assert [(each["dream_id"], each["files"]) for each in answers] == [(DREAM, 1)] * 3
        assert [each["code"] for each in answers[-1]["refused"]] == ["not_an_image"]
        listed = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
        assert [each["task_id"] for each in listed] == [each["task_id"] for each in answers]
