// Writes jose.json: tokens that npm's jose made, and bad ones, for TestForeignTokens (foreign_test.go).
//
//	npm install --no-save --no-package-lock --prefix internal/auth/testdata/foreign jose@6.2.18
//	node internal/auth/testdata/foreign/make.mjs
//
// Each run makes new keys and the same tokens of them. Private keys are never written; secrets of HS* are, and say what they
// are for. What jose refuses to make, since nobody should, is put together by hand with the keys that it made.
import { createHmac, KeyObject, sign as nodeSign, webcrypto } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import * as jose from 'jose'

const noon = new Date('2026-03-01T12:00:00Z') // when tests of tokens happen
const minutes = n => new Date(noon.getTime() + n * 60_000)
const issuer = 'https://id.example', audience = 'streamgw'

const algorithms = ['HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']

// another is another algorithm that the key fits, or for ES* one of the same kind.
function another(alg) {
  switch (alg.slice(0, 2)) {
    case 'Ed': return alg === 'EdDSA' ? 'Ed25519' : 'EdDSA'
    case 'RS': return 'PS' + alg.slice(2)
    case 'PS': return 'RS' + alg.slice(2)
    default: return alg.slice(0, 2) + { 256: '384', 384: '512', 512: '256' }[alg.slice(2)]
  }
}

async function newKey(alg, name) {
  if (alg.startsWith('HS')) {
    const text = `TEST ONLY: the secret of streamgw's tests, jose, ${alg}, ${name}`.padEnd(72, '.')
    const secret = new TextEncoder().encode(text)
    return { secret: true, text, private: secret, jwk: await jose.exportJWK(secret), kid: name }
  }
  const pair = await jose.generateKeyPair(alg, { extractable: true })
  const jwk = await jose.exportJWK(pair.publicKey)
  return {
    text: await jose.exportSPKI(pair.publicKey), private: pair.privateKey,
    jwk: { ...jwk, use: 'sig', alg }, kid: await jose.calculateJwkThumbprint(jwk),
  }
}

// signature is what jose's own would be, of any text.
async function signature(alg, key, text) {
  const bits = Number(alg.slice(2)), hash = `SHA-${bits}`
  if (key.secret) return createHmac(`sha${bits}`, key.private).update(text).digest()
  const by = {
    RS: 'RSASSA-PKCS1-v1_5', PS: { name: 'RSA-PSS', saltLength: bits / 8 }, ES: { name: 'ECDSA', hash }, Ed: 'Ed25519',
  }[alg.slice(0, 2)]
  return Buffer.from(await webcrypto.subtle.sign(by, key.private, Buffer.from(text)))
}

// setClaims takes those that a token must have, of which an undefined takes one away.
function setClaims(to, changed = {}) {
  const all = { iss: issuer, aud: audience, sub: 'user-1', exp: minutes(60), ...changed }
  to.setIssuer(all.iss).setAudience(all.aud).setSubject(all.sub)
  if (all.exp) to.setExpirationTime(all.exp)
  if (all.iat) to.setIssuedAt(all.iat)
  if (all.nbf) to.setNotBefore(all.nbf)
  if (all.jti) to.setJti(all.jti)
  return to
}

const encoded = value => jose.base64url.encode(Buffer.isBuffer(value) ? value : JSON.stringify(value))

// padded is base64url with the = that RFC 7515 section 2 leaves out; JSON may end in spaces so that there are some.
function padded(value) {
  let text = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value))
  if (!Buffer.isBuffer(value) && text.length % 3 === 0) text = Buffer.concat([text, Buffer.from(' ')])
  return text.toString('base64').replaceAll('+', '-').replaceAll('/', '_')
}

async function tokens(alg) {
  const [key, other, stranger] = [await newKey(alg, 'first'), await newKey(alg, 'second'), await newKey(alg, 'stranger')]
  const make = (changed, { by = key, kid = key.kid, more = {} } = {}) =>
    setClaims(new jose.SignJWT(more), changed).setProtectedHeader(kid ? { alg, kid } : { alg }).sign(by.private)
  const signed = async (text, as = alg) => `${text}.${encoded(await signature(as, key, text))}`

  const [header, payload, sum] = (await make()).split('.')
  const flipped = Buffer.from(sum, 'base64url')
  flipped[flipped.length >> 1] ^= 1
  const head = { alg, kid: key.kid }
  const changed = encoded({ ...head, alg: another(alg) })
  const extension = 'https://example.com/x'
  const bad = {
    'expired': await make({ exp: minutes(-1) }),
    'not valid yet': await make({ nbf: minutes(1) }),
    'another audience': await make({ aud: 'billing' }),
    'another issuer': await make({ iss: 'https://other.example' }),
    'no exp': await make({ exp: undefined }),
    'signed by another key': await make({}, { by: stranger }),
    'a bit of the signature flipped': `${header}.${payload}.${encoded(flipped)}`,
    'claims of another token': `${header}.${(await make({ sub: 'admin' })).split('.')[1]}.${sum}`,
    'alg changed': `${changed}.${payload}.${sum}`,
    'alg none': setClaims(new jose.UnsecuredJWT({})).encode(),
    'unknown crit': await new jose.CompactSign(Buffer.from(payload, 'base64url'))
      .setProtectedHeader({ ...head, crit: [extension], [extension]: true }).sign(key.private, { crit: { [extension]: true } }),
    'kid of another key': await make({}, { kid: other.kid }),
  }
  const text = `${padded(head)}.${padded(JSON.parse(Buffer.from(payload, 'base64url')))}`
  bad['padded base64'] = `${text}.${padded(await signature(alg, key, text))}`
  if (!alg.startsWith('Ed')) { // whose two names mean the same
    bad['alg changed, and signed so'] = await signed(`${changed}.${payload}`)
  }
  if (!key.secret) {
    const confused = `${encoded({ ...head, alg: 'HS256' })}.${payload}`
    bad['HMAC with the public key'] = `${confused}.${encoded(createHmac('sha256', key.text).update(confused).digest())}`
  }
  if (alg.startsWith('ES')) {
    const der = nodeSign(`sha${alg.slice(2)}`, Buffer.from(`${header}.${payload}`), { key: KeyObject.from(key.private), dsaEncoding: 'der' })
    bad['signature in DER'] = `${header}.${payload}.${encoded(der)}`
  }

  const rich = { jti: 'id-1', iat: minutes(-1), nbf: minutes(-1) }
  const more = {
    level: 3, share: 0.5, name: 'Zoë 漢字 😀', roles: ['reader', 'writer'],
    org: { id: 9007199254740991, trial: false, parent: null },
  }
  return {
    kid: key.kid,
    key: key.text,
    jwks: { keys: [other, key].map(k => ({ kid: k.kid, ...k.jwk })) },
    good: {
      'as usual': await make(rich, { more }),
      'no kid': await make(rich, { more, kid: '' }),
      'several audiences': await make({ ...rich, aud: ['billing', audience] }, { more }),
    },
    bad,
  }
}

const installed = new URL('node_modules/jose/package.json', import.meta.url)
const made = { by: `jose ${JSON.parse(readFileSync(installed)).version}, Node ${process.version}`, now: noon / 1000, algorithms: {} }
for (const alg of algorithms) made.algorithms[alg] = await tokens(alg)
writeFileSync(new URL('jose.json', import.meta.url), JSON.stringify(made, null, 1) + '\n')
