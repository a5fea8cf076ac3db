"""PyPI `httpx-sse`, over httpx."""

import httpx
import httpx_sse

import resume


def listen(url, headers):
    with httpx.Client(timeout=None, trust_env=False) as client:
        with httpx_sse.connect_sse(client, "GET", url, headers=dict(headers)) as source:
            for event in source.iter_sse():
                yield event.id, event.event, event.data


resume.run(listen, cut=httpx.TransportError)
