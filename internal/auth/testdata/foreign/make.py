"""Writes pyjwt.json: tokens that PyJWT made, and bad ones, for TestForeignTokens (foreign_test.go).

    python3 -m venv .cache/foreign
    .cache/foreign/bin/pip install 'PyJWT[crypto]==2.15.1' 'cryptography==50.0.2'
    .cache/foreign/bin/python internal/auth/testdata/foreign/make.py

Each run makes new keys and the same tokens of them. Private keys are never written; secrets of HS* are, and say what they are
for. What PyJWT refuses to make, since nobody should, is put together by hand with its own signing functions.
"""

import hashlib
import hmac
import json
import pathlib
import platform
from datetime import datetime, timedelta, timezone

import cryptography
import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.utils import base64url_decode, base64url_encode

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)  # when tests of tokens happen
ISSUER, AUDIENCE = "https://id.example", "streamgw"
KID, OTHER_KID = "pyjwt-1", "pyjwt-2"

ALGORITHMS = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def another(alg):
    """Another algorithm that the key fits, or for ES* one of the same kind."""
    if alg == "EdDSA":
        return "Ed25519"
    if alg[0] in "RP":
        return {"R": "P", "P": "R"}[alg[0]] + alg[1:]
    return alg[:2] + {"256": "384", "384": "512", "512": "256"}[alg[2:]]


def new_key(alg, name):
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg]())
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if alg.startswith("HS"):
        return f"TEST ONLY: the secret of streamgw's tests, PyJWT, {alg}, {name}".ljust(72, ".")
    return rsa.generate_private_key(65537, 2048)


def claims(**changed):
    """Those that a token must have, of which a None takes one away."""
    every = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "exp": NOON + timedelta(hours=1)} | changed
    return {name: value for name, value in every.items() if value is not None}


def encoded(value):
    if isinstance(value, dict):
        value = json.dumps({k: int(v.timestamp()) if isinstance(v, datetime) else v for k, v in value.items()}).encode()
    return base64url_encode(value).decode()


def tokens(alg):
    key, other, stranger = (new_key(alg, name) for name in ("first", "second", "stranger"))
    method = jwt.get_algorithm_by_name(alg)
    secret = alg.startswith("HS")
    public = {k: k if secret else k.public_key() for k in (key, other)}

    def make(with_claims, signed_by=key, kid=KID):
        return jwt.encode(with_claims, signed_by, algorithm=alg, headers={"kid": kid} if kid else None)

    def signed(text, by=lambda text: method.sign(text, method.prepare_key(key))):
        return text + "." + encoded(by(text.encode()))

    good = make(claims())
    header, payload, signature = good.split(".")
    flipped = bytearray(base64url_decode(signature))
    flipped[len(flipped) // 2] ^= 1
    head = {"typ": "JWT", "alg": alg, "kid": KID}
    changed = encoded(head | {"alg": another(alg)})
    bad = {
        "expired": make(claims(exp=NOON - timedelta(minutes=1))),
        "not valid yet": make(claims(nbf=NOON + timedelta(minutes=1))),
        "another audience": make(claims(aud="billing")),
        "another issuer": make(claims(iss="https://other.example")),
        "no exp": make(claims(exp=None)),
        "signed by another key": make(claims(), signed_by=stranger),
        "a bit of the signature flipped": f"{header}.{payload}.{encoded(bytes(flipped))}",
        "claims of another token": f"{header}.{make(claims(sub='admin')).split('.')[1]}.{signature}",
        "alg changed": f"{changed}.{payload}.{signature}",
        "alg none": jwt.encode(claims(), None, algorithm="none", headers={"kid": KID}),
        "unknown crit": signed(encoded(head | {"crit": ["https://example.com/x"], "https://example.com/x": True}) + "." + payload),
        "kid of another key": make(claims(), kid=OTHER_KID),
    }
    # With the = that RFC 7515 section 2 leaves out in each part, as far as the signature's length wants any.
    padded = []
    for part in (head, claims()):
        text = encoded(part)
        for n in range(2):  # JSON may end in spaces
            if len(text) % 4 == 0:
                text = encoded(base64url_decode(text) + b" ")
        padded.append(text + "=" * (-len(text) % 4))
    padded = signed(".".join(padded))
    bad["padded base64"] = padded + "=" * (-len(padded.rpartition(".")[2]) % 4)
    if alg != "EdDSA":  # of which Ed25519 is only another name
        bad["alg changed, and signed so"] = signed(f"{changed}.{payload}")
    if not secret:
        pem = public[key].public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        confused = encoded(head | {"alg": "HS256"}) + "." + payload
        bad["HMAC with the public key"] = signed(confused, lambda text: hmac.digest(pem, text, hashlib.sha256))
    if alg in CURVES:
        digest = {"ES256": hashes.SHA256, "ES384": hashes.SHA384, "ES512": hashes.SHA512}[alg]
        bad["signature in DER"] = signed(f"{header}.{payload}", lambda text: key.sign(text, ec.ECDSA(digest())))

    rich = claims(jti="id-1", iat=NOON - timedelta(minutes=1), nbf=NOON - timedelta(minutes=1), level=3, share=0.5,
                  name="Zoë 漢字 😀", roles=["reader", "writer"], org={"id": 9007199254740991, "trial": False, "parent": None})
    return {
        "kid": KID,
        "key": key if secret else pem.decode(),
        "jwks": {"keys": [{"kid": kid} | method.to_jwk(public[k], as_dict=True) for kid, k in ((OTHER_KID, other), (KID, key))]},
        "good": {
            "as usual": make(rich),
            "no kid": make(rich, kid=None),
            "several audiences": make(rich | {"aud": ["billing", AUDIENCE]}),
        },
        "bad": bad,
    }


made = {
    "by": f"PyJWT {jwt.__version__}, cryptography {cryptography.__version__}, Python {platform.python_version()}",
    "now": int(NOON.timestamp()),
    "algorithms": {alg: tokens(alg) for alg in ALGORITHMS},
}
to = pathlib.Path(__file__).with_name("pyjwt.json")
to.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
