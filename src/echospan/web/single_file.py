"""The same page as one file, its model inside: opened from a disk, or hosted anywhere."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any

from echospan.web.static_files import HOME


def single_file(packed: Mapping[str, Any]) -> str:
    """The page in HTML, of a model as `echospan.export.pack` gives it.

    All that it runs and loads stands in it, and its policy names the hash of each part: nothing
    else is run, and nothing is asked of any machine.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}

    def inlined(kind: str, name: str) -> str:
        text = f"\n{(HOME / name).read_text()}"
        hashes[kind].append(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
        return f"<{kind}>{text}</{kind}>"

    def script(found: re.Match[str]) -> str:
        # What speaks to a server gives way to the model itself.
        names = ["model.js", "script.js"] if found[1] == "socket.js" else [found[1]]
        return "\n".join(inlined("script", name) for name in names)

    page = (HOME / "page.html").read_text()
    icon = base64.b64encode((HOME / "icon.svg").read_bytes()).decode()
    page = page.replace('href="icon.svg"', f'href="data:image/svg+xml;base64,{icon}"')
    page = page.replace('<link rel="stylesheet" href="page.css">', inlined("style", "page.css"))
    page = re.sub(r'<script src="(.*?)" defer></script>', script, page)
    policy = "; ".join(
        [
            "default-src 'none'",
            *(f"{k}-src " + " ".join(f"'sha256-{h}'" for h in hashes[k]) for k in hashes),
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    page = page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{meta}')
    title = html.escape(str(packed["name"]).encode(errors="replace").decode())
    page = page.replace("<title>Echospan</title>", f"<title>Echospan: {title}</title>")
    data = json.dumps([packed], separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return page.replace(
        "</body>", f'<script type="application/json" id="packed">{data}</script>\n</body>'
    )
