#!/usr/bin/env python3
"""PyJWT signs tokens with new keys of every asymmetric algorithm, and `callgate explain` verifies them with the public
key. Genuine tokens are allowed. Tokens for another path, with a changed signature, or with another key are denied."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

KINDS = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    **{name: lambda: rsa.generate_private_key(65537, 2048) for name in ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512")},
}


def config(algorithm, public_key):
    token = {"kind": "jwt", "keys": [{"algorithm": algorithm, "public_key": {"file": public_key}}], "issuer": "issuer",
             "audience": "agent", "bind": {"id": "sub"}}
    return {"listen": {"ingress": [{"address": "127.0.0.1:0"}]}, "agent": {"address": "127.0.0.1:1"},
            "routes": [{"name": "r", "path": "/w/{id}", "forward": "/in/{id}", "token": token}]}


def flipped(token):
    """Returns the token with one bit of its signature flipped, in the middle, where every bit is significant."""
    at = len(token) - 20
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    callgate = parser.parse_args().callgate.resolve()
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        for algorithm, generate in KINDS.items():
            key, foreign = generate(), generate()
            public = key.public_key().public_bytes(serialization.Encoding.PEM,
                                                   serialization.PublicFormat.SubjectPublicKeyInfo)
            pathlib.Path(path("public.pem")).write_bytes(public)
            pathlib.Path(path("callgate.yaml")).write_text(json.dumps(config(algorithm, path("public.pem"))))
            claims = {"iss": "issuer", "aud": "agent", "sub": "1", "exp": int(time.time()) + 60}
            sign = lambda claims, key: jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "any"})
            genuine = sign(claims, key)
            for token, wanted in [(genuine, None), (flipped(genuine), "token_forged"), (sign(claims, foreign), "token_forged"),
                                  (sign({**claims, "sub": "2"}, key), "token_binding")]:
                request = f"POST /w/1 HTTP/1.1\nHost: agent\nAuthorization: Bearer {token}\n\n"
                pathlib.Path(path("request.http")).write_text(request)
                out = subprocess.run([callgate, "explain", "-c", path("callgate.yaml"), "--request", path("request.http"),
                                      "--json"], capture_output=True, text=True)
                said = json.loads(out.stdout)["reason"]
                if said != wanted:
                    sys.exit(f"{algorithm}: {said} instead of {wanted}")
            print(f"{algorithm}: accepted, and refused under another key, for another path, with a changed signature")
    return 0


if __name__ == "__main__":
    sys.exit(main())
