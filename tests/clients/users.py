"""Prints tokens as PyJWT makes them for users: `python users.py SECRET USER…` gives one a line, good for an hour."""

import sys
import time

import jwt

secret, *users = sys.argv[1:]
for user in users:
    claims = {"user_id": user, "email": f"{user}@nivo.example", "roles": ["user"], "exp": int(time.time()) + 3600}
    print(jwt.encode(claims, secret, "HS256"))
