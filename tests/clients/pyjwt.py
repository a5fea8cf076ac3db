"""Prints keys and tokens as PyJWT and cryptography make them: a JSON array of objects, one for each algorithm.

Each holds what the issuer would hand out (a secret, or a public key in PEM and as a JWK) and a token that is good
until 2100, for the user `u-<algorithm>`.
"""

import json

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

CLAIMS = {"exp": 4102444800, "iat": 1700000000, "nbf": 1700000000, "roles": ["user"], "permissions": ["wallets:read"]}


def case(algorithm, key, given):
    claims = {**CLAIMS, "user_id": f"u-{algorithm}", "email": "u@nivo.example"}
    return {
        "algorithm": algorithm,
        "token": jwt.encode(claims, key, algorithm, headers={"kid": algorithm}),
        **given,
    }


def public(algorithm, library, key):
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    jwk = {**json.loads(library.to_jwk(key.public_key())), "kid": algorithm, "alg": algorithm, "use": "sig"}
    return case(algorithm, key, {"pem": pem, "jwk": jwk})


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECRET = "correct horse battery staple " * 3

print(
    json.dumps(
        [case(algorithm, SECRET, {"secret": SECRET}) for algorithm in ("HS256", "HS384", "HS512")]
        + [
            public(algorithm, RSAAlgorithm, RSA)
            for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
        ]
        + [
            public("ES256", ECAlgorithm, ec.generate_private_key(ec.SECP256R1())),
            public("ES384", ECAlgorithm, ec.generate_private_key(ec.SECP384R1())),
            public("EdDSA", OKPAlgorithm, ed25519.Ed25519PrivateKey.generate()),
        ]
    )
)
