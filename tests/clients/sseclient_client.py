"""PyPI `sseclient-py`, over requests."""

import requests
import sseclient

import resume


def listen(url, headers):
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url, headers={"Accept": "text/event-stream", **headers}, stream=True)
        response.raise_for_status()
        for event in sseclient.SSEClient(response).events():
            yield event.id, event.event, event.data


resume.run(listen, cut=requests.RequestException)
