"""Makes pyjwt.json: tokens by PyJWT, for foreign_test.go.

    pip install 'PyJWT[crypto]'   # 2.15 made what is here
    python make.py > pyjwt.json

Keys are made anew by each run; only public ones are written. Times are fixed: the test's clock stands at noon of 2026-03-01.
"""
import base64, hashlib, hmac, json, secrets
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

NOON = 1772366400
CLAIMS = {"iss": "https://id.example", "aud": ["other", "streamgw"], "sub": "ann", "jti": "1", "iat": NOON - 60, "nbf": NOON - 60,
          "exp": NOON + 3600, "n": 9007199254740993, "streamgw": {"subscribe": [{"topic": "a", "keys": ["{sub}"]}]}}


def b64(b):
    return base64.urlsafe_b64encode(b).rstrip(b"=").decode()


def make_key(alg):
    if alg.startswith("HS"):
        return secrets.token_hex(40)
    if alg.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    if alg.startswith("ES"):
        return ec.generate_private_key({"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}[alg]())
    return ed25519.Ed25519PrivateKey.generate()


def public(key):
    if isinstance(key, str):
        return key
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def without(*names):
    return {k: v for k, v in CLAIMS.items() if k not in names}


def resign(alg, key, header, payload):
    """Signs what PyJWT wouldn't."""
    text = b64(json.dumps(header).encode()) + "." + payload
    raw = jwt.get_algorithm_by_name(alg).sign(text.encode(), jwt.get_algorithm_by_name(alg).prepare_key(key))
    return text + "." + b64(raw)


def bad(alg, key):
    good = jwt.encode(CLAIMS, key, alg, {"kid": "k"})
    head, payload, signature = good.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[len(raw) // 2] ^= 1
    tokens = {
        "expired": jwt.encode({**CLAIMS, "exp": NOON - 31}, key, alg),
        "not yet": jwt.encode({**CLAIMS, "nbf": NOON + 31}, key, alg),
        "another audience": jwt.encode({**CLAIMS, "aud": "other"}, key, alg),
        "no audience": jwt.encode(without("aud"), key, alg),
        "another issuer": jwt.encode({**CLAIMS, "iss": "https://evil.example"}, key, alg),
        "no exp": jwt.encode(without("exp"), key, alg),
        "another key": jwt.encode(CLAIMS, make_key(alg), alg),
        "a flipped bit": head + "." + payload + "." + b64(bytes(raw)),
        "other claims": head + "." + b64(json.dumps({**CLAIMS, "sub": "bob"}).encode()) + "." + signature,
        "nobody signed": b64(b'{"alg":"none","typ":"JWT"}') + "." + payload + ".",
        "none, with a signature": b64(b'{"alg":"none","typ":"JWT"}') + "." + payload + "." + signature,
        "padded": head + "." + payload + "." + signature + "==",
        "an extension": resign(alg, key, {"alg": alg, "crit": ["b64"], "b64": True}, payload),
        "another kind": resign(alg, key, {"alg": alg, "typ": "at+jws"}, payload),
    }
    if alg.startswith("RS"):
        tokens["as another algorithm"] = resign("PS" + alg[2:], key, {"alg": "PS" + alg[2:]}, payload)
        text = b64(json.dumps({"alg": "HS256"}).encode()) + "." + payload
        mac = hmac.new(public(key).encode(), text.encode(), hashlib.sha256).digest()
        tokens["the public key as a secret"] = text + "." + b64(mac)
    if alg.startswith("ES"):
        half = len(base64.urlsafe_b64decode(signature + "==")) // 2
        whole = base64.urlsafe_b64decode(signature + "==")
        der = utils.encode_dss_signature(int.from_bytes(whole[:half], "big"), int.from_bytes(whole[half:], "big"))
        tokens["a signature in DER"] = head + "." + payload + "." + b64(der)
    return tokens


out = []
for alg in ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]:
    key = make_key(alg)
    entry = {"alg": alg, "key": public(key), "good": [jwt.encode(CLAIMS, key, alg, {"kid": "k"}), jwt.encode({**CLAIMS, "aud": "streamgw"}, key, alg)], "bad": bad(alg, key)}
    if not alg.startswith("HS"):
        jwk = jwt.get_algorithm_by_name(alg).to_jwk(key.public_key(), as_dict=True)
        entry["jwks"] = {"keys": [{**jwk, "kid": "k", "use": "sig"}]}
    out.append(entry)
print(json.dumps(out, indent=1))
